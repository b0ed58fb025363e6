"""Jobs of SLURM that run ``offsim fit``: their requeue signal, and processes that ``srun`` started in vain.

Lightning's own handler saves in the middle of whatever update a process is at, which no run continues exactly, and
which several processes do at different steps. Here it is called at the end of a training step that all agree on.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import lightning
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException


def requeue_signal(trainer: lightning.Trainer) -> signal.Signals | None:
    """The signal by which a job asks for another after it, where Lightning attends to that."""
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return environment.requeue_signal or signal.SIGUSR1


def waiting_checkpoint(trainer: lightning.Trainer) -> Path | None:
    """The checkpoint that an interrupted job has left, and that Lightning lets the same command go on from."""
    path = trainer._checkpoint_connector._hpc_resume_path
    return None if path is None else Path(path)


def save_for_next_job(trainer: lightning.Trainer, received: int) -> Path:
    """Save where Lightning looks for it in the next job; on the requeue signal, ask SLURM for that job."""
    before = waiting_checkpoint(trainer)
    if received == requeue_signal(trainer):
        trainer._signal_connector._slurm_sigusr_handler_fn(signal.Signals(received), None)  # type: ignore[arg-type]
    else:
        trainer.save_checkpoint(trainer._checkpoint_connector.hpc_save_path(trainer.default_root_dir))
    if before is not None and trainer.is_global_zero:
        before.unlink(missing_ok=True)
    return waiting_checkpoint(trainer) or Path(trainer.default_root_dir)  # there, on the first machine's disk


def refuse_other_processes(trainer: lightning.Trainer) -> None:
    """Refuse a training that is to have other processes than those that SLURM has started.

    Raises:
        MisconfigurationException: if so; each of them would train alone, or wait for the others for ever.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun starts them
        return
    started = int(os.environ.get("SLURM_STEP_NUM_TASKS", 0))  # by srun; none in a job's script
    name = SLURMEnvironment.job_name()
    if name in ("bash", "interactive"):  # as salloc and shells call theirs
        if started > 1:
            raise MisconfigurationException(
                f"srun has started {started} processes, but in a job called {name!r} Lightning starts its own, and all "
                "would wait for each other: call it by another name, srun --job-name NAME"
            )
        return
    if not isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment):
        return
    nodes, devices = trainer.num_nodes, trainer.num_devices
    if started in (0, 1) and nodes * devices == 1:
        return
    if started != nodes * devices:
        raise MisconfigurationException(
            f"--trainer.num_nodes {nodes} and --trainer.devices {devices} ask for {nodes * devices} processes, but "
            f"SLURM has started {started or 1}: begin with srun --nodes {nodes} --ntasks-per-node {devices} offsim fit"
        )
