"""Weighted cloning that a run can do without, since what was cloned from demonstrations is a good start."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from omegaconf import DictConfig

from app.loggers import make_loggers
from app.pipeline import make_data, say
from app.run_folder import note_stage
from lit_modules.better_start import cloned_fails, judge_demonstrations, judge_start, log_start
from lit_modules.surroundings import surroundings_of
from zoo import Policy, Simulator

STAGE = "weighted_cloning"


def spared(configuration: DictConfig, folder: Path, stage: str) -> bool:
    """Leave a stage out if it is weighted cloning and the cloned policy does not fail in the Simulator.

    What that earns there is logged where the stage would have logged it, and the cloned policy is what it leaves.

    Args:
        configuration: of the run.
        folder: of the run, whose stages before this one are done.
        stage: name of the one that is next.

    Returns:
        Whether it is done with this.
    """
    if stage != STAGE or configuration[STAGE].model.start_below is None:
        return False
    before = time.perf_counter()
    data = make_data(configuration, STAGE)
    data.setup("fit")
    settings, simulator = configuration[STAGE].model, Simulator.load(folder / "simulator.safetensors")
    cloned = folder / "behaviour_cloning.safetensors"
    surroundings = surroundings_of(simulator, data.expert_train)
    figures = judge_start(simulator, Policy.load(cloned), "cloned", settings.judged_episodes, surroundings)
    demonstrated = judge_demonstrations(simulator, data.expert_train)
    data.release()
    if cloned_fails(figures, demonstrated, settings.start_below):
        return False
    judged = {**figures, "demonstrated": demonstrated, "weighted": 0.0, "trained": 0.0}
    log_start(make_loggers(folder / STAGE), judged, 0)
    shutil.copyfile(cloned, folder / f"{STAGE}.safetensors")
    note_stage(folder, STAGE, time.perf_counter() - before)
    reason = "the demonstrations earn nothing in the Simulator"
    if demonstrated > 0.0:
        share = figures["cloned_return"] / demonstrated
        reason = f"the cloned policy has {share:.2f} of the demonstrations' return in the Simulator"
    say(f"weighted cloning: left out, since {reason}")
    return True
