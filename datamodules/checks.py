"""What is refused before any training starts; every message names the dataset, the episode and the step."""

from __future__ import annotations

import filecmp
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.episodes import Episode, EpisodeReader
from datamodules.errors import DataError
from datamodules.sources import Source
from datamodules.statistics import Statistics

LOST = 16.0  # of the least differences in single precision, below which a feature's usual change is mostly rounding
EARLY = 0.5  # of the usual length, below which the end of a demonstration is worth a word,
RARE = 0.2  # where no larger share of the episodes ends
LOOKED_AT = 200  # episodes, to tell that
NAMED = 5  # early ends at most
OUT_OF_BOUNDS = ("keep", "clip")
STREAMS = ("expert", "diverse", "all")


class Named(Protocol):
    """Whatever has observations and actions with a name for each feature, or no names."""

    @property
    def observation_names(self) -> tuple[str, ...]: ...

    @property
    def action_names(self) -> tuple[str, ...]: ...


def check_settings(
    streams: Mapping[str, int],
    has_diverse: bool,
    batches_per_step: int,
    held_out_fraction: float,
    diverse_fraction: float,
    out_of_bounds: str,
    memory_limit_mb: int,
    workers: int,
    noise_fraction: float = 0.0,
    expert_keep_every: int = 1,
) -> None:
    """Refuse settings that cannot be meant.

    Raises:
        DataError: naming the setting and what it may be.
    """
    unknown = [name for name in streams if name not in STREAMS]
    if unknown or not streams:
        raise DataError(f"unknown data stream {unknown}: data.streams takes a number of rows for {', '.join(STREAMS)}")
    for name, rows in streams.items():
        if rows < 1:
            raise DataError(f"data.streams asks for {rows} rows of {name!r}: at least 1 is needed")
    if "diverse" in streams and not has_diverse:
        raise DataError("data.streams asks for 'diverse' rows, but there is no diverse data: name some in data.diverse")
    if batches_per_step < 1:
        raise DataError(f"data.batches_per_step is {batches_per_step}: at least 1 is needed")
    if not 0.0 <= held_out_fraction < 1.0:
        raise DataError(f"data.held_out_fraction is {held_out_fraction}: choose a share from 0 to below 1")
    if not 0.0 < diverse_fraction <= 1.0:
        raise DataError(f"data.diverse_fraction is {diverse_fraction}: choose a share above 0 and up to 1")
    if not 0.0 <= noise_fraction <= 1.0:
        raise DataError(f"data.noise_fraction is {noise_fraction}: choose a share from 0 to 1")
    if noise_fraction > 0.0 and not has_diverse:
        raise DataError(
            "data.noise_fraction asks for noise in diverse data, but there is none: name it in data.diverse"
        )
    if expert_keep_every < 1 or expert_keep_every != int(expert_keep_every):
        raise DataError(f"data.expert_keep_every is {expert_keep_every}: choose a whole number from 1 (all) on")
    if out_of_bounds not in OUT_OF_BOUNDS:
        raise DataError(f"data.out_of_bounds is {out_of_bounds!r}: choose one of {', '.join(OUT_OF_BOUNDS)}")
    if memory_limit_mb < 0 or workers < 0:
        raise DataError("data.memory_limit_mb and data.workers must not be negative")


def check_sources(expert: Sequence[Source], diverse: Sequence[Source], demonstrations: int | None) -> None:
    """Refuse datasets that do not belong together, or hold too little.

    Raises:
        DataError: naming the datasets that differ, and in what.
    """
    if not expert:
        raise DataError("no expert data: name at least one dataset in data.expert")
    sources = [*expert, *diverse]
    twice = [name for name, count in Counter(source.id for source in sources).items() if count > 1]
    if twice:
        raise DataError(
            f"dataset {twice[0]} is named more than once in data.expert and data.diverse: its held-out episodes would "
            "be trained on, so name it once"
        )
    for source in sources:
        if source.episodes == 0:
            raise DataError(f"dataset {source.id} has no episodes: record it again or choose another one")
    for source in sources[1:]:
        _check_same_spaces(expert[0], source)
    for first in expert:
        for second in diverse:
            if (first.episodes, first.steps) == (second.episodes, second.steps) and _same_content(first, second):
                raise DataError(
                    f"datasets {first.id} and {second.id} hold the same data: as diverse data it says nothing new, and "
                    "a margin between the two is meaningless; name data of other quality, or none, in data.diverse"
                )
    existing = sum(source.episodes for source in expert)
    if demonstrations is not None and not 1 <= demonstrations <= existing:
        raise DataError(
            f"data.demonstrations is {demonstrations}, but {', '.join(source.id for source in expert)} "
            f"{'has' if len(expert) == 1 else 'have'} {existing} episodes: choose from 1 to {existing} "
            "(`offsim train --demonstrations N`), or null for all"
        )
    for source in sources[1:]:
        check_names(expert[0].id, expert[0], source.id, source)
    environments = {source.environment_id: source.id for source in sources if source.environment_id is not None}
    if len(environments) > 1:
        named = ", ".join(f"{dataset} of {environment}" for environment, dataset in environments.items())
        warnings.warn(f"the data comes from different environments: {named}", stacklevel=3)


def check_names(first: str, one: Named, second: str, other: Named) -> None:
    """Refuse features in another order, which no shape shows; warn of other names, which another recorder may give.

    Args:
        first: what ``one`` is called.
        one: features with their names, or with none.
        second: what ``other`` is called.
        other: features that have to mean the same.

    Raises:
        DataError: naming both orders.
    """
    for name in ("observation", "action"):
        names, others = (getattr(each, f"{name}_names") for each in (one, other))
        if not names or not others or names == others:
            continue
        told = f"{name} features of {first} are {', '.join(names)}, those of {second} {', '.join(others)}"
        if sorted(names) == sorted(others):
            raise DataError(f"{told}: the order differs, import the second again in the order of the first")
        warnings.warn(f"{told}: make sure that they mean the same", stacklevel=4)


def exogenous_features(sources: Sequence[Source], chosen: Sequence[str | int] | None) -> tuple[int, ...]:
    """Numbers of the observation features that are set from outside, in their order.

    Args:
        sources: all that are trained on.
        chosen: their names or numbers; ``None`` for those that the datasets name, which have to be the same in all.

    Raises:
        DataError: if one is no feature, all are, or datasets differ.
    """
    first = sources[0]
    if chosen is None:
        for source in sources[1:]:
            if set(source.exogenous) != set(first.exogenous):
                told = [f"{_named(each)} of {each.id}" for each in (first, source)]
                raise DataError(
                    f"set from outside are {told[0]}, but {told[1]}: import one again with the same --exogenous, or "
                    "say in data.exogenous what counts for all"
                )
        return tuple(sorted(first.exogenous))
    found = {feature_number(first, each) for each in chosen}
    if len(found) == first.observation_size:
        raise DataError("data.exogenous names all features: nothing is left for actions to move")
    return tuple(sorted(found))


def feature_number(source: Source, feature: str | int) -> int:
    """The number of an observation feature that is given by its name or number.

    Raises:
        DataError: if there is none.
    """
    if feature in source.observation_names:
        return source.observation_names.index(str(feature))
    if isinstance(feature, int) and not isinstance(feature, bool) and 0 <= feature < source.observation_size:
        return feature
    known = ", ".join(source.observation_names) or f"0 to {source.observation_size - 1}"
    raise DataError(f"data.exogenous names {feature!r}, but the observation features of {source.id} are {known}")


def _named(source: Source) -> str:
    return ", ".join(source.feature("observation", index) for index in sorted(source.exogenous)) or "none"


def check_bounded(sources: Sequence[Source]) -> None:
    """Refuse action spaces without bounds or room, which policies are squashed into and actions are measured in.

    Raises:
        DataError: naming the dataset.
    """
    for source in sources:
        if not source.action_space.is_bounded():
            raise DataError(
                f"the actions of dataset {source.id} have no bounds, and a policy needs them: write it anew with an "
                "action space that has some, or import its logs, `offsim import --action-low ... --action-high ...`"
            )
        low, high = source.action_space.low.reshape(-1), source.action_space.high.reshape(-1)
        for index in np.flatnonzero(low >= high)[:1]:
            raise DataError(
                f"action {index} of dataset {source.id} has the bounds {low[index]:g} and {high[index]:g}: one that "
                "never moves is no action; write the dataset anew without it, or with what it could be"
            )


def check_episode(source: Source, index: int, episode: Episode) -> None:
    """Refuse an episode that is empty, incomplete, not finite, or goes on after its end.

    Raises:
        DataError: naming dataset, episode and step.
    """
    steps = len(episode)
    where = f"dataset {source.id}, episode {index}"
    shapes = {
        "observations": (episode.observations.shape, (steps + 1, source.observation_size)),
        "actions": (episode.actions.shape, (steps, source.action_size)),
        "terminations": (episode.terminations.shape, (steps,)),
        "truncations": (episode.truncations.shape, (steps,)),
    }
    for name, (found, wanted) in shapes.items():
        if found != wanted:
            raise DataError(
                f"{where}: {name} have shape {found}, but {steps} actions and the dataset's spaces ask for {wanted}; "
                "record the dataset again, with the last observation of every episode"
            )
    if steps == 0:
        raise DataError(f"{where}: the episode has no steps; remove it or record the dataset again")
    for name, values in (("observation", episode.observations), ("action", episode.actions)):
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            step = int(np.argmin(finite))
            feature = int(np.argmin(np.isfinite(values[step])))
            raise DataError(
                f"{where}, step {step}: {name} feature {source.feature(name, feature)} is {values[step, feature]}; "
                "remove the episode or repair the dataset, for one such number spoils every model trained on it"
            )
    ended = (episode.terminations | episode.truncations)[:-1]
    if ended.any():
        raise DataError(
            f"{where}, step {int(np.argmax(ended))}: the episode ends here, yet {steps - 1 - int(np.argmax(ended))} "
            "more steps follow; record what follows as an episode of its own"
        )


def outside_bounds(source: Source, actions: NDArray[np.float32]) -> int:
    """Number of actions, ``(T, action)``, of which some feature lies outside the action space."""
    low, high = source.action_space.low.astype(np.float32), source.action_space.high.astype(np.float32)
    return int(((actions < low) | (actions > high)).any(axis=1).sum())


def warn_outside_bounds(dataset_id: str, outside: int, rows: int, out_of_bounds: str) -> None:
    """Say which share of a dataset's rows has actions outside the bounds, and what happens to them."""
    if outside == 0:
        return
    fate = "clipped to the bounds" if out_of_bounds == "clip" else "kept as they are (data.out_of_bounds: clip changes)"
    warnings.warn(
        f"dataset {dataset_id}: {outside} of {rows} rows ({outside / rows:.2%}) have actions outside the bounds of the "
        f"action space; they are {fate}",
        stacklevel=2,
    )


def warn_of_early_ends(source: Source, episodes: Sequence[int]) -> None:
    """Say so if demonstrations come to an end well before the others, where hardly any episode ends at all.

    Elsewhere to end may be the point. An episode that was merely cut off says nothing.

    Args:
        source: the expert dataset.
        episodes: numbers of those that are learned from.
    """
    some = range(0, source.episodes, max(1, source.episodes // LOOKED_AT))
    usual = source.steps / source.episodes
    with EpisodeReader(source) as reader:
        if np.mean(reader.ended(some)) > RARE:
            return
        found = zip(episodes, reader.lengths(episodes), reader.ended(episodes), strict=True)
        early = [f"episode {number} after {steps}" for number, steps, ended in found if ended and steps < EARLY * usual]
    if early:
        which = (
            "the demonstration ends" if len(episodes) == 1 else f"{len(early)} of {len(episodes)} demonstrations end"
        )
        where = ", ".join(early[:NAMED]) + (" ..." if len(early) > NAMED else "")
        remedy = "another seed draws other demonstrations" if len(episodes) < source.episodes else "leave them out"
        warnings.warn(
            f"dataset {source.id}: {which} early, {where} steps, where episodes have {usual:.0f} on average. "
            f"If that is a failure, the policy will imitate it: {remedy}",
            stacklevel=2,
        )


def warn_of_lost_precision(source: Source, statistics: Statistics) -> None:
    """Say of which features the changes from step to step are lost in single precision, which all models compute in.

    Args:
        source: a dataset, for the features' names.
        statistics: of all training rows.
    """
    size = torch.maximum(statistics.next_observation_low.abs(), statistics.next_observation_high.abs())
    least = torch.finfo(torch.float32).eps * size
    change = statistics.delta_std
    lost = ((change > 0.0) & (change < LOST * least)).nonzero().flatten().tolist()
    if lost:
        named = ", ".join(
            f"{source.feature('observation', index)} (up to {float(size[index]):.3g}, changes by "
            f"{float(change[index]):.2g})"
            for index in lost
        )
        warnings.warn(
            f"in single precision little is left of how these observation features change from step to step: {named}. "
            "Take a constant off them before they are recorded or imported",
            stacklevel=2,
        )


def _same_content(first: Source, second: Source) -> bool:
    return filecmp.cmp(first.file, second.file, shallow=False)


def _check_same_spaces(first: Source, second: Source) -> None:
    pairs = (
        ("observation", first.observation_space, second.observation_space),
        ("action", first.action_space, second.action_space),
    )
    for name, one, other in pairs:
        told, remedy = f"have different {name} spaces", "choose datasets of the same environment and settings"
        if one.shape != other.shape:
            difference = f"{one.shape[0]} and {other.shape[0]} features"
        elif not (np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high)):
            index = int(np.argmax((one.low != other.low) | (one.high != other.high)))
            difference = (
                f"bounds [{one.low[index]}, {one.high[index]}] and [{other.low[index]}, {other.high[index]}] "
                f"of feature {first.feature(name, index)}"
            )
            if name == "action":  # an import that is not told the bounds takes what its log shows
                told = "differ in the bounds of actions alone"
                remedy = f"import both logs with the same --action-low and --action-high, or {remedy}"
        else:
            continue
        raise DataError(
            f"datasets {first.id} and {second.id} {told} ({difference}): they cannot be used together, {remedy}"
        )
