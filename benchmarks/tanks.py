"""A process with a setpoint and disturbances: two tanks in a row, of which a valve fills the first.

``python -m benchmarks.tanks logs FOLDER`` writes logs of a good operator and of a careless one, as a plant would;
``python -m benchmarks.tanks judge RUN ...`` compares what was learned from them with the plant (docs/own_system.md says
how to get from one to the other). Setpoint, drain and inflow are set from outside.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo import Policy, Simulator

Array = NDArray[Any]
Operator = Callable[[Array, Array, float, np.random.Generator], float]
COLUMNS = ("time", "setpoint", "drain", "inflow", "level1", "level2", "valve")
OUTSIDE, LEVELS, VALVE = slice(1, 4), slice(4, 6), 6
STEPS, INTERVAL = 300, 5.0  # rows of a log, seconds between them
LOGS = {"good": (10, 0), "other": (40, 100)}  # how many, and the seed of the first
TESTED, FIRST_TESTED = 20, 900  # episodes that nothing was learned from
AHEAD = (20, 100)  # steps
POLICIES = ("behaviour_cloning", "policy")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("logs", help="write logs").add_argument("folder", type=Path)
    commands.add_parser("judge", help="compare runs with the plant").add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "logs":
        write_logs(given.folder)
        return
    torch.set_num_threads(1)
    print(json.dumps({"good operator": tracking_error(tested(good))}))
    for run in given.runs:
        print(json.dumps({"run": str(run), **judge(run)}))


def outside(random: np.random.Generator, steps: int) -> Array:
    """Setpoint, whether the drain is open, and inflow, ``(steps, 3)``."""
    series = np.empty((steps, 3))
    setpoint, drain, inflow = random.uniform(0.3, 0.7), 0.0, random.normal(0, 0.008)
    for step in range(steps):
        if random.random() < 1 / 60:
            setpoint = round(random.uniform(0.3, 0.7), 2)
        if random.random() < 1 / 80:
            drain = 1 - drain
        inflow = 0.97 * inflow + random.normal(0, 0.002)
        series[step] = setpoint, drain, inflow
    return series


def move(levels: Array, valve: float, surroundings: Array, random: np.random.Generator) -> Array:
    """Both levels (m) an interval later."""
    _, drain, inflow = surroundings
    filled = 0.05 * valve + max(inflow, -0.05 * valve)
    between = 0.04 * np.sqrt(levels[0])
    drained = 0.035 * np.sqrt(levels[1]) * (1 + 0.3 * drain)
    flows = np.array([filled - between, between - drained])
    return np.clip(levels + 0.2 * INTERVAL * flows + random.normal(0, 0.0005, 2), 0, 1.5)


def good(levels: Array, surroundings: Array, valve: float, random: np.random.Generator) -> float:
    """Feed-forward of what runs out at the setpoint, and feedback of both levels."""
    setpoint, drain, inflow = surroundings
    needed = 0.035 * np.sqrt(setpoint) * (1 + 0.3 * drain)
    wanted = (needed / 0.04) ** 2
    opened = (needed - inflow) / 0.05 + 4 * (setpoint - levels[1]) + 1.5 * (wanted - levels[0])
    return float(np.clip(opened, 0, 1))


def careless(levels: Array, surroundings: Array, valve: float, random: np.random.Generator) -> float:
    """Turns the valve about, and now and then remembers the setpoint."""
    if random.random() < 0.7:
        return float(np.clip(valve + random.normal(0, 0.15), 0, 1))
    return float(np.clip(good(levels, surroundings, valve, random) + random.normal(0, 0.3), 0, 1))


def episode(seed: int, operator: Operator, steps: int = STEPS) -> Array:
    """A log, ``(steps + 1, COLUMNS)``; the last row is the last state."""
    random = np.random.default_rng(seed)
    levels, series, valve = random.uniform(0.2, 0.8, 2), outside(random, steps + 1), 0.5
    rows = np.empty((steps + 1, len(COLUMNS)))
    for step in range(steps + 1):
        if step < steps:
            valve = operator(levels, series[step], valve, random)
        rows[step] = step * INTERVAL, *series[step], *levels, valve
        levels = move(levels, valve, series[step], random)
    return rows


def write_logs(folder: Path) -> None:
    """Write a CSV file for each episode of both operators."""
    folder.mkdir(parents=True, exist_ok=True)
    for (name, (count, first)), operator in zip(LOGS.items(), (good, careless), strict=True):
        for index in range(count):
            rows = episode(first + index, operator)
            path = folder / f"{name}{index}.csv"
            np.savetxt(path, rows, delimiter=",", header=",".join(COLUMNS), comments="", fmt="%.7g")


def tested(operator: Operator) -> Array:
    """Episodes that nothing was learned from, ``(TESTED, STEPS + 1, COLUMNS)``."""
    return np.stack([episode(FIRST_TESTED + index, operator) for index in range(TESTED)])


def tracking_error(rows: Array) -> float:
    """Mean distance of the second level to its setpoint, in m."""
    return float(np.abs(rows[..., 1] - rows[..., 5]).mean())


@torch.no_grad()
def judge(run: Path) -> dict[str, Any]:
    """What a run's Simulator and policies are worth in the plant.

    Returns:
        ``forecast``: root-mean-square error of both levels (m) after some steps, of the good operator's and of the
        careless one's episodes; ``tracking``: of each policy in the plant and in the Simulator, from the same starts
        and, where the Simulator can be told, in the same surroundings.
    """
    simulator = Simulator.load(run / "simulator.safetensors")
    found: dict[str, Any] = {"exogenous": len(simulator.exogenous), "forecast": {}, "tracking": {}}
    for name, operator in (("good", good), ("careless", careless)):
        found["forecast"][name] = {str(steps): forecast_error(simulator, tested(operator), steps) for steps in AHEAD}
    for name in POLICIES:
        path = run / f"{name}.safetensors"
        if path.exists():
            found["tracking"][name] = tracking(simulator, Policy.load(path))
    return found


def forecast_error(simulator: Simulator, logs: Array, steps: int) -> float:
    """Root-mean-square error of both levels after so many recorded actions, from every tenth row."""
    starts = np.arange(0, STEPS - steps + 1, 10)
    observation = _tensor(logs[:, starts, 1:6].reshape(-1, 5))
    for step in range(steps):
        action, told = logs[:, starts + step, VALVE].reshape(-1, 1), logs[:, starts + step + 1, OUTSIDE].reshape(-1, 3)
        observation, *_ = simulator.step(
            observation, _tensor(action), deterministic=True, exogenous=_told(simulator, told)
        )
    reached = logs[:, starts + steps, LEVELS].reshape(-1, 2)
    return float(np.sqrt(np.square(observation[:, 3:].numpy() - reached).mean()))


def tracking(simulator: Simulator, policy: Policy) -> dict[str, float]:
    """Mean distance to the setpoint (m) in the plant, and in the Simulator."""

    def act(levels: Array, surroundings: Array, valve: float, random: np.random.Generator) -> float:
        return float(policy.act(_tensor(np.array([[*surroundings, *levels]])))[0, 0].clamp(0, 1))

    logs = tested(act)
    observation, random = _tensor(logs[:, 0, 1:6]), torch.Generator().manual_seed(0)
    rows = [observation]
    for step in range(STEPS):
        told = _told(simulator, logs[:, step + 1, OUTSIDE])
        observation, *_ = simulator.step(observation, policy.act(observation), random, exogenous=told)
        rows.append(observation)
    imagined = torch.stack(rows)
    return {
        "plant": tracking_error(logs),
        "simulator": float((imagined[..., 0] - imagined[..., 4]).abs().mean()),
    }


def _told(simulator: Simulator, series: Array) -> torch.Tensor | None:
    return _tensor(series) if simulator.exogenous else None


def _tensor(values: Array) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


if __name__ == "__main__":
    main()
