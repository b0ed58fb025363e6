"""Everything that a result page is written from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.experiments.grid import Experiment, Run
from app.experiments.schedule import STAGES_FOLDER
from app.experiments.state import State, state_of
from app.results.aggregate import Aggregate, aggregate
from app.results.rows import Row, read_row


@dataclass(frozen=True)
class Evidence:
    """An experiment, how far its runs are, and what the finished ones have found.

    Attributes:
        experiment: what was asked for.
        out: its folder.
        states: of every run, in the order of the experiment.
        rows: of the finished runs, likewise.
        results: of each variant over its finished seeds.
    """

    experiment: Experiment
    out: Path
    states: dict[Run, State]
    rows: list[Row]
    results: list[Aggregate]

    def metrics(self) -> list[dict[str, Any]]:
        """``metrics.json`` of every finished run."""
        return [state.metrics for state in self.states.values() if state.metrics is not None]

    def reward_histograms(self, task: str, variant: str, demonstrations: int) -> dict[str, Any] | None:
        """Those of the first finished seed that has them."""
        for run, state in self.states.items():
            path = self.out / run.name / "reward_histograms.json"
            if (run.task, run.variant, run.demonstrations) == (task, variant, demonstrations) and (
                state.kind == "done" and path.is_file()
            ):
                return dict(json.loads(path.read_text()))
        return None

    def seconds(self) -> float:
        """What the finished runs took, each shared stage counted once."""
        own, shared = 0.0, dict[str, float]()
        for found in self.metrics():
            taken = {stage: found["stages"][stage] for stage in found.get("shared_stages", {})}
            own += found["wall_seconds"] - sum(taken.values())
            shared |= {folder: taken[stage] for stage, folder in found.get("shared_stages", {}).items()}
        return own + sum(shared.values())


def gather(experiment: Experiment, out: Path) -> Evidence:
    """Read the folder of an experiment."""
    states = {run: state_of(run, out, out / STAGES_FOLDER) for run in experiment.runs}
    rows = [read_row(run, out / run.name, state.metrics) for run, state in states.items() if state.metrics is not None]
    return Evidence(experiment, out, states, rows, aggregate(experiment, rows))
