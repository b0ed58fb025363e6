"""What ``benchmarks.fuzz`` damages: a valid file of each kind that offsim reads, and how it reads it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from app.checkpoints import LAST, WholeCheckpointIO
from app.collect_expert import Training, read_settings
from app.configuration import load_configuration, resolve
from app.errors import UserError
from app.experiments.reading import load_experiment
from app.log_episodes import read_episodes
from app.report import write_report
from app.stored_actions import read_actions
from app.tables import Layout
from datamodules import TransitionDataModule
from datamodules.errors import DataError
from zoo import load, load_policy
from zoo.entries import MANIFEST, SHIPPED, read_manifest, verified
from zoo.files import ModelFileError
from zoo.ids import EntryId

ENTRY = EntryId("inverted_pendulum", "mixed", 0)
DATASET = "offsim/hopper/expert-v0"
LOG = "run,level,flow,valve,end\n7,1,10,0.1,0\n7,2,20,0.2,0\n7,3,30,0.3,1\nb,4,40,0.4,0\nb,5,50,0.5,0\n"


@dataclass
class Target:
    """One kind of file.

    Attributes:
        read: what offsim does with it; takes the path, returns what it found there.
        content: of a valid one.
        name: of the file, with folders, in the folder of a trial.
        refusals: how it says that it will not take it.
        beside: files that have to lie beside it, by their name.
        checked: whether checksums let nothing pass that was changed.
        share: of the inputs asked for, where one takes long.
    """

    read: Callable[[Path], Any]
    content: bytes
    name: str
    refusals: tuple[type[BaseException], ...] = (UserError,)
    beside: Mapping[str, bytes] = field(default_factory=dict)
    checked: bool = False
    share: float = 1.0

    def prepare(self, folder: Path) -> Path:
        """Lay the files out in an empty folder; the path of the one that is damaged."""
        for name, content in {**self.beside, self.name: self.content}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.name


def targets() -> dict[str, Target]:
    """Every target by its name in the table."""
    return {
        "simulator": _model("simulator.safetensors", load),
        "policy": _model("policy.safetensors", load_policy),
        "file of a zoo entry": _entry("simulator.safetensors"),
        "list of a zoo entry": _entry(MANIFEST),
        "checkpoint of a stage": Target(WholeCheckpointIO().load_checkpoint, _saved(_checkpoint()), "run.ckpt"),
        "checkpoint of collect": Target(
            lambda path: (Training(path.parent).iterations, Training(path.parent).evaluations),
            _saved(_checkpoint()),
            LAST,
        ),
        "dataset, HDF5": _dataset("main_data.hdf5"),
        "dataset, metadata": _dataset("metadata.json"),
        "stored actions": Target(
            lambda path: vars(read_actions(path)), _package("datamodules/published/walker2d/expert-v0.safetensors"), "a"
        ),
        "log, CSV": Target(_log, LOG.encode(), "log.csv"),
        "log, NPZ": Target(_log, _archive(), "log.npz"),
        "configuration of a training": Target(
            lambda path: resolve(load_configuration(str(path)), "full", {}, []),
            b"base: hopper\n" + _package("configs/train/defaults.yaml").replace(b"task: ???", b"task: hopper"),
            "own.yaml",
            share=0.2,
        ),
        "configuration of an experiment": Target(
            lambda path: [vars(run) for run in load_experiment(str(path)).runs],
            _package("configs/experiments/c.yaml"),
            "own.yaml",
            share=0.02,
        ),
        "configuration of collect": Target(
            lambda path: read_settings("hopper", str(path)), _package("configs/collect/hopper.yaml"), "own.yaml"
        ),
        "figures of a run": Target(
            lambda path: write_report(path.parent).read_bytes(),
            (SHIPPED / str(ENTRY) / "metrics.json").read_bytes(),
            "metrics.json",
            beside={"config.yaml": (SHIPPED / str(ENTRY) / "config.yaml").read_bytes()},
            share=0.05,
        ),
    }


def fingerprint(found: Any) -> str:
    """The same for the same content."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.nn.Module):
            value = value.state_dict()
        if isinstance(value, TensorDict):
            value = value.to_dict()
        if isinstance(value, torch.Tensor):
            value = value.numpy()
        if isinstance(value, Mapping):
            for name in sorted(value, key=str):
                digest.update(str(name).encode())
                add(value[name])
        elif isinstance(value, list | tuple):
            for each in value:
                add(each)
        elif isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        else:
            digest.update(value if isinstance(value, bytes) else repr(value).encode())

    add(found)
    return digest.hexdigest()


def _package(path: str) -> bytes:
    folder, _, rest = path.partition("/")
    return resources.files(folder).joinpath(rest).read_bytes()


def _model(name: str, read: Callable[[Path], Any]) -> Target:
    return Target(read, (SHIPPED / str(ENTRY) / name).read_bytes(), name, (ModelFileError,))


def _entry(damaged: str) -> Target:
    def read(path: Path) -> Any:
        files = read_manifest(path.parent, ENTRY)
        return {name: verified(path.parent, ENTRY, name).read_bytes() for name in sorted(files)}

    folder = SHIPPED / str(ENTRY)
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    content = files.pop(damaged)
    return Target(read, content, damaged, (ModelFileError,), files, checked=damaged != MANIFEST)


def _dataset(damaged: str) -> Target:
    folder = Path(str(resources.files("datamodules") / "bundled" / DATASET / "data"))
    files = {f"{DATASET}/data/{file.name}": file.read_bytes() for file in folder.iterdir()}
    name = f"{DATASET}/data/{damaged}"
    content = files.pop(name)

    def read(path: Path) -> Any:
        root = path.parents[len(Path(name).parts) - 1]
        os.environ["MINARI_DATASETS_PATH"] = str(root)
        shutil.rmtree(root / "cache", ignore_errors=True)
        data = TransitionDataModule(DATASET, demonstrations=3, streams={"expert": 8}, cache_dir=str(root / "cache"))
        data.setup("fit")
        return data.expert_train, data.facts()

    return Target(read, content, name, (DataError,), files, share=0.2)


def _log(path: Path) -> Any:
    layout = Layout(["level", "flow"], ["valve"], episode="run", terminated="end")
    return [vars(episode) for episode in read_episodes(path, layout)]


def _archive() -> bytes:
    file = io.BytesIO()
    run = np.array([7, 7, 7, 8, 8])
    columns = {name: np.arange(5.0) for name in ("level", "flow", "valve")}
    np.savez(file, run=run, end=np.array([False, False, True, False, False]), **columns)  # type: ignore[arg-type]
    return file.getvalue()


def _checkpoint() -> dict[str, Any]:
    """With the parts that the readers of checkpoints look for."""
    evaluations = [{"updates": 10, "steps": 20, "return": 1.5}]
    return {
        "state_dict": {"weight": torch.arange(12.0).reshape(3, 4)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]}],
        "hyper_parameters": {"seed": 0},
        "global_step": 7,
        "online_sac": {"updates": 10, "evaluations": evaluations, "environments": torch.zeros(3)},
    }


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()
