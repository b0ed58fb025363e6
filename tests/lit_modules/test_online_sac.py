"""The online expert's training: what it stores, saves and continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from lit_modules.online_sac import OnlineSAC
from zoo.episodes import interleaved_episodes
from zoo.policy import Policy

SMALL: dict[str, Any] = {
    "environments": 3,
    "steps_per_iteration": 10,
    "updates_per_step": 1,
    "warmup_steps": 15,
    "buffer_size": 300,
    "batch_size": 8,
    "hidden_sizes": (8,),
    "evaluate_every": 2,
    "evaluation_episodes": 2,
}


def make_module(folder: Path, **changes: Any) -> OnlineSAC:
    torch.manual_seed(0)
    return OnlineSAC("hopper", snapshots=str(folder / "snapshots"), **{**SMALL, **changes})


def train(module: OnlineSAC, steps: int, checkpoint: Path | None = None) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    return trainer


def episodes(rows: TensorDict, environments: int) -> list[Any]:
    return interleaved_episodes(
        rows["observation"].numpy(),
        rows["action"].numpy(),
        rows["next", "observation"].numpy(),
        rows["next", "reward"][:, 0].numpy(),
        rows["next", "terminated"][:, 0].numpy(),
        rows["next", "truncated"][:, 0].numpy(),
        environments,
    )


def test_counts_evaluations_and_snapshots(tmp_path: Path) -> None:
    module = make_module(tmp_path)
    train(module, 4)
    assert module.vector_steps == 40 and len(module.replay) == 120
    assert module.updates == 40 - 15
    assert [entry["steps"] for entry in module.evaluations] == [60, 120]
    for entry in module.evaluations:
        snapshot = Policy.load(tmp_path / "snapshots" / f"{entry['updates']:08d}.safetensors")
        assert snapshot.action_size == 3
    last = Policy.load(tmp_path / "snapshots" / f"{module.updates:08d}.safetensors")
    for name, value in module.policy.state_dict().items():
        assert torch.equal(value, last.state_dict()[name])


def test_updates_change_actor_critics_and_targets(tmp_path: Path) -> None:
    module = make_module(tmp_path)
    before = {name: value.clone() for name, value in module.loss.state_dict().items()}
    train(module, 3)
    changed = {name for name, value in module.loss.state_dict().items() if not torch.equal(value, before[name])}
    assert "log_alpha" in changed
    for part in ("actor_network_params", "qvalue_network_params", "target_qvalue_network_params"):
        assert any(name.startswith(part) for name in changed), part


@pytest.mark.parametrize("stopped", [1, 4])  # while actions are still random, and with a buffer that is full
def test_an_interrupted_training_ends_bit_for_bit_as_one_never_interrupted(stopped: int, tmp_path: Path) -> None:
    whole = make_module(tmp_path / "whole", buffer_size=90)
    train(whole, 6)
    train(make_module(tmp_path, buffer_size=90), stopped).save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(17)  # another process
    resumed = OnlineSAC("hopper", snapshots=str(tmp_path / "snapshots"), **{**SMALL, "buffer_size": 90})
    train(resumed, 6, tmp_path / "last.ckpt")
    assert resumed.vector_steps == 60 and resumed.updates == 45
    assert resumed.evaluations == whole.evaluations
    for one, other in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    rows, others = resumed.replay[:], whole.replay[:]
    for key in ("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "terminated")):
        assert torch.equal(rows[key], others[key]), key


def test_no_episodes_are_joined_and_no_start_is_used_twice(tmp_path: Path) -> None:
    module = make_module(tmp_path)
    train(module, 6)
    found = episodes(module.replay[:], 3)  # refuses rows that do not follow one another
    assert sum(len(episode) for episode in found) == 180
    starts = {episode.observations[0].tobytes() for episode in found}
    assert len(starts) == len(found)


def test_training_is_repeatable(tmp_path: Path) -> None:
    first, second = make_module(tmp_path / "a"), make_module(tmp_path / "b")
    for module in (first, second):
        torch.manual_seed(5)
        train(module, 3)
    assert torch.equal(first.replay[:]["action"], second.replay[:]["action"])
    assert first.evaluations == second.evaluations


def test_a_checkpoint_holds_only_the_filled_part_of_the_buffer(tmp_path: Path) -> None:
    module = make_module(tmp_path, buffer_size=300_000, steps_per_iteration=5)
    train(module, 1).save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_size < 1_000_000


def test_a_buffer_that_would_mix_environments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple"):
        make_module(tmp_path, buffer_size=100)


def test_terminal_states_and_timeouts_are_told_apart(tmp_path: Path) -> None:
    module = make_module(tmp_path, warmup_steps=1000)
    for _ in range(60):
        module._step_environments()
    rows = module.replay[:]
    terminated = rows["next", "terminated"][:, 0].numpy()
    # Random actions fall long before the time limit, so every ending is a fall, and no fall goes unmarked.
    rule = module.task.termination
    assert rule is not None
    assert np.array_equal(rule(rows["next", "observation"]).numpy(), terminated)
    assert terminated.any() and not rows["next", "truncated"].any()
