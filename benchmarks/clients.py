"""Learners of other projects, trained in a Simulator and tried in the real task.

``python -m benchmarks.clients SIMULATOR --client sb3-sac`` makes the environment with ``gymnasium.make``, trains with
the client's own defaults, and writes returns in Simulator and real task as JSON. Nothing of offsim stands between the
two. Stable-Baselines3 has to be installed for its clients: ``pip install -e '.[dev]'``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

import zoo
from benchmarks import ppo_in_one_file
from zoo.episodes import run_episodes
from zoo.simulator import AGGREGATIONS

ENVIRONMENT = "zoo:OffSim/Simulator-v0"
OPTIONS = ("penalty", "fading", "demonstrated_starts", "noise_scale", "aggregation", "pushes")  # of the environment
Act = Callable[[NDArray[Any]], NDArray[Any]]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulator", help="folder of a run, path of a Simulator's file, or id of the zoo")
    parser.add_argument("--client", default="sb3-sac", choices=list(CLIENTS), help="who learns")
    parser.add_argument("--steps", type=int, default=100_000, help="steps in the Simulator")
    parser.add_argument("--seed", type=int, default=0, help="of the learner and of all episodes")
    parser.add_argument("--episodes", type=int, default=20, help="episodes that the result is tried in")
    parser.add_argument("--penalty", type=float, default=0.0, help="what uncertainty costs, see docs/environments.md")
    parser.add_argument("--fading", type=float, default=0.0, help="how fast reward fades with uncertainty, likewise")
    parser.add_argument("--demonstrated-starts", type=float, default=0.0, help="share of episodes, likewise")
    parser.add_argument("--noise-scale", type=float, help="share of the predicted deviation, likewise")
    parser.add_argument("--aggregation", choices=AGGREGATIONS, help="who moves an episode, likewise")
    parser.add_argument("--pushes", type=float, default=0.0, help="share of steps at which a push begins, likewise")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--out", type=Path, help="JSON file to write; Stable-Baselines3's model goes beside it")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    options = {name: getattr(given, name) for name in OPTIONS}
    result = measure(given.simulator, given.client, given.steps, given.seed, given.episodes, given.out, **options)
    text = json.dumps(result, indent=2)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n")


def measure(
    simulator: str,
    client: str,
    steps: int,
    seed: int,
    episodes: int,
    out: Path | None = None,
    **options: float | str | None,
) -> dict[str, Any]:
    """Train a client in a Simulator, and its returns there, in learned reward, and in the real task.

    ``options`` are those of the environment that it trains in, see docs/environments.md; ``out`` is the file that the
    result will be written to.
    """
    begun = time.monotonic()
    model = None if out is None else out.with_suffix(".zip")
    act = CLIENTS[client](steps, seed, model, simulator=simulator, **options)
    seconds = time.monotonic() - begun
    task = zoo.load(simulator).task
    real = [] if task is None else run_episodes(zoo.get_task(task).make, act, episodes, seed)
    imagined = run_episodes(lambda: gymnasium.make(ENVIRONMENT, simulator=simulator), act, episodes, seed)
    return {
        "simulator": simulator,
        "task": task,
        "client": client,
        "steps": steps,
        "seed": seed,
        **options,
        "training_seconds": round(seconds, 1),
        "real_returns": [round(episode.total_reward, 1) for episode in real],
        "real_mean": float(np.mean([episode.total_reward for episode in real])) if real else None,
        "expert_return": None if task is None else zoo.get_task(task).expert_return,
        "simulator_mean": float(np.mean([episode.total_reward for episode in imagined])),
        "simulator_length": float(np.mean([len(episode) for episode in imagined])),
        "versions": {name: _version(name) for name in ("gymnasium", "stable-baselines3", "torch")},
    }


def sb3(algorithm: str, steps: int, seed: int, file: Path | None, **kwargs: Any) -> Act:
    """Stable-Baselines3 as its own documentation uses it; what it has learned is written to ``file``."""
    import stable_baselines3

    environment = gymnasium.make(ENVIRONMENT, **kwargs)
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", environment, seed=seed, device="cpu")
    model.learn(steps)
    if file is not None:
        model.save(file)
    return lambda observations: model.predict(observations, deterministic=True)[0]


def one_file(steps: int, seed: int, file: Path | None, **kwargs: Any) -> Act:
    """A script of one's own, in the manner of CleanRL."""
    doubted = any(kwargs.get(name, 0.0) > 0 for name in ("penalty", "fading"))
    return ppo_in_one_file.train(ENVIRONMENT, steps, seed, uncertainty=doubted, **kwargs)


CLIENTS: dict[str, Callable[..., Act]] = {
    "sb3-sac": partial(sb3, "SAC"),
    "sb3-ppo": partial(sb3, "PPO"),
    "ppo-in-one-file": one_file,
}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
