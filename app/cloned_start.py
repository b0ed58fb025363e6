"""Which cloned policy a run's policy stage started from, and what became of it, as was judged in the Simulator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    return {
        "share_in_simulator": _of(demonstrated, logged.get(EARNED)),
        **({"hold": logged[HOLD]} if HOLD in logged else {}),
    }


def weighted_start(folder: Path) -> dict[str, bool | float | None]:
    """Whether the policy stage of the run of a folder started from weighted cloning.

    Returns:
        ``weighted``; ``share_in_simulator`` and ``weighted_share_in_simulator``, what the policy cloned from
        demonstrations and the weighted one have of their learned return there, ``None`` where that is no number.
        Without the last where weighted cloning was left out, since the cloned policy does well; empty where there was
        no such stage.
    """
    logged = last_values(folder / "weighted_cloning" / "metrics.csv")
    if "start/weighted" not in logged:
        return {}
    demonstrated = logged.get("start/demonstrated", 0.0)
    cloned, weighted = (_of(demonstrated, logged.get(f"start/{name}_return")) for name in ("cloned", "weighted"))
    judged = logged.get("start/trained", 1.0) > 0.0
    return {
        "weighted": logged["start/weighted"] > 0.0,
        "share_in_simulator": cloned,
        **({"weighted_share_in_simulator": weighted} if judged else {}),
    }


def _of(demonstrated: float, earned: float | None) -> float | None:
    """What was earned as a share of that; ``None`` where the log holds no number, or the share would be none."""
    return earned / demonstrated if earned is not None and demonstrated > 0.0 else None


def in_words(metrics: Mapping[str, Any]) -> str:
    """Both as sentences.

    Args:
        metrics: content of a run's ``metrics.json``.
    """
    choice, start = metrics.get("weighted_start", {}), metrics.get("cloned_start", {})
    return " ".join(filter(None, (_chosen(choice), _became(start, bool(choice.get("weighted"))))))


def _chosen(choice: Mapping[str, Any]) -> str:
    if "weighted_share_in_simulator" not in choice:
        return ""
    kinds = ("weighted cloning", "plain cloning")
    taken, other = kinds if choice["weighted"] else reversed(kinds)
    cloned, weighted = (_share(choice.get(name)) for name in ("share_in_simulator", "weighted_share_in_simulator"))
    return (
        f"Training in the Simulator starts from {taken} and not from {other}: of the demonstrations' return there, the "
        f"cloned policy has {cloned}, the weighted one {weighted}."
    )


def _became(start: Mapping[str, Any], weighted: bool) -> str:
    """What became of it, if the policy stage said how the policy was held."""
    hold = start.get("hold")
    if not isinstance(hold, float):
        return ""
    name = "weighted" if weighted else "cloned"
    held = "the policy was held to it" if hold == 1.0 else "it was let go of"
    share = _share(start.get("share_in_simulator"))
    return f"The {name} policy has {share} of what the demonstrations have in the Simulator: {held}."


def _share(share: object) -> str:
    return f"{100.0 * share:.1f}%" if isinstance(share, float) else "no part that is a number"
