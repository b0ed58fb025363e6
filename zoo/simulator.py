"""The Simulator: transition, reward, termination and start states as one module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.files import MISDESCRIBED, ModelFileError, load_state, read_model, write_model
from zoo.normalizer import refuse_other_width
from zoo.reward import RewardModel
from zoo.row_random import Randomness, RowRandom, integers, normal_like
from zoo.start_states import StartStates
from zoo.termination import TERMINATIONS, TerminationModel, make_termination
from zoo.transition import TransitionModel
from zoo.uncertainty import measure, quantile_levels

CHANCES = 2**24  # one in so many is the smallest probability
BY_ONE_MEMBER = ("random_member", "fixed_member")
AGGREGATIONS = (*BY_ONE_MEMBER, "mean")


def refuse_unknown_aggregation(name: str) -> None:
    """Raise a ``ValueError`` unless ``name`` is one of ``AGGREGATIONS``."""
    if name not in AGGREGATIONS:
        raise ValueError(f"unknown aggregation {name!r}: choose one of {', '.join(AGGREGATIONS)}")


class Simulator(nn.Module):
    """A learned system that is always stepped in batches, on one device.

    Args:
        transition: p(s'|s,a).
        reward: r(s,a,s').
        termination: which observations end an episode.
        start_states: where episodes begin.
        uncertainty: name of the measure reported by :meth:`step`, see ``zoo.uncertainty``.
        task: name of the task it was learned for, if it is a known one.
        aggregation: who moves an episode: ``random_member``, drawn at each step; ``fixed_member``, drawn for the whole
            episode; ``mean``, the average of the members' means, with the root mean square of their deviations.
        noise_scale: how much of the members' predicted deviation is drawn at each step; 0 leaves only the choice of
            a member to chance. In a system without noise of its own the deviation stands for what the model does not
            know, and drawn afresh at every step it shakes gaits apart that hold in reality.
        action_low: lower action bounds.
        action_high: upper action bounds.
        end_reward: the reward per step that ending is as good as, for ever; ``None`` for the reward's lower bound. What
            was learned from demonstrations has no zero of its own.
        reward_learned: whether the reward was trained at all: without a game, none was.
        horizon: steps of the longest demonstration, for systems that are no known task.
        observation_names: a name for every observation feature, if they are known, else none.
        action_names: likewise for actions.
        demonstrated_states: states of demonstrations, in which episodes may begin if wanted; files of before have none.
    """

    uncertainty_quantiles: Tensor

    def __init__(
        self,
        transition: TransitionModel,
        reward: RewardModel,
        termination: TerminationModel,
        start_states: StartStates,
        action_low: list[float],
        action_high: list[float],
        uncertainty: str = "disagreement",
        task: str | None = None,
        noise_scale: float = 1.0,
        aggregation: str = "random_member",
        end_reward: float | None = None,
        reward_learned: bool = True,
        horizon: int | None = None,
        observation_names: Sequence[str] = (),
        action_names: Sequence[str] = (),
        demonstrated_states: StartStates | None = None,
    ) -> None:
        super().__init__()
        refuse_unknown_aggregation(aggregation)
        self.transition = transition
        self.reward = reward
        self.termination = termination
        self.start_states = start_states
        self.demonstrated_states = demonstrated_states
        self.action_low = action_low
        self.action_high = action_high
        self.task = task
        self.noise_scale = noise_scale
        self.aggregation = aggregation
        self.end_reward = end_reward
        self.reward_learned = reward_learned
        self.horizon = horizon
        self.observation_names = tuple(observation_names)
        self.action_names = tuple(action_names)
        self.uncertainty = uncertainty
        self._measure = measure(uncertainty)
        self.register_buffer("uncertainty_quantiles", torch.full_like(quantile_levels(), torch.inf))

    @property
    def observation_size(self) -> int:
        return self.transition.observation_size

    @property
    def action_size(self) -> int:
        return self.transition.action_size

    @property
    def exogenous(self) -> tuple[int, ...]:
        """Numbers of the features that are set from outside."""
        return getattr(self.transition, "exogenous", ())  # a class of one's own may know of none

    def reset(self, count: int, generator: Randomness = None, demonstrated_share: float = 0.0) -> Tensor:
        """Start ``count`` episodes: observations ``(count, D)``, each demonstrated with this probability."""
        initial = self.start_states(count, generator)
        if demonstrated_share == 0.0:
            return initial
        if self.demonstrated_states is None:
            raise ValueError("this Simulator holds no demonstrated states to begin episodes in: train it anew")
        drawn = integers(CHANCES, count, generator, initial.device) < demonstrated_share * CHANCES
        return torch.where(drawn.unsqueeze(-1), self.demonstrated_states(count, generator), initial)

    @torch.no_grad()
    def step(
        self,
        observation: Tensor,
        action: Tensor,
        generator: Randomness = None,
        deterministic: bool = False,
        with_uncertainty: bool = True,
        members: Tensor | None = None,
        noise_scale: float | None = None,
        exogenous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Advance ``B`` episodes by one step.

        Args:
            observation: ``(B, D)``.
            action: ``(B, A)``.
            generator: source of randomness, on the simulator's device; a ``RowRandom`` gives every row its own.
            deterministic: take the average of the members' means instead of a sample.
            with_uncertainty: report it in ``info``; without it only the member drawn for a row is computed, which
                takes about ``1 / E`` of the time.
            members: who moves each row, ``(B,)``, from :meth:`episode_members`; drawn for this step by default.
            noise_scale: share of the predicted deviation that a sample draws; the Simulator's own by default.
            exogenous: the next values of features that are set from outside, ``(B, d)``; they change as recorded by
                default, and where they are NaN.

        Returns:
            Next observation ``(B, D)``, reward ``(B,)``, terminated ``(B,)`` bool, and ``info`` with
            ``uncertainty`` ``(B,)`` if asked for.

        Raises:
            ValueError: if observations or actions have another number of features.
        """
        refuse_other_width("observations", observation, self.observation_size)
        refuse_other_width("actions", action, self.action_size)
        info: dict[str, Tensor] = {}
        if deterministic:
            means, log_variances = self.transition(observation, action)
            delta = means.mean(dim=0)
            if with_uncertainty:
                info["uncertainty"] = self._measure(means, (0.5 * log_variances).exp())
            next_observation = self._moved(observation, delta, None, exogenous)
        elif with_uncertainty or self.aggregation == "mean":
            drawn, noise = self.draw(observation, generator)
            members = drawn if members is None else members
            next_observation, info["uncertainty"] = self.advance(
                observation, action, members, noise, noise_scale, exogenous
            )
        else:
            if isinstance(generator, RowRandom) or members is not None:
                drawn, noise = self.draw(observation, generator)
                members = drawn if members is None else members
                mean, log_variance = self.transition.of_members(observation, action, members)
            else:
                mean, log_variance = self.transition.drawn(observation, action, generator)
                noise = normal_like(mean, generator)
            scale = self.noise_scale if noise_scale is None else noise_scale
            delta = mean + scale * (0.5 * log_variance).exp() * noise
            next_observation = self._moved(observation, delta, noise, exogenous)
        reward = self.reward(observation, action, next_observation)
        return next_observation, reward, self.termination(next_observation), info

    def episode_members(self, count: int, generator: Randomness = None) -> Tensor | None:
        """The members that move ``count`` episodes from their start to their end, ``(count,)``, for :meth:`step`.

        ``None`` if they are drawn at each step, or if there is nothing to draw.
        """
        if self.aggregation != "fixed_member":
            return None
        return integers(self.transition.members, count, generator, self.uncertainty_quantiles.device)

    def draw(self, observation: Tensor, generator: Randomness = None) -> tuple[Tensor, Tensor]:
        """Random numbers of one step for ``B`` rows: the member that moves each, ``(B,)``, and its noise ``(B, D)``."""
        members = integers(self.transition.members, len(observation), generator, observation.device)
        return members, normal_like(observation, generator)

    @torch.no_grad()
    def advance(
        self,
        observation: Tensor,
        action: Tensor,
        members: Tensor,
        noise: Tensor,
        noise_scale: float | None = None,
        exogenous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Next observation ``(B, D)`` and uncertainty ``(B,)`` for the random numbers of :meth:`draw`.

        ``noise_scale`` takes the place of the Simulator's own; ``exogenous`` as for :meth:`step`.
        """
        scale = self.noise_scale if noise_scale is None else noise_scale
        means, log_variances = self.transition(observation, action)
        stds = (0.5 * log_variances).exp()
        if self.aggregation == "mean":
            delta = means.mean(dim=0) + scale * stds.square().mean(dim=0).sqrt() * noise
        else:
            # The member is drawn first; only its mean and deviation are gathered and sampled.
            rows = torch.arange(len(observation), device=observation.device)
            delta = means[members, rows] + scale * stds[members, rows] * noise
        return self._moved(observation, delta, noise, exogenous), self._measure(means, stds)

    def _moved(self, observation: Tensor, delta: Tensor, noise: Tensor | None, exogenous: Tensor | None) -> Tensor:
        """The next observation, with exogenous features as given, or where they are NaN as recorded."""
        if not self.exogenous:
            return self.transition.next_observation(observation, delta)
        if exogenous is not None:
            drawn = self.transition.draw_exogenous(observation, noise)
            exogenous = torch.where(exogenous.isnan(), drawn, exogenous)
        return self.transition.next_observation(observation, delta, noise, exogenous)

    @torch.no_grad()
    def calibrate_uncertainty(self, observation: Tensor, action: Tensor, chunk: int = 8192) -> None:
        """Store the quantiles of the uncertainty on data ``(N, D), (N, A)``, for :meth:`uncertainty_quantile`."""
        values = torch.cat(
            [self.measure_uncertainty(o, a) for o, a in zip(observation.split(chunk), action.split(chunk), strict=True)]
        )
        levels = quantile_levels().to(values)
        # torch.quantile refuses large inputs; sorting and indexing does not
        ordered = values.sort().values
        self.uncertainty_quantiles.copy_(ordered[(levels * (len(ordered) - 1)).round().long()])

    @torch.no_grad()
    def measure_uncertainty(self, observation: Tensor, action: Tensor) -> Tensor:
        """Uncertainty ``(B,)`` of taking ``action`` in ``observation``."""
        means, log_variances = self.transition(observation, action)
        return self._measure(means, (0.5 * log_variances).exp())

    def uncertainty_quantile(self, level: float) -> float:
        """Uncertainty below which the share ``level`` of the training data lies; one of the stored levels."""
        levels = [round(float(value), 6) for value in quantile_levels()]
        if round(level, 6) not in levels:
            raise ValueError(f"no stored uncertainty quantile {level}: choose one of {levels}")
        return float(self.uncertainty_quantiles[levels.index(round(level, 6))])

    def uncertainty_unit(self) -> float:
        """The median uncertainty of the training data; 1 where that is no unit, as with a single member."""
        median = self.uncertainty_quantile(0.5)
        return median if 0.0 < median < math.inf else 1.0

    def end_worth(self) -> float:
        """The reward per step that ending is as good as: ``end_reward``, or the reward's lower bound if it has one."""
        if self.end_reward is not None:
            return self.end_reward
        low = float(self.reward.low)
        return low if math.isfinite(low) else 0.0

    def config(self) -> dict[str, Any]:
        """Everything needed to build the same architecture again, as plain data."""
        return {
            "transition": self.transition.config,
            "reward": self.reward.config,
            "termination": self.termination.config,
            "start_states": self.start_states.config,
            "demonstrated_states": None if self.demonstrated_states is None else self.demonstrated_states.config,
            "action_low": [float(value) for value in self.action_low],
            "action_high": [float(value) for value in self.action_high],
            "uncertainty": self.uncertainty,
            "task": self.task,
            "noise_scale": float(self.noise_scale),
            "aggregation": self.aggregation,
            "end_reward": None if self.end_reward is None else float(self.end_reward),
            "reward_learned": bool(self.reward_learned),
            "horizon": None if self.horizon is None else int(self.horizon),
            "observation_names": list(self.observation_names),
            "action_names": list(self.action_names),
        }

    def refuse_odd_values(self) -> None:
        """Raise a ``ValueError`` if bounds do not fit the actions, or a setting is no number or name."""
        bounds = (self.action_low, self.action_high)
        if any(len(bound) != self.action_size or not all(map(math.isfinite, bound)) for bound in bounds):
            raise ValueError(f"bounds of {self.action_size} actions are {self.action_low} and {self.action_high}")
        if not math.isfinite(self.noise_scale) or not math.isfinite(self.end_reward or 0.0):
            raise ValueError("noise_scale and end_reward have to be finite")
        if (self.horizon is not None and self.horizon < 1) or not isinstance(self.task, str | None):
            raise ValueError(f"horizon {self.horizon!r} or task {self.task!r} is not possible")
        named = ((self.observation_names, self.observation_size), (self.action_names, self.action_size))
        for names, size in named:
            if len(names) not in (0, size) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"names of {size} features are {names}")

    def save(self, path: str | Path, half: bool = False) -> None:
        """Write the Simulator to one safetensors file.

        Args:
            path: the file.
            half: keep its weight matrices in half precision.

        Raises:
            TypeError: if one of its parts was replaced by another class, which its file would not know: such as a
                reward that is not a learned one, in a control.
        """
        if type(self.reward) is not RewardModel:
            raise TypeError(
                f"the reward of this Simulator is a {type(self.reward).__name__}, no learned one: "
                "it is a control and cannot be saved"
            )
        for name, kinds in (
            ("transition", [TransitionModel]),
            ("termination", TERMINATIONS.values()),
            ("start_states", [StartStates]),
            ("demonstrated_states", [StartStates, type(None)]),
        ):
            found = type(getattr(self, name))
            if found not in kinds:
                raise TypeError(
                    f"{name} of this Simulator is a {found.__name__}, a class of your own: a file holds numbers and "
                    "names of the project's own classes, never code, so it would come back as another; keep it in "
                    "memory, and its parts in files of your own"
                )
        write_model(path, "simulator", self.config(), self.state_dict(), half=half)

    @classmethod
    def load(cls, path: str | Path) -> Simulator:
        """Read a Simulator that :meth:`save` wrote; its outputs equal the saved one's bit for bit.

        Raises:
            ModelFileError: if the file is missing, damaged or of another kind.
        """
        config, tensors = read_model(path, "simulator")
        try:
            demonstrated = config.get("demonstrated_states")
            simulator = cls(
                transition=TransitionModel(**config["transition"]),
                reward=RewardModel(**config["reward"]),
                termination=make_termination(config["termination"]),
                start_states=StartStates(**config["start_states"]),
                action_low=config["action_low"],
                action_high=config["action_high"],
                uncertainty=config["uncertainty"],
                task=config["task"],
                # Files of before these existed
                noise_scale=config.get("noise_scale", 1.0),
                aggregation=config.get("aggregation", "random_member"),
                end_reward=config.get("end_reward"),
                reward_learned=config.get("reward_learned", True),
                horizon=config.get("horizon"),
                observation_names=config.get("observation_names", ()),
                action_names=config.get("action_names", ()),
                demonstrated_states=None if demonstrated is None else StartStates(**demonstrated),
            )
            simulator.refuse_odd_values()
        except MISDESCRIBED as error:
            raise ModelFileError(f"{path}: its header does not describe a simulator: {error}") from error
        load_state(simulator, tensors, path)
        return simulator.eval().requires_grad_(False)
