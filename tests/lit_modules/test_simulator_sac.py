"""The policy stage: what enters a batch, what ending is worth, and when roll-outs stop."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_modules.simulator_returns import simulator_returns
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Policy, Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

SIZE, ACTIONS = 3, 2


class EndsAbove(TerminationModel):
    """Terminal where the first feature exceeds a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, next_observation: torch.Tensor) -> torch.Tensor:
        return next_observation[..., 0] > self.threshold


def table(rows: int) -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(rows, SIZE),
            "action": torch.rand(rows, ACTIONS) * 2 - 1,
            "next": {
                "observation": torch.randn(rows, SIZE),
                "terminated": (torch.arange(rows) % 3 == 0).unsqueeze(-1),
            },
        },
        batch_size=[rows],
    )


def make_simulator(folder: Path, offset: float = 0.0, end_reward: float | None = None) -> Path:
    torch.manual_seed(0)
    reward = RewardModel(SIZE, ACTIONS, (8,))
    reward.standardize(torch.linspace(1.0, 3.0, 50), torch.linspace(-1.0, 1.0, 50))
    # The same reward with a constant added: the affine image moves, and its bounds with it
    reward.offset.sub_(offset * reward.scale)
    reward.low.add_(offset)
    reward.high.add_(offset)
    simulator = Simulator(
        TransitionModel(SIZE, ACTIONS, members=2, hidden_sizes=(8,)),
        reward,
        TerminationModel(),
        StartStates.of(torch.randn(20, SIZE)),
        [-1.0] * ACTIONS,
        [1.0] * ACTIONS,
        end_reward=end_reward,
    )
    simulator.calibrate_uncertainty(torch.randn(100, SIZE), torch.randn(100, ACTIONS))
    path = folder / f"simulator{offset}.safetensors"
    simulator.save(path)
    return path


def make(folder: Path, offset: float = 0.0, end_reward: float | None = None, **changes: object) -> SimulatorSAC:
    path = make_simulator(folder, offset, end_reward)
    torch.manual_seed(1)
    settings: dict[str, object] = {
        "hidden_sizes": (8,),
        "starts": 10,
        "horizon": 3,
        "batch_size": 16,
        "buffer_size": 200,
        "uncertainty_cut": None,
        "uncertainty_weight": 0.0,
    }
    module = SimulatorSAC(str(path), **{**settings, **changes})  # type: ignore[arg-type]
    data = SimpleNamespace(expert_train=table(30), diverse_train=table(70), streams={"expert": 16, "all": 16})
    module._trainer = SimpleNamespace(datamodule=data)
    return module


def rows() -> dict[str, TensorDict]:
    return {"expert": table(16).unsqueeze(0), "all": table(16).unsqueeze(0)}


def optimized(module: SimulatorSAC) -> torch.optim.Optimizer:
    """Let the module train without a Trainer; its optimiser."""
    optimizer = module.configure_optimizers()
    module.optimizers = lambda: SimpleNamespace(optimizer=optimizer)  # type: ignore[method-assign]
    module.manual_backward = lambda loss, **given: loss.backward(**given)  # type: ignore[method-assign]
    return optimizer


def first(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value[0] for name, value in inputs.items()}


def test_roll_outs_begin_where_their_shares_say(tmp_path: Path) -> None:
    module = make(tmp_path, expert_start_share=0.25, initial_start_share=0.5, replayed_start_share=0.6)

    def within(states: torch.Tensor, known: torch.Tensor) -> int:
        return int((states[:, None] == known).all(dim=-1).any(dim=1).sum())

    data = module.trainer.datamodule  # type: ignore[attr-defined]
    initial, expert = module.simulator.start_states.observations, data.expert_train["observation"]
    states = module.draw_start_states(20)  # nothing is replayed yet
    assert states.shape == (20, SIZE)
    assert within(states, initial) == 10
    assert 5 <= within(states, expert) <= 10
    module.run(module.roll_out())
    states = module.draw_start_states(20)
    assert states.shape == (20, SIZE)
    assert within(states, initial) >= 4
    assert within(states, module.replay[:]["observation"]) >= 12


def test_shares_of_starts_beyond_the_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="together"):
        make(tmp_path, expert_start_share=0.6, initial_start_share=0.5)


def test_half_of_a_batch_is_recorded_and_half_of_that_expert(tmp_path: Path) -> None:
    module = make(tmp_path)
    module.run(module.roll_out())
    given = rows()
    observation = module.draw(given)["observation"]
    assert observation.shape == (1, 16, SIZE)
    assert torch.equal(observation[0, 8:12], given["expert"]["observation"][0, :4])
    assert torch.equal(observation[0, 12:], given["all"]["observation"][0, :4])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_recorded_rows_is_configurable(tmp_path: Path, share: float) -> None:
    module = make(tmp_path, real_share=share)
    module.run(module.roll_out())
    batch = first(module.draw(rows()))
    assert int((batch["uncertainty"] == 0).sum()) == round(share * 16)
    assert all(len(value) == 16 for value in batch.values())


def test_rewards_are_computed_when_a_batch_is_drawn(tmp_path: Path) -> None:
    module = make(tmp_path, reward_scale=0.5)
    module.run(module.roll_out())
    batch = first(module.draw(rows()))
    reward = module.simulator.reward(batch["observation"], batch["action"], batch["next_observation"])
    expected = 0.5 * reward + 0.99 * batch["terminated"] * module.end_value
    torch.testing.assert_close(module.batch_reward(batch), expected)


def test_ending_is_worth_the_lowest_possible_return(tmp_path: Path) -> None:
    module = make(tmp_path, reward_scale=0.1)
    assert float(module.end_value) == pytest.approx(0.1 * float(module.simulator.reward.low) / 0.01, rel=1e-4)
    assert module.loss.value_low == module.end_value


def test_a_simulator_may_say_itself_what_ending_is_worth(tmp_path: Path) -> None:
    """As those of Offline ML-IRL do, whose reward's lower bound is the worst that was ever seen."""
    module = make(tmp_path, end_reward=0.25, reward_scale=0.1, uncertainty_weight=1.0)
    low = float(module.simulator.reward.low)
    assert low < 0.2
    assert float(module.end_value) == pytest.approx(0.1 * 0.25 / 0.01, rel=1e-4)
    assert float(module.doubtful_reward) == 0.25
    assert float(module.loss.value_low) == pytest.approx(0.1 * low / 0.01, rel=1e-4)
    module.replace_reward(module.simulator.reward)  # of which that says nothing
    assert float(module.end_value) == pytest.approx(0.1 * low / 0.01, rel=1e-4)


@pytest.mark.parametrize("offset", [-5.0, 5.0])
def test_a_constant_added_to_the_reward_moves_all_targets_alike(tmp_path: Path, offset: float) -> None:
    """So it cannot change which policy is best: dying pays no more under a negative reward than a positive one."""
    plain, shifted = make(tmp_path), make(tmp_path, offset=offset)
    given = rows()
    targets = []
    for module in (plain, shifted):
        module.run(module.roll_out())
        batch = first(module.draw(given))
        ended = batch["terminated"]
        assert 0 < float(ended.sum()) < len(ended)
        # A bootstrapped value moves by the shift of a whole discounted return
        moved = 0.1 * (offset if module is shifted else 0.0) / (1 - 0.99)
        targets.append(module.batch_reward(batch) + 0.99 * (1 - ended) * moved)
    difference = targets[1] - targets[0]
    torch.testing.assert_close(difference, torch.full_like(difference, 0.1 * offset / (1 - 0.99)), atol=2e-3, rtol=1e-3)


def test_nothing_is_stored_after_an_end(tmp_path: Path) -> None:
    module = make(tmp_path, horizon=5)
    module.simulator.termination = EndsAbove(-torch.inf)
    module.run(module.roll_out())
    assert len(module.replay) == 10
    assert bool(module.replay[:]["next", "terminated"].all())


def test_roll_outs_end_where_the_simulator_cannot_be_trusted(tmp_path: Path) -> None:
    module = make(tmp_path, horizon=5)
    module.cut.fill_(-1.0)
    module.run(module.roll_out())
    assert len(module.replay) == 10 and bool(module.replay[:]["next", "terminated"].all())
    module = make(tmp_path, horizon=5)
    module.run(module.roll_out())
    assert len(module.replay) == 50 and not bool(module.replay[:]["next", "terminated"].any())


def test_uncertainty_penalty_is_in_units_of_the_median_on_data(tmp_path: Path) -> None:
    settings = {"uncertainty_form": "penalty", "uncertainty_tolerance": 0.5}
    module, penalised = make(tmp_path), make(tmp_path, uncertainty_weight=2.0, **settings)
    given = rows()
    module.run(module.roll_out())
    batch = first(module.draw(given))
    expected = 0.1 * 2.0 * (batch["uncertainty"] / module.uncertainty_unit - 0.5).clamp_min(0.0)
    difference = module.batch_reward(batch) - penalised.batch_reward(batch)
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=1e-4)
    # A penalty has no largest size, so nothing bounds the critics from below
    assert penalised.loss.value_low == -math.inf and penalised.loss.value_high == module.loss.value_high


def test_fading_takes_from_doubtful_transitions_what_they_pay_beyond_the_least(tmp_path: Path) -> None:
    module = make(tmp_path, reward_scale=0.5, uncertainty_weight=2.0, uncertainty_tolerance=1.0)
    module.run(module.roll_out())
    batch = first(module.draw(rows()))
    batch["terminated"].zero_()
    low, high = float(module.simulator.reward.low), float(module.simulator.reward.high)

    def paid(medians: float) -> torch.Tensor:
        doubt = torch.full_like(batch["uncertainty"], medians) * module.uncertainty_unit
        return module.batch_reward(batch | {"uncertainty": doubt}) / 0.5

    sure = module.simulator.reward(batch["observation"], batch["action"], batch["next_observation"])
    torch.testing.assert_close(paid(0.0), sure)
    torch.testing.assert_close(paid(1.0), sure)
    torch.testing.assert_close(paid(1.5) - low, (sure - low) * math.exp(-1.0))
    torch.testing.assert_close(paid(1e6), torch.full_like(sure, low))
    # Doubt pays no less than the least, so the bounds of the rewards are those of the critics
    assert module.loss.value_low == module.end_value
    assert float(module.loss.value_high) == pytest.approx(0.5 * high / 0.01, rel=1e-4)


def test_roll_outs_act_with_the_deviation_given_and_nothing_learns_it(tmp_path: Path) -> None:
    module = make(tmp_path, deviation=0.1)
    observation = torch.randn(4000, SIZE)
    noise = torch.randn(4000, ACTIONS)
    location, scale = module.policy(observation)
    for given in (scale, module.averaged_policy(observation)[1]):
        torch.testing.assert_close(given, torch.full_like(given, 0.1))
    torch.testing.assert_close(module.explore(observation, noise), module.policy.squash(location + 0.1 * noise))
    scale.sum().backward()
    assert not any(weight.grad.any() for weight in module.policy.network.parameters() if weight.grad is not None)
    learned = make(tmp_path, deviation=None)
    assert float(learned.policy(observation)[1].std()) > 0.0


def test_without_temperature_the_actor_is_not_paid_for_entropy(tmp_path: Path) -> None:
    parts = {}
    for temperature in (0.0, 0.5):
        module = make(tmp_path, temperature=temperature, cloning_weight=0.0)
        module.run(module.roll_out())
        _, parts[temperature] = module.objective(
            first(module.draw(rows())), module.loss.critic_layers(), module.loss.target_layers()
        )
    assert float(parts[0.0]["loss_actor"]) == pytest.approx(-float(parts[0.0]["proposed_value"]), abs=1e-6)
    entropy = float(parts[0.5]["entropy"])
    assert float(parts[0.5]["loss_actor"] + parts[0.5]["proposed_value"]) == pytest.approx(-0.5 * entropy, abs=1e-4)
    # Entropy is added to the values and has no bounds
    assert (module.loss.value_low, module.loss.value_high) == (-math.inf, math.inf)


def test_values_are_brought_to_a_unit_before_holds_are_added(tmp_path: Path) -> None:
    found = {}
    for unit in (None, 2.0):
        module = make(tmp_path, value_unit=unit, cloning_weight=0.0)
        module.run(module.roll_out())
        inputs = first(module.draw(rows()))
        total, parts = module.objective(inputs, module.loss.critic_layers(), module.loss.target_layers())
        found[unit] = float(total.detach() - parts["loss_qvalue"]), float(parts["value_std"])
    (plain, deviation), (brought, same) = found[None], found[2.0]
    assert deviation == same > 0.0
    assert brought == pytest.approx(plain * 2.0 / deviation, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"uncertainty_form": "fade"}, "fading"), ({"target_entropy": -2.0, "temperature": 0.0}, "start it above 0")],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **settings)


def test_tuned_penalty_grows_while_roll_outs_are_more_uncertain_than_the_budget(tmp_path: Path) -> None:
    module = make(tmp_path, uncertainty_weight="tuned", uncertainty_budget=1.5, uncertainty_rate=0.2)
    before = float(module.uncertainty_weight)
    columns = {"uncertainty": torch.full((3, 4), 2.0) * module.uncertainty_unit}
    alive = torch.ones(3, 4, dtype=torch.bool)
    alive[2:] = False
    columns["uncertainty"][2:] = 1e6  # what comes after an end does not count
    logged = module.heed_roll_outs(columns, alive)
    assert float(logged["rollout/uncertainty_weight"]) == pytest.approx(before * math.exp(0.2 * 0.5))
    columns["uncertainty"][:2] = 0.5 * module.uncertainty_unit
    module.heed_roll_outs(columns, alive)
    assert float(module.uncertainty_weight) == pytest.approx(before * math.exp(0.2 * (0.5 - 1.0)))
    module.run(module.roll_out())
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    resumed = make(tmp_path, uncertainty_weight="tuned")
    resumed.on_load_checkpoint(checkpoint)
    assert torch.equal(resumed.uncertainty_weight, module.uncertainty_weight)


def test_of_several_candidates_the_critics_least_valued_is_taken(tmp_path: Path) -> None:
    module = make(tmp_path, candidates=3, gamma=0.9)
    observation, action, following = torch.randn(4, SIZE), torch.rand(4, ACTIONS), torch.randn(3, 4, SIZE)
    critics = module.loss.critic_layers()
    chosen = module.choose(0, observation, action, following, critics)

    def worth(row: int, candidate: int) -> float:
        state = following[candidate, row : row + 1]
        reward = module.simulator.reward(observation[row : row + 1], action[row : row + 1], state)
        values = module.loss.critic.batched(critics, module.loss.normalizer(state), module.policy.act(state))
        return float((0.1 * reward + 0.9 * values.min()).detach())

    for row in range(4):
        worst = min(range(3), key=lambda candidate: worth(row, candidate))
        assert torch.equal(chosen[row], following[worst, row])
    module.simulator.termination = EndsAbove(1.0)
    following[:, :, 0] = 0.0
    following[1, :, 0] = 2.0
    module.end_value.fill_(-1e3)
    assert torch.equal(module.choose(0, observation, action, following, critics), following[1])
    module.end_value.fill_(1e3)
    assert not bool((module.choose(0, observation, action, following, critics)[:, 0] > 1.0).any())


def test_pushed_roll_outs_go_to_the_bounds_for_a_few_steps(tmp_path: Path) -> None:
    module = make(tmp_path, push_share=0.5, push_steps=4, horizon=12, starts=400, candidates=1)
    columns, _ = module.simulate(*module.draw_roll_outs())
    at_bounds = (columns["action"].abs() > 1.0 - 1e-6).all(dim=-1)  # (H, B)
    steps = at_bounds.sum(dim=0)
    assert set(steps.tolist()) == {0, 4}
    assert int((steps == 4).sum()) == pytest.approx(200, abs=40)
    first = at_bounds[:, steps == 4].float().argmax(dim=0)
    assert bool(at_bounds[:, steps == 4].gather(0, torch.stack([first + step for step in range(4)])).all())
    assert set(first.tolist()) == set(range(9))
    signs = columns["action"][at_bounds].sign()
    assert float(signs.mean().abs()) < 0.1


def test_push_longer_than_a_roll_out_fills_it(tmp_path: Path) -> None:
    module = make(tmp_path, push_share=1.0, push_steps=4, horizon=2, starts=10, candidates=1)
    columns, _ = module.simulate(*module.draw_roll_outs())
    assert bool((columns["action"].abs() > 1.0 - 1e-6).all())


def test_pushes_are_drawn_after_everything_else(tmp_path: Path) -> None:
    pushed, plain = (make(tmp_path, push_share=share).draw_roll_outs(2) for share in (1.0, 0.0))
    starts, noise, *rest = pushed
    assert torch.equal(starts, plain[0]) and all(map(torch.equal, rest, plain[2:]))
    assert int((noise != plain[1]).any(dim=-1).sum()) == 3 * noise.shape[1]


def test_roll_outs_of_candidates_have_the_shape_of_others(tmp_path: Path) -> None:
    plain, choosy = (make(tmp_path, candidates=count) for count in (1, 3))
    for module in (plain, choosy):
        module.run(module.roll_out())
    assert choosy.replay[:]["next", "observation"].shape == plain.replay[:]["next", "observation"].shape
    assert bool(torch.isfinite(choosy.replay[:]["next", "observation"]).all())


def test_unknown_way_of_choosing_the_penalty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uncertainty_weight is 'auto'"):
        make(tmp_path, uncertainty_weight="auto")


def test_the_simulator_is_frozen(tmp_path: Path) -> None:
    module = make(tmp_path)
    assert not any(parameter.requires_grad for parameter in module.simulator.parameters())
    before = {name: value.clone() for name, value in module.simulator.state_dict().items()}
    module.run(module.roll_out())
    optimizer = optimized(module)
    policy = [parameter.clone() for parameter in module.policy.network.parameters()]
    module.run(module.update(first(module.draw(rows()))))
    assert all(torch.equal(value, before[name]) for name, value in module.simulator.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(policy, module.policy.network.parameters(), strict=True))
    trained_ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained_ids.isdisjoint({id(p) for p in module.simulator.parameters()})


def test_policy_that_comes_out_is_the_running_average(tmp_path: Path) -> None:
    module = make(tmp_path, policy_average=0.75)
    optimized(module)
    module.run(module.roll_out())
    before = [parameter.clone() for parameter in module.averaged_policy.network.parameters()]
    module.run(module.update(first(module.draw(rows()))))
    for start, average, current in zip(
        before, module.averaged_policy.network.parameters(), module.policy.network.parameters(), strict=True
    ):
        torch.testing.assert_close(average, 0.75 * start + 0.25 * current)


def test_cloned_start_is_adopted(tmp_path: Path) -> None:
    policy = Policy(SIZE, [-1.0] * ACTIONS, [1.0] * ACTIONS, (8,))
    policy.save(tmp_path / "cloned.safetensors")
    module = make(tmp_path, cloned_policy=str(tmp_path / "cloned.safetensors"))
    observation = torch.randn(5, SIZE)
    assert torch.equal(module.policy.act(observation), policy.act(observation))
    assert torch.equal(module.averaged_policy.act(observation), policy.act(observation))


def test_episodes_in_the_simulator_are_no_longer_than_the_systems_own(tmp_path: Path) -> None:
    module = make(tmp_path)
    for longest, expected in ((None, 1000), (7, 7), (5000, 1000)):
        module.simulator.horizon = longest
        assert module.returns_in(module.simulator, module.policy)[0]["length"] == expected
    module.simulator.task = "reacher"
    assert module.returns_in(module.simulator, module.policy)[0]["length"] == 50


def test_simulator_returns_stop_counting_at_the_end(tmp_path: Path) -> None:
    simulator = Simulator.load(make_simulator(tmp_path))
    policy = Policy(SIZE, [-1.0] * ACTIONS, [1.0] * ACTIONS, (8,))
    simulator.termination = EndsAbove(-torch.inf)
    assert simulator_returns(simulator, [policy] * 2, 4, 50, torch.Generator().manual_seed(0))[1]["length"] == 1.0
    simulator.termination = TerminationModel()
    assert simulator_returns(simulator, [policy] * 2, 4, 50, torch.Generator().manual_seed(0))[1]["length"] == 50.0


def test_a_snapshot_says_what_the_critics_think_of_it(tmp_path: Path) -> None:
    module = make(tmp_path, snapshot_every=2, snapshots=str(tmp_path / "kept"), critics=3, temperature=0.25)
    module._trainer.is_global_zero = True
    module.averaged_policy.network[0].bias.data.add_(1.0)  # no longer the policy that is trained
    module.updates = 3
    module._keep_snapshot()
    assert not (tmp_path / "kept").exists()
    module.updates = 4
    module.uncertainty_weight.fill_(1.5)  # as if it had been tuned
    module._keep_snapshot()
    written = json.loads((tmp_path / "kept" / "00000004.json").read_text())
    kept = Policy.load(tmp_path / "kept" / "00000004.safetensors")
    starts = module.simulator.start_states.observations
    seen = module.loss.normalizer(starts)
    values = []
    for index in range(3):
        parameters = module.loss.qvalue_network_params[index]
        with parameters.to_module(module.loss.qvalue_network):
            values.append(module.loss.critic(seen, kept.act(starts)).squeeze(-1).detach())
    expected = float(torch.stack(values).min(dim=0).values.mean())
    assert written == {
        "update": 4,
        "value": pytest.approx(expected, rel=1e-5),
        "temperature": pytest.approx(0.25),
        "uncertainty_weight": 1.5,
    }


def test_controls_and_methods_do_not_continue_one_another(tmp_path: Path) -> None:
    module, resumed = make(tmp_path), make(tmp_path)
    checkpoint: dict[str, Any] = {}
    module.run(module.roll_out())
    module.on_save_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="control"):
        resumed.on_load_checkpoint({**checkpoint, "control": True})
    del checkpoint["control"]  # written before there were controls
    resumed.on_load_checkpoint(checkpoint)


def test_replay_survives_a_checkpoint(tmp_path: Path) -> None:
    module, resumed = make(tmp_path), make(tmp_path)
    module.run(module.roll_out())
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "part.ckpt")
    resumed.on_load_checkpoint(torch.load(tmp_path / "part.ckpt", weights_only=True))
    assert len(resumed.replay) == len(module.replay) == 30
    assert torch.equal(resumed.replay[:]["action"], module.replay[:]["action"])
    assert (tmp_path / "part.ckpt").stat().st_size < 100_000


def test_data_with_other_spaces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="observation size 5 differ"):
        make(tmp_path, observation_size=5)
    with pytest.raises(ValueError, match="upper action bounds"):
        make(tmp_path, observation_size=SIZE, action_low=[-1.0, -1.0], action_high=[2.0, 2.0])


def trained(
    module: Any, given: list[dict[str, Any]], optimizer: torch.optim.Optimizer | None = None
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Losses of an update per set of rows, and the parameters they lead to."""
    if optimizer is None:
        optimized(module)
    module.run(module.roll_out())
    losses = []
    for each in given:
        inputs = {name: value[0] for name, value in module.draw(each).items()}
        logged = module.run(module.update(inputs))
        losses.append(torch.stack([logged["loss_actor"], logged["loss_qvalue"], logged["cloning"]]))
    return losses, [value.detach() for value in module.state_dict().values()]


def test_twenty_updates_through_graphs_equal_twenty_plain_ones(tmp_path: Path) -> None:
    """Without a GPU the graphs only pass through; the arguments, rates and counters are those of a capture."""
    plain, graphed = make(tmp_path), make(tmp_path)
    given = [rows() for _ in range(20)]
    expected = trained(plain, copy.deepcopy(given))
    optimizer = optimized(graphed)
    graphed.capture_graphs()
    for ours, theirs in zip(trained(graphed, given, optimizer), expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert graphed.graphs is not None and len(graphed.graphs.captured) == 2  # the roll-out and the update
    copied = {id(tensor) for tensor in (*graphed.loss.critic_layers()[0], *graphed.loss.target_layers()[0])}
    assert copied <= graphed.graphs.constants
