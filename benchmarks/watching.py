"""What a training is at, seen from outside."""

from __future__ import annotations

from pathlib import Path

from app.configuration import STAGES

BEFORE, EVALUATION = "preparation", "evaluation"  # what comes before the first stage and after the last


def stage_at_work(folder: Path) -> str:
    """The stage that an ``offsim train`` into a run folder is at."""
    if (folder / "policy.safetensors").exists():
        return EVALUATION
    return next((stage for stage in reversed(STAGES) if (folder / stage).exists()), BEFORE)


def process_status(process: int) -> dict[str, str]:
    """What the system says of a process.

    Raises:
        FileNotFoundError, ProcessLookupError: if it has ended.
    """
    return dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
