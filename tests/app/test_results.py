"""Pages of results, from hand-written runs with figures worked out by hand."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import main as command
from app.errors import UserError
from app.experiments.grid import Experiment
from app.experiments.reading import load_experiment
from app.loggers import last_values
from app.main import main
from app.results.aggregate import aggregate, judge
from app.results.evidence import gather
from app.results.page import MARK, write_page
from app.run_folder import claim_folder

# Returns of the policy by variant and seed; the expert returns 2000 on hopper
RETURNS = {"good": {0: 1900.0, 1: 1700.0, 2: 1200.0}, "bad": {0: 400.0, 1: 600.0}}
GOALS = [
    {"variant": "good", "share_of_expert": 0.75},
    {"variant": "good", "share_of_expert": 0.75, "statistic": "min"},
    {"variant": "good", "not_below": "bad"},
    {"variant": "bad", "share_of_expert": 0.5, "task": "ant"},
]


def write_log(folder: Path) -> None:
    """The log of a simulator stage: two validations, and rows of training without their figures."""
    names = [
        f"validation/{data}_held_out/{name}" for data in ("expert", "diverse") for name in ("one_step", "open_loop")
    ]
    names += [f"{name}_before_game" for name in names]
    folder.mkdir()
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss", *names])
        writer.writeheader()
        writer.writerow({"step": 0, **dict.fromkeys(names, 9.0)})
        writer.writerow({"step": 1, **{name: 0.5 + 0.25 * name.endswith("game") for name in names}})
        writer.writerow({"step": 2, "train/loss": 3.0})


def make_run(experiment: Experiment, out: Path, name: str, returned: float, shared: str | None) -> None:
    (run,) = (run for run in experiment.runs if run.name == name)
    folder = out / name
    claim_folder(run.configuration, folder)
    metrics: dict[str, Any] = {
        "task": run.task,
        "seed": run.seed,
        "data": [{"role": "expert", "id": "some/hopper/expert-v0", "sha256": "ab12" * 16}],
        "versions": {"offsim": "0.1.0", "torch": "2.9.1"},
        "stages": {"behaviour_cloning": 100.0, "policy": 500.0},
        "wall_seconds": 700.0,
        "expert": {"mean": 2000.0, "std": 120.0, "episodes": 16},
        "demonstrated": {"mean": 1800.0},
        "behaviour_cloning": {"mean": 1000.0},
        "policy": {"mean": returned, "std": 200.0, "episodes": 1 if returned == 400.0 else 4},
        "share_of_expert": returned / 2000.0,
        "reward_rank_correlation": {"expert": 0.4, "diverse": None},
        "curve": [
            {"update": 0, "simulator_return": 1.0, "real_learned_return": 2.0},
            {"update": 9, "simulator_return": 30.0, "simulator_standard_error": 3.0, "real_learned_return": 20.0},
        ],
        "verdict": "exploited",
    }
    if run.variant == "good":
        metrics["policy_alone"] = {"mean": returned - 100.0}  # what is bad was not joined
    if shared is not None:
        metrics["shared_stages"] = {"behaviour_cloning": shared}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "report.html").write_text("")
    diagnostics = {
        "open_loop_error": {"steps": [1, 5, 50], "normalized_error": {"expert": [0.1, 0.3, float("nan")]}},
        "calibration": {"nominal": [0.5, 0.9], "observed": {"expert": [0.55, 0.85]}},
    }
    (folder / "diagnostics.json").write_text(json.dumps(diagnostics))
    write_log(folder / "simulator")


def make(tmp_path: Path, page: str = "headline", tasks: tuple[str, ...] = ("hopper", "ant")) -> tuple[Experiment, Path]:
    content = {
        "title": "Good against bad",
        "question": "Which one?",
        "page": page,
        "file": "duel",
        "tasks": list(tasks),
        "demonstrations": [10],
        "seeds": [0, 1, 2],
        "goals": [goal for goal in GOALS if goal.get("task", tasks[0]) in tasks],
        "settings": {"data": {"expert": "some/{task}/expert-v0"}},
        "variants": {"good": {}, "bad": {"policy": {"updates": 3}}},
    }
    (tmp_path / "duel.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    experiment, out = load_experiment(str(tmp_path / "duel.yaml")), tmp_path / "out"
    for variant, seeds in RETURNS.items():
        for seed, returned in seeds.items():
            name = f"hopper/{variant}/demonstrations10/seed{seed}"
            make_run(experiment, out, name, returned, f"stage-{seed}" if seed < 2 else None)
    failed = out / "hopper/bad/demonstrations10/seed2"
    claim_folder(next(run for run in experiment.runs if run.name in str(failed)).configuration, failed)
    (failed / "failure.json").write_text(json.dumps({"reason": "FloatingPointError: loss is not finite"}))
    return experiment, out


def test_a_page_says_where_runs_were_trained_if_that_was_on_a_gpu(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    plain = write_page(experiment, out, "command", "", tmp_path / "page").read_text()
    for name, device in (("good/demonstrations10/seed0", "NVIDIA H200"), ("good/demonstrations10/seed1", "CPU")):
        path = out / "hopper" / name / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "trained_on": device}))
    told = write_page(experiment, out, "command", "", tmp_path / "page").read_text()
    assert "trained on" not in plain
    (line,) = (line for line in told.splitlines() if "trained on" in line)
    assert {"NVIDIA H200 (1 run)", "CPU (1 run)"} < set(line.removeprefix("- trained on: ").split(", "))
    rows = json.loads((tmp_path / "page" / "duel.json").read_text())
    assert rows[0]["run"]["trained_on"] == "NVIDIA H200"
    shutil.rmtree(out / "hopper" / "good")
    rows[0]["run"]["same_as"] = "bad"
    (tmp_path / "page" / "duel.json").write_text(json.dumps(rows))
    copied = write_page(experiment, out, "command", "", tmp_path / "page").read_text()
    assert "- finished: 5 of 12 runs" in copied
    assert "H200" not in copied, "a run that stands in two variants was trained once"


def test_aggregates_over_seeds(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    results = aggregate(experiment, gather(experiment, out, [out / "duel.json"]).rows)
    assert [(each.task, each.variant) for each in results] == [
        ("hopper", "good"),
        ("hopper", "bad"),
        ("ant", "good"),
        ("ant", "bad"),
    ]
    good, bad = results[:2]
    assert (good.finished, good.planned, bad.finished) == (3, 3, 2)
    assert (good.mean, good.minimum, bad.mean) == (1600.0, 1200.0, 500.0)
    assert good.spread == pytest.approx((0.5 * (300**2 + 100**2 + 400**2)) ** 0.5)
    assert good.share == pytest.approx(0.8) and good.share_middle == pytest.approx(0.8)
    assert good.interval[0] == pytest.approx(0.6) and good.interval[1] == pytest.approx(0.95)
    assert good.alone == 1500.0 and bad.alone != bad.alone
    assert good.demonstrated == 1800.0
    assert (good.expert, good.expert_error) == (2000.0, 30.0)
    assert good.error == pytest.approx(100.0 / 3**0.5)
    assert bad.error != bad.error  # one of its seeds has a single episode
    assert results[2].finished == 0 and results[2].mean != results[2].mean


def test_goals_are_judged_on_every_task_in_their_scope(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    results = aggregate(experiment, gather(experiment, out, [out / "duel.json"]).rows)
    judged = [judge(goal, results) for goal in experiment.goals]
    assert [len(each) for each in judged] == [2, 2, 2, 1]
    assert [each[0][1:] for each in judged[:3]] == [
        pytest.approx((0.8, 0.75)),
        pytest.approx((0.6, 0.75)),
        pytest.approx((0.9, 0.25)),  # of the two seeds that both have
    ]
    assert [each[0][0].finished for each in judged[:3]] == [3, 3, 2]


def test_rows_hold_what_each_run_found(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    write_page(experiment, out, "offsim experiment duel", "", out)
    rows = json.loads((out / "duel.json").read_text())
    assert len(rows) == 5
    wanted = {
        "task": "hopper",
        "method": "good",
        "demonstrations": 10,
        "seed": 0,
        "expert_mean": 2000.0,
        "expert_standard_error": 30.0,
        "policy_standard_error": 100.0,
        "behaviour_cloning_mean": 1000.0,
        "policy_mean": 1900.0,
        "policy_alone_mean": 1800.0,
        "share_of_expert": 0.95,
        "simulator_return": 30.0,
        "simulator_standard_error": 3.0,
        "real_learned_return": 20.0,
        "wall_seconds": 700.0,
        "verdict": "exploited",
        "one_step_expert": 0.5,
        "one_step_expert_before_game": 0.75,
        "error_1_expert": 0.1,
        "error_50_expert": None,  # not a number is no result
        "error_1_diverse": None,
        "inside_90_expert": 0.85,
        "reward_rank_expert": 0.4,
        "reward_rank_diverse": None,
    }
    assert {key: rows[0][key] for key in wanted} == wanted


def test_the_page_says_what_was_found_and_what_is_missing(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    text = write_page(experiment, out, "offsim experiment duel", "", out).read_text()
    for line in (
        "# Good against bad",
        "Which one?",
        "`offsim experiment duel`",
        "- finished: 5 of 12 runs",
        # 5 x 700 seconds, less the 2 x 100 of stages that were counted twice
        "- cost of these: 55.0 minutes",
        "- expert data: `some/hopper/expert-v0`, SHA-256 ab12ab12ab12",
        "| 10 | hopper | good | 2,000 ± 30 | 1,800 | 1,000 | 1,600 ± 58 | 1,200 | 360.6 | 80.0% "
        "| 80.0% [60.0%, 95.0%] | 1,500 | 30 ± 1.7 / 20 | 3 of 3 |",
        "| 10 | hopper | bad | 2,000 ± 30 | 1,800 | 1,000 | 500 | 400 | 141.4 | 25.0% "
        "| 25.0% [20.0%, 30.0%] | – | 30 ± 2.1 / 20 | 2 of 3 |",
        "| mean of good at least 75.0% | hopper | 10 | 80.0% | met | 3 of 3 |",
        "| min of good at least 75.0% | hopper | 10 | 60.0% | missed by 15.0 points | 3 of 3 |",
        "| mean of good not below bad | hopper | 10 | 90.0% | met | 2 of 3 |",
        "Of 7 goals 4 are about runs of which none is finished.",
        "| bad | `policy.updates: 3` |",
        "- hopper/bad/demonstrations10/seed2: FloatingPointError: loss is not finite",
        "## Missing: 6 of 12 runs",
        "- good, 10 demonstrations: ant (seed 0, 1, 2)",
        "- bad, 10 demonstrations: ant (seed 0, 1, 2)",
        "![Good against bad](duel.png)",
    ):
        assert line in text, line
    assert (out / "duel.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("page", "line", "images"),
    [
        (
            "ablation",
            "| 10 | hopper | good | 0.75 → 0.5 | 0.75 → 0.5 | 0.75 → 0.5 | 0.75 → 0.5 |",
            {"duel.png", "duel-errors.png", "duel-rewards.png"},
        ),
        (
            "ablation",
            "| hopper | good | 10 | held-out expert | 0.1 [0.1, 0.1] | – | 0.55 [0.55, 0.55] | 0.85 [0.85, 0.85] | "
            "0.4 [0.4, 0.4] | 3 of 3 |",
            {"duel.png", "duel-errors.png", "duel-rewards.png"},
        ),
        (
            "simulator",
            "| hopper | good | 10 | held-out expert | 0.1 [0.1, 0.1] | – | 0.55 [0.55, 0.55] | 0.85 [0.85, 0.85] | "
            "0.4 [0.4, 0.4] | 3 of 3 |",
            {"duel.png"},
        ),
    ],
)
def test_other_kinds_of_page(page: str, line: str, images: set[str], tmp_path: Path) -> None:
    experiment, out = make(tmp_path, page, tasks=("hopper",))
    rewards = {when: {"expert": [1.0, 2.0], "random": [0.0, 0.5]} for when in ("before", "after")}
    (out / "hopper/good/demonstrations10/seed1/reward_histograms.json").write_text(json.dumps(rewards))
    text = write_page(experiment, out, "offsim experiment duel", "", tmp_path / "page").read_text()
    assert line in text.splitlines()
    assert {path.name for path in (tmp_path / "page").glob("*.png")} == images


def test_the_json_of_a_page_is_json_whatever_was_measured(tmp_path: Path) -> None:
    experiment, out = make(tmp_path, "ablation", tasks=("hopper",))
    run = out / "hopper/good/demonstrations10/seed1"
    rewards = {"before": {"expert": [1.0, float("nan")]}, "after": {"expert": [float("inf")]}}
    (run / "reward_histograms.json").write_text(json.dumps(rewards))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["curve"][-1]["simulator_return"] = float("inf")
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_page(experiment, out, "offsim experiment duel", "", tmp_path / "page")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    rows = json.loads((tmp_path / "page" / "duel.json").read_text(), parse_constant=refuse)
    (row,) = (row for row in rows if "reward_histograms" in row)
    assert row["reward_histograms"] == {"before": {"expert": [1.0, None]}, "after": {"expert": [None]}}
    assert row["simulator_return"] is None


def test_the_json_of_a_page_keeps_as_much_of_histograms_as_is_drawn(tmp_path: Path) -> None:
    experiment, out = make(tmp_path, "ablation", tasks=("hopper",))
    many = [float(value) for value in range(2000, 0, -1)]
    rewards = {"before": {"expert": many, "random": many}, "after": {"expert": [1.0, 0.5], "random": [0.0]}}
    for seed in (0, 1):
        path = out / f"hopper/good/demonstrations10/seed{seed}/reward_histograms.json"
        path.write_text(json.dumps(rewards))
    write_page(experiment, out, "offsim experiment duel", "", tmp_path / "page")
    rows = json.loads((tmp_path / "page" / "duel.json").read_text())
    (kept,) = (row["reward_histograms"] for row in rows if "reward_histograms" in row)
    values = kept["before"]["expert"]
    assert (len(values), values[0], values[-1]) == (500, 1.0, 2000.0) and values == sorted(values)
    assert kept["after"] == rewards["after"]


@pytest.mark.parametrize("page", ["headline", "ablation", "simulator"])
def test_a_page_is_written_before_anything_is_finished(page: str, tmp_path: Path) -> None:
    experiment, _ = make(tmp_path, page)
    text = write_page(experiment, tmp_path / "nothing", "offsim experiment duel", "", tmp_path / "page").read_text()
    assert "- finished: 0 of 12 runs" in text and "duel.png" not in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert set(headings) <= {"## Goals", "## What each variant changes", "## Missing: 12 of 12 runs"}
    assert json.loads((tmp_path / "page" / "duel.json").read_text()) == []


def test_a_budget_names_the_page_and_is_stated_on_it(tmp_path: Path) -> None:
    words = ["experiment", "b", "--budget", "small", "--out", str(tmp_path / "out"), "--page", str(tmp_path)]
    assert main(words) == 0
    text = (tmp_path / "b-small.md").read_text()
    assert "`offsim experiment b --budget small`" in text
    assert "- budget small, which sets `behaviour_cloning.updates: 6000`, `simulator.updates: 7000`, " in text


def test_a_page_keeps_runs_that_were_carried_out_elsewhere(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    rewards = {"before": {"expert": [1.0]}, "after": {"expert": [2.0]}}
    (out / "hopper/good/demonstrations10/seed1/reward_histograms.json").write_text(json.dumps(rewards))
    write_page(experiment, out, "offsim experiment duel", "", tmp_path)
    before = json.loads((tmp_path / "duel.json").read_text())
    shutil.rmtree(out / "hopper" / "good")
    text = write_page(experiment, out, "offsim experiment duel", "", tmp_path).read_text()
    assert json.loads((tmp_path / "duel.json").read_text()) == before
    for line in (
        "- finished: 5 of 12 runs",
        "- cost of these: 55.0 minutes",
        "| 10 | hopper | good | 2,000 ± 30 | 1,800 | 1,000 | 1,600 ± 58 | 1,200 | 360.6 | 80.0% "
        "| 80.0% [60.0%, 95.0%] | 1,500 | 30 ± 1.7 / 20 | 3 of 3 |",
        "- hopper/bad/demonstrations10/seed2: FloatingPointError: loss is not finite",
        "## Missing: 6 of 12 runs",
    ):
        assert line in text, line
    assert gather(experiment, out, [tmp_path / "duel.json"]).reward_histograms("hopper", "good", 10) == rewards


def test_a_run_that_stands_in_two_variants_costs_once(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    write_page(experiment, out, "offsim experiment duel", "", tmp_path)
    rows = json.loads((tmp_path / "duel.json").read_text())
    shutil.rmtree(out / "hopper" / "good")
    rows[0]["run"]["same_as"] = "bad"
    (tmp_path / "duel.json").write_text(json.dumps(rows))
    text = write_page(experiment, out, "offsim experiment duel", "", tmp_path).read_text()
    assert "- finished: 5 of 12 runs" in text and "- cost of these: 45.0 minutes" in text  # 600 seconds of its own less


def test_runs_of_another_page_count_where_settings_are_the_same(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    write_page(experiment, out, "offsim experiment duel", "-small", tmp_path)
    content = yaml.safe_load((tmp_path / "duel.yaml").read_text())
    content |= {"file": "again", "also": ["duel"], "goals": [], "seeds": [1, 3]}
    content["variants"] = {"plain": {}, "other": {"policy": {"updates": 4}}}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(content))
    again = load_experiment(str(tmp_path / "again.yaml"))
    assert "finished: 0 of 8" in write_page(again, tmp_path / "none", "", "", tmp_path).read_text()  # other data
    text = write_page(again, tmp_path / "none", "", "-small", tmp_path).read_text()
    assert "finished: 1 of 8" in text
    (row,) = json.loads((tmp_path / "again-small.json").read_text())
    assert (row["method"], row["seed"], row["policy_mean"]) == ("plain", 1, 1700.0)


def test_a_page_drops_runs_with_other_settings(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    write_page(experiment, out, "offsim experiment duel", "", tmp_path)
    path = tmp_path / "duel.yaml"
    path.write_text(path.read_text().replace("updates: 3", "updates: 4"))
    evidence = gather(load_experiment(str(path)), tmp_path / "nothing", [tmp_path / "duel.json"])
    assert [row["method"] for row in evidence.rows] == ["good"] * 3
    states = {run.name: state.kind for run, state in evidence.states.items()}
    assert states["hopper/good/demonstrations10/seed0"] == "kept"
    assert states["hopper/bad/demonstrations10/seed0"] == "missing"


def test_settings_of_stages_that_a_run_leaves_out_do_not_tell_it_from_another(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "duel.yaml"

    def keys(stages: list[str], updates: int) -> list[str]:
        content = yaml.safe_load(path.read_text())
        content["settings"]["stages"] = stages
        content["settings"]["policy"] = {"updates": updates}
        path.write_text(yaml.safe_dump(content))
        return [run.key for run in load_experiment(str(path)).runs if run.variant == "good"]

    assert keys(["behaviour_cloning"], 10) == keys(["behaviour_cloning"], 20)
    whole = ["behaviour_cloning", "simulator", "policy"]
    assert set(keys(whole, 10)).isdisjoint(keys(whole, 20))


def test_the_command_writes_pages_into_a_checkout_and_overwrites_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["experiment", "duel.yaml", "--out", str(out), "--page"]
    assert command.main(words) == 0 and (out / "duel.md").exists()
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")
    assert command.main(words) == 0
    page = tmp_path / "docs" / "results" / "duel.md"
    assert page.read_text().startswith(MARK)
    assert command.main(words) == 0
    page.write_text("years of thought")
    assert command.main(words) == 2 and page.read_text() == "years of thought"
    assert "was not written by this command" in capsys.readouterr().err


def test_results_of_other_data_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["--expert", "other/{task}/expert-v0", "--diverse", "a/{task}-v0"]
    assert command.main(["experiment", "duel.yaml", *words, "--page"]) == 0
    text = (tmp_path / "runs/experiments/duel-other-expert-v0-a-v0/duel-other-expert-v0-a-v0.md").read_text()
    assert "`offsim experiment duel.yaml --expert other/{task}/expert-v0 --diverse a/{task}-v0`" in text


def test_last_values_of_a_log(tmp_path: Path) -> None:
    assert last_values(tmp_path / "nothing.csv") == {}
    (tmp_path / "metrics.csv").write_text("step,a,b\n0,1.0,nan\n1,,2.5\n2,3.0,nan\n")
    assert last_values(tmp_path / "metrics.csv") == {"step": 2.0, "a": 3.0, "b": 2.5}


def test_damaged_pages_are_not_taken_for_ours(tmp_path: Path) -> None:
    experiment, out = make(tmp_path)
    (out / "duel.md").write_text("")
    with pytest.raises(UserError, match="was not written by this command"):
        write_page(experiment, out, "offsim experiment duel", "", out)


@pytest.mark.parametrize(
    ("share", "chosen", "both"),
    [
        (0.93, None, True),  # of a run without the stage, whose cloned policy does well
        (0.89, None, False),
        (None, None, False),
        (0.7, False, True),  # of a run with it, which started from the cloned policy
        (0.7, True, False),
    ],
)
def test_weighted_cloning_that_leaves_the_start_as_it_is_makes_no_other_run(
    tmp_path: Path, share: float | None, chosen: bool | None, both: bool
) -> None:
    """The row of one variant counts for the other where both end with the same policy."""
    make(tmp_path, tasks=("hopper",))
    content = yaml.safe_load((tmp_path / "duel.yaml").read_text())
    diverse = {"data": {"expert": "some/{task}/expert-v0", "diverse": ["other/{task}-v0"]}}
    plain = {"stages": ["behaviour_cloning", "simulator", "policy"]}
    content |= {"goals": [], "seeds": [0], "settings": diverse, "variants": {"default": {}, "plain": plain}}
    (tmp_path / "duel.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    experiment, out = load_experiment(str(tmp_path / "duel.yaml")), tmp_path / "again"
    trained, other = ("plain", "default") if chosen is None else ("default", "plain")
    name = f"hopper/{trained}/demonstrations10/seed0"
    make_run(experiment, out, name, 1900.0, None)
    (out / name / "policy").mkdir()
    log = "train/cloned/demonstrated,train/cloned/earned\n" + ("" if share is None else f"100.0,{100.0 * share}\n")
    (out / name / "policy" / "metrics.csv").write_text(log)
    if chosen is not None:
        path = out / name / "metrics.json"
        stage = {"weighted_start": {"weighted": chosen}, "weighted_cloning": {"mean": 1.0}}
        path.write_text(json.dumps(json.loads(path.read_text()) | stage))
    page = tmp_path / "page"
    for _ in range(2):  # the second time from the page alone
        write_page(experiment, out, "command", "", page)
        rows = {row["method"]: row for row in json.loads((page / "duel.json").read_text())}
        assert set(rows) == ({trained, other} if both else {trained})
        shutil.rmtree(out, ignore_errors=True)
    if both:
        assert rows[other]["run"]["same_as"] == trained and rows[other]["policy_mean"] == 1900.0
        assert rows[other]["run"]["settings"] == next(run for run in experiment.runs if run.variant == other).key
        assert ("weighted_cloning_mean" in rows["default"]) == (chosen is not None)
        assert "weighted_cloning_mean" not in rows["plain"]
        assert "- cost of these: 11.7 minutes" in (page / "duel.md").read_text()
