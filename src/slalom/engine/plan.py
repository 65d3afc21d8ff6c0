"""The planner: a program becomes a short list of passes over memory, as a database compiles a query.

A *stage* is one pass over all elements, with everything element-wise that lies between two cuts; a cut is a reduction
whose result is needed before the step can go on. Between two stages lies a *section*: what is small (one value per
tensor, row or column) or known on the host. Values of an earlier stage that a later one needs are computed again,
from old states that are still there or from new ones that were stored already, whichever moves fewer bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from slalom.algebra import (
    ELEMENT,
    MATRIX,
    OPS,
    REDUCTIONS,
    SCALAR,
    SQUARE,
    Expr,
    State,
    apply,
    leaf,
    quantile_formula,
)
from slalom.engine.program import Program, walk

Operand = Expr | float


class UnplannableError(Exception):
    """The program has an operation that no fused stage can hold; the eager executor runs it."""


@dataclass
class Stage:
    """One pass over all elements.

    Attributes:
        index: which pass.
        loads: the arrays it reads: "w", "g" and states.
        values: the element-wise values it computes, in order.
        reread: values that an earlier stage stored, by identity, with the array that holds them.
        stores: the arrays it writes, with their values.
        reductions: what it sums or maximises over its elements.
    """

    index: int
    loads: list[str] = field(default_factory=list)
    values: list[Expr] = field(default_factory=list)
    reread: dict[int, str] = field(default_factory=dict)
    stores: dict[str, Operand] = field(default_factory=dict)
    reductions: list[Expr] = field(default_factory=list)


@dataclass
class Plan:
    """What a program costs and how it runs.

    Attributes:
        stages: the passes, in order.
        small: for each section, the values per tensor, row and column to compute there, in order. There is one
            section before each stage and one after the last.
        host: for each section, the values to compute on the host before it.
        states: the declared states, by key.
        writes: new values of the states that are not per element, by key.
        result: the new parameter.
        view: whose rows and columns the passes go over: those of the "matrix", or of the most "square" one.
    """

    stages: list[Stage]
    small: list[list[Expr]]
    host: list[list[Expr]]
    states: dict[str, State]
    writes: dict[str, Operand]
    result: Operand
    view: str = "matrix"

    @property
    def moved(self) -> float:
        """Bytes read and written per element in float32; what is per row, column or tensor does not count."""
        touched = [name for stage in self.stages for name in (*stage.loads, *stage.stores)]
        return sum(1 / 8 if self.holds_signs(name) else 4 for name in touched)

    def holds_signs(self, name: str) -> bool:
        """Whether an array holds one bit per element."""
        return name in self.states and self.states[name].format == "sign"

    @property
    def operations(self) -> int:
        """Arithmetic operations per element."""
        return sum(len(stage.values) for stage in self.stages)

    @property
    def two_dimensional(self) -> bool:
        """Whether rows or columns matter; if not, a tensor is one run of elements."""
        if any(map(self.holds_signs, self.states)):
            return True  # every row of bits starts on a byte of its own
        nodes = [*self.all_small(), *(value for stage in self.stages for value in (*stage.values, *stage.reductions))]
        return any(is_small(node) and node.dims != SCALAR for node in nodes) or any(
            node.op == "state" and node.dims not in (SCALAR, ELEMENT) for node in walk(nodes)
        )

    def all_small(self) -> Iterator[Expr]:
        """Yield the values per tensor, row and column of all sections."""
        return itertools.chain.from_iterable(self.small)


def is_small(node: Operand) -> bool:
    """Whether a value is one per tensor, row or column, and not known on the host."""
    return isinstance(node, Expr) and node.dims != ELEMENT and not on_host(node)


def on_host(node: Operand) -> bool:
    """Whether a value is a plain number in Python: hyper-parameters, counts, and what tensors have in common."""
    if not isinstance(node, Expr):
        return True
    if node.host or "label" in node.attrs:
        return True
    if node.op == "state":
        return node.scope != "tensor"
    return bool(node.args) and node.op not in REDUCTIONS and all(on_host(arg) for arg in node.args)


# --- lowering ----------------------------------------------------------------------------------------


class _Lowering:
    """Rewrites a graph into fewer kinds of nodes, and equal nodes into one.

    Args:
        square: whether the whole program is laid out over the most square view, whose rows are then the only ones.
    """

    def __init__(self, *, square: bool = False) -> None:
        self.square = square
        self.known: dict[Any, Expr] = {}
        self.done: dict[int, Operand] = {}

    def unique(self, node: Operand) -> Operand:
        if not isinstance(node, Expr):
            return node
        args = tuple(id(arg) if isinstance(arg, Expr) else (type(arg), arg) for arg in node.args)
        key = (node.op, args, tuple(sorted((name, repr(value)) for name, value in node.attrs.items())))
        return self.known.setdefault(key, node)

    def lower(self, root: Operand) -> Operand:
        for node in walk([root]):
            if id(node) not in self.done:
                args = tuple(self.done[id(arg)] if isinstance(arg, Expr) else arg for arg in node.args)
                self.done[id(node)] = self.unique(self._rewritten(node, args))
        return self.done[id(root)] if isinstance(root, Expr) else root

    def _make(self, op: str, *args: Operand, **attrs: Any) -> Operand:
        return self.unique(apply(op, *args, **attrs))

    def _rewritten(self, node: Expr, args: tuple[Operand, ...]) -> Operand:
        if not args:
            if self.square and node.dims != ELEMENT:
                dims = (_FROM_SQUARE.get(node.dims[0], "1"), _FROM_SQUARE.get(node.dims[1], "1"))
                return Expr(node.op, attrs=node.attrs, dims=dims, scope=node.scope, host=node.host)
            return node
        if node.op == "quantile":
            return self.lower(quantile_formula(args[0]))  # type: ignore[arg-type]
        if node.op in ("let", "fold", "unfold"):
            return args[0]
        if node.op == "mean":
            return self._make("div", self._total(args[0], node.attrs["per"]), self._count(args[0], node.attrs["per"]))
        if node.op == "norm":
            return self._make("sqrt", self._total(self._make("mul", args[0], args[0]), node.attrs["per"]))
        if node.op == "div" and on_host(args[1]) and not on_host(args[0]):
            # a product is several times cheaper than a quotient, and the reciprocal is computed once
            return self._make("mul", args[0], self._make("div", 1.0, args[1]))
        if node.op in REDUCTIONS and "label" in node.attrs:
            return Expr(node.op, args, attrs=node.attrs, dims=node.dims, scope=node.scope)
        return apply(node.op, *args, **node.attrs)  # type: ignore[no-any-return]

    def _total(self, x: Operand, per: str) -> Operand:
        return self._make("total", x, per=per)

    def _count(self, x: Operand, per: str) -> Operand:
        dims = x.dims if isinstance(x, Expr) else SCALAR
        name = {"row": "columns", "column": "rows"}.get(per)
        if per == "tensor":
            name = {ELEMENT: "size", ("m", "1"): "rows", ("1", "n"): "columns"}.get(dims)
        return 1.0 if name is None else self.unique(leaf("input", name, host=True))


# --- planning ----------------------------------------------------------------------------------------


def plan(program: Program) -> Plan:
    """Plan a program.

    Raises:
        UnplannableError: if it multiplies or decomposes matrices.
    """
    square = _folds(program)
    lowering = _Lowering(square=square)
    writes = {key: lowering.lower(value) for key, value in program.writes.items()}
    result = lowering.lower(program.result)
    nodes = list(walk([*writes.values(), result]))
    for node in nodes:
        if node.op in MATRIX:
            raise UnplannableError(f"{node.op} is a matrix operation")
    levels = _levels(nodes)
    arrays = {key: value for key, value in writes.items() if program.states[key].per == "element"}
    if not (isinstance(result, Expr) and result.op == "input" and result.attrs["name"] == "w"):
        arrays["w"] = result
    reductions = [node for node in nodes if node.op in REDUCTIONS and _is_element(node.args[0])]
    last = max(
        [_level(levels, value) for value in arrays.values()] + [_level(levels, r.args[0]) for r in reductions],
        default=0,
    )
    rounded = {key for key in arrays if key in program.states and program.states[key].format != "float"}
    stages = _cheapest(arrays, reductions, levels, last, rounded)
    small: list[list[Expr]] = [[] for _ in range(last + 2)]
    host: list[list[Expr]] = [[] for _ in range(last + 2)]
    for node in nodes:
        if node.op in ("input", "state", "hyper") or node in reductions:
            continue
        if on_host(node):
            host[levels[id(node)]].append(node)
        elif is_small(node):
            small[levels[id(node)]].append(node)
    rest = {key: value for key, value in writes.items() if key not in arrays}
    return Plan(stages, small, host, program.states, rest, result, "square" if square else "matrix")


_FROM_SQUARE: Final = {"p": "m", "q": "n"}


def _folds(program: Program) -> bool:
    """Return whether rows and columns are those of the most square view.

    Raises:
        UnplannableError: if a formula has both those and the matrix's own, which one pass cannot go over.
    """
    lengths = {length for node in program.nodes for length in node.dims}
    if not lengths & set(SQUARE):
        return False
    rows_of_its_own = any(
        node.dims not in (ELEMENT, SCALAR) and not set(node.dims) & set(SQUARE) for node in program.nodes
    )
    counts_them = any(node.op == "input" and node.attrs["name"] in ("rows", "columns") for node in program.nodes)
    packs_them = any(slot.format == "sign" and slot.view == "matrix" for slot in program.states.values())
    if rows_of_its_own or counts_them or packs_them:
        raise UnplannableError("rows and columns of two views of one tensor")
    return True


def _is_element(node: Operand) -> bool:
    return isinstance(node, Expr) and node.dims == ELEMENT


def _levels(nodes: list[Expr]) -> dict[int, int]:
    """Return for each value the first section or stage in which it can be known."""
    levels: dict[int, int] = {}
    for node in nodes:
        below = [levels[id(arg)] for arg in node.args if isinstance(arg, Expr)]
        crosses = node.op in REDUCTIONS and (_is_element(node.args[0]) or "label" in node.attrs)
        levels[id(node)] = max(below, default=0) + (1 if crosses else 0)
    return levels


def _level(levels: dict[int, int], node: Operand) -> int:
    return levels[id(node)] if isinstance(node, Expr) else 0


_MOST_CHOICES: Final = 10  # 2^10 ways to place stores are tried; recipes have a handful of states


def _cheapest(
    arrays: dict[str, Operand], reductions: list[Expr], levels: dict[int, int], last: int, rounded: set[str]
) -> list[Stage]:
    """Try for every array to store it as soon as it is known or at the very end, and take what moves fewest bytes.

    What ``rounded`` arrays hold is less than what was stored, so no later pass reads a value back from them.
    """
    early = {name: _level(levels, value) for name, value in arrays.items()}
    movable = [name for name, level in early.items() if level < last][:_MOST_CHOICES]
    best: tuple[int, list[Stage]] | None = None
    for late in itertools.product((False, True), repeat=len(movable)):
        when = dict.fromkeys(arrays, last) | {n: early[n] for n, wait in zip(movable, late, strict=True) if not wait}
        stages = [_stage(index, arrays, when, reductions, levels, rounded) for index in range(last + 1)]
        if any(stage is None for stage in stages):
            continue
        found = [stage for stage in stages if stage is not None]
        cost = sum(len(stage.loads) for stage in found)  # every array is stored once, whenever that is
        if best is None or cost < best[0]:
            best = (cost, found)
    assert best is not None  # storing everything at the end overwrites nothing that is still needed
    return best[1]


def _stage(
    index: int,
    arrays: dict[str, Operand],
    when: dict[str, int],
    reductions: list[Expr],
    levels: dict[int, int],
    rounded: set[str],
) -> Stage | None:
    """Lay out one pass, or return None if it would need a state that was overwritten before."""
    stage = Stage(index)
    stored = {name for name in arrays if when[name] < index}
    kept = {
        id(value): name
        for name, value in arrays.items()
        if name in stored and name not in rounded and isinstance(value, Expr) and value.args
    }
    stage.stores = {name: value for name, value in arrays.items() if when[name] == index}
    stage.reductions = [node for node in reductions if _level(levels, node.args[0]) == index]
    seen: set[int] = set()
    possible = True

    def need(node: Operand) -> None:
        nonlocal possible
        if not _is_element(node) or not isinstance(node, Expr) or id(node) in seen:
            return
        seen.add(id(node))
        if id(node) in kept:
            stage.reread[id(node)] = kept[id(node)]
            _add(stage.loads, kept[id(node)])
        elif node.op == "input" and node.attrs["name"] == "position":
            pass  # it lies nowhere: loops count it
        elif node.op in ("input", "state"):
            name = array_name(node)
            possible = possible and name not in stored
            _add(stage.loads, name)
        else:
            for arg in node.args:
                need(arg)
            stage.values.append(node)

    for value in stage.stores.values():
        need(value)
    for node in stage.reductions:
        need(node.args[0])
    return stage if possible else None


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def array_name(node: Expr) -> str:
    """Return what an array is called in a plan: "w", "g" or a state's key."""
    return str(node.attrs.get("key", node.attrs["name"]))


def host_function(nodes: list[Expr], place: dict[int, int]) -> Callable[[list[Any]], None]:
    """Return a function that computes host values in a list of registers, by the place of each node.

    It is compiled from generated text, since it runs at every step: the text holds names of ours only.
    """
    if not nodes:
        return lambda registers: None
    lines, names = ["def compute(r):"], {}
    for node in nodes:
        compute = OPS[node.op].numbers
        assert compute is not None, node.op
        names[f"f_{node.op}"] = compute
        args = ", ".join(f"r[{place[id(arg)]}]" if isinstance(arg, Expr) else repr(float(arg)) for arg in node.args)
        lines.append(f"    r[{place[id(node)]}] = f_{node.op}({args})")
    scope: dict[str, Any] = {**names, "inf": float("inf"), "nan": float("nan")}
    exec("\n".join(lines), scope)
    return scope["compute"]  # type: ignore[no-any-return]
