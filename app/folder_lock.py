"""One command at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import UserError

LOCK = ".lock"


@contextmanager
def locked(folder: Path, command: str) -> Iterator[int]:
    """Hold a folder; yields the lock's file descriptor, which processes that inherit it hold as well.

    Args:
        folder: which one; it is made if it is not there.
        command: that works in it, for the message.

    Raises:
        UserError: if another command, or a process that it left behind, works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another `{command}`, or a process it left behind, works in {folder}: wait for it, or choose "
                "another --out"
            ) from error
        yield file.fileno()
