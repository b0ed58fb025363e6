"""``offsim collect``: train an expert in the real task and record Minari datasets of several levels."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium.spaces import Box

from app.arguments import find_task, not_negative, positive, seed
from app.collect_again import collect_again
from app.collect_expert import Evaluation, Training, claim_folder, read_settings, run_name, train_expert
from app.collect_mixed import Mixture
from app.collect_record import dataset_root, read_recipe, write_dataset
from app.errors import UserError
from app.evaluate import check_fit, load_policy, policy_file
from app.places import refuse_unwritable_folder
from app.progress import progress
from app.stored_actions import write_actions
from zoo.episodes import Episode, noisy_actions, policy_actions, random_actions, run_episodes, run_steps, thin_episodes
from zoo.files import sha256
from zoo.policy import Policy
from zoo.tasks import TASKS, Task

LEVELS = ("expert", "medium", "mixed", "replay", "random")
MEDIUM = 1.0 / 3.0  # of the way from random actions' return to the expert's
RANDOM_STEPS = 100_000
# Recorded episodes start from other seeds than training's and evaluation's, and those of two --seed from others again.
FIRST_SEEDS = {"expert": 100_000_000, "medium": 200_000_000, "random": 300_000_000, "mixed": 400_000_000}
SEEDS_APART = 100_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description = (
        "Train an expert with soft actor-critic in the real task, and record Minari datasets from it:\n\n"
        "  expert   episodes of the snapshot with the best evaluation of the whole training\n"
        "  medium   episodes of the first snapshot a third of the way from random actions to the expert\n"
        "  mixed    roll-outs of random actions and of snapshots up to two thirds of that way, without and with noise\n"
        "  replay   what the agent saw until it reached the medium level\n"
        "  random   uniformly random actions\n\n"
        "With --from-actions the datasets are made again from stored seeds and actions instead, in minutes: those of\n"
        "the published datasets come with offsim.\n\n"
        "Interrupted, the same command continues: training from its last checkpoint, and recording with the\n"
        "first dataset that is missing."
    )
    parser.epilog = (
        "examples:\n"
        "  offsim collect walker2d --from-actions\n"
        "  offsim collect hopper --dataset-root data\n"
        "  offsim collect hopper --levels expert medium --episodes 20 --noise 0.05 --stochastic\n"
        "  offsim collect hopper --expert policy.safetensors --levels expert"
    )
    parser.add_argument("task", metavar="TASK", help=f"one of: {', '.join(sorted(TASKS))}")
    parser.add_argument(
        "--levels",
        "--level",
        nargs="+",
        choices=LEVELS,
        metavar="LEVEL",
        help="which datasets to record (default: all five; with --expert: expert and random)",
    )
    parser.add_argument("--out", metavar="RUN_DIR", help="run folder (default: runs/collect-TASK-seedS)")
    parser.add_argument("--config", metavar="FILE", help="settings of the training (default: those that ship for TASK)")
    parser.add_argument(
        "--iterations", type=positive, metavar="N", help="end the training after N iterations (default: the settings')"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="seed of training and recording (default: 0)")
    parser.add_argument(
        "--expert", metavar="POLICY", help="record this policy as the expert, a safetensors file, instead of training"
    )
    parser.add_argument(
        "--from-actions",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="make datasets again from the actions stored there (default: those that come with offsim); no training",
    )
    recording = parser.add_argument_group("what to record")
    recording.add_argument(
        "--episodes", type=positive, default=10, metavar="N", help="episodes of expert and medium (default: 10)"
    )
    recording.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="replay: keep evenly spaced whole episodes of at most N steps together (default: all); "
        f"whole episodes of N steps together: mixed at most, random at least (default: {RANDOM_STEPS})",
    )
    recording.add_argument(
        "--replay-until",
        choices=("medium", "expert"),
        default="medium",
        help="which snapshot ends the replay data (default: medium)",
    )
    recording.add_argument(
        "--noise",
        type=not_negative,
        default=0.0,
        metavar="STD",
        help="add Gaussian noise of this standard deviation to the actions of expert and medium (default: 0)",
    )
    recording.add_argument(
        "--stochastic",
        action="store_true",
        help="expert and medium sample their actions instead of taking the middle of their distribution",
    )
    storing = parser.add_argument_group("where to record it")
    storing.add_argument(
        "--dataset-root", metavar="DIR", help="folder of Minari datasets (default: MINARI_DATASETS_PATH, or Minari's)"
    )
    storing.add_argument(
        "--namespace",
        default="offsim",
        metavar="NAME",
        help="first part of the ids NAMESPACE/TASK/LEVEL-vN (default: offsim)",
    )
    storing.add_argument("--dataset-version", type=seed, default=0, metavar="N", help="N of the ids (default: 0)")
    storing.add_argument(
        "--store-actions",
        metavar="FOLDER",
        help="also store seeds and actions alone in this folder, for --from-actions",
    )
    storing.add_argument("--compress", action="store_true", help="store the data compressed, about half the size")


def run(arguments: argparse.Namespace) -> int:
    """Train what is not trained yet and record what is not recorded yet."""
    task = find_task(arguments.task)
    levels = _levels(arguments)
    folder = Path(arguments.out or Path("runs") / f"collect-{task.name}-seed{arguments.seed}")
    root = dataset_root(arguments.dataset_root)
    if not re.fullmatch(r"\w[\w-]*(/\w[\w-]*)*", arguments.namespace):
        raise UserError(
            f"{arguments.namespace!r} cannot be a namespace: use letters, digits, - and _, parts joined by /"
        )
    if arguments.from_actions is not None:
        _refuse_what_is_stored(arguments)
        refuse_unwritable_folder(root)
        collect_again(arguments, task, root)
        print(f"datasets are in {root}", flush=True)
        return 0
    expert = load_policy(arguments.expert) if arguments.expert else None
    if expert is not None:
        check_fit(expert, task)
    needs_training = expert is None and levels != ["random"]
    run_id = (run_name(folder) or uuid.uuid4().hex) if needs_training else None
    for level in levels:  # hours of training should not end in a name that is taken
        recorded = _is_recorded(arguments, level, root, _request(arguments, level, run_id))
        if not recorded and arguments.store_actions and _actions_file(arguments, level).exists():
            raise UserError(f"{_actions_file(arguments, level)} exists: choose another folder with --store-actions")

    refuse_unwritable_folder(root)
    if arguments.store_actions:
        refuse_unwritable_folder(Path(arguments.store_actions))

    training: Training | None = None
    if run_id is not None:
        settings = read_settings(task.name, arguments.config)
        settings["iterations"] = arguments.iterations or settings["iterations"]
        claim_folder(folder, task.name, arguments.seed, settings, run_id)
        training = train_expert(task.name, arguments.seed, settings, folder)
        _keep_policy(training.expert(), folder / "expert.safetensors")
        if "medium" in levels or "replay" in levels:
            _keep_policy(training.part_way(MEDIUM, task.random_return), folder / "medium.safetensors")
    for level in levels:
        request = _request(arguments, level, run_id)
        recording = _plan(arguments, task, level, training, expert)
        recipe = request | recording.facts
        dataset_id = _dataset_id(arguments, level)
        if _is_recorded(arguments, level, root, recipe):
            without = arguments.store_actions and not _actions_file(arguments, level).exists()
            unsaid = "; its actions are not stored, which happens where it is recorded" if without else ""
            print(f"{dataset_id}: recorded before, left as it is{unsaid}", flush=True)
            continue
        episodes = recording.record()
        words = (
            recording.algorithm,
            recording.description,
            recipe,
            _command(arguments, level),
            arguments.compress,
            recording.with_seeds,
        )
        returns = write_dataset(root, dataset_id, episodes, task, *words)
        if arguments.store_actions:
            write_actions(_actions_file(arguments, level), episodes, *words)
        print(
            f"{dataset_id}: {len(episodes)} episodes, {sum(map(len, episodes))} steps, "
            f"return {returns['mean']:.1f} +- {returns['std']:.1f}, checked",
            flush=True,
        )
    print(f"datasets are in {root}", flush=True)
    return 0


@dataclass(frozen=True)
class Recording:
    """How the episodes of one level come about.

    Attributes:
        record: makes the episodes.
        algorithm: who acts.
        description: one or two sentences for the metadata.
        facts: what of the recipe is known only after the training.
        with_seeds: whether the dataset has its episodes' seeds.
    """

    record: Callable[[], list[Episode]]
    algorithm: str
    description: str
    facts: dict[str, Any]
    with_seeds: bool = True


def _refuse_what_is_stored(arguments: argparse.Namespace) -> None:
    """Refuse options that say how to record, where that was decided when the actions were stored."""
    parser = argparse.ArgumentParser()
    configure(parser)
    defaults = vars(parser.parse_args([arguments.task]))
    free = ("levels", "from_actions", "dataset_root", "namespace")
    given = [name for name, value in defaults.items() if name not in free and getattr(arguments, name) != value]
    if given:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(f"--from-actions makes datasets as they were stored: leave out {options}")


def _levels(arguments: argparse.Namespace) -> list[str]:
    chosen = arguments.levels or (LEVELS if arguments.expert is None else ("expert", "random"))
    impossible = [level for level in ("medium", "mixed", "replay") if level in chosen]
    if arguments.expert is not None and impossible:
        raise UserError(
            f"{' and '.join(impossible)} data come from a training, which --expert replaces: leave them out"
        )
    return [level for level in LEVELS if level in chosen]


def _keep_policy(evaluation: Evaluation, target: Path) -> None:
    if not evaluation.snapshot.is_file():
        raise UserError(f"{evaluation.snapshot} is missing: put it back, or train again in another folder with --out")
    shutil.copyfile(evaluation.snapshot, target)


def _dataset_id(arguments: argparse.Namespace, level: str) -> str:
    return f"{arguments.namespace}/{arguments.task}/{level}-v{arguments.dataset_version}"


def _actions_file(arguments: argparse.Namespace, level: str) -> Path:
    return Path(arguments.store_actions) / f"{level}-v{arguments.dataset_version}.safetensors"


def _request(arguments: argparse.Namespace, level: str, run_id: str | None) -> dict[str, Any]:
    """The part of the recipe that is known before any training."""
    request: dict[str, Any] = {"task": arguments.task, "level": level, "seed": arguments.seed}
    if level != "random":
        request["run"] = run_id
    if level in ("mixed", "random"):
        return request | {"steps": arguments.steps or RANDOM_STEPS}
    if level == "replay":
        return request | {"steps": arguments.steps, "until": arguments.replay_until}
    actions = "sampled" if arguments.stochastic else "deterministic"
    return request | {"episodes": arguments.episodes, "actions": actions, "noise": arguments.noise}


def _is_recorded(arguments: argparse.Namespace, level: str, root: Path, recipe: dict[str, Any]) -> bool:
    """Whether the dataset of a level exists and was recorded by this run, in this way.

    Raises:
        UserError: if the id is taken by another dataset.
    """
    dataset_id = _dataset_id(arguments, level)
    found = read_recipe(root, dataset_id)
    if found is None:
        return False
    if all(name in found and found[name] == value for name, value in recipe.items()):
        return True
    free = arguments.dataset_version + 1
    while any((root / arguments.namespace / arguments.task / f"{other}-v{free}").exists() for other in LEVELS):
        free += 1
    raise UserError(
        f"{dataset_id} exists in {root} and was recorded in another way: record under --dataset-version {free}, or "
        f"remove it with `MINARI_DATASETS_PATH={root} minari delete {dataset_id}`"
    )


def _plan(
    arguments: argparse.Namespace, task: Task, level: str, training: Training | None, expert: Policy | None
) -> Recording:
    if level == "random":
        return _plan_random(arguments, task)
    if level == "mixed":
        assert training is not None
        return _plan_mixed(arguments, task, training)
    if level == "replay":
        assert training is not None
        return _plan_replay(arguments, task, training)
    if expert is not None:
        algorithm, origin = "given policy", "the policy given with --expert"
        facts: dict[str, Any] = {"policy_sha256": sha256(policy_file(arguments.expert))}
    else:
        assert training is not None
        chosen = training.expert() if level == "expert" else training.part_way(MEDIUM, task.random_return)
        best = f"the best of {len(training.evaluations)} evaluations during a training of {training.updates} updates"
        rule = best if level == "expert" else "the first evaluation a third of the way from random actions to it"
        origin = (
            f"the snapshot after {chosen.updates} updates and {chosen.steps} transitions of online soft actor-critic "
            f"(seed {arguments.seed}), whose mean return {chosen.mean_return:.1f} was {rule}"
        )
        algorithm = "SAC"
        facts = {
            "updates": chosen.updates,
            "transitions": chosen.steps,
            "evaluation_return": chosen.mean_return,
            "policy_sha256": sha256(chosen.snapshot),
        }
        expert = load_policy(chosen.snapshot)
    policy, first_seed = expert, FIRST_SEEDS[level] + SEEDS_APART * arguments.seed

    def record() -> list[Episode]:
        generator = torch.Generator().manual_seed(first_seed)
        act = policy_actions(policy, not arguments.stochastic, generator)
        if arguments.noise > 0.0:
            act = noisy_actions(act, _action_space(task), arguments.noise, first_seed)
        with progress(f"recording {level}", arguments.episodes) as report:
            return run_episodes(task.make, act, arguments.episodes, first_seed, progress=report)

    how = "Sampled" if arguments.stochastic else "Deterministic"
    noise = f" with Gaussian noise of std {arguments.noise:g}" if arguments.noise > 0.0 else ""
    description = f"{how} actions{noise} in {task.environment_id}, seeds from {first_seed}, of {origin}."
    return Recording(record, algorithm, description, facts)


def _plan_replay(arguments: argparse.Namespace, task: Task, training: Training) -> Recording:
    medium = arguments.replay_until == "medium"
    until = training.part_way(MEDIUM, task.random_return) if medium else training.expert()

    def record() -> list[Episode]:
        episodes = training.episodes(until.steps)
        try:
            return thin_episodes(episodes, arguments.steps) if arguments.steps else episodes
        except ValueError as error:
            raise UserError(f"--steps {arguments.steps} is too few: {error}") from error

    part = f"evenly spaced whole episodes, {arguments.steps} steps at most, of the" if arguments.steps else "all"
    description = (
        f"Replay of online soft actor-critic (seed {arguments.seed}) in {task.environment_id}: {part} {until.steps} "
        f"transitions seen until the {arguments.replay_until} snapshot (after {until.updates} updates, mean return "
        f"{until.mean_return:.1f}); episodes still running then are truncated. "
        "Rewards are in single precision."
    )
    facts = {"updates": until.updates, "transitions": until.steps}
    # Without seeds, as published replays are; stored actions have them
    return Recording(record, "SAC replay", description, facts, with_seeds=False)


def _plan_mixed(arguments: argparse.Namespace, task: Task, training: Training) -> Recording:
    mixture = Mixture.of(training, task)
    first_seed = FIRST_SEEDS["mixed"] + SEEDS_APART * arguments.seed
    steps = arguments.steps or RANDOM_STEPS

    def record() -> list[Episode]:
        with progress("recording mixed", steps) as report:
            return mixture.record(_action_space(task), steps, first_seed, report)

    description = (
        f"Roll-outs in {task.environment_id}, seeds from {first_seed}, of uniformly random actions and of "
        f"{mixture.describe()} of online soft actor-critic (seed {arguments.seed})."
    )
    return Recording(record, "SAC snapshots and random actions", description, mixture.facts)


def _plan_random(arguments: argparse.Namespace, task: Task) -> Recording:
    first_seed = FIRST_SEEDS["random"] + SEEDS_APART * arguments.seed
    steps = arguments.steps or RANDOM_STEPS

    def record() -> list[Episode]:
        act = random_actions(_action_space(task), first_seed)
        with progress("recording random", steps) as report:
            return run_steps(task.make, act, steps, first_seed, progress=report)

    description = f"Uniformly random actions in {task.environment_id}, seeds from {first_seed}."
    return Recording(record, "uniform random actions", description, {})


def _action_space(task: Task) -> Box:
    environment = task.make()
    space = environment.action_space
    environment.close()
    assert isinstance(space, Box)
    return space


def _command(arguments: argparse.Namespace, level: str) -> str:
    """The command that records this level alone, without the folders of this machine."""
    words = ["offsim", "collect", arguments.task, "--levels", level, "--seed", str(arguments.seed)]
    if level != "random":
        for name in ("iterations", "config", "expert"):
            value = getattr(arguments, name)
            if value is not None:
                words += [f"--{name}", Path(value).name if name != "iterations" else str(value)]
    if level in ("mixed", "random"):
        words += ["--steps", str(arguments.steps or RANDOM_STEPS)]
    elif level == "replay":
        words += ["--replay-until", arguments.replay_until]
        words += ["--steps", str(arguments.steps)] if arguments.steps else []
    else:
        words += ["--episodes", str(arguments.episodes), "--noise", f"{arguments.noise:g}"]
        words += ["--stochastic"] if arguments.stochastic else []
    return shlex.join([*words, *(["--compress"] if arguments.compress else [])])
