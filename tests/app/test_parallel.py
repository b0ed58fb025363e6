"""Several processes train one network: what they share, what each has of its own, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torch.multiprocessing import ProcessRaisedException

from app import main as command
from app.checkpoints import WholeCheckpointIO
from app.interruption import SaveWhenInterrupted
from app.trainers import several
from datamodules import TransitionDataModule
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.method import Method
from lit_modules.offline_ml_irl import OfflineMLIRL
from lit_modules.offsim import OffSim
from lit_modules.parallel import refuse_other_strategies
from lit_modules.simulator_ppo import SimulatorPPO
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.simulator_td3 import SimulatorTD3
from zoo import Policy, Simulator
from zoo.start_states import StartStates

SPACES: dict[str, Any] = {"observation_size": 11, "action_low": [-1.0] * 3, "action_high": [1.0] * 3}
GAME: dict[str, Any] = {
    "task": "hopper",
    "members": 3,
    "transition_hidden_sizes": (8, 8),
    "reward_hidden_sizes": (8, 8),
    "proposal": {"dataset": 0.5, "uniform": 0.5},
    "horizon": 3,
    "starts": 8,
    "pretraining_updates": 10,
    "forecast_updates": 4,
    "margin_weight": 1.0,
    "entropy_weight": "tuned",
}
LEARNING: dict[str, Any] = {
    **SPACES,
    "hidden_sizes": (8, 8),
    "horizon": 4,
    "starts": 10,
    "uncertainty_weight": "tuned",
    "refresh_every": 7,
    "buffer_size": 60,
    "batch_size": 16,
}
PLAYING = {
    **{name: value for name, value in LEARNING.items() if name not in ("refresh_every", "buffer_size")},
    "minibatches": 3,
    "epochs": 2,
    "target_kl": 1e-4,
}
METHODS = ("cloning", "game", "sac", "td3", "ppo", "ml_irl")


class Witness(Callback):
    """Writes down what each rank holds when its training ends, and which rows it saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_index: int) -> None:
        self.rows.append(batch["expert"]["row"].clone())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        tensors = {**dict(pl_module.named_parameters()), **dict(pl_module.named_buffers())}
        seen = {
            "tensors": {name: tensor.detach().clone() for name, tensor in tensors.items()},
            "noise": torch.rand(5, generator=pl_module.random.generator.clone_state()),
            "rows": torch.stack(self.rows),
            "logged": {name: value.clone() for name, value in trainer.logged_metrics.items()},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(self.folder / "last.ckpt")
        torch.save(seen, self.folder / f"{trainer.global_rank}.pt")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning leaves an empty folder behind for each training of several processes."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of a Simulator of Hopper that has learned nothing."""
    torch.manual_seed(0)
    module = OffSim(**SPACES, **GAME)
    module.reward.standardize(torch.linspace(1.0, 3.0, 50), torch.linspace(-1.0, 1.0, 50))
    made = Simulator(
        module.transition,
        module.reward,
        module.termination,
        start_states=StartStates.of(torch.tensor([[1.25] + [0.0] * 10]).expand(5, -1)),  # standing
        action_low=SPACES["action_low"],
        action_high=SPACES["action_high"],
        task="hopper",
    )
    made.calibrate_uncertainty(torch.randn(100, 11), torch.randn(100, 3))
    path = tmp_path_factory.mktemp("simulator") / "simulator.safetensors"
    made.save(path)
    return str(path)


def make(name: str, simulator: str) -> Method:
    lightning.seed_everything(0, verbose=False)
    if name == "cloning":
        return BehaviourCloning(**SPACES, hidden_sizes=(8,))
    if name == "game":
        return OffSim(**SPACES, **GAME)
    if name == "ppo":
        return SimulatorPPO(simulator, **PLAYING)
    method = {"sac": SimulatorSAC, "td3": SimulatorTD3, "ml_irl": OfflineMLIRL}[name]
    return method(simulator, **LEARNING)


def fit(
    module: Method,
    folder: Path,
    ranks: int = 1,
    steps: int = 3,
    rows: int = 16,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callback] = (),
    strategy: str = "",
) -> list[dict[str, Any]]:
    """Train in so many processes; what each of them held at the end."""
    data = TransitionDataModule(
        "tiny/hopper/expert-v0",
        diverse="tiny/hopper/other-v0",
        streams={"expert": rows, "diverse": rows, "all": 42 * rows // 16},
        batches_per_step=10,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=strategy or ("auto" if ranks == 1 else "ddp_fork"),
        max_steps=steps,
        logger=False,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[Witness(folder), *callbacks],
        plugins=[WholeCheckpointIO()],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint))
    return [torch.load(folder / f"{rank}.pt") for rank in range(ranks)]


@pytest.fixture(autouse=True)
def _data(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    pairs = [(one["tensors"][name].float(), other["tensors"][name].float()) for name in one["tensors"]]
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel() > 0)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", METHODS)
def test_ranks_hold_the_same_networks_and_noise_of_their_own(
    name: str, ranks: int, simulator: str, tmp_path: Path
) -> None:
    seen = fit(make(name, simulator), tmp_path, ranks)
    for other in seen[1:]:
        assert other["tensors"].keys() == seen[0]["tensors"].keys()
        for tensor in seen[0]["tensors"]:
            assert torch.equal(other["tensors"][tensor], seen[0]["tensors"][tensor]), tensor
        if name != "cloning":  # which draws none
            assert not torch.equal(other["noise"], seen[0]["noise"])
        assert not torch.equal(other["rows"], seen[0]["rows"])
        for value in seen[0]["logged"]:
            assert torch.equal(other["logged"][value], seen[0]["logged"][value]), value


def test_ranks_end_where_one_process_with_all_their_rows_does(simulator: str, tmp_path: Path) -> None:
    alone = fit(make("cloning", simulator), tmp_path / "alone", rows=64)[0]
    for ranks in (2, 4):
        seen = fit(make("cloning", simulator), tmp_path / str(ranks), ranks, rows=64 // ranks)
        assert torch.equal(torch.cat([each["rows"] for each in seen], dim=-1), alone["rows"])
        assert largest_difference(seen[0], alone) < 1e-5
    other = fit(make("cloning", simulator), tmp_path / "fewer", rows=32)[0]
    assert largest_difference(other, alone) > 1e-3


@pytest.mark.parametrize("name", ["game", "ml_irl", "ppo"])
def test_resumed_ranks_end_bit_for_bit_as_uninterrupted_ones(name: str, simulator: str, tmp_path: Path) -> None:
    whole = fit(make(name, simulator), tmp_path / "whole", 2, steps=4)
    fit(make(name, simulator), tmp_path / "first", 2, steps=2)
    resumed = fit(make(name, simulator), tmp_path / "second", 2, steps=4, checkpoint=tmp_path / "first" / "last.ckpt")
    for one, other in zip(whole, resumed, strict=True):
        assert largest_difference(one, other) == 0.0
        assert torch.equal(one["noise"], other["noise"])
        assert torch.equal(one["rows"][2:], other["rows"])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_checkpoint_of_some_ranks_continues_on_others(before: int, after: int, simulator: str, tmp_path: Path) -> None:
    fit(make("sac", simulator), tmp_path / "first", before, steps=2)
    seen = fit(make("sac", simulator), tmp_path / "second", after, steps=4, checkpoint=tmp_path / "first" / "last.ckpt")
    assert all(largest_difference(seen[0], other) == 0.0 for other in seen)
    assert len({each["noise"].sum().item() for each in seen}) == after


class SignalInOne(Callback):
    """Sends one of the processes a signal."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            os.kill(os.getpid(), signal.SIGTERM)


def test_signal_in_one_process_ends_all_with_everything_saved(simulator: str, tmp_path: Path) -> None:
    whole = fit(make("td3", simulator), tmp_path / "whole", 2, steps=5)
    with pytest.raises(ProcessRaisedException, match=r"Interrupted: interrupted by SIGTERM; .*last\.ckpt"):
        callbacks = [SaveWhenInterrupted(), SignalInOne(step=2, rank=1)]
        fit(make("td3", simulator), tmp_path / "first", 2, steps=5, callbacks=callbacks)
    checkpoint = tmp_path / "first" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 3
    resumed = fit(make("td3", simulator), tmp_path / "second", 2, steps=5, checkpoint=checkpoint)
    assert all(largest_difference(*pair) == 0.0 for pair in zip(whole, resumed, strict=True))


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the other process in /proc")
def test_process_that_dies_ends_the_command_with_a_sentence(
    tmp_path: Path, fit_words: Callable[..., list[str]]
) -> None:
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        first = subprocess.Popen(
            [sys.executable, "-m", "app", *fit_words(tmp_path, 2, "--trainer.max_steps=1000000")],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 120
        while "Trainable params" not in log.read_text():  # printed when all have met
            assert first.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        (other,) = [int(child) for child in children if b"--trainer.devices=2" in _command_line(int(child))]
        os.kill(other, signal.SIGKILL)
        assert first.wait(timeout=60) not in (0, None)
    finally:
        first.kill()
    # Lightning looks for ended processes every five seconds: whichever notices first says so, and ends the command
    ours = "offsim: process 0 of 2 waits in vain for the others: one of them has ended"
    lightnings = f"PID {other} terminated with code -9"
    assert ours in log.read_text() or lightnings in log.read_text(), log.read_text()
    assert not (tmp_path / "policy.safetensors").exists()


def _command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def test_strategies_that_share_out_the_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"FSDPStrategy cannot train this.*--trainer\.strategy ddp"):
        refuse_other_strategies(FSDPStrategy())
    refuse_other_strategies(DDPStrategy())


def test_strategy_that_cannot_be_had_here_is_a_sentence(
    tmp_path: Path, fit_words: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(fit_words(tmp_path, 2, "--trainer.strategy=fsdp")) == 2
    assert "offsim: " in capsys.readouterr().err


def test_train_on_two_devices_leaves_one_run(tiny_words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command.main([*tiny_words, "--stages=[behaviour_cloning]", "--devices=2", f"--out={out}"]) == 0
    assert json.loads((out / "metrics.json").read_text())["behaviour_cloning"]["episodes"] == 2
    checkpoint = torch.load(out / "behaviour_cloning" / "last.ckpt", weights_only=True)
    assert len(checkpoint["ranks"]) == 2
    policy = Policy.load(out / "behaviour_cloning.safetensors")
    for name, tensor in policy.network.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][f"policy.network.{name}"], tensor)


def test_training_ends_with_a_checkpoint_when_the_command_is_gone(tiny_words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    endless = ["--stages=[behaviour_cloning]", "--behaviour_cloning.updates=1000000", "--devices=2", f"--out={out}"]
    program = subprocess.Popen([sys.executable, "-m", "app", *tiny_words, *endless])
    try:
        metrics = out / "behaviour_cloning" / "metrics.csv"
        deadline = time.monotonic() + 120
        while not metrics.exists():
            assert program.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        program.kill()
        program.wait()
    while not (out / "behaviour_cloning" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    checkpoint = torch.load(out / "behaviour_cloning" / "last.ckpt", weights_only=True)
    assert len(checkpoint["ranks"]) == 2 and checkpoint["updates"] < 1_000_000


@pytest.mark.parametrize("late", [False, True], ids=["before", "while it starts"])
def test_a_process_ends_with_the_one_that_started_it(late: bool) -> None:
    waits = f"import time; time.sleep({3 * late}); from app.orphans import end_with_starter; end_with_starter()"
    waits += "; print('watches', flush=True); time.sleep(600)"
    starts = "import os, subprocess, sys; from app.orphans import end_with_starter; end_with_starter()"
    starts += "; print('starts', flush=True); os.environ['LOCAL_RANK'] = '1'"
    starts += f"; subprocess.Popen([sys.executable, '-c', {waits!r}]).wait()"
    starter = subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None and starter.stdout.readline() == "starts\n"
    if late:
        time.sleep(1.0)  # the other has begun, and does not watch yet
    else:
        assert starter.stdout.readline() == "watches\n"
    starter.kill()
    starter.communicate(timeout=120)  # returns when both have ended


def test_one_process_with_the_strategy_of_several(simulator: str, tmp_path: Path) -> None:
    one, other = (
        fit(make("game", simulator), tmp_path / strategy, strategy=strategy)[0] for strategy in ("auto", "ddp_fork")
    )
    assert largest_difference(one, other) == 0.0


def test_seeds_together_on_two_devices_are_refused(
    tiny_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in tiny_words if not word.startswith("--seed")]
    assert command.main([*words, "--seeds=0..1", "--devices=2", f"--out={tmp_path / 'runs'}"]) == 2
    assert "seeds are trained together on one device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("devices", "several_of_them"),
    [(1, False), ("1", False), ([0], False), (2, True), ("auto", True), (-1, True), ([0, 1], True), ("0,1", True)],
)
def test_devices_that_may_be_several(devices: Any, several_of_them: bool) -> None:
    assert several(devices) == several_of_them
