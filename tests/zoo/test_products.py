"""Both ways to multiply give the same values and gradients, alone, under ``vmap`` and through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zoo import products
from zoo.networks import EnsembleMLP, input_gradient, mlp

pytestmark = pytest.mark.skipif(not products._has_onednn(), reason="this PyTorch comes without oneDNN")


@pytest.fixture(autouse=True)
def any_size_pays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(products, "LEAST_WORK", 0)
    monkeypatch.setattr(products, "LEAST_WIDTH", 1)
    calls: list[None] = []
    pays = products._pays
    monkeypatch.setattr(products, "_pays", lambda *tensors: pays(*tensors) and (calls.append(None) or True))
    yield
    assert calls


def both_ways(run: Callable[[], list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    found = []
    for choice in (False, True):
        with products.by_onednn(choice):
            found.append(run())
    return found[0], found[1]


def assert_equal(ours: list[Tensor], plain: list[Tensor]) -> None:
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def gradients(network: nn.Module, loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, [*network.parameters(), *inputs])]


@pytest.mark.parametrize("shared", [True, False], ids=["members see the same rows", "rows of their own"])
def test_an_ensemble_has_the_same_values_and_gradients(shared: bool) -> None:
    torch.manual_seed(0)
    network = EnsembleMLP(3, [5, 8, 8, 4], residual=True)
    inputs = torch.randn(6, 5, requires_grad=True) if shared else torch.randn(3, 6, 5, requires_grad=True)

    def run() -> list[Tensor]:
        rows = inputs.expand(3, 6, 5) if shared else inputs
        return gradients(network, network(rows).square().sum(), inputs)

    assert_equal(*both_ways(run))


def test_a_perceptron_and_its_input_gradient_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    network, inputs = mlp([5, 8, 8, 1], "silu"), torch.randn(6, 5, requires_grad=True)

    def run() -> list[Tensor]:
        slope = input_gradient(network, inputs)
        return gradients(network, network(inputs).sum() + slope.square().sum(), inputs)

    assert_equal(*both_ways(run))


def test_vmap_over_parameters_agrees() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(4, 3, 5, 7, requires_grad=True), torch.randn(4, 3, 1, 7)
    inputs = torch.randn(3, 6, 5)

    def run() -> list[Tensor]:
        values = torch.vmap(products.affine, in_dims=(None, 0, 0))(inputs, weight, bias)
        return [values.detach(), *torch.autograd.grad(values.square().sum(), [weight])]

    assert_equal(*both_ways(run))


def test_compiled_code_holds_it_as_one_operator() -> None:
    torch.manual_seed(0)
    network, inputs = EnsembleMLP(2, [5, 8, 4]), torch.randn(2, 6, 5)

    def run() -> list[Tensor]:
        torch._dynamo.reset()
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
        return gradients(network, compiled(inputs).square().sum())

    assert_equal(*both_ways(run))


def test_small_products_and_lower_precision_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, weight = torch.randn(6, 5), torch.randn(5, 7)
    with products.by_onednn(True):
        assert products._pays(inputs, weight)
        assert not products._pays(inputs.double(), weight)
        monkeypatch.setattr(products, "LEAST_WIDTH", 6)
        assert not products._pays(inputs, weight)
        monkeypatch.setattr(products, "LEAST_WIDTH", 1)
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
        assert not products._pays(inputs, weight)


@pytest.mark.parametrize(
    ("text", "faster"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nflags\t: fpu avx512f", True),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nflags\t: fpu avx512f", False),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\nflags\t: fpu avx512f", False),
        ("", False),
    ],
)
def test_the_processor_decides(text: str, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: text)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert products.onednn_is_faster.__wrapped__() is faster
    with products.by_onednn(True):
        assert products._pays(torch.randn(6, 5), torch.randn(5, 7))
