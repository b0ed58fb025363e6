"""How far each run of an experiment has come, as its files tell."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.experiments.grid import Run
from app.experiments.shared import shared_stages_of
from app.run_folder import finished_stages, holds_another, write_whole

LOG = "log.txt"
FAILURE = "failure.json"
LONGEST_REASON = 300  # characters of a log's last line


@dataclass(frozen=True)
class State:
    """How far a run has come.

    Attributes:
        kind: ``done``, ``failed``, ``begun``, ``missing``, or ``other`` for a folder of another configuration.
        note: the stages that are done, or why it failed.
        metrics: content of its ``metrics.json`` once it is done.
    """

    kind: str
    note: str = ""
    metrics: dict[str, Any] | None = None


def state_of(run: Run, out: Path, stages: Path) -> State:
    """The state of a run.

    Args:
        run: of the experiment.
        out: folder of the experiment.
        stages: folder of its shared stages.
    """
    folder = out / run.name
    if holds_another(run.configuration, folder):
        return State("other", "its folder holds a run with other settings")
    if is_done(folder):
        return State("done", metrics=json.loads((folder / "metrics.json").read_text()))
    shared = shared_stages_of(run.configuration, stages)
    for place in (*(stage.folder for stage in shared), folder):
        reason = failure(place)
        if reason is not None:
            return State("failed", reason)
    reached = {*finished_stages(folder), *(stage.name for stage in shared if stage.seconds() is not None)}
    listed = [name.replace("_", " ") for name in run.configuration.stages if name in reached]
    if not listed and not folder.exists():
        return State("missing")
    return State("begun", f"finished: {', '.join(listed)}" if listed else "no stage is finished")


def is_done(folder: Path) -> bool:
    """Whether a run is evaluated and reported; the report is what is written last."""
    return (folder / "metrics.json").is_file() and (folder / "report.html").is_file()


def failure(folder: Path) -> str | None:
    """Why the last attempt at a run or a stage failed; ``None`` if it did not."""
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((folder / FAILURE).read_text())["reason"])
    return None


def note_failure(folder: Path, reason: str | None = None, status: int | None = None) -> str:
    """Write down why a run or a stage failed, by default the last line of its log; returns the reason."""
    if reason is None:
        with contextlib.suppress(OSError):
            lines = [line for line in (folder / LOG).read_text(errors="replace").splitlines() if line.strip()]
            reason = lines[-1].strip()[:LONGEST_REASON] if lines else None
    reason = reason or "it left no log"
    if status is not None and status < 0:
        reason = f"killed by signal {-status}; its last words were: {reason}"
    write_whole(folder / FAILURE, json.dumps({"reason": reason, "status": status}))
    return reason


def clear_failure(folder: Path) -> None:
    """Forget an earlier failure, because a new attempt begins."""
    (folder / FAILURE).unlink(missing_ok=True)
