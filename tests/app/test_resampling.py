"""Logs that are brought to equal intervals."""

from __future__ import annotations

from pathlib import Path

import minari
import numpy as np
import pytest

from app import main as command
from app.errors import UserError
from app.log_resampling import refuse_resampling, resampled
from app.tables import Layout, Log, read_log

LAYOUT = Layout(observations=["level", "pump"], actions=["valve"], time="t", terminated="stop", missing="split")


def log_of(path: Path, *rows: str) -> Log:
    path.write_text("\n".join(["t,level,pump,valve,stop", *rows]))
    return read_log(path, LAYOUT)


def test_states_are_on_lines_between_rows_and_actions_as_they_were_last(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log.csv", "0,1.5,0,0.1,0", "1.5,4.5,1,0.2,0", "2,5.5,1,0.3,0", "4,9.5,0,0.4,1")
    found = resampled(log, 1.0)
    assert found.observations.tolist() == [[1.5, 0], [3.5, 0], [5.5, 1], [7.5, 1], [9.5, 0]]
    assert found.actions[:, 0].tolist() == [0.1, 0.1, 0.3, 0.3, 0.4]
    assert found.ends.tolist() == [False] * 4 + [True]
    assert found.times is not None and found.times.tolist() == [0, 1, 2, 3, 4]
    assert [rows.tolist() for rows in found.episodes] == [[0, 1, 2, 3, 4]]


def test_equal_intervals_stay_what_they_are(tmp_path: Path) -> None:
    rows = [f"{0.1 * step},{step}.25,1,0.{step},0" for step in range(8)]
    log = log_of(tmp_path / "log.csv", *rows)
    found = resampled(log, 0.1)
    np.testing.assert_allclose(found.observations, log.observations)
    np.testing.assert_array_equal(found.actions, log.actions)


def test_nothing_is_made_up_where_rows_or_numbers_are_missing(tmp_path: Path) -> None:
    rows = ["0,1.5,0,0,0", "1,2.5,0,0,0", "2,3.5,0,0,0", "9,4.5,0,0,0", "10,5.5,0,0,0", "11,,0,0,0", "12,7.5,0,0,0"]
    found = resampled(log_of(tmp_path / "log.csv", *rows), 0.5)
    assert [len(each) for each in found.episodes] == [5, 3]
    assert found.observations[found.episodes[1], 0].tolist() == [4.5, 5.0, 5.5]
    with pytest.raises(UserError, match="no row has a whole state and action"):
        resampled(log_of(tmp_path / "log.csv", "0,,0,0,0", "1,,0,0,0"), 0.5)


def test_logs_of_other_sample_times_are_one_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    files = []
    for name, step in (("fast", 1.0), ("slow", 3.0)):
        times = step * np.arange(21)
        lines = [f"{time},{np.sin(time / 7.0)},{np.cos(time / 9.0) / 2.0}" for time in times]
        (tmp_path / f"{name}.csv").write_text("\n".join(["t,level,valve", *lines]))
        files.append(str(tmp_path / f"{name}.csv"))
    words = ["import", *files, "--id", "tank/both-v0", "--observations", "level", "--actions", "valve", "--time", "t"]
    assert command.main(words) == 2
    assert command.main([*words, "--resample", "2"]) == 0
    assert "21 rows at their times are 11 at equal ones" in (said := capsys.readouterr().out)
    assert "21 rows at their times are 31 at equal ones" in said
    first, second = minari.load_dataset("tank/both-v0").iterate_episodes()
    assert (len(first), len(second)) == (10, 30)
    np.testing.assert_allclose(first.observations[:, 0], np.sin(2.0 * np.arange(11) / 7.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("interval", "changes", "message"),
    [
        (0.0, {}, "--resample is 0.0: give the time of a step, above 0"),
        (float("nan"), {}, "--resample is nan"),
        (1.0, {"time": None}, "name the column of times with --time"),
        (1.0, {"reward": "paid"}, "--resample and --reward do not go together"),
        (1.0, {"next_observations": ["after"]}, "--resample and --next-observations do not go together"),
    ],
)
def test_what_cannot_be_brought_to_other_times_is_refused(
    interval: float, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        refuse_resampling(interval, Layout(**{**vars(LAYOUT), **changes}))  # type: ignore[arg-type]
