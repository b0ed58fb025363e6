"""Drawing imagined states: the model is where the observation says, and machines that cannot draw are told so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from zoo import TASKS, get_task
from zoo.envs import SimulatorEnv, SimulatorVectorEnv
from zoo.envs.rendering import Renderer


@pytest.mark.parametrize("task", sorted(TASKS))
def test_an_observation_puts_the_model_where_the_real_one_was(task: str) -> None:
    facts = get_task(task)
    assert facts.placement is not None
    real, placed = (facts.make().unwrapped for _ in range(2))
    try:
        for environment in (real, placed):
            environment.reset(seed=0)
        real.action_space.seed(0)
        for _ in range(20):
            observation, *_ = real.step(real.action_space.sample())
        position, velocity = facts.placement.state(observation)
        assert (position[: facts.placement.hidden] == 0.0).all()
        placed.set_state(position, velocity)
        np.testing.assert_allclose(placed._get_obs(), observation, atol=1e-5)
    finally:
        real.close()
        placed.close()


def test_the_body_moves_on_with_its_velocity_and_starts_again_at_the_origin(make: Any) -> None:
    renderer = Renderer(make(), "rgb_array")
    observation = np.zeros(11, dtype=np.float32)
    observation[0], observation[5] = 1.25, 2.0  # height, forward velocity
    renderer.begin(observation)
    renderer.advance(observation)
    renderer.advance(observation)
    assert renderer.environment.data.qpos[0] == pytest.approx(2 * 2.0 * renderer.environment.dt)
    assert renderer.environment.data.qpos[1] == pytest.approx(1.25)
    renderer.begin(observation)
    assert renderer.environment.data.qpos[0] == 0.0
    renderer.close()


def test_every_row_is_drawn_where_it_is(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Renderer, "draw", lambda self: self.environment.data.qpos[1:].copy())
    environment = SimulatorVectorEnv(make(), 3, horizon=2, render_mode="rgb_array")
    observation, _ = environment.reset(seed=1)
    for _ in range(4):  # past the horizon and a new start
        np.testing.assert_allclose(np.stack(environment.render() or ()), observation[:, :5])
        observation, *_ = environment.step(environment.action_space.sample())
    environment.close()


def test_a_machine_that_cannot_draw_is_told_what_to_do_and_can_do_the_rest(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    environment = SimulatorEnv(make(), render_mode="rgb_array")
    environment.reset(seed=0)

    def fail() -> None:
        raise mujoco.FatalError("an OpenGL platform library has not been loaded")

    assert environment.renderer is not None
    monkeypatch.setattr(environment.renderer.environment, "render", fail)
    with pytest.raises(RuntimeError, match=r"cannot draw MuJoCo scenes .an OpenGL.*install EGL"):
        environment.render()
    environment.step(np.zeros(3, np.float32))
    environment.close()


def test_without_a_screen_there_is_no_window(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match="there is no screen to draw on: use render_mode='rgb_array'"):
        SimulatorEnv(make(), render_mode="human")


def test_an_image_is_drawn(make: Any) -> None:
    environment = SimulatorEnv(make(), render_mode="rgb_array")
    environment.reset(seed=0)
    try:
        image = environment.render()
    except RuntimeError as error:
        pytest.skip(str(error))
    assert image.shape == (480, 480, 3) and image.dtype == np.uint8 and image.std() > 10
    environment.close()


def test_what_nobody_knows_how_to_draw_is_refused(make: Any, path: Path) -> None:
    with pytest.raises(ValueError, match=r"a task that is not known cannot be drawn.*ant, halfcheetah, hopper"):
        SimulatorEnv(make(task=None), render_mode="rgb_array")
    with pytest.raises(ValueError, match="unknown render_mode 'gif': choose one of rgb_array, human, or None"):
        SimulatorEnv(path, render_mode="gif")
