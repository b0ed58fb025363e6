"""What is set from outside, in training: nothing is learned of it, and no reward tells demonstrations by it."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from lit_modules import diagnostics
from lit_modules.forecasts import forecast_loss
from lit_modules.offsim import OffSim
from lit_modules.simulator_returns import simulator_returns
from lit_modules.surroundings import begin, in_expert_surroundings, surroundings_of
from zoo import Policy, Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

SIZE, OUTSIDE = 4, (1, 3)


def walk(rows: int, first: float = 0.0, steps: int = 25) -> TensorDict:
    """Rows of episodes in which what is set from outside says which row it is."""
    observation = torch.randn(rows, SIZE)
    following = torch.randn(rows, SIZE)
    inside = (torch.arange(rows) % steps) != steps - 1
    observation[:, 1], observation[:, 3] = torch.arange(rows) + first, -torch.arange(rows) - first
    following[:, 1], following[:, 3] = observation[:, 1] + 1, observation[:, 3] - 1
    observation[1:][inside[:-1]] = following[:-1][inside[:-1]]
    flags = {name: torch.zeros(rows, 1, dtype=torch.bool) for name in ("terminated", "truncated")}
    return TensorDict(
        {
            "observation": observation,
            "action": torch.rand(rows, 1) * 2 - 1,
            "next": TensorDict({"observation": following, **flags}, batch_size=[rows]),
            "row": torch.arange(rows),
            "episode": torch.arange(rows) // steps,
            "step": torch.arange(rows) % steps,
        },
        batch_size=[rows],
    )


@pytest.fixture
def game() -> OffSim:
    torch.manual_seed(0)
    made = OffSim(
        SIZE,
        [-1.0],
        [1.0],
        termination="none",
        members=2,
        transition_hidden_sizes=(8,),
        reward_hidden_sizes=(8,),
        proposal={"uniform": 1.0},
        exogenous=OUTSIDE,
    )
    record = walk(100)
    assert made.transition.recorded_changes is not None
    made.transition.recorded_changes.adopt(
        *(made.transition.exogenous_of(record[key]) for key in ("observation", ("next", "observation")))
    )
    return made


def test_other_rows_get_the_surroundings_of_demonstrations(game: OffSim) -> None:
    expert, other = walk(10), walk(25, first=500.0)
    moved = in_expert_surroundings(game.transition, other, expert)
    for key in ("observation", ("next", "observation")):
        expected = expert[key][torch.arange(25) % 10][:, list(OUTSIDE)]
        assert torch.equal(moved[key][:, list(OUTSIDE)], expected)
        assert torch.equal(moved[key][:, [0, 2]], other[key][:, [0, 2]])
    assert float(other["observation"][0, 1]) == 500.0  # what was recorded stays
    starts = TensorDict({"observation": other["observation"], "row": other["row"]}, batch_size=[25])
    assert set(in_expert_surroundings(game.transition, starts, expert).keys()) == {"observation", "row"}
    plain = OffSim(SIZE, [-1.0], [1.0], termination="none", members=2, proposal={"uniform": 1.0})
    assert in_expert_surroundings(plain.transition, other, expert) is other


def test_a_forecast_is_told_what_it_was_and_errs_in_what_is_foreseen_alone(game: OffSim) -> None:
    model, table = game.transition, walk(100)
    starts = diagnostics.segments(table, 20)
    imagined = diagnostics.open_loop(model, table, starts, 20)
    for step in range(20):
        recorded = table["next", "observation"][starts + step]
        assert torch.equal(imagined[step][:, list(OUTSIDE)], recorded[:, list(OUTSIDE)])
    (differences,) = diagnostics.open_loop_differences(model, table, [20]).values()
    expected = (differences / model.observation_normalizer.std)[:, [0, 2]].square().mean().sqrt()
    assert diagnostics.open_loop_errors(model, table, [20])[20] == pytest.approx(float(expected))

    found = diagnostics.one_step_errors(model, table)
    mean, log_variance = model(table["observation"], table["action"])
    target = model.standardized_delta(table["observation"], table["next", "observation"])
    error = (mean.mean(dim=0) - target)[:, [0, 2]].square().mean().sqrt()
    assert float(found["one_step"]) == pytest.approx(float(error))
    inside = ((target - mean).abs() < diagnostics.INTERVALS[0.9] * (0.5 * log_variance).exp())[..., [0, 2]]
    assert float(found["inside_90"]) == pytest.approx(float(inside.float().mean()))


def test_losses_do_not_depend_on_how_it_changes(game: OffSim) -> None:
    model = game.transition
    observation, action, following = torch.randn(2, 6, SIZE), torch.randn(2, 6, 1), torch.randn(2, 6, SIZE)
    later = {"later_action": action[None], "later_weight": torch.ones(1, 2, 6)}
    other = following.clone()
    other[..., list(OUTSIDE)] += 3.0
    targets = [model.standardized_delta(observation, each) for each in (following, other)]
    assert torch.equal(targets[0], targets[1])
    losses = [
        forecast_loss(model, observation, {**later, "later_observation": each[None]}) for each in (following, other)
    ]
    assert torch.equal(losses[0], losses[1])


def test_policies_are_compared_with_demonstrations_in_the_surroundings_of_these(game: OffSim) -> None:
    demonstrations = walk(50)
    simulator = Simulator(
        game.transition,
        game.reward,
        game.termination,
        StartStates.of(walk(40, first=30.0)["observation"]),
        [-1.0],
        [1.0],
    )
    surroundings = surroundings_of(simulator, demonstrations)
    assert surroundings is not None and surroundings.tolist() == [[0.0, 0.0], [25.0, -25.0]]
    random = torch.Generator().manual_seed(0)
    plain = begin(simulator, 30, random)
    moved = begin(simulator, 30, random.manual_seed(0), surroundings)
    assert torch.equal(moved[:, [0, 2]], plain[:, [0, 2]])
    assert set(moved[:, 1].tolist()) == {0.0, 25.0} and bool((moved[:, 1] == -moved[:, 3]).all())
    assert float(plain[:, 1].min()) >= 30.0
    policy = Policy(SIZE, [-1.0], [1.0], (8,))
    (figures,) = simulator_returns(simulator, [policy], 4, 5, random, surroundings)
    assert figures["length"] == 5.0
    assert surroundings_of(plain_simulator(), demonstrations) is None


def plain_simulator() -> Simulator:
    transition = TransitionModel(SIZE, 1, members=2, hidden_sizes=(8,))
    starts = StartStates.of(torch.zeros(1, SIZE))
    return Simulator(transition, RewardModel(SIZE, 1, (8,)), TerminationModel(), starts, [-1.0], [1.0])
