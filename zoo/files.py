"""Saving and loading: weights as safetensors, with the architecture as JSON in the file's own header.

Nothing in such a file is ever executed: the header names one of the kinds this package knows, and its values are
passed to that class's constructor.

A file may be marked as a control: what came out of an experiment that is allowed what no method is, such as a reward
that was not learned. Such files are read on purpose only.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

FORMAT_VERSION = 1


# What constructors may make of a header that somebody has changed
MISDESCRIBED = (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RuntimeError, MemoryError)


class ModelFileError(Exception):
    """A model file that is missing, damaged, foreign, or newer than this version can read."""


def write_model(
    path: str | Path,
    kind: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    control: bool = False,
    half: bool = False,
) -> None:
    """Write weights and configuration to one file; a crash leaves the previous file whole.

    Args:
        path: the file.
        kind: what it holds.
        config: plain data, from which the same architecture can be built again.
        state: its weights.
        control: mark it as a control.
        half: keep weight matrices in half precision (float16), in about half the space; biases, normalisers and all
            else stay as they are.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    described: dict[str, Any] = {"format": FORMAT_VERSION, "kind": kind, "config": dict(config)}
    if control:
        described["control"] = True
    header = {"offsim": json.dumps(described)}
    tensors = {name: value.detach().to("cpu").contiguous().clone() for name, value in state.items()}
    if half:
        tensors = halved(tensors)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(save(tensors, metadata=header))  # save_file leaves what only its owner can read
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_model(path: str | Path, kind: str, control: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read back what :func:`write_model` wrote.

    Args:
        path: the file.
        kind: what it has to hold.
        control: whether it has to be marked as a control; a control is not taken for a result, nor the reverse.

    Returns:
        The configuration and the weights, those kept in half precision in single precision again.

    Raises:
        ModelFileError: saying which file, what is wrong with it, and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"no {kind} file at {path}: check the path, or train one with `offsim train`")
    try:
        tensors = load_file(path)
        metadata = _header(path).get("__metadata__", {})
        described = json.loads(metadata["offsim"])
        version, found, config = described["format"], described["kind"], described["config"]
    except (SafetensorError, KeyError, ValueError, TypeError, struct.error) as error:
        raise ModelFileError(
            f"{path} is not a model file of this project, or it is damaged ({error}); write or download it again"
        ) from error
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has file format {version}, this version reads {FORMAT_VERSION}: install a matching offsim"
        )
    if found != kind:
        raise ModelFileError(f"{path} holds a {found}, where a {kind} was asked for")
    if bool(described.get("control", False)) != control:
        raise ModelFileError(
            f"{path} holds no control, which was asked for: name the file of one"
            if control
            else f"{path} holds a control of `offsim diagnose`, which is no result of a method: name another file"
        )
    return config, {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with their matrices in half precision, but for those that are too large for it."""

    def half(name: str, value: Tensor) -> Tensor:
        matrix = name.endswith(".weight") and value.dim() >= 2 and value.dtype == torch.float32
        return value.half() if matrix and bool(value.half().isfinite().all()) else value

    return {name: half(name, value) for name, value in state.items()}


def load_state(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Fill a module, naming the file when names or shapes do not fit."""
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ModelFileError(f"{path}: the weights do not fit the configuration in its header: {error}") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return header
