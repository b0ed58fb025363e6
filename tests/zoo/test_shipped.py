"""Every entry that is shipped is whole, light, and answers as it did when it was published."""

from __future__ import annotations

import gymnasium
import pytest

from zoo import load, load_policy
from zoo.entries import SHIPPED, entries_in, read_manifest, verified
from zoo.ids import EntryId
from zoo.outputs import differing_outputs

LARGEST = 6_000_000  # bytes
NAMES = ("simulator.safetensors", "policy.safetensors", "outputs.safetensors", "config.yaml", "metrics.json", "card.md")


@pytest.mark.parametrize("entry", entries_in(SHIPPED), ids=str)
def test_a_shipped_entry(entry: EntryId) -> None:
    folder = entries_in(SHIPPED)[entry]
    listed = read_manifest(folder, entry)
    assert set(NAMES) <= set(listed)
    assert sum(each["bytes"] for each in listed.values()) <= LARGEST
    for name in listed:
        verified(folder, entry, name)
    assert differing_outputs(folder, load(str(entry)), load_policy(str(entry))) == []
    environment = gymnasium.make(f"zoo:{entry.environment}")
    environment.reset(seed=0)
    assert environment.step(environment.action_space.sample())[0].shape == environment.observation_space.shape
