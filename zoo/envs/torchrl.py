"""Many episodes of a Simulator as a batched TorchRL environment."""

from __future__ import annotations

from typing import Any, Self, Unpack

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from zoo.envs.episodes import Episodes, Options
from zoo.loading import Loadable, load, named


class SimulatorTorchRLEnv(EnvBase):
    """A learned Simulator as a TorchRL environment of batch size ``(num_envs,)``.

    After ``set_seed(seed)``, row ``i`` is the episode of a ``SimulatorEnv`` that is reset with ``seed + i``. Beside
    ``observation`` it holds ``uncertainty``, ``(num_envs, 1)``, unless that is turned off; 0 where episodes start.
    ``reset(exogenous=...)`` says what is set from outside, see ``Episodes.begin``.

    Args:
        simulator: a Simulator, the path of its file, or an id of the zoo.
        num_envs: rows.
        options: how episodes run, see ``zoo.envs.episodes.Episodes``.
    """

    def __init__(self, simulator: Loadable | None = None, num_envs: int = 1, **options: Unpack[Options]) -> None:
        episodes = Episodes(load(named(simulator)), num_envs, **options)
        super().__init__(device=episodes.device, batch_size=[num_envs])
        self.episodes = episodes
        size = episodes.simulator.observation_size

        def column() -> Unbounded:
            return Unbounded((num_envs, 1), device=self.device, dtype=torch.float32)

        def flag() -> Binary:
            return Binary(shape=(num_envs, 1), device=self.device, dtype=torch.bool)

        observations = {"observation": Unbounded((num_envs, size), device=self.device, dtype=torch.float32)}
        if episodes.uncertainty:
            observations["uncertainty"] = column()
        self.observation_spec = Composite(observations, shape=(num_envs,))
        self.action_spec = Bounded(
            episodes.low.expand(num_envs, -1), episodes.high.expand(num_envs, -1), device=self.device
        )
        self.reward_spec = column()
        self.done_spec = Composite({name: flag() for name in ("done", "terminated", "truncated")}, shape=(num_envs,))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Go on elsewhere, Simulator included; arguments as those of ``torch.Tensor.to`` that name a device."""
        moved: Self = super().to(*args, **kwargs)
        if moved.device is not None:
            self.episodes.to(moved.device)
        return moved

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: object) -> TensorDict:
        rows = None if tensordict is None else tensordict.get("_reset", None)
        observation = self.episodes.begin(None if rows is None else rows.view(-1), kwargs.get("exogenous"))
        nothing = torch.zeros_like(observation[:, 0])
        return self._columns(
            observation=observation, uncertainty=nothing, terminated=nothing > 0, truncated=nothing > 0
        )

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        return self._columns(**self.episodes.step(tensordict["action"])._asdict())

    def _columns(self, observation: Tensor, **scalars: Tensor | None) -> TensorDict:
        """A TensorDict of observations ``(B, D)`` and, as ``(B, 1)``, whatever of ``scalars`` ``(B,)`` is asked for."""
        wanted = {name: value for name, value in scalars.items() if value is not None}
        if not self.episodes.uncertainty:
            wanted.pop("uncertainty", None)
        columns = {name: value.unsqueeze(-1) for name, value in wanted.items()}
        columns["done"] = columns["terminated"] | columns["truncated"]
        return TensorDict({"observation": observation, **columns}, batch_size=self.batch_size, device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.episodes.seed([seed + row for row in range(len(self.episodes))])
