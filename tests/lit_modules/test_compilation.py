"""When functions are compiled, and what happens where they cannot be."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_modules import compilation
from lit_modules.compilation import compiled


def test_choices_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="choose auto, always, never"):
        compiled(torch.sin, "yes")
    monkeypatch.setattr(compilation, "compiler_at_hand", lambda: False)
    assert compiled(torch.sin, "auto") is torch.sin
    with pytest.raises(ValueError, match="C\\+\\+ compiler"):
        compiled(torch.sin, "always")


def test_a_failed_compilation_leaves_the_plain_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: Any) -> Any:
        def call(*_: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("no luck")

        return call

    monkeypatch.setattr(compilation, "compiler_at_hand", lambda: True)
    monkeypatch.setattr(torch, "compile", fails)
    function = compiled(torch.sin, "auto")
    with pytest.warns(UserWarning, match="continuing without it"):
        assert float(function(torch.zeros(()))) == 0.0
    assert float(function(torch.zeros(()))) == 0.0
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        compiled(torch.sin, "always")(torch.zeros(()))


@pytest.mark.parametrize("choice", ["auto", "always"])
def test_what_an_ended_compilation_left_behind_is_made_again(
    choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "cache" / "ab" / "abc.main.so", tmp_path / "abc.main.so"
    inside.parent.mkdir(parents=True)
    for library in (inside, outside):
        library.touch()

    def compile(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            broken = inside if inside.exists() else outside
            if broken.exists():
                raise torch._dynamo.exc.TorchDynamoException(f"ImportError: {broken}: file too short\nand more")
            return function(*arguments)

        return call

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compilation, "compiler_at_hand", lambda: True)
    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(torch._dynamo.exc.TorchDynamoException, match="too short"):
        compiled(torch.sin, "always")(torch.zeros(()))
    assert outside.exists() and not inside.exists()  # what is not in the cache is not ours
    outside.unlink()
    inside.touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(compiled(torch.sin, choice)(torch.zeros(()))) == 0.0
    assert not inside.exists()
