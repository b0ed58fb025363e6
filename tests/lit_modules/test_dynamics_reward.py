"""MOREC: the game that a dynamics reward is learned in, and roll-outs that keep to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as functional

from datamodules.errors import DataError
from lit_modules.dynamics_reward import DynamicsRewardGame
from lit_modules.simulator_ppo import SimulatorPPO
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Simulator
from zoo.dynamics_reward import DynamicsReward

RIGHT, WRONG = 0.5, 0.2  # how far an action of 1 moves the point in reality, and by one member of a Simulator


def with_a_wrong_member(steering: Any) -> None:
    """Have one of the two members underrate what actions do."""
    simulator = Simulator.load(steering.path)
    layer: Any = simulator.transition.network.layers[0]
    with torch.no_grad():
        layer.weight[1, 1, 0] = WRONG
    simulator.save(steering.path)


def game(steering: Any, **settings: Any) -> Any:
    """A module set up, that trains without a Trainer."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"hidden_sizes": (32, 32), "snapshots": 3, "kept_every": 100, "batch_size": 64}
    module: Any = DynamicsRewardGame(1, [-1.0], [1.0], str(steering.path), **{**given, **settings})
    data = SimpleNamespace(
        expert_train=steering.episode(50),
        diverse_train=steering.episode(500),
        streams={"all": 64},
        release=lambda: None,
    )
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module._trainer = SimpleNamespace(datamodule=data, strategy=strategy, global_rank=0)
    module.setup("fit")
    optimizers = [SimpleNamespace(optimizer=each) for each in module.configure_optimizers()]
    module.optimizers = lambda: optimizers
    module.manual_backward = lambda loss, **given: loss.backward(**given)
    return module


def train(steering: Any, module: Any, updates: int) -> dict[str, torch.Tensor]:
    rows = steering.table(updates, 64)
    rows["row"] = torch.arange(updates * 64).view(updates, 64)
    logged: dict[str, torch.Tensor] = module.run(module.converse({"all": rows}))
    return logged


def of_change(steering: Any) -> str:
    """File of a dynamics reward that grows with how far a point moves, from 0.31 at -1 to 1.31 at 1."""
    made = DynamicsReward(1, 1, 1, hidden_sizes=())
    with torch.no_grad():
        made.network.layers[0].weight.copy_(torch.tensor([[[0.0], [0.0], [1.0]]]))
    made.low.fill_(-1.0)
    made.high.fill_(1.0)
    path = steering.path.with_name("change.safetensors")
    made.save(path)
    return str(path)


def test_what_the_real_system_does_is_rated_above_what_a_wrong_member_makes_of_it(steering: Any) -> None:
    with_a_wrong_member(steering)
    module = game(steering)
    logged = train(steering, module, 400)
    assert float(logged["discriminator/right"]) > 0.6
    learned = module.export(module.trainer.datamodule)
    observation, action = steering.states(200), torch.sign(steering.states(200)) * 0.8
    right, wrong = (learned(observation, action, observation + step * action) for step in (RIGHT, WRONG))
    assert float((right > wrong).float().mean()) > 0.95
    assert float(right.mean()) > 0.8 > 0.6 > float(wrong.mean())


def test_the_discriminators_loss_is_binary_cross_entropy(steering: Any) -> None:
    with_a_wrong_member(steering)
    module = game(steering, gradient_penalty_weight=0.0)
    rows = steering.table(64)
    rows["row"] = torch.arange(64)
    drawn = module.draw(rows, module.random)
    loss, parts = module.discriminator_objective(drawn)
    following = module.sample(drawn).detach()
    logits = [
        module.discriminator(module.kept.features(drawn["observation"], drawn["action"], state)).squeeze(-1)
        for state in (drawn["next_observation"], following)
    ]
    labels = (torch.ones(64), torch.zeros(64))
    expected = sum(
        functional.binary_cross_entropy_with_logits(value, label) for value, label in zip(logits, labels, strict=True)
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)  # type: ignore[arg-type]
    assert float(parts["discriminator/recorded"]) == pytest.approx(float(logits[0].mean()), abs=1e-6)


def test_slopes_of_the_discriminator_are_bounded(steering: Any) -> None:
    with_a_wrong_member(steering)
    steepest = {}
    for weight in (0.0, 100.0):
        module = game(steering, gradient_penalty_weight=weight, gradient_penalty_target=1.0)
        train(steering, module, 300)
        features = torch.randn(500, 3).requires_grad_(True)
        (slope,) = torch.autograd.grad(module.discriminator(features).sum(), features)
        steepest[weight] = float(slope.norm(dim=-1).quantile(0.9))
    assert steepest[100.0] < 2.0 < 4.0 < steepest[0.0]


def test_the_model_is_drawn_towards_the_real_system_by_the_discriminator_alone(steering: Any) -> None:
    with_a_wrong_member(steering)
    module = game(steering, likelihood_weight=0.0, gradient_penalty_target=1.0)
    before = module.transition.network.layers[0].weight.clone()
    train(steering, module, 400)
    assert torch.equal(module.transition.network.layers[0].weight, before)  # an adversarial weight of 0 leaves it
    module.hparams["adversarial_weight"] = 1.0
    rows = steering.table(64)
    rows["row"] = torch.arange(64)
    loss, _ = module.transition_objective(module.draw(rows, module.random), module.deal(rows))
    (gradient,) = torch.autograd.grad(loss, module.transition.network.layers[0].weight)
    assert float(gradient[1, 1, 0]) < -0.01  # what actions do is underrated by the second member
    assert abs(float(gradient[0, 1, 0])) < abs(float(gradient[1, 1, 0]))


def test_likelihood_is_that_of_each_members_own_rows(steering: Any) -> None:
    with_a_wrong_member(steering)
    module = game(steering, adversarial_weight=1.0, batch_size=60)
    rows = steering.table(63)
    rows["row"] = torch.arange(63)
    dealt = module.deal(rows)
    assert dealt["observation"].shape == (2, 31, 1) and dealt["weight"].shape == (2, 31)
    torch.testing.assert_close(dealt["observation"][1], rows["observation"][31:62])
    _, parts = module.transition_objective(module.draw(rows, module.random), dealt)
    wrong = (RIGHT - WRONG) * dealt["action"][1]
    assert float(parts["transition/squared_error"]) == pytest.approx(0.5 * float(wrong.square().mean()), rel=1e-4)


def test_the_last_snapshots_are_kept(steering: Any) -> None:
    module = game(steering, kept_every=10, snapshots=3)
    taken: list[Any] = []
    keep = module._keep
    module._keep = lambda number: (keep(number), taken.append(copy.deepcopy(module.discriminator)))
    train(steering, module, 15)
    first = module.export(module.trainer.datamodule)
    assert first.network.members == 1
    features = torch.randn(20, 3)
    torch.testing.assert_close(first.logits(features)[0], taken[0](features).squeeze(-1))
    train(steering, module, 30)
    learned = module.export(module.trainer.datamodule)
    assert len(taken) == 4
    kept = learned.logits(features)
    for each in taken[1:]:
        assert bool((kept - each(features).squeeze(-1)).abs().amax(dim=1).amin() < 1e-5)


def test_before_the_first_snapshot_the_discriminator_itself_comes_out(steering: Any) -> None:
    module = game(steering, kept_every=100)
    train(steering, module, 5)
    learned = module.export(module.trainer.datamodule)
    assert learned.network.members == 1
    features = torch.randn(20, 3)
    torch.testing.assert_close(learned.logits(features)[0], module.discriminator(features).squeeze(-1))
    assert bool((learned.high > learned.low).all())


def test_a_training_that_was_saved_goes_on_as_it_would_have(
    steering: Any, saved_checkpoint: Callable[[Any], dict[str, Any]]
) -> None:
    with_a_wrong_member(steering)
    one = game(steering, kept_every=10, adversarial_weight=0.1)
    train(steering, one, 15)
    state, optimizers = copy.deepcopy(one.state_dict()), [each.optimizer.state_dict() for each in one.optimizers()]
    optimizers = copy.deepcopy(optimizers)
    checkpoint = saved_checkpoint(one)
    other = game(steering, kept_every=10, adversarial_weight=0.1)
    other.load_state_dict(state)
    for each, saved in zip(other.optimizers(), optimizers, strict=True):
        each.optimizer.load_state_dict(saved)
    other.on_load_checkpoint(checkpoint)
    other.random.restore(checkpoint["ranks"][0]["streams"]["random"])
    assert other.updates == 15
    for module in (one, other):
        torch.manual_seed(5)
        train(steering, module, 15)
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_what_cannot_be_learned_is_refused(steering: Any) -> None:
    path = str(steering.path)
    with pytest.raises(ValueError, match="upper action bounds"):
        DynamicsRewardGame(1, [-1.0], [2.0], path)
    with pytest.raises(ValueError, match="snapshots is 0"):
        DynamicsRewardGame(1, [-1.0], [1.0], path, snapshots=0)
    with pytest.raises(DataError, match="batch_size is 65, and 64 rows of all data are read per update"):
        game(steering, batch_size=65)
    module = game(steering)
    module.trainer.datamodule.streams = {"all": 1}
    with pytest.raises(DataError, match="each of the 2 members"):
        module.setup("fit")
    module.trainer.datamodule.streams = {"expert": 64}
    with pytest.raises(DataError, match="all"):
        module.setup("fit")


# ------------------------------------------------------------------------------------------------------- as a filter


def test_roll_outs_take_the_most_plausible_candidate(steering: Any) -> None:
    with_a_wrong_member(steering)
    settings = {"dynamics_reward": of_change(steering), "candidates": 4, "dynamics_threshold": 0.0}
    module = steering.learner(SimulatorSAC, dynamics_temperature=0.0, push_share=0.0, **settings)
    observation, action = torch.zeros(3, 1), torch.zeros(3, 1)
    following = torch.tensor([[[0.1], [-0.3], [0.0]], [[0.4], [-0.5], [0.0]], [[0.2], [-0.2], [0.0]]])
    chosen = module.choose(0, observation, action, following, torch.full((5, 3, 3), 0.5))
    assert chosen.flatten().tolist() == pytest.approx([0.4, -0.2, 0.0])


def test_candidates_are_taken_with_the_chances_of_a_softmax(steering: Any) -> None:
    module = steering.learner(SimulatorSAC, dynamics_reward=of_change(steering), dynamics_temperature=0.5, candidates=3)
    count = 40_000
    following = torch.tensor([-0.5, 0.0, 0.8]).view(3, 1, 1).expand(3, count, 1)
    (chance,) = module._draw_judges(3)
    assert chance.shape == (5, 3, 50)  # steps, candidates, roll-outs
    chosen = module.choose(0, torch.zeros(count, 1), torch.zeros(count, 1), following, torch.rand(1, 3, count))
    rewards = module.dynamics_reward(torch.zeros(3, 1), torch.zeros(3, 1), following[:, 0])
    expected = torch.softmax(rewards / 0.5, dim=0)
    found = torch.stack([(chosen == value).float().mean() for value in (-0.5, 0.0, 0.8)])
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.0)


@pytest.mark.parametrize("method", [SimulatorSAC, SimulatorPPO])
def test_roll_outs_end_where_the_dynamics_reward_is_too_low(steering: Any, method: type) -> None:
    settings = {"candidates": 1, "push_share": 0.0} if method is SimulatorSAC else {}
    # The one that not moving at all has
    module = steering.learner(method, dynamics_reward=of_change(steering), dynamics_threshold=math.log(2.0), **settings)
    columns, alive = module.simulate(*module.draw_roll_outs())
    moved = columns["next_observation"] - columns["observation"]
    rows = (columns[name].flatten(0, 1) for name in ("observation", "action", "next_observation"))
    torch.testing.assert_close(columns["dynamics_reward"].flatten(), module.dynamics_reward(*rows))
    assert torch.equal(columns["ended"], columns["dynamics_reward"] < math.log(2.0))
    assert bool((moved[columns["ended"]] < 0.0).all()) and bool(columns["ended"].any())
    assert not bool(alive[1:][columns["ended"][:-1]].any())
    figures = module.heed_roll_outs(columns, alive)
    assert float(figures["rollout/implausible"]) == pytest.approx(float(columns["ended"][alive].float().mean()))
    plain, _ = steering.learner(method, **settings).simulate(*module.draw_roll_outs())
    assert "dynamics_reward" not in plain and not bool(plain["ended"].any())


def test_a_learner_trains_on_filtered_roll_outs(steering: Any) -> None:
    module = steering.learner(
        SimulatorSAC,
        dynamics_reward=of_change(steering),
        dynamics_threshold=0.6,
        candidates=3,
        refresh_every=5,
        batch_size=16,
        real_share=0.5,
    )
    logged = steering.train(module, 10)
    assert 0.3 < float(logged["rollout/dynamics_reward"]) < 1.4
    stored = module.replay[: len(module.replay)]
    assert "dynamics_reward" not in stored
    ended = stored["next", "terminated"].squeeze(-1)
    rated = module.dynamics_reward(stored["observation"], stored["action"], stored["next", "observation"])
    assert torch.equal(ended, rated < 0.6)
    # Where the cloned policy is let go of, candidates still differ
    module.hold.fill_(0.01)
    *_, members, noise = module.draw_roll_outs(3)
    assert not bool((noise == noise[:, :1]).all()) and members.shape == (5, 3, 50)


def test_a_dynamics_reward_of_another_system_is_refused(steering: Any, tmp_path: Path) -> None:
    DynamicsReward(2, 1, 1, hidden_sizes=()).save(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="of 2 observation and 1 action features, and the simulator has 1 and 1"):
        steering.learner(SimulatorSAC, dynamics_reward=str(tmp_path / "other.safetensors"))
