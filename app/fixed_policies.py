"""Does the Simulator rank policies as reality does? Fixed policies of all qualities, in both, over short horizons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from scipy.stats import spearmanr

from app.errors import UserError
from app.evaluate import check_fit, load_policy
from app.finished_run import FinishedRun
from app.progress import progress
from app.rollouts import Reward, RollOut, on_tensors, recorded, roll_out
from app.true_reward import known_true_reward
from zoo import Policy
from zoo.episodes import ActionFunction, noisy_actions, policy_actions, random_actions, run_episodes

HORIZONS = (10, 50, 200)  # steps after which returns are compared
NOISES = (0.1, 0.3, 0.6)  # deviation of the noise on cloned actions, in half action ranges
SNAPSHOTS = 3  # of the run that take part, evenly spread, the last one included
SIMULATED_EPISODES = 100


def load_policies(run: FinishedRun, files: Sequence[Path]) -> dict[str, Policy]:
    """Policies of the run's task by the names of their files.

    Raises:
        UserError: if a file holds none.
    """
    given = {str(path): load_policy(path) for path in files}
    for name, policy in given.items():
        try:
            check_fit(policy, run.task)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    return given


def compare_fixed_policies(
    run: FinishedRun, episodes: int, given: Mapping[str, Policy] | None = None
) -> dict[str, Any]:
    """Returns of fixed policies over their first steps, in the Simulator and in the real task.

    Args:
        run: the run.
        episodes: real episodes of each policy.
        given: further policies to compare, by name.

    Returns:
        ``horizons``; ``policies``, each with its ``name`` and, for the rewards ``learned`` and ``true`` (where its
        formula is known), the mean returns in ``simulator`` and ``real`` at every horizon; ``rank_correlation``,
        Spearman's for each reward and horizon, ``None`` where all returns are equal.
    """
    contenders = fixed_policies(run) | {name: policy_actions(policy) for name, policy in (given or {}).items()}
    rewards: dict[str, Reward] = {"learned": run.simulator.reward}
    true = known_true_reward(run.task)
    if true is not None:
        rewards["true"] = true
    longest = max(HORIZONS)
    policies = []
    with progress("comparing fixed policies", len(contenders)) as report:
        for index, (name, act) in enumerate(contenders.items()):
            make = partial(run.task.make, max_episode_steps=longest)
            places = {
                "simulator": roll_out(run.simulator, on_tensors(act), SIMULATED_EPISODES, longest),
                "real": recorded(run_episodes(make, act, episodes, run.seed)),
            }
            policies.append({"name": name, **{label: _returns(places, reward) for label, reward in rewards.items()}})
            report(index + 1)
    return {
        "horizons": list(HORIZONS),
        "episodes": {"simulator": SIMULATED_EPISODES, "real": episodes},
        "policies": policies,
        "rank_correlation": {
            label: [_rank_correlation(policies, label, at) for at in range(len(HORIZONS))] for label in rewards
        },
    }


def fixed_policies(run: FinishedRun) -> dict[str, ActionFunction]:
    """The contenders by name, from random actions to the last policy."""
    low, high = (np.asarray(b, dtype=np.float32) for b in (run.simulator.action_low, run.simulator.action_high))
    space = gymnasium.spaces.Box(low, high)
    found = run.policies()
    cloned = policy_actions(Policy.load(found.pop(0)))  # training started from it
    contenders: dict[str, ActionFunction] = {"random actions": random_actions(space, run.seed), "cloning": cloned}
    for noise in NOISES:
        deviation = (0.5 * noise * (high - low)).astype(np.float32)
        contenders[f"cloning, noise {noise:g}"] = noisy_actions(cloned, space, deviation, run.seed)
    updates = list(found)
    chosen = np.unique(np.linspace(0, len(updates), min(SNAPSHOTS, len(updates)) + 1).round().astype(int)[1:] - 1)
    for index in chosen:
        contenders[f"policy at {updates[index]:,}"] = policy_actions(Policy.load(found[updates[index]]))
    return contenders


def _returns(places: Mapping[str, RollOut], reward: Reward) -> dict[str, list[float]]:
    return {
        place: [float(rolled.returns(reward, steps).mean()) for steps in HORIZONS] for place, rolled in places.items()
    }


def _rank_correlation(policies: Sequence[Mapping[str, Any]], label: str, at: int) -> float | None:
    simulated = [policy[label]["simulator"][at] for policy in policies]
    real = [policy[label]["real"][at] for policy in policies]
    if min(map(np.ptp, (simulated, real))) == 0.0:
        return None
    value = float(spearmanr(simulated, real).statistic)
    return value if math.isfinite(value) else None
