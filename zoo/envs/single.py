"""One episode of a Simulator at a time, as a ``gymnasium.Env``."""

from __future__ import annotations

import operator
from typing import Any, Unpack

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.envs.episodes import Episodes, Options
from zoo.envs.rendering import Renderer, can_be_drawn, refuse_unknown_mode
from zoo.envs.spaces import Named, action_space, observation_space
from zoo.loading import Loadable, load, named

Array = NDArray[Any]


class SimulatorEnv(Named, gymnasium.Env[Array, Array]):
    """A learned Simulator as an environment like any other.

    Observations and actions are those of the data, in their own units; the reward is the learned one. ``info`` holds
    ``uncertainty``, see ``zoo.envs.episodes``.

    Args:
        simulator: a Simulator, the path of its file, or an id of the zoo.
        render_mode: ``rgb_array`` or ``human`` draw the imagined state with the MuJoCo model of the real task, where
            that is known.
        options: how episodes run, see ``zoo.envs.episodes.Episodes``.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"]}  # noqa: RUF012, as in Gymnasium

    def __init__(
        self, simulator: Loadable | None = None, render_mode: str | None = None, **options: Unpack[Options]
    ) -> None:
        self.episodes = Episodes(load(named(simulator)), 1, **options)
        self.observation_space = observation_space(self.episodes.simulator)
        self.action_space = action_space(self.episodes.simulator)
        self.render_mode = render_mode
        refuse_unknown_mode(render_mode, self.metadata["render_modes"])
        if not can_be_drawn(self.episodes.simulator):
            self.metadata = {**self.metadata, "render_modes": []}
        self.renderer = None if render_mode is None else Renderer(self.episodes.simulator, render_mode)
        if self.renderer is not None:
            self.metadata = {**self.metadata, "render_fps": self.renderer.frames_per_second}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode; with a ``seed``, the first of that seed.

        Args:
            seed: see above.
            options: ``exogenous``, an array ``(T, d)``: what is set from outside, see ``Episodes.begin``.
        """
        seed = None if seed is None else operator.index(seed)
        super().reset(seed=seed)
        if seed is not None:
            self.episodes.seed([seed])
        observation = self._array(self.episodes.begin(exogenous=(options or {}).get("exogenous")))
        if self.renderer is not None:
            self.renderer.begin(observation)
        return observation, {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Advance by one step; actions beyond the bounds are brought within them."""
        given = torch.as_tensor(np.asarray(action, dtype=np.float32), device=self.episodes.device)
        if given.shape != self.action_space.shape:
            raise ValueError(
                f"an action has the shape {tuple(given.shape)}, where {self.action_space.shape} is expected"
            )
        step = self.episodes.step(given.unsqueeze(0))
        observation = self._array(step.observation)
        info = {} if step.uncertainty is None else {"uncertainty": float(step.uncertainty)}
        if self.renderer is not None:
            self.renderer.advance(observation)
            if self.render_mode == "human":
                self.renderer.draw()
        return observation, float(step.reward), bool(step.terminated), bool(step.truncated), info

    def render(self) -> Any:
        """The imagined state as an image ``(height, width, 3)``, or on the screen in ``human`` mode."""
        return None if self.renderer is None else self.renderer.draw()

    def close(self) -> None:
        """Close the window, if there is one."""
        if self.renderer is not None:
            self.renderer.close()

    def _array(self, observation: Tensor) -> Array:
        """The only row of ``(1, D)``, in the type of the observation space."""
        return observation[0].cpu().numpy().astype(self.observation_space.dtype)
