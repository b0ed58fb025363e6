"""The zoo's entries as environments of Gymnasium: ``gymnasium.make("zoo:OffSim/hopper-expert-v0")``.

Importing ``zoo`` registers them, and the prefix ``zoo:`` imports it. (Gymnasium 1.0 has given up finding the
environments of installed packages by itself.) ``OffSim/Simulator-v0`` takes any Simulator, as ``simulator=PATH``.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from zoo.entries import entries
from zoo.ids import NAMESPACE
from zoo.tasks import TASKS

ANY = f"{NAMESPACE}/Simulator-v0"


def register_environments() -> None:
    """Tell Gymnasium of the entries that are here; what it knows already stays."""
    _register(ANY)
    for entry in entries():
        settings: dict[str, Any] = {"simulator": str(entry)}
        if entry.task not in TASKS:
            _register(entry.environment, kwargs=settings)
            continue
        # A known horizon is Gymnasium's to keep, so that whoever makes one can choose another
        horizon = TASKS[entry.task].horizon
        _register(entry.environment, max_episode_steps=horizon, kwargs={**settings, "horizon": None})


def _register(name: str, **settings: Any) -> None:
    if name not in gymnasium.registry:
        gymnasium.register(
            name, entry_point="zoo.envs:SimulatorEnv", vector_entry_point="zoo.envs:SimulatorVectorEnv", **settings
        )
