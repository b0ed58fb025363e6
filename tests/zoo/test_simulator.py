"""The Simulator: stepping, files, scale of the reward, uncertainty."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo import ModelFileError, Policy, Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import LearnedTermination, RuleTermination, TerminationModel
from zoo.transition import TransitionModel


@pytest.fixture
def simulator() -> Simulator:
    torch.manual_seed(0)
    transition = TransitionModel(11, 3, members=4, hidden_sizes=(16, 16))
    starts = StartStates.of(torch.tensor([[1.25] + [0.0] * 10]).repeat(5, 1))
    built = Simulator(transition, RewardModel(11, 3, (8,)), RuleTermination("hopper"), starts, [-1.0] * 3, [1.0] * 3)
    return built.eval()


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_step_shapes_and_types(simulator: Simulator) -> None:
    observation = simulator.reset(9, generator())
    following, reward, terminated, info = simulator.step(observation, torch.zeros(9, 3), generator())
    assert following.shape == (9, 11) and reward.shape == (9,)
    assert terminated.shape == (9,) and terminated.dtype == torch.bool
    assert info["uncertainty"].shape == (9,)


def test_rows_of_another_width_are_refused(simulator: Simulator) -> None:
    observation, action = simulator.reset(4), torch.zeros(4, simulator.action_size)
    with pytest.raises(ValueError, match=r"actions have the shape \(4, 1\)"):
        simulator.step(observation, action[:, :1])
    with pytest.raises(ValueError, match=r"observations have the shape \(4, 1\)"):
        simulator.step(observation[:, :1], action)


def test_a_residual_transition_model_is_read_as_it_was_written(simulator: Simulator, tmp_path: Path) -> None:
    observation, action = simulator.reset(6, generator()), torch.zeros(6, 3)
    plain = simulator.transition
    simulator.transition = TransitionModel(11, 3, members=4, hidden_sizes=(16, 16), residual=True)
    simulator.transition.load_state_dict(plain.state_dict())
    simulator.save(tmp_path / "residual.safetensors")
    mean, _ = Simulator.load(tmp_path / "residual.safetensors").transition(observation, action)
    assert torch.equal(mean, simulator.transition(observation, action)[0])
    assert not torch.allclose(mean, plain(observation, action)[0])


def test_same_seed_same_roll_out_and_other_seed_another(simulator: Simulator) -> None:
    observation, action = simulator.reset(6, generator()), torch.zeros(6, 3)
    first = simulator.step(observation, action, generator(1))[0]
    assert torch.equal(first, simulator.step(observation, action, generator(1))[0])
    assert not torch.equal(first, simulator.step(observation, action, generator(2))[0])


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 4 * 7, 4 * 7 + 1])
def test_drawn_member_equals_some_member_of_the_whole_ensemble(simulator: Simulator, rows: int) -> None:
    observation, action = torch.randn(rows, 11), torch.randn(rows, 3)
    means, log_variances = simulator.transition(observation, action)
    mean, log_variance = simulator.transition.drawn(observation, action, generator())
    distance = (means - mean).abs().amax(dim=-1)
    member = distance.argmin(dim=0)
    assert distance.min(dim=0).values.max() < 1e-5
    chosen = log_variances[member, torch.arange(rows)]
    torch.testing.assert_close(log_variance, chosen, atol=1e-5, rtol=1e-5)


def test_drawn_members_are_uniform(simulator: Simulator) -> None:
    observation, action = torch.ones(4000, 11), torch.ones(4000, 3)
    means, _ = simulator.transition(observation[:1], action[:1])
    mean, _ = simulator.transition.drawn(observation, action, generator())
    member = (means - mean).abs().amax(dim=-1).argmin(dim=0)
    assert torch.bincount(member, minlength=4).tolist() == [1000] * 4


def test_mean_of_the_members_moves_every_row_alike(simulator: Simulator) -> None:
    simulator.aggregation, simulator.noise_scale = "mean", 0.0
    observation, action = torch.randn(5, 11), torch.randn(5, 3)
    following = simulator.step(observation, action, generator(), with_uncertainty=False)[0]
    torch.testing.assert_close(following, simulator.step(observation, action, deterministic=True)[0])
    simulator.noise_scale = 1.0
    noise = torch.randn(5, 11)
    means, log_variances = simulator.transition(observation, action)
    delta = means.mean(dim=0) + log_variances.exp().mean(dim=0).sqrt() * noise
    moved, _ = simulator.advance(observation, action, torch.zeros(5, dtype=torch.long), noise)
    torch.testing.assert_close(moved, simulator.transition.next_observation(observation, delta))


def test_fixed_member_moves_an_episode_from_start_to_end(simulator: Simulator, tmp_path: Path) -> None:
    assert simulator.episode_members(3) is None
    simulator.aggregation, simulator.noise_scale = "fixed_member", 0.0
    simulator.save(tmp_path / "simulator.safetensors")
    simulator = Simulator.load(tmp_path / "simulator.safetensors")
    members = simulator.episode_members(20, generator())
    assert members is not None and set(members.tolist()) == {0, 1, 2, 3}
    observation, action = torch.randn(1, 11).expand(20, 11), torch.zeros(20, 3)
    for _ in range(3):  # rows of one member stay together
        observation = simulator.step(observation, action, generator(), members=members)[0]
        assert len({tuple(row) for row in observation.tolist()}) == 4


@pytest.mark.parametrize("with_uncertainty", [False, True])
def test_noise_is_drawn_at_the_given_scale(simulator: Simulator, with_uncertainty: bool, tmp_path: Path) -> None:
    observation, action = torch.randn(1, 11).expand(2000, 11), torch.randn(1, 3).expand(2000, 3)
    spreads = []
    for scale in (0.0, 0.5, 1.0):
        simulator.noise_scale = scale
        simulator.save(tmp_path / "simulator.safetensors")
        loaded = Simulator.load(tmp_path / "simulator.safetensors")
        loaded.transition.observation_low.fill_(-torch.inf)
        loaded.transition.observation_high.fill_(torch.inf)
        following = loaded.step(observation, action, generator(), with_uncertainty=with_uncertainty)[0]
        means, _ = loaded.transition(observation[:1], action[:1])
        expected = loaded.transition.next_observation(observation[:1], means.squeeze(1))
        distance, member = (following.unsqueeze(0) - expected.unsqueeze(1)).norm(dim=-1).min(dim=0)
        spreads.append(float(distance.mean()))
        if scale == 0.0:  # nothing but the choice of the member is left
            assert float(distance.max()) < 1e-4 and len(member.unique()) == 4
    assert spreads[2] == pytest.approx(2 * spreads[1], rel=0.2) and spreads[1] > 0.1


def test_round_trip_is_equal_bit_for_bit(simulator: Simulator, tmp_path: Path) -> None:
    simulator.reward.standardize(torch.randn(100) + 2.0, torch.randn(100))
    simulator.calibrate_uncertainty(torch.randn(50, 11), torch.randn(50, 3))
    path = tmp_path / "simulator.safetensors"
    simulator.save(path)
    loaded = Simulator.load(path)
    observation, action = torch.randn(8, 11), torch.randn(8, 3)
    for before, after in zip(
        simulator.step(observation, action, generator())[:3],
        loaded.step(observation, action, generator())[:3],
        strict=True,
    ):
        assert torch.equal(before, after)
    assert loaded.uncertainty_quantile(0.99) == simulator.uncertainty_quantile(0.99)
    assert loaded.config() == simulator.config()


def test_learned_termination_and_no_termination_survive_the_round_trip(simulator: Simulator, tmp_path: Path) -> None:
    for model in (LearnedTermination(11, (4,)), TerminationModel()):
        simulator.termination = model
        simulator.save(tmp_path / "s.safetensors")
        loaded = Simulator.load(tmp_path / "s.safetensors")
        observation = torch.randn(20, 11)
        assert torch.equal(loaded.termination(observation), model(observation))


def test_names_of_features_are_kept_or_refused(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "simulator.safetensors"
    simulator.observation_names, simulator.action_names = tuple("abcdefghijk"), ("x", "y", "z")
    simulator.save(path)
    loaded = Simulator.load(path)
    assert loaded.observation_names == tuple("abcdefghijk") and loaded.action_names == ("x", "y", "z")
    simulator.action_names = ("x", "y")
    simulator.save(path)
    with pytest.raises(ModelFileError, match="names of 3 features"):
        Simulator.load(path)


def test_damaged_foreign_and_missing_files_are_refused(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "simulator.safetensors"
    with pytest.raises(ModelFileError, match="no simulator file"):
        Simulator.load(path)
    simulator.save(path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a model", content[8:], b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError):
            Simulator.load(path)
    Policy(11, [-1.0] * 3, [1.0] * 3, (4,)).save(path)
    with pytest.raises(ModelFileError, match="holds a policy"):
        Simulator.load(path)


def test_a_file_may_be_read_by_whoever_may_read_others(simulator: Simulator, tmp_path: Path) -> None:
    simulator.save(tmp_path / "simulator.safetensors")
    (tmp_path / "other").write_bytes(b"")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_failed_write_keeps_the_previous_file(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "simulator.safetensors"
    simulator.save(path)
    content = path.read_bytes()

    write = Path.write_bytes

    def fail(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(Path, "write_bytes", fail)
        simulator.save(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_predictions_stay_in_the_widened_range_of_the_data(simulator: Simulator) -> None:
    low, high = torch.full((11,), -1.0), torch.full((11,), 3.0)
    simulator.transition.set_range(low, high, widen=0.5)
    far = simulator.transition.next_observation(torch.zeros(2, 11), torch.tensor([[1e6] * 11, [-1e6] * 11]))
    assert far.max() == 5.0 and far.min() == -3.0


def test_reward_scale_gives_experts_one_and_roll_outs_zero() -> None:
    model = RewardModel(2, 1, (4,))
    expert, rollout = torch.tensor([4.0, 6.0]), torch.tensor([1.0, 3.0])
    model.standardize(expert, rollout, low_quantile=0.0, high_quantile=1.0)
    assert ((expert - model.offset) / model.scale).mean() == pytest.approx(1.0)
    assert ((rollout - model.offset) / model.scale).mean() == pytest.approx(0.0)
    # scale is 5 - 2 = 3, so the bounds are (1 - 2) / 3 and (6 - 2) / 3
    assert float(model.low) == pytest.approx(-1 / 3)
    assert float(model.high) == pytest.approx(4 / 3)


def test_a_reward_that_rates_demonstrations_below_roll_outs_pays_the_same_everywhere() -> None:
    model = RewardModel(2, 1, (4,))
    model.standardize(torch.tensor([-3.0, -2.0]), torch.tensor([1.0, 3.0]))
    assert float(model.low) == float(model.high)
    assert float(model(torch.randn(9, 2), torch.randn(9, 1), torch.randn(9, 2)).std()) == 0.0


def test_reward_is_clipped_to_its_bounds() -> None:
    model = RewardModel(2, 1, (4,))
    model.low.fill_(-0.01)
    model.high.fill_(0.01)
    reward = model(torch.randn(100, 2) * 50, torch.randn(100, 1) * 50, torch.randn(100, 2) * 50)
    assert reward.min() >= -0.01 and reward.max() <= 0.01


def test_reward_of_state_and_action_ignores_the_next_state() -> None:
    model = RewardModel(2, 1, (4,), uses_next_observation=False)
    observation, action = torch.randn(5, 2), torch.randn(5, 1)
    assert torch.equal(model(observation, action, torch.zeros(5, 2)), model(observation, action, torch.ones(5, 2)))


def test_uncertainty_quantiles_are_those_of_the_data(simulator: Simulator) -> None:
    observation, action = torch.randn(201, 11), torch.randn(201, 3)
    simulator.calibrate_uncertainty(observation, action)
    values = simulator.measure_uncertainty(observation, action)
    assert simulator.uncertainty_quantile(0.5) == pytest.approx(float(values.median()))
    assert simulator.uncertainty_quantile(1.0) == pytest.approx(float(values.max()))
    with pytest.raises(ValueError, match="choose one of"):
        simulator.uncertainty_quantile(0.123)


def test_gaussian_parameters_of_one_member_do_not_depend_on_the_others(simulator: Simulator) -> None:
    observation, action = torch.randn(5, 11), torch.randn(5, 3)
    before, _ = simulator.transition(observation, action)
    with torch.no_grad():
        for layer in simulator.transition.network.layers:
            layer.weight[1:].add_(1.0)
    after, _ = simulator.transition(observation, action)
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1])


def test_a_simulator_with_another_reward_than_a_learned_one_is_not_saved(simulator: Simulator, tmp_path: Path) -> None:
    simulator.reward = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="no learned one"):
        simulator.save(tmp_path / "simulator.safetensors")
    assert not list(tmp_path.iterdir())


class EndsAtOnce(TerminationModel):
    """Ends every episode; its ``kind`` is that of the one that ends none."""

    def forward(self, next_observation: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(next_observation[..., 0], dtype=torch.bool)


class Louder(RewardModel):
    """Rewards that a file would not know to be larger."""

    def raw(self, features: torch.Tensor) -> torch.Tensor:
        return 5.0 * super().raw(features)


def test_a_simulator_with_parts_of_ones_own_classes_is_not_saved_as_another(
    simulator: Simulator, tmp_path: Path
) -> None:
    termination, reward = simulator.termination, simulator.reward
    simulator.termination = EndsAtOnce()
    with pytest.raises(TypeError, match="termination of this Simulator is a EndsAtOnce, a class of your own"):
        simulator.save(tmp_path / "simulator.safetensors")
    simulator.termination, simulator.reward = termination, Louder(**reward.config)
    with pytest.raises(TypeError, match="is a Louder, no learned one"):
        simulator.save(tmp_path / "simulator.safetensors")
    assert not list(tmp_path.iterdir())
