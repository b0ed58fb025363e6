"""Numbers that no method can be trained with are refused by their names."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

from lit_modules import ranges
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.dynamics_reward import DynamicsRewardGame
from lit_modules.offline_ml_irl import OfflineMLIRL
from lit_modules.offsim import OffSim
from lit_modules.ranges import refuse_outside
from lit_modules.simulator_combo import SimulatorCOMBO
from lit_modules.simulator_mobile import SimulatorMOBILE
from lit_modules.simulator_ppo import SimulatorPPO
from lit_modules.simulator_rambo import SimulatorRAMBO
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.simulator_td3 import SimulatorTD3
from lit_modules.weighted_cloning import WeightedCloning

METHODS = (
    BehaviourCloning,
    OffSim,
    SimulatorSAC,
    SimulatorTD3,
    SimulatorPPO,
    OfflineMLIRL,
    SimulatorMOBILE,
    SimulatorCOMBO,
    SimulatorRAMBO,
    WeightedCloning,
    DynamicsRewardGame,
)
KNOWN = {name for names, _, _ in ranges._RANGES for name in names}


def test_every_number_of_every_method_has_a_range() -> None:
    numeric = {
        name
        for method in METHODS
        for kind in method.__mro__
        if kind.__module__.startswith("lit_modules.") and "__init__" in vars(kind)
        for name, parameter in inspect.signature(kind).parameters.items()
        if "int" in str(parameter.annotation) or "float" in str(parameter.annotation)
    }
    assert numeric == KNOWN


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon is 0: it must be at least 1"),
        ({"hidden_sizes": (8, 0)}, "hidden_sizes is 0: it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: it must be above 0"),
        ({"margin": [1.0, -2.0]}, "margin is -2.0: it must be at least 0"),
        ({"proposal": {"uniform": -1.0}}, "proposal is -1.0: it must be at least 0"),
        ({"push_share": 1.5}, "push_share is 1.5: it must be between 0 and 1"),
        ({"gamma": 1.0}, "gamma is 1.0: it must be at least 0 and below 1"),
        ({"entropy_gain": math.nan}, "entropy_gain is nan: it must be a finite number"),
        ({"tau": 0.0}, "tau is 0.0: it must be above 0"),
        ({"tau": 1.5}, "tau is 1.5: it must be between 0 and 1"),
    ],
)
def test_numbers_outside_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^policy.model.{message}$"):
        refuse_outside(settings, "policy.model.")


def test_words_nothing_and_numbers_inside_pass() -> None:
    refuse_outside(
        {
            "margin": "adaptive",
            "decay_updates": None,
            "gamma": 0.99,
            "push_share": 1,
            "loosen_below": 2.0,
            "unknown": -1.0,
        }
    )


def test_constructors_refuse_too() -> None:
    with pytest.raises(ValueError, match="members is 0"):
        BehaviourCloning(3, [-1.0], [1.0], members=0)
    with pytest.raises(ValueError, match="gradient_penalty_weight is -1"):
        OffSim(3, [-1.0], [1.0], termination="none", gradient_penalty_weight=-1.0)
