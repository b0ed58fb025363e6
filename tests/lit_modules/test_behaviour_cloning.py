"""Behaviour cloning: on which scale the policy sees observations."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

from datamodules.statistics import measure
from lit_modules.behaviour_cloning import BehaviourCloning


def table(mean: list[float], deviation: list[float]) -> TensorDict:
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(2000, 3, generator=generator) * torch.tensor(deviation) + torch.tensor(mean)
    return TensorDict(
        {"observation": observation, "action": torch.zeros(2000, 1), "next": {"observation": observation}},
        batch_size=[2000],
    )


def cloning(**settings: object) -> BehaviourCloning:
    """A module set up with demonstrations that are narrow, very narrow and wide beside the other data."""
    expert, other = table([5.0, 0.0, 0.0], [0.3, 1e-4, 4.0]), table([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    module = BehaviourCloning(3, [-1.0], [1.0], (8,), **settings)  # type: ignore[arg-type]
    data = SimpleNamespace(
        expert_statistics=measure(expert), statistics=measure(expert, other), streams={"expert": 8, "all": 8}
    )
    module._trainer = SimpleNamespace(datamodule=data)
    module.setup("fit")
    return module


EVERYTHING = [(0.5 * (0.09 + 1.0) + 6.25) ** 0.5, 0.5**0.5, (0.5 * (16.0 + 1.0)) ** 0.5]  # deviations in all data


def test_observations_are_standardised_as_the_demonstrations_as_all_data_or_between() -> None:
    own = [0.3, 1e-4, 4.0]
    for share in (0.0, 0.5, 1.0):
        normalizer = cloning(own_scale=share, narrowest=0.0).policy.normalizer
        wanted = [a**share * b ** (1.0 - share) for a, b in zip(own, EVERYTHING, strict=True)]
        assert normalizer.std.tolist() == pytest.approx(wanted, rel=0.05)
        assert normalizer.mean.tolist() == pytest.approx([5.0, 0.0, 0.0], abs=0.2)


def test_features_that_do_not_vary_in_the_demonstrations_keep_a_share_of_their_deviation_in_all_data() -> None:
    normalizer = cloning(own_scale=1.0, narrowest=0.1).policy.normalizer
    assert normalizer.std.tolist() == pytest.approx([0.3, 0.1 * EVERYTHING[1], 4.0], rel=0.05)


def test_everything_recorded_is_cloned_on_its_own_scale() -> None:
    normalizer = cloning(rows="all").policy.normalizer
    assert float(normalizer.mean[0]) == pytest.approx(2.5, abs=0.1)
    assert float(normalizer.std[0]) == pytest.approx(EVERYTHING[0], rel=0.05)


@pytest.mark.parametrize("form", ["mse", "log_likelihood"])
def test_members_are_cloned_each_on_its_own(form: str) -> None:
    torch.manual_seed(0)
    module = BehaviourCloning(3, [-1.0], [1.0], (8,), members=3, form=form)
    observation, action = torch.randn(20, 3), 0.9 * torch.rand(20, 1)
    loss, _ = module.objective(observation, action)
    loss.backward()
    layers = module.policy.network.layers
    for member in range(3):
        alone = BehaviourCloning(3, [-1.0], [1.0], (8,), members=1, form=form)
        for single, layer in zip(alone.policy.network[::2], layers, strict=True):
            single.weight.data, single.bias.data = layer.weight[member].T.clone(), layer.bias[member, 0].clone()
        alone.objective(observation, action)[0].backward()
        for single, layer in zip(alone.policy.network[::2], layers, strict=True):
            torch.testing.assert_close(single.weight.grad.T / 3, layer.weight.grad[member])
