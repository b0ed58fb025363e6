"""What a process says when another, with which it should exchange something, has ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch import distributed

from lit_modules.parallel import tell_of_lost_process

RANK = """
import sys
from torch import distributed
from lit_modules.parallel import tell_of_lost_process
rank = int(sys.argv[2])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
distributed.barrier()
if rank == 0:
    try:
        distributed.broadcast_object_list([None], src=1)  # as Lightning does, not we
    except RuntimeError as error:
        assert tell_of_lost_process(error) and tell_of_lost_process(error)
        try:
            raise RuntimeError("of the user's own code") from error
        except RuntimeError as another:
            assert not tell_of_lost_process(another)
distributed.destroy_process_group()  # as Lightning does; left to Python, its threads may outlive it: an abort
sys.exit(3 if rank == 0 else 0)
"""


def test_lost_process_is_told_once_whoever_waits_for_it(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path / "meeting"), str(rank)], stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    _, said = ranks[0].communicate(timeout=120)
    assert ranks[1].wait(timeout=120) == 0
    assert ranks[0].returncode == 3, said
    assert said.count("offsim: process 0 of 2 waits in vain for the others: one of them has ended") == 1


def test_errors_of_one_process_alone_are_not_taken_for_it() -> None:
    with pytest.raises(ValueError, match="process group") as caught:
        distributed.barrier()
    assert not tell_of_lost_process(caught.value)
