"""Jobs of SLURM, as far as its variables, its signals and its ``scontrol`` go."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.connectors import signal_connector

from app import main as command
from app import stages
from app.interruption import SaveWhenInterrupted

STEPS = "--trainer.max_steps=4"
Words = Callable[..., list[str]]


def job(processes: int, rank: int = 0) -> dict[str, str]:
    """The variables of one of the processes of a job."""
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(processes),
        "SLURM_NTASKS_PER_NODE": str(processes),
        "SLURM_STEP_NUM_TASKS": str(processes),
        "SLURM_NODELIST": "localhost",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
    }


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """This process as that of a job; what is asked of SLURM."""
    asked: list[list[str]] = []
    monkeypatch.setattr(signal_connector, "call", lambda words: asked.append(words) or 0)
    for name, value in job(1).items():
        monkeypatch.setenv(name, value)
    return asked


def signalled(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, step: int) -> None:
    class Signalled(SaveWhenInterrupted):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == step:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(stages, "SaveWhenInterrupted", Signalled)


def test_a_job_goes_on_where_signals_have_ended_it(
    queued: list[list[str]],
    fit_words: Words,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(fit_words(tmp_path / "whole", 1, STEPS)) == 0
    folder = tmp_path / "run"
    before = signal.getsignal(signal.SIGUSR1)
    for step, number in enumerate((signal.SIGUSR1, signal.SIGTERM)):
        with monkeypatch.context() as patch:
            signalled(patch, number, step)
            assert command.main(fit_words(folder, 1, STEPS)) == 128 + number
        assert "the same command goes on" in capsys.readouterr().err
        (checkpoint,) = folder.glob("*.ckpt")  # the one before is gone
        assert torch.load(checkpoint, weights_only=True)["global_step"] == step + 1  # the step under way was finished
    assert queued == [["scontrol", "requeue", "77"]]  # and SIGTERM is to end the job
    assert command.main(fit_words(folder, 1, STEPS)) == 0
    assert (folder / "policy.safetensors").read_bytes() == (tmp_path / "whole" / "policy.safetensors").read_bytes()
    assert not list(folder.glob("*.ckpt"))  # or the next training here would go on from it
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_to_one_process_of_a_job_ends_all_and_requeues_once(fit_words: Words, tmp_path: Path) -> None:
    folder, asked = tmp_path / "run", tmp_path / "asked"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    place["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    logs = [tmp_path / f"log{rank}" for rank in range(2)]
    processes = []
    for rank, log in enumerate(logs):
        with log.open("w") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "app", *fit_words(folder, 2, "--trainer.max_steps=1000000")],
                    env={**os.environ, **job(2, rank), **place},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        deadline = time.monotonic() + 120
        while not list(folder.rglob("events.*")):
            assert all(process.poll() is None for process in processes), logs[0].read_text() + logs[1].read_text()
            assert time.monotonic() < deadline, logs[0].read_text()
            time.sleep(0.2)
        time.sleep(1)  # let training begin: before it, the signal ends a process
        processes[1].send_signal(signal.SIGUSR1)
        statuses = [process.wait(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert statuses == [128 + signal.SIGUSR1, 0], logs[0].read_text()  # the first speaks for all
    assert asked.read_text() == "requeue 77\n"
    assert len(torch.load(folder / "hpc_ckpt_1.ckpt", weights_only=True)["ranks"]) == 2


@pytest.mark.parametrize(
    ("devices", "changed", "sentence"),
    [
        (1, {}, "ask for 1 processes, but SLURM has started 2: begin with srun --nodes 1 --ntasks-per-node 1"),
        (2, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, "ask for 2 processes, but SLURM has started 1"),
        (2, {"SLURM_STEP_NUM_TASKS": None}, "ask for 2 processes, but SLURM has started 1"),  # a script without srun
        (2, {"SLURM_JOB_NAME": "interactive"}, "in a job called 'interactive' Lightning starts its own"),
        (2, {"SLURM_NTASKS_PER_NODE": None}, "Use `--ntasks-per-node=2` instead"),
    ],
)
def test_processes_that_would_not_train_together_are_refused(
    devices: int,
    changed: dict[str, str | None],
    sentence: str,
    fit_words: Words,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for variable, value in {**job(2), **changed}.items():
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert command.main(fit_words(tmp_path / "run", devices, STEPS)) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_train_is_no_process_of_a_job(
    queued: list[list[str]], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would save into the current folder, and every training there would go on from that."""
    monkeypatch.chdir(tmp_path)
    words = [*tiny, "--stages=[behaviour_cloning]", f"--out={tmp_path / 'run'}"]

    def signal_once(self: SaveWhenInterrupted, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 0:
            os.kill(os.getpid(), signal.SIGUSR1)

    with monkeypatch.context() as patch:
        patch.setattr(SaveWhenInterrupted, "on_train_batch_start", signal_once)
        assert command.main(words) == 128 + signal.SIGUSR1
    assert (tmp_path / "run" / "behaviour_cloning" / "last.ckpt").exists()
    assert not queued and not list(tmp_path.glob("*.ckpt"))
    assert command.main(words) == 0
