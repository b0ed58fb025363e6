"""Finding datasets: where it is looked, what is said when nothing is there."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DataError, sources
from datamodules.sources import data_facts, resolve


def with_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that huggingface_hub is installed and the network not switched off."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.urllib.request, "getproxies", dict)


def test_a_dataset_in_the_local_root_is_found(record: Any) -> None:
    source = resolve(record("test/hopper/expert-v0", [3, 4]))
    assert (source.episodes, source.steps) == (2, 7)
    assert (source.observation_size, source.action_size) == (3, 2)
    assert source.environment_id == "Hopper-v5"
    assert source.file == record.file("test/hopper/expert-v0")


def test_an_environment_need_not_be_known(record: Any) -> None:
    assert resolve(record("test/own-v0", [3], environment=None)).environment_id is None


def test_what_was_recorded_here_comes_before_what_is_bundled_and_that_is_said(record: Any, tmp_path: Path) -> None:
    record("test/hopper/expert-v0", [3, 4])
    shutil.copytree(tmp_path / "root" / "test", tmp_path / "bundled" / "test")
    with pytest.warns(UserWarning, match="expert-v0 is the one in .*root.*, not the one that comes with offsim"):
        assert resolve("test/hopper/expert-v0").folder == tmp_path / "root" / "test/hopper/expert-v0/data"
    shutil.rmtree(tmp_path / "root" / "test")
    assert resolve("test/hopper/expert-v0").folder == tmp_path / "bundled" / "test/hopper/expert-v0/data"


def test_a_missing_dataset_is_refused_at_once_and_helpfully(record: Any, tmp_path: Path) -> None:
    record("test/hopper/expert-v0", [3])
    started = time.perf_counter()
    with pytest.raises(DataError) as caught:
        resolve("test/hopper/exprt-v0")
    assert time.perf_counter() - started < 1.0
    message = str(caught.value)
    assert "'test/hopper/exprt-v0'" in message
    for place in (tmp_path / "bundled", tmp_path / "root", "hf://farama-minari"):
        assert str(place) in message
    for remedy in ("MINARI_DATASETS_PATH", "offsim collect", "network", "did you mean"):
        assert remedy in message
    assert "test/hopper/expert-v0" in message


def test_looking_for_a_dataset_creates_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        resolve("test/hopper/expert-v0")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("identifier", ["hopper", "../../etc/passwd-v0", "hopper/expert", "/root/a-v0", "", "a b-v0"])
def test_a_malformed_id_is_refused(identifier: str) -> None:
    with pytest.raises(DataError, match="not a dataset id"):
        resolve(identifier)


def test_a_missing_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"huggingface_hub is not installed.*offsim\[hub\]"):
        resolve("test/hopper/expert-v0")
    monkeypatch.setenv("MINARI_REMOTE", "gcp://minari-remote")
    with pytest.raises(DataError, match="google-cloud-storage is not installed"):
        resolve("test/hopper/expert-v0")
    monkeypatch.setenv("MINARI_REMOTE", "ftp://elsewhere")
    with pytest.raises(DataError, match="must start with hf:// or gcp://"):
        resolve("test/hopper/expert-v0")


def test_offline_mode_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    with_hub(monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        resolve("test/hopper/expert-v0")


def test_a_network_that_does_not_answer_costs_less_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    with_hub(monkeypatch)
    without_proxy(monkeypatch)

    def hang(*_: object, **__: object) -> None:
        time.sleep(3.0)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"no connection to huggingface\.co"):
        resolve("test/hopper/expert-v0")
    assert time.perf_counter() - started < 2.0  # 0.8 s of waiting, on a busy machine


def test_a_connection_is_noticed_directly_and_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxy(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert sources._connects(address)
        monkeypatch.setattr(sources.urllib.request, "getproxies", lambda: {"https": address})
        monkeypatch.setattr(sources.urllib.request, "proxy_bypass", lambda host: False)
        assert sources._connects("https://nowhere.invalid")
    without_proxy(monkeypatch)
    assert not sources._connects(address)


def test_a_dataset_is_downloaded_when_there_is_a_network(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_hub(monkeypatch)
    monkeypatch.setattr(sources, "_connects", lambda address: True)
    monkeypatch.setattr(minari, "download_dataset", lambda name: record(name, [3]))
    assert resolve("test/hopper/expert-v0").episodes == 1


def test_a_failed_download_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with_hub(monkeypatch)
    monkeypatch.setattr(sources, "_connects", lambda address: True)

    def fail(name: str) -> None:
        raise RuntimeError("no such dataset there")

    monkeypatch.setattr(minari, "download_dataset", fail)
    with pytest.raises(DataError, match="RuntimeError: no such dataset there"):
        resolve("test/hopper/expert-v0")


def discrete_actions(record: Any) -> None:
    record("test/set-v0", [3])
    record.change_metadata("test/set-v0", action_space='{"type": "Discrete", "dtype": "int64", "start": 0, "n": 2}')


def dictionary_observations(record: Any) -> None:
    record("test/set-v0", [3])
    space = minari.serialization.serialize_space(spaces.Dict({"position": spaces.Box(-1.0, 1.0, (3,))}))
    record.change_metadata("test/set-v0", observation_space=space)


def picture_observations(record: Any) -> None:
    record("test/set-v0", [3])
    space = minari.serialization.serialize_space(spaces.Box(0, 255, (4, 4), np.uint8))
    record.change_metadata("test/set-v0", observation_space=space)


def damaged_metadata(record: Any) -> None:
    record("test/set-v0", [3])
    record.file("test/set-v0").with_name("metadata.json").write_text("{")


def later_version(record: Any) -> None:
    record("test/set-v0", [3])
    record.change_metadata("test/set-v0", minari_version="99.0")


def other_format(record: Any) -> None:
    record("test/set-v0", [3])
    record.change_metadata("test/set-v0", data_format="arrow")


def missing_file(record: Any) -> None:
    record("test/set-v0", [3])
    record.file("test/set-v0").unlink()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (discrete_actions, "action space Discrete.* not supported.* actions that are one of several"),
        (dictionary_observations, "observation space Dict.* not supported"),
        (picture_observations, "observation space Box.* not supported"),
        (damaged_metadata, "cannot read .*metadata.json"),
        (later_version, "written by Minari 99.0"),
        (other_format, "only HDF5 is read"),
        (missing_file, "main_data.hdf5"),
    ],
)
def test_what_cannot_be_used_is_refused(prepare: Callable[[Any], None], message: str, record: Any) -> None:
    prepare(record)
    with pytest.raises(DataError, match=message) as caught:
        resolve("test/set-v0")
    assert "test/set-v0" in str(caught.value)


def test_facts_identify_the_file(record: Any) -> None:
    source = resolve(record("test/set-v0", [3, 4]))
    digest = hashlib.sha256(source.file.read_bytes()).hexdigest()
    assert data_facts(source) == {"id": "test/set-v0", "sha256": digest, "episodes": 2, "steps": 7}


def test_the_hash_of_a_large_file_is_remembered_until_it_changes(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = resolve(record("test/set-v0", [3]))
    monkeypatch.setattr(sources, "REMEMBERED_HASH_BYTES", 1)
    first = data_facts(source, tmp_path / "cache")["sha256"]
    sources._hash_of_version.cache_clear()
    monkeypatch.setattr(sources, "sha256", lambda path: "read again")
    assert data_facts(source, tmp_path / "cache")["sha256"] == first
    source.file.touch()
    assert data_facts(source, tmp_path / "cache")["sha256"] == "read again"
