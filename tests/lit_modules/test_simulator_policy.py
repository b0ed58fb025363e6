"""What learners of the policy stage share."""

from __future__ import annotations

from typing import Any

import pytest

from lit_modules.method import listed_optimizers
from lit_modules.offline_ml_irl import OfflineMLIRL
from lit_modules.simulator_ppo import SimulatorPPO
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.simulator_td3 import SimulatorTD3


def rate(module: Any, tensors: Any) -> float:
    """The one learning rate at which some of a module's parameters are trained."""
    wanted = {id(tensor) for tensor in tensors}
    groups = (group for optimizer in listed_optimizers(module) for group in optimizer.optimizer.param_groups)
    (found,) = {float(group["lr"]) for group in groups if wanted & {id(each) for each in group["params"]}}
    return found


@pytest.mark.parametrize("method", [SimulatorSAC, SimulatorTD3, SimulatorPPO, OfflineMLIRL])
def test_the_actors_rate_falls_and_the_critics_rate_stays(steering: Any, method: type) -> None:
    settings = {"batch_size": 16, "actor_learning_rate": 1e-2, "critic_learning_rate": 2e-3}
    module = steering.learner(method, **settings, decay_updates=8, actor_final_rate=0.2)
    actor = list(module.policy.network.parameters())
    critic = getattr(module, "value", None) or module.loss.qvalue_network_params
    steering.train(module, 2)
    start = rate(module, actor)
    steering.train(module, 10)
    assert 0.2 * 1e-2 < start < 1e-2
    assert rate(module, actor) == pytest.approx(0.2 * 1e-2)
    assert rate(module, critic.parameters()) == 2e-3


@pytest.mark.parametrize("settings", [{}, {"actor_final_rate": 0.2}, {"decay_updates": 8}])
def test_the_actors_rate_stays_unless_both_settings_ask(steering: Any, settings: dict[str, Any]) -> None:
    module = steering.learner(SimulatorSAC, batch_size=16, actor_learning_rate=1e-2, **settings)
    steering.train(module, 10)
    assert rate(module, module.policy.network.parameters()) == 1e-2
