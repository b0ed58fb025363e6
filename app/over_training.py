"""Simulator and real task side by side, for the cloned start and every snapshot of a policy's training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from app.coverage import Coverage
from app.critic_value import compare, recorded_belief
from app.evaluate import real_episodes, recorded_returns, summarize_episodes
from app.finished_run import FinishedRun
from app.rollouts import RollOut, recorded, roll_outs
from app.verdict import Figures, as_json, judge
from lit_modules.diagnostics import spread
from lit_modules.hold import demonstrated_return
from zoo import Policy
from zoo.episodes import Episode

SIMULATED_EPISODES = 20  # of each policy on the way
FULL_EPISODES = 100  # of the first and the last, of which verdicts and result pages speak
TOGETHER = 6  # policies that are rolled out in one batch
REWARD_ROWS = 10_000  # diverse rows of which the mean reward is taken


def diagnose_training(
    run: FinishedRun, episodes: int, known: Mapping[int, list[Episode]] | None = None
) -> dict[str, Any]:
    """The figures over training, what to compare them with, and the verdict on the last policy.

    Args:
        run: the run.
        episodes: real episodes of each policy.
        known: episodes that were run already, by update.

    Returns:
        Plain data: ``references``, ``over_training`` (a row per policy, in the order of training), ``verdict`` and
        ``notes``; every key is explained in docs/diagnose.md.
    """
    coverage = Coverage(run.simulator, run.data)
    references = measure_references(run, coverage)
    rows = []
    for update, path, policy, simulated in _simulated(run):
        real = (known or {}).get(update) or real_episodes(policy, run.task, episodes, run.seed)
        row = measure_policy(run, coverage, simulated, real)
        belief = recorded_belief(path)
        if belief is None and update == run.updates:  # the last policy is the last snapshot under another name
            belief = recorded_belief(run.folder / "policy" / "snapshots" / f"{update:08d}.safetensors")
        if belief is not None and run.learner is not None:
            row |= compare(run.learner, policy, belief)
        rows.append({"update": update, **row})
        print(
            f"  update {update:>7}: simulator {row['simulator_return']:7.1f} (learned reward), "
            f"real {row['real_learned_return']:7.1f} (learned reward), real return {row['real_return']:7.1f}",
            flush=True,
        )
    last = rows[-1]
    figures = Figures(
        measured=last["real_return"],
        expert=references["expert_return"],
        simulator_learned=last["simulator_return"],
        real_learned=last["real_learned_return"],
        expert_learned=references["expert_learned_return"],
    )
    return {
        "references": references,
        "over_training": rows,
        "verdict": as_json(figures, judge(figures)),
        "notes": _notes(run, rows, references),
    }


def measure_references(run: FinishedRun, coverage: Coverage) -> dict[str, Any]:
    """What the figures of a policy are to be compared with."""
    returned = demonstrated_return(run.simulator.reward, run.data.expert_train, run.task.horizon)
    length = demonstrated_return(None, run.data.expert_train, run.task.horizon)
    rewards = {"expert": returned / length}
    if run.data.diverse_train is not None:
        rewards["diverse"] = float(_rewards(run, spread(run.data.diverse_train, REWARD_ROWS)).mean())
    run.data.release()
    return {
        "expert_return": recorded_returns(run.configuration.data.expert)["mean"],
        "expert_learned_return": returned,
        "expert_length": length,
        "learned_reward": rewards,
        "held_out_distance": coverage.held_out_distance,
        "uncertainty_units": coverage.uncertainty_units,
        "uncertainty": run.simulator.uncertainty,
    }


def _simulated(run: FinishedRun) -> Iterator[tuple[int, Path, Policy, RollOut]]:
    """Every policy of a run with its update, its file and its episodes in the Simulator."""
    first, *between, last = run.policies().items()
    parts = [between[place : place + TOGETHER] for place in range(0, len(between), TOGETHER)]
    for episodes, some in (
        (FULL_EPISODES, [first]),
        *((SIMULATED_EPISODES, part) for part in parts),
        (FULL_EPISODES, [last]),
    ):
        policies = [Policy.load(path) for _, path in some]
        acts = [policy.act for policy in policies]
        rolled = roll_outs(run.simulator, acts, episodes, run.task.horizon)
        for (update, path), policy, simulated in zip(some, policies, rolled, strict=True):
            yield update, path, policy, simulated


def measure_policy(run: FinishedRun, coverage: Coverage, simulated: RollOut, real: list[Episode]) -> dict[str, Any]:
    """One row: a policy's episodes in the Simulator and in the real task."""
    assert simulated.uncertainty is not None
    doubt = (simulated.uncertainty * simulated.running).sum(dim=0) / simulated.lengths
    summary = summarize_episodes(real, run.seed, run.simulator.reward)
    promised = simulated.returns(run.simulator.reward)
    row: dict[str, Any] = {
        "simulator_return": float(promised.mean()),
        "simulator_standard_error": float(promised.std()) / len(promised) ** 0.5,
        "real_learned_return": summary["learned_return"],
        "real_return": summary["mean"],
        "real_ci95": summary["ci95"],
        "simulator_length": float(simulated.lengths.float().mean()),
        "real_length": sum(summary["lengths"]) / len(real),
        "simulator_uncertainty": float(doubt.mean()),
    }
    places: dict[str, RollOut] = {"simulator": simulated, "real": recorded(real)}
    for place, rolled in places.items():
        visited = rolled.visited()
        row[f"{place}_reward"] = float(_rewards(run, visited).mean())
        row[f"{place}_distance"] = coverage.distance(visited)
        row[f"{place}_uncertainties"] = coverage.uncertainty(visited)
    return row


@torch.no_grad()
def _rewards(run: FinishedRun, rows: TensorDict) -> torch.Tensor:
    values: torch.Tensor = run.simulator.reward(rows["observation"], rows["action"], rows["next", "observation"])
    return values


def _notes(run: FinishedRun, rows: list[dict[str, Any]], references: dict[str, Any]) -> list[str]:
    """What is not there, and why."""
    notes = []
    if run.learner is None:
        notes.append(
            "The critics' values are left out: the reward was learned along with the policy and is not known for every "
            "snapshot, or the method is no SAC in a frozen simulator."
        )
    elif not any("value" in row for row in rows):
        notes.append("The run recorded no critics' values: it was trained by an earlier version.")
    if references["held_out_distance"] is None:
        notes.append("A single recorded episode leaves nothing to compare distances with.")
    return notes
