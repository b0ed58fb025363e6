"""Whose a run folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from app.run_folder import claim_folder, holds_another

CLONING = {"seed": 0, "stages": ["behaviour_cloning"], "behaviour_cloning": {"updates": 10}, "policy": {"updates": 5}}


@pytest.mark.parametrize(
    ("changed", "another"),
    [
        ({}, False),
        ({"policy": {"updates": 6, "new": 1}}, False),  # which no stage of this run reads
        ({"behaviour_cloning": {"updates": 11}}, True),
        ({"seed": 1}, True),
        ({"stages": ["behaviour_cloning", "simulator", "policy"]}, True),
    ],
)
def test_a_folder_is_anothers_only_in_what_its_stages_read(
    tmp_path: Path, changed: dict[str, Any], another: bool
) -> None:
    claim_folder(OmegaConf.create(CLONING), tmp_path)
    assert holds_another(OmegaConf.create({**CLONING, **changed}), tmp_path) is another


@pytest.mark.parametrize("content", [b"seed: [", b"\xff\xfe\x00", b"- 1", b""])
def test_a_damaged_configuration_is_nobodys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    assert holds_another(OmegaConf.create(CLONING), tmp_path)
