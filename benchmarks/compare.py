"""Results of ``benchmarks.speed`` side by side as Markdown: ``python -m benchmarks.compare JSON ...``.

A row that a file lacks stays empty. Files of different days are compared through the row of bare matrix products,
which no change of ours moves.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def main() -> None:
    """Print one table per shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="JSON", help="what benchmarks.speed wrote")
    files = parser.parse_args().files
    contents = [json.loads(file.read_text()) for file in files]
    rows: dict[tuple[str, str, str], list[str]] = {}
    for place, content in enumerate(contents):
        for result in content["results"]:
            key = (result["shape"], result["name"], result["unit"])
            rows.setdefault(key, [""] * len(contents))[place] = _figure(result)
    for shape in dict.fromkeys(key[0] for key in rows):
        print(f"| {shape} | {' | '.join(file.stem for file in files)} | unit |")
        print("|---" * (len(files) + 2) + "|")
        for (own, name, unit), figures in rows.items():
            if own == shape:
                print(f"| {name} | {' | '.join(figures)} | {unit} |")
        print()
    for file, content in zip(files, contents, strict=True):
        facts = {**content["machine"], **content["versions"], "peak MiB": round(content["peak_memory_mib"]["process"])}
        print(f"- {file.stem}: {', '.join(f'{name} {value}' for name, value in facts.items())}")


def _figure(result: dict[str, Any]) -> str:
    low, high = min(result["rounds"]), max(result["rounds"])
    digits = 1 if result["median"] < 1000 else 0
    return f"{result['median']:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


if __name__ == "__main__":
    main()
