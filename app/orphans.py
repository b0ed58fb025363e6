"""Processes of a training that end with the one that started them.

Lightning starts the others of a training from the first. Killed before they have met, it leaves them waiting for it for
half an hour.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

STARTER = "OFFSIM_STARTER"  # environment variable: the first process of a training
EVERY = 1.0  # seconds


def is_first() -> bool:
    """Whether this process is the first of a training, or the only one."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def end_with_starter() -> None:
    """In the first process of a training: be known to those that it starts. In these: end once it is gone.

    They end as by SIGTERM, with a checkpoint if they train.
    """
    if is_first():
        os.environ[STARTER] = str(os.getpid())
        return
    # It may be gone before we can ask who it was; a launcher of somebody else's says nothing
    starter = int(os.environ.get(STARTER, os.getppid()))

    def wait() -> None:
        while os.getppid() == starter:
            time.sleep(EVERY)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def end_with_pipe() -> None:
    """End, likewise, once the process that holds the other end of our standard input is gone."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)  # returns when its other end is closed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
