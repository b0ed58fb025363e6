"""The parts of ``offsim train``: modules and data of each stage, evaluation, report."""

from __future__ import annotations

import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from app.cloned_start import cloned_start, in_words, weighted_start
from app.errors import UserError
from app.evaluate import episode_returns, real_episodes, summarize_episodes
from app.export import simulator_of
from app.finished_run import POLICIES, FinishedRun, policies_of, start_of
from app.model_quality import write_model_quality
from app.over_training import diagnose_training
from app.own_system import evaluate_in_simulator, evaluation_command, table
from app.policy_methods import policy_method
from app.recorded_rewards import reward_rank_correlation
from app.report import NOT_JOINED, write_report
from app.reward_histograms import write_reward_histograms
from app.run_folder import devices, finished_stages, rate_factors, shared_stages, write_whole
from app.statistics import summarize_returns
from datamodules import TransitionDataModule
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.dynamics_reward import DynamicsRewardGame
from lit_modules.method import Method
from lit_modules.offsim import OffSim
from lit_modules.simulator_sac import SimulatorSAC
from lit_modules.weighted_cloning import WeightedCloning
from zoo import Policy, get_task, load
from zoo.policy import separated

BATCHES_PER_STEP = 50  # updates per Lightning step; amortises Lightning's overhead
PACKAGES = ("offsim", "torch", "lightning", "torchrl", "tensordict", "minari", "gymnasium", "mujoco", "numpy")


def finish(configuration: DictConfig, folder: Path, **facts: Any) -> dict[str, Any]:
    """Evaluation and report of a run whose stages are done; ``facts`` are added to its ``metrics.json``."""
    stages = finished_stages(folder)
    before = time.perf_counter()
    data = make_data(configuration, configuration.stages[-1])
    data.setup("fit")
    evaluation, diagnosis = evaluate(configuration, folder, data)
    metrics: dict[str, Any] = {
        "task": system_name(configuration),
        "seed": configuration.seed,
        "data": data.facts(),
        "versions": {name: _version(name) for name in PACKAGES},
        "trained_on": ", ".join(sorted(set(devices(folder).values()))) or None,
        "stages": stages,
        "shared_stages": shared_stages(folder),
        **({"rate_factors": slower} if (slower := rate_factors(folder)) else {}),
        **facts,
        **evaluation,
        **({"weighted_start": choice} if (choice := weighted_start(folder)) else {}),
        **({"cloned_start": start} if (start := cloned_start(folder)) else {}),
    }
    # Stages of an earlier, interrupted call count as well, and so does what was trained once for several runs
    metrics["wall_seconds"] = round(sum(stages.values()) + time.perf_counter() - before, 1)
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=1))
    if diagnosis is not None:
        write_whole(folder / "diagnose.json", json.dumps(diagnosis, indent=1))
    say("quality of the simulator, and report")
    if "simulator" in configuration.stages:
        last = policies_of(configuration, folder)[-1]
        write_model_quality(folder, load(folder), data, Policy.load(folder / f"{last}.safetensors"), last)
        if configuration.evaluation.reward_histograms:
            untrained = make_module(configuration, folder, "simulator", data)
            assert isinstance(untrained, OffSim)
            write_reward_histograms(folder, untrained, data, get_task(configuration.task), configuration.seed)
    report = write_report(folder)
    _print_table(metrics)
    say(f"report: {report}")
    if "policy" in configuration.stages:
        say(f"how far to trust the simulator: {evaluation_command(folder, metrics)}")
    return metrics


def make_data(configuration: DictConfig, stage: str) -> TransitionDataModule:
    """The data module with the streams a stage reads."""
    settings = configuration[stage]
    if stage == "behaviour_cloning":
        streams = {settings.rows: settings.batch_size}
    elif stage == "weighted_cloning":
        streams = {"expert": settings.expert_rows}
    elif stage == "dynamics_reward":
        streams = {"all": settings.all_rows}
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
    """The method of a stage as this run's seed makes it."""
    lightning.seed_everything(configuration.seed, verbose=False)
    settings: dict[str, Any] = {
        "observation_size": data.observation_size,
        "action_low": data.action_low,
        "action_high": data.action_high,
        **_arguments(configuration, stage),
    }
    cloned = str(folder / "behaviour_cloning.safetensors")
    simulator = str(folder / "simulator.safetensors")
    if stage == "behaviour_cloning":
        stage_settings = configuration[stage]
        return BehaviourCloning(**{"decay_updates": stage_settings.updates, "rows": stage_settings.rows, **settings})
    if stage == "weighted_cloning":
        return WeightedCloning(
            simulator=simulator,
            cloned_policy=cloned,
            **_arguments(configuration, "behaviour_cloning")
            | {"decay_updates": configuration[stage].updates}
            | settings,
        )
    if stage == "simulator":
        if not configuration.data.diverse:
            settings["margin_weight"] = 0.0  # OffSim+ needs diverse data
        return OffSim(task=configuration.task, cloned_policy=cloned, **settings)
    if stage == "dynamics_reward":
        return DynamicsRewardGame(simulator=simulator, **settings)
    return policy_method(configuration.policy.method)(
        simulator=simulator,
        cloned_policy=str(start_of(configuration, folder)),
        snapshot_every=configuration.policy.updates // configuration.evaluation.curve_points,
        snapshots=str(folder / "policy" / "snapshots"),
        **{"decay_updates": configuration.policy.updates, **settings},
        **learned_filter(configuration, folder),
    )


def learned_filter(configuration: DictConfig, folder: Path) -> dict[str, Any]:
    """What roll-outs of a run keep to, if it has learned that, as an argument of its learner."""
    if "dynamics_reward" not in configuration.stages:
        return {}
    return {"dynamics_reward": str(folder / "dynamics_reward.safetensors")}


def _arguments(configuration: DictConfig, stage: str) -> dict[str, Any]:
    """What the configuration says of a stage's model, as plain data, which checkpoints can hold."""
    arguments = OmegaConf.to_container(configuration[stage].model)
    assert isinstance(arguments, dict)
    return {str(name): value for name, value in arguments.items()}


def evaluate(
    configuration: DictConfig, folder: Path, data: TransitionDataModule
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What is measured in the real task after all training is over.

    Returns:
        The part of ``metrics.json`` that holds returns, and the figures of ``diagnose.json`` that cost little.
        ``expert`` is about all recorded episodes of the expert, ``demonstrated`` about those that were learned from.
        A run that stops early has no ``policy`` and no diagnosis; ``share_of_expert`` is that of the last policy it
        trained. Where the policy is joined with the cloned one, ``policy_alone`` is what was learned in the Simulator
        alone.
    """
    if configuration.task is None:
        return _evaluate_own_system(configuration, folder, data), None
    task = get_task(configuration.task)
    settings = configuration.evaluation
    seed = 1_000 + configuration.seed
    say(f"evaluation: {settings.episodes} episodes of {task.environment_id} each")
    returns = episode_returns(configuration.data.expert)
    demonstrated = [returns[number] for number in data.expert_train["episode"].unique().tolist()]
    result: dict[str, Any] = {
        "expert": summarize_returns(returns, seed),
        "demonstrated": summarize_returns(demonstrated, seed),
    }
    real, names = {}, policies_of(configuration, folder)
    for name in names:
        real[name] = real_episodes(Policy.load(folder / f"{name}.safetensors"), task, settings.episodes, seed)
        result[name] = summarize_episodes(real[name], seed)
    alone = learned_alone(configuration, folder) if "policy" in real else None
    if alone is not None:
        result["policy_alone"] = summarize_episodes(real_episodes(alone, task, settings.episodes, seed), seed)
    expert, last = result["expert"]["mean"], result[names[-1]]["mean"]
    # A share of a return that is not positive would mean nothing
    result["share_of_expert"] = last / expert if expert > 0 else None
    if "simulator" in configuration.stages:
        result["reward_rank_correlation"] = reward_rank_correlation(load(folder).reward, data)
    if "policy" not in configuration.stages:
        return result, None
    run = finished_run(configuration, folder, data)
    diagnosis = diagnose_training(
        run, settings.curve_episodes, {0: real[run.cloned_policy.stem], run.updates: real["policy"]}
    )
    result["curve"] = diagnosis["over_training"]
    result["verdict"] = {name: diagnosis["verdict"][name] for name in ("kind", "reason")}
    return result, diagnosis


def learned_alone(configuration: DictConfig, folder: Path) -> Policy | None:
    """The networks of a run's policy that were trained in the Simulator, if cloned ones were joined with them."""
    return separated(Policy.load(folder / "policy.safetensors"), Policy.load(start_of(configuration, folder)))


def _evaluate_own_system(configuration: DictConfig, folder: Path, data: TransitionDataModule) -> dict[str, Any]:
    say("evaluation: in the simulator alone, since the real system is not a known task")
    simulator = load(folder) if "simulator" in configuration.stages else None
    return {
        "share_of_expert": None,
        "simulated": evaluate_in_simulator(configuration, folder, data, policies_of(configuration, folder), simulator),
    }


def system_name(configuration: DictConfig) -> str:
    """What a run is about: its task, or the demonstrations of a system of one's own."""
    expert = configuration.data.expert
    return str(configuration.task or (expert if isinstance(expert, str) else expert[0]))


def finished_run(configuration: DictConfig, folder: Path, data: TransitionDataModule | None = None) -> FinishedRun:
    """A run whose stages are done, with what measuring it needs; ``data`` if it is at hand."""
    if data is None:
        data = make_data(configuration, "policy")
        data.setup("fit")
    learner = None
    if not simulator_of(folder / "policy.safetensors").exists():
        # It only computes a few rewards here
        plain = OmegaConf.merge(configuration, {"policy": {"model": {"compile": "never"}}})
        assert isinstance(plain, DictConfig)
        made = make_module(plain, folder, "policy", data)
        learner = made if isinstance(made, SimulatorSAC) else None
    return FinishedRun(
        folder=folder,
        configuration=configuration,
        task=get_task(configuration.task),
        simulator=load(folder),
        data=data,
        learner=learner,
        updates=training_steps(configuration, "policy") * BATCHES_PER_STEP,
    )


def training_steps(configuration: DictConfig, stage: str) -> int:
    """Lightning steps of a stage."""
    return max(1, configuration[stage].updates // BATCHES_PER_STEP)


def check_updates(name: str, updates: int) -> None:
    """Refuse a number of updates that no number of Lightning steps makes.

    Raises:
        UserError: calling it by ``name``.
    """
    if updates < BATCHES_PER_STEP or updates % BATCHES_PER_STEP:
        nearest = max(1, round(updates / BATCHES_PER_STEP)) * BATCHES_PER_STEP
        raise UserError(
            f"{name} is {updates}: training takes steps of {BATCHES_PER_STEP} updates, so give a multiple of that, "
            f"such as {nearest}"
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def say(text: str) -> None:
    """Tell the user, also where output is a file."""
    print(text, flush=True)


def _print_table(metrics: dict[str, Any]) -> None:
    if "simulated" in metrics:
        say("\n".join(table(metrics["simulated"])))
        _say_start(metrics)
        return
    say(f"{'':<20}{'mean':>9}  {'95% interval':>19}")
    names = [name for name in ("expert", *POLICIES) if name in metrics]
    for name in [*names, "policy_alone"]:
        if name in metrics:
            row, label = metrics[name], NOT_JOINED if name == "policy_alone" else name.replace("_", " ")
            low, high = row["ci95"]
            say(f"{label:<20}{row['mean']:>9.1f}  {low:>9.1f} {high:>9.1f}")
    if metrics["share_of_expert"] is not None:
        say(f"{names[-1].replace('_', ' ')} / expert: {100 * metrics['share_of_expert']:.1f}%")
    _say_start(metrics)
    if "verdict" in metrics:
        say(f"verdict: {metrics['verdict']['kind']}. {metrics['verdict']['reason']}")


def _say_start(metrics: dict[str, Any]) -> None:
    if sentence := in_words(metrics):
        say(sentence)
