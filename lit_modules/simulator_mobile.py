r"""MOBILE: SAC in a frozen Simulator, doubtful where its members disagree about what a transition is worth.

.. math::
    \mathcal T_k Q(s,a) &= \kappa\,\tilde r(s,a,s'_k) + \gamma\,[\text{not ended}]\,\min_i \bar Q_i(s'_k,\pi(s'_k)) +
                \gamma\,[\text{ended}]\,V_{end}, \qquad s'_k \sim T_k(s,a) \\
    y         &= y_{SAC} - \beta\,\operatorname{std}_k \mathcal T_k Q(s,a) \quad\text{on simulated transitions}

Next states that the critics value alike cost nothing, however far apart they are; disagreement about states alone does
not know which ones matter. Recorded transitions happened, and are not doubted.

Source: Sun et al. 2023, "Model-Bellman inconsistency for model-based offline reinforcement learning" (ICML). There the
reward is recorded and predicted with the next state; here it is learned, and ends have their worth: both are part of
the members' targets. What else is chosen: docs/methods/model_based.md.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.critic import Layers
from lit_modules.random_stream import RandomStream
from lit_modules.simulator_sac import SimulatorSAC


class SimulatorMOBILE(SimulatorSAC):
    """Train a policy by SAC inside a frozen Simulator, less the inconsistency of its Bellman targets.

    Args:
        simulator: file of a Simulator of several members.
        inconsistency_weight: beta, what a unit of that deviation costs.
        settings: arguments of ``SimulatorSAC``.

    Raises:
        ValueError: if the Simulator has one member, or batches no simulated transition.
    """

    def __init__(self, simulator: str, inconsistency_weight: float = 1.0, **settings: Any) -> None:
        super().__init__(simulator, **settings)
        if self.simulator.transition.members == 1:
            raise ValueError("the simulator has one member, which never disagrees: SimulatorMOBILE needs several")
        if self.simulated_rows == 0:
            raise ValueError("real_share leaves no simulated row in a batch, and MOBILE doubts nothing else: lower it")
        # Apart from the other noise, so that neither depends on how many updates are drawn for at once
        self.member_random = RandomStream(torch.initial_seed(), "members")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self.place_random_numbers(self.member_random)

    @property
    def penalised(self) -> bool:
        return super().penalised or self.hparams["inconsistency_weight"] != 0.0

    @torch.no_grad()
    def draw(self, rows: dict[str, TensorDict]) -> dict[str, Tensor]:
        """Also the noise of a next state of each member, ``member_noise`` ``(K, E, simulated rows, D)``."""
        inputs = super().draw(rows)
        members, size = self.simulator.transition.members, self.simulator.observation_size
        updates = inputs["action"].shape[0]
        return inputs | {"member_noise": self.member_random.normal(updates, members, self.simulated_rows, size)}

    @torch.no_grad()
    def critics_reward(self, inputs: dict[str, Tensor], targets: Layers) -> tuple[Tensor, dict[str, Tensor]]:
        reward, logged = super().critics_reward(inputs, targets)
        count = self.simulated_rows
        simulated = {name: inputs[name][:count] for name in ("observation", "action", "uncertainty")}
        doubt = self.inconsistency(simulated, inputs["member_noise"], targets)
        paid = reward[:count] - self.hparams["inconsistency_weight"] * doubt
        return torch.cat([paid, reward[count:]]), {**logged, "inconsistency": doubt.mean()}

    def inconsistency(self, inputs: dict[str, Tensor], noise: Tensor, targets: Layers) -> Tensor:
        """Deviation over the members of the Bellman target, ``(B,)``.

        Args:
            inputs: ``observation``, ``action`` ``(B, ...)`` and ``uncertainty`` ``(B,)`` of simulated transitions.
            noise: standard normal, ``(E, B, D)``.
            targets: the target critics' parameters.
        """
        model, scale = self.simulator.transition, self.hparams["noise_scale"]
        means, log_variances = model(inputs["observation"], inputs["action"])
        deviations = (0.5 * log_variances).exp() * (self.simulator.noise_scale if scale is None else scale)
        following = model.next_observation(inputs["observation"], means + deviations * noise, noise)
        return self.worth(inputs, following, targets).std(dim=0, correction=0)

    def random_streams(self) -> dict[str, RandomStream]:
        return super().random_streams() | {"members": self.member_random}
