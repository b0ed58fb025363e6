"""Recorded transitions made again by the real task: its model is put into the recorded state and steps once.

This reads rewards and the real task, so it is evaluation; nothing that trains imports it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from app.data_checks.finding import FAULT, NOTE, Finding
from app.data_checks.recording import Array, Transitions
from zoo.placement import Placement
from zoo.tasks import Task

ROWS = 1000  # transitions that are made again
PERCENTILES = (50, 90, 99)
LEVEL = 90  # percent: versions of a task differ at few steps, such as those with the ground in contact
RIGHT = 0.01  # error in deviations of the change, at that level, up to which a replay counts as the same system
BETTER = 0.2  # another explanation of the data has to bring that error down to this share
REWARD_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Replayed:
    """What the task made of ``N`` recorded states and actions.

    Attributes:
        error: root-mean-square over features, in deviations of the recorded changes, ``(N,)``.
        reward: ``(N,)``.
    """

    error: Array
    reward: Array

    @property
    def usual(self) -> float:
        """The error that ``LEVEL`` percent of the steps stay below."""
        return float(np.percentile(self.error, LEVEL))


class Replayer:
    """Puts a MuJoCo task into recorded states.

    Args:
        environment: a real task of Gymnasium.
        placement: how an observation says which state it is in.
    """

    def __init__(self, environment: gymnasium.Env, placement: Placement) -> None:
        self.environment = environment
        self.placement = placement
        environment.reset(seed=0)

    def __call__(self, rows: Transitions, at: Array, actions: Array) -> Replayed:
        """Make the transitions ``at`` again with ``actions`` ``(N, action)``."""
        bare: Any = self.environment.unwrapped
        reached, rewards = [], []
        for row, action in zip(at, actions, strict=True):
            bare.set_state(*self.placement.state(rows.observation[row]))
            # The solver starts from its last answer, which belongs to another state
            bare.data.qacc_warmstart[:] = 0.0
            observation, reward, *_ = bare.step(action)
            reached.append(observation)
            rewards.append(float(reward))
        scale = (rows.following - rows.observation).std(axis=0)
        difference = (np.array(reached) - rows.following[at]) / np.where(scale > 0, scale, 1.0)
        return Replayed(np.sqrt(np.square(difference).mean(axis=1)), np.array(rewards))


def replayed(task: Task, environment_id: str | None, rows: Transitions) -> tuple[list[Finding], list[str]]:
    """Findings of a replay in ``task``, and lines that report its errors.

    Args:
        task: the real task; one with a placement.
        environment_id: what the dataset says it was recorded in, if anything.
        rows: of whole episodes with the task's number of features.
    """
    assert task.placement is not None
    known = task.placement.complete(rows.observation)
    inner = np.flatnonzero(known & (rows.step >= 1) & (rows.step < rows.length - 1))
    findings = _other_environment(task, environment_id)
    if not len(inner):
        return findings, ["no transition says which state it began in: none was replayed"]
    at = inner[np.linspace(0, len(inner) - 1, min(ROWS, len(inner))).astype(int)]
    with _quiet(task.make()) as environment:
        replay = Replayer(environment, task.placement)
        own = replay(rows, at, rows.action[at])
        findings += _wrong_dynamics(task, replay, rows, at, own)
        findings += _rewards(environment, replay, rows, at, own)
    shares = ", ".join(f"{np.percentile(own.error, each):.2g} ({each}%)" for each in PERCENTILES)
    lines = [f"replay of {len(at):,} transitions in {task.environment_id}: errors of one step {shares}, in deviations"]
    return findings, lines


def ended(task: Task, observations: Array) -> Array:
    """Which observations ``(N, D)`` end an episode by the rule of a task that has one, ``(N,)`` bool."""
    assert task.termination is not None
    return task.termination(torch.as_tensor(observations, dtype=torch.float32)).numpy()


def ends(task: Task, rows: Transitions) -> list[Finding]:
    """Recorded ends against the task's own rule."""
    if task.termination is None:
        return []
    real = ended(task, rows.following)
    findings = []
    missing = np.flatnonzero(real & ~rows.terminated)
    if len(missing):
        text = (
            f"{len(missing):,} steps end by {task.environment_id}'s rule and are not recorded as ends, the first in "
            f"{rows.where(missing[0])}"
        )
        findings.append(Finding("missing ends", FAULT, text, "missing ends"))
    false = np.flatnonzero(~real & rows.terminated)
    limits = false[rows.length[false] == task.horizon]
    if len(limits):
        text = (
            f"{len(limits)} episodes are recorded as terminated by the time limit of {task.horizon} steps: that is no "
            "end, yet nothing is believed to be earned after it"
        )
        findings.append(
            Finding("time limits recorded as ends", FAULT, text, "time limits recorded as ends", task.horizon)
        )
    others = false[rows.length[false] != task.horizon]
    if len(others):
        text = (
            f"{len(others)} steps are recorded as ends that are none by {task.environment_id}'s rule, the first in "
            f"{rows.where(others[0])}"
        )
        findings.append(Finding("ends that are none", FAULT, text, "ends that are none"))
    return findings


def _wrong_dynamics(task: Task, replay: Replayer, rows: Transitions, at: Array, own: Replayed) -> list[Finding]:
    if own.usual <= RIGHT:
        return []
    errors = {shift: replay(rows, at, rows.action[at + shift]).usual for shift in (-1, 1)}
    best = min(errors, key=lambda shift: errors[shift])
    missed = (
        f"steps of {task.environment_id} miss recorded ones by up to {own.usual:.2g} deviations in {LEVEL}% of cases"
    )
    if errors[best] <= BETTER * own.usual:
        beside = "next" if best > 0 else "previous"
        text = f"{missed}, with the action of the {beside} row by {errors[best]:.2g}: actions are shifted by a step"
        return [Finding("shifted actions", FAULT, text, "shifted actions", best)]
    for other in _versions(task.environment_id):
        try:
            with _quiet(gymnasium.make(other, **task.environment_kwargs)) as environment:
                found = Replayer(environment, replay.placement)(rows, at, rows.action[at]).usual
        except Exception:  # versions that this MuJoCo or their settings do not make, each in its own way
            continue
        if found <= BETTER * own.usual:
            text = f"{missed}, those of {other} by up to {found:.2g}: the data is of that version"
            return [Finding("another version", FAULT, text)]
    text = f"{missed}: the data is of another system, or its observations are not what they are taken for"
    return [Finding("another system", FAULT, text)]


def _rewards(
    environment: gymnasium.Env, replay: Replayer, rows: Transitions, at: Array, own: Replayed
) -> list[Finding]:
    if own.usual > RIGHT or not rows.reward.any():
        return []
    space = environment.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    missed = float(np.median(np.abs(own.reward - rows.reward[at])))
    outside = at[((rows.action[at] < low) | (rows.action[at] > high)).any(axis=1)]
    if len(outside):
        raw = replay(rows, outside, rows.action[outside])
        clipped = replay(rows, outside, rows.action[outside].clip(low, high))
        errors = [float(np.median(np.abs(each.reward - rows.reward[outside]))) for each in (raw, clipped)]
        if min(errors) <= REWARD_TOLERANCE < max(errors):
            which = ("as recorded", "clipped to their bounds")[errors.index(min(errors))]
            return [Finding("rewards of actions outside", NOTE, f"recorded rewards are those of actions {which}")]
    if missed <= REWARD_TOLERANCE:
        return []
    text = (
        f"recorded rewards differ from {environment.unwrapped.spec.id}'s by {missed:.2g} (median): "  # type: ignore[union-attr]
        "no training reads them, but returns of the data and of policies are not on one scale"
    )
    return [Finding("other rewards", NOTE, text)]


def _other_environment(task: Task, environment_id: str | None) -> list[Finding]:
    if environment_id is None or environment_id == task.environment_id:
        return []
    text = f"the dataset says that it was recorded in {environment_id}, and it is compared with {task.environment_id}"
    return [Finding("recorded elsewhere", NOTE, text)]


def _versions(environment_id: str) -> Sequence[str]:
    name = environment_id.rpartition("-v")[0]
    return sorted(each for each in gymnasium.registry if each.rpartition("-v")[0] == name and each != environment_id)


@contextmanager
def _quiet(environment: gymnasium.Env) -> Iterator[gymnasium.Env]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield environment
        finally:
            environment.close()
