"""From the logs of a system that nobody else knows to an environment and a policy."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest

from app import main as command
from datamodules import DataError, TransitionDataModule
from datamodules.sources import resolve
from zoo import load

COLUMNS = ["--observations", "level", "flow", "--actions", "valve", "--episode", "run", "--terminated", "spilt"]


def write_log(path: Path, runs: int, seed: int, good: bool) -> None:
    """A tank: a valve changes the flow and the flow the level, which must not exceed 2."""
    random, lines = np.random.default_rng(seed), ["run,level,flow,valve,spilt"]
    for run in range(runs):
        level, flow = random.uniform(0.2, 1.8), 0.0
        for step in range(40):
            valve = np.clip(1.5 - level, 0.0, 1.0) if good else random.uniform(0.3, 1.0)
            spilt = level > 2.0
            lines.append(f"{run},{level},{flow},{valve},{int(spilt)}")
            if spilt and step:
                break
            flow = 0.8 * flow + 0.4 * (valve - 0.5)
            level += 0.3 * flow
    path.write_text("\n".join(lines))


def in_millimetres(table: str, run: str) -> str:
    """The same log with the level of one run in another unit."""
    header, *lines = table.splitlines()
    cells = [line.split(",") for line in lines]
    return "\n".join(
        [header, *(",".join([r, str(1000 * float(v)) if r == run else v, *rest]) for r, v, *rest in cells)]
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.setenv("OFFSIM_ZOO", str(tmp_path / "own"))
    return tmp_path


def imported(root: Path, kind: str, *words: str) -> int:
    return command.main(["import", str(root / f"{kind}.csv"), "--id", f"tank/{kind}-v0", *COLUMNS, *words])


BOUNDS = ("--action-low", "0", "--action-high", "1")


def test_logs_become_an_environment_and_a_policy(
    root: Path, tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, runs in (("good", 8), ("other", 12)):
        write_log(root / f"{kind}.csv", runs, runs, kind == "good")
        assert imported(root, kind, *BOUNDS) == 0
    assert "8 episodes, 312 steps, 0 ended for good" in capsys.readouterr().out
    dataset = minari.load_dataset("tank/other-v0")
    assert dataset.total_episodes == 12 and any(episode.terminations[-1] for episode in dataset)

    out = root / "run"
    words = ["train", "own", "--expert", "tank/good-v0", "--diverse", "tank/other-v0"]
    assert command.main([*words, *tiny_overrides, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "in the simulator alone" in printed and "in the simulator, 39 steps" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["task"] == "tank/good-v0" and "policy" not in metrics
    simulated = metrics["simulated"]
    assert simulated["horizon"] == 39 and 0 < simulated["policy"]["length"] <= 39
    assert simulated["policy"]["uncertainty"] > 0 and np.isfinite(simulated["demonstrations"]["reward"])
    report = (out / "report.html").read_text()
    assert "tank/good-v0" in report and "That is what the simulator says of itself" in report

    simulator = load(out)
    assert simulator.task is None and simulator.horizon == 39
    assert simulator.observation_names == ("level", "flow") and simulator.action_names == ("valve",)
    drawn = json.loads((out / "diagnostics.json").read_text())["open_loop"]
    assert all(each["names"] == ["level", "flow"] for each in drawn)
    assert bool(simulator.termination.config["kind"] == "learned")
    environment = gymnasium.make("zoo:OffSim/Simulator-v0", simulator=str(out))
    environment.reset(seed=0)
    lengths = 0
    while True:
        *_, terminated, truncated, _ = environment.step(environment.action_space.sample())
        lengths += 1
        if terminated or truncated:
            break
    assert lengths <= 39
    capsys.readouterr()
    assert command.main(["zoo", "evaluate", str(out)]) == 0
    card = (out / "card.md").read_text()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]
    assert len(said) >= 5 and all(line in card for line in said)
    assert "| level |" in card and "not tried in the real system" in card
    assert "card/forecast.png" in card and (out / "card" / "forecast.png").is_file()
    place = str(root / "shared")
    assert command.main(["zoo", "push", str(out), "--as", "tank/mine-v0", "--to", place]) == 0
    assert command.main(["zoo", "pull", "tank/mine-v0", "--from", place]) == 0
    assert load("tank/mine-v0").horizon == 39
    capsys.readouterr()
    told = json.loads((out / "metrics.json").read_text())
    told["data"][0]["held_out_episodes"] += 1  # as an earlier version may have chosen
    (out / "metrics.json").write_text(json.dumps(told))
    assert command.main(["zoo", "evaluate", str(out)]) == 2
    assert "held out other episodes of tank/good-v0" in capsys.readouterr().err
    assert command.main(["diagnose", str(out)]) == 2
    refused = capsys.readouterr().err
    assert "no known task" in refused and f"`offsim zoo evaluate {out}`" in refused


def test_a_run_says_how_it_can_be_trusted_though_nothing_was_held_out(
    root: Path, tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(root / "good.csv", 3, 3, True)
    assert imported(root, "good", *BOUNDS) == 0
    out = root / "run"
    assert command.main(["train", "own", "--expert", "tank/good-v0", *tiny_overrides, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"how far to trust the simulator: offsim zoo evaluate {out} --data ID\n" in said
    assert "(no demonstrations were held out: action errors are on those that were trained on)" in said
    assert command.main(["zoo", "push", str(out), "--as", "tank/mine-v0", "--to", str(root / "shared")]) == 0
    assert f"`offsim zoo evaluate {out} --data ID` writes one" in capsys.readouterr().out
    assert command.main(["zoo", "evaluate", str(out), "--data", "tank/good-v0"]) == 0


def test_bounds_that_actions_hardly_use_are_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(root / "good.csv", 4, 0, True)
    assert imported(root, "good", *BOUNDS) == 0
    assert "uses" not in capsys.readouterr().out
    shutil.rmtree(root / "data")
    assert imported(root, "good", "--action-low", "-100", "--action-high", "100") == 0
    assert "action valve uses 0.4% of what is possible: same units?" in capsys.readouterr().out


def test_an_import_says_what_is_wrong_with_the_data(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(root / "good.csv", 4, 0, True)
    assert imported(root, "good", *BOUNDS) == 0
    assert "note" not in capsys.readouterr().out
    table = in_millimetres((root / "good.csv").read_text(), run="2")
    (root / "mixed.csv").write_text(table)
    assert imported(root, "mixed", *BOUNDS) == 0
    said = capsys.readouterr().out
    assert "note: other units: observation feature 0 (level) is" in said
    assert "`offsim data check tank/mixed-v0` says this again" in said


def write_timed(path: Path, times: Any) -> None:
    rows = [f"{time},{index % 7},{index % 3}" for index, time in enumerate(times)]
    path.write_text("\n".join(["seconds,level,valve", *rows]))


def import_timed(root: Path, *names: str) -> int:
    files = [str(root / f"{name}.csv") for name in names]
    words = ["--observations", "level", "--actions", "valve", "--time", "seconds"]
    return command.main(["import", *files, "--id", f"tank/{names[-1]}-v0", *words])


def test_steps_of_all_files_are_of_one_length(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, step, count in (("one", 0.5, 20), ("two", 0.5, 20), ("slow", 2.0, 20), ("other", 2.0, 3)):
        write_timed(root / f"{name}.csv", step * np.arange(count))

    assert import_timed(root, "one", "two") == 0
    assert "2 episodes, 38 steps" in capsys.readouterr().out
    for names in (("one", "two", "slow"), ("other", "one")):  # whichever is first, most rows decide
        assert import_timed(root, *names) == 2
        told = capsys.readouterr().err
        if "slow" in names:
            assert "slow.csv: its rows follow one another after 2, those of " in told
        else:  # too few to have a usual time of its own
            assert "other.csv: 100% of its rows follow one another after another time than the usual 0.5" in told


def test_logs_whose_steps_differ_a_little_are_told_apart(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for name, times in (
        ("five", 5.0 * np.arange(20)),
        ("six", 5.4 * np.arange(20)),
        ("shaken", 5.0 * np.arange(20) + random.uniform(-0.9, 0.9, 20)),
        ("even", 5.0 * np.arange(20) + random.uniform(-0.1, 0.1, 20)),
    ):
        write_timed(root / f"{name}.csv", times)

    assert import_timed(root, "five", "six") == 2
    assert "bring all logs to equal intervals first" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert import_timed(root, "five", "even") == 0
    with pytest.warns(UserWarning, match="usually 5; every step is taken for one of that length"):
        assert import_timed(root, "five", "shaken") == 0


def test_what_no_step_can_be_taken_from_is_left_out(root: Path) -> None:
    table = "level,valve\n" + "\n".join(f"{row % 7},{row % 3}" for row in range(20))
    (root / "good.csv").write_text(table)
    (root / "one.csv").write_text("level,valve\n1,2\n")
    words = ["--observations", "level", "--actions", "valve"]
    with pytest.warns(UserWarning, match="one.csv is left out: none of its rows follows another"):
        files = [str(root / "one.csv"), str(root / "good.csv")]
        assert command.main(["import", *files, "--id", "tank/good-v0", *words]) == 0
    with pytest.warns(UserWarning, match="is left out"):
        assert command.main(["import", str(root / "one.csv"), "--id", "tank/one-v0", *words]) == 2


def test_a_counter_that_single_precision_cannot_follow_is_told(root: Path) -> None:
    table = "\n".join(f"{123_000_000 + 0.2 * row},{row % 3}" for row in range(20))
    (root / "total.csv").write_text("volume,valve\n" + table)
    words = ["--observations", "volume", "--actions", "valve"]
    with pytest.warns(UserWarning, match="volume changes by 0.2 from row to row .* single precision tells 8 apart"):
        command.main(["import", str(root / "total.csv"), "--id", "tank/total-v0", *words])


def test_an_import_into_another_root_is_checked_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(root / "good.csv", 4, 0, True)
    (root / "good.csv").write_text(in_millimetres((root / "good.csv").read_text(), run="2"))
    assert imported(root, "good", *BOUNDS, "--dataset-root", str(root / "elsewhere")) == 0
    said = capsys.readouterr().out
    assert "note: other units" in said and "offsim data check" not in said  # which would look in another root
    assert not (root / "data").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--action-low", "0", "0"), "--action-low has 2 numbers, where 1 or 1 are expected"),
        (("--actions", "spilt"), "one that never moves is no action"),
        (("--action-high", "0.4"), "beyond the bounds"),
        (("--action-low", "nan"), "--action-low has to be finite"),
        (("--id", "tank"), "'tank' is no id of a dataset"),
        (("--id", "offsim/hopper/expert-v0"), "comes with offsim: choose another id"),
        (("--reward", "money"), "has no 'money'"),
        (("--observations", "level", "valve"), "valve is named more than once among --observations, --actions"),
        (("--observations", "level", "level"), "level is named more than once"),
        (("--observations", "level", "run"), "run is named more than once"),
        (("--next-observations", "level", "level"), "level is named more than once in --next-observations"),
        (("--action-low", "5e-1"), "beyond the bounds"),
        (("--action-low", "-1e-3", "--action-high", "-1e-4"), "beyond the bounds"),
    ],
)
def test_what_cannot_be_imported_leaves_nothing(
    root: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(root / "good.csv", 2, 0, True)
    assert imported(root, "good", *words) == 2
    assert message in capsys.readouterr().err
    assert not list((root / "data").rglob("*.hdf5"))


def test_a_file_that_is_named_twice_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(root / "good.csv", 2, 0, True)
    file = str(root / "good.csv")
    assert command.main(["import", file, file, "--id", "tank/good-v0", *COLUMNS]) == 2
    assert "good.csv is named twice" in capsys.readouterr().err
    (root / "data").rmdir()
    (root / "data").write_text("a file")
    assert command.main(["import", file, "--id", "tank/good-v0", *COLUMNS]) == 2
    assert f"{root / 'data'} cannot be a folder to write to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--encoding", "klingon"), "there is no such encoding"),
        (("--time-format", "%Y"), "name their column with --time as well"),
    ],
)
def test_ways_to_read_that_there_are_not_are_refused(
    root: Path, words: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(root / "good.csv", 3, 0, True)
    assert imported(root, "good", *BOUNDS, *words) == 2
    assert message in capsys.readouterr().err


def test_a_root_in_the_home_folder_is_one_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.setenv("MINARI_DATASETS_PATH", "~/data")
    write_log(root / "good.csv", 2, 0, True)
    assert imported(root, "good") == 0
    assert resolve("tank/good-v0").folder == root / "data" / "tank" / "good-v0" / "data"


def test_a_crash_leaves_no_dataset(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(root / "good.csv", 2, 0, True)
    create = minari.create_dataset_from_buffers

    def fail(*arguments: Any, **settings: Any) -> None:
        create(*arguments, **settings)
        raise OSError("no space left on device")

    monkeypatch.setattr(minari, "create_dataset_from_buffers", fail)
    with pytest.raises(OSError, match="no space"):
        imported(root, "good", *BOUNDS)
    assert not list((root / "data").rglob("*.hdf5"))


def test_what_has_no_room_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(root / "good.csv", 2, 0, True)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    assert imported(root, "good") == 2
    assert f"tank/good-v0 takes about 0.0 MB, and {root / 'data'} has room for 0.0" in capsys.readouterr().err
    assert not list((root / "data").rglob("*.hdf5"))


def test_names_of_columns_are_kept_and_compared(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("good", "other", "renamed"):
        write_log(root / f"{kind}.csv", 3, 0, kind == "good")
    assert imported(root, "good", *BOUNDS) == 0
    assert imported(root, "other", *BOUNDS, "--observations", "flow", "level") == 0
    assert resolve("tank/good-v0").observation_names == ("level", "flow")
    assert resolve("tank/good-v0").action_names == ("valve",)
    with pytest.raises(DataError, match="are level, flow, those of tank/other-v0 flow, level: the order differs"):
        TransitionDataModule("tank/good-v0", diverse=["tank/other-v0"])
    log = root / "renamed.csv"
    log.write_text(log.read_text().replace("level", "height", 1))
    assert imported(root, "renamed", *BOUNDS, "--observations", "height", "flow") == 0
    with pytest.warns(UserWarning, match="those of tank/renamed-v0 height, flow: make sure that they mean the same"):
        TransitionDataModule("tank/good-v0", diverse=["tank/renamed-v0"])


def test_logs_that_were_imported_with_other_bounds_are_to_be_imported_with_the_same(root: Path) -> None:
    for kind in ("good", "other"):
        write_log(root / f"{kind}.csv", 3, 0, kind == "good")
        assert imported(root, kind, *(BOUNDS if kind == "good" else ("--action-low", "-1", "--action-high", "2"))) == 0
    with pytest.raises(DataError) as caught:
        TransitionDataModule("tank/good-v0", diverse=["tank/other-v0"])
    assert "differ in the bounds of actions alone (bounds [0.0, 1.0] and [-1.0, 2.0] of feature 0 (valve))" in str(
        caught.value
    )
    assert "import both logs with the same --action-low and --action-high" in str(caught.value)


def test_a_copy_without_its_clock_keeps_the_other_names(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(root / "good.csv", 5, 0, True)
    head, *lines = (root / "good.csv").read_text().splitlines()
    lines = [f"{line},{index}" for index, line in enumerate(lines)]
    (root / "good.csv").write_text("\n".join([f"{head},seconds", *lines]))
    assert imported(root, "good", *BOUNDS, "--observations", "level", "seconds", "flow") == 0
    capsys.readouterr()
    assert command.main(["data", "check", "tank/good-v0", "--fix", "tank/good-v1"]) == 1
    assert "observation feature 1 (seconds) moves by 1 at every step: it is a clock" in capsys.readouterr().out
    assert resolve("tank/good-v1").observation_names == ("level", "flow")
    assert resolve("tank/good-v1").action_names == ("valve",)


def test_tables_of_an_archive_are_numbered(root: Path) -> None:
    pose, speed = np.arange(10.0).reshape(5, 2), np.arange(5.0)
    np.savez(root / "log.npz", pose=pose, speed=speed, force=np.linspace(-1.0, 1.0, 5))
    words = ["--id", "arm/log-v0", "--observations", "pose", "speed", "--actions", "force"]
    assert command.main(["import", str(root / "log.npz"), *words]) == 0
    assert resolve("arm/log-v0").observation_names == ("pose 0", "pose 1", "speed")


@pytest.mark.parametrize("names", [["level"], "level flow", [1, 2], None])
def test_odd_names_are_no_names(root: Path, names: Any) -> None:
    write_log(root / "good.csv", 2, 0, True)
    assert imported(root, "good", *BOUNDS) == 0
    file = root / "data" / "tank" / "good-v0" / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["offsim"]["observation_names"] = names
    file.write_text(json.dumps(metadata))
    assert resolve("tank/good-v0").observation_names == () and resolve("tank/good-v0").action_names == ("valve",)
    metadata["offsim"] = names
    file.write_text(json.dumps(metadata))
    assert resolve("tank/good-v0").action_names == ()


def test_an_id_that_is_taken_stays(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(root / "good.csv", 2, 0, True)
    assert imported(root, "good", *BOUNDS) == 0
    assert not [path for path in (root / "data").iterdir() if path.name.startswith(".")]
    assert imported(root, "good", *BOUNDS) == 2
    assert "take the next version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["own", "--simulator.model.termination=rule"], "a rule needs a known task"),
        (["own", "--evaluation.reward_histograms=true"], "needs a known task"),
        (["hopper", "--task=hoper"], "unknown task 'hoper': known are ant"),
    ],
)
def test_what_needs_a_task_is_refused_before_any_work(
    root: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["train", *words[:1], "--expert", "tank/good-v0", *words[1:]]) == 2
    assert message in capsys.readouterr().err
