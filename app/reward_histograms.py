"""What a reward says of expert, diverse and random transitions before and after the simulator stage."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import torch
from tensordict import TensorDict

from app.recorded_rewards import raw_rewards
from app.run_folder import write_whole
from datamodules import TransitionDataModule
from lit_modules.diagnostics import spread
from lit_modules.offsim import OffSim
from zoo import Simulator
from zoo.episodes import random_actions, run_episodes
from zoo.tasks import Task

FILE = "reward_histograms.json"
ROWS = 2000  # values of each kind


def write_reward_histograms(folder: Path, untrained: OffSim, data: TransitionDataModule, task: Task, seed: int) -> Path:
    """Write unscaled rewards of up to 2000 transitions of each kind, ``{before, after}: {expert, diverse, random}``.

    Expert and diverse transitions are held-out ones where there are any. Random ones are those of uniformly random
    actions in the real task, which no training has seen.

    Args:
        folder: of a run with a finished Simulator.
        untrained: the module of its simulator stage as its seed makes it, before any update.
        data: its data module, set up.
        task: the real task.
        seed: of the random episodes.
    """
    untrained.set_statistics(data.statistics)
    tables = {
        "expert": data.expert_train if data.expert_held_out is None else data.expert_held_out,
        "diverse": data.diverse_train if data.diverse_held_out is None else data.diverse_held_out,
        "random": random_transitions(task, ROWS, seed),
    }
    trained = Simulator.load(folder / "simulator.safetensors")
    content = {
        name: {
            kind: [round(float(value), 4) for value in raw_rewards(reward, spread(table, ROWS))]
            for kind, table in tables.items()
            if table is not None
        }
        for name, reward in (("before", untrained.reward), ("after", trained.reward))
    }
    path = folder / FILE
    write_whole(path, json.dumps(content))
    return path


def random_transitions(task: Task, rows: int, seed: int) -> TensorDict:
    """Transitions of uniformly random actions in the real task, ``(rows,)``."""
    environment = task.make()
    space = environment.action_space
    environment.close()
    assert isinstance(space, gymnasium.spaces.Box)
    act = random_actions(space, seed)
    parts: list[TensorDict] = []
    while sum(len(part) for part in parts) < rows:
        for episode in run_episodes(task.make, act, 1, seed + len(parts)):
            observations = torch.from_numpy(episode.observations)
            columns = {"observation": observations[:-1], "action": torch.from_numpy(episode.actions)}
            parts.append(TensorDict({**columns, "next": {"observation": observations[1:]}}, [len(episode)]))
    return torch.cat(parts)[:rows]
