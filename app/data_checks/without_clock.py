"""Rows without the clock that was found among their observations, so that the rest can be compared with a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.data_checks.finding import Finding
from app.data_checks.recording import Transitions
from app.data_checks.statistical import CLOCK


def without_clock(rows: Transitions, findings: Sequence[Finding]) -> Transitions:
    """The rows, less the feature that a finding calls a clock."""
    for finding in findings:
        if finding.remedy == CLOCK:
            return replace(
                rows,
                observation=np.delete(rows.observation, finding.detail, axis=1),
                following=np.delete(rows.following, finding.detail, axis=1),
            )
    return rows
