"""``offsim collect --from-actions``: datasets made again from stored actions, in minutes and without a training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from app.collect_record import read_recipe, write_dataset
from app.errors import UserError
from app.stored_actions import StoredActions, read_actions
from datamodules.sources import PUBLISHED_ROOT
from zoo.episodes import content_hash
from zoo.tasks import Task


def collect_again(arguments: argparse.Namespace, task: Task, root: Path) -> None:
    """Make the datasets of a task in ``root`` whose actions are stored and that are not there yet.

    Raises:
        UserError: if there are no such files, or an id is taken by another dataset.
    """
    files = _files(arguments, task)
    stored = {f"{arguments.namespace}/{task.name}/{path.stem}": read_actions(path) for path in files}
    recorded = {dataset_id: _is_recorded(root, dataset_id, actions) for dataset_id, actions in stored.items()}
    for dataset_id, actions in stored.items():
        if recorded[dataset_id]:
            print(f"{dataset_id}: recorded before, left as it is", flush=True)
        else:
            _make(root, dataset_id, actions, task)


def _files(arguments: argparse.Namespace, task: Task) -> list[Path]:
    folder = Path(arguments.from_actions) if arguments.from_actions else PUBLISHED_ROOT / task.name
    found = sorted(folder.glob("*-v*.safetensors"))
    levels = arguments.levels or sorted({path.stem.rpartition("-v")[0] for path in found})
    missing = [level for level in levels if not any(path.stem.startswith(f"{level}-v") for path in found)]
    if missing or not found:
        where = str(folder) if arguments.from_actions else "offsim"
        what = f"of {task.name} {' and '.join(missing)}".rstrip()
        raise UserError(
            f"no actions {what} are stored in {where}: leave out --from-actions to train and record instead"
        )
    return [path for path in found if path.stem.rpartition("-v")[0] in levels]


def _is_recorded(root: Path, dataset_id: str, actions: StoredActions) -> bool:
    found = read_recipe(root, dataset_id)
    if found is None:
        return False
    if actions.facts.content in (found.get("content"), found.get("stored_content")):
        return True
    raise UserError(
        f"{dataset_id} exists in {root} and holds other data: record under another --namespace, or remove it with "
        f"`MINARI_DATASETS_PATH={root} minari delete {dataset_id}`"
    )


def _make(root: Path, dataset_id: str, actions: StoredActions, task: Task) -> None:
    facts = actions.facts
    episodes = actions.episodes(task)
    equal = content_hash(episodes) == facts.content
    recipe: dict[str, Any] = {**facts.recipe, "recorded_first_by": facts.command, "stored_content": facts.content}
    description = f"{facts.description} Made again from its actions."
    if not equal:
        pairs = zip(episodes, actions.returns, strict=True)
        others = sum(episode.total_reward != stored for episode, stored in pairs)
        departs = f"{others} of {len(episodes)} episodes have other returns than those stored"
        description += f" Computed on another machine: {departs}."
        print(f"warning: {dataset_id} is not the stored dataset to the last digit: {departs}", flush=True)
    command = f"offsim collect {task.name} --from-actions --levels {actions.path.stem.rpartition('-v')[0]}"
    returns = write_dataset(
        root,
        dataset_id,
        episodes,
        task,
        facts.algorithm,
        description,
        recipe,
        command,
        facts.compressed,
        facts.with_seeds,
    )
    print(
        f"{dataset_id}: {len(episodes)} episodes, {sum(map(len, episodes))} steps, "
        f"return {returns['mean']:.1f} +- {returns['std']:.1f}, {'equal to the stored one' if equal else 'checked'}",
        flush=True,
    )
