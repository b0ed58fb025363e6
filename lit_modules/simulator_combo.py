r"""COMBO: SAC in a frozen Simulator whose critics are lowered where it is simulated and raised where it was recorded.

.. math::
    L_Q &= \sum_i E[(Q_i(s,a) - y)^2] + \beta\,(E_{\text{simulated}}[Q_i(s,a)] - E_{\text{recorded}}[Q_i(s,a)])

What the policy does in the Simulator is thought worth less than what is known to have happened, by as much as the two
differ; nobody has to say how sure the Simulator is. Simulated transitions are those of the policy, states and actions,
which is the first of the distributions that the paper lets one choose.

Source: Yu et al. 2021, "COMBO: conservative offline model-based policy optimization" (arXiv 2102.08363), its step of
policy evaluation. What else is chosen: docs/methods/model_based.md.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_modules.critic import BatchedSACLoss
from lit_modules.simulator_sac import SimulatorSAC


class ConservativeSACLoss(BatchedSACLoss):
    """SAC's losses with COMBO's term on the critics; the first rows of a batch are the simulated ones."""

    conservative_weight = 0.0
    simulated_rows = 0

    def critic_loss(self, values: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = super().critic_loss(values, target)
        simulated, recorded = values[:, : self.simulated_rows], values[:, self.simulated_rows :]
        gap = simulated.mean(dim=1) - recorded.mean(dim=1)
        return loss + self.conservative_weight * gap.sum(), {**parts, "value_gap": gap.detach().mean()}


class SimulatorCOMBO(SimulatorSAC):
    """Train a policy by SAC inside a frozen Simulator, with conservative critics.

    Args:
        simulator: file of a Simulator.
        conservative_weight: beta, how much lower simulated transitions are to be valued than recorded ones; with
            values of order ``reward_scale / (1 - gamma)``.
        settings: arguments of ``SimulatorSAC``.

    Raises:
        ValueError: if batches lack simulated or recorded transitions.
    """

    loss_type = ConservativeSACLoss

    def __init__(self, simulator: str, conservative_weight: float = 0.1, **settings: Any) -> None:
        super().__init__(simulator, **settings)
        if self.simulated_rows in (0, self.hparams["batch_size"]):
            raise ValueError("COMBO compares simulated with recorded transitions: real_share has to leave both")
        self.loss.conservative_weight = conservative_weight
        self.loss.simulated_rows = self.simulated_rows

    @property
    def penalised(self) -> bool:
        return super().penalised or self.hparams["conservative_weight"] != 0.0
