"""Minari ids to files: in the local Minari root, bundled with the package, or downloaded.

Only metadata is read here, so finding a dataset costs the same whatever its size.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import re
import socket
import threading
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gymnasium import spaces

from datamodules.errors import DataError
from zoo.files import sha256

BUNDLED_ROOT = Path(__file__).parent / "bundled"
PUBLISHED_ROOT = Path(__file__).parent / "published"  # actions of the datasets behind results and zoo, see app
PUBLISHED_NAMESPACE = "offsim"
REMEDIES = {
    "observation": "record it with gymnasium's FlattenObservation wrapper",
    "action": "record it with actions in one vector",
}
DATA_FILE = "main_data.hdf5"
METADATA_FILE = "metadata.json"
RECORDED_BY = "offsim"  # our key in Minari's metadata
DEFAULT_REMOTE = "hf://farama-minari"

# Names of word characters and hyphens only: an id can never lead out of the root.
ID_PATTERN = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")

# Minari's own attempts without a network take over twenty seconds; a connection that works opens far sooner.
CONNECTION_SECONDS = 0.8

# Larger files have their hash remembered on disk.
REMEMBERED_HASH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Source:
    """A dataset on this machine, known by its metadata.

    Attributes:
        id: Minari id.
        folder: the folder that holds ``main_data.hdf5`` and ``metadata.json``.
        observation_space: a vector space.
        action_space: a vector space.
        environment_id: Gymnasium id of the environment it was recorded in, if that is known.
        episodes: number of episodes.
        steps: number of steps of all episodes together.
        observation_names: a name for every observation feature, if the log that was imported had them, else none.
        action_names: likewise for actions.
        exogenous: numbers of the observation features that are set from outside, as the import was told.
    """

    id: str
    folder: Path
    observation_space: spaces.Box
    action_space: spaces.Box
    environment_id: str | None
    episodes: int
    steps: int
    observation_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    exogenous: tuple[int, ...] = ()

    @property
    def file(self) -> Path:
        return self.folder / DATA_FILE

    @property
    def observation_size(self) -> int:
        return int(self.observation_space.shape[0])

    @property
    def action_size(self) -> int:
        return int(self.action_space.shape[0])

    def feature(self, kind: str, index: int) -> str:
        """Number and, if it has one, name of an ``observation`` or ``action`` feature: ``1 (flow)``."""
        names = self.observation_names if kind == "observation" else self.action_names
        return f"{index} ({names[index]})" if names else str(index)

    def fingerprint(self) -> list[str | int]:
        """What changes when the file does, without reading it: id, path, size, time of the last change."""
        status = self.file.stat()
        return [self.id, str(self.file.resolve()), status.st_size, status.st_mtime_ns]


def local_root() -> Path:
    """Where Minari keeps datasets; unlike Minari's own function, asking does not create the folder."""
    chosen = os.environ.get("MINARI_DATASETS_PATH")
    return Path(chosen).expanduser() if chosen else Path.home() / ".minari" / "datasets"


def roots() -> list[Path]:
    """Roots of datasets on this machine, in the order they are searched."""
    return [local_root(), BUNDLED_ROOT]


def local_ids() -> list[str]:
    """Ids of all datasets on this machine."""
    found = {identifier for root in roots() for identifier in _ids_under(root)}
    return sorted(found)


def resolve(dataset_id: str, download: bool = True) -> Source:
    """Find a dataset on this machine, or fetch it.

    Args:
        dataset_id: ``namespace/name/variant-vN``.
        download: whether to ask Minari's remote for a dataset that is not on this machine.

    Raises:
        DataError: if the id is malformed, if the dataset is nowhere to be had, or if it is of a kind that is not
            supported; without a network this takes less than a second.
    """
    if not ID_PATTERN.fullmatch(dataset_id):
        raise DataError(
            f"{dataset_id!r} is not a dataset id: ids look like namespace/name/variant-v0, e.g. "
            f"offsim/hopper/expert-v0{_near_misses(dataset_id)}"
        )
    found = [folder for root in roots() if ((folder := root / dataset_id / "data") / METADATA_FILE).is_file()]
    if found:
        if len(found) > 1:
            warnings.warn(
                f"{dataset_id} is the one in {found[0].parent}, not the one that comes with offsim", stacklevel=2
            )
        return read_source(dataset_id, found[0])
    if download:
        problem = _download(dataset_id)
        folder = local_root() / dataset_id / "data"
        if problem is None and (folder / METADATA_FILE).is_file():
            return read_source(dataset_id, folder)
        problem = problem or "the download left no such dataset"
    else:
        problem = "not asked"
    namespace, _, name = dataset_id.partition("/")
    if namespace == PUBLISHED_NAMESPACE and (PUBLISHED_ROOT / f"{name}.safetensors").is_file():
        task = name.partition("/")[0]
        raise DataError(f"{dataset_id} is not on this machine yet: make it with `offsim collect {task} --from-actions`")
    searched = "; ".join([*(str(root / dataset_id) for root in roots()), f"{_remote()} ({problem})"])
    raise DataError(
        f"no dataset {dataset_id!r}. Looked in: {searched}. Check the id, set MINARI_DATASETS_PATH to the folder that "
        f"holds it, record it with `offsim collect`, or run once with a network{_near_misses(dataset_id)}"
    )


def read_source(dataset_id: str, folder: Path) -> Source:
    """Read the metadata of a dataset.

    Raises:
        DataError: if the files are damaged, of another format, or the spaces are not vectors.
    """
    # Here and not above: whoever only catches a DataError need not wait for Minari.
    from minari import supported_dataset_versions
    from minari.serialization import deserialize_space

    try:
        metadata: dict[str, Any] = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
        observation_space = deserialize_space(metadata["observation_space"])
        action_space = deserialize_space(metadata["action_space"])
        episodes, steps = int(metadata["total_episodes"]), int(metadata["total_steps"])
        specification = metadata.get("env_spec")
        environment_id = json.loads(specification).get("id") if specification else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, NotImplementedError) as error:
        raise DataError(
            f"dataset {dataset_id}: cannot read {folder / METADATA_FILE} ({type(error).__name__}: {error}); "
            f"delete {folder.parent} and download or record it again"
        ) from error
    version = metadata.get("minari_version")
    if version not in supported_dataset_versions:
        raise DataError(
            f"dataset {dataset_id}: written by Minari {version}, while the Minari installed here reads "
            f"{supported_dataset_versions}; install a matching version or download the dataset's latest version"
        )
    if metadata.get("data_format", "hdf5") != "hdf5" or not (folder / DATA_FILE).is_file():
        raise DataError(
            f"dataset {dataset_id}: no {folder / DATA_FILE} (format {metadata.get('data_format')!r}); only HDF5 is "
            "read, so record or convert it with data_format='hdf5'"
        )
    spaces_of = {
        "observation": _vector_space(dataset_id, "observation", observation_space),
        "action": _vector_space(dataset_id, "action", action_space),
    }
    ours = metadata.get(RECORDED_BY)
    return Source(
        id=dataset_id,
        folder=folder,
        observation_space=spaces_of["observation"],
        action_space=spaces_of["action"],
        environment_id=environment_id,
        episodes=episodes,
        steps=steps,
        observation_names=_names(ours, "observation_names", spaces_of["observation"].shape[0]),
        action_names=_names(ours, "action_names", spaces_of["action"].shape[0]),
        exogenous=_exogenous(ours, spaces_of["observation"].shape[0]),
    )


def _names(ours: Any, key: str, count: int) -> tuple[str, ...]:
    """Names of features as an import left them; none if they are not there, or are others than the features."""
    names = ours.get(key) if isinstance(ours, dict) else None
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def _exogenous(ours: Any, count: int) -> tuple[int, ...]:
    """Numbers of features as an import left them; none if they are not there, or are none of the features."""
    numbers = ours.get("exogenous") if isinstance(ours, dict) else None
    if not isinstance(numbers, list) or not all(type(each) is int and 0 <= each < count for each in numbers):
        return ()
    return tuple(numbers)


def data_facts(source: Source, cache_dir: Path | None = None) -> dict[str, Any]:
    """What identifies a dataset: ``id``, ``sha256`` of its file, ``episodes`` and ``steps``.

    The hash of a large file is remembered in ``cache_dir``, if that is given and can be written.
    """
    return {
        "id": source.id,
        "sha256": _file_hash(source.file, cache_dir),
        "episodes": source.episodes,
        "steps": source.steps,
    }


def _vector_space(dataset_id: str, name: str, space: Any) -> spaces.Box:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.shape[0] == 0:
        whole = isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
        remedy = "actions that are one of several are not supported" if whole and name == "action" else REMEDIES[name]
        raise DataError(
            f"dataset {dataset_id}: {name} space {space} is not supported, only vectors (a one-dimensional Box) are; "
            f"{remedy}, or choose another dataset"
        )
    if name == "action" and space.dtype is not None and space.dtype.kind != "f":
        warnings.warn(
            f"dataset {dataset_id}: {name} space {space} holds whole numbers, and policies take what is between them "
            "as well",
            stacklevel=2,
        )
    return space


def _ids_under(root: Path) -> Iterator[str]:
    for folder, names, _ in os.walk(root):
        if (Path(folder) / "data" / METADATA_FILE).is_file():
            yield Path(folder).relative_to(root).as_posix()
            names.clear()
        else:
            names[:] = [name for name in names if not name.startswith(".")]


def _near_misses(dataset_id: str) -> str:
    close = difflib.get_close_matches(dataset_id, local_ids(), n=3, cutoff=0.5)
    return f". On this machine there is {', '.join(close)}: did you mean that?" if close else ""


# ------------------------------------------------------------------------------------------------------------ download


def _remote() -> str:
    return os.environ.get("MINARI_REMOTE") or DEFAULT_REMOTE


def _download(dataset_id: str) -> str | None:
    """Download a dataset into the local root, or say why that is not possible."""
    problem = _no_remote(_remote())
    if problem is not None:
        return problem
    from minari import download_dataset

    try:
        download_dataset(dataset_id)
    # The hub raises errors of several HTTP libraries, which need not even be installed.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _no_remote(remote: str) -> str | None:
    """Why a remote cannot be reached, found out fast; ``None`` if it can."""
    kind = remote.split("://")[0]
    if kind not in ("hf", "gcp"):
        return "MINARI_REMOTE must start with hf:// or gcp://"
    if kind == "hf":
        if importlib.util.find_spec("huggingface_hub") is None:
            return "huggingface_hub is not installed, pip install 'offsim[hub]'"
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            return "HF_HUB_OFFLINE is set"
        address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    else:
        if not _installed("google.cloud.storage"):
            return "google-cloud-storage is not installed, pip install 'minari[gcs]'"
        address = "https://storage.googleapis.com"
    if not _connects(address):
        return f"no connection to {urllib.parse.urlsplit(address).hostname}"
    return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _connects(address: str) -> bool:
    """Whether a connection to an address, or to the proxy that leads there, opens within ``CONNECTION_SECONDS``."""
    target = urllib.parse.urlsplit(address)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(target.hostname or ""):
        target = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = target.port or (443 if target.scheme == "https" else 80)
    opened = threading.Event()

    def connect() -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((target.hostname, port), timeout=CONNECTION_SECONDS),
        ):
            opened.set()

    # Looking up a name has no time limit of its own, so the attempt is left behind when it takes too long.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(CONNECTION_SECONDS)
    return opened.is_set()


# -------------------------------------------------------------------------------------------------------------- hashes


def _file_hash(path: Path, cache_dir: Path | None) -> str:
    status = path.stat()
    return _hash_of_version(path.resolve(), status.st_size, status.st_mtime_ns, cache_dir)


@lru_cache(maxsize=256)
def _hash_of_version(path: Path, size: int, modified: int, cache_dir: Path | None) -> str:
    if cache_dir is None or size < REMEMBERED_HASH_BYTES:
        return sha256(path)
    key = hashlib.sha256(json.dumps([str(path), size, modified]).encode()).hexdigest()[:32]
    remembered = cache_dir / "hashes" / key
    with contextlib.suppress(OSError):
        return remembered.read_text(encoding="ascii").strip()
    result = sha256(path)
    with contextlib.suppress(OSError):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        partial = remembered.with_name(f".{key}.{os.getpid()}")
        partial.write_text(result, encoding="ascii")
        partial.replace(remembered)
    return result
