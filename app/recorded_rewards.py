"""Learned against true reward, transition by transition: for evaluation only, after all training is over.

The data module never reads a reward, so the true ones are read here, straight from the datasets.
"""

from __future__ import annotations

import minari
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from tensordict import TensorDict

from datamodules import TransitionDataModule
from datamodules.sources import resolve
from zoo.reward import RewardModel


def reward_rank_correlation(reward: RewardModel, data: TransitionDataModule) -> dict[str, float | None]:
    """Spearman's correlation of learned and true reward on held-out ``expert`` and ``diverse`` transitions.

    The learned reward is taken before its bounds, which make half of all values equal. ``None`` where nothing is held
    out, or where one of the two rewards does not vary.

    Args:
        reward: a learned reward.
        data: the data module of its run, set up.
    """
    tables = {"expert": data.expert_held_out, "diverse": data.diverse_held_out}
    return {
        name: None if table is None else rank_correlation(raw_rewards(reward, table), recorded_rewards(data, table))
        for name, table in tables.items()
    }


@torch.no_grad()
def raw_rewards(reward: RewardModel, table: TensorDict) -> NDArray[np.float64]:
    """Learned rewards of transitions before scale and bounds, ``(N,)``."""
    features = reward.features(table["observation"], table["action"], table["next", "observation"])
    return reward.raw(features).double().numpy()


def recorded_rewards(data: TransitionDataModule, table: TensorDict) -> NDArray[np.float64]:
    """Recorded rewards of the rows of one of a data module's tables, ``(N,)``."""
    numbers, steps = table["episode"].numpy(), table["step"].numpy()
    found = np.full(len(table), np.nan)
    first = 0
    for dataset_id in [*data.hparams["expert"], *data.hparams["diverse"]]:
        source = resolve(dataset_id)
        # The data module numbers the episodes of all datasets through, in this order
        own = [int(number) for number in np.unique(numbers) if first <= number < first + source.episodes]
        dataset = minari.MinariDataset(source.folder)
        for number in own:
            (episode,) = dataset.iterate_episodes([number - first])
            rows = numbers == number
            found[rows] = np.asarray(episode.rewards)[steps[rows]]
        first += source.episodes
    return found


def rank_correlation(learned: NDArray[np.float64], true: NDArray[np.float64]) -> float | None:
    """Spearman's correlation; ``None`` where one of the two does not vary."""
    if np.ptp(learned) == 0.0 or np.ptp(true) == 0.0:
        return None
    return float(spearmanr(learned, true).statistic)
