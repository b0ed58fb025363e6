"""How good the Simulator of a run is on held-out data: rewards, open-loop roll-outs, calibration, uncertainty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from app.rollouts import roll_out
from lit_modules.diagnostics import (
    INTERVALS,
    no_change_errors,
    open_loop,
    open_loop_errors,
    segments,
    spread,
    transition_errors,
)
from zoo import Policy, Simulator
from zoo.envs.names import observation_names

ROWS = 2000  # values per histogram
EPISODES = 20  # of the policy in the Simulator, for the same
STEPS = (1, 5, 10, 20, 50, 100)  # steps at which open-loop errors are shown
SHOWN_STEPS = 100  # length of a drawn roll-out


def write_model_quality(
    folder: Path, simulator: Simulator, data: Any, policy: Policy, policy_name: str = "policy"
) -> Path:
    """Measure the Simulator of a run on held-out data and write ``diagnostics.json`` into its folder.

    Args:
        folder: of the run.
        simulator: its Simulator.
        data: its data module, set up.
        policy: the last policy it trained.
        policy_name: the stage that trained it.
    """
    held_out = {"expert": data.expert_held_out, "diverse": data.diverse_held_out}
    visited = roll_out(simulator, policy.act, EPISODES, ROWS // EPISODES).visited()
    sources = {
        "expert": data.expert_train,
        "held-out expert": data.expert_held_out,
        "diverse": data.diverse_train,
        policy_name.replace("_", " "): visited,
    }
    content: dict[str, Any] = {
        "reward_histograms": {name: _rewards(simulator, table) for name, table in sources.items() if table is not None},
        "uncertainty": {
            name: _uncertainty(simulator, table)
            for name, table in sources.items()
            if table is not None and name != "held-out expert"
        },
        "open_loop": [],
        "open_loop_error": {"steps": list(STEPS), "normalized_error": {}, "baseline": {}},
        "calibration": {"nominal": list(INTERVALS), "observed": {}},
    }
    baseline: dict[str, list[float | None]] = {}
    for name, table in held_out.items():
        if table is None:
            continue
        errors = open_loop_errors(simulator.transition, table, STEPS)
        content["open_loop_error"]["normalized_error"][name] = [errors.get(step) for step in STEPS]
        apart = no_change_errors(simulator.transition, table, STEPS)
        baseline[name] = [apart.get(step) for step in STEPS]
        found = transition_errors(simulator.transition, table, horizon=5)
        content["calibration"]["observed"][name] = [float(found[f"inside_{round(100 * level)}"]) for level in INTERVALS]
        content["open_loop"].append(drawn_roll_out(simulator, table, name))
    content["open_loop_error"]["baseline"] = {"label": "predict no change", "normalized_error": baseline}
    content["open_loop"] = [drawn for drawn in content["open_loop"] if drawn is not None]
    data.release()
    path = folder / "diagnostics.json"
    path.write_text(json.dumps(content))
    return path


def feature_names(simulator: Simulator) -> list[str]:
    """A name for every observation feature, and be it a number."""
    return list(observation_names(simulator)) or [f"observation {index}" for index in range(simulator.observation_size)]


@torch.no_grad()
def _rewards(simulator: Simulator, table: TensorDict) -> list[float]:
    rows = spread(table, ROWS)
    reward: Tensor = simulator.reward(rows["observation"], rows["action"], rows["next", "observation"])
    return [round(float(value), 4) for value in reward]


def _uncertainty(simulator: Simulator, table: TensorDict) -> list[float]:
    rows = spread(table, ROWS)
    return [round(float(value), 5) for value in simulator.measure_uncertainty(rows["observation"], rows["action"])]


def drawn_roll_out(simulator: Simulator, table: TensorDict, label: str) -> dict[str, Any] | None:
    """A stretch of an episode and what the Simulator makes of its actions, to be drawn; ``None`` if there is none."""
    longest = SHOWN_STEPS
    while longest > 1 and len(segments(table, longest)) == 0:
        longest //= 2
    starts = segments(table, longest)
    if len(starts) == 0:
        return None
    start = starts[:1]
    imagined = open_loop(simulator.transition, table, start, longest)[:, 0]
    real = table["next", "observation"][int(start) : int(start) + longest]
    shown = simulator.transition.foreseen  # what is set from outside is told, so there is nothing to compare
    return {
        "episode": int(table["episode"][int(start)]),
        "label": label,
        "names": [feature_names(simulator)[index] for index in shown],
        "real": real[:, shown].tolist(),
        "simulated": imagined[:, shown].tolist(),
    }
