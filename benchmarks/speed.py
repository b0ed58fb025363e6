"""How fast the hot loops are: ``python -m benchmarks.speed`` or ``make bench``.

Prints a table and writes it as JSON with versions and machine. Nothing here passes or fails. With ``--peer``, another
project is timed beside ours in the same interleaved run; ``benchmarks/peer.py`` says which rows to compare.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from app.allocator import keep_freed_memory
from benchmarks.peer import PeerError, peer_workloads
from benchmarks.timing import Workload, measure
from benchmarks.workloads import (
    SHAPES,
    data_loading,
    lightning_overhead,
    policy_stage,
    seeds_together,
    simulation,
    simulator_stage,
)

PACKAGES = ("torch", "lightning", "torchrl", "tensordict", "numpy", "gymnasium", "mujoco")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES), help="whose sizes to use")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch (default: 1)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, of which the median counts")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of each measurement")
    parser.add_argument("--allocator", default="keep", choices=["keep", "default"], help="see app/allocator.py")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="only what has one of these in its name"
    )
    parser.add_argument("--peer", type=Path, metavar="CHECKOUT", help="folder of OfflineRL-Kit, timed beside ours")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"), help="JSON file to write")
    arguments = parser.parse_args()
    _quiet()
    device = torch.device(arguments.device)
    try:
        workloads = named(arguments.shapes, device, arguments.peer)
    except PeerError as error:
        sys.exit(f"--peer: {error}")
    workloads = [each for each in workloads if any(text in each.name for text in arguments.only)]
    kept = arguments.allocator == "keep" and keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    measure(workloads, arguments.rounds, arguments.seconds, lambda text: print(text, flush=True))
    content: dict[str, Any] = {
        "machine": {**machine(device, arguments.threads), "keeps_freed_memory": kept},
        "versions": {name: version(name) for name in PACKAGES},
        "peak_memory_mib": {
            "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "device": torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
        },
        "results": [
            {"shape": each.group, "name": each.name, "unit": each.unit, "median": each.rate, "rounds": each.rates}
            for each in workloads
        ],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=1))
    print_table(content)
    print(f"written to {arguments.out}")


def named(shapes: list[str], device: torch.device, peer: Path | None) -> list[Workload]:
    """All workloads of these shapes, none of them built yet.

    Raises:
        PeerError: if the peer is not what is expected.
    """
    workloads: list[Workload] = []
    for shape in shapes:
        workloads += simulator_stage(shape, device)
        workloads += simulation(shape, device)
        workloads += policy_stage(shape, device)
        workloads += seeds_together(shape, device)
        workloads += lightning_overhead(shape, device)
        workloads += data_loading(shape)
        if peer is not None:
            workloads += peer_workloads(peer, shape, device)
    return workloads


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }


def print_table(content: dict[str, Any]) -> None:
    """The results as text."""
    for name, value in content["machine"].items():
        print(f"{name}: {value}")
    width = max((len(row["name"]) for row in content["results"]), default=0) + 2
    for row in content["results"]:
        spread = (max(row["rounds"]) - min(row["rounds"])) / row["median"]
        print(f"{row['shape']:<8}{row['name']:<{width}}{row['median']:>14,.1f} {row['unit']:<14} spread {spread:.0%}")
    print(f"peak memory: {content['peak_memory_mib']['process']:,.0f} MiB")


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning", "torchrl"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
