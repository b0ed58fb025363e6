"""The grid of an experiment: its runs, and which of them are meant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from app.configuration import FULL, STAGES, comparable
from app.errors import UserError
from app.experiments.goals import Goal

PAGES = ("headline", "ablation", "simulator")
FIELDS = ("demonstrations", "seed", "task", "variant")


@dataclass(frozen=True)
class Run:
    """One training run of an experiment."""

    task: str
    variant: str
    demonstrations: int
    seed: int
    configuration: DictConfig = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Also its folder below the experiment's."""
        return run_name(self.task, self.variant, self.demonstrations, self.seed)

    @property
    def key(self) -> str:
        """Of its settings: two runs of the same name with other settings have other keys.

        Settings of stages that it leaves out do not count.
        """
        plain = OmegaConf.to_container(self.configuration)
        assert isinstance(plain, dict)
        unused = {*STAGES} - {*plain["stages"]}
        return settings_key({name: value for name, value in comparable(plain).items() if name not in unused})


@dataclass(frozen=True)
class Experiment:
    """An experiment and all its runs, in the order in which they are carried out.

    Attributes:
        name: the stem of its file.
        file: stem of the files of its page.
        page: kind of its page, one of ``PAGES``.
        title: heading of the page.
        question: paragraph that opens it.
        tasks: names, in the order of the file, as are the next three.
        variants: name to what it changes, as in the file.
        demonstrations: numbers of expert episodes.
        seeds: seeds.
        goals: what was hoped for.
        runs: demonstrations by seeds by tasks by variants.
        budget: the name of their budget.
        also: stems of other pages, of the same data and budget, whose runs count here where settings are the same.
        replaced: what that replaces in each base of theirs that it changes, by the name of the base.
    """

    name: str
    file: str
    page: str
    title: str
    question: str
    tasks: list[str]
    variants: dict[str, dict[str, Any]]
    demonstrations: list[int]
    seeds: list[int]
    goals: list[Goal]
    runs: list[Run]
    budget: str = FULL
    also: list[str] = field(default_factory=list)
    replaced: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_name(task: str, variant: str, demonstrations: int, seed: int) -> str:
    """Names a run among those of its experiment."""
    return f"{task}/{variant}/demonstrations{demonstrations}/seed{seed}"


def settings_key(settings: Mapping[Any, Any]) -> str:
    """A short hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def select(runs: list[Run], only: Sequence[str]) -> list[Run]:
    """The runs that one of the selections such as ``task=hopper,seed=0`` names; all of them without any.

    Raises:
        UserError: if a selection cannot be read or names no run.
    """
    chosen: set[str] = set()
    for selection in only:
        wanted: dict[str, set[str]] = {}
        for word in selection.split(","):
            key, equals, value = word.partition("=")
            if key not in FIELDS or not equals:
                raise UserError(f"cannot read {selection!r}: write --only as task=NAME,variant=NAME,seed=S")
            wanted.setdefault(key, set()).add(value)
        named = {run.name for run in runs if all(str(getattr(run, key)) in values for key, values in wanted.items())}
        if not named:
            raise UserError(f"--only {selection} names no run of this experiment; --list shows them all")
        chosen |= named
    return [run for run in runs if run.name in chosen or not only]
