"""The programs that pages of the documentation show run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium
import pytest
import torch
from stable_baselines3 import SAC

from zoo import Policy, Simulator
from zoo.reward import RewardModel
from zoo.start_states import StartStates
from zoo.termination import RuleTermination
from zoo.transition import TransitionModel

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "zoo" / "weights").rglob("*.md")])


def anchor(heading: str) -> str:
    """What a heading is called in an address."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for address in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in address:
            continue
        file, _, heading = address.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), address
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(anchor, headings), address


def programs(page: Path) -> list[str]:
    """The Python blocks of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_programs_about_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = (TransitionModel(11, 3, members=2, hidden_sizes=(8,)), RewardModel(11, 3, (8,)), RuleTermination("hopper"))
    starts = StartStates.of(torch.tensor([[1.25] + [0.0] * 10]))
    Simulator(*parts, starts, [-1.0] * 3, [1.0] * 3, task="hopper").save(tmp_path / "runs/demo/simulator.safetensors")
    Policy(11, [-1.0] * 3, [1.0] * 3, (8,)).save(tmp_path / "runs/demo/policy.safetensors")
    monkeypatch.chdir(tmp_path)
    learn = SAC.learn
    monkeypatch.setattr(SAC, "learn", lambda self, steps: learn(self, min(steps, 120)))
    found = programs(DOCS / "environments.md")
    names: dict[str, object] = {}
    for program in found:
        exec(program, names)
    assert len(found) == 6
    assert float(capsys.readouterr().out.splitlines()[0]) >= 0  # the uncertainty that the first one prints
    names["model"].set_env(gymnasium.make("Hopper-v5"))  # type: ignore[attr-defined]
    reward, observations = names["reward"], names["observations"]
    assert isinstance(reward, torch.Tensor) and reward.shape == (64,)
    assert getattr(observations, "shape", None) == (64, 11)
