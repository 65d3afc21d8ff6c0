"""The operations that formulas are written in: each is defined once, for tensors, for numbers and for symbols.

A function here looks at what it is given. Given tensors it computes (the reference), given numbers it computes
on the host with IEEE rules (no exception where a device would yield inf or nan), given expressions it builds a
node. So a formula is plain Python and does not know how it is read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from slalom.algebra import cutting, ieee, matrix, shapes, symmetric, tensors
from slalom.algebra.expr import (
    SCALAR,
    Dims,
    Expr,
    Number,
    Per,
    Scope,
    block_of,
    install_builder,
    is_one,
    widest,
)

# What a formula's variables are: expressions when it is traced, tensors or numbers when it is computed.
# Checkers see the expression, whose operators the others share.
if TYPE_CHECKING:
    Value: TypeAlias = Expr
else:
    Value: TypeAlias = "Expr | Tensor | float"


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: the name in the graph.
        tensors: computes on tensors (numbers may be mixed in).
        numbers: computes on host numbers; None where that has no meaning.
        dims: shape of the result from the shapes of the arguments; None for broadcasting.
    """

    name: str
    tensors: Callable[..., Any]
    numbers: Callable[..., Any] | None = None
    dims: Callable[..., Dims] | None = None


OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op("add", lambda a, b: a + b, lambda a, b: a + b),
        Op("sub", lambda a, b: a - b, lambda a, b: a - b),
        Op("mul", lambda a, b: a * b, lambda a, b: a * b),
        Op("div", lambda a, b: a / b, ieee.div),
        Op("mod", lambda a, b: a % b, lambda a, b: a % b),
        Op("pow", lambda a, b: a**b, ieee.power),
        Op("neg", torch.neg, lambda a: -a),
        Op("abs", torch.abs, abs),
        Op("lt", lambda a, b: a < b, lambda a, b: a < b),
        Op("le", lambda a, b: a <= b, lambda a, b: a <= b),
        Op("gt", lambda a, b: a > b, lambda a, b: a > b),
        Op("ge", lambda a, b: a >= b, lambda a, b: a >= b),
        Op("and", lambda a, b: a & b, lambda a, b: bool(a) and bool(b)),
        Op("sqrt", torch.sqrt, lambda a: math.sqrt(a) if a >= 0 else math.nan),
        Op("exp", torch.exp, ieee.exp),
        Op("log", torch.log, ieee.log),
        Op("tanh", torch.tanh, math.tanh),
        Op("sign", torch.sign, ieee.sign),
        Op("positive", lambda a: (a > 0).to(a.dtype), lambda a: float(a > 0)),
        Op("maximum", tensors.maximum, ieee.maximum),
        Op("minimum", tensors.minimum, ieee.minimum),
        Op("atan2", tensors.atan2, math.atan2),
        Op("where", tensors.where, lambda c, a, b: a if c else b),
        Op("lerp", tensors.lerp, lambda a, b, weight: a + weight * (b - a)),
        Op("let", lambda a, **_: a, lambda a: a),
        Op("total", tensors.total, None, shapes.reduced),
        Op("largest", tensors.largest, None, shapes.reduced),
        Op("mean", tensors.mean, None, shapes.reduced),
        Op("norm", tensors.norm, None, shapes.reduced),
        Op("fold", tensors.fold, None, shapes.folded),
        Op("unfold", tensors.unfold, None, lambda _, like: like),
        Op("blockwise", tensors.blockwise, None, shapes.of_rows),
        Op("turned", matrix.turned, None, shapes.turned),
        Op("strongest", matrix.strongest, None, lambda *_: ("1", "k")),
        Op("pick", matrix.pick, None, lambda x, _: (x[0], "k")),
        Op("placed", matrix.placed, None, lambda *args: args[2]),
        Op("right_vectors", matrix.right_vectors, None, shapes.thin),
        Op("blocks", cutting.blocks, None, shapes.cut),
        Op("unblocks", cutting.unblocks, None, lambda _, like: like),
        Op("transpose", lambda a: a.mT, None, lambda a: (a[1], a[0])),
        Op("matmul", symmetric.product, None, shapes.product),
        Op("in_double", tensors.in_double, None, lambda a: a),
        Op("as_precise_as", tensors.as_precise_as, None, lambda a, _: a),
        Op("gram", symmetric.gram, None, lambda a: (a[0], a[0])),
        Op("polar", matrix.polar, None, lambda a, **_: a),
        Op("exact_polar", matrix.exact_polar, None, lambda a: a),
        Op("leading", matrix.leading, None, lambda a: a),
        Op("inverse_root", symmetric.inverse_root, None, lambda a, _, **__: a),
        Op("orthonormal", symmetric.orthonormal, None, lambda a: a),
        Op("eigenvectors", symmetric.eigenvectors, None, lambda a: a),
        Op("refresh", symmetric.refreshed_eigenvectors, None, lambda a, _: a),
    )
}

REDUCTIONS = frozenset({"total", "largest", "mean", "norm"})
MATRIX = frozenset(
    {
        "turned",
        "strongest",
        "pick",
        "placed",
        "right_vectors",
        "gaussian",
        "transpose",
        "matmul",
        "in_double",
        "as_precise_as",
        "gram",
        "blocks",
        "unblocks",
        "polar",
        "exact_polar",
        "leading",
        "inverse_root",
        "orthonormal",
        "eigenvectors",
        "refresh",
    }
)


def _broadcast(dims: list[Dims]) -> Dims:
    result = []
    for lengths in zip(*dims, strict=True):
        wide = {length for length in lengths if not is_one(length)} or set(lengths) - {"1"} or {"1"}
        result.append(wide.pop())
        if wide:
            break
    if wide or len({block_of(shape)[1] for shape in dims if shape != SCALAR}) > 1:
        raise ValueError(f"shapes {dims} do not fit together")
    return (result[0], result[1])


def _trivial(op: str, args: tuple[Expr | Number, ...]) -> Any:
    """Return the argument that the operation leaves as it is, so that neutral settings cost nothing."""
    if len(args) != 2:
        return None
    a, b = args
    if isinstance(a, Expr) and not isinstance(b, Expr):
        if (op in ("add", "sub") and b == 0) or (op in ("mul", "div", "pow") and b == 1):
            return a
        if op == "pow" and b == 2:
            return _node("mul", a, a)
        if op == "pow" and b == 0:
            return 1.0
    if op == "add" and isinstance(a, Expr) and a.op == "sub" and a.args[1] is b:  # what was taken off comes back
        return a.args[0]
    if isinstance(b, Expr) and not isinstance(a, Expr) and ((op == "add" and a == 0) or (op == "mul" and a == 1)):
        return b
    return None


_labels: list[tuple[str, Iterator[int]]] = []


@contextmanager
def labelled(name: str) -> Iterator[None]:
    """Name the reductions across tensors that are built inside.

    Parameters of different shapes or roles have graphs of their own; equal labels say which of their reductions are
    one and the same, so that a norm over the model is over all of it.
    """
    _labels.append((name, itertools.count()))
    try:
        yield
    finally:
        _labels.pop()


def _next_label(op: str) -> str:
    if not _labels:
        return op
    path = ".".join(name for name, _ in _labels)
    return f"{path}.{next(_labels[-1][1])}"


def _node(name: str, *args: Expr | Number, **attrs: Any) -> Expr:
    op = OPS[name]
    same: Expr | None = _trivial(name, args)
    if same is not None:
        return same
    nodes = [arg for arg in args if isinstance(arg, Expr)]
    if attrs.get("per") == "block" and not is_cut(nodes[0]):
        attrs["per"] = "tensor"  # the only block
    # A number is a 1x1 matrix wherever shapes are concerned.
    shapes = [arg.dims if isinstance(arg, Expr) else SCALAR for arg in args]
    dims = op.dims(*shapes, **attrs) if op.dims else _broadcast(shapes)
    scope: Scope = "tensor" if dims != SCALAR else widest(node.scope for node in nodes)
    host = op.numbers is not None and all(node.host for node in nodes)
    if name in REDUCTIONS and attrs["per"] in ("group", "model"):
        attrs["label"] = _next_label(name)
    if name in REDUCTIONS:
        scope, host = {"group": "group", "model": "model"}.get(attrs["per"], "tensor"), False  # type: ignore[assignment]
    return Expr(name, args, attrs=attrs, dims=dims, scope=scope, host=host)


install_builder(_node)


def apply(name: str, *args: Any, **attrs: Any) -> Any:
    """Run one operation on whatever it is given: expressions, tensors or numbers."""
    if any(isinstance(arg, Expr) for arg in args):
        return _node(name, *args, **attrs)
    op = OPS[name]
    if any(isinstance(arg, Tensor) for arg in args):
        return op.tensors(*args, **attrs)
    if op.numbers is None:
        raise TypeError(f"{name} needs a tensor; it was given {', '.join(map(repr, args))}")
    return op.numbers(*args)


# --- the vocabulary of formulas --------------------------------------------------------------------------


def sqrt(x: Value | float) -> Value:
    """Square root."""
    return apply("sqrt", x)  # type: ignore[no-any-return]


def exp(x: Value | float) -> Value:
    """Exponential."""
    return apply("exp", x)  # type: ignore[no-any-return]


def log(x: Value | float) -> Value:
    """Natural logarithm."""
    return apply("log", x)  # type: ignore[no-any-return]


def tanh(x: Value | float) -> Value:
    """Hyperbolic tangent."""
    return apply("tanh", x)  # type: ignore[no-any-return]


def sign(x: Value | float) -> Value:
    """Sign: -1, 0 or 1; the sign of 0 is 0."""
    return apply("sign", x)  # type: ignore[no-any-return]


def positive(x: Value | float) -> Value:
    """1 where the value is above 0, else 0; in the value's own precision, for counting."""
    return apply("positive", x)  # type: ignore[no-any-return]


def maximum(a: Value | float, b: Value | float) -> Value:
    """The larger of two values, element by element; nan where either is nan."""
    return apply("maximum", a, b)  # type: ignore[no-any-return]


def minimum(a: Value | float, b: Value | float) -> Value:
    """The smaller of two values, element by element; nan where either is nan."""
    return apply("minimum", a, b)  # type: ignore[no-any-return]


def atan2(y: Value | float, x: Value | float) -> Value:
    """Angle of the point (x, y); 0 at the origin."""
    return apply("atan2", y, x)  # type: ignore[no-any-return]


def where(condition: Value | bool, a: Value | float, b: Value | float) -> Value:
    """Choose ``a`` where the condition holds, else ``b``. With a host condition only the chosen side is computed."""
    return apply("where", condition, a, b)  # type: ignore[no-any-return]


def when(condition: Value | bool, value: Value, otherwise: Value) -> Value:
    """`where`, for conditions that may be known to hold always."""
    return value if condition is True else where(condition, value, otherwise)


def lerp(a: Value | float, b: Value | float, weight: Value | float) -> Value:
    """Move from ``a`` towards ``b``: ``(1 - weight) a + weight b``."""
    return apply("lerp", a, b, weight)  # type: ignore[no-any-return]


def let(letter: str, x: Value) -> Value:
    """Give a value a letter, which a printed formula then uses; computes nothing."""
    return (
        Expr("let", (x,), attrs={"letter": letter}, dims=x.dims, scope=x.scope, host=x.host)
        if isinstance(x, Expr)
        else x
    )


def is_constant_along(x: Value | float, per: Literal["row", "column"]) -> bool:
    """Whether a value is the same for every element of a row or column by its shape alone, whatever it holds."""
    shape: Any = x.dims if isinstance(x, Expr) else getattr(x, "shape", ())
    axis = 1 if per == "row" else 0
    return len(shape) < 2 or str(shape[axis]) == "1"


def total(x: Value, per: Per = "tensor") -> Value:
    """Sum, one value per row, column, tensor, group or model."""
    return apply("total", x, per=per)  # type: ignore[no-any-return]


def largest(x: Value, per: Per = "tensor") -> Value:
    """Maximum, one value per row, column, tensor, group or model."""
    return apply("largest", x, per=per)  # type: ignore[no-any-return]


def mean(x: Value, per: Literal["row", "column", "tensor"] = "tensor") -> Value:
    """Arithmetic mean, one value per row, column or tensor."""
    return apply("mean", x, per=per)  # type: ignore[no-any-return]


def norm(x: Value, per: Per = "tensor") -> Value:
    """Euclidean norm, one value per row, column, tensor, group or model."""
    # what crosses tensors is a plain sum, the only thing that ranks must agree on
    if per in ("group", "model"):
        return sqrt(total(x * x, per))
    return apply("norm", x, per=per)  # type: ignore[no-any-return]


def fold(x: Value) -> Value:
    """The elements, in order, as the most square matrix that holds exactly them: rows and columns are then its own."""
    return apply("fold", x)  # type: ignore[no-any-return]


def unfold(x: Value, like: Value) -> Value:
    """Undo `fold`: the elements in the shape of ``like``."""
    return apply("unfold", x, like)  # type: ignore[no-any-return]


def blockwise(x: Value, blocks: int) -> Value:
    """Give every row the mean of its block, where rows are cut into so many equal blocks; the last may be shorter.

    Args:
        x: one value per row.
        blocks: how many; ``ceil(rows / blocks)`` rows go into each.
    """
    return apply("blockwise", x, blocks=blocks)  # type: ignore[no-any-return]


def turned(x: Value, rows: Value, columns: Value) -> Value:
    """A matrix with its longer side as rows: transposed if it is wide. Done again it is as it was.

    Args:
        x: a value per element, turned or not.
        rows: of the matrix view.
        columns: of the matrix view.
    """
    return apply("turned", x, rows, columns)  # type: ignore[no-any-return]


def strongest(scores: Value, fraction: Value | float) -> Value:
    """Which columns have the highest scores: so large a part of them, one at the least; see `matrix.strongest`."""
    return apply("strongest", scores, fraction)  # type: ignore[no-any-return]


def pick(x: Value, which: Value) -> Value:
    """The columns that `strongest` chose, as a matrix."""
    return apply("pick", x, which)  # type: ignore[no-any-return]


def placed(x: Value, which: Value, like: Value) -> Value:
    """Undo `pick`: columns at their places in a matrix of zeros with the shape of ``like``."""
    return apply("placed", x, which, like)  # type: ignore[no-any-return]


def right_vectors(x: Value, rank: int) -> Value:
    """The first right singular vectors of a matrix, as columns; see `matrix.right_vectors`."""
    return apply("right_vectors", x, rank=rank)  # type: ignore[no-any-return]


def blocks(x: Value, size: int) -> Value:
    """The blocks of a matrix whose sides are at most ``size``, as a stack; the matrix itself where the size is 0.

    A side is cut into as few pieces as it takes, of equal length; what is missing in the last one is zero.
    """
    return apply("blocks", x, size=size) if size else x


def unblocks(x: Value, like: Value) -> Value:
    """Undo `blocks`: put a stack together to a matrix of the shape of ``like``."""
    return apply("unblocks", x, like) if is_cut(x) else x


def is_cut(x: Value) -> bool:
    """Whether a value is a stack of blocks."""
    return bool(block_of(x.dims)[1]) if isinstance(x, Expr) else x.ndim == 3


def in_double(x: Value) -> Value:
    """The same in double precision, whatever the parameter; only matrix operations take it."""
    return apply("in_double", x)  # type: ignore[no-any-return]


def as_precise_as(x: Value, like: Value) -> Value:
    """The same in the precision of another value: undoes `in_double`."""
    return apply("as_precise_as", x, like)  # type: ignore[no-any-return]


def gram(x: Value) -> Value:
    """``x x^T``: all inner products of rows."""
    return apply("gram", x)  # type: ignore[no-any-return]


def polar(
    x: Value, steps: int, coefficients: matrix.Coefficients, dtype: str = "bfloat16", safety: float = 1.0
) -> Value:
    """Orthogonal factor of a matrix by odd polynomial iterations; see `matrix.polar`."""
    attrs = {"steps": steps, "coefficients": coefficients, "dtype": dtype, "safety": safety}
    return apply("polar", x, **attrs)  # type: ignore[no-any-return]


def exact_polar(x: Value) -> Value:
    """Orthogonal factor of a matrix by singular values."""
    return apply("exact_polar", x)  # type: ignore[no-any-return]


def leading(x: Value) -> Value:
    """First singular vectors of a matrix as a matrix of rank one."""
    return apply("leading", x)  # type: ignore[no-any-return]


def inverse_root(
    x: Value, root: int, eps: Value | float, *, relative: bool, method: str, dtype: str, steps: int
) -> Value:
    """``x^(-1 / root)`` of a symmetric matrix; see `symmetric.inverse_root`."""
    attrs = {"root": root, "relative": relative, "method": method, "dtype": dtype, "steps": steps}
    return apply("inverse_root", x, eps, **attrs)  # type: ignore[no-any-return]


def orthonormal(x: Value) -> Value:
    """Orthonormal columns that span those of a matrix (QR)."""
    return apply("orthonormal", x)  # type: ignore[no-any-return]


def eigenvectors(x: Value) -> Value:
    """Eigenvectors of a symmetric matrix as columns, largest eigenvalue first."""
    return apply("eigenvectors", x)  # type: ignore[no-any-return]


def refreshed_eigenvectors(x: Value, basis: Value) -> Value:
    """One step of orthogonal iteration, ``qr(x basis)``; see `symmetric.refreshed_eigenvectors`."""
    return apply("refresh", x, basis)  # type: ignore[no-any-return]
