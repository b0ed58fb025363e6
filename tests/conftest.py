"""What every test relies on: one thread, fixed seeds, and a quiet TorchRL."""

from __future__ import annotations

import os

# Read by TorchRL when it is imported, so this stands before every other import.
os.environ.setdefault("RL_WARNINGS", "False")

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# The models in the tests are small: several threads would mostly wait for each other.
torch.set_num_threads(1)

# The same inputs each time; others are for benchmarks.fuzz
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Give every test the same random numbers, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def resident() -> Callable[[Path], int]:
    """Kilobytes of a mapped file that this process holds in memory."""

    def look(path: Path) -> int:
        blocks = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
        (block,) = (each for each in blocks if str(path) in each.partition("\n")[0])
        (found,) = re.findall(r"^Rss: +(\d+) kB", block, flags=re.MULTILINE)
        return int(found)

    return look
