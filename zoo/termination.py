"""When an episode ends: a known rule, a classifier learned from the data, or never. One interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.networks import mlp
from zoo.normalizer import Normalizer
from zoo.tasks import get_task


class TerminationModel(nn.Module):
    """Base: maps the observation reached, ``(..., D)``, to whether it is terminal, ``(...)`` bool."""

    kind = "none"

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"kind": self.kind}

    def forward(self, next_observation: Tensor) -> Tensor:
        return torch.zeros(next_observation.shape[:-1], dtype=torch.bool, device=next_observation.device)


class RuleTermination(TerminationModel):
    """The rule of a known task."""

    kind = "rule"

    def __init__(self, task: str) -> None:
        super().__init__()
        rule = get_task(task).termination
        if rule is None:
            raise ValueError(f"no termination rule is known for task {task!r}: use a learned termination")
        self.config = {"kind": self.kind, "task": task}
        self.rule = rule

    def forward(self, next_observation: Tensor) -> Tensor:
        return self.rule(next_observation)


class LearnedTermination(TerminationModel):
    """Classifier on the observation reached; terminal where its probability exceeds ``threshold``."""

    kind = "learned"

    def __init__(self, observation_size: int, hidden_sizes: Sequence[int] = (128, 128), threshold: float = 0.5) -> None:
        super().__init__()
        self.config = {
            "kind": self.kind,
            "observation_size": int(observation_size),
            "hidden_sizes": [int(size) for size in hidden_sizes],
            "threshold": float(threshold),
        }
        self.threshold = threshold
        self.normalizer = Normalizer(observation_size)
        self.network = mlp([observation_size, *hidden_sizes, 1], "silu")

    def logits(self, next_observation: Tensor) -> Tensor:
        """Log-odds of being terminal, ``(...)``."""
        return self.network(self.normalizer(next_observation)).squeeze(-1)

    def forward(self, next_observation: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(next_observation)) > self.threshold


TERMINATIONS: dict[str, type[TerminationModel]] = {
    model.kind: model for model in (TerminationModel, RuleTermination, LearnedTermination)
}


def make_termination(config: dict[str, Any]) -> TerminationModel:
    """Build a termination model from its ``config``."""
    arguments = dict(config)
    kind = arguments.pop("kind")
    if kind not in TERMINATIONS:
        raise ValueError(f"unknown termination {kind!r}: choose one of {', '.join(sorted(TERMINATIONS))}")
    return TERMINATIONS[kind](**arguments)
