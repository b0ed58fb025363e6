"""``offsim collect`` from the first iteration to datasets that Minari reads."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import collect
from app.collect_expert import Training, claim_folder, read_settings
from app.collect_mixed import Mixture
from app.collect_record import datasets_in, new_dataset, repack
from app.errors import Interrupted, UserError
from app.stored_actions import read_actions, write_actions
from datamodules.sources import PUBLISHED_ROOT
from lit_modules.online_sac import OnlineSAC
from zoo.episodes import Episode, policy_actions, reproduces, run_episodes
from zoo.files import sha256
from zoo.policy import Policy
from zoo.tasks import get_task

SETTINGS = """
iterations: 6
checkpoint_every: 2
environments: 3
steps_per_iteration: 20
updates_per_step: 1
warmup_steps: 10
buffer_size: 3000
batch_size: 8
hidden_sizes: [8]
evaluate_every: 2
evaluation_episodes: 2
"""
TASK = get_task("hopper")


class Stopped(Exception):
    """Stands for whatever ends a training half-way."""


def collect_with(folder: Path, *words: str) -> int:
    """Run the command with small settings, everything below ``folder``."""
    parser = argparse.ArgumentParser()
    collect.configure(parser)
    settings = folder / "settings.yaml"
    if not settings.exists():
        settings.write_text(SETTINGS)
    places = ["--config", str(settings), "--out", str(folder / "run"), "--dataset-root", str(folder / "data")]
    return collect.run(parser.parse_args(["hopper", *places, *words]))


def load(folder: Path, level: str) -> minari.MinariDataset:
    with datasets_in(folder / "data"):
        return minari.load_dataset(f"offsim/hopper/{level}-v0")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection that was interrupted in its fifth iteration, after the checkpoint of the fourth, and repeated."""
    folder = tmp_path_factory.mktemp("collected")
    step, calls = OnlineSAC.training_step, 0

    def stopping(self: OnlineSAC, batch: Any, batch_index: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Stopped
        step(self, batch, batch_index)

    words = ("--episodes", "4", "--steps", "100", "--replay-until", "expert")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnlineSAC, "training_step", stopping)
        with pytest.raises(Stopped):
            collect_with(folder, *words)
        assert not list((folder / "data").rglob("*.hdf5"))
        assert Training(folder / "run").iterations == 4
        assert collect_with(folder, *words) == 0
    assert calls == 7  # four, the one that failed, and the two that were missing
    return folder


def test_an_interrupted_training_is_continued(collected: Path) -> None:
    training = Training(collected / "run")
    assert training.iterations == 6
    assert [entry.steps for entry in training.evaluations] == [120, 240, 360]
    assert all(entry.snapshot.is_file() for entry in training.evaluations)
    episodes = training.episodes(360)
    assert sum(len(episode) for episode in episodes) == 360
    assert sum(len(episode) for episode in training.episodes(200)) == 200


def test_a_signal_ends_the_training_and_the_same_command_ends_as_if_there_had_been_none(
    collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = OnlineSAC.training_step

    def signalled(self: OnlineSAC, batch: Any, batch_index: int) -> None:
        step(self, batch, batch_index)
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    words = ("--levels", "expert", "replay", "--episodes", "4", "--replay-until", "expert")
    with monkeypatch.context() as patch:
        patch.setattr(OnlineSAC, "training_step", signalled)
        with pytest.raises(Interrupted, match="SIGTERM"):
            collect_with(tmp_path, *words)
    assert Training(tmp_path / "run").iterations == 3
    assert collect_with(tmp_path, *words) == 0
    one, other = Training(tmp_path / "run"), Training(collected / "run")
    assert [entry.mean_return for entry in one.evaluations] == [entry.mean_return for entry in other.evaluations]
    for name in ("run/expert.safetensors", "run/snapshots"):
        files = [tmp_path / name] if (tmp_path / name).is_file() else sorted((tmp_path / name).iterdir())
        assert files and all(sha256(file) == sha256(collected / file.relative_to(tmp_path)) for file in files)


def test_the_same_command_again_changes_nothing(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (collected / "data").rglob("*") if path.is_file()}
    assert collect_with(collected, "--episodes", "4", "--steps", "100", "--replay-until", "expert") == 0
    printed = capsys.readouterr().out
    assert "all 6 iterations were done before" in printed
    assert printed.count("recorded before") == 5
    assert before == {path: path.stat().st_mtime_ns for path in (collected / "data").rglob("*") if path.is_file()}
    assert not list((collected / "data").glob(".offsim*"))


def test_a_missing_dataset_alone_is_recorded_again(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = collected / "data" / "offsim" / "hopper" / "medium-v0"
    before = sha256(dataset / "data" / "main_data.hdf5")
    shutil.rmtree(dataset)
    assert collect_with(collected, "--episodes", "4", "--steps", "100", "--replay-until", "expert") == 0
    assert capsys.readouterr().out.count("recorded before") == 4
    assert sha256(dataset / "data" / "main_data.hdf5") == before


@pytest.mark.parametrize("level", collect.LEVELS)
def test_minari_reads_every_level(collected: Path, level: str) -> None:
    dataset = load(collected, level)
    assert dataset.observation_space.dtype == np.float32
    environment = dataset.recover_environment()
    assert environment.spec is not None and environment.spec.id == "Hopper-v5"
    environment.close()
    metadata = dataset.storage.metadata
    assert metadata["author"] == {"offsim"} and metadata["algorithm_name"]
    recipe = metadata["offsim"]
    assert recipe["seed"] == 0 and recipe["level"] == level and recipe["code"]
    totals = [episode.rewards.sum() for episode in dataset.iterate_episodes()]
    assert recipe["returns"]["mean"] == pytest.approx(np.mean(totals))
    assert recipe["returns"]["max"] == pytest.approx(max(totals))
    for episode in dataset.iterate_episodes():
        assert episode.observations.dtype == np.float32 and episode.actions.dtype == np.float32
        assert len(episode.observations) == len(episode.actions) + 1 == len(episode.rewards) + 1
        assert not episode.terminations[:-1].any() and not episode.truncations[:-1].any()
        assert episode.terminations[-1] or episode.truncations[-1]
        assert TASK.termination is not None
        # The last observation is there, and it is the one that the rule calls terminal.
        fell = TASK.termination(torch.from_numpy(episode.observations)).numpy()
        assert fell[-1] == episode.terminations[-1] and not fell[:-1].any()
    card = (collected / "data" / "offsim" / "hopper" / f"{level}-v0" / "card.md").read_text()
    assert sha256(Path(dataset.spec.data_path) / "main_data.hdf5") in card and recipe["command"] in card
    assert str(collected) not in card


def test_numbers_of_episodes_and_steps(collected: Path) -> None:
    assert load(collected, "expert").total_episodes == load(collected, "medium").total_episodes == 4
    assert 50 < load(collected, "replay").total_steps <= 100
    assert 100 <= load(collected, "random").total_steps < 200


def test_the_chosen_snapshots(collected: Path) -> None:
    training = Training(collected / "run")
    returns = [entry.mean_return for entry in training.evaluations]
    assert training.expert().mean_return == max(returns)
    start = min(17.6, *returns)  # random actions return 17.6
    medium = next(entry for entry in training.evaluations if entry.mean_return >= start + (max(returns) - start) / 3)
    assert training.part_way(collect.MEDIUM, TASK.random_return) == medium
    assert sha256(collected / "run" / "expert.safetensors") == sha256(training.expert().snapshot)
    dataset = load(collected, "expert")
    assert dataset.storage.metadata["offsim"]["policy_sha256"] == sha256(training.expert().snapshot)
    assert "best of 3 evaluations" in dataset.storage.metadata["description"]
    seeds = [entry["seed"] for entry in dataset.storage.get_episode_metadata(range(4))]
    policy = Policy.load(training.expert().snapshot)
    again = run_episodes(TASK.make, policy_actions(policy), 4, seeds[0])
    for one, other in zip(dataset.iterate_episodes(), again, strict=True):
        assert np.array_equal(one.observations, other.observations)
        assert np.array_equal(one.rewards, other.rewards)


def test_mixed_data_are_of_many_qualities_and_none_of_the_best(collected: Path) -> None:
    training, dataset = Training(collected / "run"), load(collected, "mixed")
    assert dataset.total_steps <= 100
    recipe = dataset.storage.metadata["offsim"]
    returns = [each["evaluation_return"] for each in recipe["snapshots"]]
    best = training.part_way(2 / 3, TASK.random_return)
    assert returns == sorted(returns) and best.mean_return in returns
    seeds = [entry["seed"] for entry in dataset.storage.get_episode_metadata(range(dataset.total_episodes))]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 400_000_000
    assert all(
        reproduces(
            TASK.make,
            Episode(e.observations, e.actions, e.rewards, bool(e.terminations[-1]), bool(e.truncations[-1]), s),
        )
        for e, s in zip(dataset.iterate_episodes(), seeds, strict=True)
    )


def test_mixed_data_share_their_steps_between_qualities(collected: Path) -> None:
    mixture = Mixture.of(Training(collected / "run"), TASK)
    reported: list[int] = []
    episodes = mixture.record(collect._action_space(TASK), 1_000, 5, reported.append)
    cast = 1 + 3 * len(mixture.snapshots)
    steps = [0] * cast
    for episode in episodes:
        steps[(episode.seed - 5) // 2_000] += len(episode)
    assert sum(steps) <= 1_000 and min(steps) > 0.3 * 1_000 / cast
    assert reported == sorted(reported) and reported[-1] == 1_000


def test_replay_is_what_the_agent_saw(collected: Path) -> None:
    training = Training(collected / "run")
    known = {episode.observations.tobytes() for episode in training.episodes(training.expert().steps)}
    for episode in load(collected, "replay").iterate_episodes():
        assert episode.observations.tobytes() in known


@pytest.mark.parametrize(
    "words",
    [
        ("--levels", "expert", "--episodes", "5"),
        ("--levels", "expert", "--episodes", "4", "--noise", "0.1"),
        ("--levels", "replay", "--steps", "100"),
        ("--levels", "random", "--steps", "101"),
    ],
)
def test_another_recipe_does_not_pass_for_the_recorded_one(collected: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="--dataset-version 1"):
        collect_with(collected, *words)


def test_another_seed_does_not_continue_this_run(collected: Path) -> None:
    with pytest.raises(UserError, match="another seed"):
        collect_with(collected, "--seed", "1", "--namespace", "other")


def test_a_training_may_go_on_compiled(collected: Path, tmp_path: Path) -> None:
    shutil.copytree(collected / "run", tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    settings = {name: value for name, value in settings.items() if name not in ("task", "seed")}
    claim_folder(tmp_path / "run", "hopper", 0, settings | {"compile": "auto", "iterations": 9}, "another name")
    with pytest.raises(UserError, match="another gamma"):
        claim_folder(tmp_path / "run", "hopper", 0, settings | {"gamma": 0.5}, "another name")


def test_a_damaged_checkpoint_and_a_missing_snapshot_are_named(collected: Path, tmp_path: Path) -> None:
    shutil.copytree(collected / "run", tmp_path / "run")
    words = ("--levels", "expert", "--namespace", "other")
    Training(tmp_path / "run").expert().snapshot.unlink()
    with pytest.raises(UserError, match="is missing"):
        collect_with(tmp_path, *words)
    (tmp_path / "run" / "last.ckpt").write_bytes(b"half a checkp")
    with pytest.raises(UserError, match="damaged"):
        collect_with(tmp_path, *words)


def test_a_place_that_cannot_hold_datasets_is_refused_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match="data cannot be a folder to write to"):
        collect_with(tmp_path)
    assert not (tmp_path / "run").exists()
    (tmp_path / "data").unlink()
    (tmp_path / "actions").write_text("a file")
    with pytest.raises(UserError, match="actions cannot be a folder to write to"):
        collect_with(tmp_path, "--store-actions", str(tmp_path / "actions"))
    assert not (tmp_path / "run").exists()


def test_a_foreign_dataset_is_refused_before_any_training(collected: Path, tmp_path: Path) -> None:
    shutil.copytree(collected / "data", tmp_path / "data", dirs_exist_ok=True)
    with pytest.raises(UserError, match="minari delete offsim/hopper/medium-v0"):
        collect_with(tmp_path, "--levels", "medium", "--episodes", "4")
    assert not (tmp_path / "run").exists()


def test_a_given_policy_with_noise_compressed(collected: Path, tmp_path: Path) -> None:
    words = ("--expert", str(collected / "run" / "expert.safetensors"), "--episodes", "3", "--noise", "0.2")
    collect_with(tmp_path, *words, "--stochastic", "--compress", "--levels", "expert")
    assert not (tmp_path / "run").exists()
    dataset = load(tmp_path, "expert")
    assert dataset.total_episodes == 3
    assert "Gaussian noise of std 0.2" in dataset.storage.metadata["description"]
    with pytest.raises(UserError, match="replay data come from a training"):
        collect_with(tmp_path, *words, "--levels", "replay")


def test_what_a_killed_recording_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    killed = """
import os, signal, sys
from pathlib import Path
from app.collect_record import new_dataset
with new_dataset(Path(sys.argv[1]), "own/tank/log-v0") as folder:
    folder.mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)]).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    host = socket.gethostname()
    kept = {f".offsim-{host}-{os.getppid()}-0", f".offsim-{host}-none-0", f".offsim-other-{left.name}", ".offsim-0"}
    for name in kept:
        (tmp_path / name).mkdir()
    with new_dataset(tmp_path, "own/tank/log-v0") as folder:
        folder.mkdir(parents=True)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "own"}


def test_repacking_shrinks_and_keeps_every_value(collected: Path, tmp_path: Path) -> None:
    name = Path("offsim") / "hopper" / "random-v0"
    shutil.copytree(collected / "data" / name, tmp_path / name)
    before, data = load(collected, "random"), tmp_path / name / "data"
    with h5py.File(data / "main_data.hdf5", "a") as file:  # one array long enough to be worth compressing
        old = file["episode_0/observations"][()]
        del file["episode_0/observations"]
        file["episode_0/observations"] = np.concatenate([old] * 20)
    size = (data / "main_data.hdf5").stat().st_size
    repack(tmp_path / name)
    assert (data / "main_data.hdf5").stat().st_size < size / 2
    after = minari.MinariDataset(data)
    assert after.total_episodes == before.total_episodes
    for one, other in zip(before.iterate_episodes(), after.iterate_episodes(), strict=True):
        expected = np.concatenate([one.observations] * 20) if one.id == 0 else one.observations
        assert np.array_equal(expected, other.observations) and other.observations.dtype == np.float32
        assert np.array_equal(one.rewards, other.rewards) and np.array_equal(one.terminations, other.terminations)
    assert [path.name for path in sorted(data.iterdir())] == ["main_data.hdf5", "metadata.json"]
    seeds = [list(dataset.storage.get_episode_metadata(range(2))) for dataset in (before, after)]
    assert json.dumps(seeds[0], default=int) == json.dumps(seeds[1], default=int)


def test_the_shipped_settings_are_the_defaults() -> None:
    settings = read_settings("hopper")
    assert settings["iterations"] == 1000 and settings["checkpoint_every"] == 50
    module = OnlineSAC("hopper", buffer_size=4)
    assert settings["compile"] == "auto"
    for name in settings.keys() - {"iterations", "checkpoint_every", "buffer_size", "compile"}:
        value = module.hparams[name]
        assert settings[name] == (list(value) if isinstance(value, tuple) else value), name
    collected_rows = settings["iterations"] * settings["steps_per_iteration"] * settings["environments"]
    assert settings["buffer_size"] >= collected_rows  # or the replay dataset would lack its beginning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iteration: 3", "unknown setting 'iteration'"),
        ("gamma: high", "gamma is 'high'"),
        ("environments: true", "environments is True"),
        ("hidden_sizes: 8", "hidden_sizes is 8"),
        ("compile: fast", "compile is 'fast'"),
        ("compile: [never]", r"compile is \['never'\]"),
        ("- 1", "one setting per line"),
        ("a: [", "not a YAML file"),
    ],
)
def test_senseless_settings_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        collect_with(tmp_path, "--levels", "expert")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("namespace", ["", "../up", "/root", "a//b"])
def test_senseless_namespaces_are_refused(tmp_path: Path, namespace: str) -> None:
    with pytest.raises(UserError, match="namespace"):
        collect_with(tmp_path, "--namespace", namespace)


@pytest.fixture(scope="module")
def actions(collected: Path) -> Path:
    """Stored actions of a collection, recorded again beside it from the same training."""
    folder = collected / "actions"
    shutil.copytree(collected / "run", collected / "copy" / "run")
    shutil.copy(collected / "settings.yaml", collected / "copy" / "settings.yaml")
    words = ("--episodes", "4", "--steps", "100", "--replay-until", "expert", "--store-actions", str(folder))
    assert collect_with(collected / "copy", "--levels", "expert", "replay", *words) == 0
    return folder


def collect_again(folder: Path, actions: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    collect.configure(parser)
    places = ["--from-actions", str(actions), "--dataset-root", str(folder / "data")]
    return collect.run(parser.parse_args(["hopper", *places, *words]))


def test_a_dataset_is_made_again_from_its_actions_to_the_last_bit(
    collected: Path, actions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(path.name for path in actions.iterdir()) == ["expert-v0.safetensors", "replay-v0.safetensors"]
    assert collect_again(tmp_path, actions) == 0
    assert capsys.readouterr().out.count("equal to the stored one") == 2
    for level in ("expert", "replay"):
        name = f"data/offsim/hopper/{level}-v0/data"
        assert sha256(tmp_path / name / "main_data.hdf5") == sha256(collected / name / "main_data.hdf5")
        one, other = (json.loads((folder / name / "metadata.json").read_text()) for folder in (tmp_path, collected))
        assert one["offsim"]["content"] == other["offsim"]["content"]
        assert one["offsim"]["recorded_first_by"].startswith("offsim collect hopper --levels")
    assert collect_again(tmp_path, actions, "--levels", "replay") == 0
    assert capsys.readouterr().out.count("left as it is") == 1


def test_another_outcome_of_the_same_actions_is_said(
    actions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "actions").mkdir()
    stored = read_actions(actions / "replay-v0.safetensors")
    altered = stored.episodes(TASK)
    altered[0].rewards[-1] = 0.5
    facts = stored.facts
    words = (facts.algorithm, facts.description, facts.recipe, facts.command, facts.compressed, True)
    write_actions(tmp_path / "actions" / "replay-v0.safetensors", altered, *words)
    assert collect_again(tmp_path, tmp_path / "actions") == 0
    assert f"last digit: 1 of {len(altered)} episodes" in capsys.readouterr().out
    assert "Computed on another machine" in load(tmp_path, "replay").storage.metadata["description"]


def test_what_cannot_be_made_again_is_refused_in_a_sentence(collected: Path, actions: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no actions of hopper random are stored"):
        collect_again(tmp_path, actions, "--levels", "random")
    with pytest.raises(UserError, match="leave out --seed and --episodes"):
        collect_again(tmp_path, actions, "--episodes", "3", "--seed", "1")
    shutil.copytree(collected / "data", tmp_path / "data", dirs_exist_ok=True)
    other = tmp_path / "data/offsim/hopper/expert-v0/data/metadata.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"offsim": {}}))
    with pytest.raises(UserError, match="and holds other data"):
        collect_again(tmp_path, actions)
    whole = (actions / "expert-v0.safetensors").read_bytes()
    for number, content in enumerate((b"", whole[:100], whole[:-7], b"\x08" + bytes(7) + b"{}      ")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "expert-v0.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="or it is damaged"):
            collect_again(tmp_path, folder)
    with pytest.raises(UserError, match="takes 6"):
        read_actions(actions / "expert-v0.safetensors").episodes(get_task("halfcheetah"))
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match="exists: choose another folder"):
        collect_with(tmp_path / "again", "--levels", "expert", "--store-actions", str(actions))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), content=st.binary(min_size=1, max_size=40))
def test_a_file_of_actions_is_read_whole_or_refused(
    actions: Path, tmp_path: Path, place: float, content: bytes
) -> None:
    whole = bytearray((actions / "replay-v0.safetensors").read_bytes())
    at = int(place * len(whole))
    whole[at : at + len(content)] = content
    (tmp_path / "replay-v0.safetensors").write_bytes(whole)
    with contextlib.suppress(UserError):
        read = read_actions(tmp_path / "replay-v0.safetensors")
        assert read.lengths.sum() == len(read.actions) and len(read.seeds) == len(read.returns)


@pytest.mark.parametrize("file", sorted(PUBLISHED_ROOT.glob("*/*.safetensors")), ids=lambda path: path.stem)
def test_published_actions_lead_where_they_led(file: Path) -> None:
    published = read_actions(file)
    shortest = np.argsort(published.lengths, kind="stable")[:3].tolist()
    found = published.episodes(get_task(file.parent.name), shortest)
    np.testing.assert_array_equal([len(episode) for episode in found], published.lengths[shortest])
    np.testing.assert_allclose([episode.total_reward for episode in found], published.returns[shortest], rtol=1e-3)
