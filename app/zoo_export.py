"""A policy as an ONNX file, for controllers that know no PyTorch."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.errors import UserError
from app.model_quality import feature_names
from lit_modules.td3_loss import MeanAction
from zoo import Policy, Simulator
from zoo.products import by_onednn

ROWS = 256  # observations that the file has to answer as the policy does
SPREAD = 3.0  # deviations of the data within which they lie
TOLERANCE = 1e-5  # of half an action range


def export_policy(policy: Policy, path: Path, simulator: Simulator | None = None, seed: int = 0) -> float:
    """Write a policy's mean action, ``observation (N, D) -> action (N, A)``, both float32, and try the file.

    Args:
        policy: on the CPU.
        path: of the ONNX file.
        simulator: that the policy goes with, if there is one, for the names of what it observes and does. The file's
            metadata has them as JSON, ``observation_names`` and ``action_names`` as far as they are known, beside
            ``action_low`` and ``action_high``.
        seed: of the observations that it is tried on.

    Returns:
        The largest difference between the file's actions and the policy's, in half action ranges.

    Raises:
        UserError: if a package is missing, or the file would not answer as the policy does; then none is written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401, torch.onnx needs it
    except ImportError as error:
        raise UserError(f"ONNX needs packages more ({error.name}): pip install 'offsim[export]'") from None
    module = MeanAction(policy).eval()
    normalizer = policy.normalizer
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(ROWS, policy.observation_size, generator=generator)
    tried = normalizer.mean + SPREAD * normalizer.std * noise
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _write(module, tried, partial)
        _describe(partial, policy, simulator)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        half_range = policy.half_range.numpy()
        worst = 0.0
        for rows in (tried, tried[:1]):
            with torch.no_grad():
                wanted = module(rows).numpy()
            (found,) = session.run(None, {"observation": rows.numpy()})
            worst = float(np.maximum(worst, np.abs((found - wanted) / half_range).max()))  # NaN stays
        if not worst <= TOLERANCE:
            raise UserError(f"the ONNX file would differ from the policy by {worst:.1e} of half an action range")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return worst


def _describe(path: Path, policy: Policy, simulator: Simulator | None) -> None:
    """Say in a file's metadata what its inputs and outputs are."""
    import onnx

    model = onnx.load(path)
    facts: dict[str, Any] = {
        "action_low": policy.action_low.tolist(),
        "action_high": policy.action_high.tolist(),
    }
    if simulator is not None:
        facts["observation_names"] = feature_names(simulator)
        if simulator.action_names:
            facts["action_names"] = list(simulator.action_names)
    onnx.helper.set_model_props(model, {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()})
    onnx.save(model, path)


def _write(module: nn.Module, example: Tensor, path: Path) -> None:
    for name in ("onnxscript", "torch.onnx._internal.exporter._registration"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rows = torch.export.Dim("rows")
    # It tells of its progress; and products are to be the ones that every runtime knows
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), by_onednn(False):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            path,
            input_names=["observation"],
            output_names=["action"],
            dynamic_shapes={"observation": {0: rows}},
            external_data=False,
            dynamo=True,
        )
