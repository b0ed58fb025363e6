"""``offsim train``: cloning, simulator, policy, evaluation, report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from app.checkpoints import last_checkpoint
from app.configuration import chosen_method, load_configuration, resolve
from app.data_quality import warn_of_worse_expert
from app.earlier_run import usable_stages
from app.errors import UserError
from app.experiments.shared import take_over
from app.export import save_learned
from app.folder_lock import locked
from app.pipeline import finish, make_data, make_module, say, training_steps
from app.rehearsal import rehearse
from app.run_data import keep_to_data
from app.run_folder import claim_folder, is_finished, note_stage
from app.several_processes import train_in_processes
from app.spared_cloning import spared
from app.train_seeds import parse_seeds, train_seeds
from app.trainers import PRECISION, make_trainer, matmul_precision, several
from datamodules import DataError
from lit_modules.method import Diverged
from zoo.files import ModelFileError

RETRY_RATE = 0.5  # of the learning rates, after each divergence


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``offsim train``."""
    parser.description = (
        "Learn a simulator and a reward from demonstrations, train a policy inside the simulator, and only then\n"
        "evaluate it in the real task. Writes configuration, checkpoints, logs, metrics.json and report.html."
    )
    parser.epilog = (
        "any setting of the configuration can be overridden:\n"
        "  offsim train hopper --policy.updates 20000 --simulator.model.members 5\n"
        "  offsim train hopper --policy.method SimulatorTD3\n\n"
        "the same command again continues an interrupted run at its first unfinished stage."
    )
    parser.add_argument("source", metavar="CONFIG_OR_TASK", help="a YAML file, or a task that ships with one")
    parser.add_argument("--expert", metavar="ID", help="Minari id of the demonstrations")
    parser.add_argument("--diverse", metavar="ID", nargs="*", help="Minari ids of data of other quality")
    parser.add_argument("--demonstrations", metavar="N", type=int, help="how many expert episodes to use")
    parser.add_argument("--seed", metavar="S", type=int, help="seed of everything")
    parser.add_argument("--seeds", metavar="A..B", help="train these seeds at once, e.g. 0..7 or 0,3,5; see --out")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="run folder (default: runs/TASK-seedS); with --seeds it holds one each"
    )
    parser.add_argument(
        "--stages-of",
        metavar="RUN_DIR",
        type=Path,
        help="take over the finished stages of this run that would be trained the same, such as its simulator, to try "
        "other settings of the policy stage",
    )
    parser.add_argument(
        "--retries",
        metavar="N",
        type=int,
        default=0,
        help="how often a stage that diverges goes on from its last checkpoint, each time at half the learning rates",
    )
    parser.add_argument("--budget", default="full", help="small: minutes; full: the published setting (default)")


def run(arguments: argparse.Namespace) -> int:
    """Carry out ``offsim train``."""
    options = {
        "data.expert": arguments.expert,
        "data.diverse": arguments.diverse,
        "data.demonstrations": arguments.demonstrations,
        "seed": arguments.seed,
    }
    loaded = load_configuration(arguments.source, chosen_method(arguments.overrides))
    configuration = resolve(loaded, arguments.budget, options, arguments.overrides)
    if arguments.seeds is not None and arguments.seed is not None:
        raise UserError("give --seed or --seeds, not both")
    if arguments.seeds is not None and arguments.retries:
        raise UserError("--retries is for one seed: give --seed, or leave it out")
    if arguments.seeds is not None and arguments.stages_of is not None:
        raise UserError("--stages-of is for one seed, that of the run: give --seed, or leave it out")
    name = configuration.task or "own"
    try:
        warning = warn_of_worse_expert(configuration.data.expert, configuration.data.diverse)
        if warning is not None:
            say(warning)
        if arguments.seeds is not None:
            train_seeds(configuration, parse_seeds(arguments.seeds), arguments.out or Path("runs") / name)
        else:
            folder = arguments.out or Path("runs") / f"{name}-seed{configuration.seed}"
            train(configuration, folder, arguments.retries, arguments.stages_of)
    except DataError as error:
        raise UserError(str(error)) from error
    except ModelFileError as error:  # of a stage that was done
        raise UserError(f"{error}; once it is removed, the same command makes it anew from its checkpoint") from error
    return 0


def train(configuration: DictConfig, folder: Path, retries: int = 0, earlier: Path | None = None) -> dict[str, Any]:
    """Run every unfinished stage in ``folder`` and return the content of its ``metrics.json``.

    Args:
        configuration: of the run.
        folder: of the run.
        retries: see :func:`train_stage`.
        earlier: folder of a run whose finished stages are taken over, where they would be trained the same.
    """
    if retries < 0:
        raise UserError(f"--retries is {retries}: give 0 for none, or a number above")
    if retries > 0 and several(configuration.devices):
        raise UserError("--retries is for one device: of several processes none can begin again alone")
    usable, reason = ([], None) if earlier is None else usable_stages(configuration, earlier)
    rehearse(configuration)
    claim_folder(configuration, folder)
    with locked(folder, "offsim train"):
        keep_to_data(configuration, folder)
        for stage in usable:
            if not is_finished(folder, stage.name):
                take_over(stage, folder)
                say(f"{stage.name.replace('_', ' ')}: that of {earlier}")
        if reason is not None:
            say(f"what follows is trained anew: {reason}")
        for name in configuration.stages:
            if is_finished(folder, name) or spared(configuration, folder, name):
                continue
            if several(configuration.devices):
                train_in_processes(folder, name)
            else:
                train_stage(configuration, folder, name, retries)
        return finish(configuration, folder)


def train_stage(configuration: DictConfig, folder: Path, name: str, retries: int = 0) -> None:
    """Run one stage in ``folder``, from its last checkpoint if there is one, and note that it is done.

    Of several processes that call this together, the first alone prints and writes files.

    Args:
        configuration: of the run.
        folder: of the run.
        name: of the stage.
        retries: how often a training that diverges goes on from its last checkpoint, at half the learning rates.

    Raises:
        Diverged: if it diverges once more than that.
    """
    before = time.perf_counter()
    data = make_data(configuration, name)
    rate_factor = 1.0
    for left in reversed(range(retries + 1)):
        trainer = make_trainer(
            folder / name,
            training_steps(configuration, name),
            accelerator=configuration.accelerator,
            devices=configuration.devices,
        )
        if trainer.is_global_zero:
            say(f"{name.replace('_', ' ')}: {configuration[name].updates} updates")
        module = make_module(configuration, folder, name, data)
        module.rate_factor = rate_factor
        try:
            with matmul_precision(configuration.get("matmul_precision", PRECISION)):
                trainer.fit(module, datamodule=data, ckpt_path=last_checkpoint(folder / name))
            break
        except Diverged as error:
            if left == 0:
                raise
            rate_factor = module.rate_factor * RETRY_RATE
            say(f"{error} Now once more from that checkpoint, at {rate_factor:g} times the learning rates.")
    if trainer.is_global_zero:
        save_learned(module.cpu(), data, folder / f"{name}.safetensors")
        seconds, device = time.perf_counter() - before, trainer.strategy.root_device
        note_stage(folder, name, seconds, device=device, rate_factor=module.rate_factor)
