"""How firmly a learner is held to the policy it was cloned from."""

from __future__ import annotations

import math
import re
import warnings
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tensordict import TensorDict

from lit_modules.hold import demonstrated_return, hold_of
from lit_modules.offline_ml_irl import OfflineMLIRL
from lit_modules.simulator_ppo import SimulatorPPO
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.simulator_td3 import SimulatorTD3
from zoo import Policy, Simulator


class Counting:
    """A reward that is the action."""

    low = torch.tensor(0.0)

    def __call__(self, observation: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return action.squeeze(-1)


def demonstrations() -> TensorDict:
    """Two episodes, of 8 steps, of which every second is there, and of 2 and an end; rewards of 1 and of 4."""
    action = torch.tensor([1.0, 1.0, 1.0, 1.0, 4.0, 4.0]).unsqueeze(-1)
    return TensorDict(
        {
            "observation": torch.zeros(6, 1),
            "action": action,
            "next": {"observation": torch.zeros(6, 1), "terminated": torch.tensor([[False]] * 5 + [[True]])},
            "episode": torch.tensor([3, 3, 3, 3, 7, 7]),
            "step": torch.tensor([0, 2, 4, 7, 0, 1]),
        },
        batch_size=[6],
    )


@pytest.mark.parametrize(("horizon", "length"), [(100, 5.0), (4, 3.0)])
def test_demonstrations_return_what_their_mean_step_pays_times_their_steps(horizon: int, length: float) -> None:
    assert demonstrated_return(None, demonstrations(), horizon) == length
    counting: Any = Counting()
    assert demonstrated_return(counting, demonstrations(), horizon) == length * 2.0
    assert demonstrated_return(counting, demonstrations(), horizon, end_worth=-1.0) == length * 3.0


def test_a_recording_that_stops_is_no_end() -> None:
    table, counting = demonstrations(), cast(Any, Counting())
    table["next", "terminated"].zero_()  # the second was cut off: it would have gone on
    assert demonstrated_return(None, table, 100) == (8.0 + 100.0) / 2
    assert demonstrated_return(counting, table, 100) == (8.0 + 100.0) / 2 * 2.0
    assert demonstrated_return(None, table[4:], 100) == 100.0


@pytest.mark.parametrize(("earned", "demonstrated", "below", "expected"), [
    (79.0, 100.0, 0.8, 0.01),
    (80.0, 100.0, 0.8, 1.0),
    (0.0, 100.0, None, 1.0),  # never asked for
    (math.nan, 100.0, 0.8, 0.01),
    (-9.0, -3.0, 0.8, 1.0),  # a share of nothing says nothing
])  # fmt: skip
def test_a_cloned_policy_is_held_to_where_it_does_not_fail(
    earned: float, demonstrated: float, below: float | None, expected: float
) -> None:
    assert hold_of(earned, demonstrated, below, 0.01) == expected


def steered(policy: Policy, push: float) -> None:
    """Actions near ``tanh(push)`` everywhere: 0 stays in the middle, where rewards are highest, 9 leaves it."""
    policy.network[-1].weight.data.zero_()
    policy.network[-1].bias.data.zero_()[0] = push


def held_learner(steering: Any, cloned_policy: str, push: float, method: type = SimulatorSAC, **settings: Any) -> Any:
    sizes = {} if method is SimulatorPPO else {"batch_size": 8, "anchor_weight": 2.0, "anchor_form": "doubt"}
    settings = {"cloning_weight": 3.0, "loosen_below": 0.8, "loosened_hold": 0.25, "judged_episodes": 4, **settings}
    module = steering.learner(method, cloned_policy=cloned_policy, validation_horizon=5, **sizes, **settings)
    steered(module._cloned[0], push)
    for name in ("observation", "action"):
        module.trainer.datamodule.expert_train[name].zero_()  # demonstrations that stay in the middle
    module.trainer.datamodule.expert_train["next", "observation"].zero_()
    return module


@pytest.mark.parametrize("method", [SimulatorSAC, SimulatorTD3, SimulatorPPO])
def test_a_learner_lets_go_of_a_cloned_policy_that_fails_in_the_simulator(
    steering: Any, cloned_policy: str, method: type
) -> None:
    module = held_learner(steering, cloned_policy, 9.0, method)
    with pytest.warns(UserWarning, match=r"less than 0\.8 \(loosen_below\): the policy is held to it by 0\.25"):
        logged = module.judge_cloned()
    assert module.loosened
    assert float(module.hold) == 0.25
    assert float(logged["cloned/demonstrated"]) == pytest.approx(10.0)  # five steps of 1, where ending is worth -1
    assert float(logged["cloned/earned"]) < 5.0
    assert module.judge_cloned() == {}  # once is enough
    total, _ = module.add_cloning(torch.zeros(()), {}, torch.tensor(1.0))
    assert float(total) == pytest.approx(0.25 * 3.0)


@pytest.mark.parametrize(("earned", "said"), [(7.99996, "0.799"), (-2.0, "-0.200"), (math.nan, "nan")])
def test_a_share_that_is_too_low_does_not_read_as_enough(
    steering: Any, cloned_policy: str, earned: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = held_learner(steering, cloned_policy, 0.0)  # demonstrations have 10
    monkeypatch.setattr(module, "returns_in", lambda *_, **__: [{"earned": earned}])
    with pytest.warns(UserWarning, match=rf"has {re.escape(said)} of what the demonstrations have .*, less than 0\.8 "):
        module.judge_cloned()


def test_and_holds_on_to_one_that_does_not(steering: Any, cloned_policy: str) -> None:
    module = held_learner(steering, cloned_policy, 0.0, loosen_below=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.judge_cloned()
    assert not module.loosened


@pytest.mark.parametrize(
    ("settings", "second", "diverse", "loosened"),
    [
        ({}, -1.0, True, True),
        ({}, 1.0001, True, False),  # demonstrations that repeat one another
        ({}, -1.0, False, False),  # there are no others
        ({"decay_updates": 99}, -1.0, True, False),  # too few updates
        ({"decay_updates": 100}, -1.0, True, True),
        ({"let_go": "failing"}, -1.0, True, False),
        ({"let_go": "always", "decay_updates": 99}, 1.0001, False, True),
    ],
)
def test_one_that_does_well_is_let_go_of_where_data_shows_what_is_beside_the_demonstrations(
    steering: Any, cloned_policy: str, settings: dict[str, Any], second: float, diverse: bool, loosened: bool
) -> None:
    known = {"let_go": "known", "let_go_updates": 100}
    module = held_learner(steering, cloned_policy, 0.0, loosen_below=0.2, **{**known, **settings})
    data = module.trainer.datamodule
    data.diverse_train = data.diverse_train if diverse else None
    row = torch.arange(len(data.expert_train))
    data.expert_train["episode"] = row % 2
    data.expert_train["observation"][:, 0] = 0.01 * (row // 2) * torch.where(row % 2 == 1, second, 1.0)
    data.statistics = SimpleNamespace(observation_std=data.expert_train["observation"].std(dim=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it does not fail
        module.judge_cloned()
    assert module.loosened is loosened
    assert float(module.hold) == (0.25 if loosened else 1.0)


def test_by_lengths_alone_none_that_does_well_is_let_go_of(steering: Any, cloned_policy: str) -> None:
    module = held_learner(steering, cloned_policy, 0.0, OfflineMLIRL, let_go="known")
    module.judge_cloned()
    assert not module.loosened


def test_letting_go_that_contradicts_itself_is_refused(steering: Any, cloned_policy: str) -> None:
    with pytest.raises(ValueError, match="unknown let_go 'yes': choose failing, known, always"):
        held_learner(steering, cloned_policy, 0.0, let_go="yes")
    with pytest.raises(ValueError, match="let_go is always, and loosen_below null"):
        held_learner(steering, cloned_policy, 0.0, let_go="always", loosen_below=None)


def test_it_is_not_asked_without_a_cloned_policy_or_a_share(steering: Any, cloned_policy: str) -> None:
    for settings in ({"cloned_policy": None}, {"cloned_policy": cloned_policy, "loosen_below": None}):
        module = steering.learner(SimulatorSAC, batch_size=8, **settings)
        assert module.judge_cloned() == {}
        assert not module.loosened


def test_a_reward_yet_to_be_learned_says_nothing_and_lengths_are_compared(steering: Any, cloned_policy: str) -> None:
    module = held_learner(steering, cloned_policy, 9.0, OfflineMLIRL)
    assert float(module.judge_cloned()["cloned/earned"]) == 5.0  # nothing ends a point's episode
    assert not module.loosened


def test_a_loosened_learner_takes_the_simulator_as_it_is(steering: Any, cloned_policy: str) -> None:
    module = held_learner(steering, cloned_policy, 9.0, push_share=1.0, push_steps=2, candidates=2)
    _, noise, members, steps = module.draw_roll_outs(2)
    assert float(noise.abs().max()) >= 1e3
    assert not torch.equal(steps[:, 0], steps[:, 1])
    with pytest.warns(UserWarning, match="loosen_below"):
        module.judge_cloned()
    _, noise, members, steps = module.draw_roll_outs(2)
    assert float(noise.abs().max()) < 1e3
    assert members.shape[1] == steps.shape[1] == 2  # shapes do not tell seeds apart
    assert torch.equal(members[:, 0], members[:, 1])
    assert torch.equal(steps[:, 0], steps[:, 1])


@pytest.mark.parametrize(("cloned", "members"), [(0.0, 2), (9.0, 1)])
def test_a_loosened_policy_is_joined_only_if_that_returns_more(
    steering: Any, cloned_policy: str, cloned: float, members: int
) -> None:
    module = held_learner(steering, cloned_policy, 9.0, join_cloned=0.0)
    with pytest.warns(UserWarning, match="loosen_below"):
        module.judge_cloned()
    steered(module.averaged_policy, 0.5)
    steered(module._cloned[0], cloned)
    module.updates = 1
    assert module.finished_policy(None).members == members


def test_a_resumed_learner_is_held_as_before(steering: Any, cloned_policy: str, saved_checkpoint: Any) -> None:
    module, resumed = (held_learner(steering, cloned_policy, push) for push in (9.0, 0.0))
    with pytest.warns(UserWarning, match="loosen_below"):
        steering.train(module, 1)
    resumed.on_load_checkpoint(saved_checkpoint(module))
    assert resumed.judge_cloned() == {}
    assert float(resumed.hold) == 0.25


@pytest.mark.parametrize("method", [SimulatorSAC, SimulatorTD3, SimulatorPPO, OfflineMLIRL])
def test_a_checkpoint_of_another_device_can_be_loaded_to_be_looked_at(
    steering: Any, saved_checkpoint: Any, method: type
) -> None:
    module, other = (steering.learner(method) for _ in range(2))
    steering.train(module, 1)
    checkpoint = saved_checkpoint(module)
    streams = checkpoint["ranks"][0]["streams"]
    streams.update({name: torch.zeros(16, dtype=torch.uint8) for name in streams})  # as CUDA's are
    with pytest.raises(ValueError, match="another kind of device"):
        other.on_load_checkpoint(checkpoint)
    other._trainer = None
    other.on_load_checkpoint(checkpoint)


def test_a_checkpoint_of_before_there_was_a_judgement_goes_on_held(
    steering: Any, cloned_policy: str, saved_checkpoint: Any
) -> None:
    module, resumed = (held_learner(steering, cloned_policy, push, loosen_below=0.2) for push in (0.0, 9.0))
    steering.train(module, 1)
    checkpoint = saved_checkpoint(module)
    del checkpoint["hold"]
    resumed.on_load_checkpoint(checkpoint)
    assert resumed.judge_cloned() == {}
    assert float(resumed.hold) == 1.0


@pytest.mark.parametrize("method", [SimulatorSAC, SimulatorPPO])
def test_one_member_may_move_a_whole_roll_out(steering: Any, method: type) -> None:
    drawn = {}
    for aggregation in (None, "random_member", "fixed_member"):
        _, _, members, _ = steering.learner(method, aggregation=aggregation).draw_roll_outs()
        assert len(members.unique()) == 2
        drawn[aggregation] = bool((members == members[0]).all())
        _, _, of_candidates, _ = steering.learner(method, aggregation=aggregation).draw_roll_outs(3)
        assert bool((of_candidates == of_candidates[:1, :1]).all()) == drawn[aggregation]
        assert of_candidates.shape == (len(members), 3, members.shape[1])
    assert drawn == {None: False, "random_member": False, "fixed_member": True}
    with pytest.raises(ValueError, match="unknown aggregation 'mean': choose random_member or fixed_member, or null"):
        steering.learner(method, aggregation="mean")


def test_no_member_moves_roll_outs_of_a_simulator_that_averages_them(steering: Any) -> None:
    simulator = Simulator.load(steering.path)
    simulator.aggregation = "mean"
    simulator.save(steering.path)
    steering.learner(SimulatorSAC)
    with pytest.raises(ValueError, match="moved by the mean of its members, so no single one can move roll-outs"):
        steering.learner(SimulatorSAC, aggregation="fixed_member")
