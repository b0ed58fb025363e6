"""What is left to do of an experiment, and doing it: several processes at a time, each stage once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig

from app.experiments.grid import Run
from app.experiments.shared import CHECKPOINT, SharedStage, pretraining_of, shared_stages_of
from app.experiments.state import clear_failure, is_done, note_failure
from app.pipeline import say
from app.run_folder import claim_folder, finished_stages

STAGES_FOLDER = "stages"
POLL_SECONDS = 0.2  # between looks at running processes


@dataclass(frozen=True)
class Unit:
    """A shared stage, or what is left of a run once the stages it shares are there.

    Attributes:
        name: its folder below the experiment's.
        folder: where it works.
        configuration: whose the folder is.
        needs: names of the units that must be done before.
    """

    name: str
    folder: Path
    configuration: DictConfig
    needs: tuple[str, ...]


class Process(Protocol):
    """A unit at work."""

    def poll(self) -> int | None:
        """The exit status; ``None`` while it runs."""

    def end(self) -> None:
        """Stop it and wait until it is gone."""


def plan(runs: Sequence[Run], out: Path) -> list[Unit]:
    """What is left to do, in the order of the runs, each stage right before the first run that needs it."""
    units: dict[str, Unit] = {}
    left = {run: _stages_left(run, out) for run in runs if not is_done(out / run.name)}
    pretraining = _pretraining_left(left.values(), out / STAGES_FOLDER)
    for run, stages in left.items():
        needs: list[str] = []
        for stage in stages:
            first = [pretraining[stage.folder]] if stage.folder in pretraining else []
            for each in [*first, stage]:
                name = each.folder.relative_to(out).as_posix()
                units.setdefault(name, Unit(name, each.folder, each.configuration, tuple(needs)))
                needs.append(name)
        units[run.name] = Unit(run.name, out / run.name, run.configuration, tuple(needs))
    return list(units.values())


def _pretraining_left(left: Iterable[Sequence[SharedStage]], root: Path) -> dict[Path, SharedStage]:
    """Folders of simulator stages that are yet to begin, and the pretraining that each is to wait for.

    Alone, a simulator does without one: the checkpoint between the two costs a little time.
    """
    stages = {stage.folder: stage for shared in left for stage in shared}
    found = {folder: pretraining_of(stage, root) for folder, stage in stages.items()}
    pretraining = {folder: stage for folder, stage in found.items() if stage is not None}
    users = Counter(stage.folder for stage in pretraining.values())
    return {
        folder: stage
        for folder, stage in pretraining.items()
        if users[stage.folder] > 1 and stage.seconds() is None and not (folder / CHECKPOINT).exists()
    }


def _stages_left(run: Run, out: Path) -> list[SharedStage]:
    """The shared stages of a run that are not trained yet."""
    finished = finished_stages(out / run.name)
    stages = shared_stages_of(run.configuration, out / STAGES_FOLDER)
    return [stage for stage in stages if stage.name not in finished and stage.seconds() is None]


def carry_out(units: Sequence[Unit], jobs: int, start: Callable[[Unit], Process]) -> list[Unit]:
    """Do all units, ``jobs`` at a time; a failure stops only what needs it.

    Whatever ends this, an interruption included, ends the processes that are still at work.

    Args:
        units: from :func:`plan`.
        jobs: processes at a time.
        start: starts the process of a unit.

    Returns:
        The units that failed; in the folder of each a note says why.
    """
    waiting, done, failed = list(units), set[str](), dict[str, Unit]()
    running: dict[str, tuple[Unit, Process, float]] = {}
    for unit in units:
        clear_failure(unit.folder)  # of an earlier command
    try:
        while waiting or running:
            for unit in [unit for unit in waiting if failed.keys() & set(unit.needs)]:
                waiting.remove(unit)
                failed[unit.name] = unit
                claim_folder(unit.configuration, unit.folder)
                note_failure(
                    unit.folder, f"it needs {next(name for name in unit.needs if name in failed)}, which failed"
                )
            ready = [unit for unit in waiting if done >= set(unit.needs)]
            for unit in ready[: jobs - len(running)]:
                waiting.remove(unit)
                claim_folder(unit.configuration, unit.folder)
                say(f"{_progress(done, failed, units)} {unit.name}: started")
                running[unit.name] = (unit, start(unit), time.monotonic())
            for unit, process, started in list(running.values()):
                status = process.poll()
                if status is None:
                    continue
                del running[unit.name]
                minutes = (time.monotonic() - started) / 60
                if status == 0:
                    done.add(unit.name)
                    say(f"{_progress(done, failed, units)} {unit.name}: done after {minutes:.1f} minutes")
                else:
                    failed[unit.name] = unit
                    reason = note_failure(unit.folder, status=status)
                    say(f"{_progress(done, failed, units)} {unit.name}: FAILED after {minutes:.1f} minutes: {reason}")
            if running:
                time.sleep(POLL_SECONDS)
    finally:
        for _, process, _ in running.values():
            process.end()
    return list(failed.values())


def _progress(done: set[str], failed: dict[str, Unit], units: Sequence[Unit]) -> str:
    return f"[{len(done) + len(failed)}/{len(units)}]"
