"""Each thing that is refused before training, with the place where it was found."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces

from datamodules import DataError, TransitionDataModule


def change(record: Any, index: int, name: str, edit: Callable[[Any], Any]) -> None:
    """Replace one array of one episode of test/set-v0 in the file."""
    with h5py.File(record.file("test/set-v0"), "a") as file:
        group = file[f"episode_{index}"]
        values = edit(group[name][()])
        del group[name]
        if values is not None:
            group.create_dataset(name, data=values)


def put(step: int, feature: int, value: float) -> Callable[[Any], Any]:
    def edit(values: Any) -> Any:
        values[step, feature] = value
        return values

    return edit


def flag(step: int) -> Callable[[Any], Any]:
    def edit(values: Any) -> Any:
        values[step] = True
        return values

    return edit


@pytest.mark.parametrize(
    ("index", "name", "edit", "message"),
    [
        (1, "observations", put(2, 1, np.nan), r"test/set-v0, episode 1, step 2: observation feature 1 is nan"),
        (0, "observations", put(3, 0, -np.inf), r"episode 0, step 3: observation feature 0 is -inf"),
        (0, "observations", put(0, 0, 1e300), r"episode 0, step 0: observation feature 0 is inf"),
        (1, "actions", put(3, 0, np.inf), r"test/set-v0, episode 1, step 3: action feature 0 is inf"),
        (1, "observations", lambda values: values[:-1], "episode 1: observations have shape .*last observation"),
        (1, "observations", lambda values: values[:, :2], "episode 1: observations have shape"),
        (0, "actions", lambda values: values[:-1], "episode 0: observations have shape"),
        (0, "actions", lambda values: values[:, :1], "episode 0: actions have shape"),
        (0, "truncations", lambda values: values[:-1], "episode 0: truncations have shape"),
        (1, "terminations", flag(1), "episode 1, step 1: the episode ends here, yet 2 more steps follow"),
        (1, "truncations", flag(0), "episode 1, step 0: the episode ends here, yet 3 more steps follow"),
        (0, "actions", lambda values: None, "episode 0 has no array 'actions'"),
        (0, "terminations", lambda values: None, "episode 0 has no array 'terminations'"),
    ],
)
def test_an_unusable_episode_is_refused(
    index: int, name: str, edit: Callable[[Any], Any], message: str, record: Any
) -> None:
    record("test/set-v0", [4, 4])
    change(record, index, name, edit)
    with pytest.raises(DataError, match=message):
        TransitionDataModule("test/set-v0").setup()


def test_an_empty_episode_is_refused(record: Any) -> None:
    record("test/set-v0", [4, 4])
    for name, rows in (("observations", 1), ("actions", 0), ("terminations", 0), ("truncations", 0)):
        change(record, 1, name, lambda values, rows=rows: values[:rows])
    with pytest.raises(DataError, match="test/set-v0, episode 1: the episode has no steps"):
        TransitionDataModule("test/set-v0").setup()


def test_a_file_without_the_promised_episodes_is_refused(record: Any) -> None:
    with h5py.File(record.file(record("test/set-v0", [4, 4])), "a") as file:
        del file["episode_1"]
    with pytest.raises(DataError, match="test/set-v0: no episode 1"):
        TransitionDataModule("test/set-v0").setup()


def test_a_file_that_is_no_hdf5_is_refused(record: Any) -> None:
    record.file(record("test/set-v0", [4])).write_bytes(b"not a dataset")
    with pytest.raises(DataError, match="test/set-v0: cannot open"):
        TransitionDataModule("test/set-v0").setup()


def test_a_dataset_without_episodes_is_refused(record: Any) -> None:
    record.change_metadata(record("test/set-v0", [4]), total_episodes=0)
    with pytest.raises(DataError, match="test/set-v0 has no episodes"):
        TransitionDataModule("test/set-v0")


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (spaces.Box(-np.inf, np.inf, (4,), np.float64), None, r"different observation spaces \(3 and 4 features\)"),
        (spaces.Box(-9.0, 9.0, (3,), np.float64), None, r"different observation spaces \(bounds \[-inf, inf\]"),
        (None, spaces.Box(-1.0, 1.0, (3,), np.float32), r"different action spaces \(2 and 3 features\)"),
        (None, spaces.Box(-2.0, 1.0, (2,), np.float32), r"actions alone \(bounds \[-1.0, 1.0\] and \[-2.0, 1.0\]"),
    ],
)
def test_spaces_that_differ_are_refused(observation_space: Any, action_space: Any, message: str, record: Any) -> None:
    record("test/expert-v0", [4])
    record("test/diverse-v0", [4], observation_space, action_space)
    with pytest.raises(DataError, match=message) as caught:
        TransitionDataModule("test/expert-v0", diverse="test/diverse-v0")
    assert "test/expert-v0 and test/diverse-v0" in str(caught.value)


def test_precision_of_a_space_is_no_difference(record: Any) -> None:
    record("test/expert-v0", [4])
    record("test/diverse-v0", [4], spaces.Box(-np.inf, np.inf, (3,), np.float32), first_number=1)
    assert TransitionDataModule("test/expert-v0", diverse="test/diverse-v0").observation_size == 3


def test_different_environments_are_pointed_out(record: Any) -> None:
    record("test/expert-v0", [4])
    record("test/diverse-v0", [4], environment="Hopper-v4", first_number=1)
    with pytest.warns(UserWarning, match="test/expert-v0 of Hopper-v5, test/diverse-v0 of Hopper-v4"):
        TransitionDataModule("test/expert-v0", diverse="test/diverse-v0")


@pytest.mark.parametrize("wanted", [0, -1, 4])
def test_more_demonstrations_than_there_are_is_refused(wanted: int, record: Any) -> None:
    record("test/set-v0", [4, 4, 4])
    with pytest.raises(DataError, match=f"demonstrations is {wanted}, but test/set-v0 has 3 episodes"):
        TransitionDataModule("test/set-v0", demonstrations=wanted)


def test_a_copy_of_the_demonstrations_is_no_diverse_data(record: Any) -> None:
    record("test/expert-v0", [4, 3])
    record("test/copy-v0", [4, 3])
    with pytest.raises(DataError, match="test/expert-v0 and test/copy-v0 hold the same data"):
        TransitionDataModule("test/expert-v0", diverse="test/copy-v0")
    record("test/other-v0", [4, 3], first_number=2)
    TransitionDataModule("test/expert-v0", diverse="test/other-v0")


def test_a_dataset_named_twice_is_refused(record: Any) -> None:
    record("test/set-v0", [4, 4, 4])
    with pytest.raises(DataError, match="test/set-v0 is named more than once"):
        TransitionDataModule("test/set-v0", diverse=["test/set-v0"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"streams": {"diverse": 4}}, "there is no diverse data: name some in data.diverse"),
        ({"streams": {"experts": 4}}, "unknown data stream .'experts'."),
        ({"streams": {}}, "unknown data stream"),
        ({"streams": {"expert": 0}}, "0 rows of 'expert'"),
        ({"batches_per_step": 0}, "batches_per_step"),
        ({"held_out_fraction": 1.0}, "held_out_fraction"),
        ({"diverse_fraction": 0.0}, "diverse_fraction"),
        ({"out_of_bounds": "drop"}, "choose one of keep, clip"),
        ({"memory_limit_mb": -1}, "memory_limit_mb"),
        ({"expert": []}, "no expert data"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(setting: dict[str, Any], message: str, record: Any) -> None:
    record("test/set-v0", [4])
    with pytest.raises(DataError, match=message):
        TransitionDataModule(**{"expert": "test/set-v0", **setting})


@pytest.mark.parametrize("memory_limit_mb", [4096, 0])
def test_actions_outside_the_bounds_are_counted_and_kept_or_clipped(memory_limit_mb: int, record: Any) -> None:
    record("test/set-v0", [4, 4])
    change(record, 1, "actions", put(2, 0, 1.5))
    change(record, 0, "actions", put(1, 1, -7.0))
    for out_of_bounds, extreme in (("keep", (-7.0, 1.5)), ("clip", (-1.0, 1.0))):
        for _ in range(2):  # the second time from the cache, where there is one
            data = TransitionDataModule("test/set-v0", out_of_bounds=out_of_bounds, memory_limit_mb=memory_limit_mb)
            with pytest.warns(UserWarning, match=r"test/set-v0: 2 of 8 rows \(25.00%\)"):
                data.setup()
            actions = data.expert_train["action"]
            assert (float(actions.min()), float(actions.max())) == extreme


def test_actions_at_the_bounds_are_within(record: Any) -> None:
    record("test/set-v0", [4, 4])
    change(record, 1, "actions", put(2, 0, 1.0))
    data = TransitionDataModule("test/set-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup()
    assert torch.isfinite(data.expert_train["action"]).all()


def test_changes_that_single_precision_loses_are_named(record: Any) -> None:
    def raised(by: float) -> Callable[[Any], Any]:
        return lambda values: values + np.eye(values.shape[1])[2] * by

    record("test/set-v0", [40])
    change(record, 0, "observations", raised(1e6))
    data = TransitionDataModule("test/set-v0")
    with pytest.warns(UserWarning, match=r"these observation features .*: 2 \(up to 1e\+06, changes by 1\.\d\)\. Take"):
        data.setup()
    change(record, 0, "observations", raised(1e4 - 1e6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransitionDataModule("test/set-v0").setup()


def failing(episode: Any, numbers: range, failed: set[int]) -> list[Any]:
    """Episodes of 20 steps, of which some fail after 4."""
    return [episode(n, 4, True, False) if n in failed else episode(n, 20) for n in numbers]


def early_ends(*arguments: Any, **settings: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TransitionDataModule(*arguments, **settings).setup()
    return [str(each.message) for each in caught if "early" in str(each.message)]


@pytest.mark.parametrize("settings", [{}, {"memory_limit_mb": 0}, {"expert_keep_every": 3}])
def test_demonstrations_that_end_early_are_worth_a_word(settings: dict[str, Any], record: Any, episode: Any) -> None:
    record("test/some-v0", failing(episode, range(10), {3, 7}))
    record("test/other-v0", failing(episode, range(10), set()))
    record("test/mixed-v0", failing(episode, range(10), {2}))  # where it is none
    said = early_ends(["test/other-v0", "test/some-v0"], diverse="test/mixed-v0", held_out_fraction=0.0, **settings)
    assert said == [
        "dataset test/some-v0: 2 of 10 demonstrations end early, episode 3 after 4, episode 7 after 4 steps, where "
        "episodes have 17 on average. If that is a failure, the policy will imitate it: leave them out"
    ]


def test_the_demonstration_that_ends_early_is_worth_a_word(record: Any, episode: Any) -> None:
    record("test/some-v0", failing(episode, range(6), {0}))
    said = [early_ends("test/some-v0", demonstrations=1, seed=seed) for seed in range(12)]
    assert [] in said
    (text,) = next(each for each in said if each)
    assert "the demonstration ends early, episode 0 after 4 steps" in text and text.endswith(
        "draws other demonstrations"
    )


def test_where_episodes_end_anyway_or_are_cut_off_nothing_is_said(record: Any, episode: Any) -> None:
    record("test/cut-v0", [episode(0, 4), *(episode(number, 20) for number in range(1, 6))])
    record("test/goal-v0", [episode(number, 4 if number == 0 else 20, True, False) for number in range(6)])
    record("test/late-v0", [episode(0, 15, True, False), *(episode(number, 20) for number in range(1, 6))])
    assert not any(early_ends(dataset) for dataset in ("test/cut-v0", "test/goal-v0", "test/late-v0"))
