"""Programs of this project that a command starts, wherever it was called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import app


def finding_this_package(environment: Mapping[str, str]) -> dict[str, str]:
    """The same variables, with which ``python -m app...`` imports the package that runs now.

    Python would look in the working directory first, where a user's own folder may be called ``zoo`` or ``app``.
    """
    root = str(Path(str(app.__file__)).parents[1])
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
