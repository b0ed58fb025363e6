"""Which episodes are trained on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.selection import select_demonstrations, select_diverse


@given(
    episodes=st.integers(1, 60),
    wanted=st.integers(1, 60),
    fraction=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 9),
)
def test_demonstrations(episodes: int, wanted: int, fraction: float, seed: int) -> None:
    wanted = min(wanted, episodes)
    chosen = select_demonstrations(episodes, wanted, fraction, seed)
    assert not set(chosen.train) & set(chosen.held_out)
    assert list(chosen.train) == sorted(set(chosen.train))
    assert all(0 <= number < episodes for number in chosen.train + chosen.held_out)
    if wanted < episodes:
        assert len(chosen.train) == wanted
        assert len(chosen.held_out) == min(5, episodes - wanted)
    else:
        apart = 1 if wanted >= 5 and fraction > 0.0 else 0
        assert (len(chosen.train), len(chosen.held_out)) == (wanted - apart, apart)


@pytest.mark.parametrize(
    ("episodes", "fraction", "apart"), [(4, 0.1, 0), (8, 0.1, 1), (30, 0.1, 3), (100, 0.1, 5), (100, 0.0, 0)]
)
def test_of_all_demonstrations_a_share_is_held_out(episodes: int, fraction: float, apart: int) -> None:
    chosen = select_demonstrations(episodes, None, fraction, 0)
    assert len(chosen.held_out) == apart
    assert sorted(chosen.train + chosen.held_out) == list(range(episodes))


def test_seeds_choose_different_demonstrations_and_always_the_same() -> None:
    chosen = [select_demonstrations(50, 10, 0.1, seed) for seed in range(5)]
    assert len({selection.train for selection in chosen}) == 5
    assert chosen == [select_demonstrations(50, 10, 0.1, seed) for seed in range(5)]


def test_more_demonstrations_include_the_fewer() -> None:
    assert set(select_demonstrations(50, 5, 0.1, 3).train) < set(select_demonstrations(50, 10, 0.1, 3).train)


@given(
    episodes=st.integers(0, 60),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    fraction=st.sampled_from([0.0, 0.1, 0.5, 0.99]),
    seed=st.integers(0, 9),
)
def test_diverse_episodes(episodes: int, share: float, fraction: float, seed: int) -> None:
    chosen = select_diverse(episodes, share, fraction, seed)
    everything = select_diverse(episodes, 1.0, fraction, seed)
    assert not set(everything.train) & set(everything.held_out)
    assert len(everything.train) + len(everything.held_out) == episodes
    assert set(chosen.train) <= set(everything.train)
    assert chosen.held_out == everything.held_out
    if episodes:
        assert chosen.train
    if episodes >= 5 and fraction > 0.0:
        assert chosen.held_out
    if episodes < 5 or fraction == 0.0:
        assert not chosen.held_out


@pytest.mark.parametrize(("episodes", "held_out"), [(4, 0), (5, 1), (10, 1), (100, 10)])
def test_share_of_held_out_diverse_episodes(episodes: int, held_out: int) -> None:
    assert len(select_diverse(episodes, 1.0, 0.1, 0).held_out) == held_out
