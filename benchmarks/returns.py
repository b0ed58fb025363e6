"""Returns of finished runs as Markdown: ``python -m benchmarks.returns RUN_DIR ...``.

Reads ``metrics.json`` of each run and nothing else.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    """Print one table of results and one of the return over training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folders of `offsim train`")
    runs = [json.loads((folder / "metrics.json").read_text()) for folder in parser.parse_args().runs]
    print("| seed | expert | behaviour cloning | policy | share of expert | minutes of training |")
    print("|---|---|---|---|---|---|")
    for run in runs:
        cells = [_interval(run.get(name)) for name in ("expert", "behaviour_cloning", "policy")]
        share, minutes = run["share_of_expert"], sum(run["stages"].values()) / 60
        print(f"| {run['seed']} | {' | '.join(cells)} | {'–' if share is None else f'{share:.0%}'} | {minutes:.0f} |")
    runs = [run for run in runs if run.get("curve")]
    if not runs:
        return
    print()
    updates = [point["update"] for point in runs[0]["curve"]]
    print(f"| seed | {' | '.join(f'{update:,}' for update in updates)} |")
    print("|---" * (len(updates) + 1) + "|")
    for run in runs:
        print(f"| {run['seed']} | {' | '.join(format(point['real_return'], ',.0f') for point in run['curve'])} |")


def _interval(result: dict[str, Any] | None) -> str:
    if result is None:  # the run stopped before this policy
        return "–"
    low, high = result["ci95"]
    return f"{result['mean']:,.0f} [{low:,.0f}, {high:,.0f}]"


if __name__ == "__main__":
    main()
