"""What the settings of methods may be, by their names: refused in a constructor, and before the first stage begins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

AT_LEAST_ONE = [
    "actor_every",
    "batch_size",
    "buffer_size",
    "candidates",
    "critics",
    "decay_updates",
    "diverse_rows",
    "epochs",
    "forecast_steps",
    "hidden_sizes",
    "horizon",
    "judged_episodes",
    "kept_every",
    "members",
    "minibatches",
    "observation_size",
    "push_steps",
    "refresh_every",
    "reward_every",
    "reward_hidden_sizes",
    "snapshots",
    "starts",
    "transition_every",
    "transition_hidden_sizes",
    "validation_episodes",
    "validation_horizon",
]
ABOVE_ZERO = [
    "actor_learning_rate",
    "anchor_tolerance",
    "critic_learning_rate",
    "deviation",
    "discriminator_learning_rate",
    "entropy_learning_rate",
    "forecast_learning_rate",
    "learning_rate",
    "reward_bound",
    "reward_learning_rate",
    "reward_scale",
    "target_kl",
    "tau",
    "transition_gradient_norm",
    "transition_learning_rate",
    "value_unit",
]
AT_LEAST_ZERO = [
    "adversarial_weight",
    "anchor_weight",
    "cloning_weight",
    "conservative_weight",
    "dynamics_temperature",
    "dynamics_threshold",
    "entropy_weight",
    "exogenous",
    "exploration_noise",
    "forecast_updates",
    "forecast_weight",
    "gradient_penalty_target",
    "gradient_penalty_weight",
    "inconsistency_weight",
    "l2_weight",
    "let_go_updates",
    "likelihood_weight",
    "loosen_below",
    "margin",
    "margin_weight",
    "narrowest",
    "noise_scale",
    "pretraining_updates",
    "proposal",
    "proposal_noise",
    "return_at_least",
    "smoothing_clip",
    "smoothing_noise",
    "snapshot_every",
    "start_below",
    "temperature",
    "transition_warmup",
    "transition_weight_decay",
    "uncertainty_budget",
    "uncertainty_rate",
    "uncertainty_tolerance",
    "uncertainty_weight",
    "weight_decay",
]
SHARES = [
    "actor_final_rate",
    "clip",
    "critic_share",
    "effective_share",
    "end_quantile",
    "expert_share",
    "expert_start_share",
    "final_rate",
    "gae_lambda",
    "high_quantile",
    "initial_start_share",
    "join_cloned",
    "loosened_hold",
    "own_scale",
    "push_share",
    "real_share",
    "replayed_start_share",
    "reward_high_quantile",
    "reward_low_quantile",
    "tau",
    "transition_final_rate",
    "uncertainty_cut",
    "variance_weighting",
]
BELOW_ONE = ["discount", "gamma", "level_average", "policy_average", "reward_average"]
ANY_NUMBER = ["action_high", "action_low", "entropy_gain", "log_std_max", "log_std_min", "target_entropy"]

_RANGES = (
    (AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
    (ABOVE_ZERO, lambda value: value > 0, "above 0"),
    (AT_LEAST_ZERO, lambda value: value >= 0, "at least 0"),
    (SHARES, lambda value: 0 <= value <= 1, "between 0 and 1"),
    (BELOW_ONE, lambda value: 0 <= value < 1, "at least 0 and below 1"),
    (ANY_NUMBER, lambda value: True, "a finite number"),
)


def refuse_outside(settings: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse numbers that a method cannot be trained with, in lists and tables as well.

    Args:
        settings: arguments of a method's constructor; words, and names that are not known here, pass.
        prefix: what stands before the names in the message.

    Raises:
        ValueError: naming the setting, its value and what it may be.
    """
    for name, value in settings.items():
        for number in _numbers(value):
            if not math.isfinite(number):
                raise ValueError(f"{prefix}{name} is {number}: it must be a finite number")
            for names, fits, range in _RANGES:
                if name in names and not fits(number):
                    raise ValueError(f"{prefix}{name} is {number}: it must be {range}")


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return []
    if isinstance(value, int | float):
        return [value]
    if isinstance(value, Mapping):
        return [number for each in value.values() for number in _numbers(each)]
    if isinstance(value, Iterable):
        return [number for each in value for number in _numbers(each)]
    return []
