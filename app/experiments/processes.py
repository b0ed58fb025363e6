"""The processes of an experiment: one for each piece of work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

from app.experiments.schedule import STAGES_FOLDER, Unit
from app.experiments.state import LOG
from app.programs import finding_this_package

SECONDS_TO_END = 10.0  # that a process is given to end by itself


class WorkerProcess:
    """``app.experiments.worker`` on a unit, in a session of its own, with its output in the unit's log.

    Args:
        unit: what to do.
        out: folder of the experiment.
        lock: file descriptor of the folder's lock, which stays locked until the last process has ended.
    """

    def __init__(self, unit: Unit, out: Path, lock: int) -> None:
        environment = {
            "OMP_NUM_THREADS": "1",  # unless the environment says otherwise: processes share the cores
            **finding_this_package(os.environ),
            "PYTHONUNBUFFERED": "1",
        }
        with (unit.folder / LOG).open("a") as log:
            log.write(f"--- {datetime.now():%Y-%m-%d %H:%M:%S}\n")
            log.flush()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.experiments.worker", str(unit.folder), str(out / STAGES_FOLDER)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C reaches the command alone, which ends its processes in order
            )

    def poll(self) -> int | None:
        """The exit status; ``None`` while it runs."""
        return self.process.poll()

    def end(self) -> None:
        """Stop it and everything it started, and wait until it is gone."""
        for number, seconds in ((signal.SIGTERM, SECONDS_TO_END), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
                return


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and a lost terminal interrupt this process as Ctrl-C does, so that it ends what it started."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # A signal that is ignored, as SIGHUP is under nohup, stays so
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) == signal.SIG_DFL]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
