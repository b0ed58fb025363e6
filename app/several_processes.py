"""A stage of ``offsim train`` on several devices, one process each, as a program of its own.

Lightning starts the other processes of a training with the command line of the first, and that of ``offsim train``
would evaluate and write reports in each of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from app.allocator import keep_freed_memory
from app.checkpoints import LAST
from app.errors import Interrupted, UserError
from app.interruption import SIGNALS
from app.notices import set_up_warnings
from app.orphans import end_with_pipe, end_with_starter, is_first
from app.programs import finding_this_package
from datamodules import DataError
from lit_modules.method import RefusedCheckpoint
from lit_modules.parallel import tell_of_lost_process
from zoo.files import ModelFileError

HANDED_ON = (*SIGNALS, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
# Of launchers, which started this command and not the processes of its trainings
FOREIGN = ("LOCAL_RANK", "RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def train_in_processes(folder: Path, stage: str) -> None:
    """Train a stage of the run in ``folder``, which holds its configuration.

    Raises:
        Interrupted: if a signal ended it, which this process hands on, with a checkpoint.
        KeyboardInterrupt: if Ctrl-C ended it before there was anything to keep; SIGTERM ends the process then.
        UserError: if it failed for another reason, which it has printed.
    """
    received: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if process is not None:
            process.send_signal(number)

    before: dict[int, Any] = {number: signal.signal(number, hand_on) for number in HANDED_ON}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.several_processes", str(folder), stage],
            stdin=subprocess.PIPE,  # closed when we end, however that comes about
            env=finding_this_package({name: value for name, value in os.environ.items() if name not in FOREIGN}),
            start_new_session=True,  # Ctrl-C in a terminal reaches it through us, and once
        )
        for number in received[:1]:
            process.send_signal(number)
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status != 0 and received:
        checkpoint = folder / stage / LAST
        if not checkpoint.exists():
            os.kill(os.getpid(), received[0])  # ends this process as it would have without others
            raise KeyboardInterrupt
        raise Interrupted(received[0], checkpoint)
    if status != 0:
        raise UserError(f"the {stage.replace('_', ' ')} stage did not finish; its own output says why")


def main() -> int:
    """What each of the processes does; returns its exit status."""
    from app.train import train_stage  # which starts this program

    end_with_starter()
    if is_first():
        end_with_pipe()
    set_up_warnings()
    keep_freed_memory()
    folder, stage = Path(sys.argv[1]), sys.argv[2]
    configuration = OmegaConf.load(folder / "config.yaml")
    assert isinstance(configuration, DictConfig)
    try:
        train_stage(configuration, folder, stage)
    except Interrupted as error:
        return error.status if error.speaks else 0  # Lightning kills the first process if another fails
    except RuntimeError as error:
        if not tell_of_lost_process(error):
            raise
        return 1
    except (DataError, FloatingPointError, ModelFileError, RefusedCheckpoint, UserError) as error:
        print(f"offsim: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
