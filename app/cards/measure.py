"""The figures of a card: a Simulator and the policy trained in it, against episodes of the real task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from tensordict import TensorDict
from torch import Tensor

from app.cards.contenders import POLICY, contenders
from app.cards.model_figures import detection, ends_figures, finite, model_figures
from app.evaluate import check_fit
from app.progress import progress
from app.recorded_rewards import rank_correlation, raw_rewards
from app.rollouts import on_tensors, recorded, roll_out
from app.statistics import summarize_returns
from lit_modules.diagnostics import spread
from zoo import Policy, Simulator
from zoo.episodes import Episode, run_episodes
from zoo.tasks import Task

SIMULATED_EPISODES = 40  # of each contender
ROWS = 20_000  # transitions behind rank correlations of the reward


def measure(simulator: Simulator, policy: Policy, task: Task, episodes: int, seed: int) -> dict[str, Any]:
    """All that a card says of a Simulator, as JSON.

    Args:
        simulator: on the CPU.
        policy: that was trained in it.
        task: the real task.
        episodes: real episodes of each contender.
        seed: of the first real episode of each.

    Returns:
        ``policy``: its returns in the real task and their ``share_of_expert``; ``contenders``: for each its mean
        return in the real task (``real``), and in learned reward, from which what ending is worth is taken off, in the
        real task (``real_learned``) and the Simulator (``simulator``); ``return_correlation``: Spearman's and Pearson's
        of the Simulator's returns with the real ones, and Spearman's of its two halves, ``dynamics`` (learned reward in
        Simulator and real task) and ``reward`` (learned and real return in the real task); ``exploitation_gap``: what
        the Simulator promises the policy beyond what the real task pays in learned reward, as a share of the latter;
        ``termination``: precision and recall of ``simulator`` and, if one is known, ``rule``, with the number of real
        ends, and whether the Simulator's was ``learned``; ``reward_rank_correlation``: Spearman's of learned reward,
        before its bounds, and real reward over transitions; and those of ``model_figures`` for where its ``policy`` and
        ``others`` go.

    Raises:
        UserError: if the policy does not fit the task.
    """
    check_fit(policy, task)
    acts = contenders(policy, task, seed)
    real: dict[str, list[Episode]] = {}
    returns: dict[str, dict[str, float]] = {}
    with progress("measuring", len(acts)) as report:
        for index, (name, act) in enumerate(acts.items()):
            real[name] = run_episodes(task.make, act, episodes, seed)
            imagined = roll_out(simulator, on_tensors(act), SIMULATED_EPISODES, task.horizon, seed)
            returns[name] = {
                "real": float(np.mean([episode.total_reward for episode in real[name]])),
                "real_learned": float(recorded(real[name]).returns(_counted(simulator)).mean()),
                "simulator": float(imagined.returns(_counted(simulator)).mean()),
            }
            report(index + 1)
    others = [episode for name, found in real.items() if name != POLICY for episode in found]
    tables = {POLICY: table_of(real[POLICY]), "others": table_of(others)}
    own = summarize_returns([episode.total_reward for episode in real[POLICY]], seed)
    promised, paid = returns[POLICY]["simulator"], returns[POLICY]["real_learned"]
    return {
        "policy": own | {"share_of_expert": task.share_of_expert(own["mean"])},
        "contenders": returns,
        "return_correlation": _return_correlations(returns),
        "exploitation_gap": (promised - paid) / abs(paid) if paid else None,
        "termination": _terminations(simulator, task, list(tables.values())),
        "reward_rank_correlation": {name: _reward_rank(simulator, table) for name, table in tables.items()},
        **model_figures(simulator, tables),
    }


def table_of(episodes: Sequence[Episode]) -> TensorDict:
    """Transitions of whole episodes, one after the other, ``(N,)``, with the real ``reward`` and end of each."""

    def column(arrays: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays))

    lengths = [len(episode) for episode in episodes]
    terminated = [
        np.arange(length) == (length - 1 if episode.terminated else -1)
        for episode, length in zip(episodes, lengths, strict=True)
    ]
    size = [sum(lengths)]
    following = {
        "observation": column([episode.observations[1:] for episode in episodes]),
        "reward": column([episode.rewards for episode in episodes]),
        "terminated": column(terminated),
    }
    return TensorDict(
        {
            "observation": column([episode.observations[:-1] for episode in episodes]),
            "action": column([episode.actions for episode in episodes]),
            "next": TensorDict(following, batch_size=size),
            "episode": column([np.full(length, index) for index, length in enumerate(lengths)]),
            "step": column([np.arange(length) for length in lengths]),
        },
        batch_size=size,
    )


def _counted(simulator: Simulator) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The learned reward, counted from what ending is worth."""
    zero = simulator.end_worth()
    return lambda observation, action, following: simulator.reward(observation, action, following) - zero


def _return_correlations(returns: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    columns = {key: [each[key] for each in returns.values()] for key in ("real", "real_learned", "simulator")}

    def correlation(statistic: Callable[..., Any], first: str, second: str) -> float | None:
        if min(np.ptp(columns[first]), np.ptp(columns[second])) == 0.0:
            return None
        return finite(float(statistic(columns[first], columns[second]).statistic))

    return {
        "spearman": correlation(spearmanr, "simulator", "real"),
        "pearson": correlation(pearsonr, "simulator", "real"),
        "dynamics": correlation(spearmanr, "simulator", "real_learned"),
        "reward": correlation(spearmanr, "real_learned", "real"),
    }


@torch.no_grad()
def _terminations(simulator: Simulator, task: Task, tables: Sequence[TensorDict]) -> dict[str, Any]:
    following, real = (torch.cat([table["next", name] for table in tables]) for name in ("observation", "terminated"))
    found = ends_figures(simulator, simulator.termination(following), real)
    if task.termination is not None:
        found["rule"] = detection(task.termination(following), real)
    return found


@torch.no_grad()
def _reward_rank(simulator: Simulator, table: TensorDict) -> float | None:
    rows = spread(table, ROWS)
    return rank_correlation(raw_rewards(simulator.reward, rows), rows["next", "reward"].numpy())
