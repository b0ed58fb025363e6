"""How firmly a learner is held to the policy it was cloned from, which is worth as much as that one earns."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.diagnostics import spread
from zoo.reward import RewardModel

FAILING, KNOWN, ALWAYS = LET_GO = ("failing", "known", "always")  # cloned policies that are let go of
ROWS = 10_000  # of which the mean reward is taken


@torch.no_grad()
def demonstrated_return(
    reward: RewardModel | None, demonstrations: TensorDict, horizon: float, end_worth: float = 0.0
) -> float:
    """Mean learned return of the demonstrations, as far as an episode of ``horizon`` steps goes.

    A demonstration that ended for no other reason than that its recording did would have gone on like that. Rows that
    were left out of the data count like those that are there.

    Args:
        reward: the learned reward; ``None`` counts the steps.
        demonstrations: their transitions, ``(N,)``, with ``episode`` and ``step``.
        horizon: steps after which an episode ends at the latest.
        end_worth: reward per step that ending is as good as, which is where rewards are counted from.
    """
    lengths = _lengths(demonstrations, horizon).clamp_max(horizon).mean()
    if reward is None:
        return float(lengths)
    rows = spread(demonstrations, ROWS).to(reward.low.device)
    paid = reward(rows["observation"], rows["action"], rows["next", "observation"])
    return float(lengths) * float((paid - end_worth).mean())


def _lengths(table: TensorDict, horizon: float) -> Tensor:
    """Steps of each episode, ``(E,)``; ``horizon`` of one whose every row is there, and none of them terminal."""
    episodes = table["episode"].unique(return_inverse=True)[1]
    zero = torch.zeros(int(episodes.max()) + 1, dtype=torch.long, device=episodes.device)
    steps = zero.scatter_reduce(0, episodes, table["step"].long(), "amax") + 1
    rows = zero.scatter_add(0, episodes, torch.ones_like(episodes))
    ends = zero.scatter_add(0, episodes, table["next", "terminated"].reshape(-1).long())
    cut_off = (rows == steps) & (ends == 0)
    return torch.where(cut_off, torch.full_like(steps, horizon, dtype=torch.float), steps.float())


def hold_of(earned: float, demonstrated: float, loosen_below: float | None, loosened_hold: float) -> float:
    """Share of the holds' weights that a cloned policy deserves: all of it, or ``loosened_hold`` where it fails.

    Args:
        earned: what it returns in the Simulator; what is not a number fails.
        demonstrated: what the demonstrations return.
        loosen_below: share of that below which it fails; ``None``: it never does.
        loosened_hold: see above.
    """
    fails = loosen_below is not None and demonstrated > 0.0 and not earned >= loosen_below * demonstrated
    return loosened_hold if fails else 1.0
