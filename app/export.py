"""Write what a stage learned as a model file when its training ends."""

from __future__ import annotations

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from app.errors import UserError
from lit_modules.offline_ml_irl import OfflineMLIRL
from zoo import Policy, Simulator
from zoo.dynamics_reward import DynamicsReward


def learned(
    module: lightning.LightningModule, data: lightning.LightningDataModule
) -> Policy | Simulator | DynamicsReward:
    """What a method's training produces: a Simulator, a Policy or a dynamics reward.

    Raises:
        TypeError: for a control, which produces no result.
        UserError: for a module that does not say what it leaves.
    """
    if getattr(module, "control", False):
        raise TypeError(f"{type(module).__name__} is a control, which produces no result of a method")
    refuse_without_result(module)
    return module.export(data)  # type: ignore[operator, no-any-return]


def refuse_without_result(module: lightning.LightningModule) -> None:
    """Refuse a module whose training leaves nothing to save.

    Raises:
        UserError: saying what it lacks.
    """
    if not hasattr(module, "export"):
        raise UserError(
            f"{type(module).__name__} says nowhere what its training leaves: give it a method `export(self, data)` "
            "that returns a Policy, a Simulator or anything else with `save(path)`, or do without ExportModel"
        )


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

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Before the training, not after it."""
        if stage == "fit":
            refuse_without_result(pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.interrupted:
            save_learned(pl_module, trainer.datamodule, self.path)  # type: ignore[attr-defined]
