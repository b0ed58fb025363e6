"""Trainings that signals end, and checkpoints that are whole or not there."""

from __future__ import annotations

import errno
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from app import main as command
from app import train, trainers
from app.checkpoints import WholeCheckpointIO
from app.errors import UserError

STAGES = ("behaviour_cloning", "simulator", "weighted_cloning", "policy")
LONGER = [
    *(f"--{stage}.updates=300" for stage in STAGES),
    f"--stages=[{','.join(STAGES)}]",
    "--simulator.model.pretraining_updates=100",
    "--weighted_cloning.model.start_below=null",
]


class SignalAt(Callback):
    """Sends this process signals while one stage trains."""

    def __init__(self, stage: str, step: int, number: int, times: int = 1) -> None:
        self.stage, self.step, self.number, self.times = stage, step, number, times

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if Path(trainer.checkpoint_callback.dirpath).name == self.stage and trainer.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.fixture
def rare_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """None but at the end, so that what a signal saves is all that there is."""
    monkeypatch.setattr(train, "make_trainer", partial(trainers.make_trainer, validations=1))


def signalled(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    progress = trainers.training_progress
    sender = SignalAt(*arguments)
    monkeypatch.setattr(trainers, "training_progress", lambda name: [*progress(name), sender])


@pytest.fixture(scope="module")
def undisturbed(data_root: Path, tiny_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What each stage of a run comes to that nothing interrupts."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(data_root))
        patch.setattr(train, "make_trainer", partial(trainers.make_trainer, validations=1))
        assert command.main([*tiny_words, *LONGER, "--out", str(out)]) == 0
    return {stage: (out / f"{stage}.safetensors").read_bytes() for stage in STAGES}


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("behaviour_cloning", signal.SIGTERM),
        ("simulator", signal.SIGINT),
        ("weighted_cloning", signal.SIGINT),
        ("policy", signal.SIGTERM),
    ],
)
def test_a_signalled_training_goes_on_as_if_nothing_had_been(
    stage: str,
    number: signal.Signals,
    tiny: list[str],
    undisturbed: dict[str, bytes],
    rare_checkpoints: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        signalled(patch, stage, 2, number)
        assert command.main([*tiny, *LONGER, "--out", str(out)]) == 128 + number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    said = capsys.readouterr().err
    assert f"interrupted by {number.name}" in said and "the same command goes on" in said
    assert not (out / f"{stage}.safetensors").exists()
    updates = torch.load(out / stage / "last.ckpt", weights_only=True)["updates"]
    assert updates == 150  # the step under way was finished
    assert command.main([*tiny, *LONGER, "--out", str(out)]) == 0
    assert {each: (out / f"{each}.safetensors").read_bytes() for each in STAGES} == undisturbed
    assert torch.load(out / stage / "last.ckpt", weights_only=True)["updates"] == 300
    assert [each.name for each in (out / stage).glob("*.ckpt")] == ["last.ckpt"]


class SignalInLastValidation(Callback):
    """Sends this process a signal when nothing is left to train."""

    def on_validation_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == trainer.max_steps:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_during_the_last_validation_ends_the_command_too(
    tiny: list[str], undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*tiny, *LONGER, "--stages=[behaviour_cloning]", f"--out={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        progress = trainers.training_progress
        patch.setattr(trainers, "training_progress", lambda name: [*progress(name), SignalInLastValidation()])
        assert command.main(words) == 128 + signal.SIGTERM
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert command.main(words) == 0
    assert (tmp_path / "run" / "behaviour_cloning.safetensors").read_bytes() == undisturbed["behaviour_cloning"]


def test_a_second_signal_ends_it_at_once(
    tiny: list[str],
    rare_checkpoints: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    signalled(monkeypatch, "behaviour_cloning", 2, signal.SIGINT, 2)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):  # Lightning's way of ending
            command.main([*tiny, *LONGER, "--out", str(tmp_path / "run")])
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted twice, and ended at once" in capsys.readouterr().err
    assert not (tmp_path / "run" / "behaviour_cloning" / "last.ckpt").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder" / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"updates": 1}, target)
    left = target.with_name(".last.ckpt.12345.partial")
    left.write_bytes(b"of a process that was killed")

    def full(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match=r"cannot be written .*No space left.* is kept; make room"):
            WholeCheckpointIO().save_checkpoint({"updates": 2}, target)
    assert [path.name for path in target.parent.iterdir()] == ["last.ckpt"]
    assert torch.load(target, weights_only=True) == {"updates": 1}
    WholeCheckpointIO().save_checkpoint({"updates": 3}, target)
    assert torch.load(target, weights_only=True) == {"updates": 3}


class RunsWhenRead:
    """What a checkpoint of someone else may hold."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_a_checkpoint_that_is_none_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    good, mark = tmp_path / "good.ckpt", tmp_path / "mark"
    WholeCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.ones(3)}}, good)
    assert torch.equal(WholeCheckpointIO().load_checkpoint(good)["state_dict"]["weight"], torch.ones(3))
    whole = good.read_bytes()
    bad = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"no checkpoint\n",
        "turned": whole[:200] + bytes(255 - byte for byte in whole[200:400]) + whole[400:],
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"state_dict": RunsWhenRead(mark)}, tmp_path / "code")
    for name in (*bad, "code"):
        with pytest.raises(UserError, match=f"{name} is no checkpoint"):
            WholeCheckpointIO().load_checkpoint(tmp_path / name)
    assert not mark.exists()
    with pytest.raises(UserError, match="there is no checkpoint"):
        WholeCheckpointIO().load_checkpoint(tmp_path / "missing")
