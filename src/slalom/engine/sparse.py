"""Sparse gradients: the same program on the rows that have one, gathered into dense blocks and scattered back.

Time and memory of a step go with the touched rows, whatever the height of the table. Duplicate rows are summed first:
a scale must see the square of their sum. The step count is the table's, as in torch's `SparseAdam`: a row that is
seen first at step 1000 meets bias corrections that are over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor

from slalom.algebra import MATRIX, REDUCTIONS, THIN, Expr
from slalom.engine.batch import LOSS, Batch, SharedWrites, run
from slalom.engine.eager import EagerBatch, Work
from slalom.engine.program import Program
from slalom.engine.storage import fresh

Rows: TypeAlias = Literal["exact", "lazy"]


# --- what a recipe means for single rows -----------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def row_obstacle(program: Program, ndim: int) -> str | None:
    """Return why a program cannot run on some rows alone, None if it can.

    Sums over rows are no obstacle where rows without gradient add 0 to them: a clipping norm is exact.
    """
    if ndim < 2 and program.needs_matrix_view:
        return "it works on rows or columns, which a vector does not have"
    zero = _vanishing(program)
    for node in program.nodes:
        if node.op in MATRIX:
            return f"its geometry works on whole matrices ({node.op})"
        if node.op in ("fold", "unfold", "blockwise"):
            return "it works on the elements of many rows together"
        if node.op == "input" and node.attrs["name"] in ("rows", "size"):
            return "it depends on how many rows there are"
        if node.op in REDUCTIONS and node.attrs["per"] != "row":
            inner = node.args[0]
            mixes = isinstance(inner, Expr) and inner.dims[0] != "1"
            if mixes and (node.op not in ("total", "norm") or id(inner) not in zero):
                return f"it needs the {node.op} over all rows, not only over those with a gradient"
    sides = [key for key, slot in program.states.items() if slot.per in _FACTORS]
    return f"its state {sides[0]} is a factor of the whole matrix" if sides else None


def _vanishing(program: Program) -> set[int]:
    """Return the nodes, by identity, that are 0 for sure in rows whose gradient is 0."""
    zero: set[int] = set()

    def is_zero(arg: Expr | float) -> bool:
        return id(arg) in zero if isinstance(arg, Expr) else arg == 0

    for node in program.nodes:
        some = [is_zero(arg) for arg in node.args]
        if node.op == "input":
            known = node.attrs["name"] == "g"
        elif node.op == "mul":
            known = any(some)
        elif node.op in ("div", "lerp", "where"):
            known = {"div": some[:1], "lerp": some[:2], "where": some[1:]}[node.op].count(False) == 0
        else:
            known = node.op in _KEEP_ZERO and bool(some) and all(some)
        if known and not node.host:
            zero.add(id(node))
    return zero


_FACTORS: Final = ("left", "right", *THIN)
_KEEP_ZERO: Final = {
    "let", "neg", "abs", "sqrt", "tanh", "sign", "positive", "add", "sub", "maximum", "minimum",
    *REDUCTIONS,
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def rests(program: Program, numbers: tuple[tuple[tuple[str, int | None], float], ...]) -> bool:
    """Return whether rows stay exactly as they are, state included, while they have no gradient.

    Then leaving them out is no approximation. It is found out by trying: one row gets no gradient from the start, one
    none in the last step, and both are looked at. A rate of 0 is tried as another, since it will not stay 0.
    """
    chance = torch.Generator().manual_seed(0)
    w = torch.randn(3, 4, generator=chance, dtype=torch.float64)
    state = {key: fresh(slot, w) for key, slot in program.states.items()}
    values = {LOSS: 1.0} | {name: 0.01 if name[0] == "lr" and not value else value for name, value in numbers}
    before: list[Tensor] = []
    for t in range(1, _TRIED + 1):
        gradient = torch.randn(3, 4, generator=chance, dtype=torch.float64)
        gradient[1] = 0.0
        if t == _TRIED:
            before = [tensor.clone() for tensor in (w, *state.values())]
            gradient[2] = 0.0
        run([EagerBatch([Work(program, w, gradient, state, values, float(t), float(t), 0)])])
    for old, new in zip(before, (w, *state.values()), strict=True):
        if old.shape[:1] == (3,) and not torch.allclose(old[1:], new[1:], rtol=1e-12, atol=1e-14, equal_nan=True):
            return False
    return True


_TRIED: Final = 4


# --- the step --------------------------------------------------------------------------------------------


@dataclass
class Touched:
    """The rows of one parameter that have a gradient, as a parameter of their own.

    Attributes:
        parameter, state: dense copies of the rows; what is not per row or element is the original.
        grad: their gradient, without duplicates.
        rows: which they are.
        targets: the whole tensors to write back to, each with the block that holds its rows.
    """

    parameter: Tensor
    state: dict[str, Tensor]
    grad: Tensor
    rows: Tensor
    targets: list[tuple[Tensor, Tensor]]

    def scatter(self) -> None:
        """Write the rows back to where they came from."""
        for whole, block in self.targets:
            whole.index_copy_(0, self.rows, block)


@torch.no_grad()
def gather(program: Program, parameter: Tensor, state: dict[str, Tensor], rows: Tensor, values: Tensor) -> Touched:
    """Return the rows that a gradient touches, as a small table."""
    block = parameter.index_select(0, rows)
    blocks, targets = dict(state), [(parameter, block)]
    for key, slot in program.states.items():
        if slot.per in ("element", "row"):
            blocks[key] = state[key].index_select(0, rows)
            if key in program.writes:
                targets.append((state[key], blocks[key]))
    return Touched(block, blocks, values, rows, targets)


class SparseBatch:
    """A batch on gathered rows; when it is done the rows are scattered."""

    def __init__(self, inner: Batch, touched: Sequence[Touched]) -> None:
        self.inner = inner
        self.group = inner.group
        self.touched = touched
        self.crossings: Callable[[], list[Expr]] = inner.crossings
        self.reduce: Callable[[str], Any] = inner.reduce
        self.resolve: Callable[[str, Any], None] = inner.resolve

    @torch.no_grad()
    def finish(self) -> SharedWrites:
        """Finish the rows and write them back; return what is shared with other batches."""
        shared = self.inner.finish()
        for one in self.touched:
            one.scatter()
        return shared


__all__ = ["Rows", "SparseBatch", "Touched", "gather", "rests", "row_obstacle"]
