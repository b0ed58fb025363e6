"""``offsim train --seeds``: the runs of many seeds, every stage trained for all of them at once."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from app.checkpoints import LAST, last_checkpoint
from app.configuration import refuse_seed
from app.errors import UserError
from app.export import save_learned
from app.finished_run import POLICIES
from app.folder_lock import locked
from app.loggers import make_loggers
from app.pipeline import finish, make_data, make_module, say, training_steps
from app.policy_methods import policy_method
from app.rehearsal import rehearse
from app.run_data import keep_to_data
from app.run_folder import claim_folder, is_finished, note_stage, write_whole
from app.spared_cloning import spared
from app.statistics import summarize_seeds
from app.trainers import PRECISION, make_trainer, matmul_precision, several
from datamodules.seeds import SeedData
from lit_modules.seeds import SeedBatch

COMPILED = ("simulator", "policy")  # stages that can be


def parse_seeds(text: str) -> list[int]:
    """``0..7`` or ``0,3,5`` as a list.

    Raises:
        UserError: if it is neither, or names a seed twice.
    """
    first, dots, last = text.partition("..")
    words = text.split(",")
    if dots and _numbers(first, last):
        words = [str(seed) for seed in range(int(first), int(last) + 1)]
    if not words or not _numbers(*words):
        raise UserError(f"cannot read the seeds {text!r}: write a range such as 0..7 or a list such as 0,3,5")
    seeds = [int(word) for word in words]
    refuse_seed(max(seeds))
    if len(set(seeds)) < len(seeds):
        raise UserError(f"the seeds {text!r} name one twice: the same run trained again says nothing new")
    return seeds


def _numbers(*words: str) -> bool:
    return all(word.strip().isdigit() for word in words)


def train_seeds(configuration: DictConfig, seeds: list[int], folder: Path) -> dict[str, Any]:
    """Run every unfinished stage of the runs ``folder/seedS`` and return their summary.

    Each of them ends with the files that a run of its seed alone would have written.

    Raises:
        UserError: if they cannot be trained together with these settings.
    """
    if several(configuration.devices):
        raise UserError("seeds are trained together on one device: leave devices at 1, or train one seed at a time")
    try:
        policy_method(configuration.policy.method).refuse_lock_step(configuration.policy.model)
    except ValueError as error:
        raise UserError(f"policy.model: {error}") from error
    rehearse(configuration)
    _refuse_other_content(folder)
    runs = {folder / f"seed{seed}": _with_seed(configuration, seed) for seed in seeds}
    with ExitStack() as locks:
        for run, settings in runs.items():
            claim_folder(settings, run)
            locks.enter_context(locked(run, "offsim train"))
            keep_to_data(settings, run)
        return _train_locked(configuration, runs, folder)


def _train_locked(configuration: DictConfig, runs: dict[Path, DictConfig], folder: Path) -> dict[str, Any]:
    for stage in configuration.stages:
        unfinished = {
            run: settings
            for run, settings in runs.items()
            if not is_finished(run, stage) and not spared(settings, run, stage)
        }
        if unfinished:
            say(f"{stage.replace('_', ' ')}: {configuration[stage].updates} updates of {len(unfinished)} seeds")
            before = time.perf_counter()
            device = _fit_together(unfinished, folder, stage)
            for run in unfinished:
                note_stage(run, stage, time.perf_counter() - before, device=device)
    results = {}
    for run, settings in runs.items():
        say(f"seed {settings.seed}")
        results[settings.seed] = finish(settings, run, trained_together=len(runs))
    summary = summarize_seeds(results)
    write_whole(folder / "metrics.json", json.dumps(summary, indent=1))
    _print(summary)
    return summary


def _refuse_other_content(folder: Path) -> None:
    """Refuse a folder whose figures are not those of seeds that were trained together."""
    figures = folder / "metrics.json"
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds a run of one seed: choose another folder with --out")
    if figures.exists():
        try:
            seeds = json.loads(figures.read_text())["seeds"]
        except (OSError, ValueError, KeyError, TypeError):
            seeds = None
        if not isinstance(seeds, list):
            raise UserError(f"{figures} is not of seeds trained together: choose another folder with --out")


def _with_seed(configuration: DictConfig, seed: int) -> DictConfig:
    settings = configuration.copy()
    settings.seed = seed
    return settings


def _fit_together(runs: dict[Path, DictConfig], folder: Path, stage: str) -> torch.device:
    """Train a stage of runs that differ in their seeds alone; on which device that was."""
    first = next(iter(runs.values()))
    data = [make_data(settings, stage) for settings in runs.values()]
    modules = []
    for (run, settings), own in zip(runs.items(), data, strict=True):
        # The batch as a whole is compiled or not, the replicas on their own never
        alone = OmegaConf.merge(settings, {stage: {"model": {"compile": "never"}}} if stage in COMPILED else {})
        assert isinstance(alone, DictConfig)
        modules.append(make_module(alone, run, stage, own))
    # Compiling a batch was found to give nothing on a CPU, so that "auto" leaves it
    choice = first[stage].model.get("compile", "never")
    loggers = [make_loggers(run / stage) for run in runs]
    batch = SeedBatch(modules, loggers, "always" if choice == "always" else "never")
    # A resumed training has to be that of the same seeds
    own_folder = folder / f"{stage}-{'-'.join(str(settings.seed) for settings in runs.values())}"
    trainer = make_trainer(
        own_folder,
        training_steps(first, stage),
        accelerator=first.accelerator,
        devices=first.devices,
        loggers=[],
    )
    with matmul_precision(first.get("matmul_precision", PRECISION)):
        trainer.fit(batch, datamodule=SeedData(data), ckpt_path=last_checkpoint(own_folder))
    # Each seed has the checkpoint that a training of it alone would have left
    batch.write_own_checkpoints(own_folder / LAST, [run / stage / LAST for run in runs])
    for run, module, own in zip(runs, modules, data, strict=True):
        save_learned(module.cpu(), own, (run / stage).with_suffix(".safetensors"))
    return trainer.strategy.root_device


def _print(summary: dict[str, Any]) -> None:
    for name in POLICIES:
        if name not in summary:
            continue
        low, high = summary[name]["ci95"]
        say(
            f"{name.replace('_', ' '):<20}interquartile mean over {len(summary['seeds'])} seeds "
            f"{summary[name]['interquartile_mean']:9.1f}  95% interval {low:9.1f} {high:9.1f}"
        )
