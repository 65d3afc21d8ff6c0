"""The list executor: a program node by node, each node for all parameters at once through ``torch._foreach_*``.

For devices without an executor of their own and machines without a compiler. Operations that torch has no list form
of run tensor by tensor, so every program runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from slalom.algebra import OPS
from slalom.engine.batch import SharedWrites
from slalom.engine.eager import EagerBatch, Run

_LISTS: Final[dict[str, Callable[..., Any]]] = {
    "add": torch._foreach_add,
    "sub": torch._foreach_sub,
    "mul": torch._foreach_mul,
    "div": torch._foreach_div,
    "maximum": torch._foreach_maximum,
    "minimum": torch._foreach_minimum,
    "neg": torch._foreach_neg,
    "abs": torch._foreach_abs,
    "sqrt": torch._foreach_sqrt,
    "exp": torch._foreach_exp,
    "log": torch._foreach_log,
    "tanh": torch._foreach_tanh,
    "sign": torch._foreach_sign,
    "lerp": torch._foreach_lerp,
}
_COMMUTE: Final = frozenset({"add", "mul", "maximum", "minimum"})


class ForeachBatch(EagerBatch):
    """Parameters of one group that run one program, all at once."""

    @torch.no_grad()
    def reduce(self, label: str) -> Tensor:
        """Return the reduction over these parameters."""
        node = self.nodes[label]
        values: list[Tensor] = []
        for runs in self._alike():
            place = runs[0].tape.place[id(node)]
            values += _evaluate(runs, (place,))[place] or []
        stacked = torch.stack(values)
        return stacked.amax() if node.op == "largest" else stacked.sum()

    @torch.no_grad()
    def finish(self) -> SharedWrites:
        """Write parameters and their own state; return what is shared."""
        shared: SharedWrites = []
        for runs in self._alike():
            registers = _evaluate(runs, runs[0].roots())
            for place, run in enumerate(runs):
                shared += run.store([None if column is None else column[place] for column in registers])
        return shared

    def _alike(self) -> list[list[Run]]:
        """Return the parameters sorted by what can go into one list: the same branches, dtype and device."""
        groups: dict[Any, list[Run]] = {}
        for run in self.runs:
            parameter = run.work.parameter
            groups.setdefault((run.outcomes, parameter.dtype, parameter.device), []).append(run)
        return list(groups.values())


def _evaluate(runs: list[Run], roots: tuple[int, ...]) -> list[list[Any] | None]:
    """Return the registers with ``roots`` computed: for each place, one value per parameter."""
    tape = runs[0].tape
    inputs = [run.inputs() for run in runs]
    registers: list[list[Any] | None] = [
        [one[place] for one in inputs] if inputs[0][place] is not None else None for place in range(len(inputs[0]))
    ]
    for place, compute, operands in tape.route(runs[0].outcomes, roots, frozenset(runs[0].crossed)):
        columns = [registers[operand] for operand in operands]
        registers[place] = _apply(tape.nodes[place].op, compute, columns, len(runs))
    return registers


def _apply(op: str, compute: Callable[..., Any], columns: list[Any], count: int) -> list[Any]:
    """Compute one operation for all parameters, through a list form if there is one."""
    function = _LISTS.get(op) if compute is OPS[op].tensors else None
    if function is not None:
        if len(columns) == 2 and op in _COMMUTE and not isinstance(columns[0][0], Tensor):
            columns = columns[::-1]
        if all(isinstance(value, Tensor) for value in columns[0]):
            rest = [_as_operand(column) for column in columns[1:]]
            if all(operand is not None for operand in rest) and (op != "lerp" or isinstance(rest[0], list)):
                return list(function(columns[0], *rest))
    return [compute(*(column[place] for column in columns)) for place in range(count)]


def _as_operand(column: list[Any]) -> Any:
    """Return a column as torch's list functions take it: tensors, or one number for all; None if it is neither."""
    if all(isinstance(value, Tensor) for value in column):
        return column
    first = column[0]
    return float(first) if not isinstance(first, Tensor) and all(value == first for value in column) else None
