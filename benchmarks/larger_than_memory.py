"""A training on more data than its memory holds: ``python -m benchmarks.larger_than_memory --folder DIR``.

Writes a synthetic dataset of 20 million transitions once, trains all stages on it with a small limit of memory, and
measures how much of it was resident at most, and how many rows per second the data module reads, cold and warm.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

from app.collect_record import episode_buffer, new_dataset
from benchmarks.watching import process_status, stage_at_work
from datamodules import TransitionDataModule
from datamodules.errors import DataError
from zoo.episodes import Episode

OBSERVATION, ACTION, STEPS = 11, 3, 1000
EXPERT, DIVERSE = "large/expert-v0", "large/diverse-v0"
BATCH = 200  # episodes made at a time
LIMIT_MB = 256
READ = 200  # training batches that are timed
TRAIN = (
    "--behaviour_cloning.updates=200",
    "--behaviour_cloning.rows=all",
    "--simulator.updates=200",
    "--simulator.model.pretraining_updates=150",
    "--policy.updates=200",
    "--policy.model.compile=never",
    "--evaluation.episodes=2",
    "--accelerator=cpu",
)


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of datasets, cache and run; some 6 GB")
    parser.add_argument("--rows", type=int, default=20_000_000, help="transitions of the diverse data")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    datasets, cached = folder / "datasets", folder / "cache"
    os.environ.update(MINARI_DATASETS_PATH=str(datasets), OFFSIM_CACHE=str(cached), OMP_NUM_THREADS="1")
    started = time.perf_counter()
    for number, (dataset_id, episodes) in enumerate(((EXPERT, 10), (DIVERSE, arguments.rows // STEPS))):
        if not (datasets / dataset_id).exists():
            _record(datasets, dataset_id, episodes, number)
    print(f"datasets written in {time.perf_counter() - started:.0f} s: {_megabytes(datasets):,.0f} MB", flush=True)

    started = time.perf_counter()
    data = TransitionDataModule(
        EXPERT, diverse=DIVERSE, streams={"expert": 256, "all": 1792}, memory_limit_mb=LIMIT_MB, cache_dir=str(cached)
    )
    data.setup("fit")
    print(f"cache written and measured in {time.perf_counter() - started:.0f} s: {_megabytes(cached):,.0f} MB")
    for state in ("cold", "warm"):
        if state == "cold":
            _forget(cached)
        rows = READ * data.batches_per_step * sum(data.streams.values())
        started = time.perf_counter()
        for _ in islice(data.train_dataloader(), READ):
            pass
        print(f"{state}: {rows / (time.perf_counter() - started):,.0f} rows/s", flush=True)

    out = folder / "run"
    command = ["train", "own", "--expert", EXPERT, "--diverse", DIVERSE, f"--data.memory_limit_mb={LIMIT_MB}", *TRAIN]
    process = subprocess.Popen([sys.executable, "-m", "app", *command, f"--out={out}"])
    peaks: dict[str, dict[str, int]] = {}
    watch = threading.Thread(target=_watch, args=(process.pid, out, peaks))
    watch.start()
    status = process.wait()
    watch.join()
    for stage, figures in peaks.items():
        sizes = ", ".join(f"{name} {kilobytes / 2**20:.2f} GiB" for name, kilobytes in figures.items())
        print(f"{stage}: at most {sizes}")
    if status != 0:
        sys.exit(f"the training ended with {status}")


def _record(root: Path, dataset_id: str, episodes: int, seed: int) -> None:
    """A stable linear system with noise, and actions that are a noisy function of its state."""
    random = np.random.default_rng(seed)
    system = np.random.default_rng(7)
    moves = system.normal(size=(ACTION, OBSERVATION)) / 3
    acts = system.normal(size=(OBSERVATION, ACTION)) / 3

    def batches() -> Iterator[list[EpisodeBuffer]]:
        for first in range(0, episodes, BATCH):
            count = min(BATCH, episodes - first)
            observations = np.empty((STEPS + 1, count, OBSERVATION), dtype=np.float32)
            actions = np.empty((STEPS, count, ACTION), dtype=np.float32)
            observations[0] = random.normal(size=(count, OBSERVATION))
            for step in range(STEPS):
                noise = (0.1 if seed == 0 else 0.5) * random.normal(size=(count, ACTION))
                actions[step] = np.tanh(observations[step] @ acts + noise)
                drift = 0.05 * random.normal(size=(count, OBSERVATION))
                observations[step + 1] = 0.95 * observations[step] + actions[step] @ moves + drift
            yield [_episode(observations[:, row], actions[:, row]) for row in range(count)]

    parts = batches()
    with new_dataset(root, dataset_id):
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            next(parts),
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32),
            action_space=gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32),
            description="Synthetic, of benchmarks/larger_than_memory.py.",
            data_format="hdf5",
        )
        for part in parts:
            dataset.storage.update_episodes(part)


def _episode(observations: np.ndarray, actions: np.ndarray) -> EpisodeBuffer:
    rewards = np.zeros(STEPS, dtype=np.float32)
    return episode_buffer(Episode(observations, actions, rewards, terminated=False, truncated=True))


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _forget(folder: Path) -> None:
    """Have the system drop what it keeps of files in its memory."""
    for path in folder.rglob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _watch(process: int, folder: Path, peaks: dict[str, dict[str, int]]) -> None:
    """Note the most kilobytes that a process has had resident in each stage: of all, and of its own (not of files)."""
    while True:
        try:
            values = process_status(process)
        except (FileNotFoundError, ProcessLookupError):
            return
        if "VmRSS" not in values:
            return  # it has ended
        found = peaks.setdefault(stage_at_work(folder), {})
        for name, key in (("resident", "VmRSS"), ("without mapped files", "RssAnon")):
            found[name] = max(found.get(name, 0), int(values[key].split()[0]))
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"offsim: {error}")
