"""Tracing: a formula, run once on symbols, becomes a program, the graph that every executor reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from slalom.algebra import ELEMENT, MATRIX, REDUCTIONS, SCALAR, Expr, State, Value, leaf
from slalom.algebra.expr import is_one


class Leaves(NamedTuple):
    """What a formula is given: the parameter, its gradient, two clocks, the loss, sizes in the matrix view, places."""

    w: Expr
    grad: Expr
    t: Expr
    clock: Expr
    loss: Expr
    rows: Expr
    columns: Expr
    size: Expr
    position: Expr


def leaves() -> Leaves:
    """Return fresh symbols for the inputs of a formula."""
    return Leaves(
        w=leaf("input", "w", ELEMENT),
        grad=leaf("input", "g", ELEMENT),
        t=leaf("input", "t", host=True),
        clock=leaf("input", "clock", scope="model", host=True),
        loss=leaf("input", "loss", scope="model", host=True),
        rows=leaf("input", "rows", host=True),
        columns=leaf("input", "columns", host=True),
        size=leaf("input", "size", host=True),
        position=leaf("input", "position", ELEMENT),
    )


@dataclass
class Recorder:
    """The store of a trace: remembers which state a formula touched and what it left there."""

    slots: dict[str, State] = field(default_factory=dict)
    now: dict[str, Value] = field(default_factory=dict)
    writes: dict[str, Value] = field(default_factory=dict)

    def read(self, key: str, slot: State) -> Value:
        """Return the symbol of a state, or what was written to it before in this step."""
        if key not in self.now:
            self.slots[key] = slot
            self.now[key] = Expr("state", attrs={"name": slot.name, "key": key}, dims=slot.dims, scope=slot.scope)
        return self.now[key]

    def write(self, key: str, slot: State, value: Value) -> None:
        """Record the value of a state after the step."""
        if isinstance(value, Expr):
            fits = all(have == want or is_one(have) for have, want in zip(value.dims, slot.dims, strict=True))
            if not fits:
                raise ValueError(f"{key} is declared per {slot.per}, but the formula writes shape {value.dims}.")
            # Hyper-parameters belong to groups: a method with state per model asks that groups share those it uses.
            if slot.scope != "tensor" and value.scope == "tensor":
                raise ValueError(
                    f"{key} is declared per {slot.per}, but the formula writes a value of one tensor to it: "
                    f'reduce it first, as in total(x, "{slot.per}").'
                )
        self.slots[key] = slot
        self.now[key] = self.writes[key] = value


@dataclass(frozen=True, eq=False)
class Program:
    """A traced formula.

    Attributes:
        result: the new parameter.
        writes: the new value of each state, by key.
        states: the declaration of each state that is read or written, by key.
        asked: hyper-parameters whose truth shaped the graph, with the answers it holds for.
    """

    result: Value
    writes: dict[str, Value]
    states: dict[str, State]
    asked: dict[tuple[str, int | None], bool]

    @cached_property
    def nodes(self) -> list[Expr]:
        """Every node once, arguments before what uses them."""
        return list(walk([*self.writes.values(), self.result]))

    @cached_property
    def crossings(self) -> list[Expr]:
        """The reductions over several tensors, in the order in which they depend on each other."""
        return [node for node in self.nodes if "label" in node.attrs]

    @cached_property
    def signature(self) -> tuple[Any, ...]:
        """What the program computes, equal for equal graphs: parameters of different shapes often share one."""
        place = {id(node): index for index, node in enumerate(self.nodes)}

        def name(arg: Value | float) -> Any:
            return ("node", place[id(arg)]) if isinstance(arg, Expr) else (type(arg).__name__, repr(arg))

        return (
            tuple((n.op, tuple(map(name, n.args)), repr(sorted(n.attrs.items())), n.dims, n.scope) for n in self.nodes),
            tuple((key, name(value)) for key, value in self.writes.items()),
            name(self.result),
            tuple(sorted(self.asked.items(), key=repr)),
        )

    @cached_property
    def needs_matrix_view(self) -> bool:
        """Whether rows, columns or matrix products occur; if not, tensors may keep their shapes."""
        return any(slot.format == "sign" for slot in self.states.values()) or any(
            node.op in MATRIX
            or node.dims not in (ELEMENT, SCALAR)
            or (node.op in REDUCTIONS and node.attrs["per"] in ("row", "column"))
            for node in self.nodes
        )

    @cached_property
    def needs_clock(self) -> bool:
        """Whether the optimizer's own step count is used."""
        return any(node.op == "input" and node.attrs["name"] == "clock" for node in self.nodes)

    @cached_property
    def needs_loss(self) -> bool:
        """Whether the value of the loss is used."""
        return any(node.op == "input" and node.attrs["name"] == "loss" for node in self.nodes)

    @cached_property
    def needs_positions(self) -> bool:
        """Whether elements are told apart by their place, so that it matters how they lie in memory."""
        return any(node.op == "input" and node.attrs["name"] == "position" for node in self.nodes)

    @cached_property
    def needs_sizes(self) -> bool:
        """Whether a host value depends on the shape of the parameter."""
        return any(node.op == "input" and node.attrs["name"] in ("rows", "columns", "size") for node in self.nodes)


def walk(roots: Iterable[Value | float]) -> Iterator[Expr]:
    """Yield every node below ``roots`` once, arguments first."""
    seen: set[int] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(list(roots)) if isinstance(root, Expr)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args) if isinstance(arg, Expr))


_ONE: WeakValueDictionary[Any, Program] = WeakValueDictionary()


def the_one(program: Program) -> Program:
    """Return the program that stands for all that compute the same: it is planned and compiled once per process.

    Matrices and vectors often run the same program, and one object then means one pass over both. Resumed and copied
    optimizers, and those that live one per parameter, share their kernels.
    """
    return _ONE.setdefault((program.signature, repr(sorted(program.states.items()))), program)


def trace(
    formula: Callable[[Leaves, Recorder], Value], asked: dict[tuple[str, int | None], bool] | None = None
) -> Program:
    """Run a formula on symbols.

    Args:
        formula: given inputs and a store, returns the new parameter.
        asked: where the hyper-parameters of the formula write down what they were asked (see `algebra.Hyper`).
    """
    recorder = Recorder()
    result = formula(leaves(), recorder)
    return Program(result, recorder.writes, recorder.slots, dict(asked or {}))
