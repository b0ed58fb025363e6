"""Runs that end the same although their settings differ, so that one row of figures is about both.

Weighted cloning only changes where policy training starts. Where the cloned policy does well in the Simulator, or is
the better start in spite of it, a run with that stage ends with the policy of a run without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.configuration import STAGES
from app.experiments.grid import Run
from app.results.rows import SAME_AS, Row

STAGE = "weighted_cloning"
OF_THE_STAGE = ("weighted_start", "weighted_cloning_mean")  # what rows of runs without it do not have


def row_of(run: Run, known: Mapping[str, Row]) -> Row | None:
    """The figures of a run, from what is known of it or of one that ended the same.

    Args:
        run: of an experiment.
        known: rows by the key of their settings.
    """
    if (row := known.get(run.key)) is not None:
        return {**row, "method": run.variant}
    if not {"simulator", "policy"} <= {*run.configuration.stages} or not run.configuration.data.diverse:
        return None
    with_it = STAGE in run.configuration.stages
    others = {*run.configuration.stages} ^ {STAGE}
    row = known.get(_with_stages(run, [name for name in STAGES if name in others]).key)
    below = run.configuration[STAGE].model.start_below
    if row is None or not (_does_well(row, below) if with_it else _started_from_cloned(row)):
        return None
    return {
        **{name: value for name, value in row.items() if name not in OF_THE_STAGE},
        "method": run.variant,
        "run": {**row["run"], "settings": run.key, SAME_AS: row["method"]},
    }


def _does_well(row: Row, below: float | None) -> bool:
    share = row.get("cloned_share_in_simulator")
    return below is not None and share is not None and share >= below


def _started_from_cloned(row: Row) -> bool:
    return (row.get("weighted_start") or {}).get("weighted") is False


def _with_stages(run: Run, stages: list[str]) -> Run:
    configuration = run.configuration.copy()
    configuration.stages = stages
    return replace(run, configuration=configuration)
