"""Who picks the actions in the roll-outs of the simulator stage.

OffSim's paper does not say; each proposal here is one possible answer, and a mixture of them is the default.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from datamodules.cache import release_mapped_tables
from lit_modules.random_stream import RandomStream
from lit_modules.rows import follows, take
from zoo.policy import Policy

BLOCK_ROWS = 2**20  # looked at together
NAMES = ("dataset", "cloning", "cloning_noise", "uniform")


class ActionProposal(nn.Module):
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

    cumulative_shares: Tensor
    action_low: Tensor
    action_high: Tensor

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
        super().__init__()
        shares = torch.tensor([weights.get(name, 0.0) for name in NAMES])
        self.last = int(shares.nonzero().max())  # of the ways that are used at all
        # Buffers, so that they are where the module is; they come from the configuration, not from a checkpoint
        self.register_buffer("cumulative_shares", shares.cumsum(0) / shares.sum(), persistent=False)
        self.register_buffer("action_low", action_low, persistent=False)
        self.register_buffer("action_high", action_high, persistent=False)
        self.cloned = [policy]  # in a list, because the method that owns this holds the policy as well
        self.noise = noise

    def draw(self, horizon: int, count: int, random: RandomStream) -> dict[str, Tensor]:
        """Random numbers of ``count`` roll-outs of ``horizon`` steps.

        Returns:
            ``way``: index into ``NAMES`` of each roll-out, ``(count,)``; ``uniform``, ``cloned_noise`` and
            ``added_noise``: ``(horizon, count, A)``.
        """
        shape = (horizon, count, len(self.action_low))
        shares = self.cumulative_shares.to(random.device)
        return {
            # Clamped, because rounding may leave the last share a hair below one
            "way": torch.bucketize(random.uniform(count), shares, right=True).clamp_max(self.last),
            "uniform": random.uniform(*shape),
            "cloned_noise": random.normal(*shape),
            "added_noise": random.normal(*shape),
        }

    @torch.no_grad()
    def act(self, way: Tensor, observation: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Actions of one step.

        Args:
            way: index into ``NAMES`` of each roll-out, ``(B,)``.
            observation: ``(B, D)``.
            drawn: the data's own actions ``recorded`` and the other numbers of :meth:`draw` for this step, ``(B, A)``.

        Returns:
            ``(B, A)``.
        """
        low, high, (policy,) = self.action_low, self.action_high, self.cloned
        way = way.unsqueeze(-1)
        action = torch.where(way == NAMES.index("uniform"), low + (high - low) * drawn["uniform"], drawn["recorded"])
        if policy is not None:
            cloned = policy.act(observation, deterministic=False, noise=drawn["cloned_noise"])
            noisy = cloned + self.noise * 0.5 * (high - low) * drawn["added_noise"]
            noisy = torch.minimum(torch.maximum(noisy, low), high)
            action = torch.where(way == NAMES.index("cloning"), cloned, action)
            action = torch.where(way == NAMES.index("cloning_noise"), noisy, action)
        return action


class RecordedActions:
    """Looks up the actions that followed a row in its episode."""

    def __init__(self, tables: list[TensorDict], device: torch.device | str = "cpu", unbroken: bool = False) -> None:
        """
        Args:
            tables: the training tables in the order of the global row ids, each sorted by episode and step. A step
                that was left out ends what can be followed, like the end of an episode.
            device: where look-ups happen.
            unbroken: whether a row from another state than the one before it led to ends that as well.
        """
        # Not joined: tables of more rows than memory holds are views of files
        self.actions = [table["action"].to(device) for table in tables]
        last_rows, offset = [], 0
        for table in tables:
            last_rows += [offset + rows for rows in _last_rows(table, unbroken)]
            offset += len(table)
        self.last_rows = torch.cat(last_rows).to(device)

    def following(self, row: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Actions taken at ``row`` and in the steps after it, and whether the episode was still running then.

        Args:
            row: global row ids, ``(B,)``.
            horizon: H, number of steps.

        Returns:
            Actions ``(H, B, A)`` (any where not running) and running ``(H, B)`` bool.
        """
        rows, running = self.rows_after(row, horizon)
        return take(self.actions, rows).to(row.device), running.to(row.device)

    def rows_after(self, row: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Rows and those after them in their episode, and whether it was still running then.

        Args:
            row: global row ids, ``(...)``.
            horizon: H, number of rows, their own included.

        Returns:
            Rows ``(H, ...)``, the last of the episode again once it is over, and running ``(H, ...)`` bool.
        """
        at = row.to(self.last_rows.device)
        last = self.last_rows[torch.searchsorted(self.last_rows, at)]
        wanted = at + torch.arange(horizon, device=at.device).view(-1, *[1] * at.dim())
        return torch.minimum(wanted, last), wanted <= last


def _last_rows(table: TensorDict, unbroken: bool) -> Iterator[Tensor]:
    """Rows with which what can be followed ends, in ascending order, block by block."""
    for start in range(0, len(table), BLOCK_ROWS):
        block = table[start : start + BLOCK_ROWS + 1]  # the first row of the next one tells whether the last ends here
        followed = follows(block, 1)
        if unbroken:
            followed &= (block["next", "observation"][:-1] == block["observation"][1:]).all(dim=-1)
        yield torch.nonzero(~followed).squeeze(-1) + start
        release_mapped_tables()
    yield torch.tensor([len(table) - 1])
