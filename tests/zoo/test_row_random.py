"""Random numbers of rows: those of the published generator, and each row's own."""

from __future__ import annotations

import pytest
import torch

from zoo.row_random import RowRandom, integers, philox


@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [  # known answers of the authors' own library, Random123
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_blocks_are_those_of_philox(counter: list[int], key: list[int], block: list[int]) -> None:
    for kind in (torch.tensor, lambda value: torch.tensor(value).numpy()):
        words = philox([kind([each]) for each in counter], [kind([each]) for each in key])
        assert [int(word[0]) for word in words] == block


def test_a_row_is_the_same_in_any_company() -> None:
    alone, many = RowRandom([7]), RowRandom([3, 2**40, 7])
    for size in (1, 11, 4):
        assert torch.equal(alone.normal(size)[0], many.normal(size)[2])
        assert int(alone.integers(5)) == int(many.integers(5)[2])


def test_draws_episodes_and_seeds_are_others() -> None:
    random = RowRandom([7, 8, 7 + 2**32])
    draws = [random.normal(6), random.normal(6)]
    random.begin_episode(torch.tensor([True, False, True]))
    draws.append(random.normal(6))
    assert len({float(value) for draw in draws for value in draw.flatten()}) == 3 * 18
    again = RowRandom([7, 8, 7 + 2**32])
    again.begin_episode(torch.tensor([True, False, True]))
    assert torch.equal(again.normal(6)[[0, 2]], draws[2][[0, 2]])


def test_some_rows_can_be_seeded_anew() -> None:
    random = RowRandom([1, 2])
    random.normal(3)
    random.reseed([5, 5], torch.tensor([False, True]))
    following = random.normal(3)
    assert torch.equal(following[1], RowRandom([5]).normal(3)[0])
    alone = RowRandom([1])
    alone.normal(3)
    assert torch.equal(following[0], alone.normal(3)[0])


def test_normal_numbers_are_normal_and_integers_uniform() -> None:
    random = RowRandom(range(50_000))
    numbers = random.normal(7)
    assert float(numbers.mean().abs()) < 0.005
    torch.testing.assert_close(torch.cov(numbers.T), torch.eye(7), atol=0.03, rtol=0.0)
    assert float((numbers.abs() > 1.96).float().mean()) == pytest.approx(0.05, abs=0.002)
    counts = random.integers(5).bincount()
    assert len(counts) == 5 and int(counts.min()) > 9_600 and int(counts.max()) < 10_400


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, and one is -1"):
        RowRandom([3, -1])
    with pytest.raises(ValueError, match="of 2 rows were given for 3 rows"):
        integers(4, 3, RowRandom([3, 1]), torch.device("cpu"))
