"""OffSim's losses against values computed by hand, and who gets which gradient."""

from __future__ import annotations

import inspect
import math
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch.nn import functional

from lit_modules import proposals
from lit_modules.diagnostics import segments
from lit_modules.forecasts import RecordedSteps
from lit_modules.method import Compute, Follow
from lit_modules.offsim import GAME_SETTINGS, OffSim
from lit_modules.proposals import ActionProposal, RecordedActions
from lit_modules.random_stream import RandomStream
from lit_modules.reward_loss import gradient_penalty
from lit_modules.rows import bootstrap_weights, pick_alive
from lit_modules.simulator_export import warn_of_broken_members
from zoo.networks import input_gradient, mlp
from zoo.policy import Policy


def make(**changes: object) -> OffSim:
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "observation_size": 3,
        "action_low": [-1.0, -1.0],
        "action_high": [1.0, 1.0],
        "termination": "none",
        "members": 3,
        "transition_hidden_sizes": (8,),
        "reward_hidden_sizes": (8,),
        "proposal": {"dataset": 1.0},
        "starts": 6,
        "horizon": 4,
    }
    return OffSim(**{**settings, **changes})  # type: ignore[arg-type]


def table(rows: int, episode_length: int = 1000) -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(rows, 3),
            "action": torch.rand(rows, 2) * 2 - 1,
            "next": {"observation": torch.randn(rows, 3), "terminated": torch.zeros(rows, 1, dtype=torch.bool)},
            "row": torch.arange(rows),
            "episode": torch.arange(rows) // episode_length,
            "step": torch.arange(rows) % episode_length,
        },
        batch_size=[rows],
    )


def batches(module: OffSim, rows: int = 12) -> dict[str, TensorDict]:
    stream = table(rows)
    module.recorded = RecordedActions([stream])
    module.row_margins = torch.full((rows,), 0.7)
    return {"expert": stream, "all": table(rows), "diverse": table(rows)}


def rollouts(rows: int = 20) -> dict[str, torch.Tensor]:
    return {
        "observation": torch.randn(rows, 3),
        "action": torch.rand(rows, 2),
        "next_observation": torch.randn(rows, 3),
        "alive": torch.rand(rows) < 0.7,
    }


def one_update(module: OffSim, rows: dict[str, TensorDict]) -> dict[str, torch.Tensor]:
    dealt = module.deal({name: stream.unsqueeze(0) for name, stream in rows.items()})
    return {name: column[0] for name, column in dealt.items()}


def test_reward_loss_is_the_sum_of_its_parts() -> None:
    module = make(margin_weight=0.5, margin=0.7, gradient_penalty_weight=3.0, l2_weight=0.2)
    loss, parts = module.reward_objective(module.draw(batches(module)), rollouts())
    expected = (
        parts["reward/rollout"]
        - parts["reward/expert"]
        + 3.0 * parts["reward/gradient_penalty"]
        + 0.2 * parts["reward/squared"]
        + 0.5 * parts["reward/margin_shortfall"]
    )
    torch.testing.assert_close(loss.detach(), expected)


def test_margin_is_a_multiple_of_the_spread_and_its_loss_the_mean_shortfall() -> None:
    module = make(margin_weight=1.0)
    rows = batches(module)
    module.row_margins = torch.linspace(0.0, 2.0, 12)
    drawn, imagined = module.draw(rows), rollouts()
    _, parts = module.reward_objective(drawn, imagined)

    def raw(stream: TensorDict) -> torch.Tensor:
        return module.reward.raw(
            module.reward.features(stream["observation"], stream["action"], stream["next", "observation"])
        )

    picked = pick_alive(imagined, drawn["pick"])
    own = module.reward.raw(module.reward.features(picked["observation"], picked["action"], picked["next_observation"]))
    unit = (0.5 * (raw(rows["expert"]).var() + own.var())).sqrt()
    shortfall = (unit * module.row_margins - (raw(rows["expert"]) - raw(rows["diverse"]))).clamp_min(0.0)
    torch.testing.assert_close(parts["reward/margin_shortfall"], shortfall.mean().detach())


def test_gradient_penalty_of_a_linear_reward_by_hand() -> None:
    module = make()
    weight = torch.zeros(1, 8)
    weight[0, :2] = torch.tensor([3.0, 4.0])
    module.reward.network = torch.nn.Sequential(torch.nn.Linear(8, 1))
    with torch.no_grad():
        module.reward.network[0].weight.copy_(weight)
    penalty = gradient_penalty(module.reward, torch.randn(6, 8), 1.0)
    assert float(penalty.detach()) == pytest.approx((5.0 - 1.0) ** 2, rel=1e-5)
    module.reward.network[0].weight.data.mul_(0.1)  # slope 0.5, below the target: nothing to pay
    assert float(gradient_penalty(module.reward, torch.randn(6, 8), 1.0).detach()) == 0.0


def test_gradient_penalty_trains_the_reward() -> None:
    module = make()
    gradient_penalty(module.reward, torch.randn(6, 8), 0.0).backward()
    gradient = module.reward.network[0].weight.grad
    assert gradient is not None and float(gradient.abs().sum()) > 0


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh", "elu", "gelu"])
def test_input_gradient_written_out_equals_autograd_and_so_does_its_own_gradient(activation: str) -> None:
    torch.manual_seed(0)
    network = mlp([5, 7, 6, 1], activation).double()
    inputs = torch.randn(9, 5, dtype=torch.double, requires_grad=True)
    (expected,) = torch.autograd.grad(network(inputs).sum(), inputs, create_graph=True)
    written = input_gradient(network, inputs)
    torch.testing.assert_close(written, expected)
    parameters = list(network.parameters())[:-1]  # the last bias moves no gradient
    second = [
        torch.autograd.grad(each.norm(dim=-1).sum(), parameters, allow_unused=True) for each in (written, expected)
    ]
    for ours, theirs, parameter in zip(*second, parameters, strict=True):
        zero = torch.zeros_like(parameter)
        torch.testing.assert_close(zero if ours is None else ours, zero if theirs is None else theirs)


def test_rows_are_picked_among_the_living_alone() -> None:
    alive = torch.tensor([False, True, False, True, True])
    rollouts = {"observation": torch.arange(5), "alive": alive}
    picked = pick_alive(rollouts, torch.linspace(0.0, 1.0, 3000))["observation"]
    assert {int(row): int((picked == row).sum()) for row in picked.unique()} == pytest.approx(
        {1: 1000, 3: 1000, 4: 1000}, abs=2
    )


def test_every_proposal_is_dealt_as_often_as_configured() -> None:
    low, high = torch.tensor([-1.0]), torch.tensor([1.0])
    policy = Policy(3, [-1.0], [1.0], (8,))
    proposal = ActionProposal({"dataset": 1.0, "cloning": 2.0, "cloning_noise": 1.0}, low, high, policy, 0.1)
    way = proposal.draw(2, 40_000, RandomStream(0, "test"))["way"]
    shares = (torch.bincount(way, minlength=4) / len(way)).tolist()
    assert shares == pytest.approx([0.25, 0.5, 0.25, 0.0], abs=0.01)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weighted_likelihood_by_hand(power: float) -> None:
    module = make(adversarial_weight=0.0, entropy_weight=0.0, variance_weighting=power)
    rows = batches(module, rows=9)
    dealt = one_update(module, rows)
    loss, parts = module.transition_objective(dealt)
    mean, log_variance = module.transition(dealt["observation"], dealt["action"])
    total, weight_sum, plain, weights = 0.0, 0.0, [], dealt["weight"]
    for member in range(3):
        for row in range(mean.shape[1]):
            each = []
            for feature in range(3):
                target = dealt["next_observation"][member, row, feature] - dealt["observation"][member, row, feature]
                variance = math.exp(float(log_variance[member, row, feature]))
                error = float(mean[member, row, feature] - target)
                plain.append(0.5 * (math.log(variance) + error**2 / variance))
                each.append(variance**power * plain[-1])
            total += float(weights[member, row]) * sum(each) / 3
            weight_sum += float(weights[member, row])
    assert float(loss) == pytest.approx(total / weight_sum, rel=1e-4)
    assert float(parts["transition/negative_log_likelihood"]) == pytest.approx(sum(plain) / len(plain), rel=1e-4)


def test_variance_is_learned_state_by_state() -> None:
    """Noisy on one side and clean on the other: long after both are known, they are still told apart."""
    module = make(adversarial_weight=0.0, entropy_weight=0.0, transition_hidden_sizes=(16,), members=1)
    optimizer = torch.optim.Adam(module.transition.parameters(), lr=5e-3)
    observation = torch.rand(1, 256, 3) * 2 - 1
    action = torch.rand(1, 256, 2) * 2 - 1
    deviation = torch.where(observation[..., :1] > 0, 0.3, 0.01)
    for _ in range(2000):
        following = observation + deviation * torch.randn_like(observation)
        given = {"observation": observation, "action": action, "next_observation": following}
        loss, _ = module.transition_objective(given | {"weight": torch.ones(1, 256)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = (0.5 * module.transition(observation, action)[1]).exp()
    assert float(predicted[(deviation > 0.1).squeeze(-1)].mean()) == pytest.approx(0.3, rel=0.3)
    assert float(predicted[(deviation < 0.1).squeeze(-1)].median()) == pytest.approx(0.01, rel=0.5)


def test_full_weighting_moves_the_mean_as_squared_errors_do() -> None:
    """Whatever variance is predicted, the mean's gradient is that of half the mean squared error."""
    module = make(adversarial_weight=0.0, entropy_weight=0.0, variance_weighting=1.0)
    dealt = one_update(module, batches(module, rows=9))
    mean, log_variance = (
        each.detach().requires_grad_() for each in module.transition(dealt["observation"], dealt["action"])
    )
    module.transition.forward = lambda *_: (mean, log_variance)  # type: ignore[method-assign]
    loss, _ = module.transition_objective(dealt)
    loss.backward()
    target = module.transition.standardized_delta(dealt["observation"], dealt["next_observation"])
    weight = (dealt["weight"] / dealt["weight"].sum()).unsqueeze(-1)
    torch.testing.assert_close(mean.grad, weight * (mean - target).detach() / mean.shape[-1])


def test_entropy_term_widens_and_adversarial_term_reaches_the_transition() -> None:
    module = make(likelihood_weight=0.0, adversarial_weight=0.0, entropy_weight=1.0)
    rows = batches(module)
    loss, _ = module.transition_objective(one_update(module, rows), module.draw(rows), rollouts())
    loss.backward()
    # More variance in every feature lowers the loss
    assert bool((module.transition.network.layers[-1].bias.grad[..., 3:] < 0).all())
    module = make(likelihood_weight=0.0, adversarial_weight=1.0, entropy_weight=0.0)
    rows = batches(module)
    loss, parts = module.transition_objective(one_update(module, rows), module.draw(rows), rollouts())
    loss.backward()
    assert float(module.transition.network.layers[0].weight.grad.abs().sum()) > 0
    assert "transition/own_reward" in parts


def test_the_model_is_after_the_reward_of_its_own_transitions() -> None:
    module = make(likelihood_weight=0.0, adversarial_weight=0.7, entropy_weight=0.0)
    rows, own = batches(module), rollouts()
    drawn = module.draw(rows)
    loss, parts = module.transition_objective(one_update(module, rows), drawn, own)
    picked = pick_alive(own, drawn["own_pick"])
    following = module.sample(picked["observation"], picked["action"], drawn["own_order"], drawn["own_noise"])
    features = module.reward.features(picked["observation"], picked["action"], following)
    wanted = module.reward.raw(features).mean()
    assert float(parts["transition/own_reward"]) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(-0.7 * float(wanted.detach()), rel=1e-5)
    # A step down its gradient has the model's own transitions rewarded higher
    loss.backward()
    with torch.no_grad():
        for parameter in module.transition.parameters():
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad
    _, after = module.transition_objective(one_update(module, rows), drawn, own)
    assert float(after["transition/own_reward"]) > float(wanted.detach())


def converse(module: OffSim, updates: int, recorded: RecordedActions | None = None) -> list[tuple[int, str, Any]]:
    """The steps that a game asks for: the update, what it is of, and the step."""
    module._measure_before_game = lambda: None  # type: ignore[method-assign]
    rows = batches(module)
    module.recorded = recorded or module.recorded
    conversation = module.converse({name: torch.stack([stream] * updates) for name, stream in rows.items()})
    asked: list[tuple[int, str, Any]] = []
    answer: Any = None
    while True:
        try:
            step = conversation.send(answer)
        except StopIteration:
            return asked
        if isinstance(step, Compute):
            with torch.no_grad():
                answer = getattr(module, step.function)(*step.arguments)
            continue
        asked.append((module.updates, "follow" if isinstance(step, Follow) else step.function, step))
        answer = {}


def test_the_game_takes_turns() -> None:
    module = make(pretraining_updates=2, reward_every=2, transition_every=3, reward_average=0.9)
    asked = converse(module, 8)
    when = {kind: [update for update, name, _ in asked if name == kind] for kind in {name for _, name, _ in asked}}
    # Likelihood alone at first; then the reward in every second update, the transition model in every third
    assert when["transition_objective"] == [0, 1, 3, 6]
    assert when["reward_objective"] == when["follow"] == [2, 4, 6]
    # Which has what the game asks of it whenever it is its turn, also where the reward stands still
    told = {update: step.arguments[1:] for update, name, step in asked if name == "transition_objective"}
    assert told[0] == told[1] == (None, None)
    assert None not in told[3] and None not in told[6]


def test_a_feature_that_stays_the_same_within_an_episode_hardly_changes() -> None:
    module = make()
    deviation = torch.tensor([2.0, 0.1, 0.0])
    module.set_statistics(
        SimpleNamespace(  # type: ignore[arg-type]
            observation_mean=torch.zeros(3),
            observation_std=deviation,
            action_mean=torch.zeros(2),
            action_std=torch.ones(2),
            delta_mean=torch.zeros(3),
            delta_std=torch.tensor([0.5, 0.0, 0.0]),
        )
    )
    assert module.transition.delta_normalizer.std.tolist() == pytest.approx([0.5, 1e-5, 1.0])


def test_the_averaged_reward_follows_slowly() -> None:
    module = make(pretraining_updates=0, reward_average=0.9)
    follow = next(step for _, name, step in converse(module, 1) if name == "follow")
    assert follow.share == pytest.approx(0.1)
    assert [id(each) for each in follow.followers] == [id(each) for each in module.averaged_reward.network.parameters()]
    assert [id(each) for each in follow.leaders] == [id(each) for each in module.reward.network.parameters()]


def test_a_learned_end_is_part_of_the_loss() -> None:
    module = make(termination="learned", adversarial_weight=0.0, entropy_weight=0.0)
    rows = batches(module)
    rows["all"]["next", "terminated"][:3] = True
    inputs = one_update(module, rows)
    loss, parts = module.transition_objective(inputs)
    logits = module.termination.logits(inputs["reached"])  # type: ignore[union-attr]
    wanted = functional.binary_cross_entropy_with_logits(logits, inputs["ended"])
    assert float(parts["termination/loss"]) == pytest.approx(float(wanted.detach()), rel=1e-5)
    without = float(loss.detach()) - float(wanted.detach())
    assert without == pytest.approx(float(make().transition_objective(inputs)[0].detach()), rel=1e-2)
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.termination.parameters())


def test_a_tuned_entropy_aims_above_that_of_likelihood_alone() -> None:
    module = make(entropy_weight="tuned", entropy_gain=0.3)
    recorded = table(40)
    data = SimpleNamespace(
        expert_train=recorded, diverse_train=None, expert_held_out=None, diverse_held_out=None, release=lambda: None
    )
    module._trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
    module._measure_before_game()
    with torch.no_grad():
        _, log_variance = module.transition(recorded["observation"], recorded["action"])
    assert float(module.target_entropy) == pytest.approx(0.5 * float(log_variance.mean()) + 0.3, abs=1e-4)


def test_roll_outs_follow_recorded_actions_and_stop_with_the_episode() -> None:
    module = make(starts=4, horizon=4, expert_start_share=1.0)
    stream = table(6, episode_length=3)
    module.recorded = RecordedActions([stream])
    rolled = module.roll_out(stream[torch.tensor([0, 1, 2, 5])])
    # From steps 0, 1, 2 and 2 of episodes of three steps there are 3 + 2 + 1 + 1 recorded actions left
    assert len(rolled) == 7
    torch.testing.assert_close(rolled["action"][:4], stream["action"][torch.tensor([0, 1, 2, 5])])


def test_roll_outs_stop_at_terminal_states() -> None:
    module = make(starts=5, horizon=4, proposal={"uniform": 1.0}, expert_start_share=1.0)
    module.termination.forward = lambda observation: torch.ones(len(observation), dtype=torch.bool)  # type: ignore[method-assign]
    assert len(module.roll_out(batches(module)["expert"][:5])) == 5


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_recorded_actions_never_cross_an_episode_or_a_table(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "BLOCK_ROWS", block)
    first, second = table(4, episode_length=2), table(3)
    recorded = RecordedActions([first, second])
    actions, running = recorded.following(torch.arange(7), 2)
    assert running.tolist() == [[True] * 7, [True, False, True, False, True, True, False]]
    torch.testing.assert_close(actions[1][running[1]], torch.cat([first["action"][[1, 3]], second["action"][[1, 2]]]))


def test_a_step_that_was_left_out_ends_recorded_actions_and_stretches() -> None:
    thinned = table(8)[[0, 2, 4, 5, 6]]
    _, running = RecordedActions([thinned]).following(torch.arange(5), 3)
    assert running.tolist() == [[True] * 5, [False, False, True, True, False], [False, False, True, False, False]]
    assert segments(thinned, 1).tolist() == [0, 1, 2, 3, 4]
    assert segments(thinned, 2).tolist() == [2, 3] and segments(thinned, 3).tolist() == [2]


def test_bootstrap_is_a_fixed_sample_of_its_own_for_each_member() -> None:
    row = torch.arange(40_000).expand(2, -1)
    weights = bootstrap_weights(row, 2)
    assert torch.equal(weights, bootstrap_weights(row, 2))
    assert weights.mean() == pytest.approx(1.0, abs=0.02)
    assert weights.var() == pytest.approx(1.0, abs=0.04)
    left_out = (weights == 0).float().mean(dim=1)
    assert left_out.tolist() == pytest.approx([math.exp(-1)] * 2, abs=0.01)
    correlation = torch.corrcoef(weights)[0, 1]
    assert abs(float(correlation)) < 0.02


def test_proposals_are_checked() -> None:
    low, high = torch.tensor([-1.0]), torch.tensor([1.0])
    with pytest.raises(ValueError, match="unknown action proposal"):
        ActionProposal({"datset": 1.0}, low, high, None, 0.1)
    with pytest.raises(ValueError, match="behaviour-cloned"):
        ActionProposal({"cloning": 1.0}, low, high, None, 0.1)
    with pytest.raises(ValueError, match="positive"):
        ActionProposal({"uniform": 0.0}, low, high, None, 0.1)


def test_rule_without_a_task_is_refused() -> None:
    with pytest.raises(ValueError, match="learned"):
        make(termination="rule")


def test_seven_layer_model_of_the_paper_can_be_configured() -> None:
    module = make(transition_hidden_sizes=[8] * 6)
    assert len(module.transition.network.layers) == 7


def test_settings_of_the_game_are_settings() -> None:
    assert set(GAME_SETTINGS) < set(inspect.signature(OffSim.__init__).parameters)


def test_a_member_that_broke_is_named() -> None:
    module, rows = make(), table(50)
    data = SimpleNamespace(diverse_held_out=None, expert_held_out=None, diverse_train=None, expert_train=rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_broken_members(module, data)
    with torch.no_grad():
        for parameter in module.transition.parameters():
            parameter[1] += 3.0
    with pytest.warns(UserWarning, match="worst member"):
        warn_of_broken_members(module, data)


@pytest.mark.parametrize(("limit", "share"), [(None, 1.0), (1e6, 1.0), (0.1, 0.1)])
def test_gradients_of_a_large_norm_are_scaled_down_to_the_limit(limit: float | None, share: float) -> None:
    def gradients(norm: float | None) -> tuple[float, torch.Tensor]:
        module = make(transition_gradient_norm=norm)
        wrapped = [SimpleNamespace(optimizer=each) for each in module.configure_optimizers()]
        module.optimizers = lambda: wrapped  # type: ignore[assignment, method-assign]
        module.manual_backward = lambda loss, **given: loss.backward(**given)  # type: ignore[method-assign]
        rows = {name: stream.unsqueeze(0) for name, stream in batches(module).items()}
        logged = module.run(module.converse(rows))
        given = [each.grad.flatten() for each in module.transition.parameters() if each.grad is not None]
        return float(logged["transition/gradient_norm"]), torch.cat(given)

    norm, free = gradients(None)
    logged, limited = gradients(limit)
    assert norm > 0.1 and logged == norm  # what is logged is the norm before
    torch.testing.assert_close(limited, free * (share / norm if share < 1.0 else 1.0))


def test_learning_rate_decays_over_the_pretraining_only() -> None:
    module = make(
        pretraining_updates=100, transition_learning_rate=1.0, transition_final_rate=0.1, transition_warmup=10
    )
    for updates, expected in ((0, 0.1), (9, 0.98), (50, 0.55), (100, 0.1), (300, 0.1)):
        module.updates = updates
        assert module._transition_rate() == pytest.approx(expected, abs=1e-2)


def test_forecasts_begin_at_a_rate_of_their_own() -> None:
    settings: dict[str, Any] = {"pretraining_updates": 120, "transition_learning_rate": 1.0}
    settings |= {"forecast_updates": 20, "transition_final_rate": 0.1, "transition_warmup": 10}
    module = make(**settings, forecast_learning_rate=0.5)
    for updates, wanted in (
        (0, 0.1),
        (50, 0.55),
        (99, 0.1),
        (100, 0.5),
        (110, 0.3),
        (119, 0.1),
        (120, 0.1),
        (300, 0.1),
    ):
        module.updates = updates
        assert module._transition_rate() == pytest.approx(wanted, abs=1e-2)
        assert module._forecasting() == (100 <= updates < 120)
    low = make(**settings, forecast_learning_rate=0.01)
    for low.updates in range(100, 120):
        assert low._transition_rate() == pytest.approx(0.01)
    every = make(**settings | {"forecast_updates": 120}, forecast_learning_rate=0.5)
    assert every._transition_rate() == pytest.approx(0.05)  # a tenth, as at any beginning


def walked(rows: int) -> TensorDict:
    """One episode, whose states are those that the steps before led to."""
    stream = table(rows)
    stream["next", "observation"][:-1] = stream["observation"][1:]
    return stream


def test_forecasts_are_of_the_last_updates_before_the_game() -> None:
    module = make(pretraining_updates=4, forecast_updates=2, forecast_steps=3)
    stream = walked(12)
    asked = converse(module, 6, RecordedSteps([stream]))
    told = {update: step.arguments[0] for update, name, step in asked if name == "transition_objective"}
    assert [update for update, inputs in told.items() if "later_action" in inputs] == [2, 3]
    later = told[2]
    assert later["later_action"].shape == (2, 3, 4, 2)
    row = module.deal({name: each.unsqueeze(0) for name, each in batches(module).items()})["row"][0]
    for steps in (1, 2):
        there = row + steps < 12
        expected = stream["next", "observation"][(row + steps).clamp_max(11)]
        torch.testing.assert_close(later["later_observation"][steps - 1][there], expected[there])
        assert not later["later_weight"][steps - 1][~there].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forecast_updates": 5}, "forecast_updates is 5: it counts updates before the game, of which there are 4"),
        ({"forecast_updates": 2, "forecast_steps": 1}, "forecast_steps is 1: a forecast of several steps has at least"),
    ],
)
def test_forecasts_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(pretraining_updates=4, **settings)


def test_forecasts_add_to_the_loss_of_the_transition_model() -> None:
    module = make(forecast_weight=0.5)
    rows = batches(module)
    inputs = one_update(module, rows)
    alone, _ = module.transition_objective(inputs)
    later = RecordedSteps([walked(12)]).after(inputs["row"], 3)
    both, parts = module.transition_objective(inputs | later)
    assert float((both - alone).detach()) == pytest.approx(0.5 * float(parts["transition/forecasts"]), rel=1e-4)
    assert float(parts["transition/forecasts"]) > 0.0


def test_tuned_entropy_weight_follows_the_shortfall() -> None:
    module = make(entropy_weight="tuned", entropy_learning_rate=0.5)
    module.target_entropy.fill_(-1.0)
    start = float(module.entropy_weight)
    module._tune_entropy(torch.tensor(-1.2))  # too little entropy: more weight
    assert float(module.entropy_weight) == pytest.approx(start * math.exp(0.5 * 0.2), rel=1e-5)
    module._tune_entropy(torch.tensor(-0.8))
    assert float(module.entropy_weight) == pytest.approx(start, rel=1e-5)
    module._tune_entropy(torch.tensor(-1e4))
    assert float(module.entropy_weight) < 1.0  # at 1 the optimal variance is infinite


def test_tuned_entropy_weight_is_what_the_loss_uses() -> None:
    losses = []
    for weight in (0.0, 0.5):
        module = make(entropy_weight="tuned", adversarial_weight=0.0)
        module.entropy_weight.fill_(weight)
        rows = batches(module)
        drawn = module.draw(rows)
        loss, parts = module.transition_objective(one_update(module, rows), drawn, rollouts())
        losses.append(float(loss.detach()))
    assert losses[0] != losses[1] and float(parts["transition/entropy_weight"]) == 0.5
    with pytest.raises(ValueError, match="unknown entropy_weight 'auto'"):
        make(entropy_weight="auto")
