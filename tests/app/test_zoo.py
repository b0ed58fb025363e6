"""``offsim zoo``: from a finished run to an entry that another machine loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from app import main as command
from app import zoo_entry
from zoo import Policy, Simulator, load, load_policy
from zoo.entries import entries, write_manifest
from zoo.ids import EntryId
from zoo.outputs import differing_outputs
from zoo.registration import register_environments


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder to publish to; no entries are shipped, nor in the user's own folder."""
    monkeypatch.setattr("zoo.entries.SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("OFFSIM_ZOO", str(tmp_path / "own"))
    return str(tmp_path / "shared")


def zoo(*words: object) -> int:
    return command.main(["zoo", *map(str, words)])


def test_a_run_is_published_fetched_shown_and_made_an_environment(
    finished: Path, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo("list") == 0 and "no entries yet: fetch one" in capsys.readouterr().out
    assert zoo("push", finished, "--as", "hopper/tiny-v0", "--to", place) == 0
    warned, told = capsys.readouterr().out.splitlines()[-2:]
    assert "has no card, which would say how far to trust hopper/tiny-v0" in warned
    assert f"`offsim zoo evaluate {finished}`" in warned and told.startswith("published as hopper/tiny-v0")
    assert zoo("list", "--from", place) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "hopper/tiny-v0"
    assert zoo("pull", "hopper/tiny", "--from", place) == 0
    assert zoo("list") == 0
    assert "gymnasium.make('zoo:OffSim/hopper-tiny-v0')" in capsys.readouterr().out
    assert zoo("show", "hopper/tiny") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("simulator.safetensors", "policy.safetensors", "config.yaml", "metrics.json"))
    register_environments()
    try:
        environment = gymnasium.make("OffSim/hopper-tiny-v0")
        observation, _ = environment.reset(seed=0)
        action = load_policy("hopper/tiny-v0").act(torch.as_tensor(observation, dtype=torch.float32))
        environment.step(action.numpy())
    finally:
        gymnasium.registry.pop("OffSim/hopper-tiny-v0")
    # An entry can be passed on, under another id as well
    assert zoo("push", "hopper/tiny-v0", "--to", tmp_path / "third") == 0
    assert zoo("push", "hopper/tiny-v0", "--as", "hopper/other-v0", "--to", tmp_path / "third") == 0
    assert zoo("push", "hopper/tiny-v0", "--as", "ant/tiny-v0", "--to", tmp_path / "third") == 2
    assert "hopper/tiny-v0 is for task hopper: name it hopper/tiny-v0" in capsys.readouterr().err


def test_an_entry_that_comes_with_offsim_has_no_other_beside_it(
    finished: Path, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo("push", finished, "--as", "hopper/tiny-v0", "--to", place) == 0
    assert zoo("push", finished, "--as", "hopper/tiny-v0", "--to", tmp_path / "shipped") == 0
    assert zoo("pull", "hopper/tiny-v0", "--from", place) == 0  # the same
    (tmp_path / "changed").mkdir()
    shutil.copytree(finished, tmp_path / "changed" / "run")
    figures = tmp_path / "changed" / "run" / "metrics.json"
    figures.write_text(figures.read_text() + "\n")
    capsys.readouterr()
    assert zoo("push", tmp_path / "changed" / "run", "--as", "hopper/tiny-v0", "--to", tmp_path / "third") == 2
    assert "hopper/tiny-v0 comes with offsim, and is another" in capsys.readouterr().err
    assert zoo("push", tmp_path / "changed" / "run", "--as", "hopper/tiny-v1", "--to", tmp_path / "third") == 0
    foreign = tmp_path / "third" / "hopper" / "tiny-v1"
    write_manifest(foreign, EntryId.parse("hopper/tiny-v0"))
    foreign.rename(foreign.with_name("tiny-v0"))
    assert zoo("pull", "hopper/tiny-v0", "--from", tmp_path / "third") == 2
    assert "hopper/tiny-v0 comes with offsim, and is another" in capsys.readouterr().err


def test_what_is_published_is_what_the_run_holds(
    finished: Path, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "card.md").write_text("# run\nfigures\n")
    (run / "card").mkdir()
    (run / "card" / "errors.png").write_bytes(b"picture")
    capsys.readouterr()
    assert zoo("push", run, "--as", "hopper/tiny-v0", "--to", place) == 0
    assert "has no card" not in capsys.readouterr().out
    entry = Path(place) / "hopper" / "tiny-v0"
    assert (entry / "card" / "errors.png").exists()
    assert (entry / "card.md").read_text() == "# hopper/tiny-v0\nfigures\n"
    assert differing_outputs(entry, load(entry), load_policy(entry)) == []
    worse = load(entry)
    with torch.no_grad():
        worse.reward.offset += 0.1
    assert differing_outputs(entry, worse, load_policy(entry)) == ["reward"]


def test_weights_are_published_in_half_precision_where_that_changes_nothing(
    finished: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return {**load(folder).state_dict(), **load_policy(folder).state_dict(prefix="policy.")}

    def published(name: str) -> dict[str, torch.Tensor]:
        assert zoo("push", finished, "--as", f"hopper/{name}-v0", "--to", place) == 0
        return weights(Path(place) / "hopper" / f"{name}-v0")

    given, half = weights(finished), published("half")
    matrices = {name for name, value in given.items() if name.endswith(".weight") and value.dim() >= 2}
    assert len(matrices) > 5
    for name, value in given.items():
        assert torch.equal(half[name], value.half().float() if name in matrices else value), name
    *models, sentence = zoo_entry.as_published(load(finished), load_policy(finished))
    assert "in half precision. Where the policy goes, that changes actions by" in sentence
    assert zoo_entry.kept(*models) == "Weight matrices are kept in half precision."

    monkeypatch.setitem(zoo_entry.EQUAL, "reward", 1e-9)
    whole = published("whole")
    assert all(torch.equal(whole[name], given[name]) for name in given)
    *models, sentence = zoo_entry.as_published(load(finished), load_policy(finished))
    assert "in full precision. Half of it would change actions by" in sentence
    assert zoo_entry.kept(*models) == "Weights are kept in full precision."


def test_what_cannot_be_published_is_refused(
    finished: Path, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object) -> str:
        assert zoo(*words) == 2
        return capsys.readouterr().err

    assert "a run has no id: name one with --as" in refused("push", finished, "--to", place)
    assert "publish it as hopper/tiny-v0" in refused("push", finished, "--as", "hopper/tiny", "--to", place)
    assert "'tiny' is no id of the zoo" in refused("push", finished, "--as", "tiny", "--to", place)
    assert "is for task hopper: name it hopper/x-v0" in refused("push", finished, "--as", "ant/x-v0", "--to", place)
    assert "it lacks policy.safetensors, config.yaml" in refused("push", tmp_path, "--as", "a/b-v0", "--to", place)
    assert "no entry hopper/none-v0" in refused("show", "hopper/none-v0")
    monkeypatch.setattr(zoo_entry, "LARGEST", 1000)
    assert "MB are the most" in refused("push", finished, "--as", "hopper/tiny-v0", "--to", place)
    monkeypatch.undo()
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    figures = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({name: each for name, each in figures.items() if name != "task"}))
    assert "it lacks task" in refused("push", run, "--as", "hopper/tiny-v0", "--to", place)
    (run / "metrics.json").write_text(json.dumps(figures))
    assert "there is no file or folder runs/none here" in refused("evaluate", "runs/none")
    (run / "metrics.json").write_text(json.dumps(figures | {"data": None}))
    assert "cannot read" in refused("evaluate", run)
    (run / "metrics.json").write_text(json.dumps(figures))
    Policy(2, [-1.0], [1.0]).save(run / "policy.safetensors")
    for words in (["push", run, "--as", "hopper/tiny-v0", "--to", place], ["evaluate", run]):
        assert "the policy 2 and 1: one of the files is of another run" in refused(*words)
    shutil.copy(finished / "policy.safetensors", run)
    (run / "card").write_text("a file")
    assert "card cannot be a folder to write to" in refused("evaluate", run)
    assert "is a folder: name a file" in refused("export", finished, "--to", tmp_path)
    assert f"there is no folder {tmp_path / 'none'}" in refused("pull", "hopper/x", "--from", tmp_path / "none")
    simulator = Simulator.load(run / "simulator.safetensors")
    simulator.reward_learned = False
    simulator.save(run / "simulator.safetensors")
    assert "was never trained" in refused("push", run, "--as", "hopper/tiny-v0", "--to", place)
    assert not list(Path(place).rglob("entry.json"))


def test_an_exported_policy_acts_the_same_without_pytorch(finished: Path, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "out" / "policy.onnx"
    assert zoo("export", finished, "--to", path) == 0
    observations = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    policy = load_policy(finished)
    for rows in (observations, observations[:1]):
        (actions,) = session.run(None, {"observation": rows})
        np.testing.assert_allclose(actions, policy.act(torch.from_numpy(rows)).numpy(), atol=1e-5)
    assert [each.name for each in path.parent.iterdir()] == ["policy.onnx"]
    told = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert told["observation_names"][0] == "height (m)" and len(told["observation_names"]) == 11
    assert told["action_low"] == [-1.0] * 3 and told["action_high"] == [1.0] * 3
    alone = tmp_path / "alone.safetensors"
    shutil.copy(finished / "policy.safetensors", alone)
    assert zoo("export", alone, "--to", path) == 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert "observation_names" not in session.get_modelmeta().custom_metadata_map


def test_an_export_that_would_act_otherwise_is_not_written(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.zoo_export.TOLERANCE", -1.0)
    assert zoo("export", finished, "--to", tmp_path / "policy.onnx") == 2
    assert "would differ from the policy" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    policy = load_policy(run)
    with torch.no_grad():
        next(iter(policy.network.parameters())).fill_(torch.nan)
    policy.save(run / "policy.safetensors")
    assert zoo("export", run, "--to", tmp_path / "policy.onnx") == 2
    assert not (tmp_path / "policy.onnx").exists()


def test_a_changed_entry_is_not_passed_on(finished: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("push", finished, "--as", "hopper/tiny-v0", "--to", place) == 0
    assert zoo("pull", "hopper/tiny-v0", "--from", place) == 0
    folder = entries()[EntryId("hopper", "tiny", 0)]
    simulator = load("hopper/tiny-v0")
    simulator.noise_scale = 0.123
    simulator.save(folder / "simulator.safetensors")
    capsys.readouterr()
    for words in (("push", "hopper/tiny-v0", "--to", place + "2"), ("evaluate", "hopper/tiny-v0")):
        assert zoo(*words) == 2
        assert "is not what was published as hopper/tiny-v0" in capsys.readouterr().err
    (folder / "entry.json").write_text("{")
    assert zoo("list") == 0 and "damaged" in capsys.readouterr().out


def test_a_place_that_is_not_there_is_said(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("list", "--from", place) == 2
    assert "there is no folder" in capsys.readouterr().err
