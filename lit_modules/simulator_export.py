"""What comes out of a game: the Simulator, its reward on its own scale, its uncertainty and noise calibrated."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDict

from datamodules.cache import SCATTERED_ROWS
from lit_modules import diagnostics
from lit_modules.noise_calibration import CALIBRATED, calibrate_noise
from lit_modules.rows import concatenate, take
from zoo.simulator import Simulator
from zoo.start_states import StartStates

if TYPE_CHECKING:
    from lit_modules.offsim import OffSim

BROKEN = 1.5  # times the error of the median member
UNCERTAINTY_ROWS = 20_000  # recorded rows that uncertainty is calibrated on
DEMONSTRATED_STATES = 1_000  # that a Simulator keeps for episodes to begin in


@torch.no_grad()
def export_simulator(method: OffSim, data: Any, rows: int = 10_000) -> Simulator:
    """Assemble the Simulator: averaged reward on its own scale, uncertainty calibrated on the training data.

    Args:
        method: the game.
        data: the data module that it was trained on.
        rows: expert and roll-out transitions used to set the reward's scale.
    """
    hyper = method.hparams
    method.graphs = None  # they belong to the device of the training
    warn_of_broken_members(method, data)
    reward = copy.deepcopy(method.averaged_reward)
    simulator = Simulator(
        transition=copy.deepcopy(method.transition),
        reward=reward,
        termination=copy.deepcopy(method.termination),
        start_states=StartStates.of(data.initial_observations),
        action_low=[float(value) for value in hyper["action_low"]],
        action_high=[float(value) for value in hyper["action_high"]],
        uncertainty=hyper["uncertainty"],
        task=hyper["task"],
        noise_scale=1.0 if hyper["noise_scale"] == CALIBRATED else hyper["noise_scale"],
        aggregation=hyper["aggregation"],
        reward_learned=method.updates > hyper["pretraining_updates"],
        horizon=int(data.expert_train["step"].max()) + 1 if hyper["task"] is None else None,
        observation_names=data.observation_names,
        action_names=data.action_names,
        demonstrated_states=StartStates.of(data.expert_train["observation"], "demonstrations", DEMONSTRATED_STATES),
    )
    expert = data.expert_train
    expert = expert[method.random.integers(len(expert), min(rows, len(expert))).cpu()]
    collected: list[TensorDict] = []
    while sum(len(part) for part in collected) < rows:
        collected.append(method.roll_out(method.draw_starts(data)))
    rollouts = concatenate(collected)
    reward.standardize(
        reward.raw(reward.features(expert["observation"], expert["action"], expert["next", "observation"])),
        reward.raw(reward.features(rollouts["observation"], rollouts["action"], rollouts["next_observation"])),
        low_quantile=hyper["reward_low_quantile"],
        high_quantile=hyper["reward_high_quantile"],
    )
    tables = [table for table in (data.expert_train, data.diverse_train) if table is not None]
    total = sum(map(len, tables))
    kept = method.random.integers(total, min(UNCERTAINTY_ROWS, total)).cpu()
    parts = []
    for some in kept.split(SCATTERED_ROWS):
        parts.append([take([table[name] for table in tables], some) for name in ("observation", "action")])
    observations, actions = (torch.cat(column) for column in zip(*parts, strict=True))
    simulator.calibrate_uncertainty(observations, actions)
    if hyper["noise_scale"] == CALIBRATED:
        other = data.diverse_train if data.diverse_held_out is None else data.diverse_held_out
        forecast = [table for table in (data.expert_train, other) if table is not None]
        calibrate_noise(simulator, forecast, method.random.generator)
    data.release()
    return simulator.eval().requires_grad_(False)


def warn_of_broken_members(method: OffSim, data: Any) -> None:
    """Say so if a member has not learned what the others have: the Simulator draws it as often as them."""
    tables = [data.diverse_held_out, data.expert_held_out, data.diverse_train, data.expert_train]
    table = next(each for each in tables if each is not None)
    worst = float(diagnostics.one_step_errors(method.transition, table.to(method.device))["worst_member"])
    if worst > BROKEN:
        warnings.warn(
            f"the one-step error of the worst member of the transition ensemble is {worst:.1f} times that of the "
            "median one: its training broke down, and the Simulator will shake. Lower transition_learning_rate or "
            "transition_gradient_norm.",
            stacklevel=2,
        )
