"""Stages of an earlier run that a new one, with other settings for what follows, need not train again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from app.configuration import comparable
from app.errors import UserError
from app.experiments.shared import SharedStage, shared_stages_of
from app.run_folder import is_finished
from datamodules.sources import data_facts, resolve


def usable_stages(configuration: DictConfig, earlier: Path) -> tuple[list[SharedStage], str | None]:
    """Finished stages of a run that a configuration would train the same.

    Args:
        configuration: of the new run.
        earlier: folder of the other run.

    Returns:
        The stages, in their order, and why the next one is not among them, if there is a next one.

    Raises:
        UserError: if there is no such run, or none of its stages can be used.
    """
    other = _configuration_of(earlier)
    _refuse_other_data(configuration, earlier)
    theirs = {stage.name: stage for stage in shared_stages_of(other, earlier)}
    usable: list[SharedStage] = []
    reason = None
    for stage in shared_stages_of(configuration, earlier):
        reason = _why_not(stage, theirs.get(stage.name), earlier)
        if reason is not None:
            break
        usable.append(replace(stage, folder=earlier))
    if not usable:
        raise UserError(
            f"no stage of {earlier} can be taken over: {reason or 'this run has no stage before the policy'}"
        )
    return usable, reason


def _why_not(stage: SharedStage, other: SharedStage | None, earlier: Path) -> str | None:
    name = stage.name.replace("_", " ")
    if other is None or not is_finished(earlier, stage.name):
        return f"its {name} is not finished"
    if not (earlier / stage.name).is_dir():
        return f"the folder of its {name} is gone"
    mine, theirs = (_flat(comparable(each.settings)) for each in (stage, other))
    key = next((key for key in mine | theirs if mine.get(key) != theirs.get(key)), None)
    if key is None:
        return None
    told = [_flat(each.settings).get(key, "nothing") for each in (other, stage)]
    return f"its {name} has {key}: {told[0]}, where this run has {told[1]}"


def _flat(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """``{a: {b: 1}} -> {a.b: 1}``."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inside = isinstance(value, Mapping) and value
        found |= _flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return found


def _configuration_of(folder: Path) -> DictConfig:
    path = folder / "config.yaml"
    try:
        found = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"cannot read {path} ({error}): give the folder of a run of one seed") from error
    complete = isinstance(found, DictConfig) and all(found.get(name) is not None for name in ("seed", "stages", "data"))
    groups = [found.get(name) for name in found.stages] if complete else [None]
    if not all(isinstance(group, DictConfig) for group in groups):
        raise UserError(f"{path} is not the configuration of a run of `offsim train`")
    return cast(DictConfig, found)


def _refuse_other_data(configuration: DictConfig, earlier: Path) -> None:
    """Refuse a run whose data has been recorded anew under the same id since, as far as it tells."""
    expert, diverse = configuration.data.expert, configuration.data.diverse or []
    named = {*([expert] if isinstance(expert, str) else expert), *([diverse] if isinstance(diverse, str) else diverse)}
    for row in _data_of(earlier):
        if row["id"] in named and data_facts(resolve(row["id"]))["sha256"] != row["sha256"]:
            raise UserError(f"{row['id']} is no longer the data that {earlier} was trained on: train every stage anew")


def _data_of(earlier: Path) -> Iterator[Mapping[str, Any]]:
    path = earlier / "metrics.json"
    if not path.is_file():
        return  # written at the end of a run, and so not there yet
    try:
        yield from ({"id": row["id"], "sha256": row["sha256"]} for row in json.loads(path.read_text())["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): repeat the command of that run") from error
