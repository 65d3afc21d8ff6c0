"""What a step is made of, whoever executes it: parameters that run one program, and what they have in common."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from slalom.algebra import Expr, ieee

# Numbers, or tensors with one number that wait on a GPU for the kernels that read them.
Numbers = Mapping[tuple[str, int | None], Any]
SharedWrites = list[tuple[Tensor, Any]]

# Where a step's numbers hold the value of the loss, beside the hyper-parameters; only programs that need it look.
LOSS: Final = ("loss", None)

# What a gradient scaler may leave to kernels that read it on the device: what gradients are multiplied by when they are
# loaded, and a number that is not 0 if the step must change nothing.
UNSCALE: Final = ("unscale", None)
OVERFLOW: Final = ("overflow", None)


class Batch(Protocol):
    """Parameters of one group that run one program, on their way through a step."""

    group: int

    def crossings(self) -> list[Expr]:
        """Return the reductions over several tensors, in the order in which they depend on each other."""

    def reduce(self, label: str) -> Any:
        """Return this batch's share of a reduction, as a number or a tensor with one."""

    def resolve(self, label: str, value: Any) -> None:
        """Take the whole reduction's value."""

    def finish(self) -> SharedWrites:
        """Write parameters and their own state; return what is shared with other batches, to be written last."""


def run(batches: Sequence[Batch]) -> None:
    """Take one step with all batches, in place."""
    _cross(batches)
    # What several batches share is written when the last of them has read it.
    shared = [write for batch in batches for write in batch.finish()]
    if shared:
        with torch.no_grad():
            for target, value in shared:
                # by way of a tensor: fill_ refuses a number that float32 would round to infinity
                target.copy_(torch.as_tensor(value, dtype=torch.float64))


def _cross(batches: Sequence[Batch]) -> None:
    """Complete the reductions over several tensors, in an order that every program agrees with."""
    if not any(batch.crossings() for batch in batches):
        return
    waiting = [(batch, [(node.attrs["label"], node) for node in batch.crossings()]) for batch in batches]
    while any(pending for _, pending in waiting):
        heads = list(dict.fromkeys(pending[0][0] for _, pending in waiting if pending))
        label = next((head for head in heads if _is_next(head, [pending for _, pending in waiting])), None)
        if label is None:
            raise RuntimeError(f"the recipes of one optimizer reduce over the model in conflicting orders: {heads}.")
        shares: dict[int | None, list[Any]] = {}
        involved: list[tuple[Batch, int | None]] = []
        op = ""
        for batch, pending in waiting:
            if pending and pending[0][0] == label:
                _, node = pending.pop(0)
                op = node.op
                key = batch.group if node.attrs["per"] == "group" else None
                shares.setdefault(key, []).append(batch.reduce(label))
                involved.append((batch, key))
        whole = {key: _combined(op, values) for key, values in shares.items()}
        for batch, key in involved:
            batch.resolve(label, whole[key])


def _is_next(label: str, queues: list[list[tuple[str, Expr]]]) -> bool:
    return all(not queue or queue[0][0] == label or all(name != label for name, _ in queue) for queue in queues)


def _combined(op: str, shares: list[Any]) -> Any:
    if len(shares) == 1:
        return shares[0]
    if not any(isinstance(share, Tensor) for share in shares):
        return functools.reduce(ieee.maximum, shares) if op == "largest" else sum(shares)
    home = next(share.device for share in shares if isinstance(share, Tensor))
    stacked = torch.stack([torch.as_tensor(share, dtype=torch.float64, device=home) for share in shares])
    return stacked.amax() if op == "largest" else stacked.sum()


def latest(steps: Sequence[Tensor]) -> Any:
    """Return the largest of some step counts, a number; a tensor if any of them is on a GPU, where it is left."""
    on_host = max((float(step) for step in steps if step.device.type == "cpu"), default=0.0)
    elsewhere = [step for step in steps if step.device.type != "cpu"]
    if not elsewhere:
        return on_host
    home = elsewhere[0].device
    return torch.stack([step.to(home, non_blocking=True) for step in elsewhere]).amax().clamp(min=on_host)
