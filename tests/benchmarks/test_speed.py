"""What the benchmarks promise before they measure anything."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import speed, workloads
from benchmarks.timing import Workload, measure


def test_naming_the_workloads_builds_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("built too early")

    monkeypatch.setattr(workloads, "RandomData", refuse)
    monkeypatch.setattr(workloads, "simulator", refuse)
    found = speed.named(["hopper", "ant"], torch.device("cpu"), None)
    assert len({(each.group, each.name) for each in found}) == len(found) > 0


@pytest.mark.parametrize("stage", [workloads.policy_stage, workloads.simulator_stage, workloads.seeds_together])
def test_the_updates_that_are_timed_can_be_carried_out(stage: Callable[[str, torch.device], list[Workload]]) -> None:
    for workload in stage("hopper", torch.device("cpu")):
        if not workload.name.endswith("compiled"):
            call = workload.build()
            if stage is not workloads.seeds_together:  # which takes a minute
                call()


def test_each_workload_is_built_once() -> None:
    built: list[bool] = []

    def build() -> Callable[[], object]:
        built.append(True)
        return lambda: None

    workload = Workload("shape", "name", "calls/s", 1, build)
    measure([workload], rounds=3, target=0.0, report=lambda _: None)
    assert len(built) == 1
    assert len(workload.rates) == 3


def test_a_folder_that_is_no_peer_is_refused_before_measuring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(sys, "argv", ["speed", "--peer", str(tmp_path), "--out", str(tmp_path / "speed.json")])
    with pytest.raises(SystemExit) as refused:
        speed.main()
    message = str(refused.value)
    assert str(tmp_path) in message
    assert "offlinerlkit/policy/model_based/mopo.py" in message
    assert "\n" not in message
