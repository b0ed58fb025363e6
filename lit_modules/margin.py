r"""How much more reward an expert transition should have than a diverse one: the margin m of OffSim+.

.. math::
    L_{margin} = E[\mathrm{ReLU}(m(x_D) - (r(x_E) - r(x_D)))] \quad\text{(arXiv 2510.15495, Eq. 8)}

The paper chooses one m per environment by hand from the distribution of its reward and asks how to choose it from the
data (its open question 2). Two answers:

**A multiple of the reward's own spread**, :func:`reward_spread`, one multiple for every diverse data set or one for
each of them: the same number then means the same on every task.

**Adaptive**, :func:`adaptive_margins`. The gradient penalty holds the reward to a slope of K, so no reward can have
r(x_E) - r(x_D) > K |x_E - x_D|. The largest margin that can be kept against *every* demonstration is therefore
K d(x_D), where d is the distance to the nearest of them, and r(x) = -K d(x) keeps it. A transition next to the
demonstrations is asked for nothing, one far away for much, whichever data set it came from; nothing is left to choose.
As no transition of the expert itself lies on another one, the distance that is usual between the expert's own strides
is subtracted first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

from zoo.spacing import evenly_spaced

ADAPTIVE = "adaptive"
REFERENCE_ROWS = 10_000  # demonstrated transitions that distances are measured to, at most
APART = 50  # steps between two rows of an episode that are not neighbours in time
CHUNK = 2048


def margin_loss(expert_reward: Tensor, diverse_reward: Tensor, margin: Tensor) -> Tensor:
    """Mean shortfall of pairs, ``(N,)`` each, a scalar."""
    return functional.relu(margin - (expert_reward - diverse_reward)).mean()


def reward_spread(expert_reward: Tensor, rollout_reward: Tensor) -> Tensor:
    """Deviation of the reward within demonstrations and within roll-outs, pooled; a constant to the loss.

    The gap between the two does not count: a margin measured in it would grow with every step that it demands.
    """
    variance = 0.5 * (expert_reward.detach().var() + rollout_reward.detach().var())
    return variance.sqrt()


def source_margins(margin: float | Sequence[float], source: Tensor) -> Tensor:
    """The multiple of the spread asked of each diverse row, ``(N,)``.

    Args:
        margin: one for all, or one for each data set.
        source: which data set each row came from, ``(N,)``.

    Raises:
        ValueError: if there are not as many as data sets.
    """
    values = [float(margin)] if isinstance(margin, int | float) else [float(value) for value in margin]
    sources = int(source.max()) + 1
    if len(values) not in (1, sources):
        raise ValueError(
            f"margin lists {len(values)} values for {sources} diverse data sets: give one for each, in the order of "
            f"data.diverse, one number for all of them, or {ADAPTIVE!r}"
        )
    if len(values) == 1:
        return torch.tensor(values).expand(len(source))
    return torch.tensor(values)[source]


@torch.no_grad()
def adaptive_margins(
    expert: Tensor, expert_episode: Tensor, expert_step: Tensor, diverse: Tensor, slope: float
) -> tuple[Tensor, float]:
    """The largest margin that a reward of bounded slope can keep at each diverse transition.

    Args:
        expert: features of demonstrated transitions, ``(M, F)``.
        expert_episode: episode of each, ``(M,)``.
        expert_step: step of each in its episode, ``(M,)``.
        diverse: features of diverse transitions, ``(N, F)``.
        slope: K, the norm of the reward's gradient above which it is penalised.

    Returns:
        Margins ``(N,)`` in unscaled reward, and what was subtracted: the median distance between the expert's own.
    """
    kept = evenly_spaced(len(expert), REFERENCE_ROWS)
    reference, episode, step = expert[kept], expert_episode[kept], expert_step[kept]
    own = evenly_spaced(len(kept), CHUNK)
    distance = torch.cdist(reference[own], reference)
    neighbours = (episode[own, None] == episode) & ((step[own, None] - step).abs() < APART)
    nearest = distance.masked_fill(neighbours, torch.inf).amin(dim=1)
    comparable = nearest[nearest.isfinite()]
    usual = float(comparable.median()) if len(comparable) > 0 else 0.0
    distances = torch.cat([torch.cdist(rows, reference).amin(dim=1) for rows in diverse.split(CHUNK)])
    return slope * functional.relu(distances - usual), usual
