"""The plant with a setpoint and disturbances, and the figures that are taken of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks import tanks
from zoo import Policy, Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel


def test_logs_are_those_of_the_plant(tmp_path: Path) -> None:
    tanks.write_logs(tmp_path)
    assert len(list(tmp_path.glob("good*.csv"))) == 10 and len(list(tmp_path.glob("other*.csv"))) == 40
    rows = np.loadtxt(tmp_path / "good0.csv", delimiter=",", skiprows=1)
    assert rows.shape == (tanks.STEPS + 1, len(tanks.COLUMNS))
    assert (tmp_path / "good0.csv").read_text().startswith("time,setpoint,drain,inflow,level1,level2,valve\n")
    assert np.allclose(rows, tanks.episode(0, tanks.good), atol=1e-6)
    assert set(rows[:, 2]) <= {0.0, 1.0}


def test_the_good_operator_is_nearer_to_the_setpoint() -> None:
    assert tanks.tracking_error(tanks.tested(tanks.good)) < tanks.tracking_error(tanks.tested(tanks.careless))


def test_a_run_is_judged_whether_or_not_it_can_be_told(tmp_path: Path) -> None:
    for exogenous in ([], [0, 1, 2]):
        torch.manual_seed(0)
        simulator = Simulator(
            TransitionModel(5, 1, members=2, hidden_sizes=(8,), exogenous=exogenous),
            RewardModel(5, 1, (8,)),
            TerminationModel(),
            StartStates.of(torch.rand(3, 5)),
            [0.0],
            [1.0],
        )
        simulator.save(tmp_path / "simulator.safetensors")
        Policy(5, [0.0], [1.0], (8,)).save(tmp_path / "policy.safetensors")
        found = tanks.judge(tmp_path)
        assert found["exogenous"] == len(exogenous) and set(found["tracking"]) == {"policy"}
        errors = [*found["forecast"]["good"].values(), *found["tracking"]["policy"].values()]
        assert len(errors) == 4 and all(np.isfinite(errors))
