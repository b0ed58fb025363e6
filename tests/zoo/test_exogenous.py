"""What is set from outside: it changes as recorded, or as one says, and nothing predicts it."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from zoo import Simulator
from zoo.envs import SimulatorTorchRLEnv
from zoo.exogenous import CAPACITY, RecordedChanges
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

OUTSIDE = (1, 3)  # of four features


def series(steps: int = 50, seed: int = 0) -> torch.Tensor:
    """Two features whose values do not repeat, ``(steps, 2)``."""
    return torch.randn(steps, 2, generator=torch.Generator().manual_seed(seed)).cumsum(dim=0)


def made(record: torch.Tensor) -> Simulator:
    """A Simulator of four features that has learned nothing but how two of them changed."""
    torch.manual_seed(0)
    transition = TransitionModel(4, 1, members=3, hidden_sizes=(8, 8), exogenous=OUTSIDE)
    transition.set_range(torch.full((4,), -3.0), torch.full((4,), 3.0))
    assert transition.recorded_changes is not None
    transition.recorded_changes.adopt(record[:-1], record[1:])
    start = torch.zeros(1, 4)
    start[:, list(OUTSIDE)] = record[0]
    return Simulator(
        transition,
        RewardModel(4, 1, (8,)),
        TerminationModel(),
        StartStates.of(start),
        [-1.0],
        [1.0],
        observation_names=("level", "setpoint", "flow", "inflow"),
        horizon=30,
    ).eval()


def test_a_series_goes_on_to_the_last_bit_as_it_was_recorded() -> None:
    record, changes = series(), RecordedChanges(2)
    changes.adopt(record[:-1], record[1:])
    now = record[:1]
    for step in range(1, 50):
        now = changes(now, torch.rand(1, 2))
        assert torch.equal(now[0], record[step])


def test_a_setpoint_changes_as_often_as_it_did() -> None:
    record = torch.tensor([0.2] * 10 + [0.8] * 5 + [0.2]).unsqueeze(-1)
    changes = RecordedChanges(1)
    changes.adopt(record[:-1], record[1:])
    share = (torch.arange(100) / 100 + 0.005).unsqueeze(-1)
    from_low, from_high = (changes(torch.full((100, 1), value), share) for value in (0.2, 0.8))
    assert int((from_low == torch.tensor(0.8)).sum()) == 10 and int((from_low == torch.tensor(0.2)).sum()) == 90
    assert int((from_high == torch.tensor(0.2)).sum()) == 20 and int((from_high == torch.tensor(0.8)).sum()) == 80
    # What never was takes the change of what is nearest
    assert torch.allclose(changes(torch.tensor([[0.25]]), torch.tensor([[0.999]])), torch.tensor([[0.85]]))
    assert float(changes(torch.tensor([[7.0]]), torch.tensor([[0.1]]))) == 7.0


def test_what_was_never_recorded_together_goes_on_each_by_itself() -> None:
    record = series()
    changes = RecordedChanges(2)
    changes.adopt(record[:-1], record[1:])
    now = torch.stack([record[7, 0], record[30, 1]]).unsqueeze(0)
    for step in range(1, 10):
        now = changes(now, torch.rand(1, 2))
        assert torch.equal(now[0], torch.stack([record[7 + step, 0], record[30 + step, 1]]))
    beside = record[:1] + torch.tensor([[0.0, 1e-4]])  # told otherwise, a little
    assert torch.allclose(changes(beside, torch.rand(1, 2)), record[1:2] + torch.tensor([[0.0, 1e-4]]))


def test_more_than_there_is_room_for_is_left_out_and_nothing_at_all_is_refused() -> None:
    record, changes = torch.arange(CAPACITY + 3.0).unsqueeze(-1), RecordedChanges(1)
    changes.adopt(record[:-1], record[1:])
    assert bool(changes.keys.isfinite().all()) and float(changes.following.max()) == CAPACITY
    changes.adopt(record[:2], record[1:3])  # and what was there before is gone
    assert changes.count == 2
    assert float(changes(torch.tensor([[90.0]]), torch.tensor([[0.5]]))) == 91.0
    with pytest.raises(ValueError, match="no step is recorded"):
        changes.adopt(record[:0], record[:0])


def test_members_predict_no_change_of_it_and_learn_none() -> None:
    model = made(series()).transition
    mean, log_variance = model(torch.randn(5, 4), torch.randn(5, 1))
    outside, foreseen = list(OUTSIDE), model.foreseen
    assert foreseen == [0, 2]
    assert bool((mean[..., outside] == 0).all()) and bool((mean[..., foreseen] != 0).all())
    assert bool((log_variance[..., outside] == -10).all()) and bool((log_variance[..., foreseen] > -10).all())
    target = model.standardized_delta(torch.zeros(5, 4), torch.ones(5, 4))
    assert bool((target[:, outside] == 0).all()) and bool((target[:, foreseen] == 1).all())
    (mean.square() - log_variance).sum().backward()
    last = model.network.layers[-1].get_parameter("weight").grad
    assert last is not None
    columns = last.abs().sum(dim=(0, 1)).view(2, 4) > 0  # means and log-variances
    assert columns.tolist() == [[True, False, True, False]] * 2


def test_given_values_are_taken_as_they_are_and_the_rest_is_that_of_the_members() -> None:
    model = made(series()).transition
    observation, delta, given = torch.randn(5, 4), torch.randn(5, 4), torch.full((5, 2), 99.0)
    following = model.next_observation(observation, delta, exogenous=given)
    assert bool((following[:, list(OUTSIDE)] == 99).all())  # beyond the box as well: it is said, not foreseen
    plain = TransitionModel(4, 1, members=3, hidden_sizes=(8, 8))
    plain.set_range(torch.full((4,), -3.0), torch.full((4,), 3.0))
    expected = plain.next_observation(observation, delta)
    assert torch.equal(following[:, model.foreseen], expected[:, model.foreseen])


def test_candidates_differ_in_what_is_foreseen_and_share_the_world_around_them() -> None:
    record = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    simulator = made(record)
    observation = torch.zeros(40, 4)
    noise = torch.randn(3, 40, 4, generator=torch.Generator().manual_seed(1))
    members = torch.zeros(3, 40, dtype=torch.int64)
    following, _ = simulator.advance(observation, torch.zeros(40, 1), members, noise)
    assert following.shape == (3, 40, 4)
    assert torch.equal(following[0, :, 1], following[1, :, 1]) and torch.equal(following[0, :, 1], following[2, :, 1])
    assert set(following[0, :, 1].tolist()) == {1.0, 2.0}
    assert not torch.equal(following[0, :, 0], following[1, :, 0])


@pytest.mark.parametrize("aggregation", ["random_member", "fixed_member", "mean"])
@pytest.mark.parametrize("with_uncertainty", [True, False])
def test_episodes_of_a_simulator_go_as_recorded_whoever_moves_them(aggregation: str, with_uncertainty: bool) -> None:
    record = series()
    simulator = made(record)
    simulator.aggregation = aggregation
    random = torch.Generator().manual_seed(0)
    observation = simulator.reset(6, random)
    members = simulator.episode_members(6, random)
    for step in range(1, 20):
        observation, *_ = simulator.step(
            observation, torch.zeros(6, 1), random, with_uncertainty=with_uncertainty, members=members
        )
        assert torch.equal(observation[:, list(OUTSIDE)], record[step].expand(6, 2))
    steady, *_ = simulator.step(observation, torch.zeros(6, 1), deterministic=True)
    assert torch.equal(steady[:, list(OUTSIDE)], record[20].expand(6, 2))


def test_a_file_keeps_what_was_recorded(tmp_path: Path) -> None:
    simulator = made(series())
    simulator.save(tmp_path / "simulator.safetensors")
    read = Simulator.load(tmp_path / "simulator.safetensors")
    assert read.exogenous == OUTSIDE
    first, second = (
        each.step(each.reset(3), torch.zeros(3, 1), torch.Generator().manual_seed(0))[0] for each in (simulator, read)
    )
    assert torch.equal(first, second)
    kept = [each.transition.recorded_changes for each in (simulator, read)]
    assert kept[0] is not None and kept[1] is not None and kept[0].count == kept[1].count == 49
    for name, buffer in kept[0].named_buffers():
        assert torch.equal(buffer, kept[1].get_buffer(name))
    assert (tmp_path / "simulator.safetensors").stat().st_size < 20_000  # and no room that is left
    assert "exogenous" not in TransitionModel(4, 1).config  # which versions of before would not know


@pytest.mark.parametrize("features", [(4,), (-1,), (1, 1), (0, 1, 2, 3)])
def test_what_is_no_feature_or_leaves_none_is_refused(features: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"set from outside|exogenous features"):
        TransitionModel(4, 1, exogenous=features)


def test_an_environment_is_told_what_is_set_from_outside() -> None:
    env = gymnasium.make("zoo:OffSim/Simulator-v0", simulator=made(series()))
    assert env.get_wrapper_attr("exogenous_names") == ("setpoint", "inflow")
    plan = np.stack([np.linspace(0, 1, 5), np.full(5, np.nan)], axis=1)  # the inflow as recorded
    observation, _ = env.reset(seed=0, options={"exogenous": plan})
    seen = [observation]
    for _ in range(8):
        seen.append(env.step(np.zeros(1, dtype=np.float32))[0])
    column = np.array(seen)
    assert np.allclose(column[:, 1], [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0])  # the last one stays
    assert np.array_equal(column[:, 3], series()[:9, 1].numpy())
    observation, _ = env.reset(seed=0)  # and not in the next episode
    assert observation[1] == series()[0, 0]
    for wrong in (np.zeros((5, 3)), np.zeros(5), np.zeros((0, 2)), np.full((5, 2), np.inf)):
        with pytest.raises(ValueError, match="exogenous"):
            env.reset(options={"exogenous": wrong})


def test_a_plan_by_name_leaves_the_others_as_recorded() -> None:
    env = gymnasium.make("zoo:OffSim/Simulator-v0", simulator=made(series()))
    observation, _ = env.reset(seed=0, options={"exogenous": {"setpoint": [0.5, 0.25]}})
    seen = [observation] + [env.step(np.zeros(1, dtype=np.float32))[0] for _ in range(4)]
    column = np.array(seen)
    assert column[:, 1].tolist() == [0.5, 0.25, 0.25, 0.25, 0.25]
    assert np.array_equal(column[:, 3], series()[:5, 1].numpy())
    envs = gymnasium.make_vec("zoo:OffSim/Simulator-v0", num_envs=2, simulator=made(series()))
    observation, _ = envs.reset(options={"exogenous": {"inflow": np.array([[1.0], [2.0]]), "setpoint": [3.0, 4.0]}})
    assert observation[:, [1, 3]].tolist() == [[3.0, 1.0], [3.0, 2.0]]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"setpiont": [1.0]}, "did you mean 'setpoint'"),
        ({"level": 1.0}, "which is not set from outside"),
        ({"setpoint": 1.0}, r"has the shape \(\), where \(T,\) or \(1, T\) is expected"),
        ({"setpoint": [[1.0], [2.0]]}, r"has the shape \(2, 1\)"),
        ({"setpoint": [np.inf]}, "is not finite"),
        ({"setpoint": ["high"]}, r"exogenous\['setpoint'\] is no array of numbers"),
        ({}, "names nothing"),
        ("high", "exogenous is no array of numbers"),
    ],
)
def test_what_is_no_plan_is_refused(plan: object, message: str) -> None:
    env = gymnasium.make("zoo:OffSim/Simulator-v0", simulator=made(series()))
    with pytest.raises(ValueError, match=message):
        env.reset(options={"exogenous": plan})


def test_rows_of_a_vector_environment_are_told_apart() -> None:
    envs = gymnasium.make_vec("zoo:OffSim/Simulator-v0", num_envs=3, simulator=made(series()))
    plan = np.arange(3.0)[:, None, None] + np.zeros((3, 4, 2))
    observation, _ = envs.reset(seed=0, options={"exogenous": plan})
    assert observation[:, 1].tolist() == [0.0, 1.0, 2.0]
    masked = {"reset_mask": np.array([False, True, False]), "exogenous": np.full((6, 2), 7.0)}
    envs.reset(options=masked)
    for _ in range(5):
        observation, *_ = envs.step(np.zeros((3, 1), dtype=np.float32))
    assert observation[:, 3].tolist() == [0.0, 7.0, 2.0]
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    observation, *_ = envs.step(np.zeros((3, 1), dtype=np.float32))
    assert observation[0, 3] == series()[1, 1] and observation[1:, 3].tolist() == [7.0, 2.0]


def test_torchrl_is_told_too() -> None:
    env = SimulatorTorchRLEnv(made(series()), num_envs=2)
    plan = torch.arange(4.0).unsqueeze(-1).expand(4, 2)
    begun = env.reset(exogenous=plan)
    rolled = env.rollout(3, auto_reset=False, tensordict=begun)
    assert rolled["next", "observation"][:, :, 1].tolist() == [[1.0, 2.0, 3.0]] * 2


def test_nothing_can_be_set_where_nothing_is_set_from_outside() -> None:
    env = gymnasium.make("zoo:OffSim/hopper-mixed-v0")
    assert env.get_wrapper_attr("exogenous_names") == ()
    with pytest.raises(ValueError, match="nothing can be set from outside"):
        env.reset(options={"exogenous": np.zeros((5, 1))})


def days(count: int, steps: int = 96) -> torch.Tensor:
    """A temperature with one digit, whether somebody is in, and a setpoint, ``(count * steps, 3)``."""
    hour = torch.arange(steps) * 24 / steps
    made = []
    for day in range(count):
        noise = torch.randn(steps, generator=torch.Generator().manual_seed(day)).cumsum(dim=0) * 0.1
        temperature = ((5 + 6 * torch.sin((hour - 9) / 24 * 2 * torch.pi) + noise) * 10).round() / 10
        inside = ((hour >= 8) & (hour < 18)).float()
        made.append(torch.stack([temperature, inside, 17.0 + 4.0 * inside], dim=-1))
    return torch.cat(made)


def test_a_rounded_series_keeps_to_the_day_that_it_is_in() -> None:
    record, changes = days(8), RecordedChanges(3)
    changes.adopt(record[:-1], record[1:])
    assert 0.0 < float(changes.apart[0]) < 0.02 and changes.apart[1:].tolist() == [0.0, 0.0]
    now = record[96:97].expand(200, 3)  # as it was recorded, which several days have
    walked = [now]
    share = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(90):
        now = changes(now, share)
        walked.append(now)
    path = torch.stack(walked, dim=1)  # (200, 91, 3)
    assert bool(torch.isin(path[..., 1], torch.tensor([0.0, 1.0])).all())
    assert bool(torch.isin(path[..., 2], torch.tensor([17.0, 21.0])).all())
    windows = record.unfold(0, 91, 1).mT  # every stretch that was recorded, (N, 91, 3)
    distance = (path.unsqueeze(1) - windows).abs().amax(dim=(2, 3)).min(dim=1)
    assert float(distance.values.max()) < 0.02
    assert len(distance.indices.unique()) > 1  # and not always the same


def test_one_feature_of_a_rounded_series_is_followed_where_another_is_told() -> None:
    record, changes = days(8), RecordedChanges(3)
    changes.adopt(record[:-1], record[1:])
    now, path = record[100:101], []
    for _ in range(60):
        now = changes(torch.cat([now[:, :2], torch.full((1, 1), 25.0)], dim=-1), torch.rand(1, 3))
        path.append(now[0, 0])
    windows = record[:, 0].unfold(0, 60, 1)
    assert float((torch.stack(path) - windows).abs().amax(dim=1).min()) < 0.02


def test_what_leaves_no_room_between_its_values_stays_as_it_is() -> None:
    values = 1e6 + torch.arange(300.0).remainder(150) * 0.0625  # neighbours in single precision
    changes = RecordedChanges(1)
    changes.adopt(values[:-1].unsqueeze(-1), values[1:].unsqueeze(-1))
    assert float(changes.apart) == 0.0
    assert torch.equal(changes(values[3:4].unsqueeze(-1), torch.zeros(1, 1)), values[4:5].unsqueeze(-1))
