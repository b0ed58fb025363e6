"""Episodes as rows: the same in the Simulator and in the real task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.rollouts import concatenate, on_tensors, recorded, roll_out, roll_outs
from lit_modules.simulator_returns import simulator_returns
from zoo import Policy, Simulator
from zoo.episodes import Episode, policy_actions
from zoo.termination import TerminationModel


class EndsAbove(TerminationModel):
    """Terminal where the first feature exceeds a threshold."""

    def forward(self, next_observation: torch.Tensor) -> torch.Tensor:
        return next_observation[..., 0] > 1.0


def make_policy() -> Policy:
    torch.manual_seed(1)
    return Policy(11, [-1.0] * 3, [1.0] * 3, (8,)).eval()


def count(observation: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """A reward of one per step."""
    return torch.ones(observation.shape[:-1])


def test_figures_are_those_of_validation(simulator: Simulator) -> None:
    simulator.termination = EndsAbove()
    policy = make_policy()
    rolled = roll_out(simulator, policy.act, 8, 60, seed=4)
    (expected,) = simulator_returns(simulator, [policy], 8, 60, torch.Generator().manual_seed(4))
    lengths = rolled.lengths.float()
    assert 1.0 < float(lengths.mean()) < 60.0
    assert float(lengths.mean()) == expected["length"]
    torch.testing.assert_close(float(rolled.returns(simulator.reward).mean()), expected["return"], rtol=1e-5, atol=1e-5)
    assert rolled.uncertainty is not None
    doubt = float(((rolled.uncertainty * rolled.running).sum(dim=0) / lengths).mean())
    torch.testing.assert_close(doubt, expected["uncertainty"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("aggregation", ["random_member", "fixed_member", "mean"])
def test_policies_rolled_out_together_are_those_rolled_out_alone(simulator: Simulator, aggregation: str) -> None:
    simulator.termination, simulator.aggregation = EndsAbove(), aggregation
    policies = [make_policy(), make_policy()]
    torch.nn.init.normal_(next(policies[1].parameters()))
    together = roll_outs(simulator, [policy.act for policy in policies], 8, 20, seed=4)
    for policy, ours in zip(policies, together, strict=True):
        alone = roll_out(simulator, policy.act, 8, 20, seed=4)
        assert torch.equal(ours.lengths, alone.lengths)
        torch.testing.assert_close(ours.visited()["action"], alone.visited()["action"])
        torch.testing.assert_close(ours.returns(simulator.reward), alone.returns(simulator.reward))
        assert ours.uncertainty is not None and alone.uncertainty is not None
        shared = slice(len(alone.running))
        torch.testing.assert_close(ours.uncertainty[shared][alone.running], alone.uncertainty[alone.running])
    assert not torch.equal(*(rolled.rows["action"][0] for rolled in together))


def test_nothing_counts_after_an_end(simulator: Simulator) -> None:
    simulator.termination = EndsAbove()
    rolled = roll_out(simulator, make_policy().act, 8, 60)
    assert torch.equal(rolled.returns(count), rolled.lengths.float())
    assert torch.equal(rolled.returns(count, 5), rolled.lengths.clamp(max=5).float())
    visited = rolled.visited()
    assert len(visited) == int(rolled.lengths.sum())
    assert int((visited["next", "observation"][:, 0] > 1.0).sum()) == int((rolled.lengths < 60).sum())
    assert not bool((rolled.rows["observation"][1:][rolled.running[1:]][:, 0] > 1.0).any())


def test_real_episodes_take_the_same_form() -> None:
    episodes = [
        Episode(
            observations=np.arange((steps + 1) * 2, dtype=np.float32).reshape(-1, 2),
            actions=np.full((steps, 1), float(steps), dtype=np.float32),
            rewards=np.zeros(steps),
            terminated=True,
            truncated=False,
        )
        for steps in (3, 1)
    ]
    rolled = recorded(episodes)
    assert rolled.lengths.tolist() == [3, 1]
    assert rolled.returns(count, 2).tolist() == [2.0, 1.0]
    visited = rolled.visited()
    assert visited["action"].squeeze(-1).tolist() == [3.0, 1.0, 3.0, 3.0]
    assert visited["observation"].tolist() == [[0.0, 1.0], [0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    torch.testing.assert_close(visited["next", "observation"], visited["observation"] + 2.0)
    assert len(concatenate([visited, visited[:2]])) == 6


def test_action_functions_of_either_kind_agree(simulator: Simulator) -> None:
    policy = make_policy()
    ours, theirs = (roll_out(simulator, act, 5, 10) for act in (policy.act, on_tensors(policy_actions(policy))))
    torch.testing.assert_close(ours.rows["observation"], theirs.rows["observation"], rtol=1e-4, atol=1e-4)
