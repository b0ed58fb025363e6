"""Whatever a configuration says: it can be trained with, or is refused in one sentence before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from app import main as command
from app.configuration import _keys, load_configuration, resolve
from app.errors import UserError

SHIPPED = ("hopper", "methods/offline_ml_irl", "methods/SimulatorTD3")
KEYS = sorted({key for name in SHIPPED for key in _keys(load_configuration(name)) if not key.startswith("budgets")})
TASK = ["--task=hopper", "--data.expert=tiny/hopper/expert-v0", "--data.diverse=tiny/hopper/other-v0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy.updates=abc"], "policy.updates: Not of type PositiveInt"),
        (["--policy.updates=0"], "0 does not conform to restriction v>0"),
        (["--policy.updates=null"], "policy.updates"),
        (["--policy.updates=${nothing}"], "the configuration cannot be read: Interpolation key 'nothing' not found"),
        (["--policy.updates=[1"], "cannot set policy.updates to '[1'"),
        (["--data.demonstrations=0"], "data.demonstrations is 0: expected PositiveInt or null"),
        (["--data=5"], "data.expert"),
        (["--policy.model=7"], "policy.model: Expected a <class 'dict'>"),
        (["--policy.model.gamma=1.0"], "policy.model.gamma is 1.0: it must be at least 0 and below 1"),
        (["--simulator.model.members=2.5"], "simulator.model.members: Expected a <class 'int'>"),
        (["--simulator.model.members="], "simulator.model: "),
        (["--simulator.all_rows=3"], "each of the 7 members needs at least one"),
        (["--policy.model.batch_size=4096"], "policy.expert_rows is "),
        (["--policy.model.batch_size=4096"], "a batch of 4096 with a real_share of 0.5 takes "),
        (
            ["--simulator.model.starts=9999"],
            "of 9999 roll-outs (starts, expert_start_share) begin in rows of expert data",
        ),
        (["--policy.model.cloning_form=cosine"], "policy.model: unknown form of cloning 'cosine'"),
        (["--policy.model.uncertainty_cut=0.97"], "policy.model: no stored uncertainty quantile 0.97"),
        (["--simulator.model.uncertainty=doubt"], "simulator.model: unknown uncertainty measure 'doubt'"),
        (["--simulator.model.proposal={guess: 1}"], "simulator.model: unknown action proposal 'guess'"),
        (["--accelerator=abacus"], "accelerator and devices:"),
        (["--accelerator=tpu"], "accelerator and devices:"),
        (["--seed=99999999999"], "seed is 99999999999: it must be at most 4294967295"),
        (
            ["--policy.model.expert_start_share=0.9", "--policy.model.initial_start_share=0.3"],
            "policy.model: expert_start_share 0.9 and initial_start_share 0.3",
        ),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    words: list[str], message: str, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = [word for word in tiny if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    assert command.main([*without, *words, f"--out={tmp_path / 'run'}"]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith("offsim: ") and "Traceback" not in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["task: null\ndata: {expert: plant/good-v0}\n", "", "level,flow\n"])
def test_a_file_that_is_based_on_nothing_is_refused_in_a_sentence(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    assert command.main(["train", str(tmp_path / "mine.yaml")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("offsim: ") and "mine.yaml" in printed and "Traceback" not in printed
    assert "level" in content or "`base: own` for a system of your own" in printed


values = st.one_of(
    st.integers(-3, 3),
    st.floats(allow_nan=True),
    st.booleans(),
    st.none(),
    st.text(max_size=6),
    st.sampled_from(["null", "[]", "{}", "[1, 2]", "{a: 1}", "${seed}", "${x}", "[1", "auto", "tuned", "1e-3", "'"]),
)


def test_any_configuration_is_read_or_refused_in_a_sentence() -> None:
    tried, refused = 0, 0

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(source=st.sampled_from(SHIPPED), given=st.lists(st.tuples(st.sampled_from(KEYS), values), max_size=3))
    def try_one(source: str, given: list[tuple[str, Any]]) -> None:
        nonlocal tried, refused
        tried += 1
        words = [*TASK, *(f"--{key}={value}" for key, value in given)]
        try:
            read = resolve(load_configuration(source), "full", {}, words)
        except UserError as error:
            refused += 1
            assert str(error)
        else:
            OmegaConf.to_yaml(read, resolve=True)

    try_one()
    print(f"{tried} configurations tried, {refused} refused")
    assert 10 < refused < tried


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(st.text(max_size=12), max_size=4))
def test_any_words_are_read_or_refused_in_a_sentence(words: list[str]) -> None:
    try:
        resolve(load_configuration("hopper"), "full", {}, [*TASK, *words])
    except UserError as error:
        assert str(error)
