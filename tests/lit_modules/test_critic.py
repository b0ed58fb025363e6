"""The batched SAC loss against TorchRL's own."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.objectives import SACLoss

from lit_modules.critic import BatchedSACLoss, ForeachSoftUpdate, QNetwork
from zoo.policy import Policy

LOSSES = ("loss_actor", "loss_qvalue", "loss_alpha")


def parts(layer_norm: bool) -> tuple[Policy, QNetwork]:
    # bounds that differ per dimension, so that a slip in the squashing shows
    policy = Policy(5, [-1.0, -2.0], [1.0, 3.0], hidden_sizes=(16, 16))
    return policy, QNetwork(5, 2, hidden_sizes=(16, 16), layer_norm=layer_norm)


def batch(rows: int) -> TensorDict:
    following = {
        "observation": torch.randn(rows, 5),
        "reward": torch.randn(rows, 1),
        "terminated": torch.rand(rows, 1) < 0.3,
        "truncated": torch.rand(rows, 1) < 0.3,
    }
    following["done"] = following["terminated"] | following["truncated"]
    action = torch.rand(rows, 2) * torch.tensor([2.0, 5.0]) - torch.tensor([1.0, 2.0])
    return TensorDict({"observation": torch.randn(rows, 5), "action": action, "next": following}, batch_size=[rows])


def measured(loss: SACLoss, data: TensorDict) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses, and gradients by parameter name, drawn with one seed."""
    torch.manual_seed(7)
    values = loss(data.clone())
    loss.zero_grad()
    sum(values[name] for name in LOSSES).backward()
    gradients = {name: parameter.grad for name, parameter in loss.named_parameters() if parameter.grad is not None}
    return {name: values[name].detach() for name in (*LOSSES, "alpha", "entropy")}, gradients


@pytest.mark.parametrize("layer_norm", [True, False])
def test_losses_and_gradients_equal_torchrl(layer_norm: bool) -> None:
    policy, critic = parts(layer_norm)
    ours = BatchedSACLoss(policy, critic, gamma=0.97, target_entropy=-2.0, alpha_init=0.3)
    other_policy, other_critic = parts(layer_norm)
    theirs = SACLoss(
        other_policy.actor(), other_critic.module(), loss_function="l2", target_entropy=-2.0, alpha_init=0.3
    )
    theirs.make_value_estimator(gamma=0.97)
    _ = theirs.target_entropy
    with torch.no_grad():  # targets that differ from the critics, as after training
        for target in ours.target_layers():
            for tensor in target:
                tensor.add_(0.1 * torch.randn_like(tensor))
    # our standardisation has no counterpart; that of observations changes nothing until it is given statistics
    ours.action_centre.zero_()
    ours.action_half_range.fill_(1.0)
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("normalizer.")})
    data = batch(64)
    our_losses, our_gradients = measured(ours, data)
    their_losses, their_gradients = measured(theirs, data)
    for name in our_losses:
        torch.testing.assert_close(our_losses[name], their_losses[name], rtol=1e-5, atol=1e-5, msg=name)
    assert our_gradients.keys() == their_gradients.keys() and our_gradients
    for name in our_gradients:
        torch.testing.assert_close(our_gradients[name], their_gradients[name], rtol=1e-5, atol=1e-5, msg=name)


def test_critics_see_actions_in_half_ranges_whatever_their_unit() -> None:
    torch.manual_seed(0)
    observation, share = torch.randn(9, 5), torch.rand(9, 2)
    critic = parts(True)[1]
    for low, high in (([-1.0, -1.0], [1.0, 1.0]), ([-50.0, 0.0], [50.0, 0.01])):
        torch.manual_seed(0)
        loss = BatchedSACLoss(Policy(5, low, high, hidden_sizes=(16,)), critic, gamma=0.9, target_entropy=-2.0)
        action = torch.tensor(low) + share * (torch.tensor(high) - torch.tensor(low))
        expected = critic.batched(loss.critic_layers(), observation, 2.0 * share - 1.0)
        torch.testing.assert_close(loss.values(loss.critic_layers(), observation, action), expected, atol=1e-5, rtol=0)


def test_a_checkpoint_fits_a_fresh_loss() -> None:
    first = BatchedSACLoss(*parts(True), gamma=0.99, target_entropy=-2.0)
    first(batch(8))
    BatchedSACLoss(*parts(True), gamma=0.99, target_entropy=-2.0).load_state_dict(first.state_dict())


@pytest.mark.parametrize("layer_norm", [True, False])
def test_batched_critics_equal_one_after_the_other(layer_norm: bool) -> None:
    members = [parts(layer_norm)[1] for _ in range(3)]
    observation, action = torch.randn(9, 5), torch.randn(9, 2)
    layers = [
        tuple(torch.stack([getattr(member.linears[index], name) for member in members]) for name in ("weight", "bias"))
        for index in range(3)
    ]
    expected = torch.stack([member(observation, action).squeeze(-1) for member in members])
    torch.testing.assert_close(members[0].batched(layers, observation, action), expected)  # type: ignore[arg-type]


def test_soft_update_equals_torchrl_also_after_a_move() -> None:
    loss = BatchedSACLoss(*parts(True), gamma=0.99, target_entropy=-2.0)
    ours = ForeachSoftUpdate(loss, tau=0.1)
    for kind in (torch.float32, torch.float64):
        loss.to(kind)
        for layer in loss.critic_layers():
            for tensor in layer:
                tensor.data.add_(torch.randn_like(tensor))
        pairs = zip(loss.target_layers(), loss.critic_layers(), strict=True)
        expected = [0.9 * target + 0.1 * source for pair in pairs for target, source in zip(*pair, strict=True)]
        ours.step()
        state = loss.state_dict()
        names = [
            f"target_qvalue_network_params.module.linears.{index}.{name}"
            for index in range(3)
            for name in ("weight", "bias")
        ]
        for name, wanted in zip(names, expected, strict=True):
            assert state[name].dtype == kind
            torch.testing.assert_close(state[name], wanted.detach())
