"""What a card says of a Simulator wherever its truth comes from: forecasts, coverage, ends, time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.diagnostics import INTERVALS, no_change_errors, one_step_errors, open_loop_errors
from zoo import Simulator
from zoo.envs.episodes import Episodes
from zoo.termination import LearnedTermination

STEPS = (1, 5, 20, 50, 100)  # after which open-loop errors are taken
BATCHES = (1, 256, 10_000)  # rows of timed steps
TIMED_STEPS = 20


def model_figures(simulator: Simulator, tables: Mapping[str, TensorDict]) -> dict[str, Any]:
    """Forecasts and time of a Simulator, as JSON.

    Args:
        simulator: on the CPU.
        tables: true transitions of whole episodes, by name of where they come from.

    Returns:
        ``open_loop_error`` and ``no_change_error`` by table, in standard deviations, after each of ``steps``;
        ``coverage`` by table: how much of the truth the members' predicted intervals hold that should hold 50% and 90%;
        ``noise_scale``, the share of that deviation which the Simulator draws; ``milliseconds`` per step by number of
        rows.
    """
    return {
        "noise_scale": simulator.noise_scale,
        "steps": list(STEPS),
        "open_loop_error": {
            name: _by_step(open_loop_errors(simulator.transition, table, STEPS)) for name, table in tables.items()
        },
        "no_change_error": {
            name: _by_step(no_change_errors(simulator.transition, table, STEPS)) for name, table in tables.items()
        },
        "coverage": {name: _coverage(simulator, table) for name, table in tables.items()},
        "milliseconds": {str(rows): _milliseconds(simulator, rows) for rows in BATCHES},
    }


def ends_figures(simulator: Simulator, predicted: Tensor, real: Tensor) -> dict[str, Any]:
    """What is known of a Simulator's ends, as JSON.

    Args:
        simulator: whose.
        predicted: whether it ends each of some transitions, ``(N,)`` bool.
        real: whether they ended, ``(N,)`` bool.

    Returns:
        ``ends``, how many did; ``learned``, whether the Simulator's are; ``simulator``: see :func:`detection`.
    """
    return {
        "ends": int(real.sum()),
        "learned": isinstance(simulator.termination, LearnedTermination),
        "simulator": detection(predicted, real),
    }


def detection(predicted: Tensor, real: Tensor) -> dict[str, float | None]:
    """Precision and recall of predicted ends ``(N,)`` bool; ``None`` where there is nothing to count."""
    right = float((predicted & real).sum())
    flagged, ends = float(predicted.sum()), float(real.sum())
    return {"precision": right / flagged if flagged else None, "recall": right / ends if ends else None}


def finite(value: float) -> float | None:
    """The number, or ``None`` for what JSON has no word for."""
    return value if math.isfinite(value) else None


def _by_step(errors: Mapping[int, float]) -> list[float | None]:
    return [finite(errors[step]) if step in errors else None for step in STEPS]


def _coverage(simulator: Simulator, table: TensorDict) -> dict[str, float]:
    found = one_step_errors(simulator.transition, table)
    return {f"{level:.0%}": float(found[f"inside_{round(100 * level)}"]) for level in INTERVALS}


def _milliseconds(simulator: Simulator, rows: int) -> float:
    """Median time of a step of all rows, uncertainty included."""
    episodes = Episodes(simulator, rows, horizon=None)
    episodes.begin()
    action = torch.zeros(rows, simulator.action_size)
    threads, seconds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(TIMED_STEPS):
            begun = time.perf_counter()
            episodes.step(action)
            seconds.append(time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads)
    return 1000.0 * float(np.median(seconds))
