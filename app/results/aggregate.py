"""What the seeds of one variant say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from app.experiments.goals import Goal
from app.experiments.grid import Experiment
from app.results.rows import Row
from app.statistics import interquartile_interval, interquartile_mean


@dataclass(frozen=True)
class Aggregate:
    """Results of a variant on a task over its finished seeds; NaN where there is nothing to tell.

    Attributes:
        task: name.
        variant: name.
        demonstrations: number of expert episodes.
        finished: number of finished seeds.
        planned: number of seeds.
        mean: of the return.
        error: standard error of that mean, as the number of episodes leaves it; other seeds would add to it.
        expert: mean return of the expert.
        expert_error: its standard error, likewise.
        minimum: of the return.
        spread: standard deviation of the return over seeds (of the sample); NaN for one seed.
        share: mean share of the expert's return.
        share_middle: its interquartile mean.
        interval: 95% bootstrap interval of that over seeds.
        alone: mean return of the policies without the cloned networks that are joined with them.
        demonstrated: mean return of the episodes that these runs learned from.
        cloned: mean return of the cloned policies that these runs began with.
        promised: mean return in the Simulator at the end of training, in learned reward.
        promised_error: standard error of that, as the number of simulated episodes leaves it.
        paid: mean return in the real task then, likewise.
        shares: of the expert's return, by seed.
    """

    task: str
    variant: str
    demonstrations: int
    finished: int
    planned: int
    mean: float
    error: float
    expert: float
    expert_error: float
    minimum: float
    spread: float
    share: float
    share_middle: float
    interval: tuple[float, float]
    alone: float
    demonstrated: float
    cloned: float
    promised: float
    promised_error: float
    paid: float
    shares: dict[int, float]


def aggregate(experiment: Experiment, rows: Sequence[Row]) -> list[Aggregate]:
    """One for each number of demonstrations, task and variant, in this order."""
    results = []
    for count, task, variant in product(experiment.demonstrations, experiment.tasks, experiment.variants):
        own = matching(rows, task, variant, count)
        returns, shares = values(own, "policy_mean"), values(own, "share_of_expert")
        middle, interval = interquartile_interval(shares) if len(shares) else (math.nan, [math.nan, math.nan])
        results.append(
            Aggregate(
                task=task,
                variant=variant,
                demonstrations=count,
                finished=len(own),
                planned=len(experiment.seeds),
                mean=mean(returns),
                error=error_of_mean(of_all(own, "policy_standard_error")),
                expert=mean(values(own, "expert_mean")),
                expert_error=mean(values(own, "expert_standard_error")),
                minimum=float(returns.min()) if len(returns) else math.nan,
                spread=float(returns.std(ddof=1)) if len(returns) > 1 else math.nan,
                share=mean(shares),
                share_middle=middle,
                interval=(interval[0], interval[1]),
                alone=mean(values(own, "policy_alone_mean")),
                demonstrated=mean(of_all(own, "demonstrated_mean")),
                cloned=mean(values(own, "behaviour_cloning_mean")),
                promised=mean(values(own, "simulator_return")),
                promised_error=error_of_mean(of_all(own, "simulator_standard_error")),
                paid=mean(values(own, "real_learned_return")),
                shares={row["seed"]: row["share_of_expert"] for row in own if row["share_of_expert"] is not None},
            )
        )
    return results


def matching(rows: Sequence[Row], task: str, variant: str, demonstrations: int) -> list[Row]:
    """The rows of one variant on one task."""
    wanted = (task, variant, demonstrations)
    return [row for row in rows if (row["task"], row["method"], row["demonstrations"]) == wanted]


def values(rows: Sequence[Row], name: str) -> Any:
    """A figure of each row that has it, ``(N,)``."""
    return np.array([row[name] for row in rows if row.get(name) is not None], dtype=np.float64)


def of_all(rows: Sequence[Row], name: str) -> Any:
    """A figure of each row, ``(N,)``, or nothing if one lacks it: of the others it would say something else."""
    found = values(rows, name)
    return found if len(found) == len(rows) else found[:0]


def mean(found: Any) -> float:
    """NaN of nothing."""
    return float(found.mean()) if len(found) else math.nan


def error_of_mean(errors: Any) -> float:
    """Standard error of a mean over seeds whose own means are uncertain by ``errors``, ``(N,)``; NaN of nothing."""
    return float(np.sqrt((errors**2).sum()) / len(errors)) if len(errors) else math.nan


def judge(goal: Goal, results: Sequence[Aggregate]) -> list[tuple[Aggregate, float, float]]:
    """A goal on each task and number of demonstrations that it is about; of two variants over the seeds that both have.

    Returns:
        The variant's aggregate, its share of the expert, and the share that it should reach.
    """
    judged = []
    for result in results:
        scope = (goal.task in (None, result.task), goal.demonstrations in (None, result.demonstrations))
        if result.variant != goal.variant or not all(scope):
            continue
        wanted, shares = goal.share_of_expert, result.shares
        if wanted is None:
            (rival,) = (
                other
                for other in results
                if (other.task, other.demonstrations, other.variant)
                == (result.task, result.demonstrations, goal.not_below)
            )
            shares = {seed: share for seed, share in shares.items() if seed in rival.shares}
            wanted = _statistic([rival.shares[seed] for seed in shares], goal.statistic)
            result = replace(result, finished=len(shares))
        judged.append((result, _statistic([*shares.values()], goal.statistic), wanted))
    return judged


def _statistic(shares: Sequence[float], name: str) -> float:
    statistic: Any = {"mean": np.mean, "min": np.min, "interquartile_mean": interquartile_mean}[name]
    return float(statistic(np.array(shares))) if shares else math.nan
