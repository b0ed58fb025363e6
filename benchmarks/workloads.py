"""The hot loops of this project on made-up data of a task's shape.

Naming a workload costs nothing: its networks and data are made when it is first measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Semaphore, Thread
from types import SimpleNamespace
from typing import Any

import gymnasium
import lightning
import numpy as np
import torch
from tensordict import TensorDict

from app.pipeline import BATCHES_PER_STEP
from benchmarks.timing import Workload
from benchmarks.yardsticks import matrix_products, torchrl_update
from datamodules.cache import Table
from datamodules.streams import Stream, TransitionLoader, TransitionStream
from lit_modules.compilation import compiler_at_hand
from lit_modules.offsim import OffSim
from lit_modules.seeds import SeedBatch
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

SHAPES = {"hopper": ("Hopper-v5", {}, 11, 3), "ant": ("Ant-v5", {"include_cfrc_ext_in_observation": False}, 27, 8)}
ROWS = 50_000  # rows of made-up data
EPISODE = 1000  # steps of an episode of it
STEP_ROWS = (1_000, 10_000, 100_000)  # batches that a simulator is stepped in
UPDATES = BATCHES_PER_STEP  # updates per training step, as in `offsim train`
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
            next_observation_low=-10.0 * one,
            next_observation_high=10.0 * one,
        )
        self.initial_observations = whole["observation"][:100]

    def release(self) -> None:
        """It is all in memory."""

    def train_dataloader(self) -> TransitionLoader:
        ranges = {"expert": (0, ROWS // 5), "diverse": (ROWS // 5, ROWS), "all": (0, ROWS)}
        streams = {name: Stream(*ranges[name], rows) for name, rows in self.streams.items()}
        ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return TransitionLoader(TransitionStream(self.table, streams, UPDATES, 0, *ranks), 0, lambda: 0)


def simulator(observation_size: int, action_size: int, device: torch.device) -> Simulator:
    """A Simulator of the default size with random weights."""
    torch.manual_seed(0)
    made = Simulator(
        TransitionModel(observation_size, action_size, residual=True),
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
    """Updates of OffSim: likelihood alone (7 members, 256 rows each), and the game."""
    _, _, observation_size, action_size = SHAPES[shape]

    def build(pretraining: int, choice: str) -> Callable[[], object]:
        data = RandomData(observation_size, action_size, {"expert": 256, "all": 1792})
        return _training(offsim(observation_size, action_size, pretraining, choice), data, device)

    return [
        Workload(shape, name + suffix, "updates/s", UPDATES, partial(build, pretraining, choice))
        for name, pretraining in (("transition update (likelihood)", 10**9), ("game update", 0))
        for choice, suffix in COMPILE.items()
    ]


def offsim(observation_size: int, action_size: int, pretraining: int, compile: str = "never") -> OffSim:
    """OffSim of the default size."""
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


def simulation(shape: str, device: torch.device) -> list[Workload]:
    """Steps of the Simulator with and without uncertainty, and of the real task."""
    environment_id, arguments, observation_size, action_size = SHAPES[shape]

    def build(rows: int, with_uncertainty: bool) -> Callable[[], object]:
        model = simulator(observation_size, action_size, device)
        observation = torch.randn(rows, observation_size, device=device)
        action = torch.randn(rows, action_size, device=device).tanh()
        return lambda: model.step(observation, action, with_uncertainty=with_uncertainty)

    def build_transition(rows: int) -> Callable[[], object]:
        model = simulator(observation_size, action_size, device).transition
        observation = torch.randn(rows, observation_size, device=device)
        action = torch.randn(rows, action_size, device=device).tanh()
        return lambda: torch.no_grad()(model.drawn)(observation, action)

    def build_real() -> Callable[[], object]:
        real = gymnasium.make(environment_id, **arguments)
        real.action_space.seed(0)
        real.reset(seed=0)

        def steps() -> None:
            for _ in range(100):
                *_, terminated, truncated, _ = real.step(real.action_space.sample())
                if terminated or truncated:
                    real.reset()

        return steps

    return [
        *(
            Workload(shape, f"simulator step, batch {rows}{suffix}", "transitions/s", rows, partial(build, rows, doubt))
            for rows in STEP_ROWS
            for doubt, suffix in ((False, ""), (True, " with uncertainty"))
        ),
        *(
            Workload(
                shape,
                f"simulator's transition alone, batch {rows}",
                "transitions/s",
                rows,
                partial(build_transition, rows),
            )
            for rows in STEP_ROWS
        ),
        Workload(shape, f"MuJoCo: {environment_id}", "transitions/s", 100, build_real),
    ]


def policy_stage(shape: str, device: torch.device) -> list[Workload]:
    """Updates of the policy stage, as configured and as lean as MOPO's, and the ceiling set by the matrix products.

    With its roll-outs apart, a lean update samples 256 rows, 5% of them recorded, and takes one step of actor, twin
    critics, temperature and targets, as an update of MOPO does; ``benchmarks/peer.py`` says what differs.
    """
    _, _, observation_size, action_size = SHAPES[shape]
    lean: dict[str, Any] = {"layer_norm": False, "cloning_weight": 0.0, "real_share": 0.05}
    # The buffer is filled once, before anything is timed
    entropy = {"temperature": 0.01, "target_entropy": -float(action_size), "deviation": None}
    apart = {**lean, **entropy, "refresh_every": 10**9}

    def build(settings: dict[str, Any], choice: str) -> Callable[[], object]:
        data = RandomData(observation_size, action_size, {"expert": 128, "all": 128})
        return _training(policy_learner(observation_size, action_size, compile=choice, **settings), data, device)

    return [
        *(
            Workload(shape, name + suffix, "updates/s", UPDATES, partial(build, settings, choice))
            for name, settings in (
                ("policy update, roll-outs included", {}),
                ("policy update, as lean as MOPO's", lean),
                ("policy update, as lean as MOPO's, roll-outs apart", apart),
            )
            for choice, suffix in COMPILE.items()
        ),
        Workload(
            shape,
            "TorchRL SACLoss, eager, update alone",
            "updates/s",
            1,
            partial(torchrl_update, observation_size, action_size, device),
        ),
        Workload(
            shape,
            "matrix products of a policy update",
            "updates/s",
            1,
            partial(matrix_products, observation_size, action_size, device),
        ),
    ]


def policy_learner(observation_size: int, action_size: int, **settings: Any) -> SimulatorSAC:
    """Soft actor-critic of the default size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulator.safetensors"
        simulator(observation_size, action_size, torch.device("cpu")).save(path)
        return SimulatorSAC(str(path), **settings)


def seeds_together(shape: str, device: torch.device, count: int = 8) -> list[Workload]:
    """Updates of many seeds at once; a unit is one update of one seed."""
    _, _, observation_size, action_size = SHAPES[shape]

    def build(streams: dict[str, int], make: Callable[[], Any]) -> Callable[[], object]:
        data = RandomData(observation_size, action_size, streams)
        replicas = []
        for seed in range(count):
            torch.manual_seed(seed)
            replicas.append(make())
            _attach(replicas[-1], data, device)
        return _together(replicas, data, device)

    policy, game = {"expert": 128, "all": 128}, {"expert": 256, "all": 1792}
    return [
        Workload(shape, f"{name}, {count} seeds together", "updates/s", count * UPDATES, partial(build, streams, make))
        for name, streams, make in (
            ("policy update", policy, partial(policy_learner, observation_size, action_size)),
            ("transition update (likelihood)", game, partial(offsim, observation_size, action_size, 10**9)),
            ("game update", game, partial(offsim, observation_size, action_size, 0)),
        )
    ]


def _together(replicas: list[Any], data: RandomData, device: torch.device) -> Callable[[], object]:
    batch: Any = SeedBatch(replicas)
    _let_train(batch, batch.configure_optimizers())
    loaders = [iter(data.train_dataloader()) for _ in replicas]

    def step() -> None:
        rows = [_next(loader, device) for loader in loaders]
        batch.run_together([replica.converse(own) for replica, own in zip(replicas, rows, strict=True)])

    return step


def data_loading(shape: str) -> list[Workload]:
    """Rows per second of the training streams."""
    _, _, observation_size, action_size = SHAPES[shape]
    streams = {"expert": 256, "all": 1792}

    def from_memory() -> Callable[[], object]:
        batches = iter(RandomData(observation_size, action_size, streams).train_dataloader())
        return lambda: next(batches)

    def from_files() -> Callable[[], object]:
        table = RandomData(observation_size, action_size, streams).table
        folder = tempfile.TemporaryDirectory()
        for name, column in table.columns().items():
            np.save(Path(folder.name) / f"{name}.npy", column.numpy())
        mapped = Table(None, table.lengths, Path(folder.name))
        every = {"all": Stream(0, ROWS, 2048, chunked=True)}
        chunks = iter(TransitionLoader(TransitionStream(mapped, every, UPDATES), 0, lambda: 0))

        def read(keep: object = folder) -> object:
            return next(chunks)

        return read

    return [
        Workload(shape, "rows from memory", "rows/s", UPDATES * 2048, from_memory),
        Workload(shape, "rows from memory-mapped files", "rows/s", UPDATES * 2048, from_files),
    ]


class Turns(lightning.Callback):
    """Lets a training in another thread take steps on demand, so that its start is not timed with them."""

    def __init__(self) -> None:
        self.allowed, self.taken = Semaphore(0), Semaphore(0)

    def on_train_batch_start(self, *_: Any) -> None:
        self.allowed.acquire()

    def on_train_batch_end(self, *_: Any) -> None:
        self.taken.release()

    def take(self, steps: int) -> None:
        """Return once so many steps more were taken."""
        for _ in range(steps):
            self.allowed.release()
        for _ in range(steps):
            self.taken.acquire()


def lightning_overhead(shape: str, device: torch.device) -> list[Workload]:
    """The same policy updates through ``Trainer.fit`` and in a bare loop."""
    _, _, observation_size, action_size = SHAPES[shape]
    streams = {"expert": 128, "all": 128}
    steps = 4

    def through_lightning() -> Callable[[], object]:
        module, data = policy_learner(observation_size, action_size), RandomData(observation_size, action_size, streams)
        turns = Turns()
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_steps=-1,
            logger=False,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[turns],
        )
        threads = torch.get_num_threads()

        def fit() -> None:
            torch.set_num_threads(threads)  # a thread starts with the default
            trainer.fit(module, datamodule=data)

        Thread(target=fit, daemon=True).start()
        return partial(turns.take, steps)

    def bare() -> Callable[[], object]:
        data = RandomData(observation_size, action_size, streams)
        step = _training(policy_learner(observation_size, action_size), data, device)

        def loop() -> None:
            for _ in range(steps):
                step()

        return loop

    return [
        Workload(shape, "policy stage through Lightning", "updates/s", steps * UPDATES, through_lightning),
        Workload(shape, "policy stage in a bare loop", "updates/s", steps * UPDATES, bare),
    ]


def _attach(module: Any, data: RandomData, device: torch.device) -> None:
    """Let a module train on a device without a Trainer."""
    strategy = SimpleNamespace(root_device=device)
    quiet = {"loggers": [], "log_every_n_steps": 0}
    trainer = {"datamodule": data, "is_global_zero": True, "global_rank": 0, "strategy": strategy, "max_steps": -1}
    module._trainer = SimpleNamespace(**trainer, **quiet)
    module.setup("fit")
    _let_train(module, module.configure_optimizers())
    module.to(device)


def _let_train(module: Any, optimizers: Any) -> None:
    listed = optimizers if isinstance(optimizers, list) else [optimizers]
    wrapped = [SimpleNamespace(optimizer=each, step=lambda: None) for each in listed]
    module.optimizers = lambda: wrapped
    module.manual_backward = lambda loss, **given: loss.backward(**given)
    module.log = module.log_dict = lambda *_, **__: None


def _training(module: Any, data: RandomData, device: torch.device) -> Callable[[], object]:
    _attach(module, data, device)
    batches = iter(data.train_dataloader())
    return lambda: module.training_step(_next(batches, device), 0)


def _next(batches: Iterator[dict[str, TensorDict]], device: torch.device) -> dict[str, TensorDict]:
    return {name: rows.to(device) for name, rows in next(batches).items()}
