"""Updates per second of both stages on 1, 2 and 4 processes: ``python -m benchmarks.scaling``.

Every process learns from rows of its own, so twice the processes at the same updates per second is twice the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from benchmarks.workloads import SHAPES, UPDATES, RandomData, offsim, policy_learner
from lit_modules.method import Method

WARM_UP = 2  # training steps that are not counted


class Clock(Callback):
    """Writes the seconds of an update, averaged over all training steps but the first two."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_index: int) -> None:
        if batch_index == WARM_UP:
            self.started = time.perf_counter()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        updates = (trainer.max_steps - WARM_UP) * UPDATES
        if trainer.is_global_zero:
            self.file.write_text(json.dumps((time.perf_counter() - self.started) / updates))


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="hopper")
    parser.add_argument("--steps", type=int, default=12, help=f"training steps, each of {UPDATES} updates")
    arguments = parser.parse_args()
    _, _, observation_size, action_size = SHAPES[arguments.shape]
    os.environ["OMP_NUM_THREADS"] = "1"  # of processes that Lightning starts
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print("| stage | exchanged per update | " + " | ".join(map(str, arguments.processes)) + " |")
        print("|---|" + "---|" * (1 + len(arguments.processes)))
        for name, streams in (
            ("transition (likelihood)", {"expert": 256, "all": 1792}),
            ("game", {"expert": 256, "all": 1792}),
            ("policy", {"expert": 128, "all": 128}),
        ):
            cells = []
            for processes in arguments.processes:
                torch.manual_seed(0)
                module: Method
                if name == "policy":
                    module = policy_learner(observation_size, action_size)
                else:
                    module = offsim(observation_size, action_size, 0 if name == "game" else 10**9)
                data = RandomData(observation_size, action_size, streams)
                cells.append(f"{1.0 / _seconds(module, data, processes, arguments.steps, folder / 'clock'):.1f}")
            print(f"| {name} | {_exchanged(module) / 2**20:.1f} MiB | {' | '.join(cells)} |", flush=True)


def _seconds(module: Method, data: RandomData, processes: int, steps: int, clock: Path) -> float:
    """Seconds of one update in so many processes."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_fork",
        max_steps=steps,
        logger=False,
        limit_val_batches=0,
        callbacks=[Clock(clock)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, datamodule=data)
    return float(json.loads(clock.read_text()))


def _exchanged(module: Method) -> int:
    """Bytes of all gradients."""
    return sum(4 * parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


if __name__ == "__main__":
    main()
