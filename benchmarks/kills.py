"""A command killed again and again, and what comes out of it: ``python -m benchmarks.kills --times 50``.

A small run of ``offsim train`` on the bundled data, on one device or several, or of ``offsim collect`` is started and
killed after a random time, or left without room on the disk, and started again with the same command, until that has
happened often enough; then it may end. Its files are compared with those of a run that nothing disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IDS = ("card.md", "metadata.json")  # of datasets: they name the run by a random id
FULL = "FULL"  # as on a disk without room; not while HDF5 writes a dataset, whose library ends the process then
ROOM = 1000  # bytes that a file may still have
SAID = "stderr"  # file of what the command says
ROOT = Path(__file__).parent.parent
TRAIN = (
    "train",
    "hopper",
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
COLLECT = ("collect", "inverted_pendulum", "--iterations=20", "--episodes=20", "--steps=2000")


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills and full disks")
    parser.add_argument("--seed", type=int, default=0, help="of the times between them")
    parser.add_argument("--faults", nargs="+", default=["SIGKILL", "SIGTERM"], help=f"drawn from these; also {FULL}")
    parser.add_argument("--command", choices=("train", "collect"), default="train", help="what is killed")
    parser.add_argument("--devices", type=int, default=1, help="of a training")
    arguments = parser.parse_args()
    command = COLLECT if arguments.command == "collect" else (*TRAIN, f"--devices={arguments.devices}")
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        undisturbed, disturbed = Path(temporary) / "undisturbed", Path(temporary) / "disturbed"
        started = time.monotonic()
        if _start(command, undisturbed).wait() != 0:
            sys.exit("the undisturbed run failed")
        whole = time.monotonic() - started
        wanted = _results(undisturbed)
        killed = dict.fromkeys(arguments.faults, 0)
        ended = 0
        while sum(killed.values()) < arguments.times:
            process, name = _start(command, disturbed), draw.choice(arguments.faults)
            try:
                process.wait(timeout=draw.uniform(0.3, 1.0) * whole / 2)
            except subprocess.TimeoutExpired:
                status, expected = _disturb(process, name)
                if status != 0:
                    if status not in expected:
                        sys.exit(f"ended with {status} after {name}:\n{(disturbed / SAID).read_text()}")
                    killed[name] += 1
                    continue
            ended += 1  # it was through before, or had nothing left to write: once more from the start, and compare
            _compare(wanted, _results(disturbed))
            shutil.rmtree(disturbed)
        if _start(command, disturbed).wait() != 0:
            sys.exit("the disturbed run failed")
        _compare(wanted, _results(disturbed))
        names = ", ".join(f"{count} {name}" for name, count in killed.items())
        print(
            f"{names}; {ended + 1} runs ended, {len(wanted)} files of each equal bit for bit to the undisturbed one's, "
            f"which took {whole:.0f} s"
        )


def _disturb(process: subprocess.Popen[bytes], name: str) -> tuple[int, tuple[int, ...]]:
    """Do this to a process; with which status it ended, and with which it may."""
    if name == FULL:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        return process.wait(), (2,)
    number = getattr(signal, name)
    process.send_signal(number)
    return process.wait(), (-number, 128 + number)


def _start(command: tuple[str, ...], folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "app", *command, "--out", "run"]
    if command[0] == "collect":
        words += ["--dataset-root", "datasets"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    # In the folder itself: datasets say by which command they were made
    with (folder / SAID).open("wb") as said:
        return subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=said)


def _results(folder: Path) -> dict[str, bytes]:
    """What a finished run has made: its models, and the datasets that it recorded."""
    files = [*(folder / "run").glob("*.safetensors"), *(folder / "datasets").rglob("*")]
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file() and path.name not in IDS
    }


def _compare(wanted: dict[str, bytes], found: dict[str, bytes]) -> None:
    differing = [name for name in sorted(wanted | found) if wanted.get(name) != found.get(name)]
    if differing:
        sys.exit(f"these differ: {', '.join(differing)}")


if __name__ == "__main__":
    main()
