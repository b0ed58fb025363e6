"""Damaged files of every kind that offsim reads, and what becomes of them: ``python -m benchmarks.fuzz --inputs 2000``.

Each input is a valid file with a few changes: bytes replaced, put in, left out or repeated, the end cut off, numbers
exchanged. It is refused with a sentence, or read; everything else is a fault, and kept in ``--faults``. Where
checksums guard a file, reading anything but what was there before is a fault too. A process of its own reads the inputs
of a kind, so that one that ends the process is a fault and not the end.

``--engine atheris`` lets libFuzzer choose the changes by the code that they reach, if atheris is installed.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.fuzz_targets import Target, fingerprint, targets

REFUSED, SAME, OTHER, FAULT = "refused", "read as before", "read as something else", "fault"
OUTCOMES = (REFUSED, SAME, OTHER, FAULT)
BEGUN = "begun"  # said before each input, so that one that ends the process is known
WORDS = [
    *(b"0", b"-1", b"1", b"9", b"1e999", b"nan", b"1e9", b"4294967296", b"null", b"true", b'"', b"'", b"[]", b"{}"),
    *(b"[", b"}", b":", b",", b"\n", b"\0", b"${x}", b"${seed}", b"!!python/object", b"&a", b"*a", b"../", b"\xff"),
]
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
FRONT = 3000  # bytes at either end of a file, where its structure is


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="of each kind; fewer where one takes long")
    parser.add_argument("--seed", type=int, default=0, help="of the changes")
    parser.add_argument("--engine", choices=("random", "atheris"), default="random", help="who chooses the changes")
    parser.add_argument("--only", nargs="+", choices=list(targets()), help="these kinds")
    parser.add_argument("--faults", type=Path, default=Path("faults"), help="folder for inputs that show a fault")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return work(given)
    print("| file | tried | refused in a sentence | read as before | read as something else | faults |")
    print("|---|---|---|---|---|---|")
    faults = 0
    for name, target in targets().items():
        if not given.only or name in given.only:
            counts = tally(name, max(1, round(target.share * given.inputs)), given)
            cells = " | ".join(f"{count:,}" for count in (sum(counts.values()), *counts.values()))
            print(f"| {name}{', with its checksum' if target.checked else ''} | {cells} |", flush=True)
            faults += counts[FAULT]
    sys.exit(f"{faults} inputs show a fault: they are in {given.faults}" if faults else 0)


def tally(name: str, inputs: int, given: argparse.Namespace) -> dict[str, int]:
    """Have workers read the inputs of one kind, a further one where one has died; how often each outcome was."""
    counts, first = dict.fromkeys(OUTCOMES, 0), 0
    while first < inputs:
        words = [f"--inputs={inputs}", f"--seed={given.seed}", f"--engine={given.engine}", f"--faults={given.faults}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fuzz", *words, f"--worker={name}", f"--first={first}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        unfinished, begun = 0, first
        for line in map(str.strip, process.stdout):
            if line == BEGUN:
                unfinished, first = 1, first + 1
            elif line in counts:
                unfinished = 0
                counts[line] += 1
        process.wait()
        counts[FAULT] += unfinished
        if first == begun:
            sys.exit(f"the worker for {name} ended with {process.returncode} before any input")
        if not unfinished and given.engine == "atheris":
            break  # libFuzzer counts for itself
    return counts


def work(given: argparse.Namespace) -> None:
    """Read the inputs of one kind and print, a line each, what became of them."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    target = targets()[given.worker]
    with tempfile.TemporaryDirectory() as temporary:
        path = target.prepare(Path(temporary))
        before = fingerprint(target.read(path))

        def judge(content: bytes) -> None:
            print(BEGUN, flush=True)
            path.write_bytes(content)
            outcome, reason = judged(target, path, before)
            if outcome == FAULT:
                _keep(given, content, reason)
            print(outcome, flush=True)

        if given.engine == "atheris":
            _guided(judge, target, given, Path(temporary))
        for number in range(given.first, given.inputs):
            judge(changed(target.content, random.Random(f"{given.seed}/{given.worker}/{number}")))


def judged(target: Target, path: Path, before: str) -> tuple[str, str]:
    """What becomes of a file, the valid one having the fingerprint ``before``, and why that is a fault if it is."""
    try:
        found = fingerprint(target.read(path))
    except target.refusals as error:
        return (REFUSED, "") if str(error).strip() else (FAULT, "refused without a word")
    except BaseException:
        return FAULT, traceback.format_exc()
    if found == before:
        return SAME, ""
    return (FAULT, "changed, and read all the same") if target.checked else (OTHER, "")


def changed(content: bytes, draw: random.Random) -> bytes:
    """A valid file with one to four changes."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = draw.choice((_replaced, _inserted, _left_out, _repeated, _cut, _flipped, _renumbered))(content, draw)
    return content


def _place(content: bytes, draw: random.Random) -> int:
    """Mostly near one of the ends."""
    near, length = min(FRONT, len(content)), len(content)
    return draw.choice(
        (draw.randint(0, near), draw.randint(0, near), length - draw.randint(0, near), draw.randint(0, length))
    )


def _some(draw: random.Random) -> bytes:
    return draw.choice(WORDS) if draw.random() < 0.7 else draw.randbytes(draw.randint(1, 12))


def _replaced(content: bytes, draw: random.Random) -> bytes:
    at, put = _place(content, draw), _some(draw)
    return content[:at] + put + content[at + len(put) :]


def _inserted(content: bytes, draw: random.Random) -> bytes:
    at = _place(content, draw)
    return content[:at] + _some(draw) + content[at:]


def _left_out(content: bytes, draw: random.Random) -> bytes:
    at = _place(content, draw)
    return content[:at] + content[at + draw.choice((1, 2, 8, 64, 1000)) :]


def _repeated(content: bytes, draw: random.Random) -> bytes:
    at, length = _place(content, draw), draw.choice((1, 8, 64))
    return content[: at + length] + content[at:]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: _place(content, draw)]


def _flipped(content: bytes, draw: random.Random) -> bytes:
    at = min(_place(content, draw), len(content) - 1)
    return content if at < 0 else content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def _renumbered(content: bytes, draw: random.Random) -> bytes:
    """Something else in the place of a number in a text, or of one of the header."""
    numbers = list(NUMBER.finditer(content, 0, 20_000))
    if not numbers:
        return content
    one = draw.choice(numbers)
    return content[: one.start()] + _some(draw) + content[one.end() :]


def _keep(given: argparse.Namespace, content: bytes, reason: str) -> None:
    given.faults.mkdir(parents=True, exist_ok=True)
    stem = f"{re.sub('[^a-z]+', '-', given.worker.lower())}-{time.time_ns()}"
    (given.faults / stem).write_bytes(content)
    (given.faults / f"{stem}.txt").write_text(reason)


def _guided(judge: Callable[[bytes], None], target: Target, given: argparse.Namespace, folder: Path) -> None:
    """Have libFuzzer choose the inputs; it ends the process itself."""
    import atheris

    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "valid").write_bytes(target.content)
    for module in list(_own_modules()):
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", None) == module.__name__ and hasattr(value, "__code__"):
                setattr(module, name, atheris.instrument_func(value))
    limit = 2 * len(target.content)
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-runs={given.inputs}", f"-seed={given.seed + 1}", f"-max_len={limit}"], judge
    )
    atheris.Fuzz()


def _own_modules() -> Iterator[object]:
    own = ("app.", "zoo.", "datamodules.")
    return (module for name, module in sys.modules.items() if name.startswith(own))


if __name__ == "__main__":
    main()
