"""Who picks the actions in the roll-outs of the simulator stage.

OffSim's paper does not say; each proposal here is one possible answer, and a mixture of them is the default.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from zoo.policy import Policy

NAMES = ("dataset", "cloning", "cloning_noise", "uniform")


class ActionProposal:
    """A named mixture of ways to act; every roll-out keeps the way it was dealt at its start.

    - ``dataset``: the actions recorded after the start state, for as long as its episode lasts;
    - ``cloning``: the behaviour-cloned policy;
    - ``cloning_noise``: the same with Gaussian noise on the action;
    - ``uniform``: uniform within the bounds.

    Args:
        weights: share of each name; they need not add up to one.
        action_low: lower bounds, ``(A,)``.
        action_high: upper bounds, ``(A,)``.
        policy: the behaviour-cloned policy, needed by the two cloning proposals.
        noise: deviation of the noise as a share of half the action range.
    """

    def __init__(
        self, weights: dict[str, float], action_low: Tensor, action_high: Tensor, policy: Policy | None, noise: float
    ) -> None:
        unknown = sorted(set(weights) - set(NAMES))
        if unknown:
            raise ValueError(f"unknown action proposal {unknown[0]!r}: choose among {', '.join(NAMES)}")
        if min(weights.values(), default=0.0) < 0.0 or sum(weights.values()) <= 0.0:
            raise ValueError(f"the weights of the action proposals must be positive, got {weights}")
        if policy is None and any(weights.get(name, 0.0) > 0.0 for name in ("cloning", "cloning_noise")):
            raise ValueError("the cloning proposals need a behaviour-cloned policy: set `cloned_policy` to its file")
        self.probabilities = torch.tensor([weights.get(name, 0.0) for name in NAMES])
        self.action_low, self.action_high = action_low, action_high
        self.policy = policy
        self.noise = noise

    def deal(self, count: int, device: torch.device) -> Tensor:
        """Index into ``NAMES`` for each of ``count`` roll-outs, ``(count,)``."""
        return torch.multinomial(self.probabilities, count, replacement=True).to(device)

    @torch.no_grad()
    def act(self, way: Tensor, observation: Tensor, recorded: Tensor) -> Tensor:
        """Actions ``(B, A)`` for roll-outs dealt ``way`` ``(B,)``; ``recorded`` are the data's own, ``(B, A)``."""
        low, high = self.action_low.to(observation), self.action_high.to(observation)
        uniform = low + (high - low) * torch.rand_like(recorded)
        choices = [recorded, recorded, recorded, uniform]
        if self.policy is not None:
            cloned = self.policy.act(observation, deterministic=False)
            noisy = cloned + self.noise * 0.5 * (high - low) * torch.randn_like(cloned)
            choices[1], choices[2] = cloned, torch.minimum(torch.maximum(noisy, low), high)
        return torch.stack(choices)[way, torch.arange(len(way), device=way.device)]


class RecordedActions:
    """Looks up the actions that followed a row in its episode."""

    def __init__(self, tables: list[TensorDict]) -> None:
        """``tables``: the training tables in the order of the global row ids, each sorted by episode and step."""
        self.actions = torch.cat([table["action"] for table in tables])
        ends = []
        offset = 0
        for table in tables:
            last = torch.ones(len(table), dtype=torch.bool)
            last[:-1] = table["episode"][1:] != table["episode"][:-1]
            positions = torch.nonzero(last).squeeze(-1) + offset
            ends.append(positions[torch.searchsorted(positions, torch.arange(offset, offset + len(table)))])
            offset += len(table)
        self.last_row = torch.cat(ends)

    def following(self, row: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Action taken ``steps`` steps after ``row``, and whether the episode was still running then.

        Returns:
            Actions ``(B, A)`` (any where not running) and running ``(B,)`` bool.
        """
        row = row.to(self.actions.device)
        wanted = row + steps
        running = wanted <= self.last_row[row]
        return self.actions[torch.minimum(wanted, self.last_row[row])], running
