"""What recorded rows lead to, in learned reward, and how much each of them counts for that."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDict
from torch import Tensor

from datamodules.cache import release_mapped_tables
from lit_modules.rows import follows
from zoo.simulator import Simulator

CHUNK = 8192  # rows whose reward is computed at once
HALVINGS = 60  # of the interval of temperatures


@torch.no_grad()
def learned_returns(simulator: Simulator, table: TensorDict, discount: float) -> Tensor:
    """Mean learned reward from each row to the end of its episode and beyond, later ones counting less.

    .. math:: G_t = (1 - \\gamma)\\, r_t + \\gamma\\, G_{t+1}

    After a terminal state every step pays what ending is worth (``Simulator.end_worth``). An episode that was cut off,
    or whose next row was left out of the data, goes on as it was on average.

    Args:
        simulator: whose reward it is, on the CPU.
        table: recorded transitions in their order, ``(N,)``, with ``episode`` and ``step``.
        discount: gamma.

    Returns:
        ``(N,)``, in the reward's unit per step.
    """
    parts = []
    for rows in table.split(CHUNK):
        parts.append(simulator.reward(rows["observation"], rows["action"], rows["next", "observation"]))
        release_mapped_tables()
    reward = torch.cat(parts).double()
    last = torch.ones(len(table), dtype=torch.bool)
    last[:-1] = ~follows(table, 1)
    piece = torch.cat([torch.zeros(1, dtype=torch.long), last[:-1].long().cumsum(0)])
    average = torch.zeros(int(piece[-1]) + 1, dtype=torch.double).scatter_reduce(
        0, piece, reward, "mean", include_self=False
    )
    beyond = torch.where(table["next", "terminated"].reshape(-1), simulator.end_worth(), average[piece])
    returns, following = [], 0.0
    # From the last row to the first; plain numbers, of which there are as many as rows
    columns = zip(reward.flip(0).tolist(), last.flip(0).tolist(), beyond.flip(0).tolist(), strict=True)
    for paid, ends, after in columns:
        following = (1.0 - discount) * paid + discount * (after if ends else following)
        returns.append(following)
    return torch.tensor(returns).flip(0)


def return_weights(returns: Tensor, effective_share: float) -> Tensor:
    """Weights ``exp(G / T)`` whose temperature lets a share of the rows count effectively.

    The effective number is Kish's, ``(sum w)^2 / sum w^2``.

    Args:
        returns: G, ``(N,)``.
        effective_share: of N; at 1 all weights are equal.

    Returns:
        ``(N,)``, float64, the largest of them 1.
    """
    above = (returns - returns.max()).double()
    spread = float(-above.min())
    if spread == 0.0 or effective_share >= 1.0:
        return torch.ones_like(above)
    low, high = 1e-6 * spread, 1e6 * spread
    for _ in range(HALVINGS):
        temperature = math.sqrt(low * high)
        weights = (above / temperature).exp()
        enough = float(weights.sum() ** 2 / weights.square().sum()) >= effective_share * len(returns)
        low, high = (low, temperature) if enough else (temperature, high)
    return (above / high).exp()
