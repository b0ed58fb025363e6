"""The learners that ``policy.method`` may name: the shipped ones, and classes of one's own."""

from __future__ import annotations

import difflib
from importlib import import_module

from app.errors import UserError
from lit_modules.offline_ml_irl import OfflineMLIRL
from lit_modules.simulator_combo import SimulatorCOMBO
from lit_modules.simulator_mobile import SimulatorMOBILE
from lit_modules.simulator_policy import SimulatorPolicy
from lit_modules.simulator_ppo import SimulatorPPO
from lit_modules.simulator_rambo import SimulatorRAMBO
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.simulator_td3 import SimulatorTD3

POLICY_METHODS: dict[str, type[SimulatorPolicy]] = {
    "SimulatorSAC": SimulatorSAC,
    "SimulatorTD3": SimulatorTD3,
    "SimulatorPPO": SimulatorPPO,
    "OfflineMLIRL": OfflineMLIRL,
    "SimulatorMOBILE": SimulatorMOBILE,
    "SimulatorCOMBO": SimulatorCOMBO,
    "SimulatorRAMBO": SimulatorRAMBO,
}


def policy_method(name: str) -> type[SimulatorPolicy]:
    """The learner of that name, or with dots in it, that class of a module that Python finds: ``mylab.MySAC``.

    Raises:
        UserError: if there is none, or it is no learner in a Simulator.
    """
    if name in POLICY_METHODS:
        return POLICY_METHODS[name]
    module, _, last = str(name).rpartition(".")
    if not module:
        near = difflib.get_close_matches(str(name), POLICY_METHODS, n=1)
        hint = f"did you mean {near[0]}" if near else f"choose one of {', '.join(POLICY_METHODS)}"
        raise UserError(
            f"unknown policy.method {name!r}: {hint}; one of your own is named with its module, as mylab.MySAC"
        )
    try:
        found = getattr(import_module(module), last)
    except (ImportError, AttributeError) as error:
        raise UserError(f"policy.method {name}: {error}; Python looks for it where PYTHONPATH says") from error
    if not (isinstance(found, type) and issubclass(found, SimulatorPolicy)):
        raise UserError(
            f"policy.method {name} is no learner in a Simulator: derive it from one, such as "
            "lit_modules.simulator_sac.SimulatorSAC (docs/extending.md)"
        )
    return found


def shipped_method(name: str) -> str | None:
    """The name of the shipped learner whose settings one of that name starts from; ``None`` if there is none."""
    if "." not in str(name):
        return name
    names = {method: known for known, method in POLICY_METHODS.items()}
    return next((names[each] for each in policy_method(name).__mro__ if each in names), None)
