"""The PPO loss against TorchRL's own, and advantages against a hand computation."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.objectives import ClipPPOLoss

from lit_modules.ppo_loss import TensorPPOLoss, advantages
from zoo.networks import mlp
from zoo.policy import Policy

LOW, HIGH = [-1.0, -2.0], [1.0, 3.0]  # that differ per dimension, so that a slip in the squashing shows
LOSSES = ("loss_objective", "loss_entropy", "loss_critic")


def parts() -> tuple[Policy, torch.nn.Sequential]:
    return Policy(5, LOW, HIGH, hidden_sizes=(16, 16)), mlp([5, 16, 1], layer_norm=True)


@pytest.mark.parametrize("normalize", [True, False])
def test_losses_and_gradients_equal_torchrl(normalize: bool) -> None:
    torch.manual_seed(1)
    policy, value = parts()
    ours = TensorPPOLoss(policy, value, clip=0.2, entropy_weight=0.3, normalize_advantages=normalize)
    torch.manual_seed(1)
    other_policy, other_value = parts()
    theirs = ClipPPOLoss(
        other_policy.actor(),
        TensorDictModule(other_value, in_keys=["observation"], out_keys=["state_value"]),
        clip_epsilon=0.2,
        entropy_coeff=0.3,
        normalize_advantage=normalize,
        loss_critic_type="l2",
    )
    observation = torch.randn(64, 5)
    with torch.no_grad():
        action, log_density = policy.sample(observation)
        data = TensorDict(
            {
                "observation": observation,
                "action": action,
                # as of an earlier policy, so that some ratios are clipped and others are not
                ours.tensor_keys.sample_log_prob: log_density + 0.3 * torch.randn(64),
                "advantage": torch.randn(64, 1) + 0.5,
                "value_target": torch.randn(64, 1),
            },
            batch_size=[64],
        )
    found = []
    for loss, actor, critic in ((ours, policy, value), (theirs, other_policy, other_value)):
        torch.manual_seed(7)
        values = loss(data.clone())
        sum(values[name] for name in LOSSES).backward()
        gradients = [p.grad for p in (*actor.network.parameters(), *critic.parameters())]
        found.append(([values[name].detach() for name in (*LOSSES, "kl_approx", "clip_fraction")], gradients))
    assert 0.1 < float(found[0][0][-1]) < 0.9
    for one, other in zip(found[0][0] + found[0][1], found[1][0] + found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_rows_that_do_not_count_change_nothing() -> None:
    policy, value = parts()
    loss = TensorPPOLoss(policy, value, entropy_weight=0.1)
    rows = {
        "observation": torch.randn(9, 5),
        "raw": torch.randn(9, 2),
        "log_density": torch.randn(9),
        "advantage": torch.randn(9),
        "value_target": torch.randn(9),
    }
    noise, counts = torch.randn(9, 2), torch.arange(9) < 6
    rows["raw"][6:] = 1e4  # whose density overflows
    few = {name: column[:6] for name, column in rows.items()}
    expected = loss.losses(few, policy(few["observation"]), counts[:6], noise[:6])
    found = loss.losses(rows, policy(rows["observation"]), counts, noise)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)
    sum(found[name] for name in LOSSES).backward()
    assert all(bool(p.grad.isfinite().all()) for p in policy.network.parameters())


def test_a_minibatch_without_rows_is_worth_nothing() -> None:
    policy, value = parts()
    loss = TensorPPOLoss(policy, value)
    rows = {"observation": torch.zeros(3, 5), "raw": torch.zeros(3, 2)}
    rows |= {name: torch.ones(3) for name in ("log_density", "advantage", "value_target")}
    losses = loss.losses(rows, policy(rows["observation"]), torch.zeros(3, dtype=torch.bool), torch.zeros(3, 2))
    assert all(losses[name].item() == 0.0 for name in LOSSES)


def test_advantages_by_hand() -> None:
    """Three roll-outs of four steps: one ends at its second, one at its last, one goes on beyond the horizon."""
    gamma, keep = 0.9, 0.5
    nan = torch.nan
    reward = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [nan, 3.0, 3.0], [nan, 4.0, 4.0]])
    values = torch.tensor(
        [[10.0, 10.0, 10.0], [20.0, 20.0, 20.0], [nan, 30.0, 30.0], [nan, 40.0, 40.0], [nan, nan, 50.0]]
    )
    ended = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)
    alive = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1]], dtype=torch.bool)
    found, target = advantages(reward, values, ended, alive, gamma, keep)

    step = [1 + gamma * 20 - 10, 2 + gamma * 30 - 20, 3 + gamma * 40 - 30]  # where the roll-out goes on
    end_second = 2 - 20.0
    end_last = 4 - 40.0
    beyond = 4 + gamma * 50 - 40
    decay = gamma * keep
    first = [step[0] + decay * end_second, end_second, 0.0, 0.0]
    columns = [first]
    for last in (end_last, beyond):
        third = step[2] + decay * last
        second = step[1] + decay * third
        columns.append([step[0] + decay * second, second, third, last])
    expected = torch.tensor(columns).T
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(target, torch.where(alive, expected + values[:-1], 0.0))
