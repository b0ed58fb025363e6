"""What the settings of ``offsim train`` may be: types and ranges, of every value before any work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from app.errors import UserError
from lit_modules.ranges import refuse_outside

# Arguments of methods
GIVEN_ELSEWHERE = {"simulator", "dynamics_reward", "observation_size", "action_low", "action_high", "exogenous"}


@dataclass
class Data:
    """``data``."""

    expert: str | list[str]
    held_out_fraction: ClosedUnitInterval
    diverse_fraction: ClosedUnitInterval
    noise_fraction: ClosedUnitInterval
    expert_keep_every: PositiveInt
    out_of_bounds: str
    memory_limit_mb: NonNegativeInt
    demonstrations: PositiveInt | None = None
    diverse: list[str] | str | None = None
    exogenous: list[str | int] | None = None


@dataclass
class BehaviourCloningStage:
    """``behaviour_cloning``."""

    updates: PositiveInt
    rows: str
    batch_size: PositiveInt
    model: dict[str, Any]


@dataclass
class SimulatorStage:
    """``simulator``."""

    updates: PositiveInt
    expert_rows: PositiveInt
    all_rows: PositiveInt
    model: dict[str, Any]


@dataclass
class WeightedCloningStage:
    """``weighted_cloning``."""

    updates: PositiveInt
    expert_rows: PositiveInt
    model: dict[str, Any]


@dataclass
class DynamicsRewardStage:
    """``dynamics_reward``."""

    updates: PositiveInt
    all_rows: PositiveInt
    model: dict[str, Any]


@dataclass
class PolicyStage:
    """``policy``."""

    method: str
    updates: PositiveInt
    expert_rows: NonNegativeInt
    all_rows: NonNegativeInt
    model: dict[str, Any]


@dataclass
class Evaluation:
    """``evaluation``."""

    episodes: PositiveInt
    curve_points: PositiveInt
    curve_episodes: PositiveInt
    reward_histograms: bool


@dataclass
class Run:
    """A whole configuration."""

    seed: NonNegativeInt
    accelerator: str
    devices: int | str | list[int]
    stages: list[str] | str
    data: Data
    behaviour_cloning: BehaviourCloningStage
    simulator: SimulatorStage
    weighted_cloning: WeightedCloningStage
    dynamics_reward: DynamicsRewardStage
    policy: PolicyStage
    evaluation: Evaluation
    task: str | None = None
    matmul_precision: Literal["highest", "high", "medium"] = "highest"


def refuse_other_types(settings: dict[str, Any]) -> None:
    """Refuse a configuration with a setting of another type, or outside of what it may be, methods' own apart.

    Raises:
        UserError: naming the setting and what was expected.
    """
    _parse("", Run, settings)


def refuse_misfits(prefix: str, settings: dict[str, Any], method: type) -> None:
    """Refuse arguments of a method's constructor, likewise.

    Args:
        prefix: what stands before their names in a configuration.
        settings: the arguments.
        method: whose they are.

    Raises:
        UserError: naming the setting and what was expected.
    """
    _parse(prefix, method, settings)
    try:
        refuse_outside(settings, prefix)
    except ValueError as error:
        raise UserError(str(error)) from error


@cache  # an experiment reads a configuration for each of its runs
def _parser(kind: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None, skip=set() if kind is Run else GIVEN_ELSEWHERE)
    return parser


def _parse(prefix: str, kind: type, settings: dict[str, Any]) -> None:
    try:
        _parser(kind).parse_object(settings, defaults=False)
    except ArgumentError as error:
        raise UserError(_sentence(prefix, str(error))) from error


def _sentence(prefix: str, message: str) -> str:
    """Jsonargparse's explanation in one line, with the whole name of the setting."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    first = lines[0].removeprefix("Parser key ").strip('":')
    if any(line.startswith("Subtypes") for line in lines):
        wanted = next(line for line in lines if line.startswith("Subtypes"))
        given = next(line for line in lines if line.startswith("Given value:")).removeprefix("Given value: ")
        names = [name.rpartition(".")[2] for name in re.findall(r"[\w.]*\w", wanted.removeprefix("Subtypes:"))]
        kinds = [name.replace("NoneType", "null") for name in names if name not in ("class", "typing")]
        return f"{prefix}{first} is {given}: expected {' or '.join(kinds)}"
    literal = re.search(r"Expected a typing.Literal\[(.*)\]. Got value: (.*)", message)
    if literal:
        choices = " or ".join(re.findall(r"[\w.-]+", literal[1]))
        return f"{prefix}{first.partition(chr(34))[0]} is {literal[2]}: expected {choices}"
    return f"{prefix}{first}: {'; '.join(lines[1:])}" if len(lines) > 1 else f"{prefix}{first}"
