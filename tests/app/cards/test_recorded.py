"""Cards of systems that cannot be opened: figures by hand, and what they say."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer
from tensordict import TensorDict

from app import main as command
from app.cards import model_figures, recorded
from app.cards.measure import table_of
from app.cards.recorded import DEMONSTRATIONS, OTHERS, Recording, measure_recorded, recordings_of
from app.cards.recorded_limits import recorded_limits
from app.errors import UserError
from datamodules import DataError, TransitionDataModule
from zoo import Policy, Simulator, load, load_policy
from zoo.episodes import Episode


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "EPISODES", 3)
    monkeypatch.setattr(model_figures, "BATCHES", (1,))
    monkeypatch.setattr(model_figures, "TIMED_STEPS", 1)


@pytest.fixture
def models(finished: Path) -> tuple[Simulator, Policy]:
    return load(finished), load_policy(finished)


def recording(name: str, simulator: Simulator, policy: Policy, steps: int = 30, off: float = 0.0) -> Recording:
    """An episode of the Simulator's own mean under its policy, whose actions are written down with an error."""
    observation = simulator.reset(1, torch.Generator().manual_seed(0))
    observations, actions = [observation], []
    for _ in range(steps):
        actions.append(policy.act(observations[-1]))
        observations.append(simulator.step(observations[-1], actions[-1], deterministic=True)[0])
    written = (torch.cat(actions) + off).numpy()
    states = torch.cat(observations).numpy()
    return Recording(
        name, table_of([Episode(states, written, np.arange(steps, dtype=float), True, False)]), np.zeros(steps)
    )


def test_figures_by_hand(models: tuple[Simulator, Policy]) -> None:
    simulator, policy = models
    exact, off = recording("exact", *models), recording("off", *models, off=0.5)
    found = measure_recorded(simulator, policy, [exact, off], 0)
    # What the Simulator's mean made, its mean forecasts
    assert found["open_loop_error"]["exact"][:3] == pytest.approx([0.0, 0.0, 0.0], abs=1e-4)
    assert found["open_loop_error"]["exact"][3:] == [None, None]
    assert found["recordings"]["exact"]["action_error"] == pytest.approx(0.0, abs=1e-5)
    assert found["recordings"]["off"]["action_error"] == pytest.approx(0.5, rel=1e-5)  # half ranges are 1
    assert found["recordings"]["exact"]["reward_rank_correlation"] is None  # none was recorded
    assert found["termination"]["ends"] == 2 and not found["termination"]["learned"]
    table = off.table
    unit = simulator.uncertainty_unit()
    uncertainty = simulator.measure_uncertainty(table["observation"], table["action"]).mean()
    assert found["recordings"]["off"]["uncertainty"] == pytest.approx(float(uncertainty) / unit, rel=1e-4)
    # One step, feature by feature, in its own unit
    means, _ = simulator.transition(table["observation"], table["action"])
    forecast = simulator.transition.next_observation(table["observation"], means.mean(dim=0))
    wanted = (forecast - table["next", "observation"]).square().mean(dim=0).sqrt()
    assert found["features"]["error"]["off"][0] == pytest.approx(wanted.tolist(), rel=1e-4)
    total = (wanted / simulator.transition.observation_normalizer.std).square().mean().sqrt()
    assert found["open_loop_error"]["off"][0] == pytest.approx(float(total), rel=1e-4)
    json.dumps(found, allow_nan=False)


def test_preference_counts_pairs(models: tuple[Simulator, Policy], monkeypatch: pytest.MonkeyPatch) -> None:
    paid = {1.0: [3.0, 1.0], 2.0: [2.0, 0.0]}  # by first observation: 3 of 4 pairs favour the demonstrations
    monkeypatch.setattr(recorded, "raw_rewards", lambda _, rows: np.array(paid[float(rows["observation"][0, 0])]))

    def table(mark: float) -> TensorDict:
        return TensorDict({"observation": torch.full((2, 1), mark)}, batch_size=[2])

    tables = {DEMONSTRATIONS: table(1.0), OTHERS: table(2.0)}
    assert recorded._preference(models[0], tables) == 0.75
    assert recorded._preference(models[0], {"plant/new-v0": table(1.0)}) is None


def test_other_spaces_are_refused(models: tuple[Simulator, Policy]) -> None:
    other = TensorDict({"observation": torch.zeros(2, 4), "action": torch.zeros(2, 3)}, batch_size=[2])
    with pytest.raises(UserError, match="plant has 4 observation features and 3 actions, the Simulator 11 and 3"):
        measure_recorded(*models, [Recording("plant", other, np.zeros(2))], 0)


def test_features_in_another_order_are_refused(models: tuple[Simulator, Policy]) -> None:
    simulator, policy = models
    simulator.action_names = ("hip", "knee", "ankle")
    swapped = replace(recording("plant", simulator, policy), action_names=("knee", "hip", "ankle"))
    with pytest.raises(DataError, match="of the Simulator are hip, knee, ankle, those of plant knee, hip, ankle: the"):
        measure_recorded(simulator, policy, [swapped], 0)


FIGURES: dict[str, Any] = {
    "recordings": {
        name: {"trained_on": False, "held_out": True, "action_error": error, "learned_reward": 0.8}
        for name, error in ((DEMONSTRATIONS, 0.05), (OTHERS, 0.9))
    },
    "steps": [1, 5],
    "open_loop_error": {DEMONSTRATIONS: [0.1, 0.2], OTHERS: [0.1, 0.8]},
    "no_change_error": {DEMONSTRATIONS: [0.5, 1.0], OTHERS: [0.5, 1.0]},
    "coverage": {DEMONSTRATIONS: {"50%": 0.5, "90%": 0.7}, OTHERS: {"50%": 0.5, "90%": 0.9}},
    "termination": {"ends": 0, "learned": False, "simulator": {"precision": None, "recall": None}},
    "features": {"names": [], "deviation": [], "steps": [], "error": defaultdict(list)},
    "preference": 0.97,
    "policy": {"uncertainty": 0.8, "learned_reward": 1.0},
}


def test_sentences_follow_from_the_figures() -> None:
    said = "\n".join(recorded_limits(FIGURES))
    assert "hold for at least 5 steps on held-out demonstrations" in said
    assert "hold for 1 step on held-out other data; after 5" in said
    assert "too sure of itself on held-out demonstrations" in said and "90% hold 70%" in said
    assert "knows demonstrations from other data: it pays more for them in 97% of pairs" in said
    assert "stays where the data is (0.8 medians" in said
    assert "not tried in the real system" in said and "trained on" not in said

    figures = copy.deepcopy(FIGURES) | {"preference": 0.6, "policy": {"uncertainty": 3.0, "learned_reward": 1.0}}
    figures["recordings"] = {
        "plant/new-v0": {"trained_on": False, "held_out": False, "action_error": 0.05, "learned_reward": 0.8}
    }
    for key in ("open_loop_error", "no_change_error", "coverage"):
        figures[key] = {"plant/new-v0": figures[key][DEMONSTRATIONS]}
    said = "\n".join(recorded_limits(figures))
    assert "hardly knows demonstrations from other data: it pays more for them in 60%" in said
    assert "goes where little data is (3 medians" in said
    assert "acts as plant/new-v0 did" in said and "not tried" not in said
    assert "promises its own policy 25% more than plant/new-v0 pays" in said

    figures["recordings"]["plant/new-v0"]["trained_on"] = True  # demonstrations: whose policy acts like them, of course
    said = "\n".join(recorded_limits(figures))
    assert "It was trained on plant/new-v0" in said
    assert "acts as plant/new-v0 did" not in said and "plant/new-v0 pays" not in said
    assert "Its policy was not tried in the real system" in said


def test_the_feature_that_is_not_foreseen_is_named() -> None:
    figures = copy.deepcopy(FIGURES)
    figures["features"] = {
        "names": ["setpoint", "level", "flow", "constant"],
        "deviation": [2.0, 10.0, 0.1, 0.0],
        "steps": [1, 20],
        "error": {
            DEMONSTRATIONS: [[0.4, 0.1, 0.002, 0.0], [1.0, 5.0, 0.05, 0.0]],
            OTHERS: [[None] * 4, [1.0, 5.0, 0.05, 0.0]],
        },
    }
    said = recorded_limits(figures)
    (sentence,) = (each for each in said if "Most of its error" in each)
    assert said.index(sentence) == 1
    assert "that of setpoint: after 1 step it is off by 0.2 deviations of its own, the others by 0.016." in sentence


def test_what_is_paid_on_is_named() -> None:
    figures = copy.deepcopy(FIGURES)
    figures["recordings"] = {
        name: {"trained_on": False, "held_out": False, "action_error": 0.05, "learned_reward": reward}
        for name, reward in (("plant/a-v0", 0.96), ("plant/b-v0", 0.5))
    }
    for key in ("open_loop_error", "no_change_error", "coverage"):
        figures[key] = dict.fromkeys(figures["recordings"], figures[key][DEMONSTRATIONS])
    said = recorded_limits(figures)
    assert "What it promises its own policy is paid on plant/a-v0, to within 4%." in said
    assert "It promises its own policy 100% more than plant/b-v0 pays." in said


def test_a_constant_feature_has_no_deviation(simulator: Simulator) -> None:
    model = simulator.transition
    deviation = torch.linspace(0.5, 1.0, 11)  # that of the last one is 1
    deviation[3] = 0.0
    model.observation_normalizer.set_statistics(torch.zeros(11), deviation)
    model.set_range(-2.0 * deviation, 2.0 * deviation)
    states = np.zeros((4, 11), dtype=np.float32)
    table = table_of([Episode(states, np.zeros((3, 3), dtype=np.float32), np.zeros(3), True, False)])
    assert recorded._features(simulator, {"plant": table})["deviation"] == pytest.approx(deviation.tolist())


def test_logs_to_measure_against_are_no_demonstrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    buffers = []
    for index in range(6):
        steps = 4 if index == 3 else 20  # one of them fails
        flags = np.zeros((2, steps), dtype=bool)
        flags[int(index != 3), -1] = True
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=np.random.rand(steps + 1, 2).astype(np.float32),
                actions=np.random.rand(steps, 1).astype(np.float32),
                rewards=np.zeros(steps),
                terminations=flags[0],
                truncations=flags[1],
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every piece of metadata that is left out has a warning
        minari.create_dataset_from_buffers(
            "plant/log-v0",
            buffers,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            action_space=gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32),
        )
    with pytest.warns(UserWarning, match="the policy will imitate it"):
        TransitionDataModule("plant/log-v0").setup("fit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = recordings_of(["plant/log-v0"], {"data": []})
    assert len(found.table) == 104


def test_a_known_task_can_be_measured_against_recordings(
    finished: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "card"
    assert command.main(["zoo", "evaluate", str(finished), "--data", "tiny/hopper/expert-v0", "--out", str(out)]) == 0
    assert "It was trained on tiny/hopper/expert-v0" in capsys.readouterr().out
    figures = json.loads((out / "card" / "figures.json").read_text())
    (found,) = figures["recordings"].values()
    assert found["trained_on"] and found["reward_rank_correlation"] is not None
    assert "real task" not in (out / "card.md").read_text()


def test_what_cannot_be_measured_is_said(
    finished: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    simulator = load(run)
    simulator.task, simulator.horizon = None, 20
    simulator.save(run / "simulator.safetensors")
    assert command.main(["zoo", "evaluate", str(run), "--data", "tiny/none-v0"]) == 2
    assert "no dataset 'tiny/none-v0'" in capsys.readouterr().err
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["data"][0]["sha256"] = "0" * 64
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert command.main(["zoo", "evaluate", str(run)]) == 2
    assert "is not the data that" in capsys.readouterr().err
    (run / "config.yaml").write_text("{")
    assert command.main(["zoo", "evaluate", str(run)]) == 2
    assert "cannot read" in capsys.readouterr().err and not (run / "card.md").exists()
