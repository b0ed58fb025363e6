"""A seed trained beside others ends where it would have ended alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.method import Conversation, Descend, Method
from lit_modules.offsim import OffSim
from lit_modules.proposals import RecordedActions
from lit_modules.seeds import SeedBatch
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

SIZE, LOW, HIGH = 3, [-1.0, -1.0], [1.0, 1.0]
SEEDS, UPDATES = (0, 1, 5), 20


def table(*size: int) -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(*size, SIZE),
            "action": torch.rand(*size, 2) * 2 - 1,
            "next": {"observation": torch.randn(*size, SIZE), "terminated": torch.rand(*size, 1) < 0.2},
            "row": torch.randint(100, size),
            "episode": torch.zeros(size, dtype=torch.long),
        },
        batch_size=list(size),
    )


def cloning(folder: Path, seed: int) -> Method:
    return BehaviourCloning(SIZE, LOW, HIGH, (8,))


def offsim(folder: Path, seed: int) -> Method:
    # 12 updates of likelihood, then the game, with and without a transition step
    module = OffSim(
        SIZE,
        LOW,
        HIGH,
        termination="learned",
        members=3,
        transition_hidden_sizes=(8,),
        reward_hidden_sizes=(8, 8),
        proposal={"dataset": 0.5, "uniform": 0.5},
        pretraining_updates=12,
        transition_every=2,
        starts=8,
        margin_weight=0.5,
    )
    module.recorded = RecordedActions([table(100)])
    module._measure_before_game = lambda: None  # type: ignore[method-assign]
    return module


def policy(folder: Path, seed: int) -> Method:
    simulator = Simulator(
        TransitionModel(SIZE, 2, members=2, hidden_sizes=(8,)),
        RewardModel(SIZE, 2, (8,)),
        TerminationModel(),
        StartStates.of(torch.randn(20, SIZE)),
        LOW,
        HIGH,
    )
    simulator.reward.standardize(torch.linspace(1.0, 3.0, 50), torch.linspace(-1.0, 1.0, 50))
    simulator.calibrate_uncertainty(torch.randn(100, SIZE), torch.randn(100, 2))
    path = folder / f"{seed}.safetensors"
    simulator.save(path)
    module = SimulatorSAC(str(path), hidden_sizes=(8,), starts=10, horizon=3, batch_size=16, refresh_every=8)
    data = SimpleNamespace(expert_train=table(30), diverse_train=table(70), streams={"expert": 16, "all": 16})
    module._trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
    return module


def build(make: Callable[[Path, int], Method], folder: Path) -> list[tuple[Method, dict[str, TensorDict]]]:
    """The modules and batches of the seeds, as runs of one seed each would have them."""
    built = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        module = make(folder, seed)
        built.append((module, {name: table(UPDATES, 18) for name in ("expert", "all", "diverse")}))
    return built


def attach(module: Any, optimizers: Any) -> None:
    wrapped = [
        SimpleNamespace(optimizer=each) for each in (optimizers if isinstance(optimizers, list) else [optimizers])
    ]
    module.optimizers = lambda: wrapped
    module.manual_backward = lambda loss: loss.backward()


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("make", [cloning, offsim, policy])
def test_every_seed_equals_its_single_run(make: Callable[[Path, int], Method], graphs: bool, tmp_path: Path) -> None:
    alone = build(make, tmp_path)
    logged_alone = []
    for module, rows in alone:
        attach(module, module.configure_optimizers())
        logged_alone.append(module.run(module.converse(rows)))
    together = build(make, tmp_path)
    batch = SeedBatch([module for module, _ in together])
    attach(batch, batch.configure_optimizers())
    if graphs:  # without a GPU they pass through
        batch.capture_graphs()
    logged = batch.run_together([module.converse(rows) for module, rows in together])
    for (single, _), (replica, _), ours, theirs in zip(alone, together, logged, logged_alone, strict=True):
        assert replica.updates == single.updates == UPDATES
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5, msg=name)
        expected = single.state_dict()
        for name, value in replica.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5, msg=name)
    first, second = (module.state_dict() for module, _ in together[:2])
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_replicas_stay_views_of_the_stacks(tmp_path: Path) -> None:
    modules = [module for module, _ in build(cloning, tmp_path)]
    batch = SeedBatch(modules)
    batch.configure_optimizers()
    with torch.no_grad():
        for stack in batch.stacks.values():
            stack.add_(torch.arange(len(SEEDS)).view(-1, *[1] * (stack.dim() - 1)))
    before = [module for module, _ in build(cloning, tmp_path)]
    for index, (module, plain) in enumerate(zip(modules, before, strict=True)):
        for value, start in zip(module.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(value, start + index)


def test_conversations_that_part_are_refused() -> None:
    def talk(steps: int) -> Conversation:
        for _ in range(steps):
            yield Descend("objective", (torch.zeros(2, SIZE), torch.zeros(2, 2)))
        return {}

    batch = SeedBatch([BehaviourCloning(SIZE, LOW, HIGH, (8,)) for _ in range(2)])
    attach(batch, batch.configure_optimizers())
    with pytest.raises(RuntimeError, match="one ended before another"):
        batch.run_together([talk(1), talk(2)])
