r"""Cloning of demonstrations, and of diverse data as far as it leads to learned reward.

.. math::
    L(\pi) = \nu\, E_{D_E}[\|\pi(s) - a\|^2] + (1 - \nu)\, E_{D}[w\, \|\pi(s) - a\|^2], \qquad w \propto \exp(G / T)

with nu the demonstrations' share of an update's rows, and G the learned reward that follows a row
(``lit_modules.learned_returns``). Few demonstrations show little of what is beside them; among diverse data are rows
that do what an expert would, and the learned reward says which. What comes out is where a policy had better start:
this policy, or the one that was cloned from demonstrations alone (``lit_modules.better_start``). Source:
reward-weighted regression, Peters & Schaal 2007; the choice of T and of the start is ours, see
docs/methods/behaviour_cloning.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from datamodules.cache import release_mapped_tables
from datamodules.errors import DataError
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.better_start import judge_demonstrations, judge_start, log_start, weighted_is_better
from lit_modules.learned_returns import CHUNK, learned_returns, return_weights
from lit_modules.rows import require_streams, take
from lit_modules.spaces import refuse_other_spaces
from lit_modules.surroundings import surroundings_of
from zoo.policy import Policy
from zoo.simulator import Simulator


class WeightedCloning(BehaviourCloning):
    """Clone rows of the stream ``expert``, and diverse rows drawn by their weights.

    Args:
        observation_size: number of observation features.
        action_low: lower action bounds.
        action_high: upper action bounds.
        simulator: file of a Simulator, for its reward and what ending is worth.
        diverse_rows: rows of diverse data per update, beside those of the stream ``expert``.
        discount: how much later reward counts, per step.
        effective_share: share of the diverse rows that counts effectively, which is what the temperature T follows.
        cloned_policy: file of a policy that was cloned from the demonstrations alone; ``None``: there is none, and the
            weighted one comes out in any case.
        start_below: share of the demonstrations' learned return below which that one fails in the Simulator. Where it
            does, the weighted one comes out if it earns something there; ``None``: in any case.
        return_at_least: share of the cloned one's learned return there that the weighted one has to have.
        judged_episodes: episodes in the Simulator by which that is judged.
        settings: arguments of ``BehaviourCloning``; ``rows`` stays ``expert``.
    """

    def __init__(
        self,
        observation_size: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        simulator: str,
        diverse_rows: int = 192,
        discount: float = 0.995,
        effective_share: float = 0.1,
        cloned_policy: str | None = None,
        start_below: float | None = 0.9,
        return_at_least: float = 0.4,
        judged_episodes: int = 100,
        **settings: Any,
    ) -> None:
        if settings.get("rows", "expert") != "expert":
            raise ValueError(f"rows is {settings['rows']!r}: diverse rows are weighted here, beside those of expert")
        super().__init__(observation_size, action_low, action_high, **settings)
        if effective_share == 0.0:
            raise ValueError("effective_share is 0.0: no row would count; give a share above 0")
        learned = Simulator.load(simulator)
        if not learned.reward_learned:
            raise ValueError(
                "the reward of the simulator was never trained, so nothing says which rows to clone: give its stage "
                "more updates than its pretraining_updates"
            )
        refuse_other_spaces(learned, observation_size, action_low, action_high)
        # In lists, and so no part of the module
        self._simulator = [learned]
        self._cloned = [] if cloned_policy is None else [Policy.load(cloned_policy)]

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        require_streams(data, ["expert"])
        if data.diverse_train is None:
            raise DataError("weighted cloning is of diverse data: name some as data.diverse, or clone demonstrations")
        returns = learned_returns(self._simulator[0], data.diverse_train, self.hparams["discount"])
        weights = return_weights(returns, self.hparams["effective_share"])
        self._cumulative = weights.cumsum(0) / weights.sum()
        self.standardise(*self._cloned_statistics(data, weights), data.statistics.observation_std)
        self.place_random_numbers(self.random)

    def _cloned_statistics(self, data: Any, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation ``(observation,)`` of what is cloned: demonstrations, and the others as they are drawn."""
        observation, share = data.diverse_train["observation"], weights / weights.sum()
        mean = torch.zeros(observation.shape[1], dtype=torch.double)
        square = torch.zeros_like(mean)
        for rows, of_each in zip(observation.split(CHUNK), share.split(CHUNK), strict=True):
            mean += of_each @ rows.double()
            square += of_each @ rows.double().square()
            release_mapped_tables()
        expert, demonstrated = data.expert_statistics, data.streams["expert"]
        ours = demonstrated / (demonstrated + self.hparams["diverse_rows"])
        expert_mean, expert_square = expert.observation_mean.double(), expert.observation_std.double().square()
        together = ours * expert_mean + (1.0 - ours) * mean
        second = ours * (expert_square + expert_mean.square()) + (1.0 - ours) * square
        deviation = (second - together.square()).clamp_min(0.0).sqrt()
        return together.float(), deviation.float()

    def draw(self, updates: int) -> tuple[Tensor, Tensor]:
        """Observations and actions of diverse rows, ``(updates, diverse_rows, ...)``, drawn by their weights."""
        table = self.trainer.datamodule.diverse_train  # type: ignore[attr-defined]
        chance = self.random.uniform(updates, self.hparams["diverse_rows"]).to(self._cumulative)
        rows = torch.searchsorted(self._cumulative, chance, right=True).clamp_max(len(table) - 1)
        return tuple(take([table[name]], rows).to(self.device) for name in ("observation", "action"))  # type: ignore[return-value]

    def cloned_rows(self, batch: dict[str, TensorDict]) -> tuple[Tensor, Tensor]:
        """Demonstrations, and diverse rows beside them."""
        observation, action = super().cloned_rows(batch)
        others = self.draw(len(observation))
        return torch.cat([observation, others[0]], dim=1), torch.cat([action, others[1]], dim=1)

    def export(self, data: Any) -> Policy:
        """The policy that training in the Simulator had better start from; which one it is, is logged.

        Args:
            data: the data module.
        """
        if not self._cloned or self.updates == 0:
            return self.policy
        simulator, cloned, episodes = self._simulator[0], self._cloned[0], self.hparams["judged_episodes"]
        surroundings = surroundings_of(simulator, data.expert_train)
        figures = judge_start(simulator, cloned, "cloned", episodes, surroundings)
        figures |= judge_start(simulator, self.policy, "weighted", episodes, surroundings)
        demonstrated = judge_demonstrations(simulator, data.expert_train)
        taken = weighted_is_better(figures, demonstrated, self.hparams["start_below"], self.hparams["return_at_least"])
        judged = {**figures, "demonstrated": demonstrated, "weighted": float(taken)}
        log_start(self.trainer.loggers, judged, self.updates)
        return self.policy if taken else cloned
