"""How good a Simulator is on held-out data: errors, open-loop drift, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from datamodules.cache import SCATTERED_ROWS, release_mapped_tables
from lit_modules.rows import concatenate, follows
from zoo.spacing import evenly_spaced
from zoo.transition import TransitionModel

# Half-widths of the central 50% and 90% intervals of a standard normal.
INTERVALS = {0.5: 0.674490, 0.9: 1.644854}


def spread(table: TensorDict, count: int) -> TensorDict:
    """Up to ``count`` evenly spaced rows."""
    if len(table) <= count:
        return table
    parts = []
    for rows in evenly_spaced(len(table), count).split(SCATTERED_ROWS):
        parts.append(table[rows])
        release_mapped_tables()
    return concatenate(parts)


def distances_between_episodes(features: Tensor, episode: Tensor, queries: int) -> Tensor | None:
    """Distance of up to ``queries`` evenly spaced rows to the nearest row of another episode, if there is one.

    Args:
        features: of each row, ``(N, D)``.
        episode: that it is of, ``(N,)``.
        queries: M, at most.

    Returns:
        ``(M,)``.
    """
    if len(episode.unique()) < 2:
        return None
    chosen = evenly_spaced(len(episode), queries)
    own = episode[chosen].unsqueeze(1) == episode
    # Without matrix products, whose rounding is larger than what may be between two copies of one gait
    distances = torch.cdist(features[chosen], features, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.masked_fill(own, torch.inf).min(dim=1).values


def segments(table: TensorDict, length: int, limit: int = 512) -> Tensor:
    """First rows of up to ``limit`` evenly spaced stretches of ``length`` steps of one episode, ``(N,)``."""
    count = len(table) - length + 1
    if count <= 0:
        return torch.zeros(0, dtype=torch.long)
    starts = torch.nonzero(follows(table, length - 1)).squeeze(-1)
    return starts[evenly_spaced(len(starts), limit)]


@torch.no_grad()
def open_loop(model: TransitionModel, table: TensorDict, starts: Tensor, length: int) -> Tensor:
    """Replay recorded actions, and what was set from outside, in the model's mean from recorded states.

    Returns:
        Imagined observations after 1 to ``length`` steps, ``(length, N, D)``.
    """
    observation = table["observation"][starts]
    imagined = []
    for step in range(length):
        mean, _ = model(observation, table["action"][starts + step])
        outside = model.exogenous_of(table["next", "observation"][starts + step])
        observation = model.next_observation(observation, mean.mean(dim=0), exogenous=outside)
        imagined.append(observation)
    return torch.stack(imagined)


@torch.no_grad()
def open_loop_errors(model: TransitionModel, table: TensorDict, steps: Sequence[int]) -> dict[int, float]:
    """Root-mean-square error in standardised observations after each number of steps, replaying recorded actions."""
    return _over_features(model, open_loop_differences(model, table, steps))


def no_change_errors(model: TransitionModel, table: TensorDict, steps: Sequence[int]) -> dict[int, float]:
    """The same error of predicting that nothing changes: how far apart states are."""
    return _over_features(model, _differences(table, steps, lambda starts, _: table["observation"][starts]))


@torch.no_grad()
def open_loop_differences(model: TransitionModel, table: TensorDict, steps: Sequence[int]) -> dict[int, Tensor]:
    """What a replay of recorded actions is off by after each number of steps, ``(N, D)`` in the features' own units."""
    return _differences(table, steps, lambda starts, length: open_loop(model, table, starts, length)[-1])


def _differences(
    table: TensorDict, steps: Sequence[int], forecast: Callable[[Tensor, int], Tensor]
) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for length in steps:
        starts = segments(table, length)
        if len(starts) > 0:
            found[length] = forecast(starts, length) - table["next", "observation"][starts + length - 1]
    return found


def _over_features(model: TransitionModel, differences: Mapping[int, Tensor]) -> dict[int, float]:
    std = model.observation_normalizer.std
    foreseen = model.foreseen
    return {length: float((each / std)[..., foreseen].square().mean().sqrt()) for length, each in differences.items()}


@torch.no_grad()
def one_step_errors(model: TransitionModel, table: TensorDict, limit: int = 4096) -> dict[str, Tensor]:
    """One-step error and calibration of a transition model on held-out rows.

    Returns:
        ``one_step``: root-mean-square error of the mean prediction, in standardised differences;
        ``worst_member``: the same error of the worst member over that of the median one, 1 where all are alike;
        ``inside_50``, ``inside_90``: share of targets inside the members' central intervals.
    """
    rows = spread(table, limit)
    mean, log_variance = model(rows["observation"], rows["action"])
    target = model.standardized_delta(rows["observation"], rows["next", "observation"])
    if model.exogenous:
        mean, log_variance, target = (each[..., model.foreseen] for each in (mean, log_variance, target))
    result = {"one_step": (mean.mean(dim=0) - target).square().mean().sqrt()}
    member = (mean - target).square().mean(dim=(1, 2)).sqrt()
    result["worst_member"] = member.max() / member.median()
    distance = (target - mean).abs() / (0.5 * log_variance).exp()
    for level, half_width in INTERVALS.items():
        result[f"inside_{round(100 * level)}"] = (distance < half_width).float().mean()
    return result


def transition_errors(model: TransitionModel, table: TensorDict, horizon: int, limit: int = 4096) -> dict[str, Tensor]:
    """:func:`one_step_errors`, and as ``open_loop`` the error after H steps, in standardised observations."""
    open_loop = torch.tensor(open_loop_errors(model, table, [horizon]).get(horizon, float("nan")))
    return {**one_step_errors(model, table, limit), "open_loop": open_loop}
