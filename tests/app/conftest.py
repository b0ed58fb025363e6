"""Fixtures of the command line's tests: tiny recorded data, the settings of a tiny run, and a finished one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer
from omegaconf import OmegaConf

from app import main as command
from zoo import Simulator
from zoo.episodes import random_actions, run_episodes
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.tasks import get_task
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

DATA = ["--expert", "tiny/hopper/expert-v0", "--diverse", "tiny/hopper/other-v0", "--demonstrations", "3"]
TINY = [
    "--stages=[behaviour_cloning,simulator,policy]",
    "--behaviour_cloning.updates=100",
    "--behaviour_cloning.model.hidden_sizes=[8]",
    "--simulator.updates=100",
    "--simulator.expert_rows=16",
    "--simulator.all_rows=42",
    "--simulator.model.pretraining_updates=50",
    "--simulator.model.transition_hidden_sizes=[8,8]",
    "--simulator.model.reward_hidden_sizes=[8]",
    "--simulator.model.starts=8",
    "--policy.updates=100",
    "--policy.model.compile=never",
    "--policy.expert_rows=16",
    "--policy.all_rows=16",
    "--policy.model.batch_size=16",
    "--policy.model.hidden_sizes=[8]",
    "--policy.model.starts=20",
    "--policy.model.validation_horizon=20",
    "--evaluation.episodes=2",
    "--evaluation.curve_points=2",
    "--evaluation.curve_episodes=1",
    "--accelerator=cpu",
]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minari datasets ``tiny/hopper/{expert,other}-v0`` of uniformly random actions."""
    root = tmp_path_factory.mktemp("minari")
    task = get_task("hopper")
    space = task.make().action_space
    assert isinstance(space, gymnasium.spaces.Box)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        for name, seed, episodes in (("expert", 0, 6), ("other", 100, 12)):
            recorded = run_episodes(task.make, random_actions(space, seed), episodes, seed=seed)
            buffers = []
            for index, episode in enumerate(recorded):
                flags = np.zeros(len(episode), dtype=bool)
                terminations, truncations = flags.copy(), flags.copy()
                terminations[-1], truncations[-1] = episode.terminated, episode.truncated
                buffers.append(
                    EpisodeBuffer(
                        id=index,
                        observations=episode.observations,
                        actions=episode.actions,
                        rewards=episode.rewards,
                        terminations=terminations,
                        truncations=truncations,
                    )
                )
            minari.create_dataset_from_buffers(
                f"tiny/hopper/{name}-v0",
                buffers,
                env="Hopper-v5",
                observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (11,), np.float32),
            )
    return root


@pytest.fixture(scope="session")
def tiny_words() -> list[str]:
    """The command of a tiny run, for whoever sets the folder of datasets."""
    return ["train", "hopper", *DATA, *TINY]


@pytest.fixture
def tiny(data_root: Path, tiny_words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))
    return list(tiny_words)


@pytest.fixture
def fit_words(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes the command of a tiny cloning stage: ``fit_words(folder, processes, *more)``."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))

    def words(folder: Path, processes: int, *more: str) -> list[str]:
        return [
            "fit",
            "--config=configs/fit/behaviour_cloning.yaml",
            "--data.expert=tiny/hopper/expert-v0",
            "--data.diverse=tiny/hopper/other-v0",
            "--data.demonstrations=3",
            "--data.batches_per_step=2",
            "--model.hidden_sizes=[8]",
            "--trainer.accelerator=cpu",
            f"--trainer.devices={processes}",
            f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}",
            "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}",
            f"--trainer.callbacks.init_args.path={folder / 'policy.safetensors'}",
            *more,
        ]

    return words


@pytest.fixture
def tiny_overrides() -> list[str]:
    """What makes a run tiny."""
    return list(TINY)


@pytest.fixture
def tiny_settings(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same as settings of an experiment."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(data_root))
    settings = OmegaConf.to_container(OmegaConf.from_dotlist([word.removeprefix("--") for word in TINY]))
    assert isinstance(settings, dict)
    data = {"expert": "tiny/{task}/expert-v0", "diverse": ["tiny/{task}/other-v0"]}
    return {str(key): value for key, value in settings.items()} | {"data": data}


@pytest.fixture(scope="session")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished tiny run; tests copy it before they change anything."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(data_root))
        assert command.main(["train", "hopper", *DATA, *TINY, "--out", str(out)]) == 0
    return out


@pytest.fixture
def simulator() -> Simulator:
    """A small untrained Simulator of Hopper's sizes whose episodes never end."""
    torch.manual_seed(0)
    built = Simulator(
        TransitionModel(11, 3, members=2, hidden_sizes=(8,)),
        RewardModel(11, 3, (8,)),
        TerminationModel(),
        StartStates.of(torch.randn(20, 11)),
        [-1.0] * 3,
        [1.0] * 3,
        task="hopper",
    )
    built.calibrate_uncertainty(torch.randn(100, 11), torch.randn(100, 3))
    return built.eval().requires_grad_(False)
