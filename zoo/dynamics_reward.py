r"""The dynamics reward r_D(s,a,s'): how like the real system's a transition is (MOREC).

.. math::
    r_D(s,a,s') = -\log\Bigl(1 - \frac{1}{M} \sum_m \sigma\bigl(2\,\frac{l_m(s,a,s') - \bar l_m}{\bar l^*_m - \bar l_m}
    - 1\bigr)\Bigr)

with M snapshots of one discriminator, :math:`l_m` the m-th's logit, held between its mean :math:`\bar l_m` on the
model's transitions and its mean :math:`\bar l^*_m` on recorded ones. So it lies between 0.31 and 1.31. Source: Luo et
al. 2023, "Reward-Consistent Dynamics Models are Strongly Generalizable for Offline Reinforcement Learning" (arXiv
2310.05422), and its official code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.files import MISDESCRIBED, ModelFileError, load_state, read_model, write_model
from zoo.networks import EnsembleMLP
from zoo.normalizer import Normalizer

KIND = "dynamics reward"
SMALLEST_GAP = 1e-3  # between a snapshot's mean logits, below which it tells nothing apart


class DynamicsReward(nn.Module):
    """Snapshots of a discriminator between recorded transitions and a model's, averaged.

    Args:
        observation_size: number of observation features.
        action_size: number of action dimensions.
        snapshots: M.
        hidden_sizes: widths of the discriminator's hidden layers.
        activation: name of its activation.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        snapshots: int,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "observation_size": int(observation_size),
            "action_size": int(action_size),
            "snapshots": int(snapshots),
            "hidden_sizes": [int(size) for size in hidden_sizes],
            "activation": activation,
        }
        self.observation_size = observation_size
        self.action_size = action_size
        self.observation_normalizer = Normalizer(observation_size)
        self.action_normalizer = Normalizer(action_size)
        self.delta_normalizer = Normalizer(observation_size)
        self.network = EnsembleMLP(snapshots, [2 * observation_size + action_size, *hidden_sizes, 1], activation)
        self.register_buffer("low", torch.zeros(snapshots, 1))
        self.register_buffer("high", torch.ones(snapshots, 1))

    def features(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """The networks' standardised input, ``(B, F)``."""
        parts = [
            self.observation_normalizer(observation),
            self.action_normalizer(action),
            self.delta_normalizer(next_observation - observation),
        ]
        return torch.cat(parts, dim=-1)

    def logits(self, features: Tensor) -> Tensor:
        """What each snapshot says of features ``(B, F)``: log-odds of having been recorded, ``(M, B)``."""
        return self.network(features.expand(self.network.members, *features.shape)).squeeze(-1)

    def forward(self, observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        """The dynamics reward ``(B,)`` of transitions ``(B, D), (B, A), (B, D)``."""
        logits = self.logits(self.features(observation, action, next_observation))
        within = torch.minimum(torch.maximum(logits, self.low), self.high)
        chance = torch.sigmoid(2.0 * (within - self.low) / (self.high - self.low) - 1.0).mean(dim=0)
        return -torch.log1p(-chance)

    @torch.no_grad()
    def set_scale(self, recorded: Tensor, simulated: Tensor) -> None:
        """Bound each snapshot's logits by their means on recorded and on simulated transitions, features ``(N, F)``."""
        low, high = (self.logits(each).mean(dim=1, keepdim=True) for each in (simulated, recorded))
        self.low.copy_(low)
        self.high.copy_(torch.maximum(high, low + SMALLEST_GAP))

    def save(self, path: str | Path) -> None:
        """Write it to one file."""
        write_model(path, KIND, self.config, self.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> DynamicsReward:
        """Read what :meth:`save` wrote, ready for use.

        Raises:
            ModelFileError: if there is no such file, or it is damaged, or another kind of model.
        """
        config, tensors = read_model(path, KIND)
        try:
            made = cls(**config)
        except MISDESCRIBED as error:
            raise ModelFileError(f"{path}: its header does not describe a {KIND}: {error}") from error
        load_state(made, tensors, path)
        return made.eval().requires_grad_(False)
