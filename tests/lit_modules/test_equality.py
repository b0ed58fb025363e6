"""However the updates are carried out, they end in the same place: seeds together, compiled, in other portions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.compilation import compiler_at_hand
from lit_modules.dynamics_reward import DynamicsRewardGame
from lit_modules.forecasts import RecordedSteps
from lit_modules.method import Conversation, Descend, Method
from lit_modules.offline_ml_irl import OfflineMLIRL
from lit_modules.offsim import OffSim
from lit_modules.seeds import SeedBatch
from lit_modules.simulator_combo import SimulatorCOMBO
from lit_modules.simulator_mobile import SimulatorMOBILE
from lit_modules.simulator_policy import SimulatorPolicy
from lit_modules.simulator_ppo import SimulatorPPO
from lit_modules.simulator_rambo import SimulatorRAMBO
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.simulator_td3 import SimulatorTD3
from zoo import Simulator
from zoo.dynamics_reward import DynamicsReward
from zoo.policy import Policy
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
            "step": torch.arange(size[-1]).expand(size),
        },
        batch_size=list(size),
    )


def cloning(folder: Path, seed: int, **settings: Any) -> Method:
    return BehaviourCloning(SIZE, LOW, HIGH, (8,), **settings)


def offsim(folder: Path, seed: int, **settings: Any) -> Method:
    # 12 updates of likelihood, 4 of them with forecasts, then the game, with and without a transition step
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
        forecast_updates=4,
        forecast_steps=3,
        transition_every=2,
        transition_gradient_norm=0.5,  # some are larger, some are not
        starts=8,
        margin_weight=0.5,
        entropy_weight="tuned",
        **settings,
    )
    walked = table(100)
    walked["next", "observation"][:-1] = walked["observation"][1:]
    module.recorded = RecordedSteps([walked])
    module.row_margins = torch.rand(100)
    module.target_entropy.fill_(-0.1 * seed)
    module._measure_before_game = lambda: None  # type: ignore[method-assign]
    if (changes := module.transition.recorded_changes) is not None:
        changes.adopt(walked["observation"][:, 1:2], walked["next", "observation"][:, 1:2])
    return module


def offsim_set_from_outside(folder: Path, seed: int, **settings: Any) -> Method:
    """The second of its features is exogenous, and every seed has a record of its own."""
    return offsim(folder, seed, exogenous=[1], **settings)


def simulator_file(folder: Path, seed: int, exogenous: Sequence[int] = ()) -> Path:
    simulator = Simulator(
        TransitionModel(SIZE, 2, members=2, hidden_sizes=(8,), exogenous=exogenous),
        RewardModel(SIZE, 2, (8,)),
        TerminationModel(),
        StartStates.of(torch.randn(20, SIZE)),
        LOW,
        HIGH,
    )
    simulator.reward.standardize(torch.linspace(1.0, 3.0, 50), torch.linspace(-1.0, 1.0, 50))
    simulator.calibrate_uncertainty(torch.randn(100, SIZE), torch.randn(100, 2))
    if (changes := simulator.transition.recorded_changes) is not None:
        changes.adopt(torch.randn(40, len(exogenous)), torch.randn(40, len(exogenous)))
    path = folder / f"{seed}.safetensors"
    simulator.save(path)
    return path


def policy(
    folder: Path,
    seed: int,
    method: type[SimulatorPolicy] = SimulatorSAC,
    exogenous: Sequence[int] = (),
    **settings: Any,
) -> Method:
    path = simulator_file(folder, seed, exogenous)
    sizes: dict[str, Any] = {"starts": 10, "horizon": 3, "batch_size": 16, "refresh_every": 8}
    given = {name: value for name, value in {**sizes, **settings}.items() if value is not None}
    module = method(str(path), hidden_sizes=(8,), **given)
    data = SimpleNamespace(expert_train=table(30), diverse_train=table(70), streams={"expert": 16, "all": 16})
    module._trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
    return module


def policy_and_reward(folder: Path, seed: int, **settings: Any) -> Method:
    return policy(folder, seed, OfflineMLIRL, reward_every=3, reward_hidden_sizes=(8,), **settings)


def policy_and_reward_set_from_outside(folder: Path, seed: int, **settings: Any) -> Method:
    """Two candidates for each next state share what is set from outside."""
    return policy_and_reward(folder, seed, exogenous=[2, 0], candidates=2, **settings)


def dynamics_reward(folder: Path, seed: int) -> Method:
    """A snapshot after 6, 12 and 18 updates, of which the last two are kept; the model moves at every other."""
    kept: dict[str, Any] = {"snapshots": 2, "kept_every": 6, "transition_every": 2, "adversarial_weight": 0.1}
    return DynamicsRewardGame(SIZE, LOW, HIGH, str(simulator_file(folder, seed)), (8, 8), batch_size=16, **kept)


def filtered(folder: Path, seed: int, **settings: Any) -> Method:
    """Some of its roll-outs end where the dynamics reward is low."""
    made = DynamicsReward(SIZE, 2, 2, (8,))
    made.set_scale(torch.randn(50, 2 * SIZE + 2), torch.randn(50, 2 * SIZE + 2))
    made.save(folder / f"{seed}-dynamics.safetensors")
    file = str(folder / f"{seed}-dynamics.safetensors")
    return policy(folder, seed, dynamics_reward=file, dynamics_threshold=0.6, candidates=3, **settings)


def td3(folder: Path, seed: int, **settings: Any) -> Method:
    """Held by a cloned policy of its own, which fails in the Simulator of the last seed."""
    cloned = folder / f"{seed}-cloned.safetensors"
    Policy(SIZE, LOW, HIGH, (8,), members=2).save(cloned)
    held = {"cloned_policy": str(cloned), "anchor_weight": 5.0, "loosen_below": 0.95, "let_go": "failing"}
    return policy(folder, seed, SimulatorTD3, actor_every=3, validation_horizon=2, **held, **settings)


def ppo(folder: Path, seed: int, **settings: Any) -> Method:
    """Roll-outs before the first, the ninth and the seventeenth update; some end before the horizon."""
    ppo_sizes: dict[str, Any] = {"refresh_every": None, "epochs": 2, "minibatches": 4, "uncertainty_cut": 0.9}
    return policy(folder, seed, SimulatorPPO, **{**ppo_sizes, "horizon": 6, "entropy_weight": 0.1, **settings})


def mobile(folder: Path, seed: int, **settings: Any) -> Method:
    return policy(folder, seed, SimulatorMOBILE, **settings)


def combo(folder: Path, seed: int, **settings: Any) -> Method:
    return policy(folder, seed, SimulatorCOMBO, **settings)


def rambo(folder: Path, seed: int, **settings: Any) -> Method:
    """Its model has a step of its own at every third update, against the policy as well as on the data."""
    return policy(folder, seed, SimulatorRAMBO, transition_every=3, adversarial_weight=0.1, **settings)


METHODS = [
    cloning,
    offsim,
    offsim_set_from_outside,
    policy,
    policy_and_reward,
    policy_and_reward_set_from_outside,
    td3,
    ppo,
    dynamics_reward,
    filtered,
    mobile,
    combo,
    rambo,
]


COMPILED = [
    offsim,
    offsim_set_from_outside,
    policy,
    policy_and_reward,
    policy_and_reward_set_from_outside,
    td3,
    ppo,
    mobile,
    combo,
    rambo,
]


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
    module.manual_backward = lambda loss, **given: loss.backward(**given)


def test_seeds_differ_in_what_holds_them(tmp_path: Path) -> None:
    learners: list[Any] = [module for module, _ in build(td3, tmp_path)]
    with pytest.warns(UserWarning, match="loosen_below"):
        earned = [module.judge_cloned() for module in learners]
    assert [module.loosened for module in learners] == [False, False, True]
    assert [float(each["cloned/hold"]) for each in earned] == [float(module.hold) for module in learners]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("make", METHODS)
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
        assert_same(replica, single, (ours, theirs), 1e-3)
    first, second = (module.state_dict() for module, _ in together[:2])
    assert any(not torch.equal(first[name], second[name]) for name in first)


def assert_same(one: Method, other: Method, logged: tuple[Any, Any], tolerance: float) -> None:
    """Two trainings logged the same and ended with the same parameters."""
    assert one.updates == other.updates == UPDATES
    assert logged[0].keys() == logged[1].keys()
    for name in logged[0]:
        torch.testing.assert_close(logged[0][name], logged[1][name], rtol=tolerance, atol=tolerance, msg=name)
    expected = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.skipif(not compiler_at_hand(), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("make", COMPILED)
def test_compiled_updates_equal_plain_ones(make: Callable[..., Method], tmp_path: Path) -> None:
    trained = []
    for compile in ("never", "always"):
        torch.manual_seed(0)
        module = make(tmp_path, 0, compile=compile)
        rows = {name: table(UPDATES, 18) for name in ("expert", "all", "diverse")}
        attach(module, module.configure_optimizers())
        trained.append((module, module.run(module.converse(rows))))
    assert_same(trained[0][0], trained[1][0], (trained[0][1], trained[1][1]), 1e-4)


@pytest.mark.parametrize("make", METHODS)
def test_portions_of_updates_do_not_matter(make: Callable[..., Method], tmp_path: Path) -> None:
    """One Lightning step of 20 updates, or steps of 7, 7 and 6."""
    trained = []
    for portions in ([UPDATES], [7, 7, 6]):
        torch.manual_seed(0)
        module = make(tmp_path, 0)
        rows = {name: table(UPDATES, 18) for name in ("expert", "all", "diverse")}
        attach(module, module.configure_optimizers())
        first = 0
        for portion in portions:
            module.run(module.converse({name: each[first : first + portion] for name, each in rows.items()}))
            first += portion
        trained.append(module)
    # What is logged may be a mean over the step
    assert_same(trained[0], trained[1], ({}, {}), 1e-6)


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
            yield Descend("objective", (torch.zeros(2, SIZE), torch.zeros(2, 2)), learning_rate=1e-3)
        return {}

    batch = SeedBatch([BehaviourCloning(SIZE, LOW, HIGH, (8,)) for _ in range(2)])
    attach(batch, batch.configure_optimizers())
    with pytest.raises(RuntimeError, match="one ended before another"):
        batch.run_together([talk(1), talk(2)])

    def talk_of(function: str) -> Conversation:
        yield Descend(function, (torch.zeros(2, SIZE), torch.zeros(2, 2)), learning_rate=1e-3)
        return {}

    with pytest.raises(RuntimeError, match="not every one asks for the same"):
        batch.run_together([talk_of("objective"), talk_of("another")])
