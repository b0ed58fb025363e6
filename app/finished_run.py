"""What measuring a run needs of it: its settings, its Simulator, its data and its policies over training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from app.cloned_start import weighted_start
from datamodules import TransitionDataModule
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Simulator
from zoo.tasks import Task

POLICIES = ("behaviour_cloning", "weighted_cloning", "policy")  # stages that train one, in their order


@dataclass(frozen=True)
class FinishedRun:
    """A run whose stages are done.

    Attributes:
        folder: where it is.
        configuration: its settings.
        task: the real task.
        simulator: the Simulator with the reward that the policy was trained on at the end.
        data: the data of its policy stage, set up.
        learner: the policy stage's method as it began, for what it pays and where it ends roll-outs; ``None`` if it
            is no SAC, or if its reward changed along the way, so that what it paid at a snapshot is not known any more.
        updates: of the whole policy stage.
    """

    folder: Path
    configuration: DictConfig
    task: Task
    simulator: Simulator
    data: TransitionDataModule
    learner: SimulatorSAC | None
    updates: int

    @property
    def seed(self) -> int:
        """Seed of the first real episode of every evaluation: two policies meet the same starts."""
        return 1_000 + int(self.configuration.seed)

    def policies(self) -> dict[int, Path]:
        """Files of the cloned start, every snapshot and the last policy, by update."""
        last = self.folder / "policy.safetensors"
        return policies_over_training(self.cloned_policy, self.folder / "policy" / "snapshots", last, self.updates)

    @property
    def cloned_policy(self) -> Path:
        """File of the policy that training starts from."""
        return start_of(self.configuration, self.folder)


def policies_of(configuration: DictConfig, folder: Path) -> list[str]:
    """The stages of a run that left a policy of their own, which is also what ``metrics.json`` calls their entries.

    Where the policy cloned from demonstrations is the better start, weighted cloning left nothing else.
    """
    left_out = [] if weighted_start(folder).get("weighted", True) else ["weighted_cloning"]
    return [name for name in POLICIES if name in configuration.stages and name not in left_out]


def start_of(configuration: DictConfig, folder: Path) -> Path:
    """File of the policy that the policy stage of a run starts from, that of the last stage which cloned one."""
    *_, last = (name for name in policies_of(configuration, folder) if name != "policy")
    return folder / f"{last}.safetensors"


def policies_over_training(start: Path, snapshots: Path, end: Path, updates: int) -> dict[int, Path]:
    """Files of a training's policies by update: where it started, its snapshots, and where it ended."""
    found = {int(path.stem): path for path in sorted(snapshots.glob("*.safetensors"))}
    return {0: start, **found, updates: end}
