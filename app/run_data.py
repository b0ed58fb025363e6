"""Which data a run was trained on: under the same id other data may have been recorded since."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from app.errors import UserError
from app.run_folder import write_whole
from datamodules.cache import default_cache_dir
from datamodules.sources import data_facts, resolve

NOTED = "data.json"


def keep_to_data(configuration: DictConfig, folder: Path) -> None:
    """Note which data a run, or a stage of several runs, begins with, and refuse to go on with other data.

    Args:
        configuration: of the run.
        folder: of the run.

    Raises:
        UserError: naming the dataset that is another one now.
    """
    refuse_other_data(folder, "choose another --out, or train every stage anew")
    if not (folder / NOTED).exists():
        hashes = {name: _hash(name) for group in ("expert", "diverse") for name in _listed(configuration.data[group])}
        write_whole(folder / NOTED, json.dumps(hashes, indent=1))


def refuse_other_data(folder: Path, advice: str) -> None:
    """Refuse a run whose data has been recorded anew under the same id since, as far as it tells.

    Args:
        folder: of the run.
        advice: what to do then.

    Raises:
        UserError: naming the dataset.
    """
    for name, noted in _noted(folder).items():
        if _hash(name) != noted:
            raise UserError(f"{name} is no longer the data that {folder} was trained on: {advice}")


def _noted(folder: Path) -> dict[str, str]:
    """SHA-256 of each dataset by its id; runs of before say so at their end alone, unfinished ones not at all."""
    for path in (folder / NOTED, folder / "metrics.json"):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text())
            return dict(content) if path.name == NOTED else {row["id"]: row["sha256"] for row in content["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): remove it, and repeat the command of that run") from error
    return {}


def _hash(name: str) -> str:
    source = resolve(name)
    told = f", exogenous {list(source.exogenous)}" if source.exogenous else ""  # which is beside the file
    return str(data_facts(source, default_cache_dir())["sha256"]) + told


def _listed(names: str | ListConfig) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
