"""A training killed again and again, and what comes out of it: ``python -m benchmarks.kills --times 50``.

A small run of ``offsim train`` is started on the bundled data and killed after a random time, and started again with
the same command, until it has been killed often enough; then it may end. Its files are compared with those of a run
that nothing disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("behaviour_cloning", "simulator", "policy")
SETTINGS = (
    "--demonstrations=3",
    "--behaviour_cloning.updates=1500",
    "--behaviour_cloning.model.hidden_sizes=[16]",
    "--simulator.updates=1500",
    "--simulator.model.pretraining_updates=500",
    "--simulator.model.transition_hidden_sizes=[16,16]",
    "--simulator.model.reward_hidden_sizes=[16]",
    "--policy.updates=1500",
    "--policy.model.compile=never",
    "--policy.model.hidden_sizes=[16]",
    "--policy.model.starts=20",
    "--policy.model.validation_horizon=20",
    "--evaluation.episodes=1",
    "--evaluation.curve_points=2",
    "--evaluation.curve_episodes=1",
    "--accelerator=cpu",
)


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="of the times between them")
    parser.add_argument("--signals", nargs="+", default=["SIGKILL", "SIGTERM"], help="drawn from these")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        undisturbed, disturbed = Path(temporary) / "undisturbed", Path(temporary) / "disturbed"
        started = time.monotonic()
        if _start(undisturbed).wait() != 0:
            sys.exit("the undisturbed run failed")
        whole = time.monotonic() - started
        killed = dict.fromkeys(arguments.signals, 0)
        ended = 0
        while sum(killed.values()) < arguments.times:
            process, name = _start(disturbed), draw.choice(arguments.signals)
            try:
                process.wait(timeout=draw.uniform(0.3, 1.0) * whole / 2)
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, name))
                status = process.wait()
                if status not in (-getattr(signal, name), 128 + getattr(signal, name)):
                    sys.exit(f"ended with {status} after {name}")
                killed[name] += 1
                continue
            ended += 1  # it was through before: once more from the start, and compare
            _compare(undisturbed, disturbed)
            _remove(disturbed)
        if _start(disturbed).wait() != 0:
            sys.exit("the disturbed run failed")
        _compare(undisturbed, disturbed)
        names = ", ".join(f"{count} {name}" for name, count in killed.items())
        print(f"{names}; {ended + 1} runs ended, each equal bit for bit to the undisturbed one of {whole:.0f} s")


def _start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "app", "train", "hopper", *SETTINGS, "--out", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)  # type: ignore[call-overload,no-any-return]


def _compare(undisturbed: Path, disturbed: Path) -> None:
    for stage in STAGES:
        one, other = ((folder / f"{stage}.safetensors").read_bytes() for folder in (undisturbed, disturbed))
        if one != other:
            sys.exit(f"{stage} differs")


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
