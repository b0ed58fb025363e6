"""What an entry's models answered when it was published, so that another machine can see whether they still do."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from zoo.files import read_model, write_model
from zoo.policy import Policy
from zoo.simulator import Simulator

OUTPUTS = "outputs.safetensors"
ROWS = 16
CLOSE = 1e-4  # relative, and absolute in units of the largest value: processors round differently


@torch.no_grad()
def sample_outputs(simulator: Simulator, policy: Policy, observation: Tensor | None = None) -> dict[str, Tensor]:
    """Answers to some observations ``(N, D)``, by default start states: all of them without noise.

    Returns:
        ``observation``; the policy's ``action``; ``next_observation``, ``reward`` and ``uncertainty`` of the Simulator.
    """
    if observation is None:
        starts = simulator.start_states.observations
        observation = starts[torch.linspace(0, len(starts) - 1, ROWS).long()]
    action = policy.act(observation)
    following, reward, _, _ = simulator.step(observation, action, deterministic=True, with_uncertainty=False)
    uncertainty = simulator.measure_uncertainty(observation, action)
    return {
        "observation": observation,
        "action": action,
        "next_observation": following,
        "reward": reward,
        "uncertainty": uncertainty,
    }


def write_outputs(folder: Path, simulator: Simulator, policy: Policy) -> None:
    """Keep the answers of an entry's models in its folder."""
    write_model(folder / OUTPUTS, "outputs", {}, sample_outputs(simulator, policy))


def differing_outputs(folder: Path, simulator: Simulator, policy: Policy) -> list[str]:
    """Names of the answers that are not those that an entry's folder holds.

    Raises:
        ModelFileError: if it holds none.
    """
    _, stored = read_model(folder / OUTPUTS, "outputs")
    found = sample_outputs(simulator, policy, stored["observation"])
    return [
        name
        for name, value in found.items()
        if not torch.allclose(value, stored[name], rtol=CLOSE, atol=CLOSE * float(stored[name].abs().max()))
    ]
