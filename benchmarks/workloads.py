"""The hot loops of this project on made-up data of a task's shape."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import lightning
import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.objectives import SACLoss, SoftUpdate

from benchmarks.timing import Workload
from datamodules.cache import Table
from datamodules.streams import Stream, TransitionLoader, TransitionStream
from lit_modules.compilation import compiler_at_hand
from lit_modules.critic import QNetwork
from lit_modules.offsim import OffSim
from lit_modules.seeds import SeedBatch
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Policy, Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

SHAPES = {"hopper": ("Hopper-v5", {}, 11, 3), "ant": ("Ant-v5", {"include_cfrc_ext_in_observation": False}, 27, 8)}
ROWS = 50_000  # rows of made-up data
EPISODE = 1000  # steps of an episode of it
UPDATES = 20  # updates per training step
COMPILE = {"never": "", "always": ", compiled"} if compiler_at_hand() else {"never": ""}


class RandomData(lightning.LightningDataModule):
    """Stands in for ``TransitionDataModule``: the same streams over random transitions."""

    def __init__(self, observation_size: int, action_size: int, streams: dict[str, int]) -> None:
        super().__init__()
        generator = np.random.default_rng(0)

        def normal(width: int) -> np.ndarray:
            return generator.standard_normal((ROWS, width), dtype=np.float32)

        flags = np.zeros((ROWS, 1), dtype=bool)
        columns: dict[str, Any] = {
            "observation": normal(observation_size),
            "action": np.tanh(normal(action_size)),
            "terminated": flags,
            "truncated": flags,
            "episode": np.arange(ROWS) // EPISODE,
            "step": np.arange(ROWS) % EPISODE,
        }
        columns["next_observation"] = columns["observation"] + 0.1 * normal(observation_size)
        self.table = Table(columns, np.full(ROWS // EPISODE, EPISODE, dtype=np.int64))
        self.streams = streams
        every = self.table.columns()
        whole = TensorDict(
            {
                "observation": every["observation"],
                "action": every["action"],
                "next": {"observation": every["next_observation"], "terminated": every["terminated"]},
                "episode": every["episode"],
                "step": every["step"],
            },
            batch_size=[ROWS],
        )
        self.expert_train, self.diverse_train = whole[: ROWS // 5], whole[ROWS // 5 :]
        self.expert_held_out = self.diverse_held_out = None
        zero, one = torch.zeros(observation_size), torch.ones(observation_size)
        self.statistics = SimpleNamespace(
            observation_mean=zero,
            observation_std=one,
            action_mean=torch.zeros(action_size),
            action_std=torch.ones(action_size),
            delta_mean=zero,
            delta_std=0.1 * one,
        )
        self.initial_observations = whole["observation"][:100]

    def train_dataloader(self) -> TransitionLoader:
        ranges = {"expert": (0, ROWS // 5), "diverse": (ROWS // 5, ROWS), "all": (0, ROWS)}
        streams = {name: Stream(*ranges[name], rows) for name, rows in self.streams.items()}
        return TransitionLoader(TransitionStream(self.table, streams, UPDATES), 0, lambda: 0)


def simulator(observation_size: int, action_size: int, device: torch.device) -> Simulator:
    """A Simulator of the default size with random weights."""
    torch.manual_seed(0)
    made = Simulator(
        TransitionModel(observation_size, action_size),
        RewardModel(observation_size, action_size),
        TerminationModel(),
        StartStates.of(torch.randn(1000, observation_size)),
        [-1.0] * action_size,
        [1.0] * action_size,
    )
    # Predicted differences of a tenth of the spread, so that roll-outs stay where the data is
    made.transition.delta_normalizer.set_statistics(
        torch.zeros(observation_size), torch.full((observation_size,), 0.05)
    )
    made.reward.standardize(torch.linspace(0.0, 2.0, 100), torch.linspace(-1.0, 1.0, 100))
    made.calibrate_uncertainty(torch.randn(2000, observation_size), torch.randn(2000, action_size).tanh())
    return made.eval().requires_grad_(False).to(device)


def simulator_stage(shape: str, device: torch.device) -> list[Workload]:
    """Updates of OffSim: likelihood alone, and the game."""
    _, _, observation_size, action_size = SHAPES[shape]
    data = RandomData(observation_size, action_size, {"expert": 256, "all": 1792})
    batches = iter(data.train_dataloader())
    workloads = []
    for name, pretraining in (("transition update (likelihood)", 10**9), ("game update", 0)):
        for choice, suffix in COMPILE.items():
            module = _offsim(observation_size, action_size, pretraining, choice)
            _attach(module, data, device)
            module.to(device)
            workloads.append(
                Workload(shape, name + suffix, "updates/s", UPDATES, _training_step(module, batches, device))
            )
    return workloads


def _offsim(observation_size: int, action_size: int, pretraining: int, compile: str = "never") -> OffSim:
    return OffSim(
        observation_size,
        [-1.0] * action_size,
        [1.0] * action_size,
        termination="none",
        proposal={"dataset": 0.5, "uniform": 0.5},
        pretraining_updates=pretraining,
        transition_every=4,
        compile=compile,
    )


def simulation(shape: str, device: torch.device, batches: tuple[int, ...] = (1_000, 10_000, 100_000)) -> list[Workload]:
    """Steps of the Simulator with and without uncertainty, and of the real task."""
    environment_id, arguments, observation_size, action_size = SHAPES[shape]
    model = simulator(observation_size, action_size, device)
    workloads = []
    for rows in batches:
        observation = torch.randn(rows, observation_size, device=device)
        action = torch.randn(rows, action_size, device=device).tanh()
        for with_uncertainty in (False, True):

            def step(o: Tensor = observation, a: Tensor = action, u: bool = with_uncertainty) -> object:
                return model.step(o, a, with_uncertainty=u)

            name = f"simulator step, batch {rows}" + (" with uncertainty" if with_uncertainty else "")
            workloads.append(Workload(shape, name, "transitions/s", rows, step))
    real = gymnasium.make(environment_id, **arguments)
    real.action_space.seed(0)
    real.reset(seed=0)

    def real_steps() -> None:
        for _ in range(100):
            *_, terminated, truncated, _ = real.step(real.action_space.sample())
            if terminated or truncated:
                real.reset()

    workloads.append(Workload(shape, f"MuJoCo: {environment_id}", "transitions/s", 100, real_steps))
    return workloads


def policy_stage(shape: str, device: torch.device) -> list[Workload]:
    """Updates of the policy stage, as configured and as lean as MOPO's, and the ceiling set by the matrix products."""
    _, _, observation_size, action_size = SHAPES[shape]
    data = RandomData(observation_size, action_size, {"expert": 128, "all": 128})
    batches = iter(data.train_dataloader())
    lean = {"layer_norm": False, "cloning_weight": 0.0, "real_share": 0.05}
    workloads = []
    for name, settings in (("policy update, roll-outs included", {}), ("policy update, as lean as MOPO's", lean)):
        for choice, suffix in COMPILE.items():
            module = _policy(observation_size, action_size, compile=choice, **settings)
            _attach(module, data, device)
            module.to(device)
            workloads.append(
                Workload(shape, name + suffix, "updates/s", UPDATES, _training_step(module, batches, device))
            )
    return [
        *workloads,
        Workload(shape, "TorchRL SACLoss, eager, update alone", "updates/s", 1, _torchrl_update(shape, device)),
        Workload(shape, "matrix products of a policy update", "updates/s", 1, _matrix_products(shape, device)),
    ]


def _policy(observation_size: int, action_size: int, **settings: Any) -> SimulatorSAC:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulator.safetensors"
        simulator(observation_size, action_size, torch.device("cpu")).save(path)
        return SimulatorSAC(str(path), **settings)


def seeds_together(shape: str, device: torch.device, count: int = 8) -> list[Workload]:
    """Updates of many seeds at once; a unit is one update of one seed."""
    _, _, observation_size, action_size = SHAPES[shape]
    workloads = []
    for name, streams in (
        ("policy update", {"expert": 128, "all": 128}),
        ("transition update (likelihood)", {"expert": 256, "all": 1792}),
        ("game update", {"expert": 256, "all": 1792}),
    ):
        data = RandomData(observation_size, action_size, streams)
        replicas: list[Any] = []
        for seed in range(count):
            torch.manual_seed(seed)
            pretraining = 0 if name.startswith("game") else 10**9
            if name.startswith("policy"):
                replicas.append(_policy(observation_size, action_size))
            else:
                replicas.append(_offsim(observation_size, action_size, pretraining))
            _attach(replicas[-1], data, device)
            replicas[-1].to(device)
        workloads.append(
            Workload(
                shape,
                f"{name}, {count} seeds together",
                "updates/s",
                count * UPDATES,
                _together(replicas, data, device),
            )
        )
    return workloads


def _together(replicas: list[Any], data: RandomData, device: torch.device) -> Any:
    batch: Any = SeedBatch(replicas)
    _let_train(batch, batch.configure_optimizers())
    loaders = [iter(data.train_dataloader()) for _ in replicas]

    def step() -> None:
        rows = [{name: each.to(device) for name, each in next(loader).items()} for loader in loaders]
        batch.run_together([replica.converse(own) for replica, own in zip(replicas, rows, strict=True)])

    return step


def data_loading(shape: str) -> list[Workload]:
    """Rows per second of the training streams."""
    _, _, observation_size, action_size = SHAPES[shape]
    data = RandomData(observation_size, action_size, {"expert": 256, "all": 1792})
    batches = iter(data.train_dataloader())
    workloads = [Workload(shape, "rows from memory", "rows/s", UPDATES * 2048, lambda: next(batches))]
    folder = tempfile.TemporaryDirectory()
    for name, column in data.table.columns().items():
        np.save(Path(folder.name) / f"{name}.npy", column.numpy())
    mapped = Table(None, data.table.lengths, Path(folder.name))
    streams = {"all": Stream(0, ROWS, 2048, chunked=True)}
    chunks = iter(TransitionLoader(TransitionStream(mapped, streams, UPDATES), 0, lambda: 0))

    def read(keep: object = folder) -> object:
        return next(chunks)

    workloads.append(Workload(shape, "rows from memory-mapped files", "rows/s", UPDATES * 2048, read))
    return workloads


def lightning_overhead(shape: str, device: torch.device) -> list[Workload]:
    """The same policy updates through ``Trainer.fit`` and in a bare loop."""
    _, _, observation_size, action_size = SHAPES[shape]
    data = RandomData(observation_size, action_size, {"expert": 128, "all": 128})
    steps = 10
    inside, bare = _policy(observation_size, action_size), _policy(observation_size, action_size)
    _attach(bare, data, device)
    bare.to(device)
    batches = iter(data.train_dataloader())
    training = _training_step(bare, batches, device)

    def fit() -> None:
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_steps=steps,
            logger=False,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(inside, datamodule=data)

    def loop() -> None:
        for _ in range(steps):
            training()

    return [
        Workload(shape, "policy stage through Lightning", "updates/s", steps * UPDATES, fit),
        Workload(shape, "policy stage in a bare loop", "updates/s", steps * UPDATES, loop),
    ]


def _attach(module: Any, data: RandomData, device: torch.device) -> None:
    """Let a module train without a Trainer."""
    strategy = SimpleNamespace(root_device=device)
    module._trainer = SimpleNamespace(datamodule=data, is_global_zero=True, global_rank=0, strategy=strategy)
    module.setup("fit")
    _let_train(module, module.configure_optimizers())


def _let_train(module: Any, optimizers: Any) -> None:
    listed = optimizers if isinstance(optimizers, list) else [optimizers]
    wrapped = [SimpleNamespace(optimizer=each, step=lambda: None) for each in listed]
    module.optimizers = lambda: wrapped
    module.manual_backward = lambda loss: loss.backward()
    module.log = module.log_dict = lambda *_, **__: None


def _training_step(module: Any, batches: Any, device: torch.device) -> Any:
    def step() -> None:
        batch = {name: rows.to(device) for name, rows in next(batches).items()}
        module.training_step(batch, 0)

    return step


def _torchrl_update(shape: str, device: torch.device, rows: int = 256) -> Any:
    """TorchRL's own components, put together as its documentation does."""
    _, _, observation_size, action_size = SHAPES[shape]
    policy = Policy(observation_size, [-1.0] * action_size, [1.0] * action_size)
    critic = QNetwork(observation_size, action_size, layer_norm=False)
    loss = SACLoss(policy.actor(), critic.module(), loss_function="l2", fixed_alpha=True, target_entropy=-1.0)
    loss = loss.to(device)
    loss.make_value_estimator(gamma=0.99)
    target = SoftUpdate(loss, tau=0.005)
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=3e-4, fused=True)
    replay = TensorDictReplayBuffer(storage=LazyTensorStorage(ROWS, device=device), batch_size=rows)
    replay.extend(
        TensorDict(
            {
                "observation": torch.randn(ROWS, observation_size),
                "action": torch.randn(ROWS, action_size).tanh(),
                "next": {
                    "observation": torch.randn(ROWS, observation_size),
                    "reward": torch.randn(ROWS, 1),
                    "terminated": torch.zeros(ROWS, 1, dtype=torch.bool),
                    "done": torch.zeros(ROWS, 1, dtype=torch.bool),
                },
            },
            batch_size=[ROWS],
        )
    )

    def update() -> None:
        losses = loss(replay.sample())
        total = losses["loss_actor"] + losses["loss_qvalue"]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        target.step()

    return update


def _matrix_products(shape: str, device: torch.device, rows: int = 256, width: int = 256, cloning: int = 128) -> Any:
    """Only the matrix products of one update: no activation, no optimiser, no Python around tensors.

    A layer's forward pass is one product; its backward pass one for the weights and one for the input.
    """
    _, _, observation_size, action_size = SHAPES[shape]
    actor = [(observation_size, width), (width, width), (width, 2 * action_size)]
    critic = [(observation_size + action_size, width), (width, width), (width, 1)]
    features = 2 * observation_size + action_size
    reward = [(features, width), (width, width), (width, width), (width, 1)]
    products: list[tuple[int, int, int, int]] = []  # batch of matrices, rows, inner, columns

    def forward(layers: list[tuple[int, int]], count: int, members: int = 1) -> None:
        products.extend((members, count, a, b) for a, b in layers)

    def backward_weights(layers: list[tuple[int, int]], count: int, members: int = 1) -> None:
        products.extend((members, a, count, b) for a, b in layers)

    def backward_inputs(layers: list[tuple[int, int]], count: int, members: int = 1) -> None:
        products.extend((members, count, b, a) for a, b in layers)

    forward(reward, rows)
    forward(actor, rows)  # next action
    forward(critic, rows, 2)  # its target value
    forward(critic, rows, 2)
    backward_weights(critic, rows, 2)
    backward_inputs(critic[1:], rows, 2)
    for count in (rows, cloning):
        forward(actor, count)
        backward_weights(actor, count)
        backward_inputs(actor[1:], count)
    forward(critic, rows, 2)  # value of the proposed action
    backward_inputs(critic, rows, 2)
    pairs = [(torch.randn(e, m, k, device=device), torch.randn(e, k, n, device=device)) for e, m, k, n in products]

    def multiply() -> None:
        for left, right in pairs:
            torch.bmm(left, right)

    return multiply
