"""The figures of a card where no real task can be opened: a Simulator and its policy against recorded episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from scipy.stats import mannwhitneyu
from tensordict import TensorDict
from torch import Tensor

from app.cards.model_figures import ends_figures, finite, model_figures
from app.errors import UserError
from app.model_quality import drawn_roll_out, feature_names
from app.pipeline import make_data
from app.recorded_rewards import rank_correlation, raw_rewards, recorded_rewards
from app.rollouts import roll_out
from datamodules import TransitionDataModule
from datamodules.checks import check_names
from lit_modules.diagnostics import open_loop_differences, spread
from zoo import Policy, Simulator, get_task
from zoo.transition import TransitionModel

DEMONSTRATIONS, OTHERS = "held-out demonstrations", "held-out other data"
EPISODES = 100  # of the policy in the Simulator
ROWS = 20_000  # transitions behind rewards and uncertainties
FEATURE_STEPS = (1, 20)  # after which errors of each feature are taken


@dataclass(frozen=True)
class Recording:
    """Recorded transitions of whole episodes.

    Attributes:
        name: where they come from.
        table: the transitions, ``(N,)``.
        rewards: the recorded rewards of ``rows``, which no training reads.
        held_out: whether the training held them out.
        trained_on: whether the training had them.
        observation_names: of the features, if they are known, else none.
        action_names: likewise.
    """

    name: str
    table: TensorDict
    rewards: NDArray[Any]
    held_out: bool = False
    trained_on: bool = False
    observation_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()

    @property
    def rows(self) -> TensorDict:
        """Evenly spaced ones, no more than rewards and uncertainties need."""
        return spread(self.table, ROWS)


def held_out_by_training(folder: Path, origin: Mapping[str, Any]) -> list[Recording]:
    """The episodes that the training of a run or entry held out of its data.

    Args:
        folder: of the run or entry, with its ``config.yaml``.
        origin: its ``metrics.json``.

    Raises:
        UserError: if nothing was held out, the data is not what it was, or others were held out then.
        DataError: if it is not on this machine.
    """
    try:
        configuration = OmegaConf.load(folder / "config.yaml")
        assert isinstance(configuration, DictConfig)
        stage = configuration.stages[-1]
    except Exception as error:  # whatever YAML and OmegaConf raise
        raise UserError(
            f"cannot read {folder / 'config.yaml'} ({error}): name recorded episodes with --data"
        ) from error
    data = make_data(configuration, stage)
    noted = {each["id"]: each for each in origin["data"]}
    for facts in data.facts():
        if facts["sha256"] != noted.get(facts["id"], {}).get("sha256"):
            raise UserError(
                f"{facts['id']} is not the data that {folder} was trained on, so what was held out is not known: "
                "restore it, or name recorded episodes with --data"
            )
        held_out = facts["held_out_episodes"]
        if noted[facts["id"]].get("held_out_episodes", held_out) != held_out:
            raise UserError(
                f"an earlier version of offsim held out other episodes of {facts['id']} from {folder}, so these may "
                "have been trained on: name recorded episodes with --data"
            )
    data.setup("fit")
    tables = {DEMONSTRATIONS: data.expert_held_out, OTHERS: data.diverse_held_out}
    found = [
        Recording(name, table, recorded_rewards(data, spread(table, ROWS)), held_out=True)
        for name, table in tables.items()
        if table is not None
    ]
    if not found:
        raise UserError(f"the training of {folder} held out nothing: name recorded episodes with --data")
    return found


def recordings_of(ids: Sequence[str], origin: Mapping[str, Any]) -> list[Recording]:
    """Whole datasets, such as logs that were recorded after the training.

    Args:
        ids: Minari ids.
        origin: the ``metrics.json`` of the training.

    Raises:
        DataError: naming dataset, episode and step of what cannot be used.
    """
    trained = {each["sha256"] for each in origin["data"]}
    found = []
    for dataset_id in ids:
        data = TransitionDataModule([dataset_id], streams={"expert": 1}, held_out_fraction=0.0)
        data.setup("test")  # nothing is learned from them, and they need not be demonstrations
        (facts,) = data.facts()
        table = data.expert_train
        found.append(
            Recording(
                dataset_id,
                table,
                recorded_rewards(data, spread(table, ROWS)),
                trained_on=facts["sha256"] in trained,
                observation_names=data.observation_names,
                action_names=data.action_names,
            )
        )
    return found


@torch.no_grad()
def measure_recorded(
    simulator: Simulator, policy: Policy, recordings: Sequence[Recording], seed: int
) -> dict[str, Any]:
    """All that a card says of a Simulator whose real system cannot be opened, as JSON.

    Args:
        simulator: on the CPU.
        policy: that was trained in it.
        recordings: true episodes of the system.
        seed: of the policy's episodes in the Simulator.

    Returns:
        ``recordings``, by name: ``episodes``, ``rows``, ``held_out``, ``trained_on``, mean ``learned_reward`` per step
        beyond what ending is worth, mean ``uncertainty`` in medians of the training data, ``action_error``, the
        distance of the policy's actions to the recorded ones (root mean square, half action ranges), and
        ``reward_rank_correlation``, Spearman's of learned reward, before its bounds, and recorded one, if there is one;
        ``policy``: the same ``learned_reward`` and ``uncertainty`` of its episodes in the Simulator, their mean
        ``length`` and the ``horizon``; ``features``: for each its name, its deviation in the training data, 0 if it is
        constant there, and the root-mean-square open-loop error after each of ``steps``, by recording, in its own unit,
        ``None`` where it is set from outside, and the names of those that are (``exogenous``);
        ``open_loop``: a stretch of the first recording, and its forecast; ``preference``: in which share of pairs a
        held-out demonstration has more learned reward than a transition of other data;
        ``termination``: precision and recall of ``simulator``, the number of recorded ends, and whether the
        Simulator's was ``learned``; and those of ``model_figures`` by recording.

    Raises:
        UserError: if a recording has other observations or actions than the Simulator.
        DataError: if it has them in another order.
    """
    wanted = (simulator.observation_size, simulator.action_size)
    for each in recordings:
        sizes = (each.table["observation"].shape[-1], each.table["action"].shape[-1])
        if sizes != wanted:
            raise UserError(
                f"{each.name} has {sizes[0]} observation features and {sizes[1]} actions, the Simulator {wanted[0]} "
                f"and {wanted[1]}: name data of the same system"
            )
        check_names("the Simulator", simulator, each.name, each)
    tables = {each.name: each.table for each in recordings}
    return {
        "recordings": {each.name: _recording(simulator, policy, each) for each in recordings},
        "policy": _imagined(simulator, policy, seed),
        "features": _features(simulator, tables),
        "open_loop": drawn_roll_out(simulator, recordings[0].table, recordings[0].name),
        "preference": _preference(simulator, tables),
        "termination": _terminations(simulator, list(tables.values())),
        **model_figures(simulator, tables),
    }


def _recording(simulator: Simulator, policy: Policy, recording: Recording) -> dict[str, Any]:
    rows = recording.rows
    apart = (policy.act(rows["observation"]) - rows["action"]) / policy.half_range
    return {
        "episodes": len(recording.table["episode"].unique()),
        "rows": len(recording.table),
        "held_out": recording.held_out,
        "trained_on": recording.trained_on,
        **_paid(simulator, rows),
        "action_error": float(apart.square().mean().sqrt()),
        "reward_rank_correlation": rank_correlation(raw_rewards(simulator.reward, rows), recording.rewards),
    }


def _imagined(simulator: Simulator, policy: Policy, seed: int) -> dict[str, Any]:
    horizon = get_task(simulator.task).horizon if simulator.task else simulator.horizon
    assert horizon is not None  # a Simulator of no known task has one
    imagined = roll_out(simulator, policy.act, EPISODES, horizon, seed)
    length = float(imagined.lengths.float().mean())
    return {"horizon": horizon, "length": length, **_paid(simulator, spread(imagined.visited(), ROWS))}


def _paid(simulator: Simulator, rows: TensorDict) -> dict[str, float]:
    uncertainty = simulator.measure_uncertainty(rows["observation"], rows["action"]).mean()
    reward = simulator.reward(rows["observation"], rows["action"], rows["next", "observation"])
    return {
        "learned_reward": float(reward.mean()) - simulator.end_worth(),
        "uncertainty": float(uncertainty) / simulator.uncertainty_unit(),
    }


def _features(simulator: Simulator, tables: Mapping[str, TensorDict]) -> dict[str, Any]:
    errors: dict[str, list[list[float | None]]] = {}
    outside = simulator.exogenous
    for name, table in tables.items():
        differences = open_loop_differences(simulator.transition, table, FEATURE_STEPS)
        errors[name] = [
            [
                None if at in outside else finite(value)
                for at, value in enumerate(differences[step].square().mean(dim=0).sqrt().tolist())
            ]
            if step in differences
            else [None] * simulator.observation_size
            for step in FEATURE_STEPS
        ]
    return {
        "names": feature_names(simulator),
        "exogenous": [feature_names(simulator)[at] for at in outside],
        "deviation": _deviations(simulator.transition).tolist(),
        "steps": list(FEATURE_STEPS),
        "error": errors,
    }


def _deviations(model: TransitionModel) -> Tensor:
    """Of each observation feature in the training data, 0 if it is constant there, ``(D,)``."""
    deviation = model.observation_normalizer.std
    # Normalisers take 1 for a deviation of 0, but a feature's range is no smaller than its deviation
    constant = (deviation == 1.0) & (model.observation_high - model.observation_low < 1.0)
    return torch.where(constant, 0.0, deviation)


def _terminations(simulator: Simulator, tables: Sequence[TensorDict]) -> dict[str, Any]:
    parts = [part["next"] for table in tables for part in table.split(ROWS)]
    predicted = torch.cat([simulator.termination(part["observation"]) for part in parts])
    ended = torch.cat([part["terminated"] for part in parts])
    return ends_figures(simulator, predicted, ended)


def _preference(simulator: Simulator, tables: Mapping[str, TensorDict]) -> float | None:
    if not {DEMONSTRATIONS, OTHERS} <= set(tables):
        return None
    good, other = (raw_rewards(simulator.reward, spread(tables[name], ROWS)) for name in (DEMONSTRATIONS, OTHERS))
    return float(mannwhitneyu(good, other).statistic) / (len(good) * len(other))
