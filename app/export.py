"""Write what a stage learned as a model file when its training ends."""

from __future__ import annotations

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.dynamics_reward import DynamicsRewardGame
from lit_modules.offline_ml_irl import OfflineMLIRL
from lit_modules.offsim import OffSim
from lit_modules.simulator_policy import SimulatorPolicy
from lit_modules.weighted_cloning import WeightedCloning
from zoo import Policy, Simulator
from zoo.dynamics_reward import DynamicsReward


def learned(
    module: lightning.LightningModule, data: lightning.LightningDataModule
) -> Policy | Simulator | DynamicsReward:
    """What a method's training produces: a Simulator, a Policy or a dynamics reward.

    Raises:
        TypeError: for anything else, and for a control, which produces no result.
    """
    if getattr(module, "control", False):
        raise TypeError(f"{type(module).__name__} is a control, which produces no result of a method")
    if isinstance(module, OffSim | DynamicsRewardGame):
        return module.export(data)
    if isinstance(module, SimulatorPolicy):
        return module.finished_policy(data)
    if isinstance(module, WeightedCloning):
        return module.better_start(data)
    if isinstance(module, BehaviourCloning):
        return module.policy
    raise TypeError(f"{type(module).__name__} is not a method of this project")


def save_learned(module: lightning.LightningModule, data: lightning.LightningDataModule, path: str | Path) -> None:
    """Write what a method's training produced to ``path``.

    A reward that was learned with the policy is written beside it, as a Simulator that differs in nothing else.
    """
    path = Path(path)
    learned(module, data).save(path)
    if isinstance(module, OfflineMLIRL):
        module.learned_simulator(data).save(simulator_of(path))


def simulator_of(policy: Path) -> Path:
    """Where :func:`save_learned` writes the Simulator that goes with a policy."""
    return policy.with_name(f"{policy.stem}_simulator.safetensors")


class ExportModel(Callback):
    """Save what a finished ``fit`` has learned.

    Args:
        path: safetensors file to write.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.interrupted:
            save_learned(pl_module, trainer.datamodule, self.path)  # type: ignore[attr-defined]
