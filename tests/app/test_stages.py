"""LightningCLI: every method fits, saves, and resumes from a checkpoint, from its configuration file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from app import main as command
from app.configuration import load_configuration
from datamodules import TransitionDataModule
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.dynamics_reward import DynamicsRewardGame
from lit_modules.offsim import OffSim
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.weighted_cloning import WeightedCloning
from zoo import Policy, Simulator

CONFIGURATIONS = Path(__file__).parents[2] / "configs" / "fit"

SMALL = {
    "behaviour_cloning": ["--model.hidden_sizes", "[8]"],
    "simulator": [
        "--model.transition_hidden_sizes=[8,8]",
        "--model.reward_hidden_sizes=[8]",
        "--model.members=2",
        "--model.starts=8",
        "--model.pretraining_updates=3",
        "--model.termination=none",
        "--model.task=null",
        "--data.streams={expert: 16, diverse: 16, all: 16}",
    ],
    "weighted_cloning": ["--model.hidden_sizes=[8]", "--model.diverse_rows=24"],
    "dynamics_reward": [
        "--model.hidden_sizes=[8]",
        "--model.batch_size=16",
        "--model.kept_every=3",
        "--data.streams={all: 16}",
    ],
    "policy": [
        "--model.hidden_sizes=[8]",
        "--model.starts=12",
        "--model.batch_size=16",
        "--model.validation_horizon=5",
        "--data.streams={expert: 16, all: 16}",
    ],
}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``toy/point/{good,any}-v0``: episodes of a made-up system with two observations and one action."""
    import warnings

    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    root = tmp_path_factory.mktemp("toy")
    random = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        for name in ("good", "any"):
            buffers = []
            for index in range(6):
                actions = random.uniform(-1, 1, (20, 1)).astype(np.float32)
                observations = np.cumsum(random.normal(size=(21, 2)), axis=0).astype(np.float32)
                flags = np.zeros(20, dtype=bool)
                ended = flags.copy()
                ended[-1] = True
                buffers.append(
                    EpisodeBuffer(
                        id=index,
                        observations=observations,
                        actions=actions,
                        rewards=np.zeros(20),
                        terminations=flags,
                        truncations=ended,
                    )
                )
            minari.create_dataset_from_buffers(
                f"toy/point/{name}-v0",
                buffers,
                observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
                action_space=gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
            )
    return root


@pytest.fixture
def workplace(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with the toy data at hand."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["offsim"])
    return tmp_path


def words(stage: str, steps: int, command: str = "fit") -> list[str]:
    return [
        command,
        "--config",
        str(CONFIGURATIONS / f"{stage}.yaml"),
        "--data.expert=toy/point/good-v0",
        "--data.diverse=[toy/point/any-v0]",
        "--data.demonstrations=4",
        "--data.batches_per_step=2",
        f"--trainer.max_steps={steps}",
        "--trainer.val_check_interval=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        *SMALL[stage],
    ]


def test_every_stage_fits_from_its_file_and_resumes(workplace: Path) -> None:
    for stage in ("behaviour_cloning", "simulator", "weighted_cloning", "dynamics_reward", "policy"):
        assert command.main(words(stage, 4)) == 0
        checkpoints = list((workplace / "runs" / stage).rglob("*.ckpt"))
        assert checkpoints
        assert command.main([*words(stage, 6), "--ckpt_path", str(checkpoints[0])]) == 0
        for other in ("validate", "test", "predict"):
            assert command.main([*words(stage, 6, other), "--ckpt_path", str(checkpoints[0])]) == 0
    for learner in ("SimulatorTD3", "SimulatorPPO"):
        before = set((workplace / "runs" / "policy").rglob("*.ckpt"))
        Path("runs/policy/policy.safetensors").unlink()
        assert command.main([*words("policy", 2), f"--model={learner}"]) == 0
        written = (set((workplace / "runs" / "policy").rglob("*.ckpt")) - before).pop()
        assert torch.load(written, weights_only=True)["hyper_parameters"]["_class_path"].endswith(learner)
        assert Policy.load("runs/policy/policy.safetensors").observation_size == 2
    for stage in ("behaviour_cloning", "weighted_cloning"):
        Policy.load(f"runs/{stage}/{stage}.safetensors")
    filtered = "--model.dynamics_reward=runs/dynamics_reward/dynamics_reward.safetensors"
    assert command.main([*words("policy", 4), filtered, "--model.candidates=3"]) == 0
    policy = Policy.load("runs/policy/policy.safetensors")
    simulator = Simulator.load("runs/simulator/simulator.safetensors")
    action = policy.act(simulator.reset(3))
    following, reward, _, _ = simulator.step(simulator.reset(3), action)
    assert torch.isfinite(following).all() and torch.isfinite(reward).all()


def test_a_checkpoint_of_a_reward_learned_in_the_loop_is_validated(workplace: Path) -> None:
    for stage in ("behaviour_cloning", "simulator"):
        assert command.main(words(stage, 2)) == 0
    learned = ["--model=OfflineMLIRL", "--model.cloned_policy=runs/behaviour_cloning/behaviour_cloning.safetensors"]
    assert command.main([*words("policy", 2), *learned]) == 0
    (written,) = Path("runs/policy").rglob("*.ckpt")
    assert command.main([*words("policy", 2, "validate"), *learned, f"--ckpt_path={written}"]) == 0


def test_networks_that_have_learned_nothing_are_not_measured(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for other in ("validate", "test", "predict"):
        for given in ([], ["--ckpt_path=last"]):
            assert command.main([*words("behaviour_cloning", 4, other), *given]) == 2
            assert "there is no checkpoint below runs/behaviour_cloning" in capsys.readouterr().err


def test_predictions_are_those_of_the_newest_checkpoint(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held_out = "--data.held_out_fraction=0.3"
    assert command.main([*words("behaviour_cloning", 4), held_out]) == 0
    for given in ([], ["--ckpt_path=last"]):
        assert command.main([*words("behaviour_cloning", 4, "predict"), held_out, *given]) == 0
        told = capsys.readouterr().out.splitlines()
        file = Path(told[-1].removeprefix("in "))
        assert "expert_held_out/action 40x1" in told
        data = TransitionDataModule(
            "toy/point/good-v0",
            demonstrations=4,
            diverse="toy/point/any-v0",
            streams={"expert": 1},
            held_out_fraction=0.3,
        )
        data.setup("fit")
        assert data.expert_held_out is not None
        policy = Policy.load("runs/behaviour_cloning/behaviour_cloning.safetensors")
        wanted = policy.act(data.expert_held_out["observation"]).detach().numpy()
        np.testing.assert_allclose(np.load(file)["expert_held_out/action"], wanted, rtol=1e-5)


def test_last_is_the_newest_checkpoint_of_any_run_here(workplace: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        caplog.set_level("INFO", name)
    assert command.main([*words("behaviour_cloning", 4), "--ckpt_path=last"]) == 0
    assert "there is no checkpoint yet, so training begins" in caplog.text
    assert command.main([*words("behaviour_cloning", 6), "--ckpt_path=last"]) == 0
    assert "step=4.ckpt" in caplog.text
    assert command.main([*words("behaviour_cloning", 8), "--ckpt_path=last"]) == 0
    assert "going on from runs/behaviour_cloning/lightning_logs/version_1" in caplog.text
    written = max(Path("runs").rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert torch.load(written, weights_only=True)["global_step"] == 8


def test_print_config_names_the_method(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["offsim"])
    with pytest.raises(SystemExit) as stop:
        command.main(["fit", "--config", str(CONFIGURATIONS / "simulator.yaml"), "--print_config"])
    assert stop.value.code == 0
    assert "lit_modules.offsim.OffSim" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "argument", "sentence"),
    [
        ("behaviour_cloning", "--model.learning_rate=-1", "learning_rate is -1.0: it must be above 0"),
        ("behaviour_cloning", "--data.demonstrations=500", "data.demonstrations is 500, but toy/point/good-v0 has 6"),
        ("behaviour_cloning", "--data.expert=toy/point/none-v0", "no dataset 'toy/point/none-v0'"),
        ("behaviour_cloning", "--seed_everything=-1", "seed_everything: "),
        ("behaviour_cloning", "--trainer.accelerator=tpu", "torch_xla"),
        ("behaviour_cloning", "--config=own.yaml", "`offsim train own.yaml` takes it"),
        ("behaviour_cloning", "--trainer.logger=CSVLogger", "which needs save_dir: add --trainer.logger.save_dir"),
        ("behaviour_cloning", "--model=nowhere.Cloning", "model is 'nowhere.Cloning': No module named 'nowhere'"),
        ("behaviour_cloning", "--data=mine.Data", "the data module does not say observation_size, action_low"),
        ("simulator", "--model.uncertainty=mine", "unknown uncertainty measure 'mine'"),
        ("policy", "--model.simulator=nothing.safetensors", "nothing.safetensors"),
        ("policy", "--model.simulator=text.safetensors", "text.safetensors"),
    ],
)
def test_what_is_refused_is_refused_in_a_sentence(
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    argument: str,
    sentence: str,
) -> None:
    Path("text.safetensors").write_text("no model")
    Path("own.yaml").write_text("base: defaults\ntask: null\n")
    Path("mine.py").write_text("import lightning\n\nclass Data(lightning.LightningDataModule):\n    pass\n")
    monkeypatch.syspath_prepend(".")
    of_data = [word for word in words(stage, 2) if "=mine." not in argument or not word.startswith("--data")]
    assert command.main([*of_data, argument]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("offsim: ")]
    assert sentence in line
    assert not Path("runs").exists()


def test_a_stream_that_is_missing_is_refused_in_a_sentence(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*words("behaviour_cloning", 2), "--data.streams={diverse: 8}"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("offsim: ")]
    assert "add e.g. `expert: 256` there" in line
    assert not list(Path("runs").rglob("*.ckpt"))


def trained() -> Path:
    """The checkpoint of a short training."""
    assert command.main(words("behaviour_cloning", 2)) == 0
    (written,) = Path("runs").rglob("*.ckpt")
    return written


def test_a_checkpoint_of_another_method_is_refused_in_a_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = torch.load(trained(), weights_only=True)
    torch.save({**saved, "method": "OffSim"}, "other.ckpt")
    assert command.main([*words("behaviour_cloning", 4), "--ckpt_path", "other.ckpt"]) == 2
    assert "offsim: the checkpoint is of OffSim, and BehaviourCloning cannot go on" in capsys.readouterr().err


def test_a_checkpoint_of_other_data_is_refused_in_a_sentence(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = torch.load(trained(), weights_only=True)
    saved["state_dict"] = {name: torch.cat([value, value]) for name, value in saved["state_dict"].items()}
    torch.save(saved, "wider.ckpt")
    for name in ("fit", "validate", "test", "predict"):
        assert command.main([*words("behaviour_cloning", 4, name), "--ckpt_path", "wider.ckpt"]) == 2
        assert "offsim: wider.ckpt is of networks of other sizes than this data" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_refused_in_a_sentence(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save([1], "list.ckpt")
    torch.save({"hyper_parameters": None}, "nothing.ckpt")
    Path("model.safetensors").write_bytes(b"\x04" * 100)
    for path, sentence in (
        ("model.safetensors", "offsim: model.safetensors is the file of a model, from which no training goes on"),
        ("missing.ckpt", "offsim: there is no checkpoint missing.ckpt"),
        ("list.ckpt", "list.ckpt is no checkpoint of"),
        ("nothing.ckpt", "nothing.ckpt is no checkpoint of"),
    ):
        assert command.main([*words("behaviour_cloning", 2, "predict"), "--ckpt_path", path]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"_class_path": None, "method": None}, "is no checkpoint of one stage and one seed: name one that"),
        ({"_class_path": None, "method": "Unheard"}, "unknown model 'Unheard'"),
        ({"_class_path": None, "gone": 1}, "unknown setting model.gone of BehaviourCloning"),
        ({"gone": 1}, "unknown setting model.gone of BehaviourCloning"),
        (None, "other.ckpt is no checkpoint of a training with offsim, or is damaged"),
    ],
)
def test_a_checkpoint_that_names_no_known_method_is_refused_in_a_sentence(
    changes: dict[str, Any] | None, sentence: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = trained()
    if changes is None:
        Path("other.ckpt").write_bytes(written.read_bytes()[:1000])
    else:
        saved = torch.load(written, weights_only=True)
        settings = {**saved["hyper_parameters"], **changes}
        saved["method"] = settings.pop("method", saved["method"])
        saved["hyper_parameters"] = {name: value for name, value in settings.items() if value is not None}
        torch.save(saved, "other.ckpt")
    for name in ("fit", "predict"):
        assert command.main([*words("behaviour_cloning", 4, name), "--ckpt_path", "other.ckpt"]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("offsim: ")]
        assert sentence in line


def test_lightning_recommends_nothing(workplace: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):  # which `offsim train` makes quiet
        caplog.set_level("INFO", name)
    assert command.main(words("behaviour_cloning", 2)) == 0
    assert "stopped" in caplog.text and "Tip" not in caplog.text


def given(method: type) -> dict[str, Any]:
    """Defaults of a constructor, and of those that it passes arguments on to."""
    found: dict[str, Any] = {}
    for kind in reversed(method.__mro__):
        if kind.__module__.startswith("lit_modules.") and "__init__" in vars(kind):
            for name, each in inspect.signature(kind).parameters.items():
                found[name] = list(each.default) if isinstance(each.default, tuple) else each.default
    return found


@pytest.mark.parametrize(
    ("stage", "method"),
    [
        ("behaviour_cloning", BehaviourCloning),
        ("simulator", OffSim),
        ("weighted_cloning", WeightedCloning),
        ("dynamics_reward", DynamicsRewardGame),
        ("policy", SimulatorSAC),
    ],
)
def test_fit_trains_a_stage_as_train_does(stage: str, method: type) -> None:
    ours: Any = OmegaConf.to_container(OmegaConf.load(CONFIGURATIONS / f"{stage}.yaml"))
    theirs: Any = OmegaConf.to_container(load_configuration("hopper"))[stage]  # type: ignore[index, call-overload]
    data = ours["data"]["init_args"]
    assert ours["trainer"]["max_steps"] * data["batches_per_step"] == theirs["updates"]
    settings = given(method) | ours["model"]["init_args"]
    assert settings.get("decay_updates", theirs["updates"]) == theirs["updates"]
    apart = {"compile"} | ({"proposal"} if stage == "simulator" else set())  # None: the same shares
    assert {name: settings[name] for name in theirs["model"] if name not in apart} == {
        name: value for name, value in theirs["model"].items() if name not in apart
    }
    for name in ("expert", "all"):
        if f"{name}_rows" in theirs:
            assert data["streams"][name] == theirs[f"{name}_rows"]


def test_a_training_that_ends_before_its_rates_have_fallen_says_so(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(
        UserWarning, match=r"fall over 40,000 updates \(decay_updates\), and this training ends after 4:"
    ):
        assert command.main(words("behaviour_cloning", 2)) == 0
    assert command.main([*words("simulator", 4), "--model.task=hopper"]) == 2
    assert "the data has 2 observation features and 1 actions, task hopper has 11 and 3" in capsys.readouterr().err
    assert command.main(words("simulator", 4)) == 0
    with pytest.warns(UserWarning, match="before the actor has begun to learn"):
        assert command.main(words("policy", 2)) == 0


def test_last_is_found_where_a_logger_writes(workplace: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lightning.pytorch")
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=elsewhere"]
    assert command.main([*words("behaviour_cloning", 4), *logger]) == 0
    assert list(Path("elsewhere").rglob("*.ckpt")) and not list(Path("runs").rglob("*.ckpt"))
    assert command.main([*words("behaviour_cloning", 6), *logger, "--ckpt_path=last"]) == 0
    assert "going on from elsewhere" in caplog.text
