"""What this package raises when data cannot be used as asked."""

from __future__ import annotations


class DataError(Exception):
    """Data that is missing, damaged, or does not fit; the message names it and says what to do."""
