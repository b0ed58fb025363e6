"""The data that travels with the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from datamodules import TransitionDataModule
from datamodules.sources import BUNDLED_ROOT
from zoo.tasks import get_task

DATASETS = sorted(path.parent.parent for path in BUNDLED_ROOT.rglob("main_data.hdf5"))


def test_all_of_it_is_small() -> None:
    assert DATASETS
    assert sum(path.stat().st_size for path in BUNDLED_ROOT.rglob("*") if path.is_file()) <= 5_000_000


@pytest.mark.parametrize("folder", DATASETS, ids=lambda folder: str(folder.relative_to(BUNDLED_ROOT)))
def test_card_names_the_hash_of_the_data(folder: Path) -> None:
    digest = hashlib.sha256((folder / "data" / "main_data.hdf5").read_bytes()).hexdigest()
    assert digest in (folder / "card.md").read_text()


def test_hopper_trains_from_it_and_its_flags_agree_with_the_rule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr("datamodules.sources.BUNDLED_ROOT", BUNDLED_ROOT)
    data = TransitionDataModule("offsim/hopper/expert-v0", 10, ["offsim/hopper/replay-v0"])
    data.setup("fit")
    assert data.diverse_train is not None and data.expert_held_out is not None
    rule = get_task("hopper").termination
    assert rule is not None
    for table in (data.expert_train, data.diverse_train):
        following = table["next"]
        assert bool((rule(following["observation"]) == following["terminated"].squeeze(-1)).all())
    assert len(data.expert_train) == 9_000 and len(data.diverse_train) > 20_000
