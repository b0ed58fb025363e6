"""Small Minari datasets in a temporary folder; no test sees the machine's own datasets or the network."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector.episode_buffer import EpisodeBuffer
from numpy.typing import NDArray

from datamodules import sources

OBSERVATION_SIZE, ACTION_SIZE = 3, 2

# A value no observation, action or flag has: it would be recognised wherever it turned up.
REWARD = 777.25


@dataclass
class Recorded:
    """An episode as it is given to Minari."""

    observations: NDArray[Any]
    actions: NDArray[Any]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]


def make_episode(number: int, steps: int, terminated: bool = False, truncated: bool = True) -> Recorded:
    """Observations that tell episode and step, so that every row can be traced back."""
    generator = np.random.default_rng(number)
    observations = generator.normal(size=(steps + 1, OBSERVATION_SIZE))
    observations[:, 0], observations[:, 1] = number, np.arange(steps + 1)
    flags = np.zeros((2, steps), dtype=bool)
    flags[:, -1] = terminated, truncated
    actions = generator.uniform(-1.0, 1.0, (steps, ACTION_SIZE)).astype(np.float32)
    return Recorded(observations, actions, flags[0], flags[1])


@dataclass
class Recorder:
    """Writes datasets into a Minari root."""

    root: Path

    def __call__(
        self,
        dataset_id: str,
        episodes: Sequence[Recorded] | Sequence[int],
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
        environment: str | None = "Hopper-v5",
        first_number: int = 0,
    ) -> str:
        """Record episodes, or as many as there are lengths; returns the id."""
        recorded = [
            make_episode(first_number + index, episode) if isinstance(episode, int) else episode
            for index, episode in enumerate(episodes)
        ]
        buffers = [
            EpisodeBuffer(
                observations=episode.observations,  # type: ignore[arg-type]
                actions=episode.actions,  # type: ignore[arg-type]
                rewards=np.full(len(episode.actions), REWARD),  # type: ignore[arg-type]
                terminations=episode.terminations,  # type: ignore[arg-type]
                truncations=episode.truncations,  # type: ignore[arg-type]
            )
            for episode in recorded
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # every piece of metadata that is left out has a warning
            minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                observation_space=observation_space or spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float64),
                action_space=action_space or spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32),
            )
        if environment is not None:
            self.change_metadata(dataset_id, env_spec=json.dumps({"id": environment}))
        return dataset_id

    def file(self, dataset_id: str) -> Path:
        return self.root / dataset_id / "data" / "main_data.hdf5"

    def change_metadata(self, dataset_id: str, **changes: object) -> None:
        path = self.root / dataset_id / "data" / "metadata.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roots and cache in the test's own folder, and no network."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    monkeypatch.setenv("OFFSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    monkeypatch.setattr(sources, "BUNDLED_ROOT", tmp_path / "bundled")


@pytest.fixture
def record(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "root")


@pytest.fixture
def episode() -> Callable[..., Recorded]:
    """Makes an episode: ``episode(number, steps, terminated=False, truncated=True)``."""
    return make_episode


@pytest.fixture
def new_id() -> Callable[[], str]:
    """A dataset id that was not used before in this test."""
    numbers = itertools.count()
    return lambda: f"test/drawn/set{next(numbers)}-v0"
