"""What became of the cloned policy that a run started from, as its policy stage judged it in the Simulator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from app.loggers import last_values

DEMONSTRATED, EARNED, HOLD = (f"train/cloned/{name}" for name in ("demonstrated", "earned", "hold"))  # as it logs them


def cloned_start(folder: Path) -> dict[str, float | None]:
    """What became of it in the run of a folder.

    Returns:
        ``share_in_simulator``, what it has of the demonstrations' return there (of their length, where the reward is
        learned along with the policy), ``None`` where that is no number; and ``hold``, the share that was left of the
        weights of what holds the policy to it. Empty where the policy stage did not judge it; runs of before have no
        ``hold``.
    """
    logged = last_values(folder / "policy" / "metrics.csv")
    demonstrated = logged.get(DEMONSTRATED, 0.0)
    if demonstrated <= 0.0:
        return {}
    share = logged.get(EARNED, math.nan) / demonstrated  # last_values leaves out what is no number
    return {
        "share_in_simulator": share if math.isfinite(share) else None,
        **({"hold": logged[HOLD]} if HOLD in logged else {}),
    }


def in_words(start: Mapping[str, object]) -> str | None:
    """The same as a sentence, if it says how the policy was held."""
    share, hold = start.get("share_in_simulator"), start.get("hold")
    if not isinstance(hold, float):
        return None
    earned = f"{100.0 * share:.1f}%" if isinstance(share, float) else "no part that is a number"
    held = "the policy was held to it" if hold == 1.0 else "it was let go of"
    return f"The cloned policy has {earned} of what the demonstrations have in the Simulator: {held}."
