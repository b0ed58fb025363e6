"""What becomes of the cloned policy a learner starts from: how firmly it holds, whether the two are joined."""

from __future__ import annotations

import math
import warnings
from abc import ABC
from typing import Any

import torch
from torch import Tensor

from lit_modules.hold import ALWAYS, KNOWN, demonstrated_return, hold_of
from lit_modules.narrow_demonstrations import demonstrations_are_narrow
from lit_modules.parallel import averaged
from lit_modules.policy_rollouts import PolicyRollOuts
from lit_modules.simulator_returns import longest_episode, simulator_returns
from lit_modules.surroundings import surroundings_of
from zoo.policy import Policy, joined
from zoo.simulator import Simulator


class ClonedStart(PolicyRollOuts, ABC):
    """A method whose policy may start from a cloned one, which is judged by what it returns in the Simulator.

    Attributes:
        averaged_policy: the running average of the policy in training.
        learns_reward: whether it learns a reward of its own, in place of the simulator's.
        hold: share of the weights of what holds to the cloned policy; not a number before that is decided.
    """

    averaged_policy: Policy
    learns_reward = False
    hold: Tensor

    def keep_cloned(self, policy: Policy | None) -> None:
        """Remember the cloned policy, if there is one.

        Args:
            policy: a copy of it, that is never trained.
        """
        # In a list, and so no part of the module
        self._cloned = [] if policy is None else [policy]
        decided = policy is None or self.hparams["loosen_below"] is None
        self.register_buffer("hold", torch.tensor(1.0 if decided else math.nan), persistent=False)
        self._joining: tuple[int, bool] = (0, True)  # after how many updates it was decided, and how

    @property
    def loosened(self) -> bool:
        """Whether the cloned policy is let go of, so that little holds the learner to it."""
        return bool(self.hold < 1.0)

    def judge_cloned(self) -> dict[str, Tensor]:
        """Decide, once, how firmly the cloned policy is held; what is logged of it."""
        if not bool(self.hold.isnan()):
            return {}
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        reward = None if self.learns_reward else self.simulator.reward
        judged = self.returns_in(self.simulator, *self._cloned, episodes=self.hparams["judged_episodes"])[0]
        figures = {
            "cloned/demonstrated": demonstrated_return(
                reward, data.expert_train, self.validation_steps(), self.simulator.end_worth()
            ),
            "cloned/earned": judged["length" if reward is None else "earned"],
        }
        measured = [self.hold.new_tensor(value) for value in figures.values()]
        if self.parallel:  # the same decision everywhere, whatever part of the data a process has
            measured = averaged(measured)
        demonstrated, earned = map(float, measured)
        below, loosened = self.hparams["loosen_below"], self.hparams["loosened_hold"]
        self.hold.fill_(hold_of(earned, demonstrated, below, loosened))
        if self.loosened:  # it fails
            share = earned / demonstrated * 1000.0 // 1.0 / 1000.0  # down, so that it does not read as what it is below
            warnings.warn(
                f"the policy that training starts from has {share:.3f} of what the demonstrations have in the "
                f"Simulator, less than {below:g} (loosen_below): the policy is held to it by {loosened:g} of the usual "
                "weights (loosened_hold)",
                stacklevel=2,
            )
        elif self._lets_go(data):
            self.hold.fill_(loosened)
        return dict(zip(figures, measured, strict=True)) | {"cloned/hold": self.hold.clone()}

    def _lets_go(self, data: Any) -> bool:
        """Whether a cloned policy that does well in the Simulator is let go of."""
        given = self.hparams
        if given["let_go"] != KNOWN:
            return bool(given["let_go"] == ALWAYS)
        if self.learns_reward or (given["decay_updates"] or math.inf) < given["let_go_updates"]:
            return False
        return data.diverse_train is not None and not demonstrations_are_narrow(data)

    def finished_policy(self, data: Any) -> Policy:
        """What comes out: the running average of the policy, averaged with the cloned one if that is worth it.

        Args:
            data: the data module.
        """
        if not self._cloned or self.hparams["join_cloned"] is None:
            return self.averaged_policy
        if self._joining[0] != self.updates:
            self._joining = (self.updates, self._worth_joining(data))
        return joined(self.averaged_policy, self._cloned[0]) if self._joining[1] else self.averaged_policy

    def export(self, data: Any) -> Policy:
        """:meth:`finished_policy`."""
        return self.finished_policy(data)

    def _worth_joining(self, data: Any) -> bool:
        simulator, cloned, learned = self.learned_simulator(data), self._cloned[0], self.averaged_policy
        if self.loosened:
            both, alone = self.returns_in(
                simulator, joined(learned, cloned), learned, episodes=self.hparams["judged_episodes"]
            )
            return both["earned"] > alone["earned"]
        theirs, own = (figures["earned"] for figures in self.returns_in(simulator, cloned, learned))
        return theirs >= own - (1.0 - self.hparams["join_cloned"]) * abs(own)

    def learned_simulator(self, data: Any) -> Simulator:
        """The Simulator with what was learned in it besides the policy; here nothing was.

        Args:
            data: the data module.
        """
        return self.judging_simulator

    @property
    def judging_simulator(self) -> Simulator:
        """In which the policy is validated: that of the training, unless this changes."""
        return self.simulator

    def returns_in(
        self, simulator: Simulator, *policies: Policy, episodes: int | None = None
    ) -> list[dict[str, float]]:
        """:func:`simulator_returns`, always of the same episodes, ``validation_episodes`` if not said."""
        return simulator_returns(
            simulator,
            [policy.to(self.device) for policy in policies],
            episodes or self.hparams["validation_episodes"],
            self.validation_steps(),
            torch.Generator(self.device).manual_seed(0),
            surroundings_of(simulator, self.trainer.datamodule.expert_train) if simulator.exogenous else None,  # type: ignore[attr-defined]
        )

    def validation_steps(self) -> int:
        """Steps after which an episode of validation is truncated."""
        return int(min(self.hparams["validation_horizon"], longest_episode(self.simulator)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["hold"] = self.hold.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.hold.copy_(checkpoint.get("hold", torch.tensor(1.0)))  # earlier versions held in any case
