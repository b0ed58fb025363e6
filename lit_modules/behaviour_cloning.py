"""Behaviour cloning: supervised learning of the demonstrated actions, and the baseline beside every result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_modules.method import Conversation, Descend, Method
from lit_modules.ranges import refuse_outside
from lit_modules.rows import require_streams
from zoo.policy import Policy

ROWS = ("expert", "all")
FORMS = ("mse", "log_likelihood")


def cloning_loss(policy: Policy, location: Tensor, scale: Tensor, action: Tensor, form: str) -> Tensor:
    """How far a policy is from demonstrated actions, a scalar.

    Args:
        policy: the policy.
        location: what its forward pass returned for the demonstrated observations, ``(B, A)``.
        scale: likewise.
        action: demonstrated actions, ``(B, A)``.
        form: ``mse``, the squared error of the mean action in half action ranges, summed over action dimensions, or
            ``log_likelihood``, the negative log-density.
    """
    refuse_unknown_form(form)
    if form == "mse":
        return policy.squared_distance(policy.squash(location), action).mean()
    return -policy.log_density(location, scale, action).mean()


def refuse_unknown_form(form: str) -> None:
    """Raise a ``ValueError`` unless ``form`` is one of those of :func:`cloning_loss`."""
    if form not in FORMS:
        raise ValueError(f"unknown form of cloning {form!r}: choose {' or '.join(FORMS)}")


class BehaviourCloning(Method):
    r"""Minimise :math:`E_{D_E}[-\log \pi(a|s)]` or :math:`E_{D_E}[\|\pi(s) - a\|^2]`.

    With ``rows: all`` the expectation is over everything recorded, as in behaviour cloning of mixed data.

    Args:
        observation_size: number of observation features.
        action_low: lower action bounds.
        action_high: upper action bounds.
        hidden_sizes: widths of the policy's hidden layers.
        members: networks that are cloned each on its own, from the same rows; the policy is their average. What they
            make of states off the demonstrations differs from one to the next, and decides whether a gait holds.
        form: ``mse`` or ``log_likelihood``, see :func:`cloning_loss`. The squared error leaves the deviation at its
            start, about 0.2 before squashing, which a policy stage then explores with.
        log_std_min: lower bound of the policy's log-deviation.
        log_std_max: upper bound of the policy's log-deviation.
        learning_rate: Adam's rate at the start.
        decay_updates: updates over which the rate falls to ``final_rate`` (cosine); ``None`` keeps it. Demonstrated
            actions are a function of the state with little noise, and what a constant rate leaves unfitted is enough
            to make a cloned gait fall.
        final_rate: share of the rate that is left then.
        weight_decay: decoupled weight decay; keeps a policy cloned from few episodes from over-fitting.
        own_scale: by which deviation observations are divided: at 1 by that of what is cloned, where small differences
            decide; at 0 by that of all data, to which a slipping policy gets; between, a geometric mean of the two.
        narrowest: no feature is divided by less than this share of its deviation in all data.
        rows: stream of the data module that is cloned: ``expert`` or ``all``.
    """

    def __init__(
        self,
        observation_size: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        hidden_sizes: Sequence[int] = (256, 256),
        members: int = 5,
        form: str = "mse",
        log_std_min: float = -5.0,
        log_std_max: float = 2.0,
        learning_rate: float = 1e-3,
        decay_updates: int | None = None,
        final_rate: float = 0.02,
        weight_decay: float = 1e-2,
        own_scale: float = 0.5,
        narrowest: float = 0.1,
        rows: str = "expert",
    ) -> None:
        super().__init__()
        if rows not in ROWS:
            raise ValueError(f"unknown rows {rows!r} to clone: choose {' or '.join(ROWS)}")
        refuse_unknown_form(form)
        self.save_hyperparameters()
        refuse_outside(self.hparams)
        self.form = form
        self.policy = Policy(
            observation_size,
            action_low,
            action_high,
            hidden_sizes,
            log_std_min=log_std_min,
            log_std_max=log_std_max,
            members=members,
        )

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit":
            require_streams(data, [self.hparams["rows"]])
            own = data.expert_statistics if self.hparams["rows"] == "expert" else data.statistics
            self.standardise(own.observation_mean, own.observation_std, data.statistics.observation_std)

    def standardise(self, mean: Tensor, own: Tensor, everywhere: Tensor) -> None:
        """Have the policy see observations on their scale, each argument ``(observation,)``.

        Args:
            mean: of what is cloned.
            own: its deviation.
            everywhere: that of all data.
        """
        share = self.hparams["own_scale"]
        # A feature that does not vary there would be blown up elsewhere
        scale = torch.maximum(own.pow(share) * everywhere.pow(1.0 - share), self.hparams["narrowest"] * everywhere)
        self.policy.normalizer.set_statistics(mean, scale)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.policy.network.parameters(),
            lr=self.hparams["learning_rate"],
            weight_decay=self.hparams["weight_decay"],
            fused=True,
        )

    def converse(self, batch: dict[str, TensorDict]) -> Conversation:
        given, losses = self.hparams, []
        for rows in zip(*self.cloned_rows(batch), strict=True):
            rate = self.decayed_rate(given["learning_rate"], given["decay_updates"], given["final_rate"])
            parts = yield Descend("objective", rows, learning_rate=rate)
            losses.append(parts["loss"])
            self.updates += 1
        return {"loss": torch.stack(losses).mean()}

    def cloned_rows(self, batch: dict[str, TensorDict]) -> tuple[Tensor, Tensor]:
        """Observations and actions that the updates of a batch clone, ``(K, N, ...)``."""
        rows = batch[self.hparams["rows"]]
        return rows["observation"], rows["action"]

    def objective(self, observation: Tensor, action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of demonstrated transitions ``(B, ...)``, averaged over the members."""
        location, scale = self.policy.of_members(observation)
        loss = cloning_loss(self.policy, location, scale, action, self.form)
        return loss, {"loss": loss.detach()}

    def export(self, data: Any) -> Policy:
        """The policy that was learned."""
        return self.policy

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        held_out = batch.get("expert_held_out")
        if held_out is not None:
            location, scale = self.policy(held_out["observation"])
            for form in ("mse", "log_likelihood"):
                loss = cloning_loss(self.policy, location, scale, held_out["action"], form)
                self.log(f"validation/{form}", loss, batch_size=len(held_out), sync_dist=True)

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """The figures of validation, for ``offsim test``."""
        self.validation_step(batch, batch_index)

    def predict_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Tensor]:
        """The policy's actions ``(N, A)`` on each held-out table."""
        return {name: self.policy.act(table["observation"]) for name, table in batch.items()}
