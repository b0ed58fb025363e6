"""``torch.compile`` for the hot functions of the methods."""

from __future__ import annotations

import functools
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])
CHOICES = ("auto", "always", "never")
# What a process that was ended while it compiled leaves behind cannot be loaded, by any later one either
DAMAGED = re.compile(r"(/\S+\.so): (?:file too short|invalid ELF header|cannot read file data)")
MOST_DAMAGED = 20  # of one function; a full disk damages them all


def compiler_at_hand() -> bool:
    """Whether a C++ compiler is found, which ``torch.compile`` needs."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def compiled(function: Function, choice: str) -> Function:
    """The function, compiled on its first call if the choice is ``always``, or ``auto`` and there is a compiler.

    With ``auto``, a compilation that fails leaves a warning and the function as it was.

    Raises:
        ValueError: if the choice is another, or ``always`` and there is no compiler.
    """
    if choice not in CHOICES:
        raise ValueError(f"unknown choice {choice!r} for compile: choose {', '.join(CHOICES)}")
    if choice == "always" and not compiler_at_hand():
        raise ValueError("compile: always needs a C++ compiler such as g++; install one or choose auto or never")
    if choice == "never" or not compiler_at_hand():
        return function
    fast = _without_damage(cast(Function, torch.compile(function)))
    return fast if choice == "always" else _or_else(fast, function)


def _without_damage(fast: Function) -> Function:
    """``fast``, compiled again where the cache of compiled functions held a damaged one."""

    @functools.wraps(fast)
    def call(*arguments: Any, **named: Any) -> Any:
        for _ in range(MOST_DAMAGED):
            try:
                return fast(*arguments, **named)
            except torch._dynamo.exc.TorchDynamoException as error:
                if not _remove_damaged(str(error)):
                    raise
        return fast(*arguments, **named)

    return cast(Function, call)


def _remove_damaged(message: str) -> bool:
    """Remove the library that an error says cannot be loaded, if it is one of the cache; whether it was."""
    found = DAMAGED.search(message)
    if found is None:
        return False
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # which takes long to import, and is there by now

    library, cache = Path(found[1]), Path(cache_dir()).resolve()
    if cache not in library.resolve().parents or not library.exists():
        return False
    library.unlink()
    return True


def _or_else(fast: Function, plain: Function) -> Function:
    """``fast`` until it cannot be compiled, then ``plain`` for good."""
    chosen = fast

    @functools.wraps(plain)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal chosen
        try:
            return chosen(*arguments, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            if chosen is plain:
                raise
            warnings.warn(f"torch.compile failed, continuing without it: {error}", stacklevel=2)
            chosen = plain
            return plain(*arguments, **named)

    return cast(Function, call)
