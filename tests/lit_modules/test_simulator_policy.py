"""What learners of the policy stage share."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_modules.method import Diverged, listed_optimizers
from lit_modules.offline_ml_irl import OfflineMLIRL
from lit_modules.simulator_ppo import SimulatorPPO
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.simulator_td3 import SimulatorTD3
from zoo import Policy

STREAMS = ("expert", "all")


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
    steering.train(module, 4)
    start = rate(module, actor)
    steering.train(module, 10)
    assert 0.2 * 1e-2 < start < 1e-2
    assert rate(module, actor) == pytest.approx(0.2 * 1e-2)
    assert rate(module, critic.parameters()) == 2e-3


@pytest.mark.parametrize("method", [SimulatorSAC, SimulatorTD3])
def test_the_actor_waits_for_its_critics(steering: Any, method: type) -> None:
    module = steering.learner(method, batch_size=16, decay_updates=20, critic_share=0.5)
    start = copy.deepcopy(module.policy.network.state_dict())
    critic = [value.clone() for value in module.loss.critic_layers()[0]]
    steering.train(module, 10)
    now = module.policy.network.state_dict()
    assert all(torch.equal(now[name], value) for name, value in start.items())
    assert not torch.equal(module.loss.critic_layers()[0][0], critic[0])
    steering.train(module, 10)
    assert not all(torch.equal(module.policy.network.state_dict()[name], value) for name, value in start.items())


@pytest.mark.parametrize("method", [SimulatorSAC, SimulatorTD3, SimulatorPPO])
def test_roll_outs_draw_as_much_noise_as_they_are_told(steering: Any, method: type) -> None:
    modules = {scale: steering.learner(method, noise_scale=scale, cloned_policy=None) for scale in (None, 0.0, 0.5)}
    policy = modules[None].policy.state_dict()
    drawn = modules[None].draw_roll_outs()
    following = {}
    for scale, module in modules.items():
        module.policy.load_state_dict(policy)
        module.simulator.noise_scale = 0.25
        module.simulator.transition.log_variance_min.fill_(-2.0)
        columns, _ = module.simulate(*drawn)
        following[scale] = columns["next_observation"][0]
        assert module.simulator.noise_scale == 0.25  # what the Simulator itself draws stays
    deviation = following[0.5] - following[0.0]
    assert float(deviation.abs().mean()) > 0.05
    torch.testing.assert_close(following[None] - following[0.0], 0.5 * deviation)


@pytest.mark.parametrize("settings", [{}, {"actor_final_rate": 0.2}, {"decay_updates": 8, "actor_final_rate": 1.0}])
def test_the_actors_rate_stays_unless_both_settings_ask(steering: Any, settings: dict[str, Any]) -> None:
    module = steering.learner(SimulatorSAC, batch_size=16, actor_learning_rate=1e-2, **settings)
    steering.train(module, 10)
    assert rate(module, module.policy.network.parameters()) == 1e-2


@pytest.mark.parametrize(("method", "objective"), [(SimulatorSAC, "objective"), (SimulatorTD3, "actor_objective")])
def test_the_anchor_holds_as_hard_as_the_simulator_is_uncertain(
    steering: Any, cloned_policy: str, method: type, objective: str
) -> None:
    module = steering.learner(method, batch_size=8, cloned_policy=cloned_policy, anchor_weight=3.0, anchor_form="doubt")
    steering.train(module, 1)
    module.policy.network[0].bias.data.add_(0.5)  # no longer the cloned one
    inputs = {name: rows[0] for name, rows in module.draw({name: steering.table(1, 8) for name in STREAMS}).items()}
    inputs["uncertainty"][:4] = torch.tensor([0.0, 1.0, 2.0, 3.0]) * module.uncertainty_unit
    assert bool((inputs["uncertainty"][4:] == 0).all())  # recorded transitions happened
    extra = [module.loss.critic_layers(), module.loss.target_layers()][: 2 if objective == "objective" else 1]
    total, logged = getattr(module, objective)(inputs, *extra)
    observation = inputs["observation"][:4]
    distance = module.policy.mean_action(observation) - Policy.load(cloned_policy).act(observation)
    expected = (torch.arange(4.0) * distance.squeeze(-1).square()).sum() / 8
    torch.testing.assert_close(logged["anchor"], expected)
    module.hparams["anchor_weight"] = 0.0
    without, _ = getattr(module, objective)(inputs, *extra)
    torch.testing.assert_close(total - without, 3.0 * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "objective"), [(SimulatorSAC, "objective"), (SimulatorTD3, "actor_objective")])
def test_the_anchor_holds_where_cloned_networks_agree(
    steering: Any, tmp_path: Path, method: type, objective: str
) -> None:
    torch.manual_seed(3)
    cloned = Policy(1, [-1.0], [1.0], (8,), members=3)
    cloned.save(tmp_path / "cloned.safetensors")
    module = steering.learner(
        method,
        batch_size=8,
        cloned_policy=str(tmp_path / "cloned.safetensors"),
        anchor_weight=3.0,
        anchor_tolerance=0.2,
    )
    steering.train(module, 1)
    module.policy.network.layers[0].bias.data.add_(0.5)  # no longer the cloned one
    inputs = {name: rows[0] for name, rows in module.draw({name: steering.table(1, 8) for name in STREAMS}).items()}
    extra = [module.loss.critic_layers(), module.loss.target_layers()][: 2 if objective == "objective" else 1]
    _, logged = getattr(module, objective)(inputs, *extra)
    with torch.no_grad():
        locations, _ = cloned.of_members(inputs["observation"])
        actions = locations.tanh()[..., 0]
        hold = (-actions.var(dim=0, unbiased=False) / 0.2**2).exp()
        distance = module.policy.mean_action(inputs["observation"]) - locations.mean(dim=0).tanh()
    torch.testing.assert_close(inputs["anchor_hold"], hold)
    assert float(hold.max()) > 1.01 * float(hold.min())
    torch.testing.assert_close(logged["anchor"], (hold * distance.squeeze(-1).square()).mean())


def test_without_several_cloned_networks_there_is_nothing_to_hold_on_to(steering: Any, cloned_policy: str) -> None:
    assert steering.learner(SimulatorSAC, anchor_weight=1.0).anchor is None
    assert steering.learner(SimulatorSAC, anchor_weight=1.0, cloned_policy=cloned_policy).anchor is None
    held = steering.learner(SimulatorSAC, anchor_weight=1.0, cloned_policy=cloned_policy, anchor_form="doubt")
    assert held.anchor is not None
    with pytest.raises(ValueError, match="unknown anchor_form 'hope'"):
        steering.learner(SimulatorSAC, anchor_form="hope")


def test_critics_that_promise_what_cannot_be_earned_have_diverged(steering: Any) -> None:
    module = steering.learner(SimulatorSAC, batch_size=8)
    largest = max(map(abs, module.value_range))
    module.refuse_divergence({"value": torch.tensor(-10.0 * largest)})  # as a penalty may have it
    with pytest.raises(Diverged, match=r"the critics expect .* rewards add up to .* after 0 updates"):
        module.refuse_divergence({"value": torch.tensor(-1000.0 * largest)})


@pytest.mark.parametrize("method", [SimulatorSAC, SimulatorTD3, SimulatorPPO])
def test_what_comes_out_is_averaged_with_the_cloned_policy(steering: Any, cloned_policy: str, method: type) -> None:
    settings = {} if method is SimulatorPPO else {"batch_size": 8}
    cloned, observation = Policy.load(cloned_policy), torch.randn(9, 1)
    for join in (0.0, None):
        module = steering.learner(method, cloned_policy=cloned_policy, join_cloned=join, **settings)
        module.averaged_policy.network[-1].bias.data.add_(0.7)  # as if it had learned something
        ours, theirs = module.averaged_policy(observation)[0], cloned(observation)[0]
        expected = ours if join is None else 0.5 * (ours + theirs)
        torch.testing.assert_close(module.finished_policy(None)(observation)[0], expected)
        assert not any("_cloned" in name for name in module.state_dict())
    assert steering.learner(method, **settings).finished_policy(None).members == 1  # nothing to join


@pytest.mark.parametrize(("share", "learned", "cloned", "members"), [
    (0.5, 0.0, 0.0, 2),  # both stay where they are
    (0.5, 0.0, 9.0, 1),  # one leaves the interval where there is anything to earn
    (0.5, 9.0, 0.0, 2),
    (1.0, 9.0, 9.0, 2),
    (1.0, 0.0, 0.3, 1),  # one drifts away
    (0.0, 0.0, 0.3, 2),
])  # fmt: skip
def test_a_cloned_policy_that_fails_in_the_simulator_is_left_out(
    steering: Any, cloned_policy: str, share: float, learned: float, cloned: float, members: int
) -> None:
    settings = {"batch_size": 8, "validation_episodes": 8, "validation_horizon": 5}
    module = steering.learner(SimulatorSAC, cloned_policy=cloned_policy, join_cloned=share, **settings)
    for policy, push in ((module.averaged_policy, learned), (module._cloned[0], cloned)):
        policy.network[-1].weight.data.zero_()
        policy.network[-1].bias.data.zero_()[0] = push
    module.updates = 1
    assert module.finished_policy(None).members == members


def test_it_is_judged_again_after_more_updates(steering: Any, cloned_policy: str) -> None:
    module = steering.learner(SimulatorSAC, cloned_policy=cloned_policy, batch_size=8, validation_horizon=5)
    for updates, push, members in ((0, 9.0, 2), (1, 9.0, 1), (1, 0.0, 1), (2, 0.0, 2)):
        module.updates = updates
        for policy, value in ((module.averaged_policy, 0.0), (module._cloned[0], push)):
            policy.network[-1].weight.data.zero_()
            policy.network[-1].bias.data.zero_()[0] = value
        assert module.finished_policy(None).members == members
