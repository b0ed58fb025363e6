"""``offsim experiment`` on tiny runs: shared stages, failures, interruption, processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import experiment
from app import main as command
from app.errors import UserError
from app.experiments import worker
from app.experiments.processes import WorkerProcess
from app.experiments.reading import load_experiment
from app.experiments.schedule import STAGES_FOLDER, Unit, carry_out, plan
from app.experiments.shared import shared_stages_of, take_over
from app.experiments.state import state_of
from app.folder_lock import locked
from app.run_folder import claim_folder, finished_stages, shared_stages
from app.train import train_stage
from lit_modules.offsim import OffSim

VARIANTS = {
    "plain": {},
    "short": {"policy": {"model": {"horizon": 5}}},
    "cloning": {"stages": ["behaviour_cloning"]},
    "broken": {"policy": {"model": {"cloning_form": "nonsense"}}},
}


class InThisProcess:
    """Does a unit at once, and keeps what it printed or raised as its log's last line."""

    started: list[str]

    def __init__(self, unit: Unit, out: Path, lock: int) -> None:
        self.started.append(unit.name)
        self.status = 0
        try:
            worker.work(unit.folder, out / STAGES_FOLDER)
        except Exception as error:
            (unit.folder / "log.txt").write_text(f"Traceback\n{type(error).__name__}: {error}\n")
            self.status = 1

    def poll(self) -> int | None:
        return self.status

    def end(self) -> None:
        """Nothing is left to end."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Units are done in this process; the names of those that were started."""
    monkeypatch.setattr(experiment, "WorkerProcess", InThisProcess)
    monkeypatch.setattr(InThisProcess, "started", [], raising=False)
    return InThisProcess.started


@pytest.fixture
def tiny_file(tiny_settings: dict[str, Any], tmp_path: Path) -> Path:
    content = {
        "tasks": ["hopper"],
        "demonstrations": [3],
        "seeds": [1],
        "settings": tiny_settings,
        "variants": VARIANTS,
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_stages_are_trained_once_and_a_failure_stops_nothing_else(
    tiny_file: Path, tmp_path: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["experiment", str(tiny_file), "--out", str(out)]
    assert command.main([*words, "--only", "variant=cloning"]) == 0
    assert len(started) == 2 and started[1] == "hopper/cloning/demonstrations3/seed1"
    assert command.main(words) == 1  # one run fails
    assert [name.split("/")[1].rsplit("-", 1)[0] for name in started] == [
        "hopper-seed1-behaviour_cloning",
        "cloning",
        "hopper-seed1-simulator",
        "plain",
        "short",
        "broken",
    ]
    runs = {name: out / "hopper" / name / "demonstrations3" / "seed1" for name in VARIANTS}
    (trained,) = (out / "stages").glob("hopper-seed1-simulator-*")
    seconds = json.loads((trained / "stages.json").read_text())["simulator"]
    for name in ("plain", "short"):
        metrics = json.loads((runs[name] / "metrics.json").read_text())
        assert metrics["shared_stages"]["simulator"] == trained.name and metrics["stages"]["simulator"] == seconds
        assert metrics["wall_seconds"] > sum(metrics["stages"].values())
        assert (runs[name] / "simulator.safetensors").read_bytes() == (trained / "simulator.safetensors").read_bytes()
        assert (runs[name] / "simulator" / "metrics.csv").exists() and (runs[name] / "report.html").exists()
        assert not list(runs[name].glob("simulator/*.ckpt")) and list(runs[name].glob("policy/*.ckpt"))
    printed = capsys.readouterr().out
    assert "FAILED: hopper/broken/demonstrations3/seed1" in printed and "3 done, 1 failed of 4 runs" in printed
    page = (out / "small.md").read_text()
    assert "## Failed runs" in page and "unknown form of cloning 'nonsense'" in page
    assert {row["method"] for row in json.loads((out / "small.json").read_text())} == {"plain", "short", "cloning"}
    assert (out / "small.png").exists()

    # Again: what is done stays, what failed is tried again, and the list trains nothing
    del started[:]
    reports = {name: (folder / "report.html").stat().st_mtime_ns for name, folder in runs.items() if name != "broken"}
    assert command.main([*words, "--list"]) == 0 and started == []
    printed = capsys.readouterr().out
    assert "hopper/broken/demonstrations3/seed1   failed  ValueError" in printed and "% of the expert)" in printed
    assert command.main(words) == 1 and started == ["hopper/broken/demonstrations3/seed1"]
    assert reports == {name: (runs[name] / "report.html").stat().st_mtime_ns for name in reports}

    # Other settings do not get mixed with these
    content = yaml.safe_load(tiny_file.read_text())
    content["settings"]["evaluation"]["episodes"] = 3
    tiny_file.write_text(yaml.safe_dump(content))
    assert command.main(words) == 2
    assert "4 runs with other settings" in capsys.readouterr().err


GAMES: dict[str, Any] = {
    "gentle": {"simulator": {"model": {"adversarial_weight": 0.0, "margin": 2.0}}},
    "tuned": {"simulator": {"model": {"entropy_weight": "tuned"}}},
    "other": {"simulator": {"model": {"members": 3}}},
    "no_game": {"simulator": {"updates": 50}},
}


def kinds(units: list[Unit]) -> list[str]:
    """``stages/hopper-seed1-simulator-KEY -> simulator``, ``hopper/tuned/demonstrations3/seed1 -> tuned``."""
    return [unit.name.split("/")[1].removeprefix("hopper-seed1-").split("-")[0] for unit in units]


def test_simulators_that_differ_in_their_game_share_what_comes_before_it(tiny_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(tiny_file.read_text())
    content["settings"]["stages"] = ["behaviour_cloning", "simulator"]
    tiny_file.write_text(yaml.safe_dump({**content, "variants": GAMES}, sort_keys=False))
    runs, out = load_experiment(str(tiny_file)).runs, tmp_path / "out"
    units = plan(runs, out)
    expected = ["behaviour_cloning", "pretraining", "simulator", "gentle", "simulator", "tuned"]
    assert kinds(units) == [*expected, "simulator", "other", "simulator", "no_game"]
    assert kinds(plan(runs[1:], out)) == ["behaviour_cloning", "simulator", "tuned", *kinds(units)[6:]]
    for unit in units[:5]:
        if unit.name != runs[0].name:
            claim_folder(unit.configuration, unit.folder)
            worker.work(unit.folder, out / STAGES_FOLDER)
    pretrained, trained = units[1].folder, (units[2].folder, units[4].folder)
    for run, together in zip(runs[:2], trained, strict=True):
        assert shared_stages(together)["pretraining"] == pretrained.name
        alone = tmp_path / run.variant
        claim_folder(run.configuration, alone)
        for name in run.configuration.stages:
            train_stage(run.configuration, alone, name)
        assert (alone / "simulator.safetensors").read_bytes() == (together / "simulator.safetensors").read_bytes()
    taken_over = tmp_path / "run"
    taken_over.mkdir()
    take_over(shared_stages_of(runs[1].configuration, out / STAGES_FOLDER)[1], taken_over)
    assert finished_stages(taken_over).keys() == {"pretraining", "simulator"}
    assert shared_stages(taken_over) == {"pretraining": pretrained.name, "simulator": trained[1].name}
    # A pretraining that is there is not planned again, and what is left of these runs is no more than their evaluation
    assert kinds(plan(runs, out)) == ["gentle", "tuned", "simulator", "other", "simulator", "no_game"]


def test_an_interrupted_stage_does_not_count_and_is_resumed(
    tiny_file: Path, tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["experiment", str(tiny_file), "--out", str(out), "--only", "variant=plain"]
    original = OffSim.export

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt  # as Ctrl-C, or the end of the machine, after the last checkpoint

    monkeypatch.setattr(OffSim, "export", interrupted)
    assert command.main(words) == 130
    (run,) = load_experiment(str(tiny_file)).runs[:1]
    state = state_of(run, out, out / STAGES_FOLDER)
    assert (state.kind, state.note) == ("begun", "finished: behaviour cloning")
    (folder,) = (out / "stages").glob("*-simulator-*")
    assert (folder / "simulator" / "last.ckpt").exists()
    monkeypatch.setattr(OffSim, "export", original)
    monkeypatch.setattr(OffSim, "training_step", interrupted)  # nothing is left to train
    del started[:]
    assert command.main(words) == 0
    assert [name.split("-")[-2] for name in started[:1]] == ["simulator"] and len(started) == 2
    assert state_of(run, out, out / STAGES_FOLDER).kind == "done"


def test_configuration_and_data_are_checked_before_the_first_run(
    tiny_file: Path,
    tmp_path: Path,
    started: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["experiment", str(tiny_file), "--out", str(tmp_path / "out")]
    assert command.main([*words, "--expert", "nobody/{task}/expert-v0"]) == 2
    assert "nobody/hopper/expert-v0" in capsys.readouterr().err
    content = yaml.safe_load(tiny_file.read_text())
    content["variants"]["late"] = {"simulator": {"model": {"membrs": 3}}}
    tiny_file.write_text(yaml.safe_dump(content))
    assert command.main(words) == 2
    assert "late on hopper: unknown setting simulator.model.membrs" in capsys.readouterr().err
    assert started == [] and not (tmp_path / "out").exists()


def test_worse_demonstrations_are_pointed_out_once(
    tiny_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "warn_of_worse_expert", lambda expert, diverse: f"{expert} below {diverse[0]}")
    runs = load_experiment(str(tiny_file)).runs
    assert len(runs) > 1
    experiment.warn_of_worse_experts(runs)
    assert capsys.readouterr().out.splitlines() == ["tiny/hopper/expert-v0 below tiny/hopper/other-v0"]


class Scripted:
    """A process that ends with a status after some looks at it."""

    ended: list[str] = []  # noqa: RUF012

    def __init__(self, name: str, looks: int, status: int) -> None:
        self.name, self.looks, self.status = name, looks, status

    def poll(self) -> int | None:
        self.looks -= 1
        if self.looks < 0 and self.status == 130:
            raise KeyboardInterrupt
        return self.status if self.looks < 0 else None

    def end(self) -> None:
        self.ended.append(self.name)


@pytest.fixture
def units(tiny_file: Path, tmp_path: Path) -> list[Unit]:
    return plan(load_experiment(str(tiny_file)).runs, tmp_path / "out")


def test_what_needs_a_stage_waits_for_it_and_fails_with_it(units: list[Unit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.experiments.schedule.POLL_SECONDS", 0.0)
    names = [unit.name.split("/")[1].split("-")[-2 if "stages" in unit.name else 0] for unit in units]
    assert names == ["behaviour_cloning", "simulator", "plain", "short", "cloning", "broken"]
    assert [len(unit.needs) for unit in units] == [0, 1, 2, 2, 1, 2]
    begun: list[str] = []
    together: list[int] = []
    running: set[str] = set()

    class Counted(Scripted):
        def poll(self) -> int | None:
            together.append(len(running))
            status = super().poll()
            if status is not None:
                running.discard(self.name)
            return status

    def start(unit: Unit) -> Scripted:
        name = names[units.index(unit)]
        begun.append(name)
        running.add(name)
        return Counted(name, looks=3, status=1 if name == "simulator" else 0)

    failed = carry_out(units, jobs=2, start=start)
    # Cloning alone can be evaluated beside the simulator; the policies never start
    assert begun == ["behaviour_cloning", "simulator", "cloning"] and max(together) == 2
    assert [unit.name.split("/")[1].split("-")[0] for unit in failed] == ["hopper", "plain", "short", "broken"]
    reason = json.loads((units[2].folder / "failure.json").read_text())["reason"]
    assert "it needs stages/hopper-seed1-simulator" in reason


def test_an_interruption_ends_what_is_running(units: list[Unit]) -> None:
    with pytest.raises(KeyboardInterrupt):
        carry_out(units, jobs=1, start=lambda unit: Scripted(unit.name, looks=0, status=130))
    assert Scripted.ended == [units[0].name]
    assert not (units[0].folder / "failure.json").exists()


def test_a_worker_is_a_process_with_a_log_that_can_be_ended(units: list[Unit], tmp_path: Path) -> None:
    unit, out = units[0], tmp_path / "out"
    claim_folder(unit.configuration, unit.folder)
    with locked(out, "offsim experiment") as lock:
        process = WorkerProcess(unit, out, lock)
    # The process it left behind still holds the folder
    with pytest.raises(UserError, match="left behind"), locked(out, "offsim experiment"):
        pass
    assert process.poll() is None
    process.end()
    assert process.poll() is not None
    with locked(out, "offsim experiment"):
        assert (unit.folder / "log.txt").read_text().startswith("---")


def test_a_worker_does_its_unit(units: list[Unit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("app", "zoo"):  # of the user's, and none of the worker's business
        (tmp_path / "here" / name).mkdir(parents=True)
        (tmp_path / "here" / name / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path / "here")
    unit, out = units[0], tmp_path / "out"
    claim_folder(unit.configuration, unit.folder)
    with locked(out, "offsim experiment") as lock:
        process = WorkerProcess(unit, out, lock)
        assert process.process.wait(timeout=500) == 0, (unit.folder / "log.txt").read_text()
    assert (unit.folder / "behaviour_cloning.safetensors").exists()
    assert plan(load_experiment(str(tmp_path / "small.yaml")).runs, out)[0].name.startswith("stages/hopper-seed1-sim")
