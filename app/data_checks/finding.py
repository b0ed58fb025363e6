"""One thing that a check found."""

from __future__ import annotations

from dataclasses import dataclass

FAULT, NOTE = "fault", "note"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        name: short name, the same in every report.
        level: ``fault``: training on this goes wrong; ``note``: worth knowing.
        text: a sentence with figures, that says where it begins.
        remedy: name of the repair that ``--fix`` makes (``repair.REPAIRS``), ``None`` if there is none.
        detail: what that repair needs to know, such as a feature's index.
    """

    name: str
    level: str
    text: str
    remedy: str | None = None
    detail: int = 0
