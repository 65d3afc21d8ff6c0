"""Sharded parameters (DTensor): where their values are worked on, and how they get there and back.

A program without sums over the tensor runs on each rank's own shard, and nothing is communicated. Any other needs
the whole: parameter and gradient are gathered, every rank computes the same step from the same numbers, and keeps its
own part of the result. That holds for every program, at the price of one whole copy of such a parameter and its state
on every rank.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from slalom.algebra import REDUCTIONS, State
from slalom.engine.program import Program
from slalom.engine.storage import fresh


def any_sharded(tensors: Iterable[Tensor | None]) -> bool:
    """Whether one of these is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")  # whoever has one has loaded it
    return module is not None and any(issubclass(kind, module.DTensor) for kind in set(map(type, tensors)))


def local(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor; all of one that is not sharded."""
    return cast("Any", tensor.detach()).to_local() if any_sharded([tensor]) else tensor


@functools.lru_cache(maxsize=256)
def stays_local(program: Program) -> bool:
    """Whether a program computes each element from what lies at its place alone, so that a shard is enough."""
    if program.needs_matrix_view or program.needs_sizes or any(node.op in REDUCTIONS for node in program.nodes):
        return False
    return all(slot.init != "normal" and slot.view == "matrix" for slot in program.states.values())


def _like(parameter: Tensor, value: Tensor, *, whole: bool) -> Tensor:
    """Return a value that lies like the parameter does, from the rank's own part of it or from the whole."""
    from torch.distributed.tensor import DTensor, Replicate

    p = cast("DTensor", parameter)
    if whole:
        everywhere = DTensor.from_local(value, p.device_mesh, [Replicate()] * p.device_mesh.ndim, run_check=False)
        return everywhere.redistribute(placements=p.placements)  # every rank cuts out its own: nothing is sent
    return DTensor.from_local(value, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride())


@torch.no_grad()
def placed(slot: State, parameter: Tensor, program: Program, value: Tensor | None = None, number: int = 0) -> Tensor:
    """Return a state of a sharded parameter where its program works with it: like the parameter, or whole.

    Args:
        slot: its declaration.
        parameter: the DTensor.
        program: which works on it.
        value: what it is, in whichever form; as before the first step if left out.
        number: the parameter's place among all, for states that begin as that.
    """
    sharded = stays_local(program) and slot.per == "element"
    if value is None:
        own = fresh(slot, local(parameter) if sharded else whole(parameter), number=number)
        return _like(parameter, own, whole=False) if sharded else own
    if sharded and not any_sharded([value]):
        return _like(parameter, value, whole=True)
    if sharded and cast("Any", value).placements != cast("Any", parameter).placements:
        return _like(parameter, whole(value), whole=True)
    return value if sharded or not any_sharded([value]) else whole(value)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a DTensor, gathered from the ranks that hold parts of it."""
    return cast("Tensor", cast("Any", tensor.detach()).full_tensor())


@torch.no_grad()
def gradient_of(parameter: Tensor, given: Tensor | None, program: Program) -> Tensor | None:
    """Return a gradient as the program works with it: this rank's part, or the whole.

    Raises:
        RuntimeError: if a sharded parameter has a gradient that is not.
    """
    if given is None or not any_sharded([parameter]):
        return given
    if not any_sharded([given]):
        raise RuntimeError(
            f"a sharded parameter of shape {tuple(parameter.shape)} has a plain gradient of shape "
            f"{tuple(given.shape)}: which part of it that is cannot be known; assign a DTensor."
        )
    if not stays_local(program):
        return whole(given)
    wanted, have = cast("Any", parameter), cast("Any", given)
    return local(have if have.placements == wanted.placements else have.redistribute(placements=wanted.placements))


class Shard:
    """A sharded parameter on its way through steps.

    Attributes:
        work: what kernels read and write: this rank's own part itself, or a copy of the whole.
    """

    def __init__(self, parameter: Tensor, program: Program) -> None:
        self._parameter = parameter
        self._gathers = not stays_local(program)
        self.work = whole(parameter).clone() if self._gathers else local(parameter)

    def state(self, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state as kernels work with it; it shares memory with what is kept."""
        return {key: local(value) for key, value in kept.items()}

    def stands(self) -> bool:
        """Whether the rank's own part is where it was."""
        return self._gathers or local(self._parameter).data_ptr() == self.work.data_ptr()

    @torch.no_grad()
    def fetch(self) -> None:
        """Get the parameter as it is now."""
        if self._gathers:
            self.work.copy_(whole(self._parameter))

    @torch.no_grad()
    def give_back(self) -> None:
        """Keep this rank's part of the result."""
        if self._gathers:
            local(self._parameter).copy_(local(_like(self._parameter, self.work, whole=True)))


def agreed(flag: bool, parameters: Iterable[Tensor]) -> bool:
    """Return whether a flag is set on any rank that holds a part of one of these parameters.

    Parameters that are not sharded have equal gradients on all ranks, so nobody is asked for them.
    """
    parts = [parameter for parameter in parameters if any_sharded([parameter])]
    if not parts:
        return flag
    for mesh in dict.fromkeys(cast("Any", parameter).device_mesh for parameter in parts):
        raised = torch.tensor(float(flag), device=mesh.device_type)
        for dimension in range(mesh.ndim):
            dist.all_reduce(raised, dist.ReduceOp.MAX, group=mesh.get_group(dimension))
        flag = bool(raised)
    return flag
