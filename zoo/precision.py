"""What keeping a Simulator and its policy in half precision changes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from zoo.files import halved
from zoo.policy import Policy
from zoo.simulator import Simulator

EPISODES = 100
STEPS = 100
# What may change, in the units of :func:`differences`: far less than any learned simulator errs
EQUAL = {"action": 0.01, "next_observation": 0.01, "reward": 0.01, "uncertainty": 0.05, "end": 0.01}


def is_in_half_precision(simulator: Simulator, policy: Policy) -> bool:
    """Whether half precision would change no weight."""
    return all(
        torch.equal(value.to(weights[name].dtype), weights[name])
        for weights in (simulator.state_dict(), policy.state_dict())
        for name, value in halved(weights).items()
    )


def in_half_precision(simulator: Simulator, policy: Policy) -> tuple[Simulator, Policy]:
    """Copies whose weights are those that files in half precision give back."""
    copies = copy.deepcopy(simulator), copy.deepcopy(policy)
    for model in copies:
        model.load_state_dict(halved(model.state_dict()))
    return copies


@torch.no_grad()
def differences(
    simulator: Simulator, policy: Policy, other_simulator: Simulator, other_policy: Policy, seed: int = 0
) -> dict[str, float]:
    """How differently two Simulators and their policies answer where the first ones go.

    The first policy acts in the first Simulator, with its noise, in 100 episodes of 100 steps; both answer to every
    state on the way, the Simulators by the mean of their members.

    Returns:
        Root-mean-square differences of ``action`` in half action ranges, of ``next_observation`` in standardised
        differences, of ``reward`` on its standard scale, of ``uncertainty`` in medians of the data's, and of whether
        the next state is an ``end``, 1 or 0.
    """
    device = simulator.uncertainty_quantiles.device
    generator = torch.Generator(device).manual_seed(seed)
    observation = simulator.reset(EPISODES, generator)
    alive = torch.ones(EPISODES, dtype=torch.bool, device=device)
    found: list[dict[str, Tensor]] = []
    for _ in range(STEPS):
        action = policy.act(observation)
        mine, reward, ended, info = simulator.step(observation, action, deterministic=True)
        theirs, other_reward, other_ended, other_info = other_simulator.step(observation, action, deterministic=True)
        delta = simulator.transition.standardized_delta
        changes = {
            "action": (other_policy.act(observation) - action) / policy.half_range,
            "next_observation": delta(observation, theirs) - delta(observation, mine),
            "reward": other_reward - reward,
            "uncertainty": (other_info["uncertainty"] - info["uncertainty"]) / simulator.uncertainty_unit(),
            "end": other_ended.float() - ended.float(),
        }
        found.append({name: value[alive].square().flatten() for name, value in changes.items()})
        observation, _, terminated, _ = simulator.step(observation, action, generator, with_uncertainty=False)
        alive = alive & ~terminated
        if not bool(alive.any()):
            break
    return {name: float(torch.cat([each[name] for each in found]).mean().sqrt()) for name in found[0]}
