"""The page about simulators alone: errors, calibration, and whether the learned reward ranks as the true one does."""

from __future__ import annotations

from itertools import product

from matplotlib.figure import Figure

from app.figures import Numbers
from app.results import figures
from app.results.aggregate import matching, mean, values
from app.results.evidence import Evidence
from app.results.rows import DATA
from app.results.tables import format_number, table

MEASURES = {
    "error_1": "one-step error",
    "error_50": "50-step error",
    "inside_50": "truth inside 50% intervals",
    "inside_90": "truth inside 90% intervals",
    "reward_rank": "rank correlation of rewards",
}
REFERENCES = {MEASURES["error_50"]: 1.0, MEASURES["inside_50"]: 0.5, MEASURES["inside_90"]: 0.9}


def sections(evidence: Evidence) -> list[str]:
    """The table of what was measured."""
    rows = []
    for result in evidence.finished:
        own = matching(evidence.rows, result.task, result.variant, result.demonstrations)
        for data in DATA:
            cells = [_cell(values(own, f"{name}_{data}")) for name in MEASURES]
            seeds = f"{result.finished} of {result.planned}"
            rows.append([result.task, result.variant, str(result.demonstrations), f"held-out {data}", *cells, seeds])
    if not rows:
        return []
    head = ["task", "variant", "demonstrations", "data", *MEASURES.values(), "seeds"]
    return [
        "## Simulators on held-out data\n\n"
        "Means over seeds, lowest and highest in brackets. Errors are root-mean-square errors in standard deviations "
        "of an observation after replaying recorded actions for so many steps; above 1 an average state would be as "
        "good a guess. The rank correlation is Spearman's, of learned and true reward of a transition; the true one "
        "is read for this alone.\n\n" + table(head, rows)
    ]


def drawn(evidence: Evidence) -> dict[str, Figure]:
    """A panel for each measure, tasks on the x-axis."""
    experiment = evidence.experiment
    several = len(experiment.variants) * len(experiment.demonstrations) > 1

    def label(task: str, variant: str, count: int) -> str:
        return f"{task}, {variant}, {count}" if several else task

    panels = {
        title: {
            data: {
                label(task, variant, count): values(matching(evidence.rows, task, variant, count), f"{name}_{data}")
                for task, variant, count in product(experiment.tasks, experiment.variants, experiment.demonstrations)
            }
            for data in DATA
        }
        for name, title in MEASURES.items()
    }
    return {"": figures.simulator_panels(panels, REFERENCES)}


def _cell(found: Numbers) -> str:
    if len(found) < 2:
        return format_number(mean(found))
    return f"{format_number(mean(found))} [{format_number(float(found.min()))}, {format_number(float(found.max()))}]"
