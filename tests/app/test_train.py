"""``offsim train`` and ``offsim fit`` end to end on a few real Hopper steps, and what they refuse."""

from __future__ import annotations

import inspect
import json
import shutil
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app import main as command
from app.configuration import load_configuration, parse_overrides, resolve, shipped_methods, shipped_tasks
from app.errors import UserError
from app.pipeline import learned_alone
from app.policy_methods import POLICY_METHODS
from app.run_folder import configuration_of
from app.train_seeds import parse_seeds
from datamodules import TransitionDataModule
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.simulator_policy import SimulatorPolicy
from zoo import Policy, Simulator

CONFIGURATIONS = Path(__file__).parents[2] / "configs"
METHODS = sorted((CONFIGURATIONS / "train" / "methods").glob("*.yaml"))


def test_train_runs_every_stage_and_continues_an_interrupted_run(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    started = time.perf_counter()
    assert command.main([*tiny, "--out", str(out), "--seed", "3"]) == 0
    elapsed = time.perf_counter() - started
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["task"] == "hopper" and metrics["seed"] == 3
    for name in ("expert", "behaviour_cloning", "policy"):
        assert {"mean", "ci95", "episodes", "returns"} <= set(metrics[name])
    assert metrics["share_of_expert"] == pytest.approx(metrics["policy"]["mean"] / metrics["expert"]["mean"])
    assert len(metrics["demonstrated"]["returns"]) == 3
    assert set(metrics["demonstrated"]["returns"]) <= set(metrics["expert"]["returns"])
    assert [point["update"] for point in metrics["curve"]] == [0, 50, 100]
    assert {"simulator_return", "real_return", "value", "simulator_discounted_return"} <= set(metrics["curve"][1])
    assert metrics["curve"][-1]["real_return"] == metrics["policy"]["mean"]
    assert metrics["verdict"]["kind"] in ("success", "simulator", "reward", "learner")
    assert {row["id"] for row in metrics["data"]} == {"tiny/hopper/expert-v0", "tiny/hopper/other-v0"}
    assert all(len(row["sha256"]) == 64 for row in metrics["data"])
    assert metrics["trained_on"] == "CPU"
    assert torch.__version__.startswith(metrics["versions"]["torch"]) and 0 < metrics["wall_seconds"] <= elapsed
    for file in (
        "config.yaml",
        "report.html",
        "diagnose.json",
        "diagnostics.json",
        "simulator/last.ckpt",
        "policy/last.ckpt",
        "policy/tensorboard",
    ):
        assert (out / file).exists(), file
    Simulator.load(out / "simulator.safetensors")
    Policy.load(out / "policy.safetensors")

    logged = EventAccumulator(str(out / "simulator" / "tensorboard")).Reload().Tags()
    assert {"reward/expert", "reward/rollout", "reward/diverse_held_out"} <= set(logged["histograms"])
    assert "validation/expert_held_out/one_step_before_game" in logged["scalars"]

    # The last stage lost: the same command repeats it alone, and other settings are refused
    simulator = (out / "simulator.safetensors").read_bytes()
    stages = json.loads((out / "stages.json").read_text())
    del stages["policy"]
    (out / "stages.json").write_text(json.dumps(stages))
    (out / "policy.safetensors").unlink()
    (out / "metrics.json").unlink()
    assert command.main([*tiny, "--out", str(out), "--seed", "3"]) == 0
    assert (out / "metrics.json").exists() and (out / "simulator.safetensors").read_bytes() == simulator
    assert command.main([*tiny, "--out", str(out), "--seed", "4"]) == 2
    assert "another configuration" in capsys.readouterr().err


def test_expert_data_alone_is_enough(tiny: list[str], tmp_path: Path) -> None:
    words = [word for word in tiny if word not in ("--diverse", "tiny/hopper/other-v0")]
    out = tmp_path / "run"
    assert command.main([*words, "--diverse", "--out", str(out), "--simulator.model.termination=learned"]) == 0
    assert Simulator.load(out / "simulator.safetensors").termination.kind == "learned"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "hoper"], "did you mean 'hopper'"),
        (["train", "methods/simulator_td3"], "did you mean 'methods/SimulatorTD3'"),
        (["train", "xyz"], "known are ant, halfcheetah"),
        (["train", "hopper", "--policy.update", "3"], "did you mean 'policy.updates'"),
        (["train", "hopper", "--policy.model.horizn", "3"], "did you mean policy.model.horizon"),
        (["train", "hopper", "--budget", "huge"], "small, full"),
        (["train", "hopper", "--policy.updates"], "needs a value"),
        (["train", "hopper", "--expert", "nobody/hopper/expert-v0"], "nobody/hopper/expert-v0"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert command.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_folder_with_other_content_is_left_alone(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    assert command.main([*tiny, "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("task", ["ant", "halfcheetah", "hopper", "walker2d"])
def test_tasks_share_one_set_of_settings(task: str) -> None:
    assert task in shipped_tasks()
    ours, defaults = load_configuration(task), load_configuration("hopper")
    assert ours.pop("task") == task and ours.data.pop("expert") == f"offsim/{task}/expert-v0"
    assert defaults.pop("task") and defaults.data.pop("expert")
    assert ours.data.pop("diverse") != defaults.data.pop("diverse") or task == "hopper"
    assert ours == defaults


@pytest.mark.parametrize("method", sorted(POLICY_METHODS))
def test_fit_and_train_start_a_policy_from_the_same_settings(method: str) -> None:
    own: dict[str, Any] = {}
    for base in reversed(POLICY_METHODS[method].__mro__):
        if "__init__" in vars(base) and issubclass(base, SimulatorPolicy):
            own |= {name: given.default for name, given in inspect.signature(base).parameters.items()}
    listed = dict(resolve(load_configuration("hopper", method), "full", {}, [f"--policy.method={method}"]).policy.model)
    assert (listed.pop("compile"), own["compile"]) == ("auto", "never")  # worth its half minute in a whole run
    assert listed == {name: own[name] for name in listed}


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_methods_are_found_by_file_and_by_name(path: Path) -> None:
    by_file, by_name = (
        resolve(load_configuration(source), "full", {"data.expert": "a/b-v0"}, ["--task=hopper"])
        for source in (str(path), f"methods/{path.stem}")
    )
    assert by_file.task == "hopper" and by_file == by_name


def test_the_configuration_in_a_run_folder_can_be_trained_again(tmp_path: Path) -> None:
    first = resolve(load_configuration("hopper"), "small", {}, ["--policy.updates=7"])
    OmegaConf.save(first, tmp_path / "config.yaml")
    assert resolve(load_configuration(str(tmp_path / "config.yaml")), "full", {}, []) == first


def test_a_file_states_only_what_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "base: defaults\ntask: hopper\ndata: {expert: a/b-v0}\nbudgets: {tiny: {policy: {updates: 1}}}\n"
    )
    (tmp_path / "longer.yaml").write_text("base: mine.yaml\npolicy: {updates: 7, model: {horizon: 3}}\n")
    longer = resolve(load_configuration(str(tmp_path / "longer.yaml")), "full", {}, [])
    assert (longer.task, longer.data.expert, longer.policy.updates, longer.policy.model.horizon) == (
        "hopper",
        "a/b-v0",
        7,
        3,
    )
    assert longer.policy.model.gamma == 0.99
    assert resolve(load_configuration(str(tmp_path / "longer.yaml")), "tiny", {}, []).policy.updates == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: defaults\ntask: hopper\npolicy: {updatse: 3}\n", "did you mean 'policy.updates'"),
        ("base: defaults\ntask: hopper\n", "does not say data.expert"),
        ("base: nothing.yaml\n", "no file beside it"),
        (
            "base: hopper\npolicy: {method: PPO}\n",
            "choose one of SimulatorSAC, SimulatorTD3, SimulatorPPO, OfflineMLIRL, SimulatorMOBILE",
        ),
        ("base: hopper\npolicy: {model: {reward_every: 3}}\n", "unknown setting policy.model.reward_every"),
        ("base: bad.yaml\n", "in turn based on this file"),
        ("- 1\n", "must hold a mapping"),
        ("base: hopper\npolicy: 3\n", "policy is a group of settings"),
        ("base: hopper\nsimulator: {model: 3}\n", "simulator.model is a group of settings"),
        ("base: hopper\nstages: [behaviour_clonning]\n", "did you mean 'behaviour_cloning'"),
        ("base: hopper\nstages: [simulator]\n", "list them from the first on"),
        ("base: hopper\nstages: [behaviour_cloning, policy]\n", "list them from the first on"),
        ("base: hopper\nstages: []\n", "list them from the first on"),
        ("base: hopper\nstages: policy\n", "list them from the first on"),
        ("base: hopper\nbehaviour_cloning: {rows: some}\n", "choose one of expert, all"),
    ],
)
def test_bad_configurations_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        resolve(load_configuration(str(path)), "full", {}, [])


def test_what_was_learned_alone_is_measured_beside_what_was_joined(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    members = [Policy.load(finished / f"{name}.safetensors").members for name in ("behaviour_cloning", "policy")]
    joined = members[1] == 2 * members[0]
    alone = learned_alone(configuration_of(finished, ["stages"]), finished)
    assert ("policy_alone" in metrics) == joined == (alone is not None)
    if alone is not None:
        assert alone.members == members[0] and metrics["policy_alone"]["episodes"] == metrics["policy"]["episodes"]
        assert metrics["policy_alone"]["returns"] != metrics["policy"]["returns"]


def test_products_are_computed_as_asked_while_training_alone(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped(Exception):
        pass

    during = []

    def fit(*_: Any, **__: Any) -> None:
        during.append(torch.get_float32_matmul_precision())
        raise Stopped

    monkeypatch.setattr(lightning.Trainer, "fit", fit)
    monkeypatch.setattr("app.train.rehearse", lambda _: None)
    for words in ([], ["--matmul_precision", "medium"]):
        with pytest.raises(Stopped):
            command.main([*tiny, *words, "--out", str(tmp_path / str(len(words)))])
        assert torch.get_float32_matmul_precision() == "highest"
    assert during == ["highest", "medium"]
    assert command.main([*tiny, "--matmul_precision", "low", "--out", str(tmp_path / "low")]) == 2
    assert "matmul_precision is low: expected highest or high or medium" in capsys.readouterr().err


def test_a_baseline_stops_after_cloning_everything(tiny: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--stages=[behaviour_cloning]", "--behaviour_cloning.rows=all", "--out", str(out)]
    assert command.main([*tiny, *words]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["stages"]) == {"behaviour_cloning"} and not {"policy", "curve"} & set(metrics)
    assert metrics["share_of_expert"] == metrics["behaviour_cloning"]["mean"] / metrics["expert"]["mean"]
    assert "this run trained no policy" in (out / "report.html").read_text()
    assert not (out / "simulator.safetensors").exists() and not (out / "diagnostics.json").exists()
    cloned = BehaviourCloning.load_from_checkpoint(out / "behaviour_cloning" / "last.ckpt", weights_only=True)
    assert cloned.hparams["rows"] == "all"


def _forget_where_it_was(checkpoint: Path, run: Path) -> None:
    """Have a checkpoint name its models in a folder that is no longer there."""
    saved = torch.load(checkpoint, weights_only=True)
    settings = saved["hyper_parameters"]
    named = {name: str(run / Path(settings[name]).name) for name in ("simulator", "cloned_policy") if name in settings}
    torch.save(saved | {"hyper_parameters": settings | named}, checkpoint)


def test_a_checkpoint_of_a_run_is_measured_and_continued_by_itself(
    finished: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))
    monkeypatch.chdir(tmp_path)
    finished = Path(shutil.move(shutil.copytree(finished, tmp_path / "first"), tmp_path / "moved"))
    for stage in ("simulator", "policy"):
        _forget_where_it_was(finished / stage / "last.ckpt", tmp_path / "first")
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    for stage in ("policy", "simulator", "behaviour_cloning"):
        words = [
            f"--config={CONFIGURATIONS / 'fit' / stage}.yaml",
            "--data.expert=tiny/hopper/expert-v0",
            "--data.diverse=[tiny/hopper/other-v0]",
            "--data.demonstrations=3",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            f"--ckpt_path={finished / stage / 'last.ckpt'}",
        ]
        for name in ("validate", "test", "predict"):
            assert command.main([name, *words]) == 0
        streams = "{expert: 16, diverse: 16, all: 16}" if stage == "simulator" else "{expert: 16, all: 16}"
        steps = ["--trainer.max_steps=3", "--trainer.val_check_interval=1"]
        assert command.main(["fit", *words, *steps, f"--data.streams={streams}"]) == 0
        (written,) = Path("runs", stage).rglob("*.ckpt")
        assert torch.load(written, weights_only=True)["updates"] == 150
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}

    data = TransitionDataModule(
        "tiny/hopper/expert-v0", demonstrations=3, diverse="tiny/hopper/other-v0", streams={"expert": 1}
    )
    data.setup("predict")
    assert data.expert_held_out is not None
    wanted = Policy.load(finished / "behaviour_cloning.safetensors").act(data.expert_held_out["observation"])
    (file,) = Path("runs/behaviour_cloning").rglob("predictions.npz")
    np.testing.assert_allclose(np.load(file)["expert_held_out/action"], wanted.numpy(), rtol=1e-5)


def test_a_run_may_stop_with_the_simulator(tiny: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    # All updates before the game, so that the reward is never trained
    words = ["--simulator.model.pretraining_updates=100", "--evaluation.reward_histograms=true"]
    stages = "--stages=[behaviour_cloning,simulator]"
    assert command.main([*tiny, stages, *words, "--seeds=0", "--out", str(out)]) == 0
    metrics = json.loads((out / "seed0" / "metrics.json").read_text())
    assert set(metrics["stages"]) == {"behaviour_cloning", "simulator"} and "policy" not in metrics
    assert "curve" not in metrics and "verdict" not in metrics
    diagnostics = json.loads((out / "seed0" / "diagnostics.json").read_text())
    assert "behaviour cloning" in diagnostics["reward_histograms"] and "policy" not in diagnostics["uncertainty"]
    assert "policy" not in json.loads((out / "metrics.json").read_text())
    assert set(metrics["reward_rank_correlation"]) == {"expert", "diverse"}
    rewards = json.loads((out / "seed0" / "reward_histograms.json").read_text())
    assert set(rewards["before"]) == {"expert", "diverse", "random"} and len(rewards["before"]["random"]) == 2000
    assert rewards["before"] == rewards["after"]
    assert not Simulator.load(out / "seed0" / "simulator.safetensors").reward_learned


def test_offline_ml_irl_runs_and_leaves_its_reward(tiny: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert (
        command.main([*tiny, "--policy.method=OfflineMLIRL", "--policy.model.reward_every=5", "--out", str(out)]) == 0
    )
    given, learned = (Simulator.load(out / f"{name}.safetensors") for name in ("simulator", "policy_simulator"))
    assert torch.equal(given.transition.log_variance_max, learned.transition.log_variance_max)
    assert given.reward.config != learned.reward.config
    assert learned.reward_learned
    assert (out / "report.html").exists()
    # What the critics were paid at a snapshot is not known any more, so their values are not compared with anything
    diagnosis = json.loads((out / "diagnose.json").read_text())
    assert "learned along with the policy" in diagnosis["notes"][0]
    assert not any("value" in row for row in diagnosis["over_training"])


LEARNERS = {
    "SimulatorTD3": ["--policy.model.actor_every=3"],
    "SimulatorPPO": ["--policy.all_rows=0", "--policy.model.horizon=10", "--policy.model.minibatches=4"],
    "SimulatorRAMBO": ["--policy.model.critic_share=0", "--policy.model.adversarial_weight=0.1"],
}


@pytest.mark.parametrize("method", LEARNERS)
def test_other_learners_run_and_an_interrupted_one_ends_as_it_would_have(
    method: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*tiny, "--policy.method", method, *LEARNERS[method], "--evaluation.episodes=1"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"

    def stop(module: SimulatorPolicy, logged: object) -> None:
        if module.updates == 100:
            raise KeyError("a power cut after the checkpoint of 50 updates")

    assert command.main([*words, "--out", str(whole)]) == 0
    later = shutil.ignore_patterns("policy*", "metrics.json", "diagnostics.json", "report.html")
    shutil.copytree(whole, stopped, ignore=later)
    stages = json.loads((stopped / "stages.json").read_text())
    del stages["policy"]
    (stopped / "stages.json").write_text(json.dumps(stages))
    with monkeypatch.context() as patch:
        patch.setattr(POLICY_METHODS[method], "refuse_divergence", stop)
        with pytest.raises(KeyError, match="power cut"):
            command.main([*words, "--out", str(stopped)])
    assert torch.load(stopped / "policy" / "last.ckpt", weights_only=True)["updates"] == 50
    assert command.main([*words, "--out", str(stopped)]) == 0
    ours, theirs = (load_file(folder / "policy.safetensors") for folder in (stopped, whole))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (stopped / "policy" / "metrics.csv").read_text() == (whole / "policy" / "metrics.csv").read_text()
    assert Policy.load(whole / "policy.safetensors").act(torch.zeros(3, 11), deterministic=False).shape == (3, 3)
    assert "train/value" in (whole / "policy" / "metrics.csv").read_text() and (whole / "report.html").exists()


FAMILY = [f"methods/{name}" for name in ("mopo", "morel", "mobile", "combo", "rambo")]


@pytest.mark.parametrize("budget", ["small", "full"])
@pytest.mark.parametrize("name", shipped_methods())
def test_every_shipped_method_can_be_trained_with_on_any_task(name: str, budget: str) -> None:
    chosen = resolve(load_configuration(name), budget, {}, ["--task=hopper", "--data.expert=a/b-v0"])
    if name in FAMILY:  # what it keeps to is its own way, and not OffSim's as well
        model = chosen.policy.model
        assert (model.candidates, model.push_share) == (1, 0.0)
        assert (model.uncertainty_weight > 0) == (name == "methods/mopo")


@pytest.mark.parametrize("method", sorted(POLICY_METHODS))
def test_a_learner_is_chosen_by_one_setting(method: str) -> None:
    chosen = resolve(load_configuration("hopper", method), "full", {}, [f"--policy.method={method}"])
    assert chosen.policy.method == method and chosen.data == load_configuration("hopper").data
    assert ("temperature" in chosen.policy.model) == (method not in ("SimulatorTD3", "SimulatorPPO"))


def test_settings_of_a_file_stand_above_those_of_its_learner(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: hopper\npolicy: {method: SimulatorTD3, updates: 7, model: {actor_every: 5}}\n")
    mine = resolve(load_configuration(str(path)), "full", {}, ["--policy.model.tau=0.5"])
    model = mine.policy.model
    assert (mine.policy.updates, model.actor_every, model.tau, model.smoothing_clip) == (7, 5, 0.5, 0.5)
    # The command line has the last word, and what it makes senseless is refused, not ignored
    with pytest.raises(UserError, match="actor_every of SimulatorPPO"):
        resolve(load_configuration(str(path), "SimulatorPPO"), "full", {}, ["--policy.method=SimulatorPPO"])
    path.write_text("base: hopper\npolicy: {method: SimulatorTD3, model: {temperature: 0.1}}\n")
    with pytest.raises(UserError, match="temperature of SimulatorTD3"):
        resolve(load_configuration(str(path)), "full", {}, [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy.method=SimulatorPPO", "--policy.all_rows=128"], "reads no all rows: set policy.all_rows to 0"),
        (["--policy.all_rows=0"], "SimulatorSAC learns from all rows as well"),
        (["--policy.method=SimulatorTD3", "--policy.model.target_entropy=-3"], "policy.model.target_entropy"),
        (["--policy.method=SimulatorPPO", "--policy.model.target_kl=0.1", "--seeds=0..1"], "target_kl"),
        (["--policy.updates=2"], "policy.updates is 2: training takes steps of 50 updates, so give a multiple"),
        (["--simulator.updates=10020", "--seeds=0..1"], "such as 10000"),
        (["--simulator.model.pretraining_updates=15000"], "the reward of the simulator was never trained"),
        (["--devices=x"], "accelerator and devices: "),
        (["--task=ant"], "has 11 observation features and 3 actions, task ant has 27 and 8"),
    ],
)
def test_settings_that_do_not_fit_a_learner_are_refused_before_any_training(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["train", "hopper", *words, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_budget_options_and_overrides_apply_in_this_order() -> None:
    small = resolve(load_configuration("hopper"), "small", {"seed": 5}, ["--policy.model.horizon", "9"])
    assert small.seed == 5 and small.policy.model.horizon == 9
    assert small.policy.updates < load_configuration("hopper").policy.updates
    assert resolve(load_configuration("hopper"), "small", {}, ["--policy.updates=7"]).policy.updates == 7


def test_overrides_are_read_in_every_spelling() -> None:
    assert parse_overrides(["--a.b", "1", "--c=2", "d.e=3"]) == ["a.b=1", "c=2", "d.e=3"]
    with pytest.raises(UserError, match="write overrides as"):
        parse_overrides(["nonsense"])


def test_seeds_trained_together_end_as_they_would_alone(tiny: list[str], tmp_path: Path) -> None:
    assert command.main([*tiny, "--seeds", "3..4", "--out", str(tmp_path / "both")]) == 0
    assert command.main([*tiny, "--seed", "4", "--out", str(tmp_path / "alone")]) == 0
    together = tmp_path / "both" / "seed4"
    for name in ("behaviour_cloning", "simulator", "policy"):
        ours, theirs = (
            load_file(together / f"{name}.safetensors"),
            load_file(tmp_path / "alone" / f"{name}.safetensors"),
        )
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], rtol=1e-2, atol=1e-4, msg=f"{name}: {key}")
    # Its checkpoint is one of a run alone: the module loads from it, and training continues from it
    loaded = BehaviourCloning.load_from_checkpoint(together / "behaviour_cloning" / "last.ckpt", weights_only=True)
    saved = Policy.load(together / "behaviour_cloning.safetensors").state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in loaded.policy.state_dict().items())
    shutil.copytree(together, tmp_path / "continued")
    stages = json.loads((together / "stages.json").read_text())
    del stages["policy"]
    (tmp_path / "continued" / "stages.json").write_text(json.dumps(stages))
    words = [*tiny, "--seed", "4", "--out", str(tmp_path / "continued"), "--policy.updates=100"]
    assert command.main(words) == 0
    summary = json.loads((tmp_path / "both" / "metrics.json").read_text())
    assert summary["seeds"] == [3, 4] and len(summary["policy"]["means"]) == 2
    own = json.loads((together / "metrics.json").read_text())
    assert own["seed"] == 4 and own["trained_together"] == 2
    for file in ("report.html", "policy/metrics.csv", "simulator/tensorboard", "policy/snapshots/00000100.safetensors"):
        assert (together / file).exists(), file
    beliefs = [
        json.loads((run / "policy/snapshots/00000100.json").read_text()) for run in (together, tmp_path / "alone")
    ]
    assert beliefs[0] == pytest.approx(beliefs[1], rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.yaml": "task: hopper", "metrics.json": "{}"}, "holds a run of one seed: choose another folder"),
        ({"metrics.json": '{"mine": 1}'}, "is not of seeds trained together: choose another folder"),
        ({"metrics.json": "no json"}, "is not of seeds trained together"),
    ],
)
def test_seeds_overwrite_no_other_run(
    files: dict[str, str], sentence: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert command.main([*tiny, "--seeds", "0..1", "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_stage_that_was_lost_is_made_anew_and_a_damaged_one_is_named(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*tiny, "--out", str(tmp_path / "run"), "--stages=[behaviour_cloning]"]
    assert command.main(words) == 0
    model = tmp_path / "run" / "behaviour_cloning.safetensors"
    whole = model.read_bytes()
    model.unlink()
    assert command.main(words) == 0
    assert model.read_bytes() == whole
    model.write_bytes(whole[:100])
    assert command.main(words) == 2
    assert "once it is removed, the same command makes it anew" in capsys.readouterr().err
    model.write_bytes(whole)
    (tmp_path / "run" / "stages.json").write_text("{")
    assert command.main(words) == 2
    assert "stages.json is damaged" in capsys.readouterr().err
    (tmp_path / "run" / "stages.json").unlink()
    assert command.main(words) == 0
    assert model.read_bytes() == whole


def test_a_seed_that_is_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"the seeds '1,2,1' name one twice"):
        parse_seeds("1,2,1")


@pytest.mark.parametrize("seeds", ["3-5", "a..b", "", "5..3"])
def test_seeds_that_cannot_be_read_are_refused(
    seeds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["train", "hopper", "--seeds", seeds]) == 2
    assert "0..7" in capsys.readouterr().err
