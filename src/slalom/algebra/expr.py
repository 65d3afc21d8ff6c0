"""Expressions: what a formula becomes when it is run on symbols instead of tensors.

An `Expr` is one node of a formula's graph. Every value in a formula has two properties that a
planner needs and that are worked out here, once, while the graph is built:

``dims``
    Its shape in the *matrix view*. slalom sees every parameter as a matrix: a matrix or a kernel of
    shape ``(out, in, *k)`` as ``(out, in * prod(k))``, a vector of n elements as one row ``(1, n)``, a scalar
    as ``(1, 1)``. Dimensions are symbols, so one graph serves every size: ``("m", "n")`` has a value per
    element, ``("m", "1")`` per row, ``("1", "n")`` per column, ``("1", "1")`` is a scalar, and
    ``("m", "m")`` a Kronecker factor. ``("p", "q")`` has a value per element too,
    in the most square view (see `ops.fold`), and so has ``("a", "b")``, the longer side first (see `ops.turned`).
    ``("m|1024", "n|1024")`` is a stack of the blocks that a matrix is cut into (see `ops.blocks`), none of a larger
    side than 1024; ``("1|1024", "1|1024")`` has one value per block.
``scope``
    How far a scalar reaches: the same for the whole ``model``, for one parameter ``group``, or of one ``tensor``.

Values that only depend on hyper-parameters, sizes and the step count are ``host`` values: plain Python
numbers that never touch a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

Scope: TypeAlias = Literal["model", "group", "tensor"]
Dims: TypeAlias = tuple[str, str]
Per: TypeAlias = Literal["row", "column", "block", "tensor", "group", "model"]
Number: TypeAlias = "float | int | bool"

SCALAR: Final[Dims] = ("1", "1")
ELEMENT: Final[Dims] = ("m", "n")
SQUARE: Final[Dims] = ("p", "q")
TALL: Final[Dims] = ("a", "b")
_REACH: Final[tuple[Scope, ...]] = ("model", "group", "tensor")


class Expr:
    """A node: an operation on other nodes and numbers, or a leaf (an input, a state, a hyper-parameter, a size)."""

    __slots__ = ("args", "attrs", "dims", "host", "op", "scope")

    def __init__(
        self,
        op: str,
        args: tuple[Expr | Number, ...] = (),
        *,
        attrs: Mapping[str, Any] | None = None,
        dims: Dims = SCALAR,
        scope: Scope = "model",
        host: bool = False,
    ) -> None:
        self.op = op
        self.args = args
        self.attrs: Mapping[str, Any] = attrs or {}
        self.dims = dims
        self.scope = scope
        self.host = host

    # Python's operators build nodes; `ops` installs the builder below, which keeps this module free of the table.
    def __add__(self, other: Expr | Number) -> Expr:
        return build("add", self, other)

    def __radd__(self, other: Number) -> Expr:
        return build("add", other, self)

    def __sub__(self, other: Expr | Number) -> Expr:
        return build("sub", self, other)

    def __rsub__(self, other: Number) -> Expr:
        return build("sub", other, self)

    def __mul__(self, other: Expr | Number) -> Expr:
        return build("mul", self, other)

    def __rmul__(self, other: Number) -> Expr:
        return build("mul", other, self)

    def __truediv__(self, other: Expr | Number) -> Expr:
        return build("div", self, other)

    def __rtruediv__(self, other: Number) -> Expr:
        return build("div", other, self)

    def __mod__(self, other: Expr | Number) -> Expr:
        return build("mod", self, other)

    def __pow__(self, other: Expr | Number) -> Expr:
        return build("pow", self, other)

    def __rpow__(self, other: Number) -> Expr:
        return build("pow", other, self)

    def __matmul__(self, other: Expr) -> Expr:
        return build("matmul", self, other)

    @property
    def T(self) -> Expr:  # noqa: N802  (as on tensors)
        """The transpose."""
        return build("transpose", self)

    @property
    def mT(self) -> Expr:  # noqa: N802  (as on tensors)
        """The transpose of each matrix; the same as ``T``, which tensors only have where they are matrices."""
        return build("transpose", self)

    def __neg__(self) -> Expr:
        return build("neg", self)

    def __abs__(self) -> Expr:
        return build("abs", self)

    def __lt__(self, other: Expr | Number) -> Expr:
        return build("lt", self, other)

    def __le__(self, other: Expr | Number) -> Expr:
        return build("le", self, other)

    def __gt__(self, other: Expr | Number) -> Expr:
        return build("gt", self, other)

    def __ge__(self, other: Expr | Number) -> Expr:
        return build("ge", self, other)

    def __and__(self, other: Expr | Number) -> Expr:
        return build("and", self, other)

    def __bool__(self) -> bool:
        raise TypeError(
            "a formula cannot branch on a value that is only known while training: write where(condition, a, b) "
            "instead of if, and maximum(a, b) instead of max"
        )

    def __float__(self) -> float:
        raise TypeError("a formula cannot turn a value into a Python number; keep it in the formula")

    def __repr__(self) -> str:
        from slalom.algebra.printing import text

        return f"Expr({text(self)})"


class Hyper(Expr):
    """A hyper-parameter: a leaf whose number is looked up, by name, each time the formula runs.

    It carries the number it has now, so that ranges can be checked and structure decided while a recipe is built.
    Asking for its truth (``if momentum:``) is allowed and remembered in ``asked``: whoever traced the formula
    must trace it again once the answer changes.

    Args:
        name: the keyword it is stored under in a parameter group.
        value: the number now.
        index: its place where the keyword holds a tuple.
        whole: the whole tuple, for error messages.
        asked: where answered questions are written down, ``(name, index) -> truth``.
    """

    __slots__ = ("asked", "index", "name", "value", "whole")

    def __init__(
        self,
        name: str,
        value: float,
        *,
        index: int | None = None,
        whole: object = None,
        asked: dict[tuple[str, int | None], bool] | None = None,
    ) -> None:
        super().__init__("hyper", attrs={"name": name, "index": index}, scope="group", host=True)
        self.name = name
        self.value = value
        self.index = index
        self.whole = value if whole is None else whole
        self.asked = asked

    def __bool__(self) -> bool:
        answer = bool(self.value)
        if self.asked is not None:
            self.asked[self.name, self.index] = answer
        return answer

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


_builder: Callable[..., Expr] | None = None


def install_builder(builder: Callable[..., Expr]) -> None:
    """Let `ops` say how nodes are built; called once, on import."""
    global _builder
    _builder = builder


def build(op: str, *args: Expr | Number, **attrs: Any) -> Expr:
    """Build the node of an operation of the table in `ops`."""
    assert _builder is not None
    return _builder(op, *args, **attrs)


def in_blocks(dims: Dims, size: int) -> Dims:
    """Return the shape of the blocks that a value of some shape is cut into; no blocks where the size is 0."""
    return (f"{dims[0]}|{size}", f"{dims[1]}|{size}") if size else dims


def block_of(dims: Dims) -> tuple[Dims, int]:
    """Undo `in_blocks`: return the shape and the largest side of a block, 0 where nothing is cut."""
    (rows, _, size), (columns, _, _) = dims[0].partition("|"), dims[1].partition("|")
    return (rows, columns), int(size or 0)


def is_one(length: str) -> bool:
    """Whether a dimension has a single entry, or one per block."""
    return length == "1" or length.startswith("1|")


def widest(scopes: Iterable[Scope]) -> Scope:
    """Return the narrowest reach that holds for all: a tensor's value makes the result a tensor's."""
    return _REACH[max((_REACH.index(scope) for scope in scopes), default=0)]


def leaf(op: str, name: str, dims: Dims = SCALAR, scope: Scope = "tensor", *, host: bool = False) -> Expr:
    """Build an input of a formula."""
    return Expr(op, attrs={"name": name}, dims=dims, scope=scope, host=host)
