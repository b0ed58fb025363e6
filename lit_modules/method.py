"""What all methods share: training as a conversation between an algorithm and whoever carries out its steps.

A method writes its updates down as a generator that yields what is to be computed. Alone, each step is carried out
at once; many seeds of the same method in lock-step are carried out together (``lit_modules.seeds``), with the very
same algorithm.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from tensordict import TensorDict
from torch import Tensor

from lit_modules.compilation import compiled
from lit_modules.graphs import Graphs, make_capturable
from lit_modules.parallel import agree, of_all_ranks, refuse_other_strategies
from lit_modules.random_stream import RandomStream


@dataclass
class Compute:
    """Call a function of the method without gradients; answered with what it returns.

    Attributes:
        function: name of a method that computes with tensors alone and draws no random number.
        arguments: its arguments, any nesting of tensors.
    """

    function: str
    arguments: tuple[Any, ...]


@dataclass
class Descend:
    """One step of an optimiser on the loss of a function; answered with the function's other result.

    Attributes:
        function: name of a method as in :class:`Compute` that returns ``(loss, parts)``.
        arguments: its arguments.
        learning_rate: of this step, one for all parameter groups or one each.
        optimizer: which of the method's optimisers, which touches the gradients of its own parameters alone.
        gradient_norm: name under which the norm of the gradients is added to the parts; ``None`` adds none.
        largest_norm: with a ``gradient_norm``, gradients of a larger one are scaled down to it; ``None`` leaves them.
    """

    function: str
    arguments: tuple[Any, ...]
    learning_rate: float | Sequence[float]
    optimizer: int = 0
    gradient_norm: str | None = None
    largest_norm: float | None = None


@dataclass
class Follow:
    """Move tensors a share of the way to others, such as target critics to critics; answered with nothing."""

    followers: Sequence[Tensor]
    leaders: Sequence[Tensor]
    share: float


Step = Compute | Descend | Follow
Conversation = Generator[Step, Any, dict[str, Tensor]]


class RefusedCheckpoint(ValueError):
    """A checkpoint that a training cannot continue."""


class Diverged(FloatingPointError):
    """A loss is not finite, or critics promise what no rewards add up to."""


class Method(lightning.LightningModule):
    """A LightningModule whose updates are a conversation.

    One ``training_step`` is as many updates as its batch has leading rows.

    Attributes:
        updates: done so far.
        rate_factor: share of the learning rates asked for that steps are taken with; less than 1 after a divergence.
    """

    control = False
    """Whether it is a control (``zoo.files``); checkpoints of the one kind do not load into the other."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.updates = 0
        self.rate_factor = 1.0
        self.random = RandomStream(torch.initial_seed(), type(self).__name__)
        self._compiled: dict[str, Callable[..., Any]] = {}
        self.graphs: Graphs | None = None
        self.parallel = False

    def capture_graphs(self) -> None:
        """Replay steps as CUDA graphs from here on; for one GPU, once the module and its optimisers are there."""
        self.graphs = Graphs([*self.parameters(), *self.buffers()])
        for optimizer in listed_optimizers(self):
            make_capturable(optimizer.optimizer, self.device)

    def on_train_start(self) -> None:
        self._warn_of_another_length()
        self.parallel = self.trainer.world_size > 1
        if self.parallel:
            refuse_other_strategies(self.trainer.strategy)
        if isinstance(self.trainer.strategy, DDPStrategy):
            # Its wrapper has made networks equal on all ranks. It would average the gradients of one backward pass
            # over all parameters; here each optimiser has passes of its own
            self.trainer.strategy.model = self
        if not self.parallel and self.device.type == "cuda":
            self.capture_graphs()

    def _warn_of_another_length(self) -> None:
        """Say so if the training is shorter than the time over which its learning rates fall."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        # A data module of one's own need not say
        planned, updates = (
            self.hparams.get("decay_updates"),
            self.trainer.max_steps * getattr(data, "batches_per_step", 0),
        )
        if planned is not None and 0 < updates < planned:
            warnings.warn(
                f"learning rates fall over {planned:,} updates (decay_updates), and this training ends after "
                f"{updates:,}{self.unlearned_until(updates)}: set decay_updates to trainer.max_steps times "
                "data.batches_per_step, unless it is to go on",
                stacklevel=2,
            )

    def unlearned_until(self, updates: int) -> str:
        """What is not learned at all in so many updates, as the end of a sentence; nothing as a rule."""
        return ""

    def converse(self, batch: dict[str, TensorDict]) -> Conversation:
        """The updates on a batch ``(K, N)`` per stream; returns what is to be logged, and counts ``self.updates``."""
        raise NotImplementedError

    @classmethod
    def refuse_lock_step(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings with which many seeds cannot be trained together (``lit_modules.seeds``).

        Args:
            settings: arguments of the constructor.

        Raises:
            ValueError: saying why, and what to do instead.
        """

    def compile_functions(self, choice: str, *names: str) -> None:
        """Have functions of the conversation run through ``torch.compile``, see ``lit_modules.compilation``."""
        for name in names:
            self._compiled[name] = compiled(getattr(self, name), choice)

    # ------------------------------------------------------------------------------------------------ carried out alone

    def training_step(self, batch: dict[str, TensorDict], batch_index: int) -> None:
        logged = self.run(self.converse(batch))
        optimizers = listed_optimizers(self)
        for optimizer in optimizers:
            optimizer.optimizer.zero_grad(set_to_none=True)
        optimizers[0].step()  # counts this training step for Lightning; no gradient is left to apply
        self.refuse_divergence(logged)
        self.log_dict({f"train/{name}": value for name, value in logged.items()}, logger=False)
        self.log("updates", float(self.updates), prog_bar=True, logger=False)
        # By itself, Lightning would log this step after its checkpoint, and a training that ends there never would
        log_now(self, self.trainer.loggers, logged, self.updates)

    def run(self, conversation: Conversation) -> dict[str, Tensor]:
        """Carry a conversation out to its end; what it returns."""
        answer = None
        try:
            while True:
                answer = self.carry_out(conversation.send(answer))
        except StopIteration as end:
            return dict(end.value)

    def carry_out(self, step: Step) -> Any:
        """Do what a step asks for and return the answer."""
        if isinstance(step, Follow):
            with torch.no_grad():
                torch._foreach_lerp_(list(step.followers), list(step.leaders), step.share)
            return None
        function = self._compiled.get(step.function) or getattr(self, step.function)
        if isinstance(step, Compute):
            return self._called(step.function, torch.no_grad()(function), step.arguments)
        optimizer = listed_optimizers(self)[step.optimizer].optimizer
        set_learning_rate(optimizer, step.learning_rate, self.rate_factor)

        def descend(*arguments: Any) -> dict[str, Tensor]:
            loss, parts = function(*arguments)
            optimizer.zero_grad(set_to_none=True)
            # A loss may reach other parameters too: a graph would add to gradients of theirs in memory freed since
            self.manual_backward(loss, inputs=parameters_of(optimizer))
            gradients = gradients_of(optimizer)
            if self.parallel:
                parts = agree(gradients, parts)
            if step.gradient_norm is not None:
                norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
                parts = {**parts, step.gradient_norm: norm}
                if step.largest_norm is not None:
                    torch._foreach_mul_(gradients, (step.largest_norm / norm).clamp_max(1.0))
            optimizer.step()
            return dict(parts)

        return self._called(step.function, descend, step.arguments)

    def _called(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(*arguments) if self.graphs is None else self.graphs(name, function, arguments)

    def refuse_divergence(self, logged: dict[str, Tensor]) -> None:
        """Stop before a checkpoint of a diverged training is written.

        Raises:
            Diverged: naming the first loss that is not finite.
        """
        losses = {name: value for name, value in logged.items() if "loss" in name}
        if losses and not bool(torch.isfinite(torch.stack(list(losses.values()))).all()):
            broken = next(name for name, value in losses.items() if not bool(torch.isfinite(value)))
            raise self.divergence(f"{broken} is not finite")

    def divergence(self, found: str) -> Diverged:
        """The error that says what was found, and what to do."""
        return Diverged(f"{found} after {self.updates} updates; the last checkpoint is still good. {self.remedy}")

    remedy = "Lower the learning rate."

    def decayed_rate(self, rate: float, decay_updates: int | None, final: float) -> float:
        """A learning rate that falls to the share ``final`` over ``decay_updates``, now; ``None`` keeps it."""
        if decay_updates is None:
            return rate
        return rate * cosine_decay(self.updates / max(1, decay_updates), final)

    def place_random_numbers(self, *streams: RandomStream) -> None:
        """Draw on the device of the training from here on; every rank its own numbers."""
        for stream in streams:
            stream.place(self.trainer.strategy.root_device, self.trainer.global_rank)

    def random_streams(self) -> dict[str, RandomStream]:
        """All that this method draws from, by the names they have in checkpoints."""
        return {"random": self.random}

    def rank_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of each rank, because ranks differ in it; random streams apart."""
        return {}

    def restore_rank_state(self, state: dict[str, Any]) -> None:
        """Continue with what :meth:`rank_state` returned on this rank, or on another if there were fewer."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["updates"] = self.updates
        checkpoint["rate_factor"] = self.rate_factor
        checkpoint["control"] = self.control
        checkpoint["method"] = type(self).__name__
        streams = {name: stream.state() for name, stream in self.random_streams().items()}
        checkpoint["ranks"] = of_all_ranks({"streams": streams, **self.rank_state()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("control", False) != self.control:
            raise RefusedCheckpoint(
                "a control of `offsim diagnose` and a method's training cannot continue one another"
            )
        if not {"ranks", "method"} <= checkpoint.keys():
            raise RefusedCheckpoint(
                "an older version of offsim wrote this checkpoint: only that version can continue it"
            )
        if checkpoint["method"] != type(self).__name__:
            raise RefusedCheckpoint(
                f"the checkpoint is of {checkpoint['method']}, and {type(self).__name__} cannot go on with it"
            )
        self.updates = checkpoint["updates"]
        self.rate_factor = min(self.rate_factor, checkpoint.get("rate_factor", 1.0))
        rank = getattr(self._trainer, "global_rank", 0)
        saved = checkpoint["ranks"][rank % len(checkpoint["ranks"])]
        self.restore_rank_state(saved)
        if self._trainer is None:
            return  # nothing is drawn yet, and the numbers may be of another device
        if getattr(getattr(self._trainer, "state", None), "fn", TrainerFn.FITTING) != TrainerFn.FITTING:
            return  # nothing is drawn
        if rank < len(checkpoint["ranks"]):  # one more than there were draws numbers of its own from the beginning
            for name, stream in self.random_streams().items():
                stream.restore(saved["streams"][name])


def log_now(
    module: lightning.LightningModule, loggers: Sequence[Logger], logged: dict[str, Tensor], updates: int
) -> None:
    """Log the figures of a training step that is over, if Lightning's ``log_every_n_steps`` has it logged."""
    every = module.trainer.log_every_n_steps  # type: ignore[attr-defined]
    if not every or module.global_step % every != 0:
        return
    values = torch.stack([value.detach().float() for value in logged.values()]).tolist() if logged else []
    named = {f"train/{name}": value for name, value in zip(logged, values, strict=True)}
    for logger in loggers:
        logger.log_metrics({**named, "updates": float(updates)}, module.global_step - 1)  # numbered from 0
        logger.save()


def cosine_decay(done: float, final: float) -> float:
    """Share of a learning rate that is left when the share ``done`` of its decay is over, from 1 down to ``final``."""
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float | Sequence[float], factor: float = 1.0) -> None:
    """Set the rate of all parameter groups, or one each, multiplied by a factor."""
    groups = optimizer.param_groups
    rates = [rate] * len(groups) if isinstance(rate, int | float) else rate
    for group, own in zip(groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(factor * own)
        else:
            group["lr"] = factor * own


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What it steps on."""
    return [each for group in optimizer.param_groups for each in group["params"]]


def gradients_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The gradients that its next step follows."""
    return [each.grad for each in parameters_of(optimizer) if each.grad is not None]


def listed_optimizers(module: lightning.LightningModule) -> list[LightningOptimizer]:
    """A module's optimisers as Lightning wraps them, always as a list."""
    optimizers = module.optimizers()
    return cast(list[LightningOptimizer], optimizers if isinstance(optimizers, list) else [optimizers])
