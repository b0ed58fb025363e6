"""Many episodes of a Simulator, stepped in one call, as a ``gymnasium.vector.VectorEnv``."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from zoo.envs.episodes import Episodes, Options, Step
from zoo.envs.rendering import Renderer, can_be_drawn, refuse_unknown_mode
from zoo.envs.spaces import Named, action_space, observation_space
from zoo.loading import Loadable, load, named

Array = NDArray[Any]
Info = dict[str, Any]
NO_LIMIT = -1  # in Gymnasium


class SimulatorVectorEnv(Named, VectorEnv[Array, Array, Array]):
    """A learned Simulator as a vectorised environment: all rows are one batch, whatever their number.

    Row ``i`` of an environment that is reset with ``seed`` is the episode of a ``SimulatorEnv`` that is reset with
    ``seed + i``.

    Args:
        simulator: a Simulator, the path of its file, or an id of the zoo.
        num_envs: rows.
        autoreset_mode: what follows the end of an episode, as in Gymnasium: its row begins the next one in the next
            step, whose action is not heeded; in the same step; or when ``reset`` is called with a ``reset_mask``.
        render_mode: ``rgb_array`` to draw every row, where the task is known.
        max_episode_steps: Gymnasium's word for a horizon; of the two the shorter one counts, and -1 is none.
        options: how episodes run, see ``zoo.envs.episodes.Episodes``.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012, as in Gymnasium

    def __init__(
        self,
        simulator: Loadable | None = None,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        refuse_unknown_mode(render_mode, self.metadata["render_modes"])
        self.episodes = Episodes(load(named(simulator)), num_envs, **options)
        if max_episode_steps is not None and max_episode_steps != NO_LIMIT:
            self.episodes.shorten(max_episode_steps)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        if not can_be_drawn(self.episodes.simulator):
            self.metadata = {**self.metadata, "render_modes": []}
        self.single_observation_space = observation_space(self.episodes.simulator)
        self.single_action_space = action_space(self.episodes.simulator)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = render_mode
        drawn = range(0 if render_mode is None else num_envs)
        self._renderers = [Renderer(self.episodes.simulator, render_mode or "") for _ in drawn]
        if self._renderers:
            self.metadata = {**self.metadata, "render_fps": self._renderers[0].frames_per_second}
        self._waiting = np.ones(num_envs, dtype=np.bool_)  # rows that are to be reset before they can go on
        self._begun = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, Info]:
        """Begin an episode in every row, or in those of ``options["reset_mask"]``, ``(num_envs,)`` bool.

        Args:
            seed: row ``i`` takes ``seed + i``; or one for each row, of which ``None`` stands for no new one.
            options: see above; and ``exogenous``, ``(T, d)`` or ``(num_envs, T, d)``, what is set from outside in these
                episodes, see ``Episodes.begin``. Episodes that begin by themselves after them go as recorded.
        """
        if seed is not None and not isinstance(seed, Sequence | np.ndarray):
            seed = operator.index(seed)
        super().reset(seed=seed if isinstance(seed, int) else None)
        rows = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, dtype=np.bool_)))
        if rows.shape != (self.num_envs,) or rows.dtype != np.bool_:
            raise ValueError(f"reset_mask has to be bool and of shape ({self.num_envs},): it is {rows!r}")
        if isinstance(seed, int):
            seed = [seed + row for row in range(self.num_envs)]
        if seed is not None:
            if len(seed) != self.num_envs:
                raise ValueError(f"{len(seed)} seeds were given for {self.num_envs} environments")
            self.episodes.seed([each if row else None for each, row in zip(seed, rows, strict=True)])
        self._begun = True
        return self._begin(rows, (options or {}).get("exogenous")), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, Info]:
        """Advance every row by one step; actions beyond the bounds are brought within them.

        Raises:
            RuntimeError: if a row's episode has ended, or has not begun, and nothing resets it here.
        """
        begins = self._waiting
        if not self._begun or (begins.any() and self.autoreset_mode != AutoresetMode.NEXT_STEP):
            raise RuntimeError("an episode has ended, or has not begun: call reset before the next step")
        given = np.array(actions, dtype=np.float32)
        if given.shape == self.action_space.shape:
            given[begins] = 0.0  # what is not heeded may be anything
        step = self.episodes.step(torch.as_tensor(given, device=self.episodes.device))
        observation = self._array(step.observation)
        reward = np.where(begins, 0.0, step.reward.cpu().numpy())
        terminated, truncated = step.terminated.cpu().numpy() & ~begins, step.truncated.cpu().numpy() & ~begins
        info = _info(step, ~begins)
        ended = terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            info = _info(step, ~ended)
            if ended.any():
                info |= {"final_obs": _by_row(observation, ended), "_final_obs": ended.copy()}
                info |= {"final_info": _info(step, ended), "_final_info": ended.copy()}
            begins, ended = ended, np.zeros_like(ended)
        for row, renderer in enumerate(self._renderers):
            renderer.advance(observation[row])
        if begins.any():
            observation = self._begin(begins)
        self._waiting = ended
        return observation, reward, terminated, truncated, info

    def _begin(self, rows: NDArray[np.bool_], exogenous: Any = None) -> Array:
        """Begin an episode in some rows; the observation of all."""
        begun = self.episodes.begin(torch.as_tensor(rows, device=self.episodes.device), exogenous)
        observation = self._array(begun)
        self._waiting = self._waiting & ~rows
        for row, renderer in enumerate(self._renderers):
            if rows[row]:
                renderer.begin(observation[row])
        return observation

    def _array(self, observation: Tensor) -> Array:
        """Observations in the type of their space."""
        return observation.cpu().numpy().astype(self.observation_space.dtype)

    def render(self) -> tuple[Array, ...] | None:
        """The imagined state of every row as an image ``(height, width, 3)``."""
        return tuple(renderer.draw() for renderer in self._renderers) if self._renderers else None

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the drawing."""
        for renderer in self._renderers:
            renderer.close()


def _info(step: Step, rows: NDArray[np.bool_]) -> Info:
    """What is known of some rows beside the step itself, laid out as Gymnasium does."""
    if step.uncertainty is None or not rows.any():
        return {}
    return {"uncertainty": np.where(rows, step.uncertainty.cpu().numpy(), 0.0), "_uncertainty": rows.copy()}


def _by_row(values: Array, rows: NDArray[np.bool_]) -> Array:
    """An array of arrays, ``None`` for rows that are not meant: the layout of final observations in Gymnasium."""
    column = np.full(len(values), None, dtype=object)
    for row in np.flatnonzero(rows):
        column[row] = values[row]
    return column
