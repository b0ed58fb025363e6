"""What can be said of a run for a system that is not a known task, so that nobody can try its policy here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from app.rollouts import roll_out
from datamodules import TransitionDataModule
from lit_modules.surroundings import surroundings_of
from zoo import Policy, Simulator
from zoo.tasks import TASKS

EPISODES = 100  # of each policy in the Simulator


@torch.no_grad()
def evaluate_in_simulator(
    configuration: DictConfig,
    folder: Path,
    data: TransitionDataModule,
    policies: list[str],
    simulator: Simulator | None,
) -> dict[str, Any]:
    """How the policies of a run fare in its Simulator, and how they copy demonstrations that no training has seen.

    None of this is a promise: a policy is good where the Simulator is right, and what it earns here says nothing of
    that. Its uncertainty on the way does.

    Args:
        configuration: of the run.
        folder: of the run.
        data: its data, set up.
        policies: names of its stages that trained one.
        simulator: of the run; ``None`` if it trained none.

    Returns:
        ``horizon``, the steps of the longest demonstration; ``demonstrations``, with the learned ``reward`` per step;
        and for each policy ``reward`` per step, ``length`` until an end, ``uncertainty`` in medians of the data's, and
        ``action_error`` on held-out demonstrations (or, without any, on the others, which ``action_error_on`` says),
        root mean square in half action ranges.
    """
    expert = data.expert_train
    seen = expert if data.expert_held_out is None else data.expert_held_out
    horizon = int(expert["step"].max()) + 1
    found: dict[str, Any] = {"horizon": horizon, "action_error_on": "trained" if seen is expert else "held out"}
    if simulator is not None:
        rows = (expert["observation"], expert["action"], expert["next", "observation"])
        found["demonstrations"] = {"reward": float(simulator.reward(*rows).mean())}
    for name in policies:
        policy = Policy.load(folder / f"{name}.safetensors")
        error: Tensor = (policy.act(seen["observation"]) - seen["action"]) / policy.half_range
        found[name] = {"action_error": float(error.square().mean().sqrt())}
        if simulator is not None:
            surroundings = surroundings_of(simulator, expert)
            rolled = roll_out(simulator, policy.act, EPISODES, horizon, configuration.seed, surroundings)
            steps = rolled.running.sum()
            assert rolled.uncertainty is not None
            found[name] |= {
                "reward": float(rolled.returns(simulator.reward).sum() / steps),
                "length": float(rolled.lengths.float().mean()),
                "uncertainty": float((rolled.uncertainty * rolled.running).sum() / steps)
                / simulator.uncertainty_unit(),
            }
    return found


def evaluation_command(folder: Path, metrics: Mapping[str, Any]) -> str:
    """The command that says how far to trust the Simulator of a run: by what its training held out, if it did.

    Args:
        folder: of the run.
        metrics: its ``metrics.json``.
    """
    measurable = metrics["task"] in TASKS or any(each.get("held_out_episodes") for each in metrics["data"])
    return f"offsim zoo evaluate {folder}" + ("" if measurable else " --data ID")


def table(found: dict[str, Any]) -> list[str]:
    """The same as lines of text."""
    lines = [
        f"in the simulator, {found['horizon']} steps{'reward':>10}{'length':>9}{'uncertainty':>13}{'action error':>14}"
    ]
    width = len(f"in the simulator, {found['horizon']} steps")
    for name, row in found.items():
        if isinstance(row, dict):
            cells = [
                f"{row[key]:.3g}" if key in row else "–" for key in ("reward", "length", "uncertainty", "action_error")
            ]
            lines.append(f"{name.replace('_', ' '):<{width}}{cells[0]:>10}{cells[1]:>9}{cells[2]:>13}{cells[3]:>14}")
    if found.get("action_error_on") == "trained":
        lines.append("(no demonstrations were held out: action errors are on those that were trained on)")
    return lines
