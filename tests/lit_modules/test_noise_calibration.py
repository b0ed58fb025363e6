"""The share of the predicted deviation that a Simulator draws, on systems whose right share is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_modules.noise_calibration import calibrate_noise, energy_score
from lit_modules.offsim import OffSim
from zoo import Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

DEVIATION = 0.2  # that the model predicts


def test_energy_score_by_hand() -> None:
    samples = torch.tensor([[[0.0, 0.0], [3.0, 4.0]], [[2.0, 0.0], [3.0, 4.0]]])
    score, apart = energy_score(samples, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert apart.tolist() == [2.0, 0.0]
    assert score.tolist() == [0.0, 5.0]  # 1 - 2/2 and 5 - 0


def test_energy_score_is_best_for_the_true_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(20_000, 1, generator=generator)
    means = [
        float(energy_score(scale * torch.randn(8, 20_000, 1, generator=generator), truth)[0].mean())
        for scale in (0.5, 1.0, 2.0)
    ]
    assert means[1] < min(means[0], means[2])
    assert means[1] == pytest.approx(1.0 / math.sqrt(math.pi), rel=0.02)  # of a standard normal


def linear_simulator() -> Simulator:
    """``s' = s + a / 2 - s / 2`` with a deviation of ``DEVIATION``."""
    transition = TransitionModel(1, 1, members=2, hidden_sizes=())
    with torch.no_grad():
        layer: Any = transition.network.layers[0]  # from (s, a) to mean and log-variance
        layer.weight.copy_(torch.tensor([[-0.5, 0.0], [0.5, 0.0]]).expand(2, 2, 2))
        layer.bias.copy_(torch.tensor([0.0, 2.0 * math.log(DEVIATION)]).expand(2, 1, 2))
    reward = RewardModel(1, 1, (2,))
    return Simulator(transition, reward, TerminationModel(), StartStates.of(torch.zeros(1, 1)), [-1.0], [1.0])


def episodes(deviation: float, count: int = 20, length: int = 60) -> TensorDict:
    """Recorded steps of a linear system with noise, ``(count * length,)``."""
    generator = torch.Generator().manual_seed(1)
    observations = [torch.zeros(count, 1)]
    actions = 2.0 * torch.rand(length, count, 1, generator=generator) - 1.0
    for action in actions:
        noise = deviation * torch.randn(count, 1, generator=generator)
        observations.append(0.5 * observations[-1] + 0.5 * action + noise)
    stacked = torch.stack(observations)
    table = TensorDict(
        {
            "observation": stacked[:-1],
            "action": actions,
            "next": TensorDict({"observation": stacked[1:]}, batch_size=[length, count]),
            "episode": torch.arange(count).expand(length, count),
            "step": torch.arange(length).unsqueeze(-1).expand(length, count),
        },
        batch_size=[length, count],
    )
    return table.transpose(0, 1).reshape(-1)


@pytest.mark.parametrize(("deviation", "scale"), [(DEVIATION, 1.0), (0.5 * DEVIATION, 0.5), (0.0, 0.0)])
def test_the_noise_of_the_recorded_system_is_found(deviation: float, scale: float) -> None:
    simulator = linear_simulator()
    calibrate_noise(simulator, [episodes(deviation)], torch.Generator().manual_seed(2))
    assert simulator.noise_scale == scale


def test_without_an_episode_that_is_long_enough_the_whole_deviation_is_drawn() -> None:
    simulator = linear_simulator()
    calibrate_noise(simulator, [episodes(0.0, length=10)], torch.Generator().manual_seed(2))
    assert simulator.noise_scale == 1.0


def test_other_words_for_the_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown noise_scale 'tuned': choose a number or calibrated"):
        OffSim(1, [-1.0], [1.0], termination="none", proposal={"uniform": 1.0}, noise_scale="tuned")
