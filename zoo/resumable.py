"""A real environment whose episodes can be left off and continued in another process, to the last bit."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch

STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class Resumable(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A MuJoCo environment with a time limit that remembers how it came to its present state.

    MuJoCo's quantities that follow from a state are those of the last step's beginning, and rewards read some of
    them. So what is kept is the state before the last step and its action, and continuing takes that step again.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._seed: int | None = None
        self._before: np.ndarray | None = None
        self._action: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; it can be continued elsewhere only if it has a seed."""
        self._seed, self._before, self._action = seed, None, None
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, as the environment takes it."""
        model, data = self._simulation
        self._before = np.empty(mujoco.mj_stateSize(model, STATE))
        mujoco.mj_getState(model, data, self._before, STATE)
        self._action = np.array(action)
        return super().step(action)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` continues from, of plain types and tensors."""
        assert self._seed is not None, "an episode without a seed cannot be repeated"
        return {
            "seed": self._seed,
            "steps": int(self.get_wrapper_attr("_elapsed_steps")),
            "before": None if self._before is None else torch.from_numpy(self._before.copy()),
            "action": None if self._action is None else torch.from_numpy(self._action.copy()),
            "action_space": json.dumps(self.action_space.np_random.bit_generator.state),
        }

    def restore(self, state: dict[str, Any]) -> Any:
        """Go on where :meth:`state` was taken; returns the observation there."""
        observation, _ = self.reset(seed=state["seed"])
        if state["before"] is not None:
            mujoco.mj_setState(*self._simulation, state["before"].numpy(), STATE)
            self.set_wrapper_attr("_elapsed_steps", state["steps"] - 1)
            observation, *_ = self.step(state["action"].numpy())
        self.action_space.np_random.bit_generator.state = json.loads(state["action_space"])
        return observation

    @property
    def _simulation(self) -> tuple[Any, Any]:
        environment: Any = self.env.unwrapped
        return environment.model, environment.data
