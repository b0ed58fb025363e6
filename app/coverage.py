"""How far from the data a policy goes, and how unsure the Simulator is there, both relative to the data itself."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from app.rollouts import concatenate
from lit_modules.diagnostics import distances_between_episodes, spread
from zoo import Simulator
from zoo.uncertainty import MEASURES

DATA_ROWS = 10_000  # recorded rows that distances are measured to
QUERY_ROWS = 1_000  # rows of a policy or of held-out data that are measured


class Coverage:
    """Yardsticks taken from a run's data.

    Rows are compared as standardised (observation, action), with the transition model's own statistics.

    Args:
        simulator: the Simulator of the run, for statistics and uncertainty.
        data: its data module, set up.

    Attributes:
        held_out_distance: mean distance of held-out rows to the nearest recorded row; without held-out rows, of
            recorded rows to the nearest one of another episode; ``None`` for a single episode.
        uncertainty_units: median of every measure of ``zoo.uncertainty`` on the recorded rows.
    """

    def __init__(self, simulator: Simulator, data: Any) -> None:
        self.simulator = simulator
        # The demonstrations are few beside the rest, and where the policy should be
        known = [spread(data.expert_train, DATA_ROWS // 2)]
        if data.diverse_train is not None:
            known.append(spread(data.diverse_train, DATA_ROWS - len(known[0])))
        table = concatenate(known)
        self._known = self._features(table)
        held_out = [part for part in (data.expert_held_out, data.diverse_held_out) if part is not None]
        self.held_out_distance: float | None
        if held_out:
            rows = self._features(concatenate([spread(part, QUERY_ROWS) for part in held_out]))
            self.held_out_distance = float(self._nearest(rows).mean())
        else:
            between = distances_between_episodes(
                self._known, torch.cat([part["episode"] for part in known]), QUERY_ROWS
            )
            self.held_out_distance = None if between is None else float(between.mean())
        self.uncertainty_units = {name: float(value.median()) for name, value in self._measures(table).items()}
        data.release()

    def distance(self, rows: TensorDict) -> float | None:
        """Mean distance of rows ``(N,)`` to the nearest recorded row, 1 being that of held-out rows."""
        if self.held_out_distance is None:
            return None
        own = float(self._nearest(self._features(spread(rows, QUERY_ROWS))).mean())
        return own / max(self.held_out_distance, 1e-12)

    def uncertainty(self, rows: TensorDict) -> dict[str, float]:
        """Mean of every measure over rows ``(N,)``, in units of its median on the data."""
        measured = self._measures(spread(rows, QUERY_ROWS))
        return {
            name: float(value.mean()) / max(self.uncertainty_units[name], 1e-12) for name, value in measured.items()
        }

    def _features(self, rows: TensorDict) -> Tensor:
        model = self.simulator.transition
        parts = [model.observation_normalizer(rows["observation"]), model.action_normalizer(rows["action"])]
        return torch.cat(parts, dim=-1)

    def _nearest(self, features: Tensor) -> Tensor:
        return torch.cdist(features, self._known).min(dim=1).values

    @torch.no_grad()
    def _measures(self, rows: TensorDict) -> dict[str, Tensor]:
        means, log_variances = self.simulator.transition(rows["observation"], rows["action"])
        stds = (0.5 * log_variances).exp()
        return {name: measure(means, stds) for name, measure in MEASURES.items()}
