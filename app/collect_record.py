"""Episodes as a Minari dataset: writing, compressing, checking, describing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.namespace import create_namespace, list_local_namespaces

from app.errors import UserError
from app.statistics import summarize_returns
from datamodules.sources import BUNDLED_ROOT, ID_PATTERN, RECORDED_BY, local_root
from zoo.episodes import Episode, content_hash, reproduces
from zoo.files import sha256
from zoo.tasks import Task

DATA_FILE = "main_data.hdf5"
EPISODE_BYTES = 10_000  # of HDF5's own bookkeeping
_OURS = f".offsim-{socket.gethostname()}-"  # and the process that is writing there
SMALL_BYTES = 1024  # below this, compression saves less than its own bookkeeping takes


class RecordingError(Exception):
    """A dataset that does not read back as it was written: a fault of this program or the disk, not of its user."""


def dataset_root(directory: str | Path | None = None) -> Path:
    """Folder of all datasets: the one given, or the one that Minari would use."""
    return (Path(directory).expanduser() if directory else local_root()).resolve()


@contextmanager
def datasets_in(root: Path) -> Iterator[None]:
    """Have Minari look for datasets in ``root``."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def read_recipe(root: Path, dataset_id: str) -> dict[str, Any] | None:
    """How a dataset in ``root`` was recorded: ``None`` if there is none, ``{}`` if it is not one of ours."""
    folder = root / dataset_id
    if not folder.exists():
        return None
    try:
        recipe = json.loads((folder / "data" / "metadata.json").read_text()).get(RECORDED_BY, {})
    except (OSError, ValueError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def refuse_unusable_id(root: Path, dataset_id: str) -> None:
    """Refuse an id that a new dataset in ``root`` cannot have.

    Raises:
        UserError: saying why.
    """
    if not ID_PATTERN.fullmatch(dataset_id):
        raise UserError(f"{dataset_id!r} is no id of a dataset: write it as name/variant-v0")
    if (BUNDLED_ROOT / dataset_id).exists():
        raise UserError(f"{dataset_id} comes with offsim: choose another id")
    try:
        parse_dataset_id(dataset_id)
    except ValueError as error:
        raise UserError(
            f"{dataset_id!r} is no id that Minari takes: write it as group/name-v0, with two letters or more in front "
            "of the slash"
        ) from error
    if (root / dataset_id).exists():
        raise UserError(f"{dataset_id} exists in {root}: take the next version, or remove it first")


@contextmanager
def new_dataset(root: Path, dataset_id: str, size: int = 0) -> Iterator[Path]:
    """Have Minari write a dataset that is in ``root`` once the block is left, and not at all if it fails.

    Args:
        root: folder of all datasets.
        dataset_id: Minari id.
        size: bytes that it will take.

    Yields:
        Its folder until then.

    Raises:
        UserError: if there is not so much room. HDF5's library ends the process where a disk fills up while it writes.
    """
    disk = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(disk).free
    if free < size:
        raise UserError(
            f"{dataset_id} takes about {size / 1e6:,.1f} MB, and {disk} has room for {free / 1e6:,.1f}: make some, or "
            "name another folder with --dataset-root"
        )
    # Hidden and on the same disk: Minari does not list it, and moving it into place is one step.
    partial = root / f"{_OURS}{os.getpid()}-{uuid.uuid4().hex}"
    _remove_left(root)
    try:
        with datasets_in(partial):
            yield partial / dataset_id
        with datasets_in(root):
            namespace = dataset_id.rpartition("/")[0]
            if namespace and namespace not in list_local_namespaces():
                create_namespace(namespace)
        os.replace(partial / dataset_id, root / dataset_id)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_left(root: Path) -> None:
    """Remove what processes of this machine were writing when they were killed."""
    for left in root.glob(f"{_OURS}*-*"):
        process = left.name.removeprefix(_OURS).partition("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (PermissionError, ValueError):  # another's, or not ours
            continue


def recorded_bytes(episodes: Sequence[Episode]) -> int:
    """About what episodes take in a dataset that is not compressed."""
    arrays = sum(each.observations.nbytes + each.actions.nbytes + each.rewards.nbytes for each in episodes)
    return arrays + EPISODE_BYTES * len(episodes)


def write_dataset(
    root: Path,
    dataset_id: str,
    episodes: Sequence[Episode],
    task: Task,
    algorithm: str,
    description: str,
    recipe: dict[str, Any],
    command: str,
    compress: bool = False,
    with_seeds: bool = True,
) -> dict[str, Any]:
    """Record episodes as ``dataset_id``; a crash or a failed check leaves no dataset behind.

    Args:
        root: folder of all datasets.
        dataset_id: Minari id that does not exist yet.
        episodes: what to record.
        task: the task they come from.
        algorithm: who acted.
        description: one or two sentences.
        recipe: everything needed to record the same again; becomes part of the metadata.
        command: the command that records the same again.
        compress: rewrite the data with :func:`repack`.
        with_seeds: record the episodes' seeds as well.

    Returns:
        What :func:`app.statistics.summarize_returns` says of the episodes.

    Raises:
        RecordingError: if the dataset does not read back as it was written.
    """
    returns = summarize_returns([episode.total_reward for episode in episodes])
    figures = {"mean": returns["mean"], "std": returns["std"]}
    figures |= {"min": min(returns["returns"]), "max": max(returns["returns"])}
    recipe = {**recipe, "content": content_hash(episodes)}
    recipe |= {"command": command, "code": code_version(), "returns": figures}
    description = (
        f"{description} Episode returns: mean {figures['mean']:.1f}, std {figures['std']:.1f}, "
        f"min {figures['min']:.1f}, max {figures['max']:.1f} over {len(episodes)} episodes."
    )
    # Compressing writes another file beside
    with new_dataset(root, dataset_id, (1 + compress) * recorded_bytes(episodes)) as folder:
        _create(dataset_id, [episode_buffer(episode, with_seeds) for episode in episodes], task, algorithm, description)
        dataset = minari.load_dataset(dataset_id)
        dataset.storage.update_metadata({RECORDED_BY: recipe})
        if compress:
            repack(folder)
        _check(dataset_id, episodes, task)
        (folder / "card.md").write_text(_card(dataset_id, folder, episodes, task, description, recipe))
    return returns


def _create(dataset_id: str, buffers: list[EpisodeBuffer], task: Task, algorithm: str, description: str) -> None:
    environment = task.make()
    space = environment.observation_space
    assert isinstance(space, gymnasium.spaces.Box) and environment.spec is not None
    # Episodes hold single precision, half the size of MuJoCo's own; the recorded space has to say so.
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, space.shape, np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(code_permalink|author_email).*is set to None.*")
        minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=environment.spec,
            eval_env=environment.spec,
            algorithm_name=algorithm,
            author="offsim",
            observation_space=observation_space,
            action_space=environment.action_space,
            description=description,
            data_format="hdf5",
            requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("gymnasium", "mujoco")],
        )
    environment.close()


def episode_buffer(episode: Episode, with_seed: bool = True) -> EpisodeBuffer:
    """Minari's own collector would build this step by step, and needs jax for it."""
    flags = np.zeros((2, len(episode)), dtype=bool)
    flags[:, -1] = episode.terminated, episode.truncated
    return EpisodeBuffer(
        seed=episode.seed if with_seed else None,
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=flags[0],
        truncations=flags[1],
    )


def _check(dataset_id: str, episodes: Sequence[Episode], task: Task, reruns: int = 3) -> None:
    """Read the dataset back, and run some of its episodes again: same start, same actions, same outcome."""
    dataset = minari.load_dataset(dataset_id)
    if dataset.spec.env_spec is None or dataset.spec.env_spec.id != task.environment_id:
        raise RecordingError(f"{dataset_id}: the environment cannot be recovered from the dataset")
    if dataset.total_episodes != len(episodes):
        raise RecordingError(f"{dataset_id}: {dataset.total_episodes} episodes instead of {len(episodes)}")
    for stored, episode in zip(dataset.iterate_episodes(), episodes, strict=True):
        buffer = episode_buffer(episode)
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            if not np.array_equal(getattr(stored, name), getattr(buffer, name)):
                raise RecordingError(f"{dataset_id}: {name} of episode {stored.id} differ from what was recorded")
    seeded = [episode for episode in episodes if episode.seed is not None]
    chosen = np.random.default_rng(0).permutation(len(seeded))[:reruns]
    for index in chosen:
        if not reproduces(task.make, seeded[index]):
            raise RecordingError(f"{dataset_id}: the episode with seed {seeded[index].seed} cannot be reproduced")


def repack(folder: str | Path) -> None:
    """Rewrite a dataset's data file in place, compressed without loss (shuffle and gzip).

    Args:
        folder: folder of the dataset, which holds ``data``.

    Raises:
        RecordingError: if Minari would read other values from the new file; the old one is then kept.
    """
    data = Path(folder) / "data"
    source, packed = data / DATA_FILE, data / f".{DATA_FILE}.partial"
    try:
        with h5py.File(source, "r") as old, h5py.File(packed, "w", libver=("v110", "v110"), track_order=True) as new:
            _copy_packed(old, new)
        with h5py.File(source, "r") as old, h5py.File(packed, "r") as new:
            _compare(old, new)
        os.replace(packed, source)
    finally:
        packed.unlink(missing_ok=True)
    dataset = minari.MinariDataset(data)
    dataset.storage.update_metadata({"dataset_size": dataset.storage.get_size()})
    read = sum(len(episode) for episode in dataset.iterate_episodes())
    if read != dataset.total_steps:
        raise RecordingError(f"{folder}: Minari reads {read} of {dataset.total_steps} steps after compression")


def _copy_packed(old: h5py.Group, new: h5py.Group) -> None:
    new.attrs.update(old.attrs)
    for name, item in old.items():
        if isinstance(item, h5py.Group):
            _copy_packed(item, new.create_group(name))
        elif item.shape == () or item.nbytes < SMALL_BYTES:
            new.create_dataset(name, data=item[()], dtype=item.dtype).attrs.update(item.attrs)
        else:
            # one chunk per array: an episode is always read whole
            options = {"chunks": item.shape, "compression": "gzip", "compression_opts": 9, "shuffle": True}
            new.create_dataset(name, data=item[()], dtype=item.dtype, **options).attrs.update(item.attrs)


def _compare(old: h5py.Group, new: h5py.Group) -> None:
    if list(old) != list(new) or dict(old.attrs) != dict(new.attrs):
        raise RecordingError(f"{old.name}: compression changed its content")
    for name, item in old.items():
        if isinstance(item, h5py.Group):
            _compare(item, new[name])
        elif item.dtype != new[name].dtype or item[()].tobytes() != new[name][()].tobytes():
            raise RecordingError(f"{item.name}: compression changed its values")


def code_version() -> str:
    """Version of this package, with the commit where it runs from a Git checkout."""
    try:
        version = importlib.metadata.version("offsim")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / ".git").exists():
        describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
        try:
            found = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return version
        return f"{version} (commit {found})"
    return version


def _card(
    dataset_id: str,
    folder: Path,
    episodes: Sequence[Episode],
    task: Task,
    description: str,
    recipe: dict[str, Any],
) -> str:
    figures = recipe["returns"]
    lengths = np.array([len(episode) for episode in episodes])
    terminated = sum(episode.terminated for episode in episodes)
    size = (folder / "data" / DATA_FILE).stat().st_size / 1e6
    lines = [
        f"# {dataset_id}",
        "",
        description,
        "",
        "Recorded by",
        "",
        f"    {recipe['command']}",
        "",
        "| | |",
        "|---|---|",
        f"| environment | {task.environment_id} {json.dumps(task.environment_kwargs)} |",
        f"| code | offsim {recipe['code']} |",
        *(f"| {name} | {importlib.metadata.version(name)} |" for name in ("gymnasium", "mujoco", "minari", "numpy")),
        f"| episodes | {len(episodes)}, of which {terminated} ended in a terminal state |",
        f"| steps | {lengths.sum()} ({lengths.min()} to {lengths.max()} per episode) |",
        f"| return | mean {figures['mean']:.1f}, std {figures['std']:.1f}, "
        f"min {figures['min']:.1f}, max {figures['max']:.1f} |",
        f"| normalised return | {task.normalized_return(figures['mean']):.1f} (0: random actions, 100: "
        f"a return of {task.expert_return:.0f}) |",
        f"| size | {size:.2f} MB |",
        "",
        "## Recipe",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in recipe.items() if name not in ("command", "returns", "code")),
        "",
        "## Hashes (SHA-256)",
        "",
        *(f"* `data/{name}` {sha256(folder / 'data' / name)}" for name in (DATA_FILE, "metadata.json")),
        "",
        "## Returns",
        "",
    ]
    if len(episodes) <= 100:
        lines += ["| episode | seed | steps | return | end |", "|---|---|---|---|---|"]
        for index, episode in enumerate(episodes):
            end = "terminal state" if episode.terminated else "cut"
            seed = "" if episode.seed is None else episode.seed
            lines.append(f"| {index} | {seed} | {len(episode)} | {episode.total_reward:.1f} | {end} |")
    else:
        totals = np.array([episode.total_reward for episode in episodes])
        lines += ["| share of episodes | return at most |", "|---|---|"]
        lines += [f"| {share}% | {np.percentile(totals, share):.1f} |" for share in (0, 10, 25, 50, 75, 90, 100)]
    return "\n".join(lines) + "\n"
