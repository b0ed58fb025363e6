"""What policy updates are held against: TorchRL's own components, and bare matrix products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.objectives import SACLoss, SoftUpdate

from lit_modules.critic import QNetwork
from zoo import Policy

STORED = 50_000  # transitions in TorchRL's replay buffer


def torchrl_update(
    observation_size: int, action_size: int, device: torch.device, rows: int = 256
) -> Callable[[], object]:
    """TorchRL's own components, put together as its documentation does."""
    policy = Policy(observation_size, [-1.0] * action_size, [1.0] * action_size)
    critic = QNetwork(observation_size, action_size, layer_norm=False)
    loss = SACLoss(policy.actor(), critic.module(), loss_function="l2", fixed_alpha=True, target_entropy=-1.0)
    loss = loss.to(device)
    loss.make_value_estimator(gamma=0.99)
    target = SoftUpdate(loss, tau=0.005)
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=3e-4, fused=True)
    replay = TensorDictReplayBuffer(storage=LazyTensorStorage(STORED, device=device), batch_size=rows)
    replay.extend(
        TensorDict(
            {
                "observation": torch.randn(STORED, observation_size),
                "action": torch.randn(STORED, action_size).tanh(),
                "next": {
                    "observation": torch.randn(STORED, observation_size),
                    "reward": torch.randn(STORED, 1),
                    "terminated": torch.zeros(STORED, 1, dtype=torch.bool),
                    "done": torch.zeros(STORED, 1, dtype=torch.bool),
                },
            },
            batch_size=[STORED],
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


def matrix_products(
    observation_size: int, action_size: int, device: torch.device, rows: int = 256, width: int = 256, cloning: int = 128
) -> Callable[[], object]:
    """Only the matrix products of one update: no activation, no optimiser, no Python around tensors.

    A layer's forward pass is one product; its backward pass one for the weights and one for the input.
    """
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
