"""A stage of ``offsim train`` on several devices, one process each, as a program of its own.

Lightning starts the other processes of a training with the command line of the first, and that of ``offsim train``
would evaluate and write reports in each of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from app.allocator import keep_freed_memory
from app.checkpoints import LAST
from app.errors import Interrupted, UserError
from app.main import quiet_libraries
from datamodules import DataError
from lit_modules.parallel import RankLost

HANDED_ON = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def several(devices: Any) -> bool:
    """Whether Lightning's ``devices`` may mean more than one."""
    return len(devices) > 1 if isinstance(devices, Sequence) and not isinstance(devices, str) else str(devices) != "1"


def train_in_processes(folder: Path, stage: str) -> None:
    """Train a stage of the run in ``folder``, which holds its configuration.

    Raises:
        Interrupted: if a signal ended it, which this process hands on.
        UserError: if it failed for another reason, which it has printed.
    """
    # In a session of its own: Ctrl-C in a terminal reaches it through us, and once
    process = subprocess.Popen(
        [sys.executable, "-m", "app.several_processes", str(folder), stage], start_new_session=True
    )

    def hand_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before: dict[int, Any] = {number: signal.signal(number, hand_on) for number in HANDED_ON}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status > 128:
        raise Interrupted(status - 128, folder / stage / LAST)
    if status != 0:
        raise UserError(f"the {stage.replace('_', ' ')} stage did not finish; the reason is printed above")


def main() -> int:
    """What each of the processes does; returns its exit status."""
    from app.train import train_stage  # which starts this program

    quiet_libraries()
    keep_freed_memory()
    folder, stage = Path(sys.argv[1]), sys.argv[2]
    configuration = OmegaConf.load(folder / "config.yaml")
    assert isinstance(configuration, DictConfig)
    try:
        train_stage(configuration, folder, stage)
    except Interrupted as error:
        return error.status if is_first() else 0  # Lightning kills the first if another fails
    except (DataError, RankLost, UserError) as error:
        print(f"offsim: {error}", file=sys.stderr)
        return 1
    return 0


def is_first() -> bool:
    """Whether this process is the one of a training that prints and writes files, or the only one."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("RANK", "0")) == 0


if __name__ == "__main__":
    sys.exit(main())
