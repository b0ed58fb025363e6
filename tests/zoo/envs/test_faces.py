"""The faces of one Simulator: each passes its library's own checks, and all tell the same story."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict.nn import TensorDictModule
from torchrl.envs import EnvBase
from torchrl.envs.utils import check_env_specs

from zoo import TASKS, ModelFileError, Simulator, get_task
from zoo.envs import SimulatorEnv, SimulatorTorchRLEnv, SimulatorVectorEnv
from zoo.row_random import RowRandom
from zoo.start_states import StartStates

SEED, ROWS, STEPS = 11, 5, 60
CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-5}  # batches of other sizes round differently


def actions() -> torch.Tensor:
    """Of every step and row, some of them beyond the bounds."""
    return 1.5 * torch.rand(STEPS, ROWS, 3, generator=torch.Generator().manual_seed(1)) - 0.75


def test_gymnasium_finds_nothing_wrong(make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*observation space (min|max)imum value is -?infinity.*")
        check_env(SimulatorEnv(make()), skip_render_check=True)


def test_gymnasium_expects_no_pictures_of_an_unknown_task(make: Any) -> None:
    simulator = make(task=None, horizon=7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*observation space (min|max)imum value is -?infinity.*")
        check_env(gymnasium.make("zoo:OffSim/Simulator-v0", simulator=simulator).unwrapped)
    assert SimulatorVectorEnv(simulator, np.int64(2)).metadata["render_modes"] == []


def test_torchrl_finds_nothing_wrong(make: Any) -> None:
    for uncertainty in (True, False):
        check_env_specs(SimulatorTorchRLEnv(make(), num_envs=3, uncertainty=uncertainty))


@pytest.mark.parametrize("aggregation", ["random_member", "fixed_member", "mean"])
@pytest.mark.parametrize("uncertainty", [True, False])
def test_the_faces_agree(make: Any, aggregation: str, uncertainty: bool) -> None:
    simulator = make(aggregation=aggregation)
    given = actions()

    def story() -> dict[str, list[torch.Tensor]]:
        return {name: [] for name in ("observation", "reward", "terminated")}

    def tell(told: dict[str, list[torch.Tensor]], *columns: Any) -> None:
        for name, column in zip(told, columns, strict=True):
            told[name].append(torch.as_tensor(np.asarray(column)).float().reshape(ROWS, -1))

    # What is plain has no episodes: after an end it goes on, so nothing ends here
    options: dict[str, Any] = {"horizon": None, "uncertainty": uncertainty}
    simulator.termination = type(make(task=None).termination)()
    plain, random = story(), RowRandom(range(SEED, SEED + ROWS))
    random.begin_episode(torch.ones(ROWS, dtype=torch.bool))
    observation = simulator.reset(ROWS, random)
    members = simulator.episode_members(ROWS, random)
    for action in given:
        observation, reward, terminated, _ = simulator.step(
            observation, action.clamp(-1, 1), random, members=members, with_uncertainty=uncertainty
        )
        tell(plain, observation, reward - simulator.end_worth(), terminated)

    single, environments = story(), [SimulatorEnv(simulator, **options) for _ in range(ROWS)]
    for row, environment in enumerate(environments):
        environment.reset(seed=SEED + row)
    for action in given:
        steps = [environment.step(each.numpy()) for environment, each in zip(environments, action, strict=True)]
        tell(single, *zip(*[(o, r, t) for o, r, t, _, _ in steps], strict=True))

    vector, batch = story(), SimulatorVectorEnv(simulator, ROWS, **options)
    batch.reset(seed=SEED)
    for action in given:
        tell(vector, *batch.step(action.numpy())[:3])

    torchrl, environment = story(), SimulatorTorchRLEnv(simulator, ROWS, **options)
    environment.set_seed(SEED)
    current = environment.reset()
    for action in given:
        current = environment.step(current.set("action", action))["next"]
        tell(torchrl, *(current[name] for name in torchrl))

    for told in (single, vector, torchrl):
        for name, columns in plain.items():
            torch.testing.assert_close(torch.stack(told[name]), torch.stack(columns), **CLOSE)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("aggregation", ["random_member", "fixed_member"])
def test_rows_begin_anew_as_gymnasium_has_it(make: Any, mode: AutoresetMode, aggregation: str) -> None:
    simulator, horizon = make(aggregation=aggregation), 17
    ours = SimulatorVectorEnv(simulator, ROWS, autoreset_mode=mode, horizon=horizon)
    theirs = SyncVectorEnv([lambda: SimulatorEnv(simulator, horizon=horizon) for _ in range(ROWS)], autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] == mode
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    first, second = ours.reset(seed=SEED), theirs.reset(seed=SEED)
    np.testing.assert_allclose(first[0], second[0])
    ends = np.zeros(2, dtype=int)
    for action in actions():
        mine, expected = ours.step(action.numpy()), theirs.step(action.numpy())
        for own, other in zip(mine[:4], expected[:4], strict=True):
            np.testing.assert_allclose(own, other, **CLOSE)
        compare(mine[4], expected[4])
        ended = mine[2] | mine[3]
        ends += [mine[2].sum(), mine[3].sum()]
        if mode == AutoresetMode.DISABLED and ended.any():
            with pytest.raises(RuntimeError, match="call reset"):
                ours.step(action.numpy())
            own, other = (each.reset(options={"reset_mask": ended.copy()})[0] for each in (ours, theirs))
            np.testing.assert_allclose(own, other, **CLOSE)
    assert (ends > 2).all()  # of both kinds


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Nested information, as far as masks say that there is any."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name.startswith("_"):
            np.testing.assert_array_equal(ours[name], value)
        elif isinstance(value, dict):
            compare(ours[name], value)
        else:
            for row in np.flatnonzero(theirs[f"_{name}"]):
                np.testing.assert_allclose(ours[name][row], value[row], rtol=1e-3, atol=1e-4)


def test_torchrl_begins_single_rows_anew(make: Any) -> None:
    simulator = make()
    environment = SimulatorTorchRLEnv(simulator, ROWS, horizon=17)
    environment.set_seed(SEED)
    given = iter(actions())
    act = TensorDictModule(lambda observation: next(given), in_keys=["observation"], out_keys=["action"])
    rollout = environment.rollout(STEPS, act, break_when_any_done=False)
    twin = SimulatorVectorEnv(simulator, ROWS, autoreset_mode=AutoresetMode.SAME_STEP, horizon=17)
    observation, _ = twin.reset(seed=SEED)
    for step, action in enumerate(actions()):
        torch.testing.assert_close(rollout["observation"][:, step].double(), torch.as_tensor(observation), **CLOSE)
        observation, _, terminated, truncated, _ = twin.step(action.numpy())
        np.testing.assert_array_equal(rollout["next", "done"][:, step, 0], terminated | truncated)
    assert bool(rollout["next", "terminated"].any()) and bool(rollout["next", "truncated"].any())


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_spaces_are_those_of_the_real_task(task: str) -> None:
    facts = get_task(task)
    real = facts.make()
    try:
        bounds = real.action_space
        assert isinstance(bounds, gymnasium.spaces.Box)
        simulator = sized(facts.observation_size, bounds.low.tolist(), bounds.high.tolist(), task)
        imagined = SimulatorEnv(simulator)
        assert imagined.observation_space == real.observation_space
        assert imagined.action_space == real.action_space
    finally:
        real.close()


def sized(observation_size: int, low: list[float], high: list[float], task: str | None) -> Simulator:
    from zoo.reward import RewardModel
    from zoo.start_states import StartStates
    from zoo.termination import TerminationModel
    from zoo.transition import TransitionModel

    transition = TransitionModel(observation_size, len(low), members=2, hidden_sizes=(4,))
    starts = StartStates.of(torch.zeros(1, observation_size))
    return Simulator(
        transition, RewardModel(observation_size, len(low), (4,)), TerminationModel(), starts, low, high, task=task
    )


def test_a_system_of_ones_own_has_plain_spaces_and_no_horizon(make: Any) -> None:
    environment = SimulatorEnv(make(task=None))
    assert environment.observation_space.dtype == np.float32
    environment.reset(seed=0)
    assert not any(any(environment.step(np.zeros(3, np.float32))[2:4]) for _ in range(1100))


def test_the_shorter_of_two_horizons_counts(make: Any) -> None:
    environment = SimulatorVectorEnv(make(task=None, horizon=3), 2, max_episode_steps=50)
    environment.reset(seed=SEED)
    zero = np.zeros((2, 3), np.float32)
    assert [environment.step(zero)[3].all() for _ in range(3)] == [False, False, True]


def test_a_single_member_agrees_with_itself(make: Any) -> None:
    simulator = make()
    simulator.uncertainty_quantiles.zero_()
    environment = SimulatorEnv(simulator, penalty=0.5)
    environment.reset(seed=SEED)
    _, reward, *_, info = environment.step(np.zeros(3, np.float32))
    assert np.isfinite(reward) and np.isfinite(info["uncertainty"])


def test_episodes_begin_in_demonstrated_states_if_wanted(make: Any, tmp_path: Path) -> None:
    demonstrated = StartStates.of(torch.full((3, 11), 1.0) + torch.arange(3).unsqueeze(-1), "demonstrations")
    make(demonstrated_states=demonstrated).save(tmp_path / "simulator.safetensors")
    starts = {}
    for share in (0.0, 0.5, 1.0):
        environment = SimulatorVectorEnv(tmp_path / "simulator.safetensors", 400, demonstrated_starts=share)
        starts[share] = environment.reset(seed=SEED)[0]
    found = {share: np.isin(states[:, -1], [1.0, 2.0, 3.0]) for share, states in starts.items()}
    assert found[1.0].all() and not found[0.0].any() and 0.4 < found[0.5].mean() < 0.6
    np.testing.assert_array_equal(starts[0.5][~found[0.5]], starts[0.0][~found[0.5]])
    single = SimulatorEnv(tmp_path / "simulator.safetensors", demonstrated_starts=0.5)
    rows = [single.reset(seed=SEED + row)[0] for row in range(8)]
    np.testing.assert_array_equal(rows, starts[0.5][:8])


def test_pushes_throw_actions_to_their_bounds_for_three_steps(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = np.array([0.5, -0.2, 0.1], np.float32)

    def taken(environment: Any, *shape: int) -> torch.Tensor:
        """Which steps were pushed, by row."""
        seen: list[torch.Tensor] = []
        simulator, step = environment.episodes.simulator, environment.episodes.simulator.step
        monkeypatch.setattr(simulator, "step", lambda o, a, *r, **k: (seen.append(a), step(o, a, *r, **k))[1])
        simulator.termination = type(make(task=None).termination)()
        environment.reset(seed=SEED)
        for _ in range(60):
            environment.step(np.broadcast_to(given, (*shape, 3)))
        actions = torch.stack(seen)
        pushed = (actions != torch.as_tensor(given)).any(dim=-1)
        assert (actions[pushed].abs() == 1.0).all()
        return pushed

    batch = taken(SimulatorVectorEnv(make(), 300, pushes=0.1), 300)
    assert float(batch.float().mean()) == pytest.approx(0.3 / 1.3, abs=0.02)
    for row in batch.T[:20]:
        lengths = [len(each) for each in "".join("01"[int(step)] for step in row).strip("0").split("0") if each]
        assert all(length % 3 == 0 for length in lengths[:-1])
    single = taken(SimulatorEnv(make(), pushes=0.1))
    torch.testing.assert_close(single[:, 0], batch[:, 0])
    assert not taken(SimulatorVectorEnv(make(), 5), 5).any()


def test_options(make: Any) -> None:
    far = np.ones((2, 3), dtype=np.float32)

    def second(**options: Any) -> tuple[Any, ...]:
        environment = SimulatorVectorEnv(make(), 2, **options)
        environment.reset(seed=SEED)
        environment.step(far)
        return environment.step(far)

    usual = second()
    assert usual[4]["uncertainty"].shape == (2,)
    assert second(uncertainty=False)[4] == {}
    doubt = usual[4]["uncertainty"]
    assert (doubt > 1.0).any()
    np.testing.assert_allclose(second(penalty=0.5)[1], usual[1] - 0.5 * np.maximum(doubt - 1.0, 0.0), rtol=1e-5)
    assert second(penalty=0.5, uncertainty=False)[4] == {} == second(fading=0.5, uncertainty=False)[4]
    faded = usual[1] * np.exp(-0.5 * np.maximum(doubt - 1.0, 0.0))
    np.testing.assert_allclose(second(fading=0.5)[1], np.minimum(usual[1], faded), rtol=1e-5)
    assert not second(horizon=3)[3].any() and second(horizon=2)[3].all()
    assert second(max_episode_steps=2)[3].all() and second(max_episode_steps=2, horizon=3)[3].all()
    assert second(max_episode_steps=3, horizon=2)[3].all() and not second(max_episode_steps=-1)[3].any()
    mean = second(deterministic=True)
    np.testing.assert_array_equal(mean[0], second(deterministic=True)[0])
    assert not np.allclose(mean[0], usual[0])
    own = make().noise_scale
    for options in ({}, {"uncertainty": False}):
        np.testing.assert_array_equal(second(noise_scale=own, **options)[0], second(**options)[0])
        assert not np.allclose(second(noise_scale=own + 1.0, **options)[0], usual[0])


@pytest.mark.parametrize("aggregation", ["fixed_member", "mean"])
def test_who_moves_an_episode_may_be_chosen(make: Any, aggregation: str) -> None:
    simulator = make()

    def third(simulator: Any, **options: Any) -> Any:
        environment = SimulatorVectorEnv(simulator, 50, **options)
        environment.reset(seed=SEED)
        return [environment.step(np.ones((50, 3), np.float32))[0] for _ in range(3)][-1]

    chosen = third(simulator, aggregation=aggregation)
    np.testing.assert_array_equal(chosen, third(make(aggregation=aggregation)))
    assert not np.allclose(chosen, third(simulator))
    assert simulator.aggregation == "random_member"  # others may use it


@pytest.mark.parametrize(("low", "end", "zero"), [(-0.3, None, -0.3), (-0.3, -0.1, -0.1), (-np.inf, None, 0.0)])
def test_the_reward_is_counted_from_what_ending_is_worth(make: Any, low: float, end: float | None, zero: float) -> None:
    simulator = make(end_reward=end)
    simulator.reward.low.fill_(low)
    environment = SimulatorVectorEnv(simulator, 4, deterministic=True)
    first, _ = environment.reset(seed=SEED)
    action = np.zeros((4, 3), np.float32)
    _, paid, *_ = environment.step(action)
    start = torch.as_tensor(first, dtype=torch.float32)
    _, reward, *_ = simulator.step(start, torch.as_tensor(action), deterministic=True)
    np.testing.assert_allclose(paid, reward.numpy() - zero, rtol=1e-5, atol=1e-6)


def test_a_reward_that_was_never_trained_is_warned_of(make: Any, tmp_path: Path) -> None:
    make(reward_learned=False, end_reward=-0.5).save(tmp_path / "simulator.safetensors")
    with pytest.warns(UserWarning, match="was never trained: it says nothing"):
        environment = SimulatorEnv(tmp_path)
    assert environment.episodes.simulator.end_worth() == -0.5


def test_uncertainty_is_in_medians_of_the_data(make: Any) -> None:
    simulator = make()
    environment = SimulatorEnv(simulator)
    first, _ = environment.reset(seed=SEED)
    *_, info = environment.step(np.zeros(3, np.float32))
    raw = simulator.measure_uncertainty(torch.as_tensor(first, dtype=torch.float32).unsqueeze(0), torch.zeros(1, 3))
    assert info["uncertainty"] == pytest.approx(float(raw) / simulator.uncertainty_quantile(0.5), rel=1e-5)


def test_actions_are_brought_within_the_bounds_and_nonsense_is_refused(make: Any) -> None:
    environment = SimulatorEnv(make())
    following = []
    for size in (1.0, 7.0):
        environment.reset(seed=SEED)
        following.append(environment.step(np.full(3, size, np.float32))[0])
    np.testing.assert_array_equal(*following)
    with pytest.raises(ValueError, match="not a number"):
        environment.step(np.array([0.0, np.nan, 0.0], np.float32))
    with pytest.raises(ValueError, match=r"shape \(4,\), where \(3,\) is expected"):
        environment.step(np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "0 episodes cannot run"),
        ({"num_envs": 2.5}, "2.5 episodes cannot run"),
        ({"deterministic": "no"}, "deterministic is 'no': give True or False"),
        ({"uncertainty": 1}, "uncertainty is 1: give True or False"),
        ({"horizon": 0}, "a horizon of 0 steps"),
        ({"penalty": -1.0}, "would pay for uncertainty"),
        ({"penalty": float("nan")}, "or is no number"),
        ({"penalty": None}, "a penalty of None"),
        ({"fading": -1.0}, "a fading of -1.0 would pay for uncertainty"),
        ({"noise_scale": -1.0}, "a noise_scale of -1.0 is none"),
        ({"noise_scale": "much"}, "a noise_scale of much is none"),
        ({"aggregation": "all"}, "unknown aggregation 'all': choose one of random_member"),
        ({"demonstrated_starts": 1.5}, "a share of 1.5 demonstrated_starts is none"),
        ({"demonstrated_starts": None}, "a share of None"),
        ({"pushes": 2}, "a share of 2 pushes is none"),
        ({"demonstrated_starts": 0.5}, "holds no demonstrated states: leave the option out"),
        ({"horizon": True}, "a horizon of True steps"),
        ({"horizon": "tasks"}, "a horizon of 'tasks' steps"),
        ({"render_mode": "ansi"}, "unknown render_mode 'ansi': choose one of rgb_array"),
    ],
)
def test_impossible_options_are_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulatorVectorEnv(make(), **options)


def test_a_simulator_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # `make demo` leaves runs/demo where it is called
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(ValueError, match="say simulator="):
            make("zoo:OffSim/Simulator-v0")
    with pytest.raises(ModelFileError, match="no file or folder runs/demo here, and no entry runs/demo"):
        SimulatorEnv("runs/demo")


def test_numpy_numbers_are_numbers(make: Any) -> None:
    single, rows = SimulatorEnv(make(), horizon=np.int64(2)), SimulatorVectorEnv(make(), 1, horizon=np.int64(2))
    assert single.episodes.horizon == rows.episodes.horizon == 2
    first, _ = single.reset(seed=np.int64(SEED))  # type: ignore[arg-type]
    for seed in (np.int64(SEED), [SEED], np.array([SEED])):
        np.testing.assert_allclose(rows.reset(seed=seed)[0][0], first, **CLOSE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a seed is at most"):
        rows.reset(seed=[2**63])


def test_an_action_that_is_not_heeded_may_be_anything(make: Any) -> None:
    rows = SimulatorVectorEnv(make(), 2, horizon=1)
    rows.reset(seed=SEED)
    rows.step(np.zeros((2, 3), np.float32))
    rows.step(np.full((2, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="not a number"):
        rows.step(np.full((2, 3), np.nan, np.float32))


def test_nothing_steps_before_it_begins(make: Any) -> None:
    with pytest.raises(RuntimeError, match="call reset before the first step"):
        SimulatorEnv(make()).step(np.zeros(3, np.float32))
    environment = SimulatorTorchRLEnv(make())
    with pytest.raises(RuntimeError, match="call reset before the first step"):
        environment.step(environment.rand_action())


def test_torchrl_takes_double_precision(make: Any) -> None:
    environment = SimulatorTorchRLEnv(make(), num_envs=2)
    environment.set_seed(SEED)
    told = environment.step(environment.reset().set("action", torch.zeros(2, 3, dtype=torch.float64)))
    assert told["next", "observation"].dtype == torch.float32


def test_a_simulator_stays_where_it_is_and_its_environment_moves(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = make(aggregation="fixed_member")
    environment = SimulatorTorchRLEnv(simulator, num_envs=2)
    environment.reset()
    episodes = environment.episodes
    assert episodes.simulator is simulator  # no copy where none is needed

    def to_meta(self: EnvBase, device: str) -> EnvBase:  # stands for another device, where specs cannot be
        self._device = torch.device(device)
        return self

    monkeypatch.setattr(EnvBase, "to", to_meta)
    assert environment.to("meta") is environment
    places = [episodes.low, episodes.observation, episodes.steps, episodes.members, episodes.random.seeds]
    assert {place.device.type for place in [*places, *episodes.simulator.parameters()]} == {"meta"}
    assert {each.device.type for each in simulator.parameters()} == {"cpu"}


def test_as_many_seeds_as_rows_are_needed(make: Any) -> None:
    with pytest.raises(ValueError, match="2 seeds were given for 3 environments"):
        SimulatorVectorEnv(make(), 3).reset(seed=[1, 2])


def test_without_a_seed_no_two_environments_are_alike(make: Any) -> None:
    first, second = (SimulatorVectorEnv(make(), 8).reset()[0] for _ in range(2))
    assert not np.array_equal(first, second)


def test_a_reset_without_a_seed_goes_on_to_another_episode_and_one_with_it_comes_back(make: Any) -> None:
    environment = SimulatorEnv(make())

    def end(**how: Any) -> Any:
        environment.reset(**how)
        return [environment.step(np.zeros(3, np.float32))[0] for _ in range(3)][-1]

    first, other, again, other_again = end(seed=4), end(), end(seed=4), end()
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(other, other_again)


def test_gymnasium_makes_one_without_an_import_of_ours(path: Path) -> None:
    program = f"""
import gymnasium
single = gymnasium.make("zoo:OffSim/Simulator-v0", simulator={str(path)!r}, horizon=4)
single.reset(seed=0)
print([single.step(single.action_space.sample())[3] for _ in range(4)], single.spec.id)
many = gymnasium.make_vec("OffSim/Simulator-v0", num_envs=3, simulator={str(path)!r}, max_episode_steps=2)
many.reset(seed=0)
print([many.step(many.action_space.sample())[3].tolist() for _ in range(2)], type(many).__name__)
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.stdout.splitlines() == [
        "[False, False, False, True] OffSim/Simulator-v0",
        "[[False, False, False], [True, True, True]] SimulatorVectorEnv",
    ], done.stderr


def test_features_have_the_names_of_task_or_data(make: Any) -> None:
    for env in (SimulatorEnv(make()), SimulatorVectorEnv(make(), 2)):
        assert env.observation_names[0] == "height (m)" and env.action_names == ()
    own = SimulatorEnv(make(task=None, horizon=5, observation_names=tuple("abcdefghijk"), action_names=("x", "y", "z")))
    assert own.observation_names == tuple("abcdefghijk") and own.action_names == ("x", "y", "z")
    assert SimulatorEnv(make(task=None, horizon=5)).observation_names == ()
