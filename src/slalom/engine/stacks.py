"""A matrix phase: what a program computes for one matrix, computed for several at once, stacked."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slalom.algebra import REDUCTIONS, Expr
from slalom.algebra.ops import is_cut
from slalom.engine.eager import Run, Tape, Work
from slalom.engine.program import Program, walk
from slalom.engine.storage import seen

if TYPE_CHECKING:
    from slalom.engine.matrices import PhasedBatch


def _over_matrices(op: str, per: str, cut: bool) -> Callable[..., Tensor]:
    """Return a reduction over each matrix of a stack, its rows, columns or blocks."""
    axes = {"row": (-1,), "column": (-2,)}.get(per, (-2, -1))
    function = {"total": torch.sum, "largest": torch.amax, "mean": torch.mean, "norm": torch.linalg.vector_norm}[op]
    if cut and per == "tensor":
        return lambda x: function(x, dim=(0, -2, -1), keepdim=True).squeeze(0)
    return functools.partial(function, dim=axes, keepdim=True)


class StackTape(Tape):
    """A program laid out for stacks: one more dimension before rows and columns, after that of blocks."""

    def __init__(self, program: Program, spent: frozenset[str]) -> None:
        self.spent = spent
        every = [arg for node in program.nodes for arg in node.args] + [*program.writes.values(), program.result]
        uses = Counter(map(id, every))
        self.once = {node for node, count in uses.items() if count == 1}
        super().__init__(program)
        # the parameter is the result of a phase that leaves it alone, which is no reason to stack it
        used = {node.attrs["name"] for node in walk(program.writes.values()) if node.op == "input"}
        self.stacked = used & {"w", "g"}

    def call(self, node: Expr) -> Callable[..., Any]:
        """Return what computes an operation on stacks."""
        if node.op == "polar" and self._is_spent(node.args[0]):
            return functools.partial(super().call(node), spent=True)
        if node.op not in REDUCTIONS:
            return super().call(node)
        (reduced,) = node.args
        return _over_matrices(node.op, node.attrs["per"], is_cut(reduced))  # type: ignore[arg-type]

    def _is_spent(self, arg: Expr | float) -> bool:
        """Whether a value is scratch that nobody reads after this."""
        if not isinstance(arg, Expr) or id(arg) not in self.once:
            return False
        return self._is_spent(arg.args[0]) if arg.op == "let" else arg.attrs.get("key") in self.spent


@functools.lru_cache(maxsize=256)
def _tape(program: Program, spent: frozenset[str]) -> StackTape:
    return StackTape(program, spent)


class Stack(Run):
    """Members of a team on their way through a matrix phase."""

    def __init__(self, batch: PhasedBatch, members: list[int], count: float) -> None:
        self.team = batch.launch
        self.members = members
        first, last = members[0], members[-1]
        # a slice is no copy
        self.place: Any = slice(first, last + 1) if last - first + 1 == len(members) else members
        program = self.team.phases.phases[batch.at].program
        work = Work(
            program,
            self.team.parameters[first],
            self.team.gradients[first],
            self.team.states[first],
            batch.numbers,
            count,
            batch.clock,
            batch.group,
        )
        tape = _tape(program, self.team.spent[batch.at])
        self.stacked = tape.stacked
        super().__init__(work, {}, tape)
        self.writes = tape.busy(self.outcomes)

    def inputs(self) -> list[Any]:
        """Return registers with all that is given, stacked."""
        registers = list(self.base)
        for name, tensors in (("w", self.team.parameters), ("g", self.team.gradients)):
            if name in self.stacked:
                views = [tensors[place].to(torch.float32).reshape(self.shape) for place in self.members]
                registers[self.tape.inputs[name]] = _stacked(views)
        for key, place in self.tape.states.items():
            slot = self.work.program.states[key]
            if slot.scope != "tensor":
                registers[place] = self.team.scratch.get(key, self.work.state.get(key))
            elif slot.block:
                whole = self.team.scratch.get(key)
                mine = [self.team.states[member][key] for member in self.members] if whole is None else []
                registers[place] = _stacked(mine, dim=1) if whole is None else whole[:, self.place]
            elif key in self.team.scratch:
                registers[place] = self.team.scratch[key][self.place].reshape(-1, *seen(slot, self.work.parameter))
            else:
                stack = _stacked([self.team.states[member][key] for member in self.members])
                registers[place] = stack.reshape(-1, *seen(slot, self.work.parameter))
        moved = self.tape.moved & {place for _, place in self.writes}
        for place in moved:  # a state that moves as it is must not be overwritten where it was
            registers[place] = registers[place].clone() if isinstance(registers[place], Tensor) else registers[place]
        return registers

    def compute(self) -> list[Any]:
        """Return what the phase leaves, in the order of its writes that change something."""
        registers = self.evaluate(tuple(place for _, place in self.writes))
        return [registers[place] for _, place in self.writes]

    def leave(self, values: list[Any]) -> None:
        """Write what was computed into scratch and states."""
        for (key, _), value in zip(self.writes, values, strict=True):
            cut = bool(self.work.program.states[key].block)
            if key in self.team.scratch:
                whole = self.team.scratch[key]
                place = (slice(None), self.place) if cut else self.place
                is_whole = isinstance(value, Tensor) and not cut
                if is_whole and value.is_contiguous() and value.data_ptr() == whole[place].data_ptr():
                    continue  # it was computed there
                whole[place] = value.reshape(-1, *whole.shape[1:]) if is_whole else value
            else:
                targets = [self.team.states[member][key] for member in self.members]
                if not isinstance(value, Tensor):  # a branch may be a number
                    torch._foreach_zero_(targets)
                    torch._foreach_add_(targets, value)
                    continue
                parts = value.unbind(1 if cut else 0)
                torch._foreach_copy_(targets, [part.reshape(t.shape) for part, t in zip(parts, targets, strict=True)])


def _stacked(tensors: list[Tensor], dim: int = 0) -> Tensor:
    return tensors[0].unsqueeze(dim) if len(tensors) == 1 else torch.stack(tensors, dim)
