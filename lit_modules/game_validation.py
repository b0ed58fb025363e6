"""What the validation of a game shows: rewards of expert, held-out and imagined rows, and errors of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensordict import TensorDict

from lit_modules import diagnostics

if TYPE_CHECKING:
    from lit_modules.offsim import OffSim

REWARD_ROWS = 2000  # rows behind each logged reward and histogram


def held_out(tables: dict[str, Any]) -> dict[str, TensorDict]:
    """Those of the tables that there are."""
    return {name: table for name, table in tables.items() if table is not None}


def log_game(method: OffSim, batch: dict[str, Any]) -> None:
    """Log mean and histogram of the averaged reward, and one-step, open-loop and calibration errors.

    Args:
        method: whose trainer and loggers are written to.
        batch: the held-out tables by name.
    """
    data = method.trainer.datamodule  # type: ignore[attr-defined]
    state = method.random.state()  # how often one validates must not change what is learned
    rollouts = method.roll_out(method.draw_starts(data))
    method.random.restore(state)
    rollouts["next", "observation"] = rollouts.pop("next_observation")
    sources = {"expert": data.expert_train, "rollout": rollouts, **held_out(batch)}
    for label, table in sources.items():
        rows = diagnostics.spread(table, REWARD_ROWS).to(method.device)
        reward = method.averaged_reward(rows["observation"], rows["action"], rows["next", "observation"])
        method.log(f"validation/reward/{label}", reward.mean(), batch_size=len(rows), sync_dist=True)
        for logger in method.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_histogram(f"reward/{label}", reward, method.updates)
    for label, table in held_out(batch).items():
        errors = diagnostics.transition_errors(method.transition, table, method.hparams["horizon"])
        errors |= {f"{key}_before_game": value for key, value in method.errors_before_game.get(label, {}).items()}
        for key, value in errors.items():
            value = torch.as_tensor(value, device=method.device)  # where ranks exchange
            method.log(f"validation/{label}/{key}", value, batch_size=len(table), sync_dist=True)


def predictions(method: OffSim, batch: dict[str, Any]) -> dict[str, TensorDict]:
    """For each held-out table the mean next observation and the unscaled reward of the recorded transition.

    What is set from outside is as recorded.
    """
    found = {}
    for label, rows in held_out(batch).items():
        mean, _ = method.transition(rows["observation"], rows["action"])
        found[label] = TensorDict(
            {
                "observation": method.transition.next_observation(
                    rows["observation"],
                    mean.mean(dim=0),
                    exogenous=method.transition.exogenous_of(rows["next", "observation"]),
                ),
                "reward": method.averaged_reward(rows["observation"], rows["action"], rows["next", "observation"]),
            },
            batch_size=[len(rows)],
        )
    return found
