"""What ``offsim predict`` writes: a method's predictions for the held-out episodes, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torch import Tensor

FILE = "predictions.npz"


def write_predictions(batches: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Write ``predictions.npz``.

    Args:
        batches: what ``predict_step`` returned: for each held-out table a tensor, or several by name.
        folder: where to; it is made if it does not exist.

    Returns:
        Lines that tell what the file holds: an array for each, called ``TABLE/NAME``, its rows those of the table.
    """
    parts: dict[str, list[NDArray[Any]]] = {}
    for batch in batches:
        for table, found in batch.items():
            for name, values in _named(found).items():
                parts.setdefault(f"{table}/{name}", []).append(values.detach().cpu().numpy())
    arrays = {name: np.concatenate(values) for name, values in parts.items()}
    if not arrays:
        return ["nothing was predicted: no episode was held out, see data.held_out_fraction"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return [f"{name} {'x'.join(map(str, values.shape))}" for name, values in arrays.items()] + [f"in {folder / FILE}"]


def _named(found: Tensor | TensorDictBase) -> dict[str, Tensor]:
    return {"action": found} if isinstance(found, Tensor) else dict(found.items())
