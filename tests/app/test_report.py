"""The report of a run: complete, self-contained, and not to be broken by odd or missing files."""

from __future__ import annotations

import argparse
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import figures, report, report_curves
from app.errors import UserError

HOSTILE = "</title><script>alert('$x_{')</script>&\"quoted\""


def evaluation(mean: float, std: float, episodes: int, seed: int) -> dict[str, Any]:
    """What a run records about one contender."""
    returns = np.random.default_rng(seed).normal(mean, std, episodes)
    half = 1.96 * std / math.sqrt(episodes)
    return {
        "mean": mean,
        "std": std,
        "ci95": [mean - half, mean + half],
        "episodes": episodes,
        "returns": returns.tolist(),
        "lengths": np.minimum(1000, 1000 + (returns - mean) / 4).round().tolist(),
    }


def run_metrics() -> dict[str, Any]:
    """A complete ``metrics.json``."""
    updates = np.arange(0, 200_001, 10_000)
    progress = 1 - np.exp(-updates / 50_000)
    return {
        "task": "Hopper-v5",
        "seed": 7,
        "data": [
            {
                "id": "reference/hopper/expert-v0",
                "role": "expert",
                "episodes": 20,
                "rows": 20000,
                "sha256": "ab12" * 16,
                "demonstrations": 5,
            },
            {
                "id": "reference/hopper/mixed-v0",
                "role": "diverse",
                "episodes": 412,
                "rows": 100000,
                "sha256": "cd" * 32,
            },
        ],
        "versions": {"offsim": "0.1.0", "torch": "2.9.1", "gymnasium": "1.2.2"},
        "wall_seconds": 4350.5,
        "stages": {"simulator": 1830.2, "behaviour_cloning": 95.0, "policy": 2402.0},
        "expert": evaluation(3727.0, 30.0, 20, 0),
        "behaviour_cloning": evaluation(1822.0, 610.0, 20, 1),
        "policy": evaluation(3391.0, 210.0, 20, 2),
        "policy_alone": evaluation(3187.0, 250.0, 20, 3),
        "share_of_expert": 0.9098,
        "curve": [
            {
                "update": int(update),
                "simulator_return": 940 * share,
                "real_learned_return": None if index % 2 else 900 * share**1.5,
                "real_return": None if index % 2 else 3391 * share**2,
                "real_ci95": None if index % 2 else [3391 * share**2 - 200, 3391 * share**2 + 180],
                "value": 96 * share,
            }
            for index, (update, share) in enumerate(zip(updates, progress, strict=True))
        ],
    }


def run_diagnostics() -> dict[str, Any]:
    """A complete ``diagnostics.json``."""
    random = np.random.default_rng(3)
    time = np.linspace(0, 20, 400)[:, None]
    names = ["height", "torso angle", "thigh joint", "leg joint", "foot joint", "x velocity", "z velocity"]
    real = np.sin(time * np.linspace(1, 3, len(names))) + 0.05 * random.normal(size=(400, len(names)))
    drift = real + np.linspace(0.001, 0.06, len(names)) * time * np.cos(time)
    steps = [1, 5, 10, 25, 50, 100, 200]
    growth = np.array(steps) ** 0.6
    return {
        "reward_histograms": {
            "expert": random.normal(1.0, 0.3, 2000).tolist(),
            "held-out expert": random.normal(0.95, 0.35, 600).tolist(),
            "diverse": random.normal(-0.4, 0.9, 2000).tolist(),
            "roll-out": random.normal(0.1, 0.6, 2000).tolist(),
            "policy": random.normal(0.8, 0.4, 2000).tolist(),
        },
        "open_loop": [
            {"episode": 18, "label": "expert", "names": names, "real": real.tolist(), "simulated": drift.tolist()},
            {
                "episode": 3,
                "label": "diverse",
                "names": names[:2],
                "real": real[:, :2].tolist(),
                "simulated": drift[:150, :2].tolist(),
            },
        ],
        "open_loop_error": {
            "steps": steps,
            "normalized_error": {"expert": (0.01 * growth).tolist(), "diverse": (0.02 * growth).tolist()},
            "baseline": {
                "label": "predict no change",
                "normalized_error": {"expert": (0.2 * growth).tolist(), "diverse": (0.15 * growth).tolist()},
            },
        },
        "calibration": {"nominal": [0.5, 0.9], "observed": {"expert": [0.53, 0.91], "diverse": [0.41, 0.8]}},
        "uncertainty": {
            label: random.lognormal(mean, 0.7, 1500).tolist()
            for label, mean in (("expert", -4.0), ("diverse", -2.5), ("policy", -3.6))
        },
    }


def write_log(path: Path, rows: int, names: tuple[str, ...]) -> None:
    """A sparse log as Lightning's CSVLogger writes it: some rows from training, some from validation."""
    lines = ["epoch,step,updates," + ",".join(f"train/{name}" for name in names) + ",validation/expert/nll"]
    random = np.random.default_rng(5)
    for row in range(rows):
        values = [f"{math.exp(-row / 200) + 0.1 * random.normal():.5f}" for _ in names]
        lines.append(f"{row // 100},{row * 50},{row * 25}," + ",".join(values) + ",")
        if row % 50 == 0:
            lines.append(f"{row // 100},{row * 50}," + "," * (len(names) + 1) + f"{2 * math.exp(-row / 300):.4f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_run(folder: Path) -> Path:
    """A complete run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(run_metrics()))
    (folder / "diagnostics.json").write_text(json.dumps(run_diagnostics()))
    (folder / "config.yaml").write_text("task: hopper\nmodel:\n  margin: 0.5  # <b>not markup</b>\n")
    write_log(folder / "simulator" / "metrics.csv", 700, ("loss_reward", "loss_likelihood", "entropy", "margin"))
    write_log(folder / "policy" / "metrics.csv", 60, ("loss_actor",))
    write_log(folder / "behaviour_cloning" / "metrics.csv", 10, ("loss",))
    return folder


def write_metrics(folder: Path, **changes: Any) -> Path:
    """A run folder with nothing but ``metrics.json``, some of its keys replaced, those set to ``...`` removed."""
    metrics = {key: value for key, value in (run_metrics() | changes).items() if value is not ...}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def write_bare(folder: Path) -> Path:
    """The least that makes a run folder: quick to draw, since there is nothing to draw."""
    (folder / "metrics.json").write_text('{"task": "Ant-v5"}')
    return folder


class Page(HTMLParser):
    """What a browser would see: tags, ids, text and everything that could be fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect a tag."""
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.text += data

    def captions(self) -> list[str]:
        """The captions of the figures."""
        return re.findall(r"<figcaption>(.*?)</figcaption>", self.source)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a complete run."""
    return Page(report.write_report(write_run(tmp_path_factory.mktemp("run"))))


def test_says_the_result_in_words_and_numbers(full: Page) -> None:
    assert "The policy returns 3,391 ± 92 in the real task, which is 91% of the expert’s 3,727" in full.text
    assert "behaviour cloning returns 1,822 ± 267" in full.text
    assert "The policy is better than behaviour cloning" in full.text
    for text in (
        "3,299 to 3,483",
        "Policy, not joined 3,187",
        "1 h 12 min",
        "30 min 30 s",
        "ab12" * 16,
        "2.9.1",
        "margin: 0.5 # <b>not markup</b>",
    ):
        assert text in full.text, text


def test_shows_every_figure_with_one_sentence(full: Page) -> None:
    assert full.tags.count("svg") == full.tags.count("figcaption") == 2 + 6 + 3
    for caption in full.captions():
        assert caption.endswith(".") and ". " not in caption, caption
    for text in ("loss_reward", "torso angle", "held-out expert", "predict no change", "promised coverage", "nll"):
        assert text in full.text, text
    assert "To know before reading on" not in full.text


def test_is_self_contained(full: Page) -> None:
    assert full.links and all(link.startswith(("#", "data:")) for link in full.links)
    assert not {"script", "link", "iframe", "img", "base"} & set(full.tags)
    assert "http:" not in full.source and "https:" not in full.source and "@import" not in full.source
    assert len(full.source) < 2_000_000


def test_ids_are_unique_and_links_lead_somewhere(full: Page) -> None:
    assert len(full.ids) == len(set(full.ids))
    targets = {link[1:] for link in full.links if link.startswith("#")}
    assert (targets | set(re.findall(r"url\(#([^)]+)\)", full.source))) <= set(full.ids)


def test_same_run_same_page(tmp_path: Path) -> None:
    write_metrics(tmp_path, curve=[])
    assert report.write_report(tmp_path).read_text() == report.write_report(tmp_path).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "report.html"]


def test_needs_nothing_but_a_task(tmp_path: Path) -> None:
    page = Page(report.write_report(write_bare(tmp_path)))
    assert "Ant-v5" in page.text and "holds no evaluation of a policy" in page.text and "svg" not in page.tags


@pytest.mark.parametrize(
    "missing", ["expert", "behaviour_cloning", "policy", "curve", "share_of_expert", "data", "seed"]
)
def test_any_part_may_be_missing(tmp_path: Path, missing: str) -> None:
    changes: dict[str, Any] = {} if missing in ("expert", "behaviour_cloning") else {"curve": []}
    page = Page(report.write_report(write_metrics(tmp_path, **changes | {missing: ...})))
    assert "Hopper-v5" in page.text
    assert "nan" not in page.text.lower()


def test_null_is_the_same_as_missing(tmp_path: Path) -> None:
    nulls = dict.fromkeys(set(run_metrics()) - {"task"})
    with_nulls = report.write_report(write_metrics(tmp_path, **nulls)).read_text()
    bare = report.write_report(write_bare(tmp_path)).read_text()
    assert bare.replace("Ant-v5", "Hopper-v5") == with_nulls


def test_escapes_everything(tmp_path: Path) -> None:
    data = [{"id": HOSTILE, "role": HOSTILE, "sha256": HOSTILE}]
    versions = {HOSTILE: HOSTILE}
    write_metrics(tmp_path, task=HOSTILE, seed=HOSTILE, data=data, versions=versions, stages={HOSTILE: 1}, curve=[])
    episode = {
        "label": HOSTILE,
        "episode": HOSTILE,
        "names": [HOSTILE[:20]],
        "real": [[0], [1]],
        "simulated": [[1], [2]],
    }
    parts = {"reward_histograms": {HOSTILE: [1.0, 2.0]}, "open_loop": [episode, episode | {"real": HOSTILE}]}
    (tmp_path / "diagnostics.json").write_text(json.dumps(parts))
    (tmp_path / "config.yaml").write_bytes(HOSTILE.encode() + b"\xff")
    (tmp_path / "policy").mkdir()
    name = HOSTILE.replace('"', '""')
    (tmp_path / "policy" / "metrics.csv").write_text(f'step,"train/{name}"\n1,nan\n2,1\n')
    page = Page(report.write_report(tmp_path))
    assert "script" not in page.tags
    assert page.tags.count("title") == 1
    assert page.tags.count("svg") == 4
    assert page.text.count(HOSTILE) >= 12
    assert len(page.ids) == len(set(page.ids))


def test_tolerates_what_is_not_finite(tmp_path: Path) -> None:
    nan, infinity = math.nan, math.inf
    policy = {"mean": nan, "std": infinity, "ci95": [nan, nan], "episodes": 3, "returns": [nan, 1.0, -infinity]}
    curve = [{"update": 0, "real_return": nan, "simulator_return": infinity}, {"update": 5, "simulator_return": 2.0}]
    write_metrics(tmp_path, policy=policy, curve=curve, share_of_expert=nan, wall_seconds=infinity)
    flown = {"names": ["x"], "real": [[0.0], [1.0], [0.0]], "simulated": [[0.0], [1e300], [nan]]}
    parts = {
        "reward_histograms": {"policy": [nan, 1.0, infinity], "diverse": [nan]},
        "open_loop": [flown],
        "open_loop_error": {"steps": [1, 2, 4, 8, 16], "normalized_error": {"expert": [0.1, nan, infinity, 1e308, 0]}},
        "calibration": {"nominal": [0.5, nan], "observed": {"expert": [nan, nan], "diverse": [0.4, 0.9]}},
        "uncertainty": {"expert": [nan], "policy": []},
    }
    (tmp_path / "diagnostics.json").write_text(json.dumps(parts))
    (tmp_path / "simulator").mkdir()
    (tmp_path / "simulator" / "metrics.csv").write_text("step,train/loss\n1,nan\n2,0.5\n3,inf\n4,\n5\n6,1,2,3\n")
    page = Page(report.write_report(tmp_path))
    assert "The policy returns – in the real task, the expert 3,727" in page.text
    assert "train/loss in simulator/metrics.csv is not finite in 2 of 4 rows." in page.text
    assert "train/loss (2 not finite)" in page.text
    assert "1 values, 2 not finite" in page.text
    assert "uncertainty in diagnostics.json could not be drawn: it holds no finite values" in page.text
    assert page.tags.count("svg") == 7


@pytest.mark.parametrize(
    "parts",
    [
        "not json",
        "[1]",
        '{"calibration": {"nominal": [0.5]}, "uncertainty": 3, "reward_histograms": [1], "open_loop": 1}',
        '{"open_loop": [1, {"names": []}, {"names": ["x"], "real": [[1, 2], [1]], "simulated": [[1, 2]]}]}',
    ],
)
def test_odd_diagnostics_become_notes(tmp_path: Path, parts: str) -> None:
    write_bare(tmp_path)
    (tmp_path / "diagnostics.json").write_text(parts)
    page = Page(report.write_report(tmp_path))
    assert "To know before reading on" in page.text
    assert "left out" in page.text
    assert "svg" not in page.tags


def run_diagnosis() -> dict[str, Any]:
    """A ``diagnose.json`` with every part."""
    rows = [
        {
            "update": 1000 * step,
            "simulator_return": 900.0 + step,
            "real_learned_return": 500.0,
            "real_return": 1500.0,
            "simulator_length": 1000.0,
            "real_length": 700.0,
            "simulator_distance": 2.5,
            "real_distance": 0.5,
            "simulator_reward": 0.9,
            "real_reward": 0.7,
            "simulator_uncertainties": {"disagreement": 3.0, "max_std": 1.1},
            "real_uncertainties": {"disagreement": 1.2, "max_std": 1.0},
            "value": 95.0 if step else None,
            "simulator_discounted_return": 90.0 if step else None,
        }
        for step in range(3)
    ]
    returns = {"simulator": [1.0, 2.0], "real": [1.5, 2.5]}
    policies = [{"name": name, "learned": returns, "true": returns} for name in ("random actions", HOSTILE)]
    return {
        "references": {
            "uncertainty": "disagreement",
            "expert_return": 3025.0,
            "expert_length": 1000.0,
            "learned_reward": {"expert": 0.95, "diverse": 0.2},
        },
        "over_training": rows,
        "verdict": {"kind": "simulator", "reason": f"It is optimistic {HOSTILE}."},
        "notes": ["A thing to know."],
        "fixed_policies": {
            "horizons": [10, 50],
            "episodes": {"simulator": 100, "real": 3},
            "policies": policies,
            "rank_correlation": {"learned": [0.5, None], "true": [1.0, 0.25]},
        },
        "controls": {"true_reward": {"reward": "the task's own reward", "curve": rows}},
    }


def test_shows_the_diagnosis(tmp_path: Path) -> None:
    write_metrics(tmp_path, curve=[])
    (tmp_path / "diagnose.json").write_text(json.dumps(run_diagnosis()))
    page = Page(report.write_report(tmp_path))
    assert page.tags.count("svg") == 1 + 3 and page.tags.count("h2") == 3
    for text in (
        "Simulator. It is optimistic",
        "A thing to know.",
        "learned reward, 10 steps: rank correlation 0.50",
        "learned reward, 50 steps: rank correlation none",
        "uncertainty, max_std",
        "Control with the task's own reward",
        "discounted return",
        "rank correlation (Spearman)",
    ):
        assert text in page.text, text
    assert page.text.count(HOSTILE) == 3 and "script" not in page.tags
    assert "nan" not in page.text.lower() and "To know before reading on" not in page.text
    assert [link for link in page.links if link == "#diagnosis"] and page.ids.count("diagnosis") == 1
    assert page.ids.index("result") < page.ids.index("diagnosis") < page.ids.index("provenance")
    for caption in page.captions():
        assert caption.endswith(".") and ". " not in caption, caption


@pytest.mark.parametrize("missing", ["fixed_policies", "controls", "notes"])
def test_a_short_diagnosis_is_shown_as_far_as_it_goes(tmp_path: Path, missing: str) -> None:
    write_bare(tmp_path)
    content = {key: value for key, value in run_diagnosis().items() if key != missing}
    (tmp_path / "diagnose.json").write_text(json.dumps(content))
    page = Page(report.write_report(tmp_path))
    assert "Where the last policy goes" in page.text and "left out" not in page.text


@pytest.mark.parametrize("text", ["not json", "[1]", "{}", '{"references": {}, "over_training": []}'])
def test_an_odd_diagnosis_becomes_a_note(tmp_path: Path, text: str) -> None:
    write_bare(tmp_path)
    (tmp_path / "diagnose.json").write_text(text)
    page = Page(report.write_report(tmp_path))
    assert "The diagnosis is left out, because diagnose.json could not be read" in page.text and "h2" in page.tags


def test_a_diagnosis_that_cannot_be_drawn_keeps_its_tables(tmp_path: Path) -> None:
    write_bare(tmp_path)
    content = run_diagnosis()
    content["references"]["learned_reward"]["diverse"] = {}
    content["fixed_policies"]["policies"][0]["learned"] = {"simulator": [1.0], "real": [1.0]}
    content["controls"]["true_reward"]["curve"] = [{"update": "x"}]
    (tmp_path / "diagnose.json").write_text(json.dumps(content))
    page = Page(report.write_report(tmp_path))
    assert "Over training" in page.text


def test_critics_and_simulator_share_the_panel_of_discounted_returns() -> None:
    names = ("update", "real_return", "real_low", "real_high", "simulator_return", "value")
    curve = {name: np.array([1.0, 2.0, 3.0]) for name in (*names, "simulator_discounted_return")}
    figure = figures.return_curves(curve, expert=3.0, cloning=1.0)
    assert [line.get_label() for line in figure.axes[-1].lines] == ["in the simulator", "critic's value"]
    assert figure.axes[-1].get_ylabel() == "discounted return"


def test_returns_in_learned_reward_are_drawn_from_zero() -> None:
    curve = {name: np.array([2900.0, 3000.0, 3100.0]) for name in ("update", "real_return", "real_low", "real_high")}
    curve["simulator_return"] = np.array([900.0, 910.0, 940.0])
    task, learned = figures.return_curves(curve, expert=3000.0, cloning=3000.0).axes
    assert task.get_ylim()[0] > 2800.0
    assert learned.get_ylim() == (0.0, pytest.approx(990.0, abs=10.0))
    curve["simulator_return"] = np.array([-40.0, -20.0, -10.0])
    low, high = figures.return_curves(curve, expert=3000.0, cloning=3000.0).axes[1].get_ylim()
    assert low < -40.0 and high == 0.0


def test_odd_logs_become_notes(tmp_path: Path) -> None:
    write_bare(tmp_path)
    for stage, text in (("policy", "time,loss\n1,2\n"), ("simulator", "")):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "metrics.csv").write_text(text)
    page = Page(report.write_report(tmp_path))
    assert "policy/metrics.csv are left out" in page.text
    assert "simulator/metrics.csv are left out" in page.text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot read"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", 'no "task"'),
        ('{"task": 3}', 'no "task"'),
        ('{"task": "x", "policy": 3}', '"policy" in'),
        ('{"task": "x", "curve": [1]}', '"curve" in'),
    ],
)
def test_bad_metrics_name_the_file_and_what_to_do(tmp_path: Path, text: str | None, complaint: str) -> None:
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match="offsim train") as caught:
        report.write_report(tmp_path)
    assert complaint in str(caught.value) and str(tmp_path / "metrics.json") in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_command_prints_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bare(tmp_path)
    parser = argparse.ArgumentParser()
    report.configure(parser)
    assert report.run(parser.parse_args([str(tmp_path)])) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")


def test_task_and_learned_reward_never_share_an_axis() -> None:
    names = ("update", "real_return", "real_low", "real_high", "simulator_return", "real_learned_return")
    curve = {name: np.array([1.0, 2.0, 3.0]) for name in names} | {"value": np.full(3, math.nan)}
    figure = figures.return_curves(curve, expert=3.0, cloning=1.0)
    labels = [[line.get_label() for line in axis.lines] for axis in figure.axes]
    assert labels == [["in the real task", "expert", "behaviour cloning"], ["in the simulator", "in the real task"]]


def test_logs_are_drawn_over_updates_where_they_count_them() -> None:
    steps = np.array([10.0, 20.0, 30.0])
    series = {"updates": (steps, steps / 2), "loss": (np.array([15.0]), np.array([1.0]))}
    assert report_curves.count_in_updates(series) == "update"
    assert list(series) == ["loss"]
    assert series["loss"][0].tolist() == [7.5]


def test_long_lines_are_thinned_to_means_and_a_band() -> None:
    steps = np.arange(100_000, dtype=float)
    values = np.where(steps % 2 == 0, 1.0, -1.0)
    axis = figures.learning_curves({"loss": (steps, values)}, "step", figures.color("policy")).axes[0]
    drawn = np.asarray(axis.lines[0].get_ydata())
    assert len(drawn) == 100
    assert np.abs(drawn).max() < 0.01
    assert len(axis.collections) == 1


def test_worst_tracked_feature_is_always_shown() -> None:
    real = np.random.default_rng(0).normal(size=(50, 30))
    simulated = real.copy()
    simulated[3, 17] = math.nan
    figure = figures.open_loop([f"f{index}" for index in range(30)], real, simulated)
    assert len(figure.axes) == 6
    assert figure.axes[-1].get_title(loc="left") == "f17: error not finite"
