"""The faces of a Simulator: a Gymnasium environment, a vectorised one, and a TorchRL environment."""

from typing import TYPE_CHECKING, Any

from zoo.envs.single import SimulatorEnv
from zoo.envs.vector import SimulatorVectorEnv

if TYPE_CHECKING:
    from zoo.envs.torchrl import SimulatorTorchRLEnv

__all__ = ["SimulatorEnv", "SimulatorTorchRLEnv", "SimulatorVectorEnv"]


def __getattr__(name: str) -> Any:
    if name == "SimulatorTorchRLEnv":  # TorchRL's environments take seconds to import
        from zoo.envs.torchrl import SimulatorTorchRLEnv

        return SimulatorTorchRLEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
