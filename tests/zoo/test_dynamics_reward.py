"""The dynamics reward: its formula, its scale, its file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from zoo.dynamics_reward import SMALLEST_GAP, DynamicsReward
from zoo.files import ModelFileError, read_model, write_model


def of_change(*slopes: float) -> DynamicsReward:
    """Snapshots whose logit is so many times the standardised change of a one-dimensional state."""
    made = DynamicsReward(1, 1, len(slopes), hidden_sizes=())
    with torch.no_grad():
        layer = made.network.layers[0]
        layer.weight.zero_()
        layer.weight[:, 2, 0] = torch.tensor(slopes)
    return made


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def test_it_is_the_formula_of_its_snapshots() -> None:
    made = of_change(1.0, -2.0)
    made.low.copy_(torch.tensor([[-1.0], [-3.0]]))
    made.high.copy_(torch.tensor([[3.0], [1.0]]))
    observation, action = torch.tensor([[5.0], [5.0], [5.0]]), torch.tensor([[7.0], [-7.0], [0.0]])
    change = torch.tensor([[0.5], [-0.2], [9.0]])
    expected = []
    for value in (0.5, -0.2, 9.0):
        first = sigmoid(2.0 * (min(max(value, -1.0), 3.0) + 1.0) / 4.0 - 1.0)
        second = sigmoid(2.0 * (min(max(-2.0 * value, -3.0), 1.0) + 3.0) / 4.0 - 1.0)
        expected.append(-math.log(1.0 - 0.5 * (first + second)))
    found = made(observation, action, observation + change)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_it_lies_between_what_nothing_and_everything_says() -> None:
    made = of_change(1.0)
    lowest, highest = made(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([[-100.0], [100.0]])).tolist()
    assert (lowest, highest) == pytest.approx((-math.log(1.0 - sigmoid(-1.0)), -math.log(1.0 - sigmoid(1.0))))
    assert (lowest, highest) == pytest.approx((0.3133, 1.3133), abs=1e-4)


def test_logits_are_bounded_by_their_means_on_simulated_and_on_recorded_transitions() -> None:
    made = of_change(1.0, -1.0)
    recorded = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 3.0]])
    simulated = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    made.set_scale(recorded, simulated)
    assert made.low.flatten().tolist() == pytest.approx([-0.5, 0.5])
    # The second rates simulated ones higher, and so says nothing
    assert made.high.flatten().tolist() == pytest.approx([2.0, 0.5 + SMALLEST_GAP])


def test_it_is_in_its_file_what_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = DynamicsReward(3, 2, 4, hidden_sizes=(8, 8))
    made.delta_normalizer.set_statistics(torch.randn(3), torch.rand(3) + 0.5)
    made.set_scale(torch.randn(50, 8), torch.randn(50, 8))
    made.save(tmp_path / "d.safetensors")
    loaded = DynamicsReward.load(tmp_path / "d.safetensors")
    transition = torch.randn(20, 3), torch.randn(20, 2), torch.randn(20, 3)
    assert torch.equal(loaded(*transition), made(*transition))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    of_change(1.0).save(path)
    with pytest.raises(ModelFileError, match="holds a dynamics reward, where a policy was asked for"):
        read_model(path, "policy")
    write_model(path, "dynamics reward", {"observation_size": "many"}, {})
    with pytest.raises(ModelFileError, match="does not describe a dynamics reward"):
        DynamicsReward.load(path)
    with pytest.raises(ModelFileError, match="no dynamics reward file at"):
        DynamicsReward.load(tmp_path / "none.safetensors")
