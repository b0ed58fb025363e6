"""How much of the predicted deviation a Simulator is to draw: what forecasts recorded episodes best, many steps on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules import diagnostics
from zoo.simulator import Simulator

CALIBRATED = "calibrated"  # in the place of a number
SCALES = (1.0, 0.75, 0.5, 0.25, 0.0)
STEPS = 20  # of a forecast: after one step every noise of the right size is right
STARTS = 256  # forecasts from each table
SAMPLES = 8  # of each forecast


def energy_score(samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    r"""Score of forecasts of vectors, lower is better; nothing beats the true distribution (Gneiting & Raftery 2007).

    .. math:: ES = E|X - y| - \frac{1}{2} E|X - X'|

    Args:
        samples: of each forecast, ``(M, N, D)``.
        truth: what happened, ``(N, D)``.

    Returns:
        Score ``(N,)``, and the mean distance between two samples, ``(N,)``.
    """
    count = len(samples)
    distance = (samples - truth).norm(dim=-1).mean(dim=0)
    apart = (samples.unsqueeze(0) - samples.unsqueeze(1)).norm(dim=-1).sum(dim=(0, 1)) / (count * (count - 1))
    return distance - 0.5 * apart, apart


@torch.no_grad()
def calibrate_noise(simulator: Simulator, tables: Sequence[TensorDict], generator: torch.Generator) -> None:
    """Set ``noise_scale`` to the one of ``SCALES`` whose forecasts of recorded episodes score best.

    Recorded actions are replayed from recorded states. Deviations that are right for one step are too large for many
    if errors are no noise, but the same wherever the same is done: drawn afresh at every step, they make of a gait
    that holds in reality one that falls. In a system with noise of its own the whole deviation scores best.

    Scores are divided by how far apart forecasts with the whole noise are, so that every state counts alike, and
    averaged over each table; the tables count alike.

    Args:
        simulator: changed in place.
        tables: recorded transitions, of which the model may know those of the demonstrations.
        generator: source of randomness, the same numbers for every scale; one on the simulator's device.
    """
    unit = simulator.transition.observation_normalizer.std
    totals = torch.zeros(len(SCALES))
    for table in tables:
        starts = diagnostics.segments(table, STEPS, STARTS)
        if len(starts) == 0:
            continue  # no episode is that long
        first = table["observation"][starts].to(unit.device)
        actions = torch.stack([table["action"][starts + step] for step in range(STEPS)]).to(unit.device)
        reached = [table["next", "observation"][starts + step].to(unit.device) for step in range(STEPS)]
        truth = reached[-1] / unit
        outside = torch.stack([simulator.transition.exogenous_of(each) for each in reached])
        state = generator.get_state()
        found = []
        for scale in SCALES:
            generator.set_state(state)
            simulator.noise_scale = scale
            found.append(energy_score(_forecast(simulator, first, actions, outside, generator) / unit, truth))
        apart = found[0][1].clamp_min(torch.finfo(truth.dtype).eps)
        totals += torch.stack([(score / apart).mean() for score, _ in found]).cpu()
    # Of equals the first: without any evidence, all that the model predicts
    simulator.noise_scale = SCALES[int(totals.argmin())]


def _forecast(
    simulator: Simulator, first: Tensor, actions: Tensor, outside: Tensor, generator: torch.Generator
) -> Tensor:
    """Observations ``(SAMPLES, N, D)`` after ``actions`` ``(STEPS, N, A)`` from ``first`` ``(N, D)``.

    ``outside``: what was set from outside, ``(STEPS, N, d)``.
    """
    observation = first.repeat(SAMPLES, 1)
    members = simulator.episode_members(len(observation), generator)
    for action, given in zip(actions.repeat(1, SAMPLES, 1), outside.repeat(1, SAMPLES, 1), strict=True):
        observation, *_ = simulator.step(
            observation, action, generator, with_uncertainty=False, members=members, exogenous=given
        )
    return observation.view(SAMPLES, *first.shape)
