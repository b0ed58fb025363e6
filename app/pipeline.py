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
from app.errors import UserError
from app.evaluate import real_episodes, recorded_returns, summarize_episodes
from app.export import simulator_of
from app.finished_run import FinishedRun
from app.model_quality import write_model_quality
from app.over_training import diagnose_training
from app.report import write_report
from datamodules import TransitionDataModule
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.method import Method
from lit_modules.offsim import OffSim
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Policy, Simulator, get_task

BATCHES_PER_STEP = 50  # updates per Lightning step; amortises Lightning's overhead
PACKAGES = ("offsim", "torch", "lightning", "torchrl", "tensordict", "minari", "gymnasium", "mujoco", "numpy")


def finish(configuration: DictConfig, folder: Path, **facts: Any) -> dict[str, Any]:
    """Evaluation and report of a run whose stages are done; ``facts`` are added to its ``metrics.json``."""
    stages = finished_stages(folder)
    before = time.perf_counter()
    run = finished_run(configuration, folder)
    evaluation, diagnosis = evaluate(run)
    metrics: dict[str, Any] = {
        "task": configuration.task,
        "seed": configuration.seed,
        "data": run.data.facts(),
        "versions": {name: _version(name) for name in PACKAGES},
        "stages": stages,
        **facts,
        **evaluation,
    }
    # Stages of an earlier, interrupted call count as well
    metrics["wall_seconds"] = round(sum(stages.values()) + time.perf_counter() - before, 1)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    (folder / "diagnose.json").write_text(json.dumps(diagnosis, indent=1))
    say("quality of the simulator, and report")
    write_model_quality(folder, run.simulator, run.data, Policy.load(folder / "policy.safetensors"))
    report = write_report(folder)
    _print_table(metrics)
    say(f"report: {report}")
    return metrics


def finished_stages(folder: Path) -> dict[str, float]:
    """Seconds that each finished stage of a run took."""
    return dict(_read_json(folder / "stages.json", {}))


def note_stage(folder: Path, name: str, seconds: float) -> None:
    """Record that a stage of a run is done."""
    (folder / "stages.json").write_text(json.dumps({**finished_stages(folder), name: round(seconds, 1)}))


def make_data(configuration: DictConfig, stage: str) -> TransitionDataModule:
    """The data module with the streams a stage reads."""
    settings = configuration[stage]
    if stage == "behaviour_cloning":
        streams = {"expert": settings.batch_size}
    else:
        streams = {"expert": settings.expert_rows, "all": settings.all_rows}
        if stage == "simulator" and settings.model.get("margin_weight", 0.0) > 0 and configuration.data.diverse:
            streams["diverse"] = settings.expert_rows
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
        return BehaviourCloning(**{"decay_updates": configuration[stage].updates, **settings})
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


def evaluate(run: FinishedRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is measured in the real task after all training is over.

    Returns:
        The part of ``metrics.json`` that holds returns, and the figures of ``diagnose.json`` that cost little.
    """
    settings = run.configuration.evaluation
    say(f"evaluation: {settings.episodes} episodes of {run.task.environment_id} each")
    result: dict[str, Any] = {"expert": recorded_returns(run.configuration.data.expert, run.seed)}
    known = {}
    for name, update in (("behaviour_cloning", 0), ("policy", run.updates)):
        policy = Policy.load(run.folder / f"{name}.safetensors")
        known[update] = real_episodes(policy, run.task, settings.episodes, run.seed)
        result[name] = summarize_episodes(known[update], run.seed)
    expert = result["expert"]["mean"]
    # A share of a return that is not positive would mean nothing
    result["share_of_expert"] = result["policy"]["mean"] / expert if expert > 0 else None
    diagnosis = diagnose_training(run, settings.curve_episodes, known)
    result["curve"] = diagnosis["over_training"]
    result["verdict"] = {name: diagnosis["verdict"][name] for name in ("kind", "reason")}
    return result, diagnosis


def finished_run(configuration: DictConfig, folder: Path) -> FinishedRun:
    """A run whose stages are done, with what measuring it needs."""
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
        simulator=run_simulator(folder),
        data=data,
        learner=learner,
        updates=training_steps(configuration, "policy") * BATCHES_PER_STEP,
    )


def run_simulator(folder: Path) -> Simulator:
    """The Simulator of a run, with the reward that its policy was trained on at the end."""
    with_policy = simulator_of(folder / "policy.safetensors")
    return Simulator.load(with_policy if with_policy.exists() else folder / "simulator.safetensors")


def training_steps(configuration: DictConfig, stage: str) -> int:
    """Lightning steps of a stage."""
    return max(1, configuration[stage].updates // BATCHES_PER_STEP)


def claim_folder(configuration: DictConfig, folder: Path) -> None:
    """Make a run folder this configuration's, unless it is another's.

    Raises:
        UserError: saying what the folder holds.
    """
    resolved = OmegaConf.to_yaml(configuration)
    saved = folder / "config.yaml"
    if saved.exists() and saved.read_text() != resolved:
        raise UserError(
            f"{folder} holds a run with another configuration: choose another --out, or repeat that run's command "
            "to continue it"
        )
    if not saved.exists() and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    saved.write_text(resolved)


def _read_json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else default


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
    for name in ("expert", "behaviour_cloning", "policy"):
        row = metrics[name]
        low, high = row["ci95"]
        say(f"{name.replace('_', ' '):<20}{row['mean']:>9.1f}  {low:>9.1f} {high:>9.1f}")
    if metrics["share_of_expert"] is not None:
        say(f"policy / expert: {100 * metrics['share_of_expert']:.1f}%")
    say(f"verdict: {metrics['verdict']['kind']}. {metrics['verdict']['reason']}")
