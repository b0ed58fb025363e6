"""Pictures of what a Simulator imagines: the real task's MuJoCo model, placed in the state of an observation."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from zoo.simulator import Simulator
from zoo.tasks import TASKS, get_task

Array = NDArray[np.floating]
SCREENS = {"DISPLAY", "WAYLAND_DISPLAY"}  # variables that name one


def refuse_unknown_mode(mode: str | None, modes: Sequence[str]) -> None:
    """Raise a ``ValueError`` unless ``mode`` is ``None`` or one of ``modes``."""
    if mode is not None and mode not in modes:
        raise ValueError(f"unknown render_mode {mode!r}: choose one of {', '.join(modes)}, or None")


def can_be_drawn(simulator: Simulator) -> bool:
    """Whether its task is known, and how states follow from observations."""
    return simulator.task is not None and get_task(simulator.task).placement is not None


class Renderer:
    """Draws one episode. The place of the body, which observations leave out, is summed up from its velocity.

    Args:
        simulator: whose states are drawn.
        mode: ``rgb_array`` or ``human``.

    Raises:
        RuntimeError: in ``human`` mode without a screen.
        ValueError: if the task is not known, or nobody knows how its states follow from observations.
    """

    def __init__(self, simulator: Simulator, mode: str) -> None:
        if not can_be_drawn(simulator):
            known = ", ".join(sorted(name for name, each in TASKS.items() if each.placement is not None))
            raise ValueError(
                f"a Simulator of {simulator.task or 'a task that is not known'} cannot be drawn: leave render_mode "
                f"out. What can be drawn: {known}"
            )
        if mode == "human" and sys.platform == "linux" and not os.environ.keys() & SCREENS:
            raise RuntimeError("there is no screen to draw on: use render_mode='rgb_array', which needs none")
        if mode == "rgb_array" and not os.environ.keys() & SCREENS:
            os.environ.setdefault("MUJOCO_GL", "egl")  # what draws without one; Gymnasium would look for a window
        assert simulator.task is not None
        task = get_task(simulator.task)
        assert task.placement is not None
        self.placement = task.placement
        # By its name, since the camera that Gymnasium takes by default stands still
        self.environment: Any = task.make(render_mode=mode, camera_name="track").unwrapped
        self.environment.reset(seed=0)
        self.place = np.zeros(self.placement.hidden)

    @property
    def frames_per_second(self) -> int:
        """At which the real task runs."""
        return int(self.environment.metadata["render_fps"])

    def begin(self, observation: Array) -> None:
        """Put the body at the origin, in the state of an observation ``(D,)``."""
        self.place = np.zeros(self.placement.hidden)
        self._show(observation)

    def advance(self, observation: Array) -> None:
        """Move the body on, to the state of the next observation ``(D,)``."""
        velocity = self.placement.state(observation)[1][: self.placement.hidden]
        self.place = self.place + self.environment.dt * velocity
        self._show(observation)

    def draw(self) -> Any:
        """The image ``(height, width, 3)``, or a new frame on the screen.

        Raises:
            RuntimeError: saying what to do, on a machine that cannot draw.
        """
        try:
            return self.environment.render()
        except (RuntimeError, ImportError, AttributeError, mujoco.FatalError, gymnasium.error.Error) as error:
            raise RuntimeError(
                f"this machine cannot draw MuJoCo scenes ({error}). Without a screen, install EGL (libegl1, "
                "libegl-mesa0, libgl1-mesa-dri) or OSMesa (libosmesa6) and set MUJOCO_GL=egl or MUJOCO_GL=osmesa. "
                "Everything but drawing works without."
            ) from error

    def close(self) -> None:
        """Close the window, if there is one."""
        self.environment.close()

    def _show(self, observation: Array) -> None:
        position, velocity = self.placement.state(observation)
        position[: self.placement.hidden] = self.place
        self.environment.set_state(position, velocity)
