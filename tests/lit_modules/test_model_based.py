"""What MOBILE, COMBO and RAMBO add to SAC in a Simulator, against hand-computed values."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_modules.rows import blocks
from lit_modules.simulator_combo import SimulatorCOMBO
from lit_modules.simulator_mobile import SimulatorMOBILE
from lit_modules.simulator_rambo import SimulatorRAMBO

STREAMS = ("expert", "all")
PLAIN: dict[str, Any] = {"batch_size": 8, "refresh_every": 8, "real_share": 0.5, "uncertainty_weight": 0.0}


def rows(steering: Any, *size: int) -> dict[str, TensorDict]:
    """Both streams, with the numbers of their rows."""
    tables = {name: steering.table(*size) for name in STREAMS}
    for table in tables.values():
        table["row"] = torch.arange(table.numel()).view(*size)
    return tables


def drawn(steering: Any, module: Any) -> dict[str, torch.Tensor]:
    """The inputs of one update, once there are roll-outs."""
    module.run(module.roll_out())
    return {name: each[0] for name, each in module.draw(rows(steering, 1, 8)).items()}


def disagreeing(module: Any) -> Any:
    """A module in whose Simulator the second member moves by 0.1 instead of 0.5 for an action of 1."""
    with torch.no_grad():
        module.simulator.transition.network.layers[0].weight[1, 1, 0] = 0.1
    return module


def members_targets(module: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The Bellman target of each member for the simulated rows, by hand."""
    observation, action = inputs["observation"][:4], inputs["action"][:4]
    targets = []
    for moved in (0.5, 0.1):
        following = observation + moved * action
        reward = (1.0 - following.abs()).squeeze(-1).clamp(-1.0, 1.0)
        values = module.loss.values(module.loss.target_layers(), following, module.policy.act(following)).min(dim=0)
        targets.append(module.hparams["reward_scale"] * reward + module.hparams["gamma"] * values.values)
    return targets


def test_mobile_takes_off_what_members_disagree_about_in_value(steering: Any) -> None:
    module = disagreeing(steering.learner(SimulatorMOBILE, inconsistency_weight=3.0, **PLAIN))
    inputs = drawn(steering, module)
    first, second = members_targets(module, inputs)
    reward, logged = module.critics_reward(inputs, module.loss.target_layers())
    doubt = 0.5 * (first - second).abs()
    plain = module.batch_reward(inputs)
    torch.testing.assert_close(reward[:4], plain[:4] - 3.0 * doubt)
    torch.testing.assert_close(reward[4:], plain[4:])  # recorded transitions happened
    torch.testing.assert_close(logged["inconsistency"], doubt.mean())
    assert float(doubt.min()) > 0.0


def test_mobile_asks_every_member_of_a_simulator_that_their_mean_moves(steering: Any) -> None:
    module = disagreeing(steering.learner(SimulatorMOBILE, **PLAIN))
    inputs = drawn(steering, module)
    module.simulator.aggregation = "mean"
    first, second = members_targets(module, inputs)
    _, logged = module.critics_reward(inputs, module.loss.target_layers())
    torch.testing.assert_close(logged["inconsistency"], 0.5 * (first - second).abs().mean())


def test_mobile_does_not_mind_states_that_are_worth_the_same(steering: Any) -> None:
    module = disagreeing(steering.learner(SimulatorMOBILE, **PLAIN))
    inputs = drawn(steering, module)
    module.simulator.reward.low.fill_(-1.0)
    module.simulator.reward.high.fill_(-1.0)  # the same everywhere
    for weight, bias in module.loss.target_layers():
        weight.zero_()
        bias.fill_(0.7)
    _, logged = module.critics_reward(inputs, module.loss.target_layers())
    torch.testing.assert_close(logged["inconsistency"], torch.tensor(0.0))


def test_combo_lowers_simulated_and_raises_recorded_values(steering: Any) -> None:
    module = steering.learner(SimulatorCOMBO, conservative_weight=2.0, **PLAIN)
    inputs = drawn(steering, module)
    critics, targets = module.loss.critic_layers(), module.loss.target_layers()
    total, logged = module.objective(inputs, critics, targets)
    module.loss.conservative_weight = 0.0
    without, _ = module.objective(inputs, critics, targets)
    values = module.loss.values(critics, inputs["observation"], inputs["action"])
    gap = values[:, :4].mean(dim=1) - values[:, 4:].mean(dim=1)
    torch.testing.assert_close(total - without, 2.0 * gap.sum(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logged["value_gap"], gap.mean())


def test_combos_critics_end_up_conservative(steering: Any) -> None:
    gaps = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        settings = {**PLAIN, "batch_size": 64, "critic_learning_rate": 3e-3, "refresh_every": 50}
        module = steering.learner(SimulatorCOMBO, conservative_weight=weight, **settings)
        gaps[weight] = float(steering.train(module, 200)["value_gap"])
    assert gaps[1.0] < gaps[0.0] - 0.1


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (SimulatorMOBILE, {"real_share": 1.0}, "no simulated row"),
        (SimulatorCOMBO, {"real_share": 1.0}, "has to leave both"),
        (SimulatorCOMBO, {"real_share": 0.0}, "has to leave both"),
    ],
)
def test_batches_that_leave_nothing_to_do_are_refused(
    steering: Any, method: type, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        steering.learner(method, **{**PLAIN, **settings})


@pytest.mark.parametrize(
    ("method", "weight"), [(SimulatorMOBILE, "inconsistency_weight"), (SimulatorCOMBO, "conservative_weight")]
)
def test_values_have_no_lower_bound_where_something_is_taken_off(steering: Any, method: type, weight: str) -> None:
    bounded, penalised = (steering.learner(method, **PLAIN, **{weight: value}) for value in (0.0, 0.5))
    assert bounded.critic_range == bounded.value_range
    assert penalised.critic_range == (-math.inf, penalised.value_range[1])


def acted(steering: Any, count: int = 6) -> dict[str, torch.Tensor]:
    """Rows for RAMBO's model: who predicts which, and the noise of what follows."""
    return {
        "observation": steering.states(count),
        "action": steering.states(count),
        "uncertainty": torch.zeros(count),
        "order": torch.arange(count),  # the first half by the first member
        "noise": torch.randn(count, 1),
    }


def test_rambos_objective_by_hand(steering: Any) -> None:
    module = disagreeing(steering.learner(SimulatorRAMBO, adversarial_weight=0.2, **PLAIN))
    model = module.simulator.transition
    model.log_variance_min.fill_(-3.0)
    taken, critics = acted(steering), module.loss.target_layers()
    dealt = blocks([rows(steering, 8)["all"]], 2)
    total, logged = module.transition_objective(taken, dealt, critics)
    observation, action = taken["observation"], taken["action"]
    moves = torch.tensor([0.5] * 3 + [0.1] * 3).unsqueeze(1)
    deviation = math.exp(0.5 * float(model(observation, action)[1][0, 0, 0]))
    following = observation + moves * action + deviation * taken["noise"]
    reward = (1.0 - following.abs()).squeeze(-1).clamp(-1.0, 1.0)
    later = module.loss.smallest_value(critics, following, module.policy.act(following))
    advantage = module.hparams["reward_scale"] * reward + module.hparams["gamma"] * later
    advantage = advantage - module.loss.smallest_value(critics, observation, action)
    goodness = (advantage - advantage.mean()) / advantage.std()
    likelihood = -0.5 * (2.0 * math.log(deviation) + taken["noise"].squeeze(1).square())
    module.hparams["adversarial_weight"] = 0.0
    without, _ = module.transition_objective(taken, dealt, critics)
    torch.testing.assert_close(total - without, 0.2 * (goodness * likelihood).mean(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(logged["transition/advantage"], advantage.mean())
    predicted = dealt["observation"] + torch.tensor([0.5, 0.1]).view(2, 1, 1) * dealt["action"]
    error = predicted - dealt["next_observation"]
    torch.testing.assert_close(logged["transition/squared_error"], error.square().mean())


def test_rambos_model_turns_against_the_policy_and_the_given_one_stays(steering: Any) -> None:
    """Where nothing holds it, what follows gets worse for the policy than in the Simulator that was given."""
    torch.manual_seed(0)
    settings = {**PLAIN, "batch_size": 64, "critic_learning_rate": 3e-3, "tau": 0.05, "reward_scale": 1.0}
    module = steering.learner(
        SimulatorRAMBO,
        adversarial_weight=1.0,
        likelihood_weight=0.0,
        transition_every=1,
        transition_learning_rate=1e-3,
        **{**settings, "refresh_every": 50},
    )
    module.simulator.transition.log_variance_min.fill_(-3.0)
    given = copy.deepcopy(module.judging_simulator.state_dict())
    module.run(module.converse(rows(steering, 300, 64)))
    observation = torch.linspace(-1.0, 1.0, 101).unsqueeze(1)
    action = module.policy.act(observation)
    worth = {}
    for name, simulator in (("given", module.judging_simulator), ("trained", module.simulator)):
        mean, _ = simulator.transition(observation, action)
        following = simulator.transition.next_observation(observation, mean)
        worth[name] = float(-following.abs().mean())
    assert worth["trained"] < worth["given"] - 0.02
    assert all(torch.equal(value, given[name]) for name, value in module.judging_simulator.state_dict().items())
    assert module.learned_simulator(None) is module.judging_simulator


def test_rambos_model_waits_with_the_actor(steering: Any) -> None:
    module = steering.learner(SimulatorRAMBO, transition_every=1, decay_updates=20, critic_share=0.5, **PLAIN)
    start = copy.deepcopy(module.simulator.transition.state_dict())
    batch = rows(steering, 20, 8)
    module.run(module.converse({name: each[:10] for name, each in batch.items()}))
    assert all(torch.equal(value, start[name]) for name, value in module.simulator.transition.state_dict().items())
    module.run(module.converse({name: each[10:] for name, each in batch.items()}))
    assert not torch.equal(module.simulator.transition.network.layers[0].bias, start["network.layers.0.bias"])


@pytest.mark.parametrize("method", [SimulatorMOBILE, SimulatorCOMBO, SimulatorRAMBO])
def test_a_resumed_training_equals_an_uninterrupted_one(steering: Any, saved_checkpoint: Any, method: type) -> None:
    batch = rows(steering, 20, 8)
    whole, resumed = steering.train_interrupted(method, batch, 11, saved_checkpoint, **PLAIN)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
