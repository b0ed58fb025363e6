"""Numbers of a report: read from JSON that may hold anything, and written for people."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from app.figures import Numbers

MISSING = "\N{EN DASH}"


def number(value: object) -> float:
    """A float; NaN for whatever is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def numbers(values: object) -> Numbers:
    """A vector; empty for whatever is no list."""
    return np.array([number(value) for value in values] if isinstance(values, list) else [], dtype=np.float64)


def table(rows: list[object]) -> Numbers:
    """A matrix of shape ``(rows, columns)``."""
    return np.array([numbers(row) for row in rows], dtype=np.float64)


def groups(part: Mapping[str, object]) -> dict[str, Numbers]:
    return {label: numbers(values) for label, values in part.items()}


def format_number(value: object) -> str:
    """Thousands separated, four significant digits below that, a dash for what is no finite number."""
    amount = number(value)
    if not math.isfinite(amount):
        return MISSING
    text = f"{amount:,.0f}" if abs(amount) >= 1000 else f"{amount:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    return f"{100 * share:.0f}%".replace("-", "\N{MINUS SIGN}") if math.isfinite(share) else MISSING


def duration(seconds: object) -> str:
    """``4350 -> '1 h 12 min'``."""
    amount = number(seconds)
    if not math.isfinite(amount):
        return MISSING
    if amount < 60:
        return f"{amount:.1f} s"
    minutes, rest = divmod(round(amount), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
