"""One policy, from one state, in the real task and in its Simulator, side by side."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from zoo import Policy, Simulator
from zoo.envs.rendering import Renderer
from zoo.row_random import RowRandom

SECONDS = 4.0
FRAMES_PER_SECOND = 12
SIZE = 200  # of one picture, in pixels
LINE = 4  # between the two
COLOURS = 64  # of the palette: keeps the file small


def write_video(path: Path, simulator: Simulator, policy: Policy, seed: int) -> Path:
    """Write a GIF: the real task on the left, the Simulator on the right, which goes on after an end of the left one.

    Args:
        path: of the file.
        simulator: of a task whose states can be drawn.
        policy: who acts in both, without noise.
        seed: of both.

    Raises:
        RuntimeError: if this machine cannot draw.
        ValueError: if nobody knows how the task's states follow from observations.
    """
    left, right = (Renderer(simulator, "rgb_array") for _ in range(2))
    real = left.environment
    observation, _ = real.reset(seed=seed)
    imagined = torch.as_tensor(observation, dtype=torch.float32).unsqueeze(0)
    random = RowRandom([seed])
    members = simulator.episode_members(1, random)
    right.begin(imagined[0].numpy())
    every = max(1, round(1.0 / (FRAMES_PER_SECOND * real.dt)))
    frames = []
    for step in range(round(SECONDS / real.dt)):
        if step % every == 0:
            frames.append(_beside(real.render(), right.draw()) if step else _beside(left.draw(), right.draw()))
        action = policy.act(torch.as_tensor(observation, dtype=torch.float32).unsqueeze(0))
        observation, *_ = real.step(action[0].numpy())
        imagined, *_ = simulator.step(imagined, policy.act(imagined), random, members=members)
        right.advance(imagined[0].numpy())
    for renderer in (left, right):
        renderer.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(path, frames, extension=".gif", duration=1000 // FRAMES_PER_SECOND, loop=0)
    return path


def _beside(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = [np.asarray(Image.fromarray(image).resize((SIZE, SIZE))) for image in (left, right)]
    line = np.full((SIZE, LINE, 3), 255, dtype=np.uint8)
    whole = Image.fromarray(np.concatenate([small[0], line, small[1]], axis=1))
    return np.asarray(whole.quantize(COLOURS).convert("RGB"))
