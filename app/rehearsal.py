"""All stages of a run made once with networks that have learned nothing, so that settings fail before hours of work."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from app.errors import UserError
from app.export import learned
from app.pipeline import check_updates, make_data, make_module
from app.trainers import make_trainer
from lit_modules.offsim import OffSim
from lit_modules.spaces import refuse_other_task
from zoo import Simulator
from zoo.start_states import StartStates


def rehearse(configuration: DictConfig) -> None:
    """Make a trainer, and the data module and the module of every stage.

    Raises:
        UserError: naming the stage whose settings cannot be.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            make_trainer(folder, 1, accelerator=configuration.accelerator, devices=configuration.devices, loggers=[])
        except (ImportError, TypeError, ValueError, MisconfigurationException) as error:
            raise UserError(f"accelerator and devices: {error}") from error
        for stage in configuration.stages:
            check_updates(f"{stage}.updates", configuration[stage].updates)
            data = make_data(configuration, stage)
            refuse_other_task(configuration.task, data)
            try:
                module = make_module(configuration, folder, stage, data)
                updates = configuration[stage].updates
                made = _untrained(module, updates) if isinstance(module, OffSim) else learned(module, data)
            except (TypeError, ValueError) as error:
                raise UserError(f"{stage}.model: {error}") from error
            made.save(folder / f"{stage}.safetensors")


@torch.no_grad()
def _untrained(module: OffSim, updates: int) -> Simulator:
    given = module.hparams
    observation = torch.zeros(2, given["observation_size"])
    simulator = Simulator(
        module.transition,
        module.reward,
        module.termination,
        StartStates.of(observation),
        list(given["action_low"]),
        list(given["action_high"]),
        uncertainty=given["uncertainty"],
        task=given["task"],
        aggregation=given["aggregation"],
        horizon=1 if given["task"] is None else None,
        reward_learned=updates > given["pretraining_updates"],
    )
    module.reward.low.fill_(-1.0)
    module.reward.high.fill_(1.0)
    simulator.calibrate_uncertainty(observation, torch.zeros(2, len(given["action_low"])))
    return simulator
