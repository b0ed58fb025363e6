"""Whether what was cloned kept a policy from what its Simulator holds, as far as that can tell."""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import DictConfig

from app.configuration import POLICY_METHODS
from app.loggers import last_values
from app.verdict import Thresholds
from lit_modules.hold import hold_of


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
    demonstrated = logged.get("train/cloned/demonstrated", 0.0)
    below = configuration.policy.model.get("loosen_below")
    if below is None or demonstrated <= 0.0 or POLICY_METHODS[configuration.policy.method].learns_reward:
        return None
    promised = logged.get("validation/return", math.inf)  # over as many steps as what the demonstrations have
    held = hold_of(logged.get("train/cloned/earned", math.nan), demonstrated, below, loosened_hold=0.0) == 1.0
    if not held or promised >= Thresholds().learned_share * demonstrated:
        return None
    return (
        f"the policy, held to the cloned one, has {promised / demonstrated:.2f} of what the demonstrations have in the "
        "simulator: to see what is there without the hold, in the same simulator, repeat the command with "
        f"--policy.model.loosen_below=2 --stages-of {folder} and another --out"
    )
