"""Cloning of diverse data as far as it leads to learned reward."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from datamodules.errors import DataError
from datamodules.statistics import measure
from lit_modules.better_start import weighted_is_better
from lit_modules.weighted_cloning import WeightedCloning
from zoo import Simulator


class Kept:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.values |= values

    def save(self) -> None:
        """Nothing is written."""


def of_two_habits(steering: Any, good_rows: int = 200, bad_rows: int = 1800) -> TensorDict:
    """Episodes of 20 steps: most go where nothing is earned, some stay in the middle, where rewards are highest."""
    table = steering.table(good_rows + bad_rows)
    row = torch.arange(len(table))
    table["episode"], table["step"] = row // 20, row % 20
    good = (row < good_rows).unsqueeze(1)
    best = (-table["observation"] / 0.5).clamp(-1.0, 1.0)
    table["action"] = torch.where(good, best, torch.sign(table["observation"]) * 0.9)
    table["next", "observation"] = table["observation"] + 0.5 * table["action"]
    return table


def cloning(steering: Any, **settings: Any) -> tuple[WeightedCloning, Any]:
    """A module set up with one demonstrated state and diverse data of two habits."""
    torch.manual_seed(0)
    expert, diverse = steering.episode(50), of_two_habits(steering)
    expert["observation"].mul_(0.0), expert["action"].mul_(0.0)
    sizes: dict[str, Any] = {"hidden_sizes": (32,), "members": 2, "learning_rate": 1e-2, "diverse_rows": 48}
    module: Any = WeightedCloning(1, [-1.0], [1.0], str(steering.path), **{**sizes, **settings})
    data = SimpleNamespace(
        expert_train=expert,
        diverse_train=diverse,
        expert_statistics=measure(expert),
        statistics=measure(expert, diverse),
        streams={"expert": 16},
    )
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module._trainer = SimpleNamespace(datamodule=data, strategy=strategy, global_rank=0, loggers=[Kept()])
    module.setup("fit")
    optimizers = [SimpleNamespace(optimizer=module.configure_optimizers())]
    module.optimizers = lambda: optimizers
    module.manual_backward = lambda loss, **given: loss.backward(**given)
    return module, data


def test_rows_are_drawn_as_they_lead_to_reward(steering: Any) -> None:
    module, _ = cloning(steering)
    observation, action = module.draw(100)
    assert observation.shape == action.shape == (100, 48, 1)
    best = (-observation / 0.5).clamp(-1.0, 1.0)
    assert float(((action - best).abs() < 1e-6).float().mean()) > 0.9  # a tenth of the rows
    even, _ = cloning(steering, effective_share=1.0)
    observation, action = even.draw(100)
    assert float(((action + observation / 0.5).abs() < 1e-6).float().mean()) < 0.2


def test_what_is_learned_does_where_nothing_was_demonstrated_what_pays(steering: Any) -> None:
    distances = {}
    for share in (0.1, 1.0):
        module, data = cloning(steering, effective_share=share)
        rows = TensorDict(
            {name: data.expert_train[name][:16].expand(200, 16, 1) for name in ("observation", "action")},
            batch_size=[200, 16],
        )
        logged = module.run(module.converse({"expert": rows}))
        assert module.updates == 200 and bool(torch.isfinite(logged["loss"]))
        distances[share] = steering.distance_from_best(module)
    assert distances[0.1] < 0.2 < 0.6 < distances[1.0]


def test_observations_are_on_the_scale_of_what_is_cloned(steering: Any) -> None:
    module, data = cloning(steering, own_scale=1.0, narrowest=0.0)
    drawn = module.draw(400)[0].flatten()
    cloned = torch.cat([data.expert_train["observation"].flatten()[:1].expand(400 * 16), drawn])
    assert float(module.policy.normalizer.mean) == pytest.approx(float(cloned.mean()), abs=0.02)
    assert float(module.policy.normalizer.std) == pytest.approx(float(cloned.std()), rel=0.03)


def test_what_cannot_be_weighted_is_refused(steering: Any) -> None:
    path = str(steering.path)
    for settings, message in (
        ({"rows": "all"}, "rows is 'all'"),
        ({"effective_share": 0.0}, "no row would count"),
        ({"effective_share": 1.5}, "effective_share is 1.5"),
        ({"discount": 1.0}, "discount is 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            WeightedCloning(1, [-1.0], [1.0], path, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lower action bounds"):
        WeightedCloning(1, [-2.0], [1.0], path)
    module, data = cloning(steering)
    data.diverse_train = None
    with pytest.raises(DataError, match="weighted cloning is of diverse data"):
        module.setup("fit")
    untrained = Simulator.load(steering.path)
    untrained.reward_learned = False
    untrained.save(steering.path)
    with pytest.raises(ValueError, match="was never trained"):
        WeightedCloning(1, [-1.0], [1.0], path)


@pytest.mark.parametrize(
    ("cloned", "weighted", "below", "taken"),
    [
        (95.0, 90.0, 0.9, False),  # the cloned one does well
        (85.0, 90.0, 0.9, True),
        (80.0, 33.0, 0.9, True),
        (80.0, 31.0, 0.9, False),  # it stays, as the weighted one earns little
        (-20.0, 1.0, 0.9, True),
        (-20.0, -5.0, 0.9, False),  # nothing to learn from
        (85.0, 90.0, 0.8, False),
        (95.0, -20.0, None, True),
        (math.nan, 90.0, 0.9, True),
        (85.0, math.nan, 0.9, False),
    ],
)
def test_a_policy_starts_from_the_weighted_one_where_the_cloned_one_fails_and_it_earns_something(
    cloned: float, weighted: float, below: float | None, taken: bool
) -> None:
    figures = {"cloned_return": cloned, "weighted_return": weighted}
    assert weighted_is_better(figures, 100.0, below, 0.4) is taken


def test_what_comes_out_is_the_better_start_and_which_is_logged(steering: Any, cloned_policy: str) -> None:
    for below, at_least, weighted in ((1e3, 1e3, False), (1e3, 0.0, True), (None, 1e3, True)):
        settings = {"start_below": below, "return_at_least": at_least}
        module, data = cloning(steering, cloned_policy=cloned_policy, **settings)
        assert module.export(data) is module.policy  # before there was any training
        module.updates = 1
        start = module.export(data)
        assert (start is module.policy) is weighted
        logged = module.trainer.loggers[0].values
        assert logged["start/weighted"] == float(weighted) and logged["start/demonstrated"] > 0.0
        # Nothing ends early in this Simulator
        assert logged["start/cloned_length"] == logged["start/weighted_length"] == 1000.0
