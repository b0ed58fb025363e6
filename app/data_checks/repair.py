"""Copies of episodes without a fault that was found. What cannot be known is left out, never made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from app.data_checks.finding import Finding
from app.data_checks.recording import Recorded
from app.data_checks.replay import ended
from app.data_checks.statistical import CLOCK, fits
from datamodules.sources import Source
from zoo.tasks import Task

Episodes = list[Recorded]
Repair = Callable[[Episodes, Finding, Source, Task | None], Episodes]


def repaired(episodes: Sequence[Recorded], findings: Sequence[Finding], source: Source, task: Task | None) -> Episodes:
    """Episodes after every repair that the findings name, in the order of ``REPAIRS``; empty ones are left out."""
    wanted = {finding.remedy: finding for finding in findings if finding.remedy is not None}
    result = list(episodes)
    for name, repair in REPAIRS.items():
        if name in wanted:
            result = repair(result, wanted[name], source, task)
    return [episode for episode in result if len(episode) > 0]


def _without_misshapen(episodes: Episodes, _: Finding, source: Source, __: Task | None) -> Episodes:
    return [episode for episode in episodes if fits(source, episode)]


def _up_to_the_first_end(episodes: Episodes, _: Finding, __: Source, ___: Task | None) -> Episodes:
    result = []
    for episode in episodes:
        ended = np.flatnonzero(episode.terminations | episode.truncations)
        result.append(episode.steps(0, int(ended[0]) + 1) if len(ended) else episode)
    return result


def _finite_stretches(episodes: Episodes, _: Finding, __: Source, ___: Task | None) -> Episodes:
    """What lies between numbers that are not finite, each stretch as an episode."""
    result: Episodes = []
    for episode in episodes:
        states = np.asarray(np.isfinite(episode.observations).all(axis=1))
        acted = np.isfinite(episode.actions).all(axis=1)
        good = [*(states[:-1] & states[1:] & acted), False]
        start = None
        for step, fine in enumerate(good):
            if fine and start is None:
                start = step
            elif not fine and start is not None:
                result.append(episode.steps(start, step))
                start = None
    return result


def _without_feature(episodes: Episodes, finding: Finding, __: Source, ___: Task | None) -> Episodes:
    return [
        replace(episode, observations=np.delete(episode.observations, finding.detail, axis=1)) for episode in episodes
    ]


def _moved_actions(episodes: Episodes, finding: Finding, __: Source, ___: Task | None) -> Episodes:
    """Each row with the action of the row that ``detail`` points to; the row without one is left out."""
    result = []
    for episode in episodes:
        steps, shift = len(episode), finding.detail
        kept = episode.steps(0, steps - 1) if shift > 0 else episode.steps(1, steps)
        actions = episode.actions[1:] if shift > 0 else episode.actions[:-1]
        result.append(replace(kept, actions=actions))
    return result


def _clipped_actions(episodes: Episodes, _: Finding, source: Source, ___: Task | None) -> Episodes:
    low, high = source.action_space.low, source.action_space.high
    return [replace(episode, actions=episode.actions.clip(low, high)) for episode in episodes]


def _truncated_at_the_limit(episodes: Episodes, finding: Finding, _: Source, __: Task | None) -> Episodes:
    result = []
    for episode in episodes:
        if len(episode) == finding.detail and episode.terminations[-1]:
            terminations, truncations = episode.terminations.copy(), episode.truncations.copy()
            terminations[-1], truncations[-1] = False, True
            episode = replace(episode, terminations=terminations, truncations=truncations)
        result.append(episode)
    return result


def _ended_by_the_rule(episodes: Episodes, _: Finding, __: Source, task: Task | None) -> Episodes:
    """Ends where the task's rule has them, and nothing after them; no others."""
    assert task is not None
    result = []
    for episode in episodes:
        real = ended(task, episode.observations[1:])
        stop = int(real.argmax()) + 1 if real.any() else len(episode)
        terminations = np.zeros(stop, dtype=bool)
        terminations[-1] = real.any()
        truncations = ~terminations & (np.arange(stop) == stop - 1)
        result.append(replace(episode.steps(0, stop), terminations=terminations, truncations=truncations))
    return result


def _without_copies(episodes: Episodes, _: Finding, __: Source, ___: Task | None) -> Episodes:
    seen: set[bytes] = set()
    result = []
    for episode in episodes:
        content = episode.content
        if content not in seen:
            result.append(episode)
        seen.add(content)
    return result


# In this order: what cannot be read first, actions before the ends that rows are cut at
REPAIRS: dict[str, Repair] = {
    "shapes": _without_misshapen,
    "steps after the end": _up_to_the_first_end,
    "not finite": _finite_stretches,
    "copied episodes": _without_copies,
    CLOCK: _without_feature,
    "shifted actions": _moved_actions,
    "actions outside the bounds": _clipped_actions,
    "time limits recorded as ends": _truncated_at_the_limit,
    "missing ends": _ended_by_the_rule,
    "ends that are none": _ended_by_the_rule,
}
