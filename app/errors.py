"""What a command raises when the person running it can put things right."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a command or a file it names; the message is one sentence saying what to do about it."""
