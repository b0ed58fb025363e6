"""Interleaved timing: every workload in turn, several rounds, medians. A slow moment of the machine hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class Workload:
    """Something to time.

    Attributes:
        group: heading it stands under, e.g. the shape.
        name: what it does.
        unit: what is counted, e.g. ``updates/s``.
        per_call: how many of them one call does.
        build: makes what the work needs and returns the call that does it; called when the measuring begins.
        rates: one measurement per round.
    """

    group: str
    name: str
    unit: str
    per_call: float
    build: Callable[[], Callable[[], object]]
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rates)


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], times: int) -> float:
    """Wall time of so many calls."""
    synchronize()
    started = time.perf_counter()
    for _ in range(times):
        call()
    synchronize()
    return time.perf_counter() - started


def measure(workloads: Sequence[Workload], rounds: int, target: float, report: Callable[[str], None]) -> None:
    """Fill in the rates.

    Args:
        workloads: what to time.
        rounds: measurements of each.
        target: wanted seconds per measurement; at least one call is made.
        report: told what is going on.
    """
    calls, times = [], []
    for workload in workloads:
        report(f"warm-up: {workload.group}, {workload.name}")
        call = workload.build()
        seconds(call, 1)
        once = seconds(call, 2) / 2
        calls.append(call)
        times.append(max(1, round(target / max(once, 1e-9))))
    for index in range(rounds):
        report(f"round {index + 1} of {rounds}")
        for workload, call, count in zip(workloads, calls, times, strict=True):
            workload.rates.append(count * workload.per_call / seconds(call, count))
