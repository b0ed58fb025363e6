"""Damaged files of every kind are refused in a sentence or read, never with a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.fuzz import FAULT, OTHER, REFUSED, SAME, changed, judged
from benchmarks.fuzz_targets import fingerprint, targets

INPUTS = 20
TARGETS = targets()


@pytest.mark.parametrize("name", list(TARGETS))
def test_damaged_files_are_refused_or_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))  # which reading datasets replaces
    target = TARGETS[name]
    path = target.prepare(tmp_path)
    before = fingerprint(target.read(path))
    assert judged(target, path, before) == (SAME, "")
    tried = max(2, round(target.share * INPUTS))
    outcomes = []
    for number in range(tried):
        path.write_bytes(changed(target.content, random.Random(f"{name}/{number}")))
        outcome, reason = judged(target, path, before)
        assert outcome != FAULT, f"input {number}: {reason}"
        outcomes.append(outcome)
    print(f"{tried} inputs tried, {outcomes.count(REFUSED)} refused, {outcomes.count(OTHER)} read as something else")


def test_what_passes_a_checksum_and_what_ends_in_a_traceback_are_faults(tmp_path: Path) -> None:
    target = TARGETS["file of a zoo entry"]
    path = target.prepare(tmp_path)
    target.read = Path.read_bytes
    before = fingerprint(target.content)
    path.write_bytes(b"changed")
    assert judged(target, path, before) == (FAULT, "changed, and read all the same")
    target.read = lambda path: path.read_bytes().decode("nonsense")
    assert "LookupError" in judged(target, path, before)[1]
