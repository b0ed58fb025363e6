"""Readers of command line values that several commands share."""

from __future__ import annotations

import argparse

from app.errors import UserError
from zoo.tasks import Task, get_task


def positive(text: str) -> int:
    """A whole number of at least one, for ``argparse``."""
    value = int(text) if text.strip().isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return value


def not_negative(text: str) -> float:
    """A finite number of at least zero, for ``argparse``."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least zero")
    return value


def seed(text: str) -> int:
    """A seed from 0 to 2^31 - 1, for ``argparse``."""
    value = int(text) if text.strip().isdecimal() else -1
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**31 - 1}")
    return value


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        UserError: naming the tasks that exist.
    """
    try:
        return get_task(name)
    except KeyError as error:
        raise UserError(str(error.args[0])) from error
