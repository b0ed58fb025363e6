"""What ``offsim fit`` refuses on its command line or in a configuration, in one sentence of jsonargparse's many."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from app.configuration import read_yaml, unknown_argument
from app.errors import UserError

IN_NONE = "Expected a <class 'NoneType'>"  # jsonargparse also tries whether a whole model may be left out


def sentence(message: str, options: Iterable[str]) -> str:
    """What is wrong, where, and the nearest name that exists.

    Args:
        message: of jsonargparse's error.
        options: what the command takes, such as ``trainer.devices``, without the model's and the data's own.
    """
    classes = re.findall(r"Problem with given class_path '([\w.]+)'", message)
    keys = re.findall(r'Parser key "([^"]+)"', message)
    where = ".".join(keys)
    if classes and (found := re.search(r"Option '([^']+)' is not accepted", message)):
        return unknown_argument(where, found[1], _imported(classes[-1]))
    if found := re.search(r"Expected a dot import path string: (.+)", message):
        return f"unknown {where} {found[1]!r}: name one of the project's classes, such as OffSim, or its whole path"
    if found := re.search(r"unrecognized arguments: (.+)|does not accept option '([^']+)'", message):
        name = (found[1] or found[2]).split()[0].lstrip("-").partition("=")[0]
        return f"unknown option {name!r}" + _nearest(name, options)
    if classes and (found := re.search(r"No module named '[^']+'|has no attribute '[^']+'|cannot import .+", message)):
        return f"{where} is {classes[-1]!r}: {found[0].strip()}"
    if classes and (found := re.search(r"required: (.+)", message)):
        needed = found[1].strip()
        return f"{where} is a {classes[-1]}, which needs {needed}: add --{where}.{needed.split(', ')[0]}"
    if "required: " in message:
        return "neither a model nor data are given: add --config with a file such as those in configs/fit"
    kinds = [kind for kind in re.findall(r"Expected an? <class '(\w+)'>", message) if kind != "NoneType"]
    if keys and kinds and (given := re.search(r"Got value: (.+)", message)):
        return f"{where} is {given[1]!r}: expected {' or '.join(dict.fromkeys(kinds))}"
    lines = [line.strip(" -") for line in message.splitlines() if IN_NONE not in line]
    return re.sub(r'Parser key "([^"]+)":', r"\1:", " ".join(lines))


def refuse_files_of_train(words: Sequence[str]) -> None:
    """Refuse configurations that are for another command, whatever is wrong with them here.

    Args:
        words: of the command line.

    Raises:
        UserError: naming that command.
    """
    named = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    named += [after for word, after in pairwise(words) if word in ("--config", "-c")]
    for name in named:
        try:
            content = read_yaml(Path(name))
        except UserError:
            continue  # said elsewhere
        if {"stages", "base"} & content.keys():
            raise UserError(
                f"{name} is a configuration of all stages: `offsim train {name}` takes it; here name that of one "
                "stage, such as those in configs/fit"
            )


def _imported(path: str) -> type:
    module, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    assert isinstance(kind, type)
    return kind


def _nearest(name: str, options: Iterable[str]) -> str:
    """``: did you mean NAME?``, or nothing if no option and no group of options is close."""
    names = {part for option in options for part in (option, option.partition(".")[0])}
    close = [each for word in (name, name.partition(".")[0]) for each in difflib.get_close_matches(word, names, n=1)]
    return f": did you mean {close[0]}?" if close else ""
