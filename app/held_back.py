"""Whether what was cloned kept a policy from what its Simulator holds, as far as that can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from app.configuration import POLICY_METHODS
from app.loggers import last_values
from app.verdict import Thresholds
from lit_modules.hold import hold_of

DEMONSTRATED, EARNED = "train/cloned/demonstrated", "train/cloned/earned"  # as the policy stage logs them


def cloned_share(logged: Mapping[str, float]) -> float | None:
    """What the cloned policy has of the demonstrations' return in the Simulator, if the policy stage has judged it.

    Args:
        logged: last values of its log. A return that was no number is none of them, and no number here.
    """
    demonstrated = logged.get(DEMONSTRATED, 0.0)
    return logged.get(EARNED, math.nan) / demonstrated if demonstrated > 0.0 else None


def held_back(configuration: DictConfig, folder: Path) -> str | None:
    """What to try where a policy was held to the cloned one and earns less in the Simulator than the demonstrations.

    From one demonstration of Hopper, letting go took such policies from 91 and 75% of the expert's return to 100 and
    99% (docs/trials/one_demonstration.md).

    Args:
        configuration: of a run with a policy stage.
        folder: of the run.

    Returns:
        A sentence; ``None`` if the policy was let go of, does well there, or if the run does not say.
    """
    logged = last_values(folder / "policy" / "metrics.csv")
    share, below = cloned_share(logged), configuration.policy.model.get("loosen_below")
    if below is None or share is None or POLICY_METHODS[configuration.policy.method].learns_reward:
        return None
    # Over as many steps as what the demonstrations have
    promised = logged.get("validation/return", math.inf) / logged[DEMONSTRATED]
    held = hold_of(share, 1.0, below, loosened_hold=0.0) == 1.0
    if not held or promised >= Thresholds().learned_share:
        return None
    return (
        f"the policy, held to the cloned one, has {promised:.2f} of what the demonstrations have in the "
        "simulator: to see what is there without the hold, in the same simulator, repeat the command with "
        f"--policy.model.loosen_below=2 --stages-of {folder} and another --out"
    )
