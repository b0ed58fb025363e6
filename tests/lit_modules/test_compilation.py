"""When functions are compiled, and what happens where they cannot be."""

from __future__ import annotations

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
