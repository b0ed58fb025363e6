"""Many episodes of a Simulator side by side: what all of its faces have in common."""

from __future__ import annotations

import copy
import math
import operator
import secrets
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from zoo.envs.names import exogenous_names
from zoo.envs.plans import planned
from zoo.row_random import RowRandom
from zoo.simulator import Simulator, refuse_unknown_aggregation
from zoo.tasks import get_task

SEED_BITS = 62
PUSH_STEPS = 3
PUSH_PRECISION = 2**20  # to one part of which the share of pushes is kept
LARGEST_SEED = 2**63 - 1

Horizon = int | Literal["task"] | None


class Options(TypedDict, total=False):
    """How episodes run; keyword arguments of every face, see :class:`Episodes`."""

    horizon: Horizon
    deterministic: bool
    noise_scale: float | None
    aggregation: str | None
    uncertainty: bool
    penalty: float
    fading: float
    demonstrated_starts: float
    pushes: float
    device: torch.device | str


class Step(NamedTuple):
    """What one step leads to, for ``B`` rows.

    Attributes:
        observation: reached, ``(B, D)``.
        reward: ``(B,)``.
        terminated: whether the observation is terminal, ``(B,)`` bool.
        truncated: whether the horizon is reached, ``(B,)`` bool.
        uncertainty: ``(B,)``; ``None`` if it was not asked for.
    """

    observation: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    uncertainty: Tensor | None


class Episodes:
    """``B`` episodes that advance together and begin each at its own time.

    A row depends on its own seed and actions alone: it is the same whatever happens in other rows, but for the rounding
    of batches of other sizes.

    Rewards are those of the Simulator less what ending is worth per step. So ending is worth nothing, which is what
    learners suppose, and nothing that is better than an end pays less than nothing.

    Args:
        simulator: whose episodes; one that is elsewhere is copied to ``device``.
        count: B.
        horizon: steps after which an episode is truncated; ``task`` for the horizon of the task that the Simulator was
            learned for, or the length of the longest demonstration if it is not a known one; ``None`` for never.
        deterministic: take the average of the members' means instead of a sample.
        noise_scale: share of the predicted deviation that a sample draws; ``None`` for the Simulator's own, which
            forecasts best. A learner that has met more noise than is likely falls less often.
        aggregation: who moves an episode, see :class:`Simulator`; ``None`` for the Simulator's own. With
            ``fixed_member`` a learner has to master what each member takes for the system, errors and all.
        uncertainty: say how far the ensemble can be trusted, in medians of its uncertainty on the training data: 1 is
            as usual. Without it a large batch takes a fraction of the time.
        penalty: what each median of uncertainty beyond the first takes off the reward. Going on may then pay less than
            ending, and a learner that knows nothing yet is uncertain everywhere: it learns to end.
        fading: how fast the reward fades to nothing with uncertainty ``U`` in medians, ``exp(-fading (U - 1))`` beyond
            the first. Ending is never worth more.
        demonstrated_starts: share of episodes that begin in a demonstrated state instead of where episodes begin. What
            is done well there is found at once, and only later how to get there; an evaluation leaves it at 0.
        pushes: share of steps at which a push begins: for ``PUSH_STEPS`` steps each action is thrown to one of its
            bounds at random, whatever is given. The model can follow such a stumble, and a learner learns to recover.
            For training only.
        device: where the Simulator computes.
    """

    def __init__(
        self,
        simulator: Simulator,
        count: int,
        horizon: Horizon = "task",
        deterministic: bool = False,
        noise_scale: float | None = None,
        aggregation: str | None = None,
        uncertainty: bool = True,
        penalty: float = 0.0,
        fading: float = 0.0,
        demonstrated_starts: float = 0.0,
        pushes: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        if _whole(count) < 1:
            raise ValueError(f"{count} episodes cannot run: ask for a whole number, one or more")
        for name, switch in (("deterministic", deterministic), ("uncertainty", uncertainty)):
            if not isinstance(switch, bool):
                raise ValueError(f"{name} is {switch!r}: give True or False")
        if horizon == "task":
            horizon = simulator.horizon if simulator.task is None else get_task(simulator.task).horizon
        self.horizon = _horizon(horizon)
        for name, value in (("penalty", penalty), ("fading", fading)):
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"a {name} of {value} would pay for uncertainty, or is no number: name 0 or more")
        if noise_scale is not None and (not isinstance(noise_scale, int | float) or not 0 <= noise_scale < math.inf):
            raise ValueError(f"a noise_scale of {noise_scale} is none: name 0 or more, or None")
        for name, value in (("demonstrated_starts", demonstrated_starts), ("pushes", pushes)):
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"a share of {value} {name} is none: name 0 to 1")
        if demonstrated_starts > 0 and simulator.demonstrated_states is None:
            raise ValueError(
                "this Simulator was learned before demonstrated_starts existed and holds no demonstrated states: "
                "leave the option out, or train it anew"
            )
        self.demonstrated_starts = demonstrated_starts
        self.pushes = pushes
        self.device = torch.device(device)
        self.simulator = self._here(simulator)
        if aggregation is not None:
            refuse_unknown_aggregation(aggregation)
            self.simulator = copy.copy(self.simulator)  # the same networks, moved by others
            self.simulator.aggregation = aggregation
        self.deterministic = deterministic
        self.noise_scale = noise_scale
        self.uncertainty = uncertainty
        self.penalty = penalty
        self.fading = fading
        self.low = torch.tensor(simulator.action_low, device=device)
        self.high = torch.tensor(simulator.action_high, device=device)
        self.unit = simulator.uncertainty_unit()
        if not simulator.reward_learned:
            warnings.warn(
                "the reward of this Simulator was never trained: it says nothing. Train one with a game, or take the "
                "policy_simulator.safetensors of an Offline ML-IRL run.",
                stacklevel=3,
            )
        self.zero = simulator.end_worth()
        self.observation = torch.zeros(count, simulator.observation_size, device=device)
        self.steps = torch.zeros(count, dtype=torch.int64, device=device)
        self.push_left = torch.zeros_like(self.steps)  # steps of the push that is under way
        self.members: Tensor | None = None
        self.series: Tensor | None = None  # what is set from outside in each row, (B, T, d); NaN where as recorded
        self.random = RowRandom([secrets.randbits(SEED_BITS) for _ in range(count)], device)
        self.begun = False

    def _here(self, simulator: Simulator) -> Simulator:
        there = next(simulator.parameters()).device
        same = there.type == self.device.type and self.device.index in (None, there.index)
        return simulator if same else copy.deepcopy(simulator).to(self.device)

    def to(self, device: torch.device | str) -> Episodes:
        """Go on elsewhere."""
        self.device = torch.device(device)
        self.simulator = self._here(self.simulator)
        for name in ("low", "high", "observation", "steps", "push_left", "members", "series"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(self.device))
        self.random.to(self.device)
        return self

    def __len__(self) -> int:
        return len(self.steps)

    def shorten(self, horizon: int) -> None:
        """Truncate episodes after ``horizon`` steps, if they are not earlier."""
        wanted = operator.index(horizon)
        self.horizon = _horizon(wanted if self.horizon is None else min(self.horizon, wanted))

    def seed(self, seeds: Sequence[int | None]) -> None:
        """Give rows their seeds, ``None`` leaving a row as it is; the next episode is the first of its seed."""
        if len(seeds) != len(self):
            raise ValueError(f"{len(seeds)} seeds were given for {len(self)} episodes")
        given = torch.tensor([seed is not None for seed in seeds], device=self.device)
        numbers = [0 if seed is None else operator.index(seed) for seed in seeds]
        if max(numbers) > LARGEST_SEED:
            raise ValueError(f"a seed is at most 2**63 - 1, and one is {max(numbers)}")
        self.random.reseed(numbers, given)

    def begin(self, rows: Tensor | None = None, exogenous: Any = None) -> Tensor:
        """Begin the next episode in the rows of a mask ``(B,)``, or in all of them.

        Args:
            rows: which of them.
            exogenous: what is set from outside in these episodes, ``(T, d)``, or ``(B, T, d)`` for each row: after
                ``t`` steps, from 0 on, what is in row ``t``, and at last what is in the last one. Where it is NaN, and
                by default, it begins and changes as recorded. Or series by name, see ``zoo.envs.plans``.

        Returns:
            The observation of every row, ``(B, D)``.

        Raises:
            ValueError: if ``exogenous`` is no such plan, or there is nothing that is set from outside.
        """
        given = None if exogenous is None else self._exogenous(exogenous)
        if rows is None:
            rows = torch.ones_like(self.steps, dtype=torch.bool)
        self.begun = True
        drawn = self.random.draw
        self.random.begin_episode(rows)
        start = self.simulator.reset(len(self), self.random, self.demonstrated_starts)
        members = self.simulator.episode_members(len(self), self.random)
        self.random.draw = torch.where(rows, self.random.draw, drawn)  # the others go on where they were
        self.series = _in_rows(rows, given, self.series)
        if given is not None:
            start = start.clone()
            places = list(self.simulator.exogenous)
            start[:, places] = torch.where(given[:, 0].isnan(), start[:, places], given[:, 0])
        self.observation = torch.where(rows.unsqueeze(-1), start, self.observation)
        self.steps = torch.where(rows, 0, self.steps)
        self.push_left = torch.where(rows, 0, self.push_left)
        if members is not None:
            self.members = members if self.members is None else torch.where(rows, members, self.members)
        return self.observation

    def step(self, action: Tensor) -> Step:
        """Advance every row by an action ``(B, A)``, which is first brought within the bounds.

        Raises:
            RuntimeError: if no episode has begun.
            ValueError: if the actions have another shape, or one is no number.
        """
        if not self.begun:
            raise RuntimeError("no episode has begun: call reset before the first step")
        if action.shape != (len(self), self.simulator.action_size):
            expected = (len(self), self.simulator.action_size)
            raise ValueError(f"actions have the shape {tuple(action.shape)}, where {expected} is expected")
        if bool(action.isnan().any()):
            raise ValueError("an action is not a number (NaN)")
        action = torch.minimum(torch.maximum(action.to(self.low), self.low), self.high)
        if self.pushes > 0:
            action = self._pushed(action)
        with_uncertainty = self.uncertainty or self.penalty > 0 or self.fading > 0
        observation, reward, terminated, info = self.simulator.step(
            self.observation,
            action,
            self.random,
            deterministic=self.deterministic,
            with_uncertainty=with_uncertainty,
            members=self.members,
            noise_scale=self.noise_scale,
            exogenous=self._set_from_outside(),
        )
        reward, uncertainty = reward - self.zero, None
        if with_uncertainty:
            uncertainty = info["uncertainty"] / self.unit
            excess = (uncertainty - 1.0).clamp_min(0.0)
            reward = torch.minimum(reward, reward * (-self.fading * excess).exp()) - self.penalty * excess
        self.observation = observation
        self.steps = self.steps + 1
        limit = self.steps >= (self.horizon if self.horizon is not None else torch.iinfo(torch.int64).max)
        return Step(observation, reward, terminated, limit, uncertainty if self.uncertainty else None)

    def _exogenous(self, series: Any) -> Tensor:
        """What is set from outside in each row, ``(B, T, d)``."""
        if not self.simulator.exogenous:
            raise ValueError(
                "no feature of this Simulator is exogenous, so nothing can be set from outside: say which are when "
                "logs are imported (`offsim import --exogenous`), or in data.exogenous, and train it anew"
            )
        return planned(series, exogenous_names(self.simulator), len(self), self.device)

    def _set_from_outside(self) -> Tensor | None:
        """The next values of what is set from outside, ``(B, d)``."""
        if self.series is None:
            return None
        moment = (self.steps + 1).clamp_max(self.series.shape[1] - 1)
        return self.series[torch.arange(len(self), device=self.device), moment]

    def _pushed(self, action: Tensor) -> Tensor:
        """The actions that are taken, ``(B, A)``: the bounds of a push in those rows where one is under way."""
        begins = (self.push_left == 0) & (self.random.integers(PUSH_PRECISION) < self.pushes * PUSH_PRECISION)
        drawn = torch.where(self.random.normal(action.shape[-1]) < 0, self.low, self.high)
        self.push_left = torch.where(begins, PUSH_STEPS, self.push_left)
        pushed = (self.push_left > 0).unsqueeze(-1)
        self.push_left = (self.push_left - 1).clamp_min(0)
        return torch.where(pushed, drawn, action)


def _in_rows(rows: Tensor, given: Tensor | None, before: Tensor | None) -> Tensor | None:
    """Series ``(B, T, d)`` of which those in some rows are new; ``None`` leaves what it stands for as recorded."""
    if given is None and (before is None or bool(rows.all())):
        return None
    kind = given if given is not None else before
    assert kind is not None
    length = max(each.shape[1] for each in (given, before) if each is not None)

    def whole(series: Tensor | None) -> Tensor:
        if series is None:
            return kind.new_full((len(rows), length, kind.shape[2]), math.nan)
        return torch.cat([series, series[:, -1:].expand(-1, length - series.shape[1], -1)], dim=1)

    return torch.where(rows.view(-1, 1, 1), whole(given), whole(before))


def _whole(value: object) -> int:
    """A whole number of any type as a plain one, and 0 for what is none."""
    try:
        return 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return 0


def _horizon(horizon: object) -> int | None:
    """A horizon as a plain number, or the refusal of what is none."""
    if horizon is None:
        return None
    steps = _whole(horizon)
    if steps < 1:
        raise ValueError(f"a horizon of {horizon!r} steps is none: name at least one, None for no limit, or task")
    return steps
