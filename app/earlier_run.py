"""Stages of an earlier run that a new one, with other settings for what follows, need not train again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from app.configuration import comparable, flat
from app.errors import UserError
from app.experiments.shared import SharedStage, shared_stages_of
from app.run_data import refuse_other_data
from app.run_folder import configuration_of, is_finished, rate_factors


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
    other = configuration_of(earlier, ["seed", "stages", "data"], "; give the folder of a run of one seed")
    if not all(isinstance(other.get(name), DictConfig) for name in other.stages):
        raise UserError(f"{earlier / 'config.yaml'} is not the configuration of a run of `offsim train`")
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
    refuse_other_data(earlier, "train every stage anew")
    return usable, reason


def _why_not(stage: SharedStage, other: SharedStage | None, earlier: Path) -> str | None:
    name = stage.name.replace("_", " ")
    if other is None:
        return f"it has no {name}"
    if not is_finished(earlier, stage.name):
        return f"its {name} is not finished"
    if not (earlier / stage.name).is_dir():
        return f"the folder of its {name} is gone"
    if stage.name in (slower := rate_factors(earlier)):
        return f"its {name} diverged and ended at {slower[stage.name]:g} times its learning rates (--retries)"
    mine, theirs = (flat(comparable(each.settings)) for each in (stage, other))
    key = next((key for key in mine | theirs if mine.get(key) != theirs.get(key)), None)
    if key is None:
        return None
    told = [flat(each.settings).get(key, "nothing") for each in (other, stage)]
    return f"its {name} has {key}: {told[0]}, where this run has {told[1]}"
