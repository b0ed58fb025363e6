"""TD3 in the Simulator: what is delayed, what explores, what is saved, and that it learns."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from lit_modules.critic import flat
from lit_modules.simulator_td3 import SimulatorTD3
from zoo.policy import Policy


def snapshot(module: SimulatorTD3) -> dict[str, list[torch.Tensor]]:
    return {
        "critics": [tensor.detach().clone() for tensor in flat(module.loss.critic_layers())],
        "targets": [tensor.clone() for tensor in flat(module.loss.target_layers())],
        "actor": [tensor.detach().clone() for tensor in module.policy.network.parameters()],
        "target_actor": [tensor.clone() for tensor in module.loss.target_policy.network.parameters()],
    }


def moved(before: dict[str, list[torch.Tensor]], after: dict[str, list[torch.Tensor]]) -> set[str]:
    return {
        name
        for name in before
        if any(not torch.equal(one, other) for one, other in zip(before[name], after[name], strict=True))
    }


def test_actor_and_targets_move_only_every_third_update(steering: Any) -> None:
    module = steering.learner(SimulatorTD3, actor_every=3)
    states = [snapshot(module)]
    for _ in range(6):
        steering.train(module, 1)
        states.append(snapshot(module))
    found = [moved(one, other) for one, other in itertools.pairwise(states)]
    everything = {"critics", "targets", "actor", "target_actor"}
    assert found == [{"critics"}, {"critics"}, everything] * 2


def test_targets_follow_by_tau(steering: Any) -> None:
    module = steering.learner(SimulatorTD3, actor_every=1, tau=0.25)
    before = snapshot(module)
    steering.train(module, 1)
    after = snapshot(module)
    for target, leader in (("targets", "critics"), ("target_actor", "actor")):
        for start, now, current in zip(before[target], after[target], after[leader], strict=True):
            torch.testing.assert_close(now, 0.75 * start + 0.25 * current)


def test_roll_outs_add_gaussian_noise_within_the_bounds(steering: Any) -> None:
    module = steering.learner(SimulatorTD3, exploration_noise=0.3)
    observation = torch.zeros(3, 1)
    mean = module.policy.mean_action(observation)
    found = module.explore(observation, torch.tensor([[1.0], [-1.0], [100.0]]))
    torch.testing.assert_close(found, torch.stack([mean[0] + 0.3, mean[1] - 0.3, torch.ones(1)]))


def test_deviation_of_the_policy_file_is_that_of_the_exploration(steering: Any, tmp_path: Any) -> None:
    module = steering.learner(SimulatorTD3, exploration_noise=0.3)
    steering.train(module, 10)
    module.averaged_policy.save(tmp_path / "policy.safetensors")
    policy = Policy.load(tmp_path / "policy.safetensors")
    _, scale = policy(steering.states(20))
    torch.testing.assert_close(scale, torch.full((20, 1), 0.3))


def test_regulariser_and_normalised_values_by_hand(steering: Any) -> None:
    module = steering.learner(SimulatorTD3, cloning_weight=3.0, normalize_values=True)
    observation, expert, action = steering.states(6), steering.states(4), steering.states(4)
    critics = module.loss.critic_layers()
    inputs = {"observation": observation, "expert_observation": expert, "expert_action": action}
    total, logged = module.actor_objective(inputs, critics)
    first = [(weight[:1], bias[:1]) for weight, bias in critics]
    value = module.loss.critic.batched(first, observation, module.policy.mean_action(observation))[0]
    cloning = (module.policy.mean_action(expert) - action).square().mean()
    torch.testing.assert_close(total, -value.mean() / value.abs().mean() + 3.0 * cloning)
    torch.testing.assert_close(logged["loss_actor"], -value.mean())


@pytest.mark.parametrize("normalize_values", [True, False])
def test_it_learns_to_steer(steering: Any, normalize_values: bool) -> None:
    module = steering.learner(
        SimulatorTD3,
        normalize_values=normalize_values,
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        tau=0.05,
        refresh_every=50,
        batch_size=64,
        reward_scale=1.0,
    )
    before = steering.distance_from_best(module)
    steering.train(module, 400)
    after = steering.distance_from_best(module)
    assert before > 0.5 and after < 0.15


def test_a_resumed_training_equals_an_uninterrupted_one(steering: Any, saved_checkpoint: Any) -> None:
    """Stopped between two updates of the actor, with a full buffer that is next overwritten in its middle."""
    settings = {"refresh_every": 8, "batch_size": 16, "buffer_size": 300}
    batch = {name: steering.table(20, 8) for name in ("expert", "all")}
    whole, resumed = steering.train_interrupted(SimulatorTD3, batch, 11, saved_checkpoint, **settings)
    assert resumed.updates == whole.updates == 20
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
