"""What a training of a day costs in memory and on the disk: ``python -m benchmarks.long_run --folder DIR``.

A day is not waited for. What could grow with it grows with the steps of Lightning that it takes, each with its logs,
and with checkpoints and validations; so a run of ``offsim train`` on the bundled data takes as many of these, with
small networks and one update in each instead of 50. While it works its memory, open files and files are measured, and
its TensorBoard files are read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.watching import BEFORE, EVALUATION, process_status, stage_at_work

ROOT = Path(__file__).parent.parent
UPDATES_PER_SECOND = 60  # of a policy stage as configured, see docs/results/speed.md
UPDATES_PER_STEP = 50  # of a training as people run it
HOURS = 24
SHARES = {"behaviour_cloning": 0.2, "simulator": 0.2, "policy": 0.6}  # of the steps
PARTS = 5  # of each stage in the table
SMALL = (
    "--demonstrations=3",
    "--behaviour_cloning.model.hidden_sizes=[8]",
    "--behaviour_cloning.batch_size=16",
    "--simulator.expert_rows=8",
    "--simulator.all_rows=14",
    "--simulator.model.starts=4",
    "--simulator.model.transition_hidden_sizes=[8,8]",
    "--simulator.model.reward_hidden_sizes=[8]",
    "--policy.model.hidden_sizes=[8]",
    "--policy.model.batch_size=16",
    "--policy.expert_rows=8",
    "--policy.all_rows=8",
    "--policy.model.horizon=5",
    "--policy.model.starts=20",
    "--policy.model.refresh_every=50",
    "--policy.model.buffer_size=5000",
    "--policy.model.compile=never",
    "--evaluation.episodes=1",
    "--evaluation.curve_episodes=1",
    "--accelerator=cpu",
)


@dataclass
class Sample:
    """One look at the process and its folder; sizes in MiB."""

    seconds: float
    stage: str
    memory: float
    open_files: int
    threads: int
    logs: float
    checkpoints: float
    logged_steps: int  # in the stage's TensorBoard files, read while they are written


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of the run")
    parser.add_argument("--hours", type=float, default=HOURS, help="of training that the steps stand for")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between looks")
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        sys.exit(_train(given.worker))
    steps = round(given.hours * 3600 * UPDATES_PER_SECOND / UPDATES_PER_STEP)
    updates = {stage: round(share * steps) for stage, share in SHARES.items()}
    settings = [f"--{stage}.updates={count}" for stage, count in updates.items()]
    settings.append(f"--simulator.model.pretraining_updates={updates['simulator'] // 2}")
    command = [sys.executable, "-m", "benchmarks.long_run", "--folder", str(given.folder), "--worker"]
    process = subprocess.Popen(
        [*command, "train", "hopper", f"--out={given.folder.resolve()}", *SMALL, *settings],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    samples = list(_watched(process, given.folder.resolve(), given.every))
    print("\n".join(_table(samples)))
    (given.folder / "long_run.json").write_text(json.dumps([asdict(sample) for sample in samples], indent=1) + "\n")
    if process.returncode != 0:
        sys.exit(f"the training ended with {process.returncode}")


def _train(words: list[str]) -> int:
    """``offsim`` with one update in each step of Lightning."""
    import app.pipeline

    app.pipeline.BATCHES_PER_STEP = 1
    from app.main import main as offsim

    return offsim(words)


def _watched(process: subprocess.Popen[bytes], folder: Path, every: float) -> Iterator[Sample]:
    """Looks at a training until it ends."""
    started = time.monotonic()
    while process.poll() is None:
        stage = stage_at_work(folder)
        if stage != BEFORE:
            with suppress(FileNotFoundError):  # it has just ended, or replaced a file
                yield _look(process.pid, folder, stage, time.monotonic() - started)
        time.sleep(every)


def _look(process: int, folder: Path, stage: str, seconds: float) -> Sample:
    status = process_status(process)
    logs = folder / ("policy" if stage == EVALUATION else stage) / "tensorboard"
    events = EventAccumulator(str(logs), size_guidance={"scalars": 0}).Reload()
    names = events.Tags()["scalars"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    checkpoints = [path for path in files if path.suffix == ".ckpt"]
    return Sample(
        seconds=round(seconds, 1),
        stage=stage,
        memory=round(int(status["RssAnon"].split()[0]) / 1024, 1),
        open_files=len(os.listdir(f"/proc/{process}/fd")),
        threads=int(status["Threads"]),
        logs=_megabytes([path for path in files if path not in checkpoints and path.suffix != ".safetensors"]),
        checkpoints=_megabytes(checkpoints),
        logged_steps=max((len(events.Scalars(name)) for name in names), default=0),
    )


def _megabytes(paths: list[Path]) -> float:
    return round(sum(path.stat().st_size for path in paths) / 2**20, 2)


def _table(samples: list[Sample]) -> Iterator[str]:
    """The last look in each part of each stage."""
    yield "| stage | part | memory, MiB | open files | threads | logs, MiB | checkpoints, MiB | logged steps |"
    yield "|---|---|---|---|---|---|---|---|"
    for stage in (*SHARES, EVALUATION):
        looks = [sample for sample in samples if sample.stage == stage]
        for part in range(1, PARTS + 1):
            if len(looks) >= PARTS:
                look = looks[len(looks) * part // PARTS - 1]
                sizes = f"{look.logs:.2f} | {look.checkpoints:.2f}"
                counts = f"{look.memory:.0f} | {look.open_files} | {look.threads}"
                yield f"| {stage} | {part}/{PARTS} | {counts} | {sizes} | {look.logged_steps} |"


if __name__ == "__main__":
    main()
