"""What a person sees of warnings: those of this project as sentences, those of libraries if they tell something."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

PACKAGES = ("app", "lit_modules", "datamodules", "zoo")
_FOLDERS = tuple(f"{Path(__file__).parents[1] / name}{os.sep}" for name in PACKAGES)
_usual = warnings.formatwarning
_shown: set[str] = set()


def set_up_warnings() -> None:
    """Silence notices of libraries that tell a user nothing; show those of this project once each and as sentences."""
    _quiet_libraries()
    warnings.formatwarning = _format_warning


def _quiet_libraries() -> None:
    os.environ.setdefault("RL_WARNINGS", "False")
    os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")
    for message in (
        r".*LeafSpec.*",
        r".*pre-optimization state.*",
        r".*does not have many workers.*",
        r".*in eval mode at the start of training.*",
        r".*exists and is not empty.*",
        r".*was deprecated in v4.*",
        r".*skip_none parameter was deprecated.*",
        r".*TensorFloat32 tensor cores.*",  # matmul_precision is what decides
        r".*`srun` command is available.*",  # what waits for ever without it is refused (app/slurm.py)
    ):
        warnings.filterwarnings("ignore", message=message)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torchrl.*")


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if category is not UserWarning or not filename.startswith(_FOLDERS):
        return _usual(message, category, filename, lineno, line)
    text = f"offsim: warning: {message}\n"
    if text in _shown:
        return ""
    _shown.add(text)
    return text
