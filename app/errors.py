"""What a command raises when the person running it can put things right, or has ended it."""

from __future__ import annotations

import signal
from pathlib import Path


class UserError(Exception):
    """A mistake in a command or a file it names; the message is one sentence saying what to do about it."""


class Interrupted(Exception):
    """A training that a signal ended, after its checkpoint was written.

    Attributes:
        signal: which one.
        checkpoint: the file to continue from.
        speaks: whether this is the only process of the training, or the one of them that tells of it.
        found: whether the same command goes on from it, whichever it is; if not, that of Lightning has to name it.
    """

    def __init__(self, number: int, checkpoint: Path, speaks: bool = True, found: bool = False) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; {checkpoint} holds everything up to now")
        self.signal = signal.Signals(number)
        self.checkpoint = checkpoint
        self.speaks = speaks
        self.found = found

    @property
    def status(self) -> int:
        """The exit status that shells expect of a process that this signal ended."""
        return 128 + int(self.signal)
