"""What a run says of the cloned policy that it started from."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cloned_start import cloned_start, in_words

COLUMNS = ("train/cloned/demonstrated", "train/cloned/earned", "train/cloned/hold")
HELD, LET_GO = (
    "The cloned policy has 90.0% of what the demonstrations have in the Simulator: " + became
    for became in ("the policy was held to it.", "it was let go of.")
)


@pytest.mark.parametrize(
    ("logged", "start", "sentence"),
    [
        ((100.0, 90.0, 1.0), {"share_in_simulator": 0.9, "hold": 1.0}, HELD),
        ((100.0, 90.0, 0.01), {"share_in_simulator": 0.9, "hold": 0.01}, LET_GO),
        (
            (100.0, "nan", 0.01),
            {"share_in_simulator": None, "hold": 0.01},
            LET_GO.replace("90.0%", "no part that is a number"),
        ),
        ((100.0, 90.0), {"share_in_simulator": 0.9}, ""),  # of before
        ((-1.0, 90.0, 1.0), {}, ""),
        ((), {}, ""),
    ],
)
def test_a_run_says_what_became_of_the_cloned_policy(
    tmp_path: Path, logged: tuple[object, ...], start: dict[str, object], sentence: str
) -> None:
    (tmp_path / "policy").mkdir()
    rows = [COLUMNS[: len(logged)], logged, [""] * len(logged)]  # the last of each that there is
    (tmp_path / "policy" / "metrics.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    assert cloned_start(tmp_path) == start
    assert in_words({"cloned_start": cloned_start(tmp_path)}) == sentence


def test_a_run_without_a_policy_stage_has_nothing_to_say(tmp_path: Path) -> None:
    assert cloned_start(tmp_path) == {}
