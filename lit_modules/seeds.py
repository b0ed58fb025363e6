"""Many seeds of one method trained in one process, every step computed for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.loggers import Logger
from tensordict import TensorDict
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lit_modules.compilation import compiled
from lit_modules.graphs import Graphs, make_capturable
from lit_modules.method import (
    Compute,
    Conversation,
    Follow,
    Method,
    Step,
    gradients_of,
    listed_optimizers,
    log_now,
    parameters_of,
    set_learning_rate,
)
from zoo.start_states import StartStates


class SeedBatch(lightning.LightningModule):
    """Replicas of a method, one per seed, in lock-step.

    Each replica is the module that a run of its seed alone would build: its own parameters, data, random numbers,
    logs and files. Only what its conversation asks for is done for all replicas together: the parameters of the
    replicas are views of stacked tensors ``(S, ...)``, a function is evaluated for all of them by ``vmap``, and one
    optimiser steps on the stacks, which moves every seed as its own optimiser would.

    Args:
        replicas: modules of the same class and settings.
        loggers: the loggers of each replica; none logs nothing.
        compile: as in the methods.

    Raises:
        ValueError: if the settings of a replica make it go its own way.
    """

    def __init__(
        self, replicas: Sequence[Method], loggers: Sequence[Sequence[Logger]] = (), compile: str = "never"
    ) -> None:
        super().__init__()
        for replica in replicas:
            replica.refuse_lock_step(replica.hparams)
        self.automatic_optimization = False
        self.replicas = nn.ModuleList(replicas)
        self.seed_loggers = list(loggers) or [[] for _ in replicas]
        self.compile_choice = compile
        self.stacks: dict[int, Tensor] = {}
        self.state: dict[str, Tensor] = {}
        self._batched: dict[tuple[str, Any], Callable[..., Any]] = {}
        self.stacked_optimizers: list[torch.optim.Optimizer] = []
        self.graphs: Graphs | None = None

    # ---------------------------------------------------------------------------------------------------- preparation

    @property
    def each(self) -> list[Method]:
        """The replicas."""
        return cast(list[Method], list(self.replicas))

    def setup(self, stage: str) -> None:
        for index, (replica, data) in enumerate(zip(self.each, self.trainer.datamodule.each, strict=True)):  # type: ignore[attr-defined]
            trainer = SimpleNamespace(
                datamodule=data,
                strategy=self.trainer.strategy,
                global_rank=self.trainer.global_rank,
                max_steps=self.trainer.max_steps,
                is_global_zero=self.trainer.is_global_zero,
                loggers=self.seed_loggers[index],
            )
            replica._trainer = trainer  # type: ignore[assignment]
            replica.setup(stage)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        # Lightning calls this once the module is on its device, where the stacks have to be
        self.stack()
        first: Any = self.each[0].configure_optimizers()
        for optimizer in first if isinstance(first, list) else [first]:
            groups = [
                {**group, "params": [self.stacks[id(parameter)] for parameter in group["params"]]}
                for group in optimizer.param_groups
            ]
            # Every setting is in the groups
            self.stacked_optimizers.append(type(optimizer)(groups))
        return self.stacked_optimizers

    @torch.no_grad()
    def stack(self) -> None:
        """Put the replicas' parameters and buffers into stacks and make them views of these."""
        members = [_tensors(replica) for replica in self.each]
        for name, first in members[0].items():
            values = [tensors[name] for tensors in members]
            stacked = torch.stack([value.detach() for value in values])
            if first.requires_grad:
                stacked = nn.Parameter(stacked)
            for value, view in zip(values, stacked.detach(), strict=True):
                value.data = view
            self.stacks[id(first)] = stacked
            if _replaceable(self.each[0], name):
                self.state[name] = stacked

    # ------------------------------------------------------------------------------------------------------- training

    def training_step(self, batch: list[dict[str, TensorDict]], batch_index: int) -> None:
        logged = self.run_together([replica.converse(rows) for replica, rows in zip(self.each, batch, strict=True)])
        optimizers = listed_optimizers(self)
        for optimizer in optimizers:
            optimizer.optimizer.zero_grad(set_to_none=True)
        optimizers[0].step()  # counts this training step for Lightning; no gradient is left to apply
        for replica, values, loggers in zip(self.each, logged, self.seed_loggers, strict=True):
            replica.refuse_divergence(values)
            log_now(self, loggers, values, replica.updates)
        self.log("updates", float(self.each[0].updates), prog_bar=True)

    def run_together(self, conversations: Sequence[Conversation]) -> list[dict[str, Tensor]]:
        """Carry out conversations that ask for the same steps; what each of them returns."""
        answers: Sequence[Any] = [None] * len(conversations)
        while True:
            steps: list[Step] = []
            ends: list[dict[str, Tensor]] = []
            for conversation, answer in zip(conversations, answers, strict=True):
                try:
                    steps.append(conversation.send(answer))
                except StopIteration as end:
                    ends.append(dict(end.value))
            if ends:
                if steps:
                    raise RuntimeError("the replicas' conversations differ: one ended before another")
                return ends
            answers = self.carry_out_together(steps)

    def carry_out_together(self, steps: Sequence[Step]) -> list[Any]:
        """Do the same step of every replica at once; the answer to each."""
        first = steps[0]
        if len({(type(step), getattr(step, "function", "")) for step in steps}) > 1:
            raise RuntimeError(f"the replicas' conversations differ: not every one asks for the same, {first}")
        if isinstance(first, Follow):
            with torch.no_grad():
                followers = [self.stacks[id(tensor)] for tensor in first.followers]
                leaders = [self.stacks[id(tensor)] for tensor in first.leaders]
                torch._foreach_lerp_(followers, leaders, first.share)
            return [None] * len(steps)
        arguments = self._stacked_arguments([step.arguments for step in steps])  # type: ignore[union-attr]
        if isinstance(first, Compute):

            @torch.no_grad()
            def compute(*stacked: Any) -> Any:
                return self.evaluate(first.function, stacked)

            return self._split(self._called(first.function, compute, arguments))
        optimizer = listed_optimizers(self)[first.optimizer].optimizer
        set_learning_rate(optimizer, first.learning_rate)

        def descend(*stacked: Any) -> dict[str, Tensor]:
            losses, parts = self.evaluate(first.function, stacked)
            optimizer.zero_grad(set_to_none=True)
            # No parameter is shared, so the gradient of the sum is the gradient of each seed's own loss
            self.manual_backward(losses.sum(), inputs=parameters_of(optimizer))
            if first.gradient_norm is not None:
                gradients = gradients_of(optimizer)
                norm = torch.stack([each.flatten(1).square().sum(dim=1) for each in gradients]).sum(dim=0).sqrt()
                parts = {**parts, first.gradient_norm: norm}
                if first.largest_norm is not None:
                    shares = (first.largest_norm / norm).clamp_max(1.0)
                    torch._foreach_mul_(gradients, [shares.view(-1, *[1] * (each.dim() - 1)) for each in gradients])
            optimizer.step()
            return dict(parts)

        return self._split(self._called(first.function, descend, arguments))

    def _called(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return function(*arguments) if self.graphs is None else self.graphs(name, function, arguments)

    def capture_graphs(self) -> None:
        """Replay steps as CUDA graphs from here on, see ``Method.capture_graphs``."""
        self.graphs = Graphs(self.stacks.values())
        for optimizer in listed_optimizers(self):
            make_capturable(optimizer.optimizer, self.device)

    def on_train_start(self) -> None:
        if self.trainer.world_size > 1:
            raise ValueError("seeds are trained together in one process: give each device seeds of its own")
        if self.device.type == "cuda":
            self.capture_graphs()

    def evaluate(self, function: str, arguments: tuple[Any, ...]) -> Any:
        """A function of every replica on its own arguments, stacked: ``(S, ...)`` in, ``(S, ...)`` out."""
        leaves, structure = tree_flatten(arguments)
        place = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        key = (function, structure)
        if key not in self._batched:
            target = _Call(self.each[0], function)

            def of_one_seed(state: dict[str, Tensor], tensors: list[Tensor]) -> Any:
                filled = list(leaves)
                for index, tensor in zip(place, tensors, strict=True):
                    filled[index] = tensor
                swapped = {f"module.{name}": tensor for name, tensor in state.items()}
                return functional_call(target, swapped, tree_unflatten(filled, structure))

            self._batched[key] = compiled(torch.vmap(of_one_seed), self.compile_choice)
        return self._batched[key](self.state, [leaves[index] for index in place])

    def _stacked_arguments(self, arguments: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        flattened = [tree_flatten(each)[0] for each in arguments]
        stacked = []
        for leaves in zip(*flattened, strict=True):
            first = leaves[0]
            if id(first) in self.stacks:
                stacked.append(self.stacks[id(first)])
            elif isinstance(first, Tensor):
                stacked.append(torch.stack(leaves))
            else:
                stacked.append(first)
        return cast(tuple[Any, ...], tree_unflatten(stacked, tree_flatten(arguments[0])[1]))

    def _split(self, answer: Any) -> list[Any]:
        return [tree_map(lambda tensor, s=seed: tensor[s], answer) for seed in range(len(self.each))]

    # ----------------------------------------------------------------------------------------- validation and files

    def validation_step(self, batch: list[dict[str, Any]], batch_index: int) -> None:
        for replica, rows, loggers in zip(self.each, batch, self.seed_loggers, strict=True):
            values: dict[str, float] = {}

            def log(name: str, value: Any, into: dict[str, float] = values, **_: Any) -> None:
                into[name] = float(value)

            replica.log = log  # type: ignore[assignment, method-assign]
            cast(Any, replica).validation_step(rows, batch_index)
            for logger in loggers:
                logger.log_metrics(values, self.global_step)

    def on_validation_end(self) -> None:
        for loggers in self.seed_loggers:
            for logger in loggers:
                logger.save()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["replicas"] = []
        for replica in self.each:
            own: dict[str, Any] = {}
            replica.on_save_checkpoint(own)
            checkpoint["replicas"].append(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for replica, own in zip(self.each, checkpoint["replicas"], strict=True):
            replica.on_load_checkpoint(own)

    def write_own_checkpoints(self, together: Path, paths: Sequence[Path]) -> None:
        """Take a checkpoint of this module apart into those of its replicas.

        Args:
            together: the checkpoint.
            paths: where each seed's goes; a run of that seed alone can resume from it.
        """
        checkpoint = torch.load(together, map_location="cpu", weights_only=True)
        for index, (replica, path) in enumerate(zip(self.each, paths, strict=True)):
            prefix = f"replicas.{index}."
            state = checkpoint["state_dict"]
            own = {key: value for key, value in checkpoint.items() if key != "replicas"}
            own["state_dict"] = {
                name.removeprefix(prefix): value.clone() for name, value in state.items() if name.startswith(prefix)
            }
            own["optimizer_states"] = [_of_seed(each, index) for each in checkpoint["optimizer_states"]]
            own["hyper_parameters"] = dict(replica.hparams)
            own["hparams_name"] = "kwargs"
            own.update(checkpoint["replicas"][index])
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(own, path)


def _of_seed(state: dict[str, Any], index: int) -> dict[str, Any]:
    """One seed's part of the state of an optimiser of stacks; the count of steps is common to all."""
    own = {
        parameter: {
            name: value[index].clone() if isinstance(value, Tensor) and value.dim() > 0 else value
            for name, value in moments.items()
        }
        for parameter, moments in state["state"].items()
    }
    return {**state, "state": own}


class _Call(nn.Module):
    """A method of a module as the call of another, for ``functional_call``."""

    def __init__(self, module: Method, function: str) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.module, self.function)(*arguments)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, each once, but for stored states: seeds hold different numbers of them."""
    buffers: Iterable[tuple[str, Tensor]] = module.named_buffers()
    apart = {id(each.observations) for each in module.modules() if isinstance(each, StartStates)}
    kept = {name: buffer for name, buffer in buffers if id(buffer) not in apart}
    return {**dict(module.named_parameters()), **kept}


def _replaceable(module: nn.Module, name: str) -> bool:
    """Whether ``functional_call`` can put another tensor in its place: TorchRL's parameter containers cannot."""
    *path, leaf = name.split(".")
    owner: Any = module
    for part in path:
        if type(owner).__name__ == "TensorDictParams" or not hasattr(owner, part):
            return False
        owner = getattr(owner, part)
    return type(owner).__name__ != "TensorDictParams" and (leaf in owner._parameters or leaf in owner._buffers)
