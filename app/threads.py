"""How the threads of a training wait for one another."""

from __future__ import annotations

import os

POLICY = "OMP_WAIT_POLICY"
OTHERS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # by which somebody may have said how they wait


def let_waiting_threads_sleep() -> None:
    """Have threads sleep while they wait for others, unless the environment says how they are to wait.

    Without it they wait busily. Where something else runs on the same cores, they keep from running what they wait for:
    ``docs/results/speed.md`` has what that costs. To be called before PyTorch is imported, which reads it once.
    """
    if not any(name in os.environ for name in (POLICY, *OTHERS)):
        os.environ[POLICY] = "PASSIVE"
