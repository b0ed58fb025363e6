"""Datasets as seeds and actions, from which the real task makes the rest again: small, and no training is needed.

A file ``LEVEL-vN.safetensors`` for each dataset holds what was done in which episode and what the dataset says of
itself. Those of the published datasets come with offsim, in ``datamodules/published/TASK``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from app.errors import UserError
from app.progress import progress
from zoo.episodes import Array, Episode, content_hash, run_again
from zoo.tasks import Task

FORMAT_VERSION = 1
KIND = "actions"
KINDS = "fiibf"  # of numbers in actions, lengths, seeds, truncated and returns, as NumPy calls them


@dataclass(frozen=True)
class Facts:
    """What a file of actions says of its dataset.

    Attributes:
        algorithm: who acted.
        description: one or two sentences.
        recipe: how it was recorded.
        command: the command that recorded it.
        content: hash of its episodes, see :func:`zoo.episodes.content_hash`.
        compressed: whether its data were stored compressed.
        with_seeds: whether its data have the episodes' seeds.
        single_precision_rewards: whether rewards were rounded.
    """

    algorithm: str
    description: str
    recipe: dict[str, Any]
    command: str
    content: str
    compressed: bool
    with_seeds: bool
    single_precision_rewards: bool


@dataclass(frozen=True)
class StoredActions:
    """A file of actions.

    Attributes:
        path: the file.
        facts: what it says of its dataset.
        actions: ``(T, action)`` of all ``E`` episodes, one after the other.
        lengths: ``(E,)`` steps of each.
        seeds: ``(E,)`` what the task was reset with.
        truncated: ``(E,)`` whether it was cut.
        returns: ``(E,)`` sum of its rewards.
    """

    path: Path
    facts: Facts
    actions: Array
    lengths: NDArray[np.int64]
    seeds: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    returns: NDArray[np.float64]

    def episodes(self, task: Task, which: Sequence[int] | None = None) -> list[Episode]:
        """The episodes, or some of them, made again in the real task.

        Raises:
            UserError: if the actions are another task's.
        """
        if self.actions.shape[1] != task.action_size:
            raise UserError(
                f"{self.path} holds actions of {self.actions.shape[1]} numbers, {task.name} takes {task.action_size}"
            )
        episodes: list[Episode] = []
        parts = np.split(self.actions, np.cumsum(self.lengths)[:-1])
        chosen = range(len(parts)) if which is None else which
        with progress(f"making {self.path.stem} again", len(chosen)) as report:
            for index in chosen:
                episode = run_again(task.make, int(self.seeds[index]), parts[index])
                episode.truncated = bool(self.truncated[index]) or episode.truncated
                if self.facts.single_precision_rewards:
                    episode.rewards = episode.rewards.astype(np.float32).astype(np.float64)
                episodes.append(episode)
                report(len(episodes))
        return episodes


def write_actions(
    path: Path,
    episodes: Sequence[Episode],
    algorithm: str,
    description: str,
    recipe: dict[str, Any],
    command: str,
    compressed: bool,
    with_seeds: bool,
) -> None:
    """Write seeds and actions of episodes to a new file; the arguments are attributes of :class:`Facts`.

    Raises:
        ValueError: if an episode's seed is not known.
    """
    seeds = [episode.seed for episode in episodes if episode.seed is not None]
    if len(seeds) < len(episodes):
        raise ValueError("episodes without a seed cannot be made again from their actions")
    single = all(bool((episode.rewards.astype(np.float32) == episode.rewards).all()) for episode in episodes)
    facts = Facts(algorithm, description, recipe, command, content_hash(episodes), compressed, with_seeds, single)
    header = {"format": FORMAT_VERSION, "kind": KIND, "facts": asdict(facts)}
    arrays = {
        "actions": np.concatenate([episode.actions for episode in episodes]),
        "lengths": np.array([len(episode) for episode in episodes], dtype=np.int64),
        "seeds": np.array(seeds, dtype=np.int64),
        "truncated": np.array([episode.truncated for episode in episodes]),
        "returns": np.array([episode.total_reward for episode in episodes]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(save(arrays, metadata={"offsim": json.dumps(header)}))  # save_file makes files private
    partial.replace(path)


def read_actions(path: Path) -> StoredActions:
    """Read back what :func:`write_actions` wrote.

    Raises:
        UserError: if the file is something else, is damaged, or has another format.
    """
    damaged = f"{path} is no file of `offsim collect --store-actions`, or it is damaged"
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["offsim"])
            kind, version = header["kind"], header["format"]
            if kind == KIND and version != FORMAT_VERSION:
                raise UserError(
                    f"{path} has format {version}, this version reads {FORMAT_VERSION}: install a matching one"
                )
            facts = Facts(**header["facts"])
            names = ("actions", "lengths", "seeds", "truncated", "returns")
            actions, lengths, seeds, truncated, returns = (file.get_tensor(name) for name in names)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{damaged} ({error})") from error
    columns = (lengths, seeds, truncated, returns)
    kinds = "".join(array.dtype.kind for array in (actions, *columns))
    fits = kinds == KINDS and actions.ndim == 2 and {column.shape for column in columns} == {(len(lengths),)}
    whole = fits and len(lengths) > 0 and lengths.min() > 0 and seeds.min() >= 0 and lengths.sum() == len(actions)
    if kind != KIND or not whole or not np.isfinite(actions).all():
        raise UserError(f"{damaged}: its episodes and its actions do not go together")
    return StoredActions(path, facts, actions, lengths, seeds, truncated, returns)
