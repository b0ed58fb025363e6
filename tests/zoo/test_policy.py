"""The policy: densities, bounds, files, and TorchRL's view of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from zoo import ModelFileError, Policy
from zoo.policy import joined, separated


@pytest.fixture
def policy() -> Policy:
    torch.manual_seed(0)
    built = Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,))
    built.normalizer.set_statistics(torch.full((5,), 3.0), torch.full((5,), 2.0))
    return built


def test_actions_lie_within_the_bounds(policy: Policy) -> None:
    for deterministic in (True, False):
        action = policy.act(100 * torch.randn(500, 5), deterministic)
        assert bool((action >= policy.action_low).all() and (action <= policy.action_high).all())


def test_sampled_log_density_equals_that_of_the_distribution(policy: Policy) -> None:
    observation = torch.randn(50, 5) + 3.0
    action, log_prob = policy.sample(observation)
    inside = ((action - policy.action_low) / (policy.action_high - policy.action_low) - 0.5).abs().amax(dim=-1) < 0.49
    expected = policy.distribution(observation).log_prob(action)
    torch.testing.assert_close(log_prob[inside], expected[inside], atol=1e-3, rtol=1e-3)
    assert int(inside.sum()) > 25


def test_log_density_of_recorded_actions_equals_that_of_the_distribution(policy: Policy) -> None:
    observation = torch.randn(50, 5)
    inside = policy.action_low + (0.01 + 0.98 * torch.rand(50, 2)) * (policy.action_high - policy.action_low)
    expected = policy.distribution(observation).log_prob(inside)
    torch.testing.assert_close(policy.log_prob(observation, inside), expected, atol=1e-3, rtol=1e-3)


def test_log_density_of_actions_on_the_bound_is_finite(policy: Policy) -> None:
    observation = torch.randn(4, 5)
    on_bound = policy.action_high.expand(4, 2)
    assert torch.isfinite(policy.log_prob(observation, on_bound)).all()


def test_policy_normalises_raw_observations_itself(policy: Policy) -> None:
    plain = Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,))
    plain.network.load_state_dict(policy.network.state_dict())
    observation = torch.randn(7, 5)
    torch.testing.assert_close(policy.act(observation), plain.act((observation - 3.0) / 2.0))


def test_features_that_never_vary_are_not_blown_up(policy: Policy) -> None:
    policy.normalizer.set_statistics(torch.zeros(5), torch.tensor([1.0, 0.0, 1.0, 1.0, 1e-12]))
    assert policy.normalizer(torch.ones(5)).tolist() == [1.0] * 5
    # What rounding in single precision leaves of a large constant, and a small signal in SI units
    mean, std = torch.tensor([3e5, 0.0, 2e-8, 0.0, 0.0]), torch.tensor([0.02, 1e-7, 3e-9, 1.0, 1.0])
    policy.normalizer.set_statistics(mean, std)
    assert policy.normalizer.std.tolist() == pytest.approx([1.0, 1e-7, 3e-9, 1.0, 1.0])


def test_a_deviation_that_was_fixed_can_be_set_again(policy: Policy) -> None:
    policy.fix_deviation(0.1)
    policy.set_deviation(0.3)
    assert policy(torch.randn(4, 5))[1].flatten().tolist() == pytest.approx([0.3] * 8)
    assert policy.config["log_std_min"] < policy.config["log_std_max"]


def test_distances_are_in_half_action_ranges() -> None:
    policy = Policy(5, [-50.0, 0.0], [50.0, 0.01], (8,))
    distance = policy.squared_distance(torch.tensor([[25.0, 0.0]]), torch.tensor([[0.0, 0.005]]))
    assert distance.tolist() == pytest.approx([0.5**2 + 1.0])


def test_round_trip_is_equal_bit_for_bit(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path / "policy.safetensors")
    loaded = Policy.load(tmp_path / "policy.safetensors")
    observation = torch.randn(9, 5)
    assert torch.equal(policy.act(observation), loaded.act(observation))
    assert loaded.config == policy.config


def test_torchrl_actor_shares_the_parameters(policy: Policy) -> None:
    actor = policy.actor()
    with torch.no_grad():
        policy.network[0].weight.add_(1.0)
    observation = torch.randn(3, 5)
    location = actor.get_dist(TensorDict({"observation": observation}, [3])).loc
    torch.testing.assert_close(location, policy(observation)[0])


@pytest.mark.parametrize(("asked", "given"), [(0.3, 0.3), (0.0, math.exp(-5.0)), (100.0, math.exp(2.0))])
def test_a_set_deviation_holds_everywhere_and_can_still_learn(policy: Policy, asked: float, given: float) -> None:
    observation = 10 * torch.randn(20, 5)
    mean = policy.act(observation)
    policy.set_deviation(asked)
    _, scale = policy(observation)
    torch.testing.assert_close(scale, torch.full((20, 2), given), rtol=1e-2, atol=0.0)
    assert torch.equal(policy.act(observation), mean)
    scale.sum().backward()
    assert bool((policy.network[-1].bias.grad[2:] > 0).all())


def test_members_are_averaged_for_rows_batches_and_single_observations() -> None:
    torch.manual_seed(0)
    policy = Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,), members=3)
    for shape in ((5,), (7, 5), (2, 7, 5)):
        observation = torch.randn(shape)
        location, scale = policy(observation)
        each, _ = policy.of_members(observation)
        assert location.shape == scale.shape == (*shape[:-1], 2) and each.shape == (3, *shape[:-1], 2)
        torch.testing.assert_close(location, each.mean(dim=0))
        assert float(each.detach().std(dim=0).min()) > 0


def test_one_of_several_members_alone_is_a_plain_policy() -> None:
    torch.manual_seed(0)
    policy, plain = (Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,), members=members) for members in (3, 1))
    layers = policy.network.layers
    for single, layer in zip(plain.network[::2], layers, strict=True):
        single.weight.data, single.bias.data = layer.weight[1].T.clone(), layer.bias[1, 0].clone()
    observation = torch.randn(7, 5)
    for alone, among in zip(plain(observation), policy.of_members(observation), strict=True):
        torch.testing.assert_close(alone, among[1])
    torch.testing.assert_close(plain.of_members(observation)[0][0], plain(observation)[0])


def test_members_have_a_deviation_in_common_that_can_be_set_and_learned() -> None:
    torch.manual_seed(0)
    policy = Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,), members=3)
    observation = 10 * torch.randn(20, 5)
    mean = policy.act(observation)
    policy.set_deviation(0.3)
    _, scale = policy(observation)
    torch.testing.assert_close(scale, torch.full((20, 2), 0.3), rtol=1e-2, atol=0.0)
    assert torch.equal(policy.act(observation), mean)
    scale.sum().backward()
    assert bool((policy.network.layers[-1].bias.grad[..., 2:] > 0).all())


def test_members_survive_their_file_and_files_of_before_hold_one(policy: Policy, tmp_path: Path) -> None:
    several = Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,), members=3)
    several.save(tmp_path / "policy.safetensors")
    loaded, observation = Policy.load(tmp_path / "policy.safetensors"), torch.randn(9, 5)
    assert loaded.members == 3 and torch.equal(several.act(observation), loaded.act(observation))
    del policy.config["members"]
    policy.save(tmp_path / "before.safetensors")
    assert torch.equal(policy.act(observation), Policy.load(tmp_path / "before.safetensors").act(observation))
    with pytest.raises(ValueError, match="at least one member, not 0"):
        Policy(5, [-2.0], [2.0], members=0)


def test_a_fixed_deviation_holds_everywhere_and_in_its_file(policy: Policy, tmp_path: Path) -> None:
    observation = torch.randn(50, policy.observation_size)
    actions = policy.mean_action(observation)
    policy.fix_deviation(0.05)
    policy.save(tmp_path / "policy.safetensors")
    for kept in (policy, Policy.load(tmp_path / "policy.safetensors")):
        _, scale = kept(observation)
        torch.testing.assert_close(scale, torch.full_like(scale, 0.05))
        assert torch.equal(kept.mean_action(observation), actions)
    with pytest.raises(ValueError, match="above 0, and is 0"):
        policy.fix_deviation(0.0)


def test_controls_and_results_are_not_taken_for_one_another(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path / "result.safetensors")
    assert not Policy.load(tmp_path / "result.safetensors").control
    policy.control = True
    policy.save(tmp_path / "control.safetensors")
    with pytest.raises(ModelFileError, match="holds a control of `offsim diagnose`"):
        Policy.load(tmp_path / "control.safetensors")
    with pytest.raises(ModelFileError, match="holds no control"):
        Policy.load(tmp_path / "result.safetensors", control=True)
    loaded = Policy.load(tmp_path / "control.safetensors", control=True)
    assert loaded.control
    loaded.save(tmp_path / "again.safetensors")  # the mark stays
    with pytest.raises(ModelFileError, match="control"):
        Policy.load(tmp_path / "again.safetensors")


@pytest.mark.parametrize("members", [(1, 1), (3, 1), (2, 3)])
def test_joined_policies_average_all_their_networks(members: tuple[int, int]) -> None:
    torch.manual_seed(0)
    first, second = (Policy(5, [-2.0, 0.0], [2.0, 1.0], (8, 4), members=count) for count in members)
    for each in (first, second):
        each.normalizer.mean.fill_(0.5)
    first.fix_deviation(0.1)
    both, observation = joined(first, second), torch.randn(7, 5)
    expected = torch.cat([each.of_members(observation)[0] for each in (first, second)]).mean(dim=0)
    location, scale = both(observation)
    torch.testing.assert_close(location, expected)
    torch.testing.assert_close(scale, torch.full((7, 2), 0.1))
    assert both.members == sum(members) and not any(each.requires_grad for each in both.parameters())
    # And come apart again
    alone = separated(both, second)
    assert alone is not None and alone.config == first.config
    torch.testing.assert_close(alone(observation), first(observation))
    assert separated(both, Policy(5, [-2.0, 0.0], [2.0, 1.0], (8, 4), members=members[1])) is None
    assert separated(second, second) is None and separated(first, Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,))) is None


def test_observations_are_taken_as_environments_give_them() -> None:
    policy = Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,))
    observation = torch.randn(3, 5)
    for given in (observation.double(), observation.numpy(), observation.double().numpy()):
        torch.testing.assert_close(policy.act(given), policy.act(observation))


@pytest.mark.parametrize("shape", [(1,), (5, 1), ()])
def test_observations_of_another_width_are_refused(policy: Policy, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="observations have the shape"):
        policy.act(torch.zeros(shape))


def test_policies_that_differ_are_not_joined() -> None:
    policy = Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,))
    with pytest.raises(ValueError, match=r"hidden_sizes of \[8\] and of \[4\] cannot be joined"):
        joined(policy, Policy(5, [-2.0, 0.0], [2.0, 1.0], (4,)))
    other = Policy(5, [-2.0, 0.0], [2.0, 1.0], (8,))
    other.normalizer.mean.fill_(1.0)
    with pytest.raises(ValueError, match="observations with another mean cannot be joined"):
        joined(policy, other)
