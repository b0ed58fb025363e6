"""The command as a whole: its help, its version, what it imports before it has something to do."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

from app import main as command
from app import notices

SLOW = {"torch", "lightning", "torchrl", "gymnasium"}


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in command.COMMANDS)])
def test_help_exists_for_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: offsim") and "--help" in printed and len(printed.splitlines()) > 5


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert "offsim train hopper" in capsys.readouterr().err


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--version"])
    assert capsys.readouterr().out == f"offsim {version('offsim')}\n"


def test_a_full_disk_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "check", "offsim/hopper/expert-v0", "--json", str(tmp_path / "report.json")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        assert command.main(words) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().err.startswith("offsim: no room on the disk for ")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "hopper", "--out", "{file}/run"], "{file}"),
        (["data", "check", "offsim/hopper/expert-v0", "--json", "{file}/report.json"], "{file}"),
        (["report", "{file}"], "{file}"),
    ],
)
def test_a_file_that_is_no_folder_is_a_sentence(
    words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert command.main([word.format(file=file) for word in words]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("offsim: ") and named.format(file=file) in said
    assert file.read_text() == "mine"


def test_findings_are_written_where_no_folder_is_yet(tmp_path: Path) -> None:
    report = tmp_path / "new" / "report.json"
    assert command.main(["data", "check", "offsim/hopper/expert-v0", "--json", str(report)]) == 0
    assert report.exists()


def test_output_that_nobody_reads_ends_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "app.main", "zoo", "list"]
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("code", "slow"),
    [("from app.main import main; main([])", SLOW), ("import zoo", SLOW - {"torch", "gymnasium"})],
)
def test_import_waits_for_nothing_that_is_not_needed(code: str, slow: set[str]) -> None:
    program = f"{code}; import sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not slow & set(found.split())


def test_own_warnings_are_sentences_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restored afterwards
    monkeypatch.setattr(notices, "_quiet_libraries", lambda: None)  # its filters would stay
    notices.set_up_warnings()
    files = (str(command.__file__), str(command.__file__), str(warnings.__file__))
    own, again, other = (warnings.formatwarning("mind the gap", UserWarning, file, 1) for file in files)
    assert (own, again) == ("offsim: warning: mind the gap\n", "")
    assert "UserWarning: mind the gap" in other


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "PASSIVE"), ({"GOMP_SPINCOUNT": "9"}, "None"), ({"OMP_WAIT_POLICY": "active"}, "active")],
)
def test_waiting_threads_sleep_unless_the_environment_says_how_they_wait(given: dict[str, str], expected: str) -> None:
    program = (
        "import os, sys, app.main; early = 'torch' in sys.modules; app.main.main([]); "
        "print(early, os.environ.get('OMP_WAIT_POLICY'))"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env={**environment, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", expected]  # it is read when torch is imported
