"""Logs as they come: what is a state, what follows it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import UserError
from app.log_episodes import read_episodes
from app.tables import Layout

PLAIN = Layout(observations=["level", "flow"], actions=["valve"])
RUNS = Layout(observations=["level", "flow"], actions=["valve"], episode="run", terminated="stop", reward="paid")
TABLE = """run,level,flow,valve,stop,paid
7,1,10,0.1,0,5
7,2,20,0.2,0,6
7,3,30,0.3,1,7
b,4,40,0.4,0,8
b,5,50,0.5,0,9
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(TABLE)
    return path


def test_a_row_is_a_state_and_its_action_and_the_last_row_a_state_alone(log: Path) -> None:
    first, second = read_episodes(log, RUNS)
    assert first.observations.tolist() == [[1, 10], [2, 20], [3, 30]]
    np.testing.assert_allclose(first.actions, [[0.1], [0.2]])
    assert first.rewards.tolist() == [5, 6]
    assert first.terminated and not first.truncated
    assert second.observations.tolist() == [[4, 40], [5, 50]] and len(second) == 1
    assert second.truncated and not second.terminated


def test_without_a_column_of_episodes_a_file_is_one(log: Path) -> None:
    (only,) = read_episodes(log, PLAIN)
    assert len(only) == 4 and only.truncated and (only.rewards == 0).all()


def test_rows_may_hold_what_follows(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "s": np.arange(8.0).reshape(4, 2),
        "then": np.arange(8.0).reshape(4, 2) + 2.0,
        "a": np.ones(4),
        "episode": np.array([0, 0, 1, 1]),
        "done": np.array([False, True, False, False]),
    }
    np.savez(tmp_path / "log.npz", **arrays)
    layout = Layout(["s"], ["a"], next_observations=["then"], episode="episode", terminated="done")
    first, second = read_episodes(tmp_path / "log.npz", layout)
    assert first.observations.tolist() == [[0, 1], [2, 3], [4, 5]] and len(first.actions) == 2 and first.terminated
    assert second.observations.tolist() == [[4, 5], [6, 7], [8, 9]] and second.truncated


def test_tabs_and_marks_of_spreadsheets_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("\ufeff" + TABLE.replace(",", "\t"), encoding="utf-8")
    assert len(read_episodes(path, RUNS)) == 2


def test_the_action_of_the_last_row_may_be_missing_and_truth_values_are_words(log: Path) -> None:
    text = TABLE.replace("0.3,1,7", ",True,").replace("0.5,0,9", ",FALSE,").replace(",0,", ",false,")
    log.write_text(text)
    first, second = read_episodes(log, RUNS)
    assert first.terminated and not second.terminated
    np.testing.assert_allclose(np.concatenate([first.actions, second.actions]), [[0.1], [0.2], [0.4]])


def test_a_table_may_be_written_with_decimal_commas(log: Path) -> None:
    log.write_text("run;level;flow;valve;stop;paid\n7;1;1,5e1;-0,25;0;,5\n7;2;20;0,2;1;6\n", encoding="utf-8")
    (only,) = read_episodes(log, RUNS)
    assert only.observations.tolist() == [[1, 15], [2, 20]] and only.actions.tolist() == [[-0.25]]
    assert only.rewards.tolist() == [0.5]
    log.write_text("run;level;flow;valve;stop;paid;°C\n", encoding="latin-1")
    with pytest.raises(UserError, match="not in UTF-8"):
        read_episodes(log, RUNS)


def timed(log: Path, times: list[str], **given: Any) -> list[Any]:
    """The levels of each episode of a log whose rows have these times, and levels from 0 on."""
    rows = [f"{time},{index},{index / 10}" for index, time in enumerate(times)]
    log.write_text("\n".join(["time,level,valve", *rows]))
    layout = Layout(["level"], ["valve"], time="time", **given)
    return [episode.observations[:, 0].tolist() for episode in read_episodes(log, layout)]


def test_rows_are_taken_in_the_order_of_time_and_split_where_some_are_left_out(log: Path) -> None:
    assert timed(log, ["3", "2", "1", "0"]) == [[3, 2, 1, 0]]
    times = [f"{second}" for second in (*range(12), *range(40, 52), 60)]
    with pytest.warns(UserWarning, match="2 instead of 1.*1 of 25 rows are in no episode"):
        assert timed(log, times) == [[*range(12)], [*range(12, 24)]]  # a single row at the end is no step
    dates = ["2024-05-01T23:59:58", "2024-05-01 23:59:59", "2024-05-02T00:00:00.1", "2024-05-02T00:00:01+00:00"]
    assert timed(log, dates) == [[0, 1, 2, 3]]
    np.savez(log.with_suffix(".npz"), t=np.array(dates[:3], dtype="datetime64[ms]"), s=np.arange(3.0), a=np.ones(3))
    (only,) = read_episodes(log.with_suffix(".npz"), Layout(["s"], ["a"], time="t"))
    assert len(only) == 2
    digits = [f"20240501{hour:02}59{second:02}" for hour, second in ((11, 57), (11, 58), (11, 59), (12, 0))]
    digits[-1] = "20240501120000"  # of numbers the last one would be far from the others
    assert timed(log, digits) == [[0, 1, 2, 3]]
    nanoseconds = [f"{1714521600000000000 + 100 * step}" for step in range(4)]
    assert timed(log, nanoseconds) == [[0, 1, 2, 3]]


def test_dates_may_be_written_in_any_form_that_one_tells(log: Path) -> None:
    european = ["31.12.2024 23:59:59", "01.01.2025 00:00:00", "01.01.2025 00:00:01"]
    assert timed(log, european, time_format="%d.%m.%Y %H:%M:%S") == [[0, 1, 2]]
    american = ["2/1/2024 11:59:59 PM", "2/2/2024 12:00:00 AM", "2/2/2024 12:00:01 AM"]
    assert timed(log, american, time_format="%m/%d/%Y %I:%M:%S %p") == [[0, 1, 2]]
    with pytest.raises(UserError, match=r"row 1 \(line 2\): time is '31.12.2024 23:59:59'.*--time-format '%d"):
        timed(log, european)
    with pytest.raises(UserError, match=r"row 1 .*is not of the form '%Y'"):
        timed(log, european, time_format="%Y")


@pytest.mark.parametrize(("encoding", "told"), [("cp1252", "cp1252"), ("utf-16", "utf-8"), ("utf-8-sig", "utf-8")])
def test_files_of_other_encodings_are_read(log: Path, encoding: str, told: str) -> None:
    log.write_text("Füllstand;Ventil °\n1,5;0\n2;1\n", encoding=encoding)
    (only,) = read_episodes(log, Layout(["Füllstand"], ["Ventil °"], encoding=told))
    assert only.observations[:, 0].tolist() == [1.5, 2.0] and only.actions[:, 0].tolist() == [0.0]


def test_a_row_too_many_is_no_step(log: Path) -> None:
    times = [*map(str, range(20)), "7.01"]
    with pytest.warns(UserWarning, match="2 instead of 1"):
        assert timed(log, times) == [[*range(8)], [20, *range(8, 20)]]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["0", "1", "1", "2"], r"row 3 \(line 4\): it is of the same time as row 2"),
        (["0", "1", "noon"], "row 3 .*neither a number nor a time such as"),
        (["0", "1", "nan"], "row 3 .*time is not finite"),
        (
            ["0", "1", "3", "6", "7", "12"],
            "60% of its rows follow one another after another time than the usual 2, after 1 to 5",
        ),
    ],
)
def test_times_that_say_no_order_and_no_step_are_refused(log: Path, times: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        timed(log, times)


def test_episodes_may_be_split_where_numbers_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    cells = ["0,0,0", "1,1,", "2,2,0", ",3,0", "4,4,0", "5,5,1", "6,,1", "7,7,1", "8,8,1"]
    path.write_text("\n".join(["level,flow,valve", *cells]))
    layout = Layout(["level", "flow"], ["valve"], missing="split")
    with pytest.warns(UserWarning, match="3 instead of 1"):
        parts = read_episodes(path, layout)
    # What follows a row without an action is not known; one without a state is no row; a row alone is no step
    assert [part.observations[:, 0].tolist() for part in parts] == [[0, 1], [4, 5], [7, 8]]
    assert [part.actions[:, 0].tolist() for part in parts] == [[0], [0], [1]]
    assert all(part.truncated for part in parts)


def test_rows_and_ends_that_are_lost_are_told(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    layout = Layout(["level"], ["valve"], reward="paid", terminated="done", missing="split")
    rows = ["0,0,1,0", "1,1,2,0", "2,0,3,0", ",,,", ",,,", ",1,,1"]
    path.write_text("\n".join(["level,valve,paid,done", *rows]))
    with pytest.warns(UserWarning, match="3 of 6 rows are in no episode; ends for good that are lost with them: 1"):
        (only,) = read_episodes(path, layout)
    assert only.observations[:, 0].tolist() == [0, 1, 2] and only.rewards.tolist() == [1, 2] and only.truncated
    path.write_text("\n".join(["run,level,valve", "a,0,0", "a,1,0", "b,,0", "b,1,0"]))
    with pytest.warns(UserWarning, match="2 of 4 rows are in no episode"):
        (only,) = read_episodes(path, Layout(["level"], ["valve"], episode="run", missing="split"))


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    times = np.array(["2024-05-01T00:00:00", "NaT", "2024-05-01T00:00:02"], dtype="datetime64[s]")
    np.savez(tmp_path / "log.npz", t=times, s=np.arange(3.0), a=np.ones(3))
    with pytest.raises(UserError, match="row 2: t is missing"):
        read_episodes(tmp_path / "log.npz", Layout(["s"], ["a"], time="t"))


def test_only_the_last_part_of_an_episode_ends_it(tmp_path: Path) -> None:
    following = np.array([1.0, 2.0, np.nan, 4.0])
    np.savez(tmp_path / "log.npz", s=np.arange(4.0), then=following, a=np.ones(4), done=np.array([0, 0, 0, 1]))
    layout = Layout(["s"], ["a"], next_observations=["then"], terminated="done", missing="split")
    with pytest.warns(UserWarning, match="2 instead of 1"):
        first, second = read_episodes(tmp_path / "log.npz", layout)
    assert first.observations.tolist() == [[0], [1], [2]] and first.truncated
    assert second.observations.tolist() == [[3], [4]] and second.terminated
    np.savez(tmp_path / "log.npz", s=np.full(3, np.nan), a=np.ones(3))
    with pytest.raises(UserError, match="none of its rows follows another"):
        read_episodes(tmp_path / "log.npz", Layout(["s"], ["a"], missing="split"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("level", "levle", "has no 'level': did you mean 'levle'"),
        ("level", "LEVEL", "has no 'level': did you mean 'LEVEL'"),
        ("2,20", "2,", r"row 2 \(line 3\): flow is missing: repair it, or have the episode split there"),
        ("2,20", "2,x", r"row 2 \(line 3\): flow is 'x', which is no number"),
        ("2,20", "2,nan", r"row 2 \(line 3\): flow is missing"),
        ("2,20", "2,inf", r"row 2 \(line 3\): flow is not finite"),
        ("0.2,0,6", ",0,6", r"row 2 \(line 3\): valve is missing"),
        ("0.2,0,6", "0.2,,6", r"row 2 \(line 3\): stop is missing: repair it"),
        ("0.2,0,6", "0.2,0,", r"row 2 \(line 3\): paid is missing: repair it"),
        ("2,20", "2,20,20", r"row 2 \(line 3\): it has 7 cells, where the header names 6"),
        ("7,2,20", "\n7,2,20", r"row 2 \(line 3\): the line is empty"),
        ("0.2,0,6", "0.2,1,6", "episode 7: it ends in row 2 and goes on"),
        ("b,5", "c,5", "episode b: one row is no step"),
        ("run,level", "level,level", "its first line has to name every column once"),
    ],
)
def test_what_cannot_be_used_is_named(log: Path, before: str, after: str, message: str) -> None:
    log.write_text(TABLE.replace(before, after, 1))
    with pytest.raises(UserError, match=message) as refused:
        read_episodes(log, RUNS)
    assert str(log) in str(refused.value)


def test_numbers_of_episodes_may_be_written_in_any_way_but_not_left_out(log: Path) -> None:
    lines = TABLE.replace("b,", "8,").splitlines()
    lines[2] = lines[2].replace("7,", "7.0,")
    log.write_text("\n".join([*lines, "", ""]))  # and end with empty lines
    assert [len(each) for each in read_episodes(log, RUNS)] == [2, 1]
    for empty in ("", " ", "nan"):
        log.write_text(TABLE.replace("b,4", f"{empty},4"))
        with pytest.raises(UserError, match=r"row 4 \(line 5\): run is empty"):
            read_episodes(log, RUNS)


def test_long_numbers_of_episodes_are_not_rounded(tmp_path: Path) -> None:
    names = ("202601011200000001", "202601011200000002", "1e2", "100", "1e9999999")  # the last ones are hexadecimal
    rows = [f"{name},{step},0,0,0,0" for name in names for step in range(3)]
    (tmp_path / "log.CSV").write_text("\n".join([TABLE.splitlines()[0], *rows]))
    assert len(read_episodes(tmp_path / "log.CSV", RUNS)) == len(names)
    (tmp_path / "log.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"log.npy is no .csv, .tsv or .npz file"):
        read_episodes(tmp_path / "log.npy", RUNS)


def test_rows_that_do_not_follow_one_another_are_refused(tmp_path: Path) -> None:
    states = np.arange(4.0).reshape(4, 1)
    np.savez(tmp_path / "log.npz", s=states, then=states + np.array([[1.0], [1.5], [1.0], [1.0]]), a=np.ones(4))
    with pytest.raises(UserError, match="row 3 does not begin where row 2 ends"):
        read_episodes(tmp_path / "log.npz", Layout(["s"], ["a"], next_observations=["then"]))


def test_arrays_of_other_lengths_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", s=np.ones((4, 2)), a=np.ones(3))
    with pytest.raises(UserError, match="differ in length"):
        read_episodes(tmp_path / "log.npz", Layout(["s"], ["a"]))


def test_an_archive_that_would_run_something_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", s=np.array([{"a": 1}], dtype=object), a=np.ones(1))
    with pytest.raises(UserError, match="cannot read"):
        read_episodes(tmp_path / "log.npz", Layout(["s"], ["a"]))


def test_rows_of_runs_may_be_mixed(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", s=np.arange(6.0), a=np.ones(6), unit=np.array([3, 1, 3, 1, 1, 3]))
    first, second = read_episodes(tmp_path / "log.npz", Layout(["s"], ["a"], episode="unit"))
    assert first.observations.flatten().tolist() == [0, 2, 5] and second.observations.flatten().tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"s": np.full((4, 1), 1e39)}, "s is not finite"),
        ({"s": np.ones((4, 1), dtype=complex)}, "is no column of real numbers"),
        ({"s": np.ones((4, 1, 2))}, "is no column of real numbers"),
        ({"s": np.array([["1", "x"]] * 4)}, "row 1: s is"),
        ({"s": np.float64(1.0)}, "s holds no rows"),
        ({"s": np.ones((0, 2)), "a": np.ones(0), "run": np.ones(0)}, "s holds no rows"),
        ({"run": np.ones((4, 2))}, "run has to be a single column"),
    ],
)
def test_odd_arrays_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "log.npz", **{"s": np.ones((4, 2)), "a": np.ones(4), "run": np.ones(4)} | changed)
    with pytest.raises(UserError, match=message):
        read_episodes(tmp_path / "log.npz", Layout(["s"], ["a"], episode="run"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 800), put=st.binary(max_size=6), cut=st.booleans())
def test_an_archive_with_any_bytes_in_it_is_read_or_refused(tmp_path: Path, place: int, put: bytes, cut: bool) -> None:
    path = tmp_path / "log.npz"
    np.savez(path, s=np.ones((4, 2)), a=np.ones(4))
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + put + (b"" if cut else whole[place + len(put) :]))
    try:
        read_episodes(path, Layout(["s"], ["a"]))
    except UserError as error:
        assert str(path) in str(error)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(TABLE)), put=st.binary(max_size=6), suffix=st.sampled_from([".csv", ".tsv"]))
def test_a_log_with_any_bytes_in_it_is_read_or_refused(tmp_path: Path, place: int, put: bytes, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    path.write_bytes(TABLE.encode()[:place] + put + TABLE.encode()[place:])
    try:
        assert all(np.isfinite(episode.observations).all() for episode in read_episodes(path, RUNS))
    except UserError as error:
        assert str(path) in str(error)


def test_words_in_the_place_of_numbers_are_missing_where_episodes_may_be_split(log: Path) -> None:
    log.write_text(TABLE.replace("2,20", "2,Bad Input", 1))
    with pytest.raises(UserError, match="flow is 'Bad Input', which is no number: repair it, or have such cells taken"):
        read_episodes(log, RUNS)
    split = Layout(**{**vars(RUNS), "missing": "split"})
    with pytest.warns(UserWarning) as warned:
        episodes = read_episodes(log, split)
    assert "1 of 5 cells of flow hold no number, such as 'Bad Input': taken for missing" in str(warned[0].message)
    assert [len(each) for each in episodes] == [1]
    log.write_text(TABLE.replace("20,", "x,", 1).replace("30,", "x,", 1).replace("40,", "x,", 1))
    with pytest.raises(UserError, match="which is no number"):  # more words than numbers: another column was meant
        read_episodes(log, split)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("level [m, abs];flow;valve\n0,5;1,5;0\n1,5;2,5;1\n", 0.5),
        ("level;flow;valve\n0,5;1,5;off\n1,5;2,5;ON\n", 0.5),
        ('"level; m",flow,valve\n0.5,1.5,0\n1.5,2.5,1\n', 0.5),
    ],
)
def test_what_is_between_cells_is_what_header_and_rows_agree_on(log: Path, text: str, level: float) -> None:
    log.write_text(text)
    name = text.split("\n")[0].split(";flow")[0].split(",flow")[0].strip('"')
    (episode,) = read_episodes(log, Layout(observations=[name, "flow"], actions=["valve"]))
    assert episode.observations.tolist() == [[level, 1.5], [1.5, 2.5]]
