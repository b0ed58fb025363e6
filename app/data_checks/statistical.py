"""What the numbers of a dataset say by themselves, whatever system they come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.data_checks.finding import FAULT, NOTE, Finding
from app.data_checks.recording import Array, Recorded, Transitions
from app.data_checks.sensors import sensors
from datamodules.checks import EARLY, RARE
from datamodules.sources import Source

ROUNDING = 1e-5  # of an action range: what single precision and clipping leave
CLOCK_SPREAD = 1e-3  # a feature that moves by the same amount at every step, to this share of it, is a clock
CLOCK = "a clock among the observations"
RIDGE = 1e-3  # of the linear forecasts that find shifted actions
SHIFT_GAIN = 0.12  # share of the unexplained change that a shift has to explain before it is believed
SHIFT_DIFFERENCE = 0.01  # share of all change, likewise: of what is known nearly exactly a share means nothing
BEFORE_ADDS = 0.15  # share of what the next action leaves unexplained that the row's own explains, if that one drives
REACTION = 0.98  # share of the actions that follow linearly from the row's own observation, above which they are known
MOVED = 0.1  # share of what observations leave open of a feature's change, from which actions move it
FEWEST = 10  # steps, below which everything looks like a clock, a copy or another unit
SHIFT_ROWS = 20_000


def broken_episodes(source: Source, episodes: Sequence[Recorded]) -> tuple[list[Finding], list[Recorded]]:
    """Episodes that no transition can be taken from, or not all; and the whole ones among them."""
    misshapen: list[str] = []
    unfinite: list[str] = []
    continued: list[str] = []
    whole = []
    for episode in episodes:
        where, steps = f"episode {episode.number}", len(episode)
        if not fits(source, episode):
            misshapen.append(where)
            continue
        bad = np.flatnonzero(
            ~np.isfinite(episode.observations[:-1]).all(axis=1)
            | ~np.isfinite(episode.observations[1:]).all(axis=1)
            | ~np.isfinite(episode.actions).all(axis=1)
        )
        ended = np.flatnonzero((episode.terminations | episode.truncations)[:-1])
        if len(bad):
            unfinite.append(f"{where}, step {bad[0]}")
        if len(ended):
            continued.append(f"{where}, step {ended[0]}: {steps - 1 - ended[0]} steps follow")
        if not len(bad):
            whole.append(episode)
    findings = []
    if misshapen:
        text = "have no steps, or arrays whose shapes do not belong together or to the dataset's spaces"
        findings.append(Finding("shapes", FAULT, f"{_first(misshapen)} {text}", "shapes"))
    if unfinite:
        text = "hold numbers that are not finite, and spoil every model trained on them"
        findings.append(Finding("not finite", FAULT, f"{_first(unfinite)} {text}", "not finite"))
    if continued:
        text = "go on after the step that ends them"
        findings.append(Finding("steps after the end", FAULT, f"{_first(continued)} {text}", "steps after the end"))
    return findings, whole


def statistical(source: Source, episodes: Sequence[Recorded], rows: Transitions) -> list[Finding]:
    """Every check that needs no task; ``rows`` are those of the whole episodes."""
    if len(rows) < FEWEST:
        text = f"{len(rows)} steps are too few to judge more by than bounds"
        return [*_outside_bounds(source, rows), Finding("few steps", NOTE, text)]
    return [
        *_outside_bounds(source, rows),
        *_constant(source, rows),
        *_clocks(source, rows),
        *_copies(episodes, rows),
        *_time_limits(rows),
        *_no_end(rows),
        *_early_ends(rows),
        *_shifted(source, rows),
        *_moved_by_actions(source, rows),
        *sensors(source, episodes, rows),
    ]


def fits(source: Source, episode: Recorded) -> bool:
    """Whether an episode has steps, and arrays of the shapes that belong to them and to the dataset's spaces."""
    steps = len(episode)
    return steps > 0 and (
        episode.observations.shape == (steps + 1, source.observation_size)
        and episode.actions.shape == (steps, source.action_size)
        and {len(episode.rewards), len(episode.terminations), len(episode.truncations)} == {steps}
    )


def _first(places: Sequence[str]) -> str:
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{places[0]}{more}:"


def _outside_bounds(source: Source, rows: Transitions) -> list[Finding]:
    low, high = source.action_space.low.astype(np.float64), source.action_space.high.astype(np.float64)
    room = ROUNDING * np.where(np.isfinite(high - low), high - low, 1.0)
    outside = ((rows.action < low - room) | (rows.action > high + room)).any(axis=1)
    if not outside.any():
        return []
    first = int(outside.argmax())
    text = (
        f"{outside.sum():,} of {len(rows):,} actions ({outside.mean():.1%}) are outside the bounds of the action "
        f"space, the first in {rows.where(first)}"
    )
    return [Finding("actions outside the bounds", FAULT, text, "actions outside the bounds")]


def _constant(source: Source, rows: Transitions) -> list[Finding]:
    found = []
    for name, values in (("observation", rows.observation), ("action", rows.action)):
        still = np.flatnonzero(np.ptp(values, axis=0) == 0.0)
        if len(still):
            told = ", ".join(source.feature(name, int(index)) for index in still)
            text = f"{name} feature {told} never changes: it says nothing, check that it was logged"
            found.append(Finding(f"constant {name}", NOTE, text))
    return found


def _clocks(source: Source, rows: Transitions) -> list[Finding]:
    change = rows.following - rows.observation
    mean, spread = change.mean(axis=0), change.std(axis=0)
    counting = np.flatnonzero((mean != 0.0) & (spread <= CLOCK_SPREAD * np.abs(mean)))
    counting = np.setdiff1d(counting, source.exogenous)  # the time of day is known to whoever simulates
    if not len(counting):
        return []
    feature = int(counting[-1])
    text = (
        f"observation feature {source.feature('observation', feature)} moves by {mean[feature]:.3g} at every step: it "
        "is a clock, such as the time that remains, and a simulator without that clock cannot be compared with the "
        "real system"
    )
    return [Finding(CLOCK, FAULT, text, CLOCK, feature)]


def _copies(episodes: Sequence[Recorded], rows: Transitions) -> list[Finding]:
    first: dict[bytes, int] = {}
    copies = []
    for episode in episodes:
        original = first.setdefault(episode.content, episode.number)
        if original != episode.number:
            copies.append(f"episode {episode.number} is a copy of episode {original}")
    if copies:
        text = f"{_first(copies).rstrip(':')}; copies in training and held-out data make every forecast look good"
        return [Finding("copied episodes", FAULT, text, "copied episodes")]
    table = np.ascontiguousarray(np.concatenate([rows.observation, rows.action, rows.following], axis=1))
    unique = len(np.unique(table.view([("", table.dtype)] * table.shape[1])))
    if unique == len(rows):
        return []
    count = len(rows) - unique
    text = f"{count:,} of {len(rows):,} transitions ({count / len(rows):.1%}) are copies of others"
    return [Finding("copied transitions", NOTE, text)]


def _time_limits(rows: Transitions) -> list[Finding]:
    longest = int(rows.length.max())
    last = rows.step == rows.length - 1
    limited = last & (rows.length == longest)
    suspects = limited & rows.terminated
    # One long episode may well have died; several of exactly the same, longest length have not
    if suspects.sum() < 2 or (limited & rows.truncated & ~rows.terminated).any():
        return []
    text = (
        f"{suspects.sum()} episodes are recorded as terminated after exactly {longest} steps, and none is longer: a "
        "time limit taken for an end, after which nothing is believed to be earned"
    )
    return [Finding("time limits recorded as ends", FAULT, text, "time limits recorded as ends", longest)]


def _no_end(rows: Transitions) -> list[Finding]:
    last = rows.step == rows.length - 1
    open_ended = last & ~rows.terminated & ~rows.truncated
    if not open_ended.any():
        return []
    text = (
        f"{open_ended.sum()} of {last.sum()} episodes just stop, neither terminated nor truncated: taken as truncated"
    )
    return [Finding("no end", NOTE, text)]


def _early_ends(rows: Transitions) -> list[Finding]:
    """Episodes that end well before the others, where hardly any end at all; elsewhere to end may be the point."""
    last = rows.step == rows.length - 1
    usual = rows.length[last].mean()
    early = last & rows.terminated & (rows.length < EARLY * usual)
    if not early.any() or (last & rows.terminated).sum() > RARE * last.sum():
        return []
    which = _first([f"episode {number}" for number in rows.episode[early]])
    first, longest = rows.length[early].min(), rows.length[early].max()
    after = f"{first} to {longest}" if longest > first else str(first)
    text = (
        f"{which} end after {after} steps, where the {last.sum()} episodes have {usual:.0f} on average. In "
        "demonstrations these may be failures, which a policy will imitate"
    )
    return [Finding("early ends", NOTE, text)]


def _shifted(source: Source, rows: Transitions) -> list[Finding]:
    """Whether the action of the row before, or after, forecasts the change of the observation better.

    That of the row after does so in good data as well, where a controller reacts to what it sees next: an expert
    without noise by a tenth on Ant, a controller that follows a setpoint by more than its own action does. But an
    action before the one that drives the change adds nothing to it, and in good data the row's own does add to the
    next. A linear controller without noise tells by its next action exactly what it sees next, so of that nothing is
    said.
    """
    inner = np.flatnonzero((rows.step >= 1) & (rows.step < rows.length - 1))
    if len(inner) < 10 * (rows.observation.shape[1] + rows.action.shape[1]):
        return []
    inner = inner[np.linspace(0, len(inner) - 1, min(SHIFT_ROWS, len(inner))).astype(int)]
    moved = [feature for feature in range(source.observation_size) if feature not in source.exogenous]
    left = {shift: _unexplained(rows, inner, moved, shift) for shift in (-1, 0, 1)}
    best = min(left, key=lambda shift: left[shift])
    if left[0] - left[best] < max(SHIFT_GAIN * left[0], SHIFT_DIFFERENCE):
        return []
    if best > 0 and 1.0 - _linear_rest(rows.observation[inner], rows.action[inner]) > REACTION:
        return []
    if best > 0 and left[best] - _unexplained(rows, inner, moved, best, 0) > BEFORE_ADDS * left[best]:
        return []
    beside = "next" if best > 0 else "previous"
    text = (
        f"changes of the observation follow from the action of the {beside} row ({1 - left[best]:.0%} of them "
        f"linearly) rather than from the row's own ({1 - left[0]:.0%}): actions seem shifted by a step"
    )
    return [Finding("shifted actions", NOTE, text, "shifted actions", best)]


def _moved_by_actions(source: Source, rows: Transitions) -> list[Finding]:
    """Exogenous features whose changes follow from actions, which nothing in a simulator would let move them."""
    if len(rows) < 10 * (rows.observation.shape[1] + rows.action.shape[1]):
        return []
    at = np.linspace(0, len(rows) - 1, min(SHIFT_ROWS, len(rows))).astype(int)
    for feature in source.exogenous:
        without, left = (_unexplained(rows, at, [feature], *shifts) for shifts in ((), (0,)))
        if without - left > MOVED * without:
            name = source.feature("observation", feature)
            text = (
                f"observation feature {name} is said to be set from outside, but {1 - left / without:.0%} of what its "
                "change leaves open follows from the action: a simulator would not let the action move it; import the "
                "log without it in --exogenous, unless the two have a cause in common"
            )
            return [Finding("exogenous features that actions move", NOTE, text)]
    return []


def _unexplained(rows: Transitions, at: Array, features: Sequence[int], *shifts: int) -> float:
    """Share of the change of features that no linear function of observations and actions so many rows on explains."""
    inputs = np.concatenate([rows.observation[at], *(rows.action[at + shift] for shift in shifts)], axis=1)
    return _linear_rest(inputs, (rows.following[at] - rows.observation[at])[:, list(features)])


def _linear_rest(inputs: Array, outputs: Array) -> float:
    """Share of the outputs' variance, on average over them, that no linear function of the inputs explains."""
    inputs, wanted = _standardized(inputs), _standardized(outputs)
    gram = inputs.T @ inputs + RIDGE * len(inputs) * np.eye(inputs.shape[1])
    rest = wanted - inputs @ np.linalg.solve(gram, inputs.T @ wanted)
    varying = wanted.std(axis=0) > 0
    return float(np.square(rest[:, varying]).mean()) if varying.any() else 1.0


def _standardized(values: Array) -> Array:
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
