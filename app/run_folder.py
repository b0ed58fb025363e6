"""The folder of a run: whose it is, and which stages in it are done."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from app.configuration import STAGES, comparable
from app.errors import UserError

NOTED = "stages.json"
SHARED, DEVICES, RATES = "shared", "devices", "rate_factors"  # keys in it beside those of the stages


def claim_folder(configuration: DictConfig, folder: Path) -> None:
    """Make a run folder this configuration's, unless it is another's.

    Raises:
        UserError: saying what the folder holds.
    """
    saved = folder / "config.yaml"
    if holds_another(configuration, folder):
        raise UserError(
            f"{folder} holds a run with another configuration: choose another --out, or repeat that run's command "
            "to continue it"
        )
    if not saved.exists() and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(saved, OmegaConf.to_yaml(configuration))


def holds_another(configuration: DictConfig, folder: Path) -> bool:
    """Whether a folder is that of a run with another configuration, in what its stages read."""
    saved = folder / "config.yaml"
    if not saved.exists():
        return False
    try:
        found = OmegaConf.load(saved)
    except (YAMLError, OSError, UnicodeDecodeError):  # damaged, so nobody knows whose it is
        return True
    return _read_by_stages(found) != _read_by_stages(configuration)


def configuration_of(folder: Path, needed: Sequence[str], advice: str = "") -> DictConfig:
    """The configuration of a run.

    Args:
        folder: of the run.
        needed: settings or groups that it has to have.
        advice: what to do if there is none.

    Raises:
        UserError: if it cannot be read, or is none of a run.
    """
    path = folder / "config.yaml"
    try:
        found = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"cannot read {path}: {error}{advice}") from error
    if not isinstance(found, DictConfig) or any(found.get(name) is None for name in needed):
        raise UserError(f"{path} is not the configuration of a run of `offsim train`")
    return found


def _read_by_stages(configuration: Any) -> dict[Any, Any]:
    settings = OmegaConf.to_container(configuration)
    if not isinstance(settings, dict):
        return {}
    unread = [name for name in STAGES if name not in (settings.get("stages") or STAGES)]
    return {name: value for name, value in comparable(settings).items() if name not in unread}


def finished_stages(folder: Path) -> dict[str, float]:
    """Seconds that each finished stage of a run took, shared ones included.

    Raises:
        UserError: if the file that says so is damaged.
    """
    return {name: seconds for name, seconds in _noted(folder).items() if name not in (SHARED, DEVICES, RATES)}


def is_finished(folder: Path, stage: str) -> bool:
    """Whether a stage of a run is done, and the model that it left still there."""
    return stage in finished_stages(folder) and (folder / f"{stage}.safetensors").exists()


def shared_stages(folder: Path) -> dict[str, str]:
    """For each stage of a run that was trained once for several runs, the folder it was trained in."""
    return dict(_noted(folder).get(SHARED, {}))


def devices(folder: Path) -> dict[str, str]:
    """What each stage of a run was trained on, such as ``CPU`` or the name of a GPU, as far as that is noted."""
    return dict(_noted(folder).get(DEVICES, {}))


def rate_factors(folder: Path) -> dict[str, float]:
    """Stages that diverged and went on slower (``--retries``), and the share of their learning rates that was left."""
    return dict(_noted(folder).get(RATES, {}))


def note_stage(
    folder: Path,
    name: str,
    seconds: float,
    shared: str | None = None,
    device: torch.device | str | None = None,
    rate_factor: float = 1.0,
) -> None:
    """Record that a stage of a run is done.

    Args:
        folder: of the run.
        name: of the stage.
        seconds: that it took.
        shared: name of the folder it was trained in for several runs.
        device: what it was trained on.
        rate_factor: share of its learning rates that it ended with.
    """
    noted = {**_noted(folder), name: round(seconds, 1)}
    if shared is not None:
        noted[SHARED] = {**noted.get(SHARED, {}), name: shared}
    if device is not None:
        noted[DEVICES] = {**noted.get(DEVICES, {}), name: _name_of(device)}
    if rate_factor != 1.0:
        noted[RATES] = {**noted.get(RATES, {}), name: rate_factor}
    write_whole(folder / NOTED, json.dumps(noted))


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is never seen half-written, whatever interrupts it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _name_of(device: torch.device | str) -> str:
    if isinstance(device, str):
        return device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def _noted(folder: Path) -> dict[str, Any]:
    path = folder / NOTED
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it, and the same command goes on from the checkpoints of the stages"
        ) from error
