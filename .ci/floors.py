"""Print the lowest version of everything that pyproject.toml asks for, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
requirements = [
    *project["dependencies"],
    *(text for extra in project["optional-dependencies"].values() for text in extra),
]
for requirement in requirements:
    if found := re.match(r"([A-Za-z0-9._-]+)(?:\[.*?\])?>=([0-9.]+)", requirement):
        print(f"{found[1]}=={found[2]}")
    elif not requirement.startswith("offsim"):  # an extra that names another
        raise SystemExit(f"pyproject.toml: {requirement} has no lowest version")
