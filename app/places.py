"""Whether what a command will have to say can be written where it is asked for, before it begins to work."""

from __future__ import annotations

import os
from pathlib import Path

from app.errors import UserError


def refuse_unwritable_file(path: Path) -> None:
    """Make sure that a file can be written, without writing it; folders above it are made.

    Raises:
        UserError: saying why not.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file")
    refuse_unwritable_folder(path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{path} may not be written to: name another file")


def refuse_unwritable_folder(path: Path) -> None:
    """Make sure that files can be written into a folder, which is made if it does not exist.

    Raises:
        UserError: saying why not.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be a folder to write to ({error.strerror}): name another place") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"nothing can be written to {path}: name another place")
