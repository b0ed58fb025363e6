"""What an experiment's YAML asks for, and what is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from app.configuration import LATER, comparable
from app.errors import UserError
from app.experiments.goals import Goal
from app.experiments.grid import Experiment, run_name, select
from app.experiments.reading import load_experiment, shipped_experiments
from app.experiments.shared import shared_stages_of

CONTENT: dict[str, Any] = {
    "title": "Two tasks",
    "tasks": ["hopper", "ant"],
    "demonstrations": [10, 1],
    "seeds": [0, 4],
    "settings": {
        "data": {"expert": "some/{task}/expert-v0", "diverse": ["some/{task}/other-v0"]},
        "policy": {"updates": 100},
    },
    "variants": {
        "plain": {},
        "long": {"policy": {"model": {"horizon": 90}}},
        "no_margin": {"simulator": {"model": {"margin_weight": 0.0}}},
        "offsim": {"data": {"diverse": []}},
        "method": {"base": "methods/offline_ml_irl", "policy": {"updates": 7}},
        "cloning": {"stages": ["behaviour_cloning"]},
    },
}

Write = Callable[..., Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Write:
    """Reads ``CONTENT`` with some keys changed; ``None`` takes one away."""

    def read(arguments: dict[str, Any] | None = None, **changes: Any) -> Experiment:
        content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_experiment(str(tmp_path / "mine.yaml"), **(arguments or {}))

    return read


def test_runs_are_ordered_demonstrations_seeds_tasks_variants(load: Write) -> None:
    experiment = load()
    names = [run.name for run in experiment.runs]
    assert len(names) == len(set(names)) == 2 * 2 * 2 * 6
    assert names[0] == "hopper/plain/demonstrations10/seed0"
    assert names[1] == "hopper/long/demonstrations10/seed0"
    assert names[6] == "ant/plain/demonstrations10/seed0"
    assert names[12] == "hopper/plain/demonstrations10/seed4"
    assert names[24] == "hopper/plain/demonstrations1/seed0"
    assert experiment.name == experiment.file == "mine"


def test_each_configuration_is_base_settings_and_variant(load: Write) -> None:
    runs = {(run.task, run.variant, run.demonstrations, run.seed): run.configuration for run in load().runs}
    plain, long = runs["ant", "plain", 1, 4], runs["ant", "long", 1, 4]
    assert (plain.task, plain.seed, plain.data.demonstrations) == ("ant", 4, 1)
    assert plain.data.expert == "some/ant/expert-v0" and plain.data.diverse == ["some/ant/other-v0"]
    assert plain.policy.updates == 100 and plain.policy.model.horizon != 90 == long.policy.model.horizon
    method = runs["hopper", "method", 10, 0]
    assert method.policy.method == "OfflineMLIRL" and method.policy.updates == 7
    assert method.data.expert == "some/hopper/expert-v0"
    assert runs["hopper", "offsim", 10, 0].data.diverse == []


def test_other_data_replaces_that_of_the_settings_alone(load: Write) -> None:
    runs = load({"expert": "my/{task}-v1", "diverse": ["a/{task}-v0", "b/c-v0"]}).runs
    assert runs[0].configuration.data.expert == "my/hopper-v1"
    assert runs[0].configuration.data.diverse == ["a/hopper-v0", "b/c-v0"]
    assert next(run for run in runs if run.variant == "offsim").configuration.data.diverse == []


def test_a_task_may_have_data_of_its_own(load: Write) -> None:
    own = {"ant": {"expert": "own/ant/expert-v3", "noise_fraction": 0.5}}

    def data(run: str, **arguments: Any) -> Any:
        runs = {run.name: run.configuration.data for run in load(arguments, data_of=own).runs}
        return runs[f"{run}/demonstrations1/seed0"]

    assert data("hopper/plain").expert == "some/hopper/expert-v0"
    assert (data("ant/plain").expert, data("ant/plain").noise_fraction) == ("own/ant/expert-v3", 0.5)
    assert data("ant/plain").diverse == ["some/ant/other-v0"]
    assert data("ant/offsim").diverse == []
    assert data("ant/plain", expert="a/{task}/expert-v0").expert == "a/ant/expert-v0"
    assert data("ant/plain", diverse=["a/{task}/mixed-v0"]).expert == "own/ant/expert-v3"


def test_a_budget_replaces_what_the_bases_say_but_nothing_that_the_experiment_says(load: Write) -> None:
    experiment = load(
        {"budget": "small"}, variants={**CONTENT["variants"], "learner": {"policy": {"method": "SimulatorTD3"}}}
    )
    found = {run.variant: run.configuration for run in experiment.runs if run.task == "hopper"}
    assert found["plain"].simulator.updates == found["method"].simulator.updates == 7000
    assert found["plain"].simulator.model.pretraining_updates == 4000
    assert found["method"].simulator.model.pretraining_updates == 7000, "no game in Offline ML-IRL"
    assert found["learner"].behaviour_cloning.updates == 6000
    assert [found[name].policy.updates for name in ("plain", "method", "learner")] == [100, 7, 100]
    assert experiment.replaced["methods/offline_ml_irl"]["simulator"]["model"] == {"pretraining_updates": 7000}
    assert experiment.replaced["defaults"]["policy"] == {"updates": 10000}
    assert load().replaced == {}
    with pytest.raises(UserError, match="unknown budget 'tiny': this configuration has small, full"):
        load({"budget": "tiny"})


def test_stages_are_shared_by_runs_that_agree_up_to_them(load: Write) -> None:
    runs = [run for run in load().runs if run.name.endswith("demonstrations10/seed0") and run.task == "hopper"]
    cloning, simulator = ({}, {})
    for run in runs:
        stages = shared_stages_of(run.configuration, Path("stages"))
        cloning[run.variant] = stages[0].folder
        simulator[run.variant] = stages[1].folder if len(stages) > 1 else None
    assert cloning["plain"] == cloning["long"] == cloning["no_margin"] == cloning["method"] == cloning["cloning"]
    assert simulator["plain"] == simulator["long"] != simulator["no_margin"]
    assert cloning["offsim"] != cloning["plain"] and simulator["offsim"] != simulator["plain"]
    assert simulator["cloning"] is None
    others = [run for run in load().runs if run.variant == "plain"]
    assert len({shared_stages_of(run.configuration, Path())[0].folder for run in others}) == len(others)
    # A stage is its own in turn
    first = shared_stages_of(runs[0].configuration, Path("stages"))
    assert shared_stages_of(first[-1].configuration, Path("stages")) == first


def test_selections_add_up(load: Write) -> None:
    runs = load().runs
    assert select(runs, []) == runs
    chosen = select(runs, ["task=ant,seed=4,variant=plain", "demonstrations=1,variant=long,variant=offsim,task=hopper"])
    assert [run.name for run in chosen] == [
        "ant/plain/demonstrations10/seed4",
        "hopper/long/demonstrations1/seed0",
        "hopper/offsim/demonstrations1/seed0",
        "hopper/long/demonstrations1/seed4",
        "hopper/offsim/demonstrations1/seed4",
        "ant/plain/demonstrations1/seed4",
    ]
    for wrong, message in (("task", "write --only"), ("sede=1", "write --only"), ("task=walker2d", "names no run")):
        with pytest.raises(UserError, match=message):
            select(runs, [wrong])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seedz": [1]}, "unknown setting 'seedz': did you mean 'seeds'"),
        ({"seeds": None}, "needs seeds"),
        ({"seeds": [0, 0]}, "seeds must be a list of whole numbers from 0 on, each once"),
        ({"seeds": 3}, "seeds must be a list"),
        ({"demonstrations": [0]}, "whole numbers from 1 on"),
        ({"tasks": ["hoper"]}, "hoper"),
        ({"variants": {}}, "at least one variant"),
        ({"variants": {"a/b": {}}}, "names a folder"),
        ({"variants": {"a": 3}}, "variant a must hold settings"),
        (
            {"variants": {"a": {"policy": {"updatse": 3}}}},
            "a on hopper: unknown setting 'policy.updatse': did you mean",
        ),
        ({"variants": {"a": {"policy": {"model": {"horizn": 3}}}}}, "did you mean policy.model.horizon"),
        ({"variants": {"a": {"seed": 3}}}, "variant a sets seed, which the grid decides: list it under seeds"),
        ({"variants": {"a": {"base": "nothing"}}}, "base 'nothing' is neither"),
        ({"variants": {"a": {"stages": ["policy"]}}}, "list them from the first on"),
        ({"settings": {"data": {"demonstrations": 3}}}, "settings sets data.demonstrations, which the grid decides"),
        ({"settings": None}, "does not say data.expert"),
        ({"settings": {"base": "ant"}}, "plain on hopper: unknown setting 'base'"),
        ({"data_of": ["ant"]}, "data_of must name tasks and settings of their data"),
        ({"data_of": {"ant": "some/ant/expert-v0"}}, "data_of must name tasks and settings of their data"),
        ({"data_of": {"antt": {}}}, "unknown setting 'antt': did you mean 'ant'"),
        ({"data_of": {"ant": {"demonstrations": 3}}}, "data_of ant sets data.demonstrations, which the grid decides"),
        (
            {"data_of": {"ant": {"exprt": "a"}}},
            "plain on ant: unknown setting 'data.exprt': did you mean 'data.expert'",
        ),
        ({"page": "fancy"}, "unknown page 'fancy': choose one of headline, ablation, simulator"),
        ({"goals": [{"variant": "nobody", "share_of_expert": 1}]}, "variant must be one of plain"),
        ({"goals": [{"variant": "plain"}]}, "either share_of_expert or not_below"),
        ({"goals": [{"variant": "plain", "share": 1}]}, "unknown key 'share'"),
    ],
)
def test_mistakes_are_refused(changes: dict[str, Any], message: str, load: Write) -> None:
    with pytest.raises(UserError, match=message):
        load(**changes)


def test_goals_are_read(load: Write) -> None:
    goals = [{"variant": "plain", "share_of_expert": 0.9, "task": "ant"}, {"variant": "plain", "not_below": "long"}]
    assert load(goals=goals).goals == [
        Goal("plain", task="ant", share_of_expert=0.9),
        Goal("plain", not_below="long"),
    ]


def test_an_unknown_experiment_is_refused() -> None:
    with pytest.raises(UserError, match="neither a file nor an experiment"):
        load_experiment("nothing-like-it")


@pytest.mark.parametrize("name", shipped_experiments())
def test_shipped_experiments_resolve(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.runs and experiment.question and experiment.file == name  # its pages are docs/results/NAME.*


def test_a_setting_of_later_leaves_the_keys_of_earlier_runs(load: Write) -> None:
    plain = load().runs[0]
    settings = CONTENT["settings"]
    named, other = (load(settings=settings | {"matmul_precision": name}).runs[0] for name in ("highest", "medium"))
    assert plain.key == named.key != other.key
    kept = [str(name) for name in plain.configuration if name not in LATER]
    assert len(kept) < len(plain.configuration)
    assert replace(plain, configuration=OmegaConf.masked_copy(plain.configuration, kept)).key == plain.key
    folders = {shared_stages_of(run.configuration, Path("stages"))[0].folder for run in (plain, named, other)}
    assert len(folders) == 2


RESULTS = Path(__file__).parents[2] / "docs/results"
APART: dict[str, dict[str, Any]] = {  # data and budgets by what the names of pages say of them
    "": {},
    "small": {"budget": "small"},
    "reference-expert-v0-reference-mixed-v0": {
        "expert": "reference/{task}/expert-v0",
        "diverse": ["reference/{task}/mixed-v0"],
    },
    "offsim-expert-v0-offsim-mixed-v0": {"expert": "offsim/{task}/expert-v0", "diverse": ["offsim/{task}/mixed-v0"]},
}


@pytest.mark.parametrize("page", sorted(RESULTS.glob("[a-z]*.json")), ids=lambda page: page.stem)
def test_published_rows_are_those_of_todays_settings(page: Path) -> None:
    name, _, apart = page.stem.partition("-")
    experiment = load_experiment(name, **APART[apart])
    keys = {run.name: run.key for run in experiment.runs}
    for row in json.loads(page.read_text()):
        run = run_name(row["task"], row["method"], row["demonstrations"], row["seed"])
        assert keys[run] == row["run"]["settings"]


def test_settings_of_an_anchor_say_nothing_without_one() -> None:
    def settings(**model: Any) -> dict[str, Any]:
        return {"seed": 0, "policy": {"updates": 5, "model": {"gamma": 0.99, **model}}}

    before = settings(anchor_weight=0.0)
    assert comparable(settings(anchor_weight=0.0, anchor_form="doubt", anchor_tolerance=0.2)) == before
    anchored = settings(anchor_weight=1.0, anchor_form="doubt", anchor_tolerance=0.2)
    assert comparable(anchored) == anchored
    assert comparable(settings(anchor_weight=1.0, value_unit=None)) == settings(anchor_weight=1.0)
    assert comparable(settings(anchor_weight=1.0, value_unit=3.0)) == settings(anchor_weight=1.0, value_unit=3.0)
    held = settings(
        anchor_weight=1.0,
        loosen_below=None,
        let_go="known",
        let_go_updates=9,
        loosened_hold=0.01,
        judged_episodes=100,
        aggregation=None,
    )
    assert comparable(held) == settings(anchor_weight=1.0)
    loosened = settings(anchor_weight=1.0, loosen_below=0.6, loosened_hold=0.01, judged_episodes=100)
    assert comparable(loosened) == loosened
    assert comparable(settings(loosen_below=0.8, let_go="failing", let_go_updates=9)) == settings(loosen_below=0.8)
    few = settings(loosen_below=0.8, let_go="known", let_go_updates=9)  # than these, of the 5 that there are
    assert comparable(few) == settings(loosen_below=0.8)
    enough = settings(loosen_below=0.8, let_go="known", let_go_updates=5)
    assert comparable(enough) == enough
    assert comparable({"stages": [], "matmul_precision": "highest"}) == {"stages": []}


def test_settings_of_forecasts_say_nothing_without_any() -> None:
    def settings(**model: Any) -> dict[str, Any]:
        return {"seed": 0, "simulator": {"updates": 5, "model": {"members": 7, **model}}}

    assert comparable(settings(forecast_updates=0, forecast_steps=5, forecast_weight=0.3)) == settings()
    forecasting = settings(forecast_updates=2, forecast_steps=5)
    assert comparable(forecasting) == forecasting
