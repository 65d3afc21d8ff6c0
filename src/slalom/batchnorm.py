"""Batch norm's running statistics: made anew for parameters that no training step has seen, or left alone by a step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook

B = TypeVar("B")


@torch.no_grad()
def update_bn(
    model: nn.Module, batches: Iterable[B], forward: Callable[[nn.Module, B], Any] | None = None
) -> nn.Module:
    """Set every batch norm's running mean and variance to those of its inputs, over all batches together.

    with opt.averaged():
        slalom.update_bn(model, loader)
        validate(model)

    Mean and variance are those of all items pooled, in float64: batches may differ in size, and what differs between
    batches counts in the variance, which `torch.optim.swa_utils.update_bn` leaves out. All else runs as in validation:
    dropout is off. Layers normalise by the batch while they are measured, so large batches are best here too. The
    statistics stay when ``averaged`` ends; training on renews them.

    Args:
        model: any module; without batch norms nothing happens and no batch is read.
        batches: inputs, or tuples that begin with them.
        forward: evaluates the model on one of the batches, if that is not ``model(inputs)``.

    Returns:
        The model, for chaining.

    Raises:
        ValueError: if a layer got fewer than 2 values per channel. Whatever fails, statistics and modes are as before.
    """
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }
    if not layers:
        return model
    modes = {module: module.training for module in model.modules()}
    before: dict[nn.Module, list[Tensor]] = {
        layer: [buffer.clone() for buffer in layer.buffers(recurse=False)] for layer in layers.values()
    }
    pools = {layer: _Pool() for layer in layers.values()}
    hooks = [layer.register_forward_pre_hook(partial(_measure, pool)) for layer, pool in pools.items()]
    try:
        model.eval()
        for layer in layers.values():
            layer.train()
        count = 0
        for batch in batches:
            _run(model, batch, forward)
            count += 1
        for name, layer in layers.items():
            pools[layer].write(layer, name, count)
    except BaseException:
        _restore(before)
        raise
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return model


@contextlib.contextmanager
def statistics_kept() -> Iterator[None]:
    """Leave running statistics as they are, to the bit, whatever is evaluated while the block runs.

    Layers still normalise by the batch, as they do in training. Which ones run is seen as they run, so nobody has to
    say which model it is.
    """
    before: dict[nn.Module, list[Tensor]] = {}

    def remember(layer: nn.Module, inputs: Any) -> None:
        if isinstance(layer, _NormBase) and layer.training and layer not in before:
            before[layer] = [buffer.clone() for buffer in layer.buffers(recurse=False)]

    hook = register_module_forward_pre_hook(remember)
    try:
        yield
    finally:
        hook.remove()
        _restore(before)


@torch.no_grad()
def _restore(before: dict[nn.Module, list[Tensor]]) -> None:
    for layer, values in before.items():
        for buffer, value in zip(layer.buffers(recurse=False), values, strict=True):
            buffer.copy_(value)


def _run(model: nn.Module, batch: Any, forward: Callable[[nn.Module, Any], Any] | None) -> None:
    if forward is not None:
        forward(model, batch)
    else:
        model(batch[0] if isinstance(batch, (tuple, list)) else batch)


class _Pool:
    """Count, mean and sum of squared deviations of all values of a channel; batches are merged pairwise and stably."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, inputs: Tensor) -> None:
        """Merge a batch, whose channels are its second dimension."""
        values = inputs.double().transpose(0, 1).flatten(1)
        more = values.shape[1]
        if not more:
            return
        mean = values.mean(1)
        total = self.count + more
        shift = mean - self.mean
        self.squares = self.squares + (values - mean[:, None]).square().sum(1) + shift**2 * (self.count * more / total)
        self.mean = self.mean + shift * (more / total)
        self.count = total

    def write(self, layer: _BatchNorm, name: str, batches: int) -> None:
        """Set the running statistics; the variance as torch keeps it, with n - 1."""
        if self.count < 2:
            raise ValueError(f'batch norm "{name}" got {self.count} values per channel: give it 2 or more to measure.')
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.squares, Tensor)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(self.mean)
        layer.running_var.copy_(self.squares / (self.count - 1))
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.fill_(batches)


def _measure(pool: _Pool, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    pool.add(inputs[0])
