"""The batched TD3 loss against TorchRL's own."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.objectives import TD3Loss

from lit_modules.critic import QNetwork
from lit_modules.td3_loss import BatchedTD3Loss, MeanAction
from zoo.policy import Policy

LOW, HIGH = [-1.0, -2.0], [1.0, 3.0]  # that differ per dimension, so that a slip in the units of noise shows
HALF_RANGE = torch.tensor([1.0, 2.5])


def parts(layer_norm: bool = True) -> tuple[Policy, QNetwork]:
    return Policy(5, LOW, HIGH, hidden_sizes=(16, 16)), QNetwork(5, 2, hidden_sizes=(16, 16), layer_norm=layer_norm)


def batch(rows: int) -> TensorDict:
    following = {
        "observation": torch.randn(rows, 5),
        "reward": torch.randn(rows, 1),
        "terminated": torch.rand(rows, 1) < 0.3,
        "truncated": torch.rand(rows, 1) < 0.3,
    }
    following["done"] = following["terminated"] | following["truncated"]
    action = torch.rand(rows, 2) * torch.tensor([2.0, 5.0]) + torch.tensor(LOW)
    return TensorDict({"observation": torch.randn(rows, 5), "action": action, "next": following}, batch_size=[rows])


@pytest.mark.parametrize("layer_norm", [True, False])
def test_losses_and_gradients_equal_torchrl(layer_norm: bool) -> None:
    policy, critic = parts(layer_norm)
    ours = BatchedTD3Loss(policy, critic, gamma=0.97, smoothing_noise=0.4, smoothing_clip=0.3)
    ours.action_centre.zero_()  # our standardisation of actions has no counterpart
    ours.action_half_range.fill_(1.0)
    other_policy, other_critic = parts(layer_norm)
    other_policy.load_state_dict(policy.state_dict())
    theirs = TD3Loss(
        TensorDictModule(MeanAction(other_policy), in_keys=["observation"], out_keys=["action"]),
        other_critic.module(),
        bounds=(policy.action_low, policy.action_high),
        policy_noise=0.4 * HALF_RANGE,
        noise_clip=0.3 * HALF_RANGE,
        loss_function="l2",
    )
    theirs.make_value_estimator(gamma=0.97)
    with torch.no_grad():  # targets that differ from what they follow, as after training
        for layer in ours.target_layers():
            for tensor in layer:
                tensor.add_(0.1 * torch.randn_like(tensor))
        for tensor in ours.target_policy.network.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
        theirs.qvalue_network_params.update_(ours.qvalue_network_params)
        theirs.target_qvalue_network_params.update_(ours.target_qvalue_network_params)
        for name, tensor in ours.target_policy.network.named_parameters():
            theirs.target_actor_network_params["module", "policy", "network", *name.split(".")].copy_(tensor)
    data = batch(64)
    gradients = []
    losses = []
    for loss in (ours, theirs):
        torch.manual_seed(7)
        values = loss(data.clone())
        losses.append({name: values[name].detach() for name in ("loss_actor", "loss_qvalue")})
        (values["loss_actor"] + values["loss_qvalue"]).backward()
        actor = [p.grad for p in (policy if loss is ours else other_policy).network.parameters()]
        critics = [p.grad for p in loss.qvalue_network_params.values(True, True)]
        gradients.append([*actor, *critics])
    for name in losses[0]:
        torch.testing.assert_close(losses[0][name], losses[1][name], rtol=1e-5, atol=1e-5, msg=name)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert any(float(each.abs().sum()) > 0 for each in gradients[0][:2])


def test_smoothing_is_clipped_in_half_action_ranges_and_stays_within_the_bounds() -> None:
    policy, critic = parts()
    loss = BatchedTD3Loss(policy, critic, gamma=0.9, smoothing_noise=0.2, smoothing_clip=0.3)
    observation = torch.randn(3, 5)
    mean = policy.mean_action(observation)
    noise = torch.tensor([[1.0, -1.0], [100.0, -100.0], [0.0, 0.0]])
    wanted = mean + torch.tensor([[0.2, -0.2], [0.3, -0.3], [0.0, 0.0]]) * HALF_RANGE
    torch.testing.assert_close(loss.smoothed_action(observation, noise), wanted)
    with torch.no_grad():
        loss.target_policy.network[-1].bias[:2] = 10.0  # all but at the upper bounds
    torch.testing.assert_close(loss.smoothed_action(observation, noise.abs()), torch.tensor(HIGH).expand(3, 2))


def test_bootstrapped_values_are_clipped_to_what_rewards_allow() -> None:
    policy, critic = parts()
    loss = BatchedTD3Loss(policy, critic, gamma=0.9, value_range=(2.0, 2.0))
    rows = {
        "observation": torch.randn(4, 5),
        "action": torch.rand(4, 2),
        "next_observation": torch.randn(4, 5),
        "reward": torch.arange(4.0),
        "terminated": torch.tensor([0.0, 1.0, 0.0, 1.0]),
        "next_noise": torch.randn(4, 2),
    }
    target = torch.tensor([1.8, 1.0, 3.8, 3.0])  # the reward, and 0.9 * 2 unless ended
    values = loss.values(loss.critic_layers(), rows["observation"], rows["action"])
    expected = (values - target).square().mean(dim=-1).sum()
    found = loss.critic_terms(rows, loss.critic_layers(), loss.target_layers())["loss_qvalue"]
    torch.testing.assert_close(found, expected)
