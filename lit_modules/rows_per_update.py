"""How many recorded rows an update reads: refused where it takes more than it is given.

A short batch would either not fit together or, silently, be another one than was asked for.
"""

from __future__ import annotations

from datamodules.errors import DataError


def refuse_too_few_for_members(members: int, all_rows: int) -> None:
    """Refuse fewer rows than the members of an ensemble, each of which learns from some of its own.

    Args:
        members: of the ensemble.
        all_rows: rows of all data read per update.

    Raises:
        DataError: saying how many it takes.
    """
    if all_rows < members:
        raise DataError(
            f"{all_rows} rows of all data are read per update: each of the {members} members needs at least one"
        )


def refuse_too_few_for_game(starts: int, expert_start_share: float, expert_rows: int, all_rows: int) -> None:
    """Refuse fewer rows than the roll-outs of a game start in.

    Args:
        starts: roll-outs per reward step.
        expert_start_share: share of these that starts in expert states.
        expert_rows: demonstrated rows read per update.
        all_rows: rows of all data read per update.

    Raises:
        DataError: saying how many it takes.
    """
    from_expert = round(starts * expert_start_share)
    for name, wanted, rows in (("expert", from_expert, expert_rows), ("all", starts - from_expert, all_rows)):
        if wanted > rows:
            raise DataError(
                f"{wanted} of {starts} roll-outs (starts, expert_start_share) begin in rows of {name} data, of which "
                f"{rows} are read per update: read more, or lower starts"
            )


def simulated_rows(batch_size: int, real_share: float) -> int:
    """How many transitions of a policy's batch are simulated ones; they are the first of it."""
    return batch_size - round(real_share * batch_size)


def recorded_rows(batch_size: int, real_share: float, expert_rows: int) -> tuple[int, int]:
    """How many transitions of a policy's batch are recorded ones: of the demonstrations, and of all data.

    Args:
        batch_size: transitions per update.
        real_share: share of recorded ones; half of these come from the demonstrations, as far as they go.
        expert_rows: demonstrated rows read per update.
    """
    real = batch_size - simulated_rows(batch_size, real_share)
    from_expert = min(real // 2, expert_rows)
    return from_expert, real - from_expert


def refuse_too_few_for_policy(batch_size: int, real_share: float, expert_rows: int, all_rows: int) -> None:
    """Refuse fewer rows than the batch of a learner from a replay buffer takes.

    Args:
        batch_size: transitions per update.
        real_share: share of recorded ones.
        expert_rows: demonstrated rows read per update.
        all_rows: rows of all data read per update.

    Raises:
        DataError: saying how many it takes.
    """
    from_expert, from_all = recorded_rows(batch_size, real_share, expert_rows)
    if from_all > all_rows:
        raise DataError(
            f"a batch of {batch_size} with a real_share of {real_share:g} takes {from_expert} rows of expert data and "
            f"{from_all} of all data, of which {all_rows} are read per update: read more, or lower one of the two"
        )
