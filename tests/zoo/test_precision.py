"""Half precision: what is written, and what it changes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from zoo import Policy, Simulator
from zoo.files import read_model, write_model
from zoo.precision import differences, in_half_precision
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel


@pytest.fixture
def models() -> tuple[Simulator, Policy]:
    torch.manual_seed(0)
    transition = TransitionModel(2, 1, members=3, hidden_sizes=(64, 64))
    starts = StartStates.of(torch.randn(20, 2))
    simulator = Simulator(transition, RewardModel(2, 1, (64,)), TerminationModel(), starts, [-1.0], [1.0])
    return simulator.eval().requires_grad_(False), Policy(2, [-1.0], [1.0], (64, 64)).eval().requires_grad_(False)


def test_only_weight_matrices_are_halved_and_read_back_as_float32(tmp_path: Path) -> None:
    state = {
        "layer.weight": torch.tensor([[1.0, 1.0 / 3.0]]),
        "layer.bias": torch.tensor([1.0 / 3.0]),
        "norm.weight": torch.tensor([1.0 / 3.0]),  # of a normalisation, no matrix
        "start_states.observations": torch.tensor([[1.0 / 3.0]]),
        "large.weight": torch.tensor([[1e6, 1.0 / 3.0]]),  # no number in half precision
        "count": torch.tensor([[3]]),
    }
    write_model(tmp_path / "half.safetensors", "policy", {}, state, half=True)
    _, read = read_model(tmp_path / "half.safetensors", "policy")
    assert read["layer.weight"].dtype == torch.float32
    assert read["layer.weight"].tolist() == [[1.0, 0.333251953125]]
    for name in state.keys() - {"layer.weight"}:
        assert read[name].dtype == state[name].dtype and torch.equal(read[name], state[name]), name


def test_half_precision_takes_about_half_the_space_and_changes_little(
    models: tuple[Simulator, Policy], tmp_path: Path
) -> None:
    simulator, policy = models
    for name, model in (("simulator", simulator), ("policy", policy)):
        model.save(tmp_path / f"{name}.whole")
        model.save(tmp_path / f"{name}.half", half=True)
        assert (tmp_path / f"{name}.half").stat().st_size < 0.65 * (tmp_path / f"{name}.whole").stat().st_size
    changes = differences(*models, Simulator.load(tmp_path / "simulator.half"), Policy.load(tmp_path / "policy.half"))
    assert all(0.0 < changes[name] < 1e-2 for name in changes if name != "end") and changes["end"] == 0.0
    assert changes == differences(*models, *in_half_precision(*models))
    whole = Simulator.load(tmp_path / "simulator.whole"), Policy.load(tmp_path / "policy.whole")
    assert set(differences(*models, *whole).values()) == {0.0}


def test_differences_by_hand(models: tuple[Simulator, Policy]) -> None:
    simulator, policy = models
    other = copy.deepcopy(simulator)
    other.reward.offset += 0.25
    other.transition.delta_normalizer.mean += 0.5 * simulator.transition.delta_normalizer.std
    found = differences(simulator, policy, other, policy)
    assert found["next_observation"] == pytest.approx(0.5, rel=1e-3)
    assert found["action"] == 0.0 and found["end"] == 0.0
    assert found["reward"] > 0.0
