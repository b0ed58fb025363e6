"""A repaired copy of a dataset, under an id of its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

from app.collect_record import code_version, new_dataset, refuse_unusable_id
from app.data_checks.recording import Recorded
from datamodules.sources import RECORDED_BY, Source, data_facts


def write_copy(
    root: Path,
    dataset_id: str,
    source: Source,
    episodes: Sequence[Recorded],
    repairs: Sequence[str],
    dropped_feature: int | None = None,
) -> None:
    """Write repaired episodes; a crash leaves no dataset behind.

    Args:
        root: folder of datasets.
        dataset_id: of the copy, which does not exist yet.
        source: where the episodes come from.
        episodes: what to write.
        repairs: names of what was repaired, for the copy's metadata.
        dropped_feature: observation feature that the copy does without.

    Raises:
        UserError: if the id cannot be used.
    """
    refuse_unusable_id(root, dataset_id)
    original = minari.MinariDataset(source.folder)
    space = source.observation_space
    if dropped_feature is not None:
        low, high = (np.delete(bound, dropped_feature) for bound in (space.low, space.high))
        space = gymnasium.spaces.Box(low, high, dtype=space.dtype.type)
    # An environment whose observations differ from the copy's would be refused
    environment = original.spec.env_spec if dropped_feature is None else None
    with new_dataset(root, dataset_id, source.file.stat().st_size), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is not known of the data's author and environment
        minari.create_dataset_from_buffers(
            dataset_id,
            [_buffer(episode, space.dtype, source.action_space.dtype) for episode in episodes],
            env=environment,
            observation_space=space,
            action_space=source.action_space,
            description=f"{source.id}, repaired by `offsim data check`: {', '.join(repairs)}.",
            data_format="hdf5",
        )
        kept = [name for index, name in enumerate(source.observation_names) if index != dropped_feature]
        facts = {
            "repaired_from": data_facts(source),
            "repairs": list(repairs),
            "code": code_version(),
            "observation_names": kept,
            "action_names": list(source.action_names),
            "exogenous": [
                index - (dropped_feature is not None and index > dropped_feature)
                for index in source.exogenous
                if index != dropped_feature
            ],
        }
        minari.load_dataset(dataset_id).storage.update_metadata({RECORDED_BY: facts})


def _buffer(episode: Recorded, observation_type: object, action_type: object) -> EpisodeBuffer:
    return EpisodeBuffer(
        seed=episode.seed,
        observations=episode.observations.astype(observation_type),  # type: ignore[call-overload]
        actions=episode.actions.astype(action_type),  # type: ignore[call-overload]
        rewards=episode.rewards,
        terminations=episode.terminations,
        truncations=episode.truncations,
    )
