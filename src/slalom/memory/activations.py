"""What a forward pass keeps for the backward pass, counted by running one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def saved_bytes(run: Callable[[], Any], but: Iterable[Tensor] = ()) -> int:
    """Return the bytes that autograd keeps for a backward pass, while the result of a forward pass lives.

    Every storage counts once and whole, however many saved tensors are views of it, since a view keeps all of it
    alive. Inputs that are needed again count too. What the forward pass frees before it ends does not, nor what a
    checkpointed layer computes anew later. On the meta device nothing is allocated, so a model of any size can be
    counted.

    Args:
        run: evaluates the model and returns what holds the graph: the loss.
        but: tensors whose storages are counted elsewhere, such as parameters.
    """
    elsewhere = {_identity(tensor) for tensor in but}
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # while they live, no other storage can take their place

    def pack(tensor: Tensor) -> Tensor:
        key = _identity(tensor)
        if key not in elsewhere and key not in found:
            found[key] = tensor.untyped_storage().nbytes()
            alive.append(tensor.detach())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(found.values())


def _identity(tensor: Tensor) -> int:
    """Return what tells a storage from all others that live; addresses cannot, on the meta device all are 0."""
    return int(tensor.untyped_storage()._cdata)
