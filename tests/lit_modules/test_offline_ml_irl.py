"""Offline ML-IRL: when the reward learns, from what, and what ends are worth."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_modules.offline_ml_irl import OfflineMLIRL
from zoo import Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

SIZE, LOW, HIGH = 3, [-1.0, -1.0], [1.0, 1.0]


def table(*size: int) -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(*size, SIZE),
            "action": torch.rand(*size, 2) * 2 - 1,
            "next": {"observation": torch.randn(*size, SIZE), "terminated": torch.rand(*size, 1) < 0.2},
        },
        batch_size=list(size),
    )


def make(folder: Path, **settings: Any) -> OfflineMLIRL:
    torch.manual_seed(0)
    simulator = Simulator(
        TransitionModel(SIZE, 2, members=2, hidden_sizes=(8,)),
        RewardModel(SIZE, 2, (8,)),
        TerminationModel(),
        StartStates.of(torch.randn(20, SIZE)),
        LOW,
        HIGH,
    )
    simulator.calibrate_uncertainty(torch.randn(100, SIZE), torch.randn(100, 2))
    simulator.save(folder / "simulator.safetensors")
    module = OfflineMLIRL(
        str(folder / "simulator.safetensors"),
        **{"reward_hidden_sizes": (8,), "hidden_sizes": (8,), "starts": 10, "horizon": 3, "batch_size": 16, **settings},
    )
    data = SimpleNamespace(expert_train=table(30), diverse_train=table(70), streams={"expert": 16, "all": 16})
    module._trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
    wrapped = [SimpleNamespace(optimizer=each) for each in module.configure_optimizers()]
    module.optimizers = lambda: wrapped  # type: ignore[assignment, method-assign]
    module.manual_backward = lambda loss, **given: loss.backward(**given)  # type: ignore[method-assign]
    return module


def batch(updates: int) -> dict[str, TensorDict]:
    return {"expert": table(updates, 16), "all": table(updates, 16)}


def reward_parameters(module: OfflineMLIRL) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in module.simulator.reward.network.parameters()])


def test_reward_learns_at_its_turns_alone(tmp_path: Path) -> None:
    module = make(tmp_path, reward_every=4)
    changed = []
    for _ in range(8):
        before = reward_parameters(module)
        module.run(module.converse(batch(1)))
        changed.append(not torch.equal(before, reward_parameters(module)))
    assert changed == [True, False, False, False] * 2


def test_policy_steps_leave_the_reward_and_reward_steps_the_policy(tmp_path: Path) -> None:
    module = make(tmp_path, reward_every=1)
    policy, reward = (each.optimizer for each in module.optimizers())  # type: ignore[union-attr]
    owned = [{id(p) for group in each.param_groups for p in group["params"]} for each in (policy, reward)]
    assert owned[1] == {id(p) for p in module.simulator.reward.network.parameters()}
    assert not owned[0] & owned[1]
    assert not any(p.requires_grad for p in module.simulator.transition.parameters())


def test_reward_tells_demonstrations_from_the_policy(tmp_path: Path) -> None:
    module = make(tmp_path, reward_every=1, reward_learning_rate=1e-2)
    module.trainer.datamodule.expert_train["observation"] += 2.0  # type: ignore[attr-defined]
    for _ in range(4):
        rows = batch(20)
        rows["expert"]["observation"] += 2.0
        logged = module.run(module.converse(rows))
    assert float(logged["reward/expert"]) > float(logged["reward/rollout"]) + 0.5


def test_an_end_is_worth_a_low_quantile_of_the_policys_reward(tmp_path: Path) -> None:
    module = make(tmp_path, reward_every=1, end_quantile=0.25, level_average=0.0)
    logged = module.run(module.converse(batch(1)))
    mean, end = float(logged["reward/rollout"]), float(logged["reward/end"])
    assert float(module.simulator.reward.offset) == pytest.approx(mean)
    assert float(module.end_value) == pytest.approx(0.1 * (end - mean) / (1.0 - 0.99), rel=1e-4) and end < mean
    assert float(module.loss.value_high) == pytest.approx(0.1 * 10.0 / 0.01, rel=1e-5)


def test_nothing_is_earned_beyond_a_quantile_of_the_demonstrations(tmp_path: Path) -> None:
    module = make(tmp_path, reward_every=1, high_quantile=0.75, level_average=0.0)
    logged = module.run(module.converse(batch(1)))
    reward = module.simulator.reward
    assert float(reward.high) == pytest.approx(float(logged["reward/high"] - logged["reward/rollout"]), abs=1e-6)
    rows = table(500)
    paid = reward(rows["observation"], rows["action"], rows["next", "observation"])
    raw = reward.raw(reward.features(rows["observation"], rows["action"], rows["next", "observation"])) - reward.offset
    assert bool((raw > reward.high).any())
    assert torch.equal(paid, raw.clamp(max=reward.high))


def test_doubt_pays_what_an_average_transition_of_the_policy_does(tmp_path: Path) -> None:
    module = make(tmp_path, reward_every=1, uncertainty_weight=1.0, high_quantile=None)
    module.run(module.converse(batch(3)))
    drawn = {name: value[0] for name, value in module.draw(batch(1)).items()}
    drawn["terminated"].zero_()
    sure = module.batch_reward(drawn | {"uncertainty": torch.zeros_like(drawn["uncertainty"])})
    doubtful = module.batch_reward(drawn | {"uncertainty": torch.full_like(drawn["uncertainty"], 1e6)})
    assert (sure > 0).any() and (sure < 0).any()
    torch.testing.assert_close(doubtful, sure.clamp_max(0.0))  # bad is believed all the same


def test_a_constant_in_the_reward_changes_nothing(tmp_path: Path) -> None:
    rows, rewards = batch(1), []
    for constant in (0.0, 3.0):
        module = make(tmp_path, reward_every=1, level_average=0.0, l2_weight=0.0)
        module.simulator.reward.network[-1].bias.data += constant
        torch.manual_seed(1)
        module.run(module.converse(rows.copy()))
        inputs = {name: value[0] for name, value in module.draw(rows).items()}
        rewards.append(module.batch_reward(inputs))
    torch.testing.assert_close(rewards[0], rewards[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("high_quantile", [None, 0.5])
def test_a_simulator_with_the_learned_reward_comes_out(tmp_path: Path, high_quantile: float | None) -> None:
    module = make(tmp_path, reward_every=1, reward_learning_rate=1e-2, high_quantile=high_quantile)
    data = module.trainer.datamodule  # type: ignore[attr-defined]
    data.expert_train["observation"] += 2.0
    for _ in range(4):
        rows = batch(20)
        rows["expert"]["observation"] += 2.0
        module.run(module.converse(rows))
    before = reward_parameters(module), module.simulator.reward.offset.clone(), module.simulator.end_reward
    module.learned_simulator(data).save(tmp_path / "learned.safetensors")
    after = reward_parameters(module), module.simulator.reward.offset, module.simulator.end_reward
    torch.testing.assert_close(after, before, rtol=0.0, atol=0.0)  # a training can go on
    again = Simulator.load(tmp_path / "learned.safetensors")
    expert = data.expert_train
    reward = again.reward(expert["observation"], expert["action"], expert["next", "observation"])
    if high_quantile is None:
        assert float(reward.mean()) == pytest.approx(1.0, abs=0.05)
    else:  # as it was trained in: half of the demonstrations earn no more than the other half
        assert float((reward == reward.max()).float().mean()) == pytest.approx(0.5, abs=0.05)
    own = module.replay[module.acted_rows()]
    earned = again.reward(own["observation"], own["action"], own["next", "observation"])
    assert again.end_worth() == pytest.approx(float(earned.quantile(0.05)), abs=1e-3)
    assert again.reward_learned


def test_pushes_are_not_taken_for_what_the_policy_does(tmp_path: Path) -> None:
    module = make(tmp_path, push_share=0.5, push_steps=2, horizon=8, starts=100)
    module.run(module.converse(batch(1)))
    pushed = module.replay[: len(module.replay)]["pushed"]
    assert float(pushed.float().mean()) == pytest.approx(0.5 * 2 / 8, abs=0.05)
    assert not bool(pushed[module.acted_rows()].any()) and len(module.acted_rows()) == int((~pushed).sum())
    everything = make(tmp_path, push_share=1.0, push_steps=8, horizon=8, starts=10)
    everything.run(everything.converse(batch(1)))
    assert len(everything.acted_rows()) == len(everything.replay)


def test_a_checkpoint_continues_with_the_same_draws(tmp_path: Path) -> None:
    module, again = make(tmp_path), make(tmp_path)
    module.run(module.converse(batch(12)))
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    again.load_state_dict(module.state_dict())
    again.on_load_checkpoint(checkpoint)
    assert torch.equal(module.reward_random.uniform(5), again.reward_random.uniform(5))
    assert torch.equal(again.simulator.reward.offset, module.simulator.reward.offset)
    assert torch.equal(again.end_value, module.end_value) and float(again.end_value) != 0.0
