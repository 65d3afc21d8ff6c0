"""Leaving everything as it was: what tries things out on a model restores it to the bit, however it ends."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def kept(modules: Iterable[nn.Module], parameters: Iterable[Tensor] = (), owners: Iterable[Any] = ()) -> Iterator[None]:
    """Restore tensors, gradients, training modes and random states when the block is left, however it is left.

    Args:
        modules: all that belongs to them is restored: parameters, buffers, modes.
        parameters: others.
        owners: what may have a random generator of its own as ``generator``, such as loaders and their samplers.
    """
    modules = list(dict.fromkeys(module for root in modules for module in root.modules()))
    everything: dict[int, Tensor] = {id(p): p for module in modules for p in module.parameters(recurse=False)}
    everything |= {id(p): p for p in parameters}
    values = [(p, p.detach().clone()) for p in everything.values()]
    grads = [(p, p.grad, None if p.grad is None else p.grad.detach().clone()) for p in everything.values()]
    buffers = [
        (module, name, tensor, None if tensor is None else tensor.detach().clone())
        for module in modules
        for name, tensor in module._buffers.items()
    ]
    modes = [(module, module.training) for module in modules]
    with random_states_kept(owners):
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in values:
                    parameter.copy_(value)
                for parameter, grad, content in grads:
                    parameter.grad = grad
                    if grad is not None and content is not None:
                        grad.copy_(content)
                for module, name, tensor, content in buffers:
                    module._buffers[name] = tensor
                    if tensor is not None and content is not None:
                        tensor.copy_(content)
            for module, training in modes:
                module.training = training


@contextlib.contextmanager
def random_states_kept(owners: Iterable[Any] = ()) -> Iterator[None]:
    """Restore torch's, Python's and NumPy's random states, and those of owners' own generators."""
    own = [g for g in (getattr(owner, "generator", None) for owner in owners) if isinstance(g, torch.Generator)]
    states = [generator.get_state() for generator in own]
    python = random.getstate()
    numpy = sys.modules.get("numpy")
    array = numpy.random.get_state() if numpy is not None else None
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for generator, state in zip(own, states, strict=True):
                generator.set_state(state)
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(array)


__all__ = ["kept", "random_states_kept"]
