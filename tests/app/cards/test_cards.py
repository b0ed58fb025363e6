"""Cards: figures by hand, sentences that follow from them, and the page from a finished run."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app import main as command
from app.cards import measure as measuring
from app.cards import model_figures, recorded, video
from app.cards.contenders import POLICY, RANDOM, contenders
from app.cards.limits import UNSEEN, limits
from app.cards.measure import measure, table_of
from app.cards.model_figures import detection
from app.errors import UserError
from zoo import Simulator, get_task, load, load_policy
from zoo.episodes import Episode
from zoo.termination import LearnedTermination

FIGURES: dict[str, Any] = {
    "steps": [1, 5, 20],
    "open_loop_error": {POLICY: [0.1, 0.2, 0.3], "others": [0.1, 0.6, 0.9]},
    "no_change_error": {POLICY: [0.4, 1.0, 1.5], "others": [0.4, 1.0, 1.5]},
    "coverage": {POLICY: {"50%": 0.55, "90%": 0.88}, "others": {"50%": 0.2, "90%": 0.95}},
    "return_correlation": {"spearman": 0.93, "pearson": 0.9, "dynamics": 0.95, "reward": 0.9},
    "exploitation_gap": 0.04,
    "termination": {"ends": 12, "learned": True, "simulator": {"precision": 1.0, "recall": 0.97}},
}


def episode(length: int, terminated: bool) -> Episode:
    observations = np.arange(length + 1, dtype=np.float32).reshape(-1, 1)
    actions = np.zeros((length, 1), dtype=np.float32)
    return Episode(observations, actions, np.arange(length, dtype=np.float64), terminated, not terminated)


def test_episodes_become_a_table_in_order() -> None:
    table = table_of([episode(3, True), episode(2, False)])
    assert table["observation"].flatten().tolist() == [0, 1, 2, 0, 1]
    assert table["next", "observation"].flatten().tolist() == [1, 2, 3, 1, 2]
    assert table["next", "terminated"].tolist() == [False, False, True, False, False]
    assert table["next", "reward"].tolist() == [0, 1, 2, 0, 1]
    assert table["episode"].tolist() == [0, 0, 0, 1, 1] and table["step"].tolist() == [0, 1, 2, 0, 1]


def test_precision_and_recall_by_hand() -> None:
    predicted = torch.tensor([True, True, False, False, True])
    real = torch.tensor([True, False, False, True, True])
    assert detection(predicted, real) == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)}
    nothing = torch.zeros(3, dtype=torch.bool)
    assert detection(nothing, nothing) == {"precision": None, "recall": None}


def test_correlations_tell_the_halves_apart() -> None:
    returns = {
        name: {"real": real, "real_learned": learned, "simulator": simulated}
        for name, real, learned, simulated in (("a", 1, 10, 30), ("b", 2, 20, 20), ("c", 3, 30, 10))
    }
    found = measuring._return_correlations(returns)
    assert found["reward"] == pytest.approx(1.0) and found["dynamics"] == pytest.approx(-1.0)
    assert found["spearman"] == pytest.approx(-1.0)
    same = {name: each | {"simulator": 5} for name, each in returns.items()}
    assert measuring._return_correlations(same)["spearman"] is None


def test_sentences_follow_from_the_figures() -> None:
    said = "\n".join(limits(FIGURES))
    assert "forecasts hold for at least 20 steps where its policy goes" in said
    assert "forecasts hold for 1 step where worse policies go; after 5 they are off" in said
    assert "ranks policies much as the real task does (rank correlation 0.93)" in said
    assert "promises its own policy is paid, to within 4%" in said
    assert "too sure of itself elsewhere: predicted intervals that should hold 50% hold 20% of the truth" in said
    assert "where its policy goes: predicted" not in said and "sometimes" not in said


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("exploitation_gap", 0.31, "promises its own policy 31% more than the real task pays"),
        ("exploitation_gap", -0.2, "promises its own policy 20% less than the real task pays"),
        ("exploitation_gap", None, "cannot be compared"),
        (
            "return_correlation",
            {"spearman": 0.3, "pearson": 0.2, "dynamics": 0.9, "reward": 0.2},
            "Do not ask it which of two policies is better (rank correlation 0.30); what fails first: its reward.",
        ),
        (
            "return_correlation",
            {"spearman": None, "pearson": None, "dynamics": None, "reward": None},
            "all returns are equal",
        ),
        (
            "termination",
            {"ends": 3, "learned": True, "simulator": {"precision": None, "recall": 0.0}},
            "lets episodes go on that end (recall 0%)",
        ),
        (
            "termination",
            {"ends": 0, "learned": True, "simulator": {"precision": 0.0, "recall": None}},
            "real ones do not end",
        ),
        (
            "termination",
            {"ends": 0, "learned": True, "simulator": {"precision": None, "recall": None}},
            "When episodes end was not measured: no episode here ended for good, so that its ends are a guess.",
        ),
        ("open_loop_error", {POLICY: [0.3, 1.0, 2.0], "others": [None] * 3}, "say little where its policy goes"),
        # States differ much where it fails: that it holds later is luck
        ("open_loop_error", {POLICY: [0.3, 1.0, 0.4], "others": [None] * 3}, "say little where its policy goes"),
        (
            "open_loop_error",
            {POLICY: [0.1, 0.2, None], "others": [0.1] * 3},
            "hold for at least 5 steps where its policy",
        ),
        ("open_loop_error", {POLICY: [None] * 3, "others": [0.1] * 3}, "was not to be seen"),
    ],
)
def test_what_is_wrong_is_said(key: str, value: Any, sentence: str) -> None:
    assert sentence in "\n".join(limits(copy.deepcopy(FIGURES) | {key: value}))


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ([0.0224, 0.024, 0.026, 0.028], "hold for at least 100 steps where its policy goes. After 1 step they are"),
        ([0.0224, 0.07, 0.08, 0.1], "hold for at least 100 steps where its policy goes. After 5 steps they are"),
        ([0.0224, 0.024, 0.026, 0.6], "hold for 20 steps where its policy goes; after 100 they are off by half"),
        ([0.0224, 0.07, 0.3, 0.1], "say little where its policy goes, even for 1 step"),  # 0.3 is of 0.4
    ],
)
def test_noise_of_measurements_is_no_failure(errors: list[float], sentence: str) -> None:
    apart = {POLICY: [0.0443, 0.11, 0.4, 0.738], "others": [None] * 4}
    found = {"steps": [1, 5, 20, 100], "open_loop_error": {POLICY: errors, "others": [None] * 4}}
    said = "\n".join(limits(copy.deepcopy(FIGURES) | found | {"no_change_error": apart}))
    assert sentence in said
    assert ("noise of measurements may be as much" in said) == ("hold for" in sentence)


@pytest.mark.parametrize("learned", [True, False])
def test_ends_that_never_came_are_a_guess_where_they_were_learned(simulator: Simulator, learned: bool) -> None:
    if learned:
        simulator.termination = LearnedTermination(11, (8,), threshold=1.0)  # which no probability exceeds
    table = table_of([episode(3, False)])
    table["observation"] = table["next", "observation"] = torch.zeros(3, 11)
    task = get_task("halfcheetah")
    for found in (measuring._terminations(simulator, task, [table]), recorded._terminations(simulator, [table])):
        assert (UNSEEN in limits(FIGURES | {"termination": found})) == learned


def test_contenders_are_of_many_qualities(finished: Path) -> None:
    task = get_task("hopper")
    acts = contenders(load_policy(finished), task, seed=0)
    observations = np.zeros((2, 11), dtype=np.float32)
    own = acts[POLICY](observations)
    np.testing.assert_allclose(acts["50% of its force"](observations), 0.5 * own, rtol=1e-6)
    assert len(acts) == 10 and RANDOM in acts
    assert all(np.abs(act(observations)).max() <= 1.0 for act in acts.values())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SIMULATED_EPISODES", 3)
    monkeypatch.setattr(model_figures, "BATCHES", (1, 4))
    monkeypatch.setattr(model_figures, "TIMED_STEPS", 2)


def test_a_card_is_measured_written_and_published(
    finished: Path, quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFSIM_ZOO", str(tmp_path / "own"))
    run, place = tmp_path / "tiny", str(tmp_path / "shared")
    shutil.copytree(finished, run)
    assert command.main(["zoo", "evaluate", str(run), "--episodes", "2", "--no-video"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]
    text = (run / "card.md").read_text()
    assert len(said) >= 5 and all(line in text for line in said)
    figures = json.loads((run / "card" / "figures.json").read_text())
    assert set(figures["contenders"]) == set(contenders(load_policy(run), get_task("hopper"), 0))
    own = figures["policy"]
    assert own["episodes"] == 2 and own["share_of_expert"] == pytest.approx(own["mean"] / 3727.0)
    assert figures["termination"]["rule"] == {"precision": 1.0, "recall": 1.0}
    assert "kept in half precision. Where the policy goes, that changes actions by" in text
    demonstrated = json.loads((run / "metrics.json").read_text())["expert"]["mean"]
    assert f"of which that is {own['mean'] / demonstrated:.1%}.\nThe reference expert's is 3,727" in text
    assert "| random actions |" in text and "tiny/hopper/expert-v0" in text and "side_by_side" not in text
    assert {path.name for path in (run / "card").iterdir()} == {"figures.json", "returns.png", "errors.png"}

    assert command.main(["zoo", "push", str(run), "--as", "hopper/tiny-v0", "--to", place]) == 0
    assert command.main(["zoo", "pull", "hopper/tiny-v0", "--from", place]) == 0
    capsys.readouterr()
    assert command.main(["zoo", "show", "hopper/tiny-v0"]) == 0
    assert capsys.readouterr().out.startswith(text.rstrip().replace("# tiny", "# hopper/tiny-v0", 1))
    again = tmp_path / "again"
    words = ["--episodes", "2", "--no-video", "--out", str(again)]
    assert command.main(["zoo", "evaluate", "hopper/tiny-v0", *words]) == 0
    card = (again / "card.md").read_text()
    assert card.startswith("# hopper/tiny-v0\n") and "Weight matrices are kept in half precision." in card
    repeated = json.loads((again / "card" / "figures.json").read_text())
    assert repeated["policy"] == figures["policy"] and repeated["contenders"] == figures["contenders"]


def test_a_policy_of_another_task_is_refused(finished: Path) -> None:
    with pytest.raises(UserError, match="the policy takes 11 observation features"):
        measure(load(finished), load_policy(finished), get_task("ant"), 1, 0)


def test_a_video_shows_both(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SECONDS", 0.25)
    try:
        path = video.write_video(tmp_path / "card" / "both.gif", load(finished), load_policy(finished), 0)
    except RuntimeError as error:
        pytest.skip(str(error))
    import imageio.v3 as imageio

    frames = imageio.imread(path, index=None)
    assert len(frames) == 4 and frames.shape[1:3] == (video.SIZE, 2 * video.SIZE + video.LINE)
    left, right = frames[0][:, : video.SIZE], frames[0][:, -video.SIZE :]
    assert left.std() > 10 and np.abs(left.astype(int) - right).mean() < 5  # the same state at first
