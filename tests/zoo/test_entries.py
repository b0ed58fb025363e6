"""Entries are what was published, or they are refused with a sentence; places they come from and go to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo import ModelFileError, Simulator, load
from zoo.entries import MANIFEST, SHIPPED, entries, entries_in, find_entry, read_manifest, verified, write_manifest
from zoo.files import read_model, write_model
from zoo.ids import EntryId
from zoo.reward import RewardModel
from zoo.sources import Folder, Hub, pull, push, source
from zoo.start_states import StartStates
from zoo.termination import TerminationModel
from zoo.transition import TransitionModel

ENTRY = EntryId("arm", "expert", 0)


def save_simulator(folder: Path, size: int = 2) -> None:
    torch.manual_seed(0)
    transition = TransitionModel(size, 1, members=2, hidden_sizes=(4,))
    parts = (transition, RewardModel(size, 1, (4,)), TerminationModel(), StartStates.of(torch.zeros(1, size)))
    Simulator(*parts, [-1.0], [1.0]).save(folder / "simulator.safetensors")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder with one entry; the user's own folder is empty."""
    monkeypatch.setenv("OFFSIM_ZOO", str(tmp_path / "own"))
    save_simulator(tmp_path / "run")
    (tmp_path / "run" / "card").mkdir()
    (tmp_path / "run" / "card" / "errors.png").write_bytes(b"picture")
    place = Folder(tmp_path / "shared")
    push(tmp_path / "run", ENTRY, place)
    return place


def test_an_entry_goes_round_whole(published: Folder, tmp_path: Path) -> None:
    assert published.entries() == [ENTRY]
    entry, folder = pull("arm/expert", published)
    assert (entry, folder) == (ENTRY, tmp_path / "own" / "arm" / "expert-v0")
    assert entries()[ENTRY] == folder
    assert load("arm/expert-v0").observation_size == 2
    assert (folder / "card" / "errors.png").read_bytes() == b"picture"
    assert not [path for path in (tmp_path / "own" / "arm").iterdir() if path.name.startswith(".")]


def test_a_damaged_entry_is_replaced_by_fetching_it_again(published: Folder) -> None:
    _, folder = pull("arm/expert-v0", published)
    (folder / "simulator.safetensors").write_bytes(b"")
    with pytest.raises(
        ModelFileError, match="is not what was published as arm/expert-v0: it is damaged or was changed"
    ):
        load("arm/expert-v0")
    pull("arm/expert-v0", published)
    assert load("arm/expert-v0").observation_size == 2


def test_what_was_damaged_on_the_way_is_not_taken(published: Folder, tmp_path: Path) -> None:
    (published.root / "arm" / "expert-v0" / "simulator.safetensors").write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="is not what was published"):
        pull("arm/expert-v0", published)
    assert entries_in(tmp_path / "own") == {}


def test_a_published_id_never_changes(published: Folder, tmp_path: Path) -> None:
    save_simulator(tmp_path / "other", size=3)
    with pytest.raises(ModelFileError, match="never changes: publish this one as arm/expert-v1"):
        push(tmp_path / "other", ENTRY, published)
    with pytest.raises(ValueError, match="publish it as arm/expert-v0"):
        push(tmp_path / "other", EntryId("arm", "expert"), published)
    push(tmp_path / "other", EntryId("arm", "expert", 1), published)
    assert pull("arm/expert", published)[0].version == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content | {"format": 2}, "has format 2, this version reads 1: update offsim"),
        (lambda content: content | {"id": "arm/expert-v1"}, "is that of arm/expert-v1, in the place of arm/expert-v0"),
        (lambda content: {"files": {}}, "is damaged: fetch the entry again"),
        (lambda content: [1], "is damaged: fetch the entry again"),
        (lambda content: content | {"files": {"x": {"bytes": 1e999, "sha256": ""}}}, "is damaged"),
        (
            lambda content: content | {"files": {"../../x": {"bytes": 1, "sha256": ""}}},
            "names files outside of its folder",
        ),
        (lambda content: content | {"files": {}}, "has no simulator.safetensors: it holds"),
    ],
)
def test_foreign_newer_and_damaged_lists_are_refused(
    published: Folder, change: Callable[[Any], Any], message: str
) -> None:
    _, folder = pull("arm/expert-v0", published)
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(change(content)))
    with pytest.raises(ModelFileError, match=message):
        load("arm/expert-v0")


def test_what_was_not_published_is_not_taken_along(published: Folder) -> None:
    (published.root / "arm" / "expert-v0" / "more.py").write_text("print()")
    with pytest.raises(ModelFileError, match=r"holds more\.py, which was not published as arm/expert-v0"):
        pull("arm/expert-v0", published)


def test_publishing_never_replaces_a_folder(tmp_path: Path) -> None:
    save_simulator(tmp_path / "runs" / "arm" / "expert-v0")
    (tmp_path / "runs" / "arm" / "expert-v0" / "last.ckpt").write_bytes(b"hours")
    with pytest.raises(ModelFileError, match="exists and is no entry"):
        push(tmp_path / "runs" / "arm" / "expert-v0", ENTRY, Folder(tmp_path / "runs"))
    assert (tmp_path / "runs" / "arm" / "expert-v0" / "last.ckpt").read_bytes() == b"hours"
    assert [path.name for path in (tmp_path / "runs" / "arm").iterdir()] == ["expert-v0"]


def test_an_entry_goes_before_a_folder_of_its_name(
    published: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_simulator(tmp_path / "here" / "arm" / "expert-v0", size=5)
    monkeypatch.chdir(tmp_path / "here")
    assert load("arm/expert-v0").observation_size == 5  # there is no such entry yet
    pull("arm/expert-v0", published)
    assert load("arm/expert-v0").observation_size == 2
    assert load("./arm/expert-v0").observation_size == 5


@pytest.mark.parametrize("text", ["hf:/someone/zoo", "http://someone/zoo"])
def test_a_place_that_is_mistyped_is_no_folder(text: str) -> None:
    with pytest.raises(ModelFileError, match="is no place: write hf://OWNER/NAME"):
        source(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", ["x"]),
        ("task", "flying"),
        ("horizon", "x"),
        ("horizon", 0),
        ("end_reward", "x"),
        ("noise_scale", float("inf")),
        ("action_low", [-1.0, -1.0, -1.0]),
        ("action_high", [float("nan")]),
        ("start_states", {"count": float("inf"), "observation_size": 2, "source": "initial"}),
    ],
)
def test_headers_that_say_what_cannot_be_are_refused(tmp_path: Path, name: str, value: object) -> None:
    save_simulator(tmp_path)
    path = tmp_path / "simulator.safetensors"
    config, tensors = read_model(path, "simulator")
    write_model(path, "simulator", config | {name: value}, tensors)
    with pytest.raises(ModelFileError):
        load(path)


@pytest.mark.parametrize("part", ["transition", "reward"])
def test_networks_without_width_are_refused(tmp_path: Path, part: str) -> None:
    save_simulator(tmp_path)
    path = tmp_path / "simulator.safetensors"
    config, tensors = read_model(path, "simulator")
    config[part]["hidden_sizes"] = [0]
    write_model(path, "simulator", config, tensors)
    with pytest.raises(ModelFileError):
        load(path)


def test_a_missing_file_is_named(published: Folder) -> None:
    _, folder = pull("arm/expert-v0", published)
    (folder / "simulator.safetensors").unlink()
    with pytest.raises(ModelFileError, match="is missing: fetch arm/expert-v0 again"):
        load("arm/expert-v0")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_list_with_any_bytes_in_it_is_read_or_refused(published: Folder, data: st.DataObject) -> None:
    folder = published.root / "arm" / "expert-v0"
    if not hasattr(published, "whole"):
        published.whole = (folder / MANIFEST).read_bytes()  # type: ignore[attr-defined]
    (folder / MANIFEST).write_bytes(changed(published.whole, data))  # type: ignore[attr-defined]
    try:
        files = read_manifest(folder, ENTRY)
        for name in files:
            verified(folder, ENTRY, name)
    except ModelFileError:
        pass


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_model_file_with_any_bytes_in_it_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "simulator.safetensors"
    if not (tmp_path / "whole").exists():
        save_simulator(tmp_path)
        path.rename(tmp_path / "whole")
    path.write_bytes(changed((tmp_path / "whole").read_bytes(), data))
    try:
        load(path)
    except ModelFileError as error:
        assert str(path) in str(error)


def changed(content: bytes, data: st.DataObject) -> bytes:
    """Bytes with some of them cut off, replaced or put in; mostly near the front, where the structure is."""
    place = data.draw(st.integers(0, min(len(content), 2500)) | st.integers(0, len(content)))
    put = data.draw(st.binary(max_size=12) | st.sampled_from([b"0", b"9", b'"', b"{", b"null", b"-1", b"1e9", b"[]"]))
    kind = data.draw(st.sampled_from(["cut", "replace", "insert"]))
    if kind == "cut":
        return content[:place]
    return content[:place] + put + content[place + (len(put) if kind == "replace" else 0) :]


def test_ids_of_other_places_are_looked_up_there(published: Folder) -> None:
    with pytest.raises(ModelFileError, match="no entry arm/mixed-v0 in the zoo: did you mean arm/expert-v0"):
        pull("arm/mixed-v0", published)
    with pytest.raises(ModelFileError, match="it holds nothing yet"):
        find_entry("arm/expert-v0", {})


class FakeHub:
    """As much of huggingface_hub as is used, on a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def HfApi(self) -> FakeHub:
        return self

    class RepositoryNotFoundError(Exception):
        pass

    def list_repo_files(self, repository: str) -> list[str]:
        if repository == "nobody/nothing":
            raise ConnectionError("no route to host\nmore")
        if not self.root.exists():
            raise self.RepositoryNotFoundError("404")
        return [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]

    def create_repo(self, repository: str, exist_ok: bool) -> None:
        assert exist_ok
        self.root.mkdir(exist_ok=True)

    def upload_folder(self, repo_id: str, folder_path: Path, path_in_repo: str, commit_message: str) -> None:
        Folder(self.root).store(folder_path, EntryId.parse(path_in_repo))

    def snapshot_download(self, repository: str, allow_patterns: list[str], local_dir: str) -> None:
        assert allow_patterns == ["arm/expert-v3/*"]
        Folder(self.root).fetch(EntryId("arm", "expert", 3), Path(local_dir) / "arm" / "expert-v3")


def test_the_hub_is_a_place_like_another(published: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub(tmp_path / "repository")
    names = {name: getattr(fake, name) for name in ("HfApi", "snapshot_download")}
    errors = SimpleNamespace(RepositoryNotFoundError=fake.RepositoryNotFoundError)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(**names, errors=errors))
    hub = source("hf://someone/zoo")
    assert isinstance(hub, Hub) and hub.entries() == []
    push(tmp_path / "run", EntryId("arm", "expert", 3), hub)
    (tmp_path / "repository" / "README.md").write_text("no entry")
    assert hub.entries() == [EntryId("arm", "expert", 3)]
    pull("arm/expert", hub)
    assert load("arm/expert-v3").observation_size == 2
    with pytest.raises(
        ModelFileError, match=r"cannot reach hf://nobody/nothing \(no route to host\): check the network"
    ):
        source("hf://nobody/nothing").entries()


def test_the_hub_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelFileError, match=r"pip install 'offsim\[hub\]'"):
        source("hf://someone/zoo")


def test_files_of_no_entry_are_passed_over(tmp_path: Path) -> None:
    for name in ("a b/c-v0", "arm/expert", "arm/expert-v01"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / MANIFEST).write_text("{}")
    (tmp_path / "arm" / "expert-v7").mkdir()
    write_manifest(tmp_path / "arm" / "expert-v7", EntryId("arm", "expert", 7))
    assert list(entries_in(tmp_path)) == [EntryId("arm", "expert", 7)]


def test_without_a_home_or_with_a_folder_nobody_may_read_the_shipped_entries_are_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(error: Exception) -> Any:
        def raising(*_: Any) -> Any:
            raise error

        return raising

    for name in ("OFFSIM_ZOO", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    shipped = entries_in(SHIPPED)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "home", fail(RuntimeError("Could not determine home directory.")))
        assert entries() == shipped
    with monkeypatch.context() as patch:
        patch.setattr("zoo.entries.own_folder", fail(PermissionError("Permission denied")))
        assert entries() == shipped
