r"""What the critics believed of a policy beside what the Simulator pays it, in the same unit.

.. math::
    G = \sum_{t \ge 0} \gamma^t\,\tilde r_t
        - \frac{\alpha}{\kappa} \sum_{t \ge 1} \gamma^t \log\pi(a_t|s_t)
        + \gamma^{T+1}\,[\text{ended by step } T]\,V_{end} / \kappa

is what a critic of ``lit_modules.simulator_sac`` estimates at a start state, divided by the reward scale kappa: with
the cost of uncertainty, roll-outs cut where the method cuts them, and the entropy that its policy is paid for.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from lit_modules.simulator_sac import SimulatorSAC
from zoo import Policy

EPISODES = 50
REMAINDER = 0.01  # share of a discounted return that may be left out by ending early
BLOCK = 50  # steps between looks at whether any episode still runs


def recorded_belief(snapshot: Path) -> dict[str, float] | None:
    """What the training wrote beside a snapshot; ``None`` if it wrote nothing.

    Returns:
        ``value`` and ``temperature``, and ``uncertainty_weight`` unless the file is of before it was written.
    """
    path = snapshot.with_suffix(".json")
    try:
        belief = json.loads(path.read_text())
        names = ("value", "temperature", *(["uncertainty_weight"] if "uncertainty_weight" in belief else []))
        return {name: float(belief[name]) for name in names}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compare(learner: SimulatorSAC, policy: Policy, belief: dict[str, float]) -> dict[str, float]:
    """What the critics believed of a policy and what the Simulator pays it, in units of its reward.

    Args:
        learner: as for :func:`discounted_return`.
        policy: as for :func:`discounted_return`.
        belief: what :func:`recorded_belief` read.
    """
    paid = discounted_return(learner, policy, belief["temperature"], belief.get("uncertainty_weight"))
    return {"value": belief["value"] / float(learner.hparams["reward_scale"]), "simulator_discounted_return": paid}


@torch.no_grad()
def discounted_return(
    learner: SimulatorSAC,
    policy: Policy,
    temperature: float,
    uncertainty_weight: float | None = None,
    seed: int = 0,
) -> float:
    """G of the module's equation, mean over episodes from the Simulator's start states.

    The first action is the deterministic one, as in the recorded value; all others are sampled, as in training.
    Left out is what comes after ``log(REMAINDER) / log(gamma)`` steps, rounded up to whole blocks.

    Args:
        learner: the method, on the CPU: its rewards, ends and settings.
        policy: whose return; it replaces the learner's own.
        temperature: alpha, SAC's weight of the entropy.
        uncertainty_weight: lambda_u where it was tuned on the way to this policy; it replaces the learner's own, which
            ``None`` keeps.
        seed: of starts, actions and steps.
    """
    gamma, scale = float(learner.hparams["gamma"]), float(learner.hparams["reward_scale"])
    steps = math.ceil(math.log(REMAINDER) / math.log(gamma)) if 0.0 < gamma < 1.0 else 1
    generator = torch.Generator().manual_seed(seed)
    if uncertainty_weight is not None:
        learner.uncertainty_weight.fill_(uncertainty_weight)
    simulator = learner.simulator
    start = simulator.reset(EPISODES, generator)
    learner.policy = policy
    observation, running = start, torch.ones(EPISODES, dtype=torch.bool)
    total = torch.zeros(EPISODES)
    for first in range(0, steps, BLOCK):
        action_noise = torch.randn(BLOCK, EPISODES, simulator.action_size, generator=generator)
        members = torch.randint(simulator.transition.members, (BLOCK, EPISODES), generator=generator)
        step_noise = torch.randn(BLOCK, EPISODES, simulator.observation_size, generator=generator)
        if first == 0:
            action_noise[0] = 0.0
        columns, alive = learner.simulate(observation, action_noise, members, step_noise)
        inputs = {name: column.flatten(0, 1) for name, column in columns.items()}
        inputs["terminated"] = inputs.pop("ended").float()
        paid = learner.batch_reward(inputs).unflatten(0, alive.shape)
        location, scales = policy(columns["observation"])
        _, log_density = policy.reparameterize(location, scales, action_noise)
        if first == 0:
            log_density[0] = 0.0
        discount = gamma ** torch.arange(first, first + BLOCK).unsqueeze(-1)
        total += (alive * running * discount * (paid - temperature * log_density)).sum(dim=0)
        running = running & alive[-1] & ~columns["ended"][-1]
        if not bool(running.any()):
            break
        observation = columns["next_observation"][-1]
    return float(total.mean()) / scale
