"""`offsim data check`: each defect is planted, found, and gone from the repaired copy."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from app import main as command
from app.data_checks.recording import Recorded
from zoo.episodes import random_actions, run_episodes
from zoo.tasks import get_task

Plant = Callable[[list[Recorded]], list[Recorded]]


def recorded(task_name: str, count: int, steps: int | None = None) -> list[Recorded]:
    """Episodes of uniformly random actions."""
    task = get_task(task_name)
    space = task.make().action_space
    assert isinstance(space, gymnasium.spaces.Box)
    kwargs = {} if steps is None else {"max_episode_steps": steps}
    result = []
    for number, episode in enumerate(run_episodes(lambda: task.make(**kwargs), random_actions(space, 0), count, 0)):
        flags = np.zeros((2, len(episode)), dtype=bool)
        flags[:, -1] = episode.terminated, episode.truncated
        result.append(Recorded(number, episode.observations, episode.actions, episode.rewards, *flags))
    return result


@pytest.fixture(scope="module")
def hopper() -> list[Recorded]:
    """Episodes that end by themselves."""
    return recorded("hopper", 30)


@pytest.fixture(scope="module")
def cheetah() -> list[Recorded]:
    """Episodes that a time limit ends."""
    return recorded("halfcheetah", 6, steps=60)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Record episodes as ``test/set-v0`` in a root of its own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))

    def write(episodes: Sequence[Recorded], environment: str | None = "Hopper-v5", bound: float = 1.0) -> str:
        size, actions = episodes[0].observations.shape[1], episodes[0].actions.shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers(
                "test/set-v0",
                [
                    EpisodeBuffer(
                        observations=episode.observations,
                        actions=episode.actions,
                        rewards=episode.rewards,
                        terminations=episode.terminations,
                        truncations=episode.truncations,
                    )
                    for episode in episodes
                ],
                env=None if environment is None else gymnasium.spec(environment),
                observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32),
                action_space=gymnasium.spaces.Box(-bound, bound, (actions,), np.float32),
                data_format="hdf5",
            )
        return "test/set-v0"

    return write


def check(dataset: str, tmp_path: Path, *more: str) -> dict[str, str]:
    """Levels of what is found, by name."""
    report = tmp_path / "report.json"
    status = command.main(["data", "check", dataset, "--json", str(report), *more])
    findings = {each["name"]: each["level"] for each in json.loads(report.read_text())["findings"]}
    assert status == int("fault" in findings.values())
    return findings


def test_nothing_is_wrong_with_what_the_real_task_says(
    write: Callable[..., str], hopper: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write(hopper), tmp_path) == {}
    said = capsys.readouterr().out
    assert "30 episodes" in said and "compared with Hopper-v5" in said and "0 faults, 0 notes" in said
    assert check("test/set-v0", tmp_path, "--fix", "test/set-v1") == {}
    assert not (tmp_path / "root" / "test" / "set-v1").exists()


def shifted(episodes: list[Recorded]) -> list[Recorded]:
    """Each row holds the action that was taken before it."""
    return [replace(each, actions=np.roll(each.actions, 1, axis=0)) for each in episodes]


def hurried(episodes: list[Recorded]) -> list[Recorded]:
    """Each row holds the action that was taken after it."""
    return [replace(each, actions=np.roll(each.actions, -1, axis=0)) for each in episodes]


def outside(episodes: list[Recorded]) -> list[Recorded]:
    return [replace(each, actions=each.actions * np.float32(1.2)) for each in episodes]


def timed(episodes: list[Recorded]) -> list[Recorded]:
    """The time that remains is one more feature."""
    return [
        replace(
            each,
            observations=np.append(
                each.observations, 1.0 - 0.001 * np.arange(len(each) + 1, dtype=np.float32)[:, None], axis=1
            ),
        )
        for each in episodes
    ]


def copied(episodes: list[Recorded]) -> list[Recorded]:
    return [*episodes, episodes[3]]


def unfinite(episodes: list[Recorded]) -> list[Recorded]:
    spoiled = episodes[2].observations.copy()
    spoiled[4, 1] = np.nan
    return [*episodes[:2], replace(episodes[2], observations=spoiled), *episodes[3:]]


def endless(episodes: list[Recorded]) -> list[Recorded]:
    return [replace(each, terminations=np.zeros_like(each.terminations)) for each in episodes]


def cut_short(episodes: list[Recorded]) -> list[Recorded]:
    """An end in the middle, where none is."""
    flags = episodes[0].terminations.copy()
    flags[5] = True
    return [replace(episodes[0], terminations=flags), *episodes[1:]]


HOPPER: dict[str, tuple[Plant, str]] = {
    "shifted actions": (shifted, "fault"),
    "actions outside the bounds": (outside, "fault"),
    "a clock among the observations": (timed, "fault"),
    "copied episodes": (copied, "fault"),
    "not finite": (unfinite, "fault"),
    "missing ends": (endless, "fault"),
    "steps after the end": (cut_short, "fault"),
}


@pytest.mark.parametrize("name", HOPPER)
def test_a_planted_fault_is_found_and_gone_from_the_copy(
    name: str, write: Callable[..., str], hopper: list[Recorded], tmp_path: Path
) -> None:
    plant, level = HOPPER[name]
    # Its observations are no longer Hopper's, which Minari would refuse
    dataset = write(plant(hopper), None if plant is timed else "Hopper-v5")
    original = (tmp_path / "root" / dataset / "data" / "main_data.hdf5").read_bytes()
    found = check(dataset, tmp_path, "--task", "hopper", "--fix", "test/repaired-v0")
    assert found[name] == level
    assert (tmp_path / "root" / dataset / "data" / "main_data.hdf5").read_bytes() == original
    left = check("test/repaired-v0", tmp_path, "--task", "hopper")
    assert not [each for each, level in left.items() if level == "fault" and each != "another system"], left
    metadata = json.loads((tmp_path / "root" / "test" / "repaired-v0" / "data" / "metadata.json").read_text())
    assert name in metadata["offsim"]["repairs"] and metadata["offsim"]["repaired_from"]["id"] == dataset


def in_another_unit(episodes: list[Recorded]) -> list[Recorded]:
    """The height of every other one in millimetres."""
    scale = np.ones(episodes[0].observations.shape[1], dtype=np.float32)
    scale[0] = 1000.0
    return [
        replace(each, observations=each.observations * (scale if index % 2 else 1))
        for index, each in enumerate(episodes)
    ]


def in_percent(episodes: list[Recorded]) -> list[Recorded]:
    return [replace(each, actions=each.actions * (100 if index == 1 else 1)) for index, each in enumerate(episodes)]


def hanging(episodes: list[Recorded]) -> list[Recorded]:
    """The speed of one joint is not measured from some step on, in every other episode."""
    changed = [each.observations.copy() for each in episodes]
    for observations in changed[::2]:
        observations[25:, 12] = observations[25, 12]
    return [replace(each, observations=own) for each, own in zip(episodes, changed, strict=True)]


def joined_up(episodes: list[Recorded]) -> list[Recorded]:
    """Two episodes as one, of which the second begins far from where the first ends."""
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    first, second = (each.steps(0, len(each)) for each in episodes[:2])
    second = replace(second, observations=second.observations + 20)
    open_end = replace(first, observations=first.observations[:-1], truncations=first.truncations & False)
    both = {name: np.concatenate([getattr(open_end, name), getattr(second, name)]) for name in names}
    return [replace(first, **both), *episodes[2:]]


SENSORS: dict[str, tuple[Plant, str]] = {
    "other units": (in_another_unit, "observation feature 0 is "),
    "sensors that hang": (hanging, "observation feature 12 changes at nearly every step, but stands still in 3 of 6"),
    "jumps": (joined_up, "first in episode 0, step 59"),
}


@pytest.mark.parametrize("name", SENSORS)
def test_what_only_sensors_and_loggers_do_is_noted(
    name: str,
    write: Callable[..., str],
    cheetah: list[Recorded],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant, text = SENSORS[name]
    running = [replace(each, observations=each.observations + np.float32(3.0)) for each in cheetah]
    assert check(write(plant(running), None), tmp_path) == {name: "note"}
    assert text in capsys.readouterr().out


def test_an_action_in_another_unit_is_noted(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write(in_percent(cheetah), None, bound=100.0), tmp_path) == {"other units": "note"}
    assert "action feature 0 is 10" in capsys.readouterr().out


def test_one_episode_in_another_unit_is_noted_however_large_others_are(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random, changed = np.random.default_rng(0), []
    for each, largest in zip(cheetah, (0.3, 0.5, 100.0, 0.4, 1.0, 0.35), strict=True):
        column = largest * random.random((len(each.observations), 1)).astype(np.float32)
        changed.append(replace(each, observations=np.append(each.observations, column, axis=1)))
    assert check(write(changed, None), tmp_path) == {"other units": "note"}
    assert "in 1 episode as in 5 more: a unit of which 100 make one?" in capsys.readouterr().out


def settings(episodes: list[Recorded], values: list[float], noise: float = 0.0) -> list[Recorded]:
    """One more feature, which has one value in each episode, and noise."""
    random, changed = np.random.default_rng(0), []
    for each, value in zip(episodes, values, strict=True):
        column = value + noise * random.standard_normal((len(each.observations), 1))
        changed.append(replace(each, observations=np.append(each.observations, column.astype(np.float32), axis=1)))
    return changed


@pytest.mark.parametrize("values", [[50.0, 60.0, 200.0] * 2, [1.0, 1.0, 1.0, 100.0, 1.0, 1.0], [0.0, 1.0] * 3])
def test_settings_of_episodes_are_no_units(
    values: list[float], write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path
) -> None:
    assert check(write(settings(cheetah, values), None), tmp_path) == {}


def test_two_operating_points_are_asked_for(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write(settings(cheetah, [20.0, 80.0] * 3, 1.0), None), tmp_path) == {"other units": "note"}
    assert "in 3 episodes and" in (said := capsys.readouterr().out) and "or another operating point?" in said


def test_what_a_sensor_measures_at_most_and_usual_pauses_are_no_hanging(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path
) -> None:
    changed = [each.observations.copy() for each in cheetah]
    for observations in changed:
        observations[:, 12] = observations[:, 12].clip(-50.0, 50.0)
        observations[20:45, 14] = observations[20, 14]  # in every episode, as an axis that waits
    changed[0][20:45, 12] = 50.0
    whole = [replace(each, observations=own) for each, own in zip(cheetah, changed, strict=True)]
    assert check(write(whole, None), tmp_path) == {}


def test_a_sensor_that_hangs_in_the_only_log_is_noted(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    observations = np.sin(np.arange(601)[:, None] / (7.0, 11.0, 17.0)) + 0.01 * random.standard_normal((601, 3))
    observations[300:330, 1] = observations[300, 1]
    flags = np.zeros((2, 600), dtype=bool)
    flags[1, -1] = True
    actions = random.uniform(-1.0, 1.0, (600, 1)).astype(np.float32)
    log = Recorded(0, observations.astype(np.float32), actions, np.zeros(600), *flags)
    assert check(write([log], None), tmp_path) == {"sensors that hang": "note"}
    assert "observation feature 1 changes at nearly every step, but stands still in 1 of 1" in capsys.readouterr().out


def test_an_angle_that_begins_anew_is_no_jump(write: Callable[..., str], tmp_path: Path) -> None:
    episodes, random = [], np.random.default_rng(0)
    for number in range(6):
        actions = random.uniform(-1.0, 1.0, (80, 1)).astype(np.float32)
        speed = 0.3 + 0.05 * random.standard_normal(81)
        angle = (np.cumsum(speed) + np.pi) % (2 * np.pi) - np.pi
        flags = np.zeros((2, 80), dtype=bool)
        flags[1, -1] = True
        observations = np.stack([angle, speed], axis=1).astype(np.float32)
        episodes.append(Recorded(number, observations, actions, np.zeros(80), *flags))
    assert "jumps" not in check(write(episodes, None), tmp_path)


def test_a_system_at_rest_has_no_sensor_that_hangs(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path
) -> None:
    """Positions stand still where speeds fade away, as numbers of single precision."""
    resting = cheetah[0].observations.copy()
    fading = (0.5 ** np.arange(len(resting) - 20))[:, None].astype(np.float32)
    resting[20:, :8], resting[20:, 8:] = resting[20, :8], resting[20, 8:] * fading
    assert check(write([replace(cheetah[0], observations=resting), *cheetah[1:]], None), tmp_path) == {}


def test_the_repaired_copy_of_shifted_actions_is_the_original(
    write: Callable[..., str], hopper: list[Recorded], tmp_path: Path
) -> None:
    check(write(shifted(hopper)), tmp_path, "--fix", "test/repaired-v0")
    with_steps = [each for each in hopper if len(each) > 1]
    episodes = list(minari.load_dataset("test/repaired-v0").iterate_episodes())
    assert len(episodes) == len(with_steps)
    for repaired, before in zip(episodes, with_steps, strict=True):
        np.testing.assert_array_equal(repaired.actions, before.actions[:-1])
        np.testing.assert_array_equal(repaired.observations, before.observations[:-1])
        np.testing.assert_array_equal(repaired.rewards, before.rewards[:-1])
        assert repaired.truncations[-1] and not repaired.terminations.any()  # the end itself is lost


def test_actions_of_the_row_after_are_found_too(
    write: Callable[..., str], hopper: list[Recorded], tmp_path: Path
) -> None:
    assert check(write(hurried(hopper)), tmp_path, "--fix", "test/repaired-v0")["shifted actions"] == "fault"
    assert check("test/repaired-v0", tmp_path) == {}


def test_time_limits_taken_for_ends(write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path) -> None:
    swapped = [replace(each, terminations=each.truncations, truncations=each.terminations) for each in cheetah]
    dataset = write(swapped, "HalfCheetah-v5")
    found = check(dataset, tmp_path, "--fix", "test/repaired-v0")
    assert found["ends that are none"] == "fault"  # not at the task's own limit of 1,000 steps
    assert check("test/repaired-v0", tmp_path) == {}
    repaired = list(minari.load_dataset("test/repaired-v0").iterate_episodes())
    assert all(each.truncations[-1] and not each.terminations.any() for each in repaired)


def test_time_limits_are_told_from_ends_without_a_task(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path
) -> None:
    swapped = [replace(each, terminations=each.truncations, truncations=each.terminations) for each in cheetah]
    found = check(write(swapped, None), tmp_path, "--fix", "test/repaired-v0")
    assert found == {"time limits recorded as ends": "fault"}
    assert check("test/repaired-v0", tmp_path) == {}


def test_shifted_actions_are_noted_without_a_task(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write(shifted(cheetah), None), tmp_path) == {"shifted actions": "note"}
    assert "of the next row" in capsys.readouterr().out
    check("test/set-v0", tmp_path, "--fix", "test/set-v1")
    assert "only suspected: shifted actions" in capsys.readouterr().out
    assert not (tmp_path / "root" / "test" / "set-v1").exists()
    check("test/set-v0", tmp_path, "--fix", "test/set-v1", "--suspected")
    assert check("test/set-v1", tmp_path) == {}


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_linear_controller_without_noise_is_not_taken_for_a_shift(
    write: Callable[..., str], tmp_path: Path, noise: float
) -> None:
    random = np.random.default_rng(0)
    episodes = []
    for number in range(20):
        states, actions = [random.normal(size=2)], []
        for _ in range(100):
            actions.append(np.array([-states[-1][0] - 1.2 * states[-1][1]]))
            following = states[-1] + 0.1 * np.array([states[-1][1], actions[-1][0] - 0.2 * states[-1][1]])
            states.append(following + noise * random.normal(size=2))
        ends = np.arange(100) == 99
        episodes.append(Recorded(number, np.array(states), np.array(actions), np.zeros(100), ends & False, ends))
    assert check(write(episodes, None, bound=10.0), tmp_path) == {}


def test_a_controller_that_follows_a_setpoint_is_not_taken_for_a_shift(
    write: Callable[..., str], tmp_path: Path
) -> None:
    """Its next action tells the new setpoint, more than its own tells of the level."""
    random = np.random.default_rng(0)
    episodes = []
    for number in range(20):
        level, setpoint, total, states, actions = 0.5, 0.5, 0.0, [], []
        for step in range(101):
            setpoint = random.uniform(0.2, 0.8) if step % 20 == 10 else setpoint
            states.append(np.array([setpoint, level]) + 0.002 * random.normal(size=2))
            total += 0.02 * (setpoint - level)
            actions.append(np.clip(np.array([0.5 + 2.0 * (setpoint - level) + total]), 0.0, 1.0))
            level += 0.1 * (actions[-1][0] - np.sqrt(max(level, 0.0)) * 0.7)
        ends = np.arange(100) == 99
        episodes.append(Recorded(number, np.array(states), np.array(actions[:-1]), np.zeros(100), ends & False, ends))
    assert check(write(episodes, None), tmp_path) == {}


def test_data_of_another_system_and_of_another_version(
    write: Callable[..., str], hopper: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    noisy = [
        replace(each, observations=each.observations + rng.normal(0, 0.3, each.observations.shape)) for each in hopper
    ]
    assert check(write(noisy), tmp_path)["another system"] == "fault"
    assert "steps of Hopper-v5 miss recorded ones by" in capsys.readouterr().out
    found = check("test/set-v0", tmp_path, "--task", "walker2d")
    assert found["other spaces"] == "fault"


def test_data_of_an_older_version_is_told_from_data_of_another_system(
    write: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = gymnasium.make("Walker2d-v4", max_episode_steps=300, terminate_when_unhealthy=False)
    space = environment.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    (episode,) = run_episodes(lambda: environment, random_actions(space, 0), 1, 0)
    flags = np.zeros((2, len(episode)), dtype=bool)
    old = Recorded(0, episode.observations, episode.actions, episode.rewards, *flags)
    found = check(write([old], "Walker2d-v4"), tmp_path, "--task", "walker2d")
    assert found["another version"] == "fault" and found["recorded elsewhere"] == "note"
    assert "those of Walker2d-v4 by" in capsys.readouterr().out


def test_rewards_tell_whether_actions_were_clipped(
    write: Callable[..., str], hopper: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild, environment = [], get_task("hopper").make()
    for episode in hopper:
        # Taken as 1, recorded as 1.5: the dynamics clip what the reward may not
        environment.reset(seed=episode.number)
        observations, rewards = [environment.unwrapped._get_obs()], []  # type: ignore[attr-defined]
        for action in np.sign(episode.actions):
            following, reward, terminated, *_ = environment.step(action)
            observations.append(following)
            rewards.append(reward)
            if terminated:
                break
        steps = len(rewards)
        flags = np.zeros((2, steps), dtype=bool)
        flags[:, -1] = terminated, not terminated
        actions = 1.5 * np.sign(episode.actions[:steps])
        wild.append(Recorded(0, np.array(observations), actions, np.array(rewards), *flags))
    found = check(write(wild), tmp_path)
    assert found["actions outside the bounds"] == "fault" and found["rewards of actions outside"] == "note"
    assert "those of actions clipped to their bounds" in capsys.readouterr().out
    doubled = [replace(each, rewards=2 * each.rewards) for each in hopper]
    minari.delete_dataset("test/set-v0")
    assert check(write(doubled), tmp_path) == {"other rewards": "note"}


def test_constant_features_episodes_without_an_end_and_copied_transitions_are_noted(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path
) -> None:
    still = []
    for each in cheetah:
        observations = each.observations.copy()
        observations[:, 5] = 1.0
        still.append(replace(each, observations=observations, truncations=np.zeros_like(each.truncations)))
    still.append(replace(still[0].steps(0, 40), number=6))
    found = check(write(still, None), tmp_path)
    assert found == {"constant observation": "note", "no end": "note", "copied transitions": "note"}


def test_ends_that_are_early_are_noted_where_they_are_the_exception(
    write: Callable[..., str], cheetah: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ending(episode: Recorded, number: int, steps: int) -> Recorded:
        short = replace(episode.steps(0, steps), number=number)
        flags = np.arange(steps) == steps - 1
        return replace(short, terminations=flags, truncations=np.zeros(steps, dtype=bool))

    found = check(write([*cheetah, ending(cheetah[0], 6, 20)], None), tmp_path)
    assert found["early ends"] == "note"
    assert "episode 6: end after 20 steps, where the 7 episodes have 54 on average" in capsys.readouterr().out
    minari.delete_dataset("test/set-v0")
    often = [*cheetah, *(ending(each, 6 + index, 20 + index) for index, each in enumerate(cheetah[:3]))]
    assert "early ends" not in check(write(often, None), tmp_path)


def test_ids_that_cannot_be_written_are_refused(
    write: Callable[..., str], hopper: list[Recorded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write(copied(hopper))
    assert command.main(["data", "check", dataset, "--fix", dataset]) == 2
    assert "exists" in capsys.readouterr().err
    assert command.main(["data", "check", dataset, "--fix", "../elsewhere"]) == 2
    assert command.main(["data", "check", "test/none-v0"]) == 2
