"""One row of figures for each finished run, from the files in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.cloned_start import cloned_start
from app.experiments.grid import Run
from app.loggers import last_values
from app.statistics import standard_error
from zoo.spacing import evenly_spaced

Row = dict[str, Any]
DATA = ("expert", "diverse")
STEPS = (1, 50)  # open-loop steps that are reported
COVERAGES = (0.5, 0.9)  # central intervals whose observed coverage is reported
ORIGIN = ("data", "versions", "trained_on", "stages", "shared_stages")  # kept of where a row's figures come from
HISTOGRAM_VALUES = 500
SAME_AS = "same_as"  # in a row's ``run``: the variant of which it is a copy, as both settings train the same
LOGGED = ("one_step", "open_loop")  # held-out errors that the simulator stage logs, also before its game


def read_row(run: Run, folder: Path, metrics: Mapping[str, Any]) -> Row:
    """The figures of a finished run; ``None`` for what it did not measure.

    Args:
        run: of the experiment.
        folder: of the run.
        metrics: content of its ``metrics.json``.

    Returns:
        ``task``, ``method``, ``demonstrations``, ``seed``; ``expert_mean``, ``demonstrated_mean``,
        ``behaviour_cloning_mean`` and ``policy_mean``, mean returns in the real task: of all the expert's episodes, of
        those that the run learned from, of the cloned policy, and of the policy which the run ends with;
        ``expert_standard_error`` and ``policy_standard_error``, how far such a mean of episodes may be off;
        ``policy_alone_mean``, that of what it is without the cloned networks that are joined with it;
        ``share_of_expert``; ``cloned_share_in_simulator``, what the cloned policy has there of what the demonstrations
        have, if that was judged; of the end of its curve ``simulator_return``,
        ``simulator_standard_error`` and ``real_learned_return``, in learned reward; ``wall_seconds``; ``verdict``,
        ``weighted_start`` and ``weighted_cloning_mean``, that of what weighted cloning left, if there are any; what
        :func:`simulator_figures` returns; ``reward_histograms``, if it kept them; and ``run``, what it was: the key
        of its settings, its data, versions, what it was trained on, and seconds of its stages.
    """
    last = metrics.get("policy") or metrics["behaviour_cloning"]
    end = (metrics.get("curve") or [{}])[-1]
    row: Row = {
        "task": run.task,
        "method": run.variant,
        "demonstrations": run.demonstrations,
        "seed": run.seed,
        "expert_mean": metrics["expert"]["mean"],
        "demonstrated_mean": metrics.get("demonstrated", {}).get("mean"),
        "behaviour_cloning_mean": metrics["behaviour_cloning"]["mean"],
        "policy_mean": last["mean"],
        "expert_standard_error": standard_error(metrics["expert"]),
        "policy_standard_error": standard_error(last),
        "policy_alone_mean": metrics.get("policy_alone", {}).get("mean"),
        "share_of_expert": metrics["share_of_expert"],
        "cloned_share_in_simulator": cloned_start(folder).get("share_in_simulator"),
        "simulator_return": end.get("simulator_return"),
        "simulator_standard_error": end.get("simulator_standard_error"),
        "real_learned_return": end.get("real_learned_return"),
        "wall_seconds": metrics["wall_seconds"],
    }
    row |= {name: metrics[name] for name in ("verdict", "weighted_start") if name in metrics}
    if "weighted_cloning" in metrics:
        row["weighted_cloning_mean"] = metrics["weighted_cloning"]["mean"]
    row |= simulator_figures(folder, metrics)
    histograms = folder / "reward_histograms.json"
    if histograms.is_file():
        row["reward_histograms"] = thinned(json.loads(histograms.read_text()))
    row["run"] = {"settings": run.key} | {name: metrics[name] for name in ORIGIN if name in metrics}
    return {key: _only_finite(each) for key, each in row.items()}


def thinned(histograms: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """At most ``HISTOGRAM_VALUES`` of each list, evenly spaced by rank, with four digits."""

    def fewer(values: list[float]) -> list[float]:
        if len(values) <= HISTOGRAM_VALUES:
            return values
        ordered = sorted(value for value in values if value is not None and math.isfinite(value))
        return [float(f"{ordered[place]:.4g}") for place in evenly_spaced(len(ordered), HISTOGRAM_VALUES).tolist()]

    return {when: {kind: fewer(values) for kind, values in kinds.items()} for when, kinds in histograms.items()}


def first_histograms(rows: Sequence[Row]) -> list[Row]:
    """The rows, of which only the first of each variant on a task keeps its histograms: no other is drawn."""
    drawn, kept = set(), []
    for row in rows:
        variant = (row["task"], row["method"], row["demonstrations"])
        again = variant in drawn
        kept.append({key: value for key, value in row.items() if not (again and key == "reward_histograms")})
        drawn |= {variant} if "reward_histograms" in row else set()
    return kept


def _only_finite(value: Any) -> Any:
    """The same with ``None`` for each number that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _only_finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_only_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def kept_rows(pages: Sequence[Path]) -> dict[str, Row]:
    """The rows of earlier pages by the key of their settings.

    Args:
        pages: JSON of the pages; there may be none. Of what several know, the first counts.
    """
    found: dict[str, Row] = {}
    for page in pages:
        rows = json.loads(page.read_text(encoding="utf-8")) if page.is_file() else []
        found = {row["run"]["settings"]: row for row in rows if "run" in row} | found
    return found


def simulator_figures(folder: Path, metrics: Mapping[str, Any]) -> Row:
    """How good a run's Simulator is on held-out ``expert`` and ``diverse`` data.

    Returns:
        For each kind of data: ``one_step_*`` and ``open_loop_*``, errors after the simulator stage, and
        ``*_before_game`` before its game; ``error_1_*`` and ``error_50_*``, open-loop errors of the finished Simulator
        after so many steps; ``inside_50_*`` and ``inside_90_*``, coverage of its intervals; ``reward_rank_*``, rank
        correlation of learned and true reward.
    """
    logged = last_values(folder / "simulator" / "metrics.csv")
    path = folder / "diagnostics.json"
    diagnostics = json.loads(path.read_text()) if path.is_file() else {}
    by_step, calibration = diagnostics.get("open_loop_error", {}), diagnostics.get("calibration", {})
    ranks = metrics.get("reward_rank_correlation") or {}
    found: Row = {}
    for data in DATA:
        for name in LOGGED:
            for suffix in ("", "_before_game"):
                found[f"{name}_{data}{suffix}"] = logged.get(f"validation/{data}_held_out/{name}{suffix}")
        errors = dict(zip(by_step.get("steps", ()), by_step.get("normalized_error", {}).get(data, ()), strict=False))
        found |= {f"error_{step}_{data}": errors.get(step) for step in STEPS}
        inside = calibration.get("observed", {}).get(data, ())
        observed = dict(zip(calibration.get("nominal", ()), inside, strict=False))
        found |= {f"inside_{round(100 * level)}_{data}": observed.get(level) for level in COVERAGES}
        found[f"reward_rank_{data}"] = ranks.get(data)
    return found
