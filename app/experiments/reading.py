"""From an experiment's YAML to its runs, each with a configuration that was resolved and checked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from app.arguments import find_task
from app.configuration import (
    DEFAULTS,
    FULL,
    find_configuration,
    load_configuration,
    overlay,
    read_yaml,
    refuse_unknown,
    resolve,
    with_budget,
)
from app.errors import UserError
from app.experiments.goals import read_goals
from app.experiments.grid import PAGES, Experiment, Run

REQUIRED = ("tasks", "demonstrations", "seeds", "variants")
OPTIONAL = ("title", "question", "base", "settings", "data_of", "page", "file", "also", "goals")
# What the grid itself decides, and where in the YAML
DECIDED = {"task": "tasks", "seed": "seeds", "data.demonstrations": "demonstrations"}


def shipped_experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    folder = resources.files("configs") / "experiments"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_experiment(
    source: str, expert: str | None = None, diverse: Sequence[str] | None = None, budget: str = FULL
) -> Experiment:
    """Read an experiment and resolve the configuration of every run.

    Args:
        source: path of a file, or name of an experiment that comes with the package.
        expert: Minari id that replaces the one in ``settings``, with ``{task}`` for the task's name.
        diverse: likewise; a variant that names its own data keeps it.
        budget: one of those of the bases, which replaces settings of theirs; what the experiment says itself stays.

    Raises:
        UserError: saying which key or value is wrong, and in which run.
    """
    path = _find(source)
    content = read_yaml(path)
    keys = OmegaConf.create(dict.fromkeys((*REQUIRED, *OPTIONAL), 0))
    try:
        for key in map(str, content):
            refuse_unknown(key, keys)
        missing = [key for key in REQUIRED if key not in content]
        if missing:
            raise UserError(f"an experiment needs {missing[0]}")
        plain = OmegaConf.to_container(content, resolve=False)
        assert isinstance(plain, dict)
        tasks, variants = _listed(plain, "tasks", str), _variants(plain["variants"])
        for task in tasks:
            find_task(task)
        page = plain.get("page", PAGES[0])
        if page not in PAGES:
            raise UserError(f"unknown page {page!r}: choose one of {', '.join(PAGES)}")
        settings = _replace_data(_mapping(plain.get("settings"), "settings"), expert, diverse)
        own_data = _data_of(plain.get("data_of"), tasks, expert, diverse)
        base, name = str(plain.get("base", DEFAULTS)), path.stem
        demonstrations, seeds = _listed(plain, "demonstrations", int, 1), _listed(plain, "seeds", int, 0)
        also = _listed(plain, "also", str) if "also" in plain else []
        goals = read_goals(plain.get("goals"), tasks, list(variants), demonstrations)
        bases = Bases(path.parent, budget)
        resolved = {
            (task, variant): _resolved(bases, base, task, variant, [settings, own_data[task]], variants[variant])
            for task, variant in product(tasks, variants)
        }
        runs = [
            Run(task, variant, count, seed, _decided(resolved[task, variant], count, seed))
            for count, seed, task, variant in product(demonstrations, seeds, tasks, variants)
        ]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    title, question = str(plain.get("title", name)), " ".join(str(plain.get("question", "")).split())
    file = str(plain.get("file", name))
    return Experiment(
        name,
        file,
        page,
        title,
        question,
        tasks,
        variants,
        demonstrations,
        seeds,
        goals,
        runs,
        budget,
        also,
        bases.replaced,
    )


def _find(source: str) -> Path:
    shipped = Path(str(resources.files("configs") / "experiments" / f"{source}.yaml"))
    for path in (Path(source), shipped):
        if path.is_file():
            return path
    names = shipped_experiments()
    close = difflib.get_close_matches(source, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"experiments that come along are {', '.join(names)}"
    raise UserError(f"{source!r} is neither a file nor an experiment: {hint}")


class Bases:
    """The configurations that an experiment builds on, each read once, with the experiment's budget."""

    def __init__(self, folder: Path, budget: str) -> None:
        self.folder, self.budget = folder, budget
        self.replaced: dict[str, dict[str, Any]] = {}
        self._read: dict[tuple[Path, str | None], DictConfig] = {}

    def find(self, name: str, method: str | None) -> DictConfig:
        """The base of that name, with the settings of a learner where ``method`` names one.

        Raises:
            UserError: if there is none, or none of that budget.
        """
        found = find_configuration(name, self.folder)
        if found is None:
            raise UserError(f"base {name!r} is neither a file beside it nor a configuration that comes along")
        if (found, method) not in self._read:
            base = load_configuration(str(found), method)
            self._read[found, method] = with_budget(base, self.budget)
            if replaced := OmegaConf.to_container(base.get("budgets", {}).get(self.budget) or OmegaConf.create()):
                assert isinstance(replaced, dict)
                self.replaced[name] = {str(key): value for key, value in replaced.items()}
        return self._read[found, method]


def _resolved(
    bases: Bases, base: str, task: str, variant: str, shared: list[dict[str, Any]], own: dict[str, Any]
) -> DictConfig:
    """The base, what all runs change in it and then those of a task, what a variant changes in that."""
    named = str(own.get("base", base)).replace("{task}", task)
    layers = [*shared, {key: value for key, value in own.items() if key != "base"}]
    try:
        chosen = [layer["policy"]["method"] for layer in layers if "method" in layer.get("policy", {})]
        configuration = bases.find(named, str(chosen[-1]) if chosen else None)
        for layer in layers:
            differences = OmegaConf.create(_with_task(layer, task))
            assert isinstance(differences, DictConfig)
            configuration = overlay(configuration, differences)
        return resolve(configuration, FULL, {"task": task}, [])
    except UserError as error:
        raise UserError(f"{variant} on {task}: {error}") from error


def _decided(resolved: DictConfig, demonstrations: int, seed: int) -> DictConfig:
    configuration = resolved.copy()
    configuration.seed = seed
    configuration.data.demonstrations = demonstrations
    return configuration


def _with_task(value: Any, task: str) -> Any:
    """The same with ``{task}`` in every string replaced by the task's name."""
    if isinstance(value, dict):
        return {key: _with_task(item, task) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_task(item, task) for item in value]
    return value.replace("{task}", task) if isinstance(value, str) else value


def _replace_data(settings: dict[str, Any], expert: str | None, diverse: Sequence[str] | None) -> dict[str, Any]:
    data = _mapping(settings.get("data"), "settings.data")
    data |= {} if expert is None else {"expert": expert}
    data |= {} if diverse is None else {"diverse": list(diverse)}
    return {**settings, "data": data}


def _data_of(
    value: Any, tasks: Sequence[str], expert: str | None, diverse: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
    """The data of single tasks, as settings of each; what the command line names is the same for all."""
    own = {} if value is None else value
    if not isinstance(own, dict) or not all(isinstance(data, dict) for data in own.values()):
        raise UserError(f"data_of must name tasks and settings of their data, and is {value!r}")
    for task in own:
        refuse_unknown(str(task), OmegaConf.create(dict.fromkeys(tasks, 0)))
        _mapping({"data": own[task]}, f"data_of {task}")
    return {task: _replace_data({"data": own.get(task)}, expert, diverse) for task in tasks}


def _listed(plain: dict[Any, Any], key: str, kind: type, least: int = 0) -> list[Any]:
    values = plain[key]
    right = isinstance(values, list) and values and all(type(value) is kind for value in values)
    if not right or len(set(values)) < len(values) or (kind is int and min(values) < least):
        wanted = "names" if kind is str else f"whole numbers from {least} on"
        raise UserError(f"{key} must be a list of {wanted}, each once, and is {values!r}")
    return list(values)


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{key} must hold settings, and is {value!r}")
    found = dict(value or {})
    for path, where in DECIDED.items():
        group, _, leaf = path.rpartition(".")
        inside = found.get(group) if group else found
        if isinstance(inside, dict) and leaf in inside:
            raise UserError(f"{key} sets {path}, which the grid decides: list it under {where}")
    return found


def _variants(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not value:
        raise UserError("variants must name at least one variant, such as `plain: {}`")
    for name in value:
        if not re.fullmatch(r"[\w-][\w.-]*", str(name)):
            raise UserError(f"variant {name!r}: use letters, digits, _, - and ., for it names a folder")
    return {str(name): _mapping(settings, f"variant {name}") for name, settings in value.items()}
