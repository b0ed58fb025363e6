"""The facts of the real systems this project knows: one :class:`Task` each."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import gymnasium
import mujoco
import torch
from torch import Tensor

from zoo.placement import Placement, ReacherPlacement

ENTRY_POINTS = "offsim.tasks"
TerminationRule = Callable[[Tensor], Tensor]


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Keep quiet about old attributes in Gymnasium's model files, which MuJoCo prints and logs at every loading."""

    def pass_on(message: str) -> None:
        if "deprecated" not in message:
            warnings.warn(f"MuJoCo: {message}", stacklevel=2)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(pass_on)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


@dataclass(frozen=True)
class Task:
    """What is known about a real system apart from any data.

    Attributes:
        name: short name used on the command line and in ids.
        environment_id: Gymnasium id of the real task.
        observation_names: names of the features with their units, for figures.
        environment_kwargs: arguments of ``gymnasium.make``.
        random_return: mean return of uniformly random actions.
        expert_return: mean return of a reference expert.
        returns_source: where the two returns come from.
        horizon: steps after which an episode is truncated.
        observation_size: number of observation features.
        action_size: number of action dimensions.
        termination: rule ``(B, observation) -> (B,) bool`` if one is known, else ``None``.
        placement: how its MuJoCo model is put in the state of an observation, if that is known.
    """

    name: str
    environment_id: str
    random_return: float
    expert_return: float
    returns_source: str
    horizon: int
    observation_size: int
    action_size: int
    termination: TerminationRule | None = None
    placement: Placement | None = None
    observation_names: tuple[str, ...] = ()
    environment_kwargs: dict[str, Any] = field(default_factory=dict)

    def make(self, **kwargs: Any) -> gymnasium.Env:
        """The real environment. For evaluation and for collecting data; nothing that learns offline calls this."""
        with _without_deprecations():
            return gymnasium.make(self.environment_id, **{**self.environment_kwargs, **kwargs})

    def normalized_return(self, value: float) -> float:
        """Return on a scale where random actions score 0 and the reference expert 100."""
        return 100.0 * (value - self.random_return) / (self.expert_return - self.random_return)

    def share_of_expert(self, value: float) -> float | None:
        """A return over the reference expert's; ``None`` where that is not positive, and a share would mean nothing."""
        return value / self.expert_return if self.expert_return > 0 else None


def hopper_terminated(observation: Tensor) -> Tensor:
    """Hopper-v5's rule: finite, torso above 0.7 m, tilt below 0.2 rad, everything else within +-100."""
    height, angle = observation[..., 0], observation[..., 1]
    within = (observation[..., 1:].abs() < 100.0).all(dim=-1)
    healthy = torch.isfinite(observation).all(dim=-1) & within & (height > 0.7) & (angle.abs() < 0.2)
    return ~healthy


def walker2d_terminated(observation: Tensor) -> Tensor:
    """Walker2d-v5's rule: torso between 0.8 and 2 m, tilt below 1 rad."""
    height, angle = observation[..., 0], observation[..., 1]
    return ~((height > 0.8) & (height < 2.0) & (angle.abs() < 1.0))


def ant_terminated(observation: Tensor) -> Tensor:
    """Ant-v5's rule: finite, torso between 0.2 and 1 m."""
    height = observation[..., 0]
    return ~(torch.isfinite(observation).all(dim=-1) & (height >= 0.2) & (height <= 1.0))


def inverted_pendulum_terminated(observation: Tensor) -> Tensor:
    """InvertedPendulum-v5's rule: finite, pole within 0.2 rad."""
    return ~(torch.isfinite(observation).all(dim=-1) & (observation[..., 1].abs() <= 0.2))


def never_terminated(observation: Tensor) -> Tensor:
    """The rule of a task whose episodes only end at their time limit."""
    return torch.zeros_like(observation[..., 0], dtype=torch.bool)


def _names(coordinates: str, velocities: str, joints: Sequence[str]) -> tuple[str, ...]:
    """Names of positions then velocities: those of the torso, given with units, and the joints' angles."""
    return (
        *coordinates.split(", "),
        *(f"{joint} angle (rad)" for joint in joints),
        *velocities.split(", "),
        *(f"{joint} velocity (rad/s)" for joint in joints),
    )


_PLANAR_VELOCITIES = "forward velocity (m/s), vertical velocity (m/s), torso velocity (rad/s)"
_RETURNS = "random: 100 episodes of uniform actions; expert: {} episodes of a published policy"

TASKS: dict[str, Task] = {
    task.name: task
    for task in [
        Task(
            name="hopper",
            environment_id="Hopper-v5",
            random_return=17.6,
            expert_return=3727.0,
            returns_source=_RETURNS.format(20),
            horizon=1000,
            observation_size=11,
            action_size=3,
            termination=hopper_terminated,
            placement=Placement(positions=6, hidden=1, velocity_limit=10.0),
            observation_names=_names("height (m), torso angle (rad)", _PLANAR_VELOCITIES, ["thigh", "leg", "foot"]),
        ),
        Task(
            name="halfcheetah",
            environment_id="HalfCheetah-v5",
            random_return=-282.5,
            expert_return=9420.0,
            returns_source=_RETURNS.format(20),
            horizon=1000,
            observation_size=17,
            action_size=6,
            termination=never_terminated,
            placement=Placement(positions=9, hidden=1),
            observation_names=_names(
                "height (m), torso angle (rad)",
                _PLANAR_VELOCITIES,
                ["back thigh", "back shin", "back foot", "front thigh", "front shin", "front foot"],
            ),
        ),
        Task(
            name="walker2d",
            environment_id="Walker2d-v5",
            random_return=1.8,
            expert_return=5097.0,
            returns_source=_RETURNS.format(21),
            horizon=1000,
            observation_size=17,
            action_size=6,
            termination=walker2d_terminated,
            placement=Placement(positions=9, hidden=1, velocity_limit=10.0),
            observation_names=_names(
                "height (m), torso angle (rad)",
                _PLANAR_VELOCITIES,
                ["right thigh", "right leg", "right foot", "left thigh", "left leg", "left foot"],
            ),
        ),
        Task(
            name="ant",
            environment_id="Ant-v5",
            # Without the 78 contact forces, as in the literature on offline learning
            environment_kwargs={"include_cfrc_ext_in_observation": False},
            random_return=-48.0,
            expert_return=5105.0,
            returns_source=_RETURNS.format(20),
            horizon=1000,
            observation_size=27,
            action_size=8,
            termination=ant_terminated,
            placement=Placement(positions=15, hidden=2),
            observation_names=_names(
                "height (m), orientation w, orientation x, orientation y, orientation z",
                "velocity x (m/s), velocity y (m/s), velocity z (m/s), "
                "angular velocity x (rad/s), angular velocity y (rad/s), angular velocity z (rad/s)",
                [f"{joint} {leg}" for leg in range(1, 5) for joint in ("hip", "ankle")],
            ),
        ),
        Task(
            name="inverted_pendulum",
            environment_id="InvertedPendulum-v5",
            random_return=5.2,
            expert_return=1000.0,
            returns_source="random: 100 episodes of uniform actions; expert: the most that there is",
            horizon=1000,
            observation_size=4,
            action_size=1,
            termination=inverted_pendulum_terminated,
            placement=Placement(positions=2, hidden=0),
            observation_names=(
                "cart position (m)",
                "pole angle (rad)",
                "cart velocity (m/s)",
                "pole velocity (rad/s)",
            ),
        ),
        Task(
            name="reacher",
            environment_id="Reacher-v5",
            random_return=-43.3,
            expert_return=-5.4,
            returns_source="random: 100 episodes of uniform actions; expert: 50 of `offsim collect reacher`, seed 0",
            horizon=50,
            observation_size=10,
            action_size=2,
            termination=never_terminated,
            placement=ReacherPlacement(),
            observation_names=(
                "cosine of the first angle",
                "cosine of the second angle",
                "sine of the first angle",
                "sine of the second angle",
                "target x (m)",
                "target y (m)",
                "first velocity (rad/s)",
                "second velocity (rad/s)",
                "fingertip to target x (m)",
                "fingertip to target y (m)",
            ),
        ),
    ]
}


def register_task(task: Task) -> None:
    """Make a task of one's own known by its name, for as long as this process runs.

    Raises:
        ValueError: if another one has that name.
    """
    if TASKS.get(task.name, task) != task:
        raise ValueError(f"there is a task {task.name!r} already: give yours another name")
    TASKS[task.name] = task


@functools.cache
def register_installed_tasks() -> None:
    """Make the tasks known that installed packages offer as entry points of the group ``offsim.tasks``, once.

    One that cannot be loaded is warned of, and left out. They may import any part of this project, so it is done when a
    task is looked for, and not when this module is imported.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            found = entry.load()
            if not isinstance(found, Task):
                raise TypeError(f"{entry.value} is a {type(found).__name__}, no zoo.tasks.Task")
            register_task(found)
        except Exception as error:  # code of others
            warnings.warn(f"task {entry.name!r} of an installed package is left out: {error}", stacklevel=2)


def is_known(name: str | None) -> bool:
    """Whether a task has that name, here or in an installed package."""
    if name not in TASKS:
        register_installed_tasks()
    return name in TASKS


def get_task(name: str) -> Task:
    """Look a task up by its short name.

    Raises:
        KeyError: naming the tasks that exist.
    """
    if not is_known(name):
        raise KeyError(f"unknown task {name!r}: known tasks are {', '.join(sorted(TASKS))}")
    return TASKS[name]
