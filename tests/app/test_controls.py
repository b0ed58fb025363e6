"""Controls: what their rewards are, and that nothing takes them for a result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

from app.controls import ConstantReward, ControlSAC
from app.export import learned, save_learned
from app.true_reward import TrueReward
from zoo import ModelFileError, Policy, Simulator


def make(simulator: Simulator, folder: Path) -> ControlSAC:
    simulator.save(folder / "simulator.safetensors")
    return ControlSAC(simulator=str(folder / "simulator.safetensors"), hidden_sizes=(8,), gamma=0.9, reward_scale=0.1)


def test_demonstrated_rows_earn_one_and_all_others_nothing() -> None:
    observation, action = torch.randn(500, 11), torch.randn(500, 3)
    reward = ConstantReward(observation, action)
    order = torch.randperm(500)
    assert bool((reward(observation[order], action[order], observation) == 1.0).all())
    nearly = observation.clone()
    nearly[:, 4] = torch.nextafter(nearly[:, 4], torch.tensor(100.0))
    assert float(reward(nearly, action, observation).sum()) == 0.0
    assert float(reward(observation, action.flip(0), observation).sum()) == 0.0
    assert reward(observation.view(20, 25, 11), action.view(20, 25, 3), observation.view(20, 25, 11)).shape == (20, 25)
    assert (float(reward.low), float(reward.high)) == (0.0, 1.0)


def test_a_replaced_reward_is_what_is_paid_and_bounds_every_value(simulator: Simulator, tmp_path: Path) -> None:
    control = make(simulator, tmp_path)
    control.replace_reward(TrueReward("hopper", unit=4.0, low=-0.5, high=2.0))
    assert float(control.end_value) == pytest.approx(-0.5) and float(control.loss.value_low) == pytest.approx(-0.5)
    assert float(control.loss.value_high) == pytest.approx(2.0)
    observation = torch.zeros(1, 11)
    observation[:, 0], observation[:, 5] = 1.25, 3.0
    inputs = {
        "observation": observation,
        "action": torch.zeros(1, 3),
        "next_observation": observation,
        "uncertainty": torch.zeros(1),
        "terminated": torch.zeros(1),
    }
    torch.testing.assert_close(control.batch_reward(inputs), torch.tensor([0.1 * (3.0 + 1.0) / 4.0]))
    _, reward, _, _ = control.simulator.step(observation, torch.zeros(1, 3))
    assert -0.5 <= float(reward) <= 2.0


def test_no_code_path_takes_a_control_for_a_result(simulator: Simulator, tmp_path: Path) -> None:
    control = make(simulator, tmp_path)
    control.replace_reward(TrueReward("hopper", low=0.0, high=4.0))
    with pytest.raises(TypeError, match="no learned one"):
        control.simulator.save(tmp_path / "other.safetensors")
    for refused in (
        lambda: learned(control, SimpleNamespace()),  # type: ignore[arg-type]
        lambda: save_learned(control, SimpleNamespace(), tmp_path / "policy.safetensors"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="control"):
            refused()
    assert not (tmp_path / "policy.safetensors").exists()
    control.finished_policy(SimpleNamespace()).save(tmp_path / "kept.safetensors")
    control.policy.save(tmp_path / "current.safetensors")
    for name in ("kept", "current"):
        with pytest.raises(ModelFileError, match="control"):
            Policy.load(tmp_path / f"{name}.safetensors")
    control.replay.extend(TensorDict({"reward": torch.zeros(1)}, batch_size=[1]))
    checkpoint: dict[str, object] = {}
    control.on_save_checkpoint(checkpoint)
    assert checkpoint["control"] is True
