"""What a GPU captures as graphs: functions that read no number off a tensor, draw none and copy none from the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_modules import graphs
from lit_modules.method import Method, listed_optimizers, parameters_of
from lit_modules.seeds import SeedBatch
from tests.lit_modules.test_equality import (
    assert_same,
    attach,
    build,
    cloning,
    combo,
    dynamics_reward,
    filtered,
    mobile,
    offsim,
    policy,
    policy_and_reward,
    ppo,
    rambo,
    td3,
)

aten = torch.ops.aten
READING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten._unique2}
DRAWING = {aten.normal_, aten.uniform_, aten.bernoulli, aten.bernoulli_, aten.multinomial, aten.normal, aten.randint}
DRAWING |= {aten.rand, aten.randn, aten.randperm, aten.rand_like, aten.randn_like}
PICKING = {aten.index, aten.index_put, aten.index_put_}
FILLING = {torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.linspace, torch.eye}
COPYING = {torch.tensor, torch.as_tensor, Tensor.new_tensor}


class NothingRead(TorchDispatchMode):
    """Refuses what waits for the numbers of a tensor, and what draws new ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in READING, f"{func} waits for numbers"
        assert func.overloadpacket not in DRAWING, f"{func} draws; graphs are given their numbers"
        if func.overloadpacket in PICKING:
            masks = [each for each in tree_leaves(args[1]) if each is not None and each.dtype == torch.bool]
            assert not masks, "a mask picks as many rows as its numbers say"
        return func(*args, **(kwargs or {}))


class NothingMade(TorchFunctionMode):
    """Refuses tensors that are copied from Python, or not said to be where others are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        copied = func in COPYING and not isinstance(args[-1], Tensor)  # a tensor may come back as it is
        assert not copied, f"{func.__name__} copies from the host"
        assert func not in FILLING or "device" in given, f"{func.__name__} does not say where"
        return func(*args, **given)


def watched(called: Callable[..., Any], checked: set[str]) -> Callable[..., Any]:
    """``_called`` of a method or a batch of seeds, with both of the above."""

    def checking(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        checked.add(name)
        with NothingMade(), NothingRead():
            return called(name, function, arguments)

    return checking


ALL = pytest.mark.parametrize(
    "make",
    [cloning, offsim, policy, policy_and_reward, td3, ppo, dynamics_reward, filtered, mobile, combo, rambo],
)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@ALL
def test_captured_functions_read_no_numbers(make: Callable[[Path, int], Method], tmp_path: Path) -> None:
    module, rows = build(make, tmp_path)[0]
    attach(module, module.configure_optimizers())
    checked: set[str] = set()
    module._called = watched(module._called, checked)  # type: ignore[method-assign]
    module.run(module.converse(rows))
    assert checked


@ALL
def test_captured_functions_of_seeds_read_no_numbers(make: Callable[[Path, int], Method], tmp_path: Path) -> None:
    together = build(make, tmp_path)
    batch = SeedBatch([module for module, _ in together])
    attach(batch, batch.configure_optimizers())
    checked: set[str] = set()
    batch._called = watched(batch._called, checked)  # type: ignore[method-assign]
    batch.run_together([module.converse(rows) for module, rows in together])
    assert checked


@ALL
def test_steps_leave_gradients_with_their_own_parameters_alone(
    make: Callable[[Path, int], Method], tmp_path: Path
) -> None:
    """What a graph added to gradients of others would end up in memory that is in use for something else by then."""
    module, rows = build(make, tmp_path)[0]
    attach(module, module.configure_optimizers())
    called, optimizers = module._called, [each.optimizer for each in listed_optimizers(module)]

    def checking(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        for parameter in module.parameters():
            parameter.grad = None
        answer = called(name, function, arguments)
        touched = {parameter for parameter in module.parameters() if parameter.grad is not None}
        assert not touched or any(touched <= {*parameters_of(optimizer)} for optimizer in optimizers)
        return answer

    module._called = checking  # type: ignore[method-assign]
    module.run(module.converse(rows))


def test_what_a_capture_cannot_hold_is_refused() -> None:
    rows, mask = torch.ones(3), torch.tensor([True, False, True])
    for reading in (lambda: float(rows[0]), lambda: rows[mask], lambda: rows.nonzero(), lambda: torch.randn(3)):
        with pytest.raises(AssertionError), NothingRead():
            reading()
    for making in (lambda: torch.zeros(3), lambda: torch.tensor(1.0), lambda: rows.new_tensor(1.0)):
        with pytest.raises(AssertionError), NothingMade():
            making()


def on_gpu(module: Any) -> Any:
    """A module of ``build`` on the GPU, as ``setup`` would have put it there."""
    device = torch.device("cuda", torch.cuda.current_device())
    module.to(device)
    for stream in module.random_streams().values():
        stream.place(device)
    if hasattr(module, "replay"):
        module._make_replay()
    if getattr(module, "recorded", None) is not None:
        for name, value in vars(module.recorded).items():
            moved = [each.to(device) for each in value] if isinstance(value, list) else value.to(device)
            setattr(module.recorded, name, moved)
        module.row_margins = module.row_margins.to(device)
    return module


@GPU
@ALL
def test_graphs_end_where_plain_steps_do(
    make: Callable[[Path, int], Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "WARMUP", 1)  # so that roll-outs are replayed too, of which there are few
    logged, modules = [], []
    for captured in (False, True):
        module, rows = build(make, tmp_path)[0]
        attach(on_gpu(module), module.configure_optimizers())
        if captured:
            module.capture_graphs()
        logged.append(module.run(module.converse({name: each.to("cuda") for name, each in rows.items()})))
        modules.append(module)
    assert modules[1].graphs is not None
    assert all(each.graph is not None for each in modules[1].graphs.captured.values())
    assert_same(modules[1], modules[0], (logged[1], logged[0]), 1e-4)


@GPU
@ALL
def test_graphs_of_seeds_end_where_plain_steps_do(
    make: Callable[[Path, int], Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "WARMUP", 1)
    alone, logged_alone = build(make, tmp_path), []
    for module, rows in alone:
        attach(on_gpu(module), module.configure_optimizers())
        logged_alone.append(module.run(module.converse({name: each.to("cuda") for name, each in rows.items()})))
    together = build(make, tmp_path)
    batch = SeedBatch([on_gpu(module) for module, _ in together]).to("cuda")
    attach(batch, batch.configure_optimizers())
    batch.capture_graphs()
    logged = batch.run_together(
        [module.converse({name: each.to("cuda") for name, each in rows.items()}) for module, rows in together]
    )
    assert batch.graphs is not None and all(each.graph is not None for each in batch.graphs.captured.values())
    for (single, _), (replica, _), ours, theirs in zip(alone, together, logged, logged_alone, strict=True):
        assert_same(replica, single, (ours, theirs), 1e-3)
