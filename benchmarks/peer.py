"""OfflineRL-Kit's MOPO on the same shapes, in the same interleaved run: ``python -m benchmarks.speed --peer CHECKOUT``.

The checkout's own code runs, built with the defaults of its ``run_example/run_mopo.py`` and fed as its trainers feed
it. None of it is part of this project, and nothing is written into the checkout. Which rows to compare:

* MOPO policy update with our "policy update, as lean as MOPO's, roll-outs apart". Both sample 256 rows, 5% of them
  recorded, and step a 256x256 actor, twin critics, the temperature and the targets. Ours also computes the learned
  reward of each row, which MOPO has stored with it, standardises observations and averages the policy's weights;
  MOPO hands five figures to Python after each update, ours none.
* dynamics update with our "transition update (likelihood)". Both take 7 members of 4x200 through 256 rows each. Ours
  also loads the rows, weighs them by their bootstrap and logs the norm of the gradients; MOPO predicts the reward as
  one more feature, has weight decay in its loss and hands that to Python. Shuffling, once per epoch, is left out.
* dynamics step with our "simulator step ... with uncertainty". Both evaluate all members and a doubt about them. Ours
  has a reward network of its own and draws noise for one member; MOPO draws it for all and does so in NumPy.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Workload
from benchmarks.workloads import ROWS, SHAPES, STEP_ROWS, UPDATES

NAME = "OfflineRL-Kit"
EXPECTED = Path("offlinerlkit", "policy", "model_based", "mopo.py")
PARTS = {
    "nets": ("MLP",),
    "modules": ("ActorProb", "Critic", "TanhDiagGaussian", "EnsembleDynamicsModel"),
    "dynamics": ("EnsembleDynamics",),
    "policy": ("MOPOPolicy",),
    "buffer": ("ReplayBuffer",),
    "utils.scaler": ("StandardScaler",),
    "utils.termination_fns": ("get_termination_fn",),
}
SIMULATED = 250_000  # transitions in its buffer: 50,000 roll-outs of one step, kept for five epochs
BATCH, REAL_SHARE = 256, 0.05
MEMBERS = 7
WEIGHT_DECAYS = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
GENERATOR = np.random.default_rng(0)


class PeerError(Exception):
    """The checkout is not what is expected."""


def peer_workloads(checkout: Path, shape: str, device: torch.device) -> list[Workload]:
    """Policy updates, dynamics updates and dynamics steps of a checkout of OfflineRL-Kit.

    Raises:
        PeerError: if the folder holds no such checkout, or its packages cannot be imported.
    """
    kit = _imported(checkout)
    return [
        Workload(shape, f"{NAME}: MOPO policy update", "updates/s", 1, partial(_policy_update, kit, shape, device)),
        Workload(
            shape, f"{NAME}: dynamics update", "updates/s", UPDATES, partial(_dynamics_update, kit, shape, device)
        ),
        *(
            Workload(
                shape,
                f"{NAME}: dynamics step, batch {rows}",
                "transitions/s",
                rows,
                partial(_dynamics_step, kit, shape, device, rows),
            )
            for rows in STEP_ROWS
        ),
    ]


def _imported(checkout: Path) -> SimpleNamespace:
    checkout = checkout.expanduser().resolve()
    if not (checkout / EXPECTED).is_file():
        raise PeerError(f"{checkout} is no checkout of {NAME}: expected a folder that holds {EXPECTED}")
    try:
        with _importable(checkout):
            modules = {name: importlib.import_module(f"offlinerlkit.{name}") for name in PARTS}
        return SimpleNamespace(
            **{part: getattr(modules[name], part) for name, parts in PARTS.items() for part in parts}
        )
    except (ImportError, AttributeError) as error:
        raise PeerError(f"{checkout} holds a {NAME} of a version that cannot be used here: {error}") from error


@contextmanager
def _importable(checkout: Path) -> Iterator[None]:
    """The checkout on the path, Gymnasium in place of the older Gym it asks for, and no bytecode written into it."""
    importlib.import_module("gymnasium.envs.mujoco.mujoco_env")
    before, wrote_no_bytecode = _loaded("gym"), sys.dont_write_bytecode
    sys.modules.update({f"gym{name.removeprefix('gymnasium')}": each for name, each in _loaded("gymnasium").items()})
    sys.path.insert(0, str(checkout))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote_no_bytecode
        sys.path.remove(str(checkout))
        # Other packages look for Gym too, and must not find it
        for name in _loaded("gym"):
            del sys.modules[name]
        sys.modules.update(before)


def _loaded(package: str) -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}


def _dynamics(kit: SimpleNamespace, shape: str, device: torch.device) -> Any:
    _, _, observation_size, action_size = SHAPES[shape]
    torch.manual_seed(0)
    model = kit.EnsembleDynamicsModel(
        obs_dim=observation_size,
        action_dim=action_size,
        hidden_dims=(200, 200, 200, 200),
        num_ensemble=MEMBERS,
        num_elites=5,
        weight_decays=WEIGHT_DECAYS,
        device=str(device),
    )
    scaler = kit.StandardScaler()
    scaler.fit(_normal(1000, observation_size + action_size))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return kit.EnsembleDynamics(model, optimizer, scaler, kit.get_termination_fn(task=shape), penalty_coef=2.5)


def _policy_update(kit: SimpleNamespace, shape: str, device: torch.device) -> Callable[[], object]:
    _, _, observation_size, action_size = SHAPES[shape]
    dynamics, place = _dynamics(kit, shape, device), str(device)
    backbone = kit.MLP(input_dim=observation_size, hidden_dims=(256, 256))
    head = kit.TanhDiagGaussian(backbone.output_dim, action_size, unbounded=True, conditioned_sigma=True)
    actor = kit.ActorProb(backbone, head, place)
    critics = [
        kit.Critic(kit.MLP(input_dim=observation_size + action_size, hidden_dims=(256, 256)), place) for _ in range(2)
    ]
    log_alpha = torch.zeros(1, requires_grad=True, device=device)
    policy = kit.MOPOPolicy(
        dynamics,
        actor,
        *critics,
        torch.optim.Adam(actor.parameters(), lr=1e-4),
        *(torch.optim.Adam(critic.parameters(), lr=3e-4) for critic in critics),
        tau=0.005,
        gamma=0.99,
        alpha=(-action_size, log_alpha, torch.optim.Adam([log_alpha], lr=1e-4)),
    )
    policy.train()
    recorded, simulated = (_buffer(kit, shape, device, rows) for rows in (ROWS, SIMULATED))
    real = int(BATCH * REAL_SHARE)
    return lambda: policy.learn({"real": recorded.sample(real), "fake": simulated.sample(BATCH - real)})


def _buffer(kit: SimpleNamespace, shape: str, device: torch.device, rows: int) -> Any:
    _, _, observation_size, action_size = SHAPES[shape]
    buffer = kit.ReplayBuffer(rows, (observation_size,), np.float32, action_size, np.float32, str(device))
    observation = _normal(rows, observation_size)
    buffer.load_dataset(
        {
            "observations": observation,
            "actions": np.tanh(_normal(rows, action_size)),
            "next_observations": observation + 0.1 * _normal(rows, observation_size),
            "rewards": _normal(rows),
            "terminals": np.zeros(rows, dtype=np.float32),
        }
    )
    return buffer


def _dynamics_update(kit: SimpleNamespace, shape: str, device: torch.device) -> Callable[[], object]:
    _, _, observation_size, action_size = SHAPES[shape]
    dynamics = _dynamics(kit, shape, device)
    inputs = _normal(MEMBERS, UPDATES * BATCH, observation_size + action_size)
    targets = 0.1 * _normal(MEMBERS, UPDATES * BATCH, observation_size + 1)
    return lambda: dynamics.learn(inputs, targets, BATCH)


def _dynamics_step(kit: SimpleNamespace, shape: str, device: torch.device, rows: int) -> Callable[[], object]:
    _, _, observation_size, action_size = SHAPES[shape]
    dynamics = _dynamics(kit, shape, device)
    observation, action = _normal(rows, observation_size), np.tanh(_normal(rows, action_size))
    return lambda: dynamics.step(observation, action)


def _normal(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape, dtype=np.float32)
