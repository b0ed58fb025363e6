"""Markdown tables and the numbers in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.report_numbers import MISSING, format_number

__all__ = ["counted", "format_number", "hours", "percent", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def percent(share: float) -> str:
    """``0.9871 -> '98.7%'``."""
    return f"{100 * share:.1f}%".replace("-", "\N{MINUS SIGN}") if math.isfinite(share) else MISSING


def hours(seconds: float) -> str:
    """``5400 -> '1.5 hours'``, and minutes below one hour."""
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def counted(count: int, word: str) -> str:
    """``2, "seed" -> '2 seeds'``."""
    return f"{count} {word}{'s' if count != 1 else ''}"
