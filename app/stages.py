"""``offsim fit | validate | test | predict``: one stage from one YAML, through LightningCLI."""

from __future__ import annotations

import logging
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from app.checkpoints import WholeCheckpointIO, newest_checkpoint
from app.errors import UserError
from app.interruption import SaveWhenInterrupted
from app.notices import PACKAGES
from app.orphans import end_with_starter
from app.predictions import write_predictions
from app.slurm import refuse_other_processes
from app.stage_refusals import refuse_files_of_train, sentence

# The methods are imported so that a configuration can name them without a module path: `class_path: OffSim`.
from datamodules import DataError, TransitionDataModule  # noqa: F401
from lit_modules.behaviour_cloning import BehaviourCloning  # noqa: F401
from lit_modules.dynamics_reward import DynamicsRewardGame  # noqa: F401
from lit_modules.offline_ml_irl import OfflineMLIRL  # noqa: F401
from lit_modules.offsim import OffSim  # noqa: F401
from lit_modules.parallel import refuse_other_strategies
from lit_modules.simulator_combo import SimulatorCOMBO  # noqa: F401
from lit_modules.simulator_mobile import SimulatorMOBILE  # noqa: F401
from lit_modules.simulator_ppo import SimulatorPPO  # noqa: F401
from lit_modules.simulator_rambo import SimulatorRAMBO  # noqa: F401
from lit_modules.simulator_sac import SimulatorSAC  # noqa: F401
from lit_modules.simulator_td3 import SimulatorTD3  # noqa: F401
from lit_modules.weighted_cloning import WeightedCloning  # noqa: F401
from zoo.files import ModelFileError

FOUND_LATER = ("best", "last", "hpc")  # names by which Lightning finds a checkpoint itself
MODELS = ("simulator", "cloned_policy", "dynamics_reward")  # settings that name files of models
OF_THE_DATA = ("observation_size", "action_low", "action_high")  # what methods are told of it
OF_THE_RUN = ("snapshots", "snapshot_every")  # settings in checkpoints of `offsim train`: others leave its folder alone


def _with_models_beside(settings: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Settings of a checkpoint whose models are looked for beside it, if they are no longer where they were.

    Args:
        settings: of its method.
        checkpoint: such as ``RUN/policy/last.ckpt``, where RUN has been moved since.
    """
    found = dict(settings)
    for name in MODELS:
        model = Path(settings[name]) if settings.get(name) else None
        if model is not None and not model.exists():
            beside = checkpoint.absolute().parent.parent / model.name
            found[name] = str(beside if beside.is_file() else model)
    return found


class StageCLI(LightningCLI):
    """LightningCLI whose sizes and bounds come from the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("seed_everything", "data.init_args.seed")
        for name in OF_THE_DATA:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Lightning's, but what is wrong is said in one sentence."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            refuse_files_of_train(sys.argv[2:])
            options = {action.dest for each in self._subcommand_parsers.values() for action in each._actions}
            raise UserError(sentence(str(error), options)) from error

    def _parse_ckpt_path(self) -> None:
        """Lightning's: method and settings are those of the checkpoint.

        Lightning looks for the method where its own command line writes it; `offsim train` writes it elsewhere.

        Raises:
            UserError: if that is no method with settings that are known, or the file is damaged.
        """
        path = self.config[self.config.subcommand].get("ckpt_path")
        if not path or path in FOUND_LATER or "://" in str(path):
            return
        if not Path(path).is_file():
            raise UserError(f"there is no checkpoint {path}")
        checkpoint = WholeCheckpointIO().load_checkpoint(path, map_location="cpu")
        checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
        settings = dict(checkpoint.get("hyper_parameters") or {})
        settings.pop("_instantiator", None)
        method = settings.pop("_class_path", None)
        if method is None:
            method = checkpoint.get("method")
            settings = {name: value for name, value in settings.items() if name not in OF_THE_RUN}
        if method is None:
            raise UserError(
                f"{path} is no checkpoint of one stage and one seed: name one that `offsim fit` wrote, or last.ckpt in "
                "the folder of a stage of `offsim train`"
            )
        model = {"class_path": method, "init_args": _with_models_beside(settings, Path(path))}
        try:
            self.config = self.parser.parse_object({self.config.subcommand: {"model": model}}, self.config)
        except ArgumentError as error:
            raise UserError(
                f"{path} holds what this version of offsim does not know ({sentence(str(error), ())}): "
                "name a checkpoint that this version wrote"
            ) from error

    def _set_seed(self) -> None:
        """Lightning's, but a number that is no seed is refused in one sentence."""
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {error}") from error

    def instantiate_classes(self) -> None:
        """Lightning's, but a constructor that refuses its arguments is quoted alone, without what jsonargparse adds."""
        try:
            super().instantiate_classes()
        except Exception as error:
            refusal = _refusal(error)
            if refusal is not None:
                raise UserError(str(refusal)) from error
            unsaid = [name for name in OF_THE_DATA if f"{name}=None" in str(error)]
            if not unsaid:
                raise
            raise UserError(
                f"the data module does not say {', '.join(unsaid)}: one of your own has these as attributes, see "
                "docs/extending.md"
            ) from error

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Lightning's, but a checkpoint is there whole or not at all, and signals save before they end."""
        try:
            trainer = super().instantiate_trainer(**kwargs)
            refuse_other_processes(trainer)
            if trainer.world_size > 1:
                refuse_other_strategies(trainer.strategy)
        except (ImportError, RuntimeError, ValueError, MisconfigurationException) as error:
            raise UserError(str(error)) from error
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # and not what a configuration asks for
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        trainer.callbacks.insert(0, SaveWhenInterrupted())  # type: ignore[attr-defined]
        return trainer

    def fit(self, model: lightning.LightningModule, ckpt_path: str | None = None, **others: Any) -> None:
        """Lightning's, but ``--ckpt_path last`` is the newest checkpoint of any earlier run in the same folder.

        Lightning looks for it in the folder of the run that begins, where there is none yet.
        """
        if ckpt_path == "last":
            ckpt_path = self._newest_checkpoint()
            said = (
                "there is no checkpoint yet, so training begins" if ckpt_path is None else f"going on from {ckpt_path}"
            )
            rank_zero_info(f"--ckpt_path last: {said}")
        with of_these_sizes(ckpt_path):
            self.trainer.fit(model, ckpt_path=ckpt_path, **others)

    def validate(self, model: lightning.LightningModule, ckpt_path: str | None = None, **others: Any) -> None:
        """Lightning's, of a checkpoint."""
        with of_these_sizes(trained := self._trained(ckpt_path)):
            self.trainer.validate(model, ckpt_path=trained, **others)

    def test(self, model: lightning.LightningModule, ckpt_path: str | None = None, **others: Any) -> None:
        """Lightning's, of a checkpoint."""
        with of_these_sizes(trained := self._trained(ckpt_path)):
            self.trainer.test(model, ckpt_path=trained, **others)

    def predict(self, model: lightning.LightningModule, ckpt_path: str | None = None, **others: Any) -> None:
        """Lightning's, of a checkpoint; what is predicted is written into the folder of the logs."""
        with of_these_sizes(trained := self._trained(ckpt_path)):
            found: Any = self.trainer.predict(model, ckpt_path=trained, **others)
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        if found is not None and self.trainer.is_global_zero:
            print("\n".join(write_predictions(found, folder)))

    def _newest_checkpoint(self) -> str | None:
        kept = [callback.dirpath for callback in self.trainer.checkpoint_callbacks if hasattr(callback, "dirpath")]
        # Where Lightning writes checkpoints as well
        logged = [Path(each.save_dir) / str(each.name) for each in self.trainer.loggers if each.save_dir is not None]
        found = newest_checkpoint(self.trainer.default_root_dir, *kept, *logged)
        return None if found is None else str(found)

    def _trained(self, ckpt_path: str | None) -> str:
        """The checkpoint that is meant.

        Raises:
            UserError: if there is none, since networks that have learned nothing would be measured.
        """
        found = self._newest_checkpoint() if ckpt_path in (None, "last") else ckpt_path
        if found is None:
            raise UserError(
                f"there is no checkpoint below {self.trainer.default_root_dir}, and networks that have learned nothing "
                "say nothing: name one with --ckpt_path"
            )
        if ckpt_path != found:
            rank_zero_info(f"--ckpt_path {ckpt_path or 'not given'}: {found}")
        return found


@contextmanager
def of_these_sizes(checkpoint: str | None) -> Iterator[None]:
    """Say in one sentence that a checkpoint is of networks of other sizes than the data has features.

    Raises:
        UserError: then.
    """
    try:
        yield
    except RuntimeError as error:
        if "loading state_dict" not in str(error) or "size mismatch" not in str(error):
            raise
        raise UserError(
            f"{checkpoint} is of networks of other sizes than this data and these settings ask for: name the data that "
            "it was trained on, --data.expert ID, and --data.diverse"
        ) from error


def _refusal(error: BaseException | None) -> BaseException | None:
    """Of an error and those before it the first that is about arguments and was raised in this project."""
    while error is not None:
        if isinstance(error, (DataError, ModelFileError, ValueError)) and _raised_in(error) in PACKAGES:
            return error
        error = error.__cause__ or error.__context__
    return None


def _raised_in(error: BaseException) -> str:
    """The package whose code raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_about_the_run(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's log is no recommendation of other products."""
    return "Tip:" not in record.getMessage()


def run(words: Sequence[str]) -> int:
    """Run ``words``, e.g. ``["fit", "--config", "configs/fit/simulator.yaml"]``."""
    for package in ("pytorch", "fabric"):  # either writes, whichever was imported last
        logging.getLogger(f"lightning.{package}.utilities.rank_zero").addFilter(_is_about_the_run)
    end_with_starter()
    program, sys.argv = sys.argv, [sys.argv[0], *words]  # Lightning starts the other processes of a training with it
    try:
        StageCLI(
            lightning.LightningModule,
            lightning.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_kwargs={"parser_mode": "omegaconf", "exit_on_error": False},
            save_config_kwargs={"overwrite": True},
        )
    except DataError as error:
        raise UserError(str(error)) from error
    finally:
        sys.argv = program
    return 0
