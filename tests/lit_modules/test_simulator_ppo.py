"""PPO in the Simulator: its roll-outs, what an update is, what is saved, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lit_modules.ppo_loss import advantages
from lit_modules.seeds import SeedBatch
from lit_modules.simulator_ppo import SimulatorPPO
from zoo.policy import Policy
from zoo.termination import TerminationModel

LEARNING = {
    "epochs": 4,
    "minibatches": 8,
    "batch_size": 50,
    "actor_learning_rate": 3e-3,
    "critic_learning_rate": 3e-3,
    "reward_scale": 1.0,
}
SMALL = {"horizon": 6, "starts": 20, "epochs": 2, "minibatches": 3, "batch_size": 40}


class EndsAbove(TerminationModel):
    """Terminal where the first feature exceeds a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, next_observation: torch.Tensor) -> torch.Tensor:
        return next_observation[..., 0] > self.threshold


def rolled_out(module: Any) -> dict[str, torch.Tensor]:
    return module.run(module.roll_out())


def test_new_roll_outs_come_after_all_epochs_over_the_last(steering: Any) -> None:
    module = steering.learner(SimulatorPPO, **SMALL)
    tables = []
    for _ in range(13):
        steering.train(module, 1)
        tables.append(module.table["observation"])
    fresh = [index for index in range(1, 13) if tables[index] is not tables[index - 1]]
    assert fresh == [6, 12] and module.updates == 13


def test_each_epoch_holds_every_step_that_happened_once(steering: Any) -> None:
    module = steering.learner(SimulatorPPO, **SMALL)
    module.simulator.termination = EndsAbove(0.5)
    logged = rolled_out(module)
    rows, counts = module.hands
    assert rows.shape == (6, 40)
    happened = round(float(logged["rollout/mean_length"]) * 20)
    assert 20 < happened < 120 and 0.0 < float(logged["rollout/ended"]) < 1.0
    for epoch in (slice(0, 3), slice(3, 6)):
        dealt = rows[epoch][counts[epoch]]
        assert len(set(dealt.tolist())) == len(dealt) == happened


@pytest.mark.parametrize("untrusted", [True, False])
def test_ends_are_worth_the_end_value_and_the_horizon_is_not_an_end(steering: Any, untrusted: bool) -> None:
    """Whether terminal or cut: the lowest value that there is, as for the other learners."""
    module = steering.learner(SimulatorPPO, **{**SMALL, "horizon": 2, "reward_scale": 0.5})
    if untrusted:
        module.cut.fill_(-1.0)
    else:
        module.simulator.termination = EndsAbove(-torch.inf)
    rolled_out(module)
    first = slice(0, 20)
    state = module.table["observation"][first]
    paid = 0.5 * (1.0 - (state + 0.5 * torch.tanh(module.table["raw"][first])).abs().squeeze(-1))
    wanted = paid + 0.9 * module.end_value
    assert float(module.end_value) == pytest.approx(0.5 * -1.0 / (1 - 0.9))
    torch.testing.assert_close(module.table["value_target"][first], wanted, atol=2e-3, rtol=1e-3)
    assert not bool(module.table["value_target"][20:].any())  # nothing happens after an end

    module = steering.learner(SimulatorPPO, **{**SMALL, "horizon": 2})
    columns, alive = module.simulate(*module.draw_roll_outs())
    assessed = module.assess(columns, torch.zeros(2, 20, 1))
    _, target = advantages(assessed["reward"], assessed["values"], columns["ended"], alive, 0.9, 0.95)
    beyond = module.loss.bounded_value(columns["next_observation"][-1])
    torch.testing.assert_close(target[-1], assessed["reward"][-1] + 0.9 * beyond)


def test_a_penalty_for_uncertainty_lowers_what_is_paid(steering: Any) -> None:
    module = steering.learner(SimulatorPPO, **SMALL)
    penalised = steering.learner(SimulatorPPO, **SMALL, uncertainty_weight=2.0)
    columns, _ = module.simulate(*module.draw_roll_outs())
    noise = torch.zeros(6, 20, 1)
    difference = module.assess(columns, noise)["reward"] - penalised.assess(columns, noise)["reward"]
    expected = 0.1 * 2.0 * columns["uncertainty"] / module.uncertainty_unit
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=1e-4)


def test_the_first_update_finds_the_policy_that_rolled_out(steering: Any) -> None:
    module = steering.learner(SimulatorPPO, **SMALL, actor_learning_rate=1e-2)
    logged = steering.train(module, 1)
    assert float(logged["kl_approx"]) == pytest.approx(0.0, abs=1e-5) and float(logged["clip_fraction"]) == 0.0
    later = steering.train(module, 4)
    assert abs(float(later["kl_approx"])) > 1e-4


@pytest.mark.parametrize(("target_kl", "batches"), [(None, 1), (1e9, 1), (0.01, 3)])
def test_too_large_a_divergence_brings_new_roll_outs_early(
    steering: Any, target_kl: float | None, batches: int
) -> None:
    """The second update on each batch of roll-outs sees what the first has done, and is the last."""
    module = steering.learner(SimulatorPPO, **SMALL, actor_learning_rate=0.1, target_kl=target_kl)
    tables = []  # all kept, so that none takes the place of another in memory
    for _ in range(6):
        steering.train(module, 1)
        tables.append(module.table)
    assert module.updates == 6 and len({id(table) for table in tables}) == batches


def test_seeds_that_would_part_are_refused_before_they_start(steering: Any) -> None:
    with pytest.raises(ValueError, match="set it to null"):
        SeedBatch([steering.learner(SimulatorPPO, **SMALL, target_kl=0.01) for _ in range(2)])
    SeedBatch([steering.learner(SimulatorPPO, **SMALL) for _ in range(2)])


def test_regulariser_and_entropy_are_added_to_the_loss(steering: Any) -> None:
    module = steering.learner(SimulatorPPO, **SMALL, cloning_weight=3.0, entropy_weight=0.5)
    rolled_out(module)
    expert = steering.table(4)
    rows, counts = module.hands[0][0], module.hands[1][0]
    inputs = {name: column[rows] for name, column in module.table.items()}
    inputs |= {"expert_observation": expert["observation"], "expert_action": expert["action"]}
    total, logged = module.objective(inputs, counts, torch.zeros(len(rows), 1))
    cloning = (module.policy.mean_action(expert["observation"]) - expert["action"]).square().mean()
    torch.testing.assert_close(logged["cloning"], cloning.detach())
    expected = logged["loss_objective"] + logged["loss_critic"] - 0.5 * logged["entropy"] + 3.0 * cloning
    torch.testing.assert_close(total, expected)


def test_the_deviation_to_start_from_can_be_chosen(steering: Any, tmp_path: Any) -> None:
    cloned = Policy(1, [-1.0], [1.0], (8,))
    cloned.save(tmp_path / "cloned.safetensors")
    settings = {**SMALL, "cloned_policy": str(tmp_path / "cloned.safetensors")}
    kept, chosen = (steering.learner(SimulatorPPO, **settings, deviation=each) for each in (None, 0.05))
    observation = steering.states(10)
    assert torch.equal(kept.policy(observation)[1], cloned(observation)[1])
    torch.testing.assert_close(chosen.policy(observation)[1], torch.full((10, 1), 0.05))
    assert torch.equal(chosen.policy.act(observation), cloned.act(observation))


def test_it_learns_to_steer(steering: Any) -> None:
    module = steering.learner(SimulatorPPO, **LEARNING, horizon=5, starts=80)
    before = steering.distance_from_best(module)
    steering.train(module, 480)
    after = steering.distance_from_best(module)
    assert before > 0.5 and after < 0.3


def test_it_learns_to_avoid_ends(steering: Any) -> None:
    """The best reward lies beyond a border where everything ends: what would be best without it is not done."""
    module = steering.learner(SimulatorPPO, **LEARNING, horizon=5, starts=80)
    module.simulator.termination = EndsAbove(-0.2)
    steering.train(module, 320)
    observation = torch.linspace(-1.0, -0.4, 61).unsqueeze(-1)
    following = observation + 0.5 * module.policy.act(observation)
    assert float((following > -0.2).float().mean()) < 0.1


def test_a_resumed_training_equals_an_uninterrupted_one(steering: Any, saved_checkpoint: Any) -> None:
    """Stopped in the middle of a batch of roll-outs."""
    batch = {name: steering.table(15, 8) for name in ("expert", "all")}
    whole, resumed = steering.train_interrupted(SimulatorPPO, batch, 8, saved_checkpoint, **SMALL)
    assert resumed.updates == whole.updates == 15
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_demonstrations_are_the_only_stream_it_needs(steering: Any) -> None:
    module = steering.learner(SimulatorPPO, **SMALL)
    module.run(module.converse({"expert": steering.table(3, 8)}))
    assert module.updates == 3 and SimulatorPPO.streams == ("expert",)
