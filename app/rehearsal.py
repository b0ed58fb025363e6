"""All stages of a run made once with networks that have learned nothing, so that settings fail before hours of work."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from app.errors import UserError
from app.export import learned
from app.pipeline import make_data, make_module
from app.trainers import make_trainer
from lit_modules.offsim import OffSim
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
        except (ValueError, MisconfigurationException) as error:
            raise UserError(f"accelerator and devices: {error}") from error
        for stage in configuration.stages:
            data = make_data(configuration, stage)
            try:
                module = make_module(configuration, folder, stage, data)
                made = _untrained(module) if isinstance(module, OffSim) else learned(module, data)
            except (TypeError, ValueError) as error:
                raise UserError(f"{stage}.model: {error}") from error
            made.save(folder / f"{stage}.safetensors")


@torch.no_grad()
def _untrained(module: OffSim) -> Simulator:
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
    )
    module.reward.low.fill_(-1.0)
    module.reward.high.fill_(1.0)
    simulator.calibrate_uncertainty(observation, torch.zeros(2, len(given["action_low"])))
    return simulator
