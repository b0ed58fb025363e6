"""The parts of ``offsim train``: modules and data of each stage, evaluation, report."""

from __future__ import annotations

import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from app.configuration import POLICY_METHODS
from app.diagnose import simulated_return, write_diagnostics
from app.evaluate import evaluate_policy, recorded_returns
from app.export import simulator_of
from app.report import write_report
from app.reward_histograms import write_reward_histograms
from app.run_folder import finished_stages, shared_stages, write_whole
from app.true_rewards import reward_rank_correlation
from datamodules import TransitionDataModule
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.method import Method
from lit_modules.offsim import OffSim
from zoo import Policy, Simulator, get_task

BATCHES_PER_STEP = 50  # updates per Lightning step; amortises Lightning's overhead
PACKAGES = ("offsim", "torch", "lightning", "torchrl", "tensordict", "minari", "gymnasium", "mujoco", "numpy")


def finish(configuration: DictConfig, folder: Path, **facts: Any) -> dict[str, Any]:
    """Evaluation and report of a run whose stages are done; ``facts`` are added to its ``metrics.json``."""
    stages = finished_stages(folder)
    before = time.perf_counter()
    data = make_data(configuration, configuration.stages[-1])
    data.setup("fit")
    metrics: dict[str, Any] = {
        "task": configuration.task,
        "seed": configuration.seed,
        "data": data.facts(),
        "versions": {name: _version(name) for name in PACKAGES},
        "stages": stages,
        "shared_stages": shared_stages(folder),
        **facts,
        **evaluate(configuration, folder, data),
    }
    # Stages of an earlier, interrupted call count as well, and so does what was trained once for several runs
    metrics["wall_seconds"] = round(sum(stages.values()) + time.perf_counter() - before, 1)
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=1))
    say("diagnostics and report")
    if "simulator" in configuration.stages:
        last = policies_of(configuration)[-1]
        write_diagnostics(folder, run_simulator(folder), data, Policy.load(folder / f"{last}.safetensors"), last)
        if configuration.evaluation.reward_histograms:
            untrained = make_module(configuration, folder, "simulator", data)
            assert isinstance(untrained, OffSim)
            write_reward_histograms(folder, untrained, data, get_task(configuration.task), configuration.seed)
    report = write_report(folder)
    _print_table(metrics)
    say(f"report: {report}")
    return metrics


def make_data(configuration: DictConfig, stage: str) -> TransitionDataModule:
    """The data module with the streams a stage reads."""
    settings = configuration[stage]
    if stage == "behaviour_cloning":
        streams = {settings.rows: settings.batch_size}
    else:
        streams = {"expert": settings.expert_rows, "all": settings.all_rows}
        if stage == "simulator" and settings.model.get("margin_weight", 0.0) > 0 and configuration.data.diverse:
            streams["diverse"] = settings.expert_rows
        streams = {name: rows for name, rows in streams.items() if rows > 0}  # not every method reads all of them
    arguments = OmegaConf.to_container(configuration.data)
    return TransitionDataModule(
        **arguments,  # type: ignore[arg-type]
        streams=streams,
        batches_per_step=BATCHES_PER_STEP,
        seed=configuration.seed,
    )


def make_module(configuration: DictConfig, folder: Path, stage: str, data: TransitionDataModule) -> Method:
    """The method of a stage as this run's seed makes it: cloning, OffSim, or the policy in the frozen Simulator."""
    lightning.seed_everything(configuration.seed, verbose=False)
    arguments = OmegaConf.to_container(configuration[stage].model)
    assert isinstance(arguments, dict)
    settings: dict[str, Any] = {
        "observation_size": data.observation_size,
        "action_low": data.action_low,
        "action_high": data.action_high,
        **{str(name): value for name, value in arguments.items()},
    }
    cloned = str(folder / "behaviour_cloning.safetensors")
    if stage == "behaviour_cloning":
        stage_settings = configuration[stage]
        return BehaviourCloning(**{"decay_updates": stage_settings.updates, "rows": stage_settings.rows, **settings})
    if stage == "simulator":
        if not configuration.data.diverse:
            settings["margin_weight"] = 0.0  # OffSim+ needs diverse data
        return OffSim(task=configuration.task, cloned_policy=cloned, **settings)
    return POLICY_METHODS[configuration.policy.method](
        simulator=str(folder / "simulator.safetensors"),
        cloned_policy=cloned,
        snapshot_every=configuration.policy.updates // configuration.evaluation.curve_points,
        snapshots=str(folder / "policy" / "snapshots"),
        **settings,
    )


def policies_of(configuration: DictConfig) -> list[str]:
    """The stages of a run that train a policy, which is also what their entries in ``metrics.json`` are called."""
    return [name for name in ("behaviour_cloning", "policy") if name in configuration.stages]


def evaluate(configuration: DictConfig, folder: Path, data: TransitionDataModule) -> dict[str, Any]:
    """Returns in the real task, measured after all training is over.

    A run that stops early has no ``policy`` or no ``curve``; ``share_of_expert`` is that of the last policy it trained.
    """
    task = get_task(configuration.task)
    settings = configuration.evaluation
    seed = 1_000 + configuration.seed
    say(f"evaluation: {settings.episodes} episodes of {task.environment_id} each")
    result: dict[str, Any] = {"expert": recorded_returns(configuration.data.expert, seed)}
    for name in policies_of(configuration):
        policy = Policy.load(folder / f"{name}.safetensors")
        result[name] = evaluate_policy(policy, task, settings.episodes, seed)
    expert, last = result["expert"]["mean"], result[policies_of(configuration)[-1]]["mean"]
    # A share of a return that is not positive would mean nothing
    result["share_of_expert"] = last / expert if expert > 0 else None
    if "simulator" in configuration.stages:
        simulator = run_simulator(folder)
        result["reward_rank_correlation"] = reward_rank_correlation(simulator.reward, data)
        result["curve"] = real_against_simulated(folder, simulator, task, settings.curve_episodes, seed)
    return result


def real_against_simulated(
    folder: Path, simulator: Simulator, task: Any, episodes: int, seed: int
) -> list[dict[str, Any]]:
    """For the cloned start and every snapshot: return in the Simulator beside the return measured."""
    curve = []
    snapshots = [(0, folder / "behaviour_cloning.safetensors")]
    snapshots += [(int(path.stem), path) for path in sorted((folder / "policy" / "snapshots").glob("*.safetensors"))]
    for update, path in snapshots:
        policy = Policy.load(path)
        real = evaluate_policy(policy, task, episodes, seed, reward=simulator.reward)
        imagined = simulated_return(simulator, policy, episodes=20, horizon=task.horizon)
        curve.append(
            {
                "update": update,
                "simulator_return": imagined["return"],
                "simulator_length": imagined["length"],
                "simulator_uncertainty": imagined["uncertainty"],
                "real_learned_return": real["learned_return"],
                "real_return": real["mean"],
                "real_ci95": real["ci95"],
            }
        )
        say(
            f"  update {update:>7}: simulator {imagined['return']:7.1f} (learned reward), "
            f"real {real['learned_return']:7.1f} (learned reward), real return {real['mean']:7.1f}"
        )
    return curve


def run_simulator(folder: Path) -> Simulator:
    """The Simulator of a run, with the reward that its policy was trained on at the end."""
    with_policy = simulator_of(folder / "policy.safetensors")
    return Simulator.load(with_policy if with_policy.exists() else folder / "simulator.safetensors")


def training_steps(configuration: DictConfig, stage: str) -> int:
    """Lightning steps of a stage."""
    return max(1, configuration[stage].updates // BATCHES_PER_STEP)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def say(text: str) -> None:
    """Tell the user, also where output is a file."""
    print(text, flush=True)


def _print_table(metrics: dict[str, Any]) -> None:
    say(f"{'':<20}{'mean':>9}  {'95% interval':>19}")
    names = [name for name in ("expert", "behaviour_cloning", "policy") if name in metrics]
    for name in names:
        row = metrics[name]
        low, high = row["ci95"]
        say(f"{name.replace('_', ' '):<20}{row['mean']:>9.1f}  {low:>9.1f} {high:>9.1f}")
    if metrics["share_of_expert"] is not None:
        say(f"{names[-1].replace('_', ' ')} / expert: {100 * metrics['share_of_expert']:.1f}%")
