"""``offsim train``: cloning, simulator, policy, evaluation, report."""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from app.configuration import load_configuration, resolve
from app.diagnose import simulated_return, write_diagnostics
from app.errors import UserError
from app.evaluate import evaluate_policy, recorded_returns
from app.export import learned
from app.report import write_report
from app.trainers import make_trainer
from datamodules import DataError, TransitionDataModule
from lit_modules.behaviour_cloning import BehaviourCloning
from lit_modules.offsim import OffSim
from lit_modules.simulator_sac import SimulatorSAC
from zoo import Policy, Simulator, get_task

HELP = "learn a simulator and train a policy in it, evaluate, report: the main job"
BATCHES_PER_STEP = 50  # updates per Lightning step; amortises Lightning's overhead
PACKAGES = ("offsim", "torch", "lightning", "torchrl", "tensordict", "minari", "gymnasium", "mujoco", "numpy")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``offsim train``."""
    parser.description = (
        "Learn a simulator and a reward from demonstrations, train a policy inside the simulator, and only then\n"
        "evaluate it in the real task. Writes configuration, checkpoints, logs, metrics.json and report.html."
    )
    parser.epilog = (
        "any setting of the configuration can be overridden:\n"
        "  offsim train hopper --policy.updates 20000 --simulator.model.members 5\n\n"
        "the same command again continues an interrupted run at its first unfinished stage."
    )
    parser.add_argument("source", metavar="CONFIG_OR_TASK", help="a YAML file, or a task that ships with one")
    parser.add_argument("--expert", metavar="ID", help="Minari id of the demonstrations")
    parser.add_argument("--diverse", metavar="ID", nargs="*", help="Minari ids of data of other quality")
    parser.add_argument("--demonstrations", metavar="N", type=int, help="how many expert episodes to use")
    parser.add_argument("--seed", metavar="S", type=int, help="seed of everything")
    parser.add_argument("--out", metavar="DIR", type=Path, help="run folder (default: runs/TASK-seedS)")
    parser.add_argument("--budget", default="full", help="small: minutes; full: the published setting (default)")


def run(arguments: argparse.Namespace) -> int:
    """Carry out ``offsim train``."""
    options = {
        "data.expert": arguments.expert,
        "data.diverse": arguments.diverse,
        "data.demonstrations": arguments.demonstrations,
        "seed": arguments.seed,
    }
    configuration = resolve(load_configuration(arguments.source), arguments.budget, options, arguments.overrides)
    folder = arguments.out or Path("runs") / f"{configuration.task}-seed{configuration.seed}"
    try:
        train(configuration, folder)
    except DataError as error:
        raise UserError(str(error)) from error
    return 0


def train(configuration: DictConfig, folder: Path) -> dict[str, Any]:
    """Run every unfinished stage in ``folder`` and return the content of its ``metrics.json``."""
    _claim_folder(configuration, folder)
    stages: dict[str, float] = _read_json(folder / "stages.json", {})
    for name, stage in (("behaviour_cloning", clone), ("simulator", learn_simulator), ("policy", learn_policy)):
        data = make_data(configuration, name)
        if name not in stages:
            _say(f"{name.replace('_', ' ')}: {configuration[name].updates} updates")
            lightning.seed_everything(configuration.seed, verbose=False)
            before = time.perf_counter()
            stage(configuration, folder, data)
            stages[name] = round(time.perf_counter() - before, 1)
            (folder / "stages.json").write_text(json.dumps(stages))
    before = time.perf_counter()
    data = make_data(configuration, "policy")
    data.setup("fit")
    metrics: dict[str, Any] = {
        "task": configuration.task,
        "seed": configuration.seed,
        "data": data.facts(),
        "versions": {name: _version(name) for name in PACKAGES},
        "stages": stages,
        **evaluate(configuration, folder),
    }
    # Stages of an earlier, interrupted call count as well
    metrics["wall_seconds"] = round(sum(stages.values()) + time.perf_counter() - before, 1)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    _say("diagnostics and report")
    write_diagnostics(folder, data, Policy.load(folder / "policy.safetensors"))
    report = write_report(folder)
    _print_table(metrics)
    _say(f"report: {report}")
    return metrics


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


def clone(configuration: DictConfig, folder: Path, data: TransitionDataModule) -> None:
    """Behaviour cloning, the baseline and the start of the policy."""
    module = BehaviourCloning(
        observation_size=data.observation_size,
        action_low=data.action_low,
        action_high=data.action_high,
        **_model(configuration, "behaviour_cloning"),
    )
    _fit(configuration, folder / "behaviour_cloning", "behaviour_cloning", module, data)


def learn_simulator(configuration: DictConfig, folder: Path, data: TransitionDataModule) -> None:
    """Stage 1: transition, reward and termination."""
    arguments = _model(configuration, "simulator")
    if not configuration.data.diverse:
        arguments["margin_weight"] = 0.0  # OffSim+ needs diverse data
    module = OffSim(
        observation_size=data.observation_size,
        action_low=data.action_low,
        action_high=data.action_high,
        task=configuration.task,
        cloned_policy=str(folder / "behaviour_cloning.safetensors"),
        **arguments,
    )
    _fit(configuration, folder / "simulator", "simulator", module, data)


def learn_policy(configuration: DictConfig, folder: Path, data: TransitionDataModule) -> None:
    """Stage 2: a policy in the frozen Simulator."""
    module = SimulatorSAC(
        simulator=str(folder / "simulator.safetensors"),
        observation_size=data.observation_size,
        action_low=data.action_low,
        action_high=data.action_high,
        cloned_policy=str(folder / "behaviour_cloning.safetensors"),
        snapshot_every=configuration.policy.updates // configuration.evaluation.curve_points,
        snapshots=str(folder / "policy" / "snapshots"),
        **_model(configuration, "policy"),
    )
    _fit(configuration, folder / "policy", "policy", module, data)


def evaluate(configuration: DictConfig, folder: Path) -> dict[str, Any]:
    """Returns in the real task, measured after all training is over."""
    task = get_task(configuration.task)
    settings = configuration.evaluation
    seed = 1_000 + configuration.seed
    _say(f"evaluation: {settings.episodes} episodes of {task.environment_id} each")
    simulator = Simulator.load(folder / "simulator.safetensors")
    result: dict[str, Any] = {"expert": recorded_returns(configuration.data.expert, seed)}
    for name, file in (("behaviour_cloning", "behaviour_cloning"), ("policy", "policy")):
        policy = Policy.load(folder / f"{file}.safetensors")
        result[name] = evaluate_policy(policy, task, settings.episodes, seed)
    expert = result["expert"]["mean"]
    # A share of a return that is not positive would mean nothing
    result["share_of_expert"] = result["policy"]["mean"] / expert if expert > 0 else None
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
        _say(
            f"  update {update:>7}: simulator {imagined['return']:7.1f} (learned reward), "
            f"real {real['learned_return']:7.1f} (learned reward), real return {real['mean']:7.1f}"
        )
    return curve


def _fit(
    configuration: DictConfig, folder: Path, stage: str, module: lightning.LightningModule, data: TransitionDataModule
) -> None:
    steps = max(1, configuration[stage].updates // BATCHES_PER_STEP)
    trainer = make_trainer(folder, steps, accelerator=configuration.accelerator, devices=configuration.devices)
    last = folder / "last.ckpt"
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None)
    learned(module.cpu(), data).save(folder.with_suffix(".safetensors"))


def _model(configuration: DictConfig, stage: str) -> dict[str, Any]:
    arguments = OmegaConf.to_container(configuration[stage].model)
    assert isinstance(arguments, dict)
    return {str(name): value for name, value in arguments.items()}


def _claim_folder(configuration: DictConfig, folder: Path) -> None:
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


def _say(text: str) -> None:
    print(text, flush=True)


def _print_table(metrics: dict[str, Any]) -> None:
    _say(f"{'':<20}{'mean':>9}  {'95% interval':>19}")
    for name in ("expert", "behaviour_cloning", "policy"):
        row = metrics[name]
        low, high = row["ci95"]
        _say(f"{name.replace('_', ' '):<20}{row['mean']:>9.1f}  {low:>9.1f} {high:>9.1f}")
    if metrics["share_of_expert"] is not None:
        _say(f"policy / expert: {100 * metrics['share_of_expert']:.1f}%")
