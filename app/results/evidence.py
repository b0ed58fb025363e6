"""Everything that a result page is written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.experiments.grid import Experiment, Run
from app.experiments.schedule import STAGES_FOLDER
from app.experiments.state import State, state_of
from app.results.aggregate import Aggregate, aggregate, matching
from app.results.rows import SAME_AS, Row, kept_rows, read_row
from app.results.same_outcome import row_of


@dataclass(frozen=True)
class Evidence:
    """An experiment, how far its runs are, and what the finished ones have found.

    Attributes:
        experiment: what was asked for.
        out: its folder.
        states: of every run, in the order of the experiment; ``kept`` if only an earlier page knows of it.
        rows: of the finished runs, likewise.
        results: of each variant over its finished seeds.
    """

    experiment: Experiment
    out: Path
    states: dict[Run, State]
    rows: list[Row]
    results: list[Aggregate]

    @property
    def finished(self) -> list[Aggregate]:
        """The results of variants of which a run is finished."""
        return [result for result in self.results if result.finished]

    def origins(self) -> list[dict[str, Any]]:
        """Settings, data, versions and seconds of every finished run."""
        return [row["run"] for row in self.rows]

    def reward_histograms(self, task: str, variant: str, demonstrations: int) -> dict[str, Any] | None:
        """Those of the first finished seed that has them."""
        own = matching(self.rows, task, variant, demonstrations)
        return next((row["reward_histograms"] for row in own if "reward_histograms" in row), None)

    def seconds(self) -> float:
        """What the finished runs took, each shared stage counted once, as are runs that stand in two variants."""
        own, shared = 0.0, dict[str, float]()
        for row in self.rows:
            if SAME_AS in row["run"]:
                continue
            stages, folders = row["run"]["stages"], row["run"].get("shared_stages", {})
            own += row["wall_seconds"] - sum(stages[stage] for stage in folders)
            shared |= {folder: stages[stage] for stage, folder in folders.items()}
        return own + sum(shared.values())


def gather(experiment: Experiment, out: Path, pages: Sequence[Path]) -> Evidence:
    """Read the folder of an experiment, and what earlier pages know of runs that the folder lacks.

    Args:
        experiment: what was asked for.
        out: its folder.
        pages: JSON of these pages; there may be none.
    """
    states = {run: state_of(run, out, out / STAGES_FOLDER) for run in experiment.runs}
    found = {
        run: read_row(run, out / run.name, state.metrics) for run, state in states.items() if state.metrics is not None
    }
    known = kept_rows(pages) | {run.key: row for run, row in found.items()}
    rows = []
    for run, state in states.items():
        if run in found:
            rows.append(found[run])
        elif state.kind != "failed" and (row := row_of(run, known)) is not None:
            rows.append(row)
            states[run] = State("kept")
    return Evidence(experiment, out, states, rows, aggregate(experiment, rows))
