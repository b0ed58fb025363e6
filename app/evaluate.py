"""``offsim evaluate``: the returns of a saved policy in the real task."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import minari
import torch

from app.arguments import find_task, positive, seed
from app.errors import UserError
from app.places import refuse_unwritable_file
from app.progress import progress
from app.statistics import summarize_returns
from datamodules.errors import DataError
from datamodules.sources import resolve
from zoo.episodes import Episode, policy_actions, run_episodes
from zoo.files import ModelFileError
from zoo.policy import Policy
from zoo.reward import RewardModel
from zoo.simulator import Simulator
from zoo.tasks import TASKS, Task


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description = (
        "Run a policy for whole episodes in the real task and print the mean return with its 95% interval,\n"
        "the lowest and the highest return, the normalised return (0 is uniformly random actions, 100 the\n"
        "task's reference expert) and the share of the reference expert's return."
    )
    parser.epilog = "example: offsim evaluate runs/hopper-seed0 --task hopper --episodes 20 --json returns.json"
    parser.add_argument("policy", metavar="POLICY", help="a policy file, or a folder that holds policy.safetensors")
    parser.add_argument("--task", required=True, metavar="TASK", help=f"one of: {', '.join(sorted(TASKS))}")
    parser.add_argument("--episodes", type=positive, default=20, metavar="N", help="episodes to run (default: 20)")
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="S", help="seed of the first episode; each next one adds 1 (default: 0)"
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="sample actions instead of taking the middle of their distribution"
    )
    parser.add_argument("--json", metavar="FILE", help="also write every number, with the return of each episode")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print, and write the JSON file if one was asked for."""
    task = find_task(arguments.task)
    if arguments.json:
        refuse_unwritable_file(Path(arguments.json))
    policy = load_policy(arguments.policy)
    warn_of_other_task(arguments.policy, task)
    deterministic = not arguments.stochastic
    result = evaluate_policy(policy, task, arguments.episodes, arguments.seed, deterministic)
    result |= {
        "task": task.name,
        "seed": arguments.seed,
        "deterministic": deterministic,
        "normalized": task.normalized_return(result["mean"]),
        "expert_share": task.share_of_expert(result["mean"]),
    }
    low, high = result["ci95"]
    print(f"task                {task.name} ({task.environment_id})")
    print(f"episodes            {result['episodes']}, {'deterministic' if deterministic else 'sampled'} actions")
    print(f"mean return         {result['mean']:.1f}  (95% interval {low:.1f} to {high:.1f})")
    print(f"lowest, highest     {min(result['returns']):.1f}, {max(result['returns']):.1f}")
    print(f"normalised return   {result['normalized']:.1f}  (0: random actions, 100: reference expert)")
    if result["expert_share"] is not None:
        share = 100.0 * result["expert_share"]
        print(f"share of expert     {share:.1f}% of {task.expert_return:.0f}, the reference expert's")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0


def evaluate_policy(
    policy: Policy,
    task: Task,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    reward: RewardModel | None = None,
) -> dict[str, Any]:
    """Returns of a policy in the real task.

    Args:
        policy: the policy, on any device.
        task: where it acts.
        episodes: how many episodes.
        seed: seed of the first episode; episode ``k`` starts from ``seed + k``, so that two policies evaluated with
            one seed meet the same starts.
        deterministic: take the middle of the action distribution instead of sampling.
        reward: a learned reward to measure on the same episodes.

    Returns:
        What :func:`app.statistics.summarize_returns` returns, and ``lengths``, the steps of each episode; with
        ``reward`` also ``learned_return``, the mean over episodes of the learned reward's undiscounted sum.

    Raises:
        UserError: if the policy was made for observations or actions of another size.
    """
    return summarize_episodes(real_episodes(policy, task, episodes, seed, deterministic), seed, reward)


def real_episodes(policy: Policy, task: Task, episodes: int, seed: int, deterministic: bool = True) -> list[Episode]:
    """The episodes themselves; arguments and errors as of :func:`evaluate_policy`."""
    check_fit(policy, task)
    generator = torch.Generator(device=next(policy.parameters()).device).manual_seed(seed)
    act = policy_actions(policy, deterministic, generator)
    with progress(f"evaluating in {task.name}", episodes) as report:
        return run_episodes(task.make, act, episodes, seed, progress=report)


def summarize_episodes(episodes: Sequence[Episode], seed: int, reward: RewardModel | None = None) -> dict[str, Any]:
    """What :func:`evaluate_policy` returns, of episodes that were run already."""
    result = summarize_returns([episode.total_reward for episode in episodes], seed)
    result["lengths"] = [len(episode) for episode in episodes]
    if reward is not None:
        result["learned_return"] = sum(_learned_return(reward, episode) for episode in episodes) / len(episodes)
    return result


def recorded_returns(ids: str | Sequence[str], seed: int = 0) -> dict[str, Any]:
    """What :func:`app.statistics.summarize_returns` says of the episodes of local Minari datasets.

    Raises:
        DataError: if one is not there.
    """
    return summarize_returns(episode_returns(ids), seed)


def episode_returns(ids: str | Sequence[str]) -> list[float]:
    """Recorded return of each episode of a local Minari dataset or several; errors as of :func:`recorded_returns`."""
    returns: list[float] = []
    for source in [resolve(name) for name in ([ids] if isinstance(ids, str) else ids)]:
        try:
            episodes = minari.MinariDataset(source.folder).iterate_episodes()
            returns += [float(episode.rewards.sum()) for episode in episodes]
        except (OSError, KeyError, ValueError) as error:  # of h5py, and of Minari's reading of it
            raise DataError(
                f"the recorded returns of {source.id} cannot be read ({error}): `offsim data check {source.id}` says "
                "what is wrong with it"
            ) from error
    return returns


def load_policy(path: str | Path) -> Policy:
    """Read a policy from a file, or from ``policy.safetensors`` in a folder.

    Raises:
        UserError: saying what is wrong with the file.
    """
    try:
        return Policy.load(policy_file(path))
    except ModelFileError as error:
        raise UserError(str(error)) from error


def policy_file(path: str | Path) -> Path:
    """The file itself, or ``policy.safetensors`` in a folder."""
    path = Path(path)
    return path / "policy.safetensors" if path.is_dir() else path


def refuse_misfit(simulator: Simulator, policy: Policy, where: str) -> None:
    """Raise a ``UserError`` if a policy was made for another system than the Simulator beside it."""
    sizes = [(each.observation_size, each.action_size) for each in (simulator, policy)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"in {where} the Simulator has {sizes[0][0]} observation features and {sizes[0][1]} actions, the policy "
            f"{sizes[1][0]} and {sizes[1][1]}: one of the files is of another run, put its own back"
        )


def warn_of_other_task(path: str | Path, task: Task) -> None:
    """Say so if the figures beside a policy name another task than the one it is about to act in."""
    try:
        trained_for = json.loads((policy_file(path).parent / "metrics.json").read_text(encoding="utf-8"))["task"]
    except (OSError, ValueError, KeyError, TypeError):  # a policy need not lie in a run
        return
    if trained_for in TASKS and trained_for != task.name:
        print(f"offsim: warning: {path} was trained for task {trained_for}, not for {task.name}", file=sys.stderr)


def check_fit(policy: Policy, task: Task) -> None:
    """Raise a ``UserError`` unless the policy takes the task's observations and gives its actions."""
    found = (policy.observation_size, policy.action_size)
    wanted = (task.observation_size, task.action_size)
    if found != wanted:
        raise UserError(
            f"the policy takes {found[0]} observation features and gives {found[1]} actions, "
            f"but task {task.name} has {wanted[0]} and {wanted[1]}: name the task it was trained for"
        )


@torch.no_grad()
def _learned_return(reward: RewardModel, episode: Episode) -> float:
    device = next(reward.parameters()).device
    observations = torch.from_numpy(episode.observations).to(device)
    actions = torch.from_numpy(episode.actions).to(device)
    return float(reward(observations[:-1], actions, observations[1:]).sum())
