"""A program with matrix operations, cut into phases: fused passes and matrix work by turns.

Fused kernels see one element at a time, torch multiplies matrices. A phase of one kind runs until the other kind is
needed. What crosses a border lies in *scratch*: arrays that live for a step, which either side sees as a state under a
key of its own ("~0"). Element-wise values that a later phase needs again are computed again there, from states that
were not overwritten yet or from new ones that were stored already.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, cast, get_args

from slalom.algebra import ELEMENT, MATRIX, REDUCTIONS, SCALAR, THIN, Expr, Extent, State, Value
from slalom.algebra.expr import block_of, build
from slalom.engine.plan import Operand, UnplannableError, array_name, on_host
from slalom.engine.program import Program, walk

Kind: TypeAlias = Literal["fused", "matrix"]

# What can be kept between phases.
_KINDS: Final = (
    *(State(cast("Extent", per)) for per in get_args(Extent) if per not in ("group", "model")),
    *(State(cast("Extent", per), view="tall") for per in ("row", *sorted(THIN))),
)
_CONDITIONS: Final = frozenset({"lt", "le", "gt", "ge", "and"})
_FUSED_DIMS: Final = frozenset({ELEMENT, SCALAR, ("m", "1"), ("1", "n")})


@dataclass(frozen=True, eq=False)
class Phase:
    """A program of one kind.

    Attributes:
        kind: who runs it: the fused executors, or torch on stacked matrices.
        program: reads and writes states, scratch among them; its result is the parameter itself if it leaves it alone.
    """

    kind: Kind
    program: Program


@dataclass(frozen=True, eq=False)
class Phases:
    """A program cut into phases.

    Attributes:
        phases: in order; each writes what the later ones read.
        scratch: the declaration of what crosses borders, by key.
        lives: for each key the phase that writes it and the last one that reads it.
    """

    phases: tuple[Phase, ...]
    scratch: dict[str, State]
    lives: dict[str, tuple[int, int]]


def needs_phases(program: Program) -> bool:
    """Whether a program has operations that no fused kernel can hold but matrix phases can."""
    return any(node.op in MATRIX for node in program.nodes)


@functools.lru_cache(maxsize=256)
def cut(program: Program) -> Phases:
    """Cut a program into phases."""
    return _Cut(program).phases()


class _LaterError(Exception):
    """A state was overwritten before a later phase read it; its write has been put off, cut again."""


@dataclass
class _Open:
    """A phase that is being filled, from the last to the first."""

    kind: Kind
    built: dict[int, Operand] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    writes: dict[str, Value] = field(default_factory=dict)
    result: Operand | None = None


class _Cut:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.w = next(node for node in program.nodes if node.op == "input" and node.attrs["name"] == "w")
        self.matrix: dict[int, bool] = {}  # which kind a value belongs to
        self.level: dict[int, int] = {}  # the first phase that can know it
        for node in program.nodes:
            self._place(node)
        self.targets: dict[str, Operand] = {**program.writes, "w": program.result}
        self.when = {key: self._first(key) for key in self.targets}

    def _place(self, node: Expr) -> None:
        """Decide which kind a value belongs to and the first phase that can know it; fused phases have even numbers."""
        args = [arg for arg in node.args if isinstance(arg, Expr)]
        wide = any(shape not in _FUSED_DIMS for shape in (node.dims, *(arg.dims for arg in args)))
        # what is small and made of matrices alone stays with them
        follows = node.dims != ELEMENT and node.op not in REDUCTIONS
        made = [arg for arg in args if not on_host(arg) and not (arg.op == "state" and arg.dims == SCALAR)]
        alone = all(self.matrix[id(arg)] for arg in made) and bool(made or all(map(on_host, args)))
        # a branch that is rarely taken must not be computed to be handed over
        rare = node.op == "where" and on_host(node.args[0]) and any(self.matrix[id(arg)] for arg in args)
        is_matrix = bool(args) and not on_host(node) and (node.op in MATRIX or wide or rare or (follows and alone))
        self.matrix[id(node)] = is_matrix
        below = [self.level[id(arg)] + (self.matrix[id(arg)] != is_matrix and bool(arg.args)) for arg in args]
        self.level[id(node)] = max([int(is_matrix), *below])

    def _is_fused(self, key: str) -> bool:
        value = self.targets[key]
        if key == "w":
            return True
        if self.program.states[key].dims not in _FUSED_DIMS:
            return False
        return not (isinstance(value, Expr) and self.matrix[id(value)])

    def _first(self, key: str, least: int = 0) -> int:
        """Return the first phase of the right kind, from ``least`` on, in which a target can be written."""
        value = self.targets[key]
        level = least
        if isinstance(value, Expr):
            level = max(level, self.level[id(value)])
        return level + (level % 2 != (0 if self._is_fused(key) else 1))

    def phases(self) -> Phases:
        while True:
            self._bring_together()
            try:
                return self._attempt()
            except _LaterError:
                continue

    def _bring_together(self) -> None:
        """Write a number that comes with a matrix, such as a count of failures, in the phase that writes the matrix.

        Between phases all that is handed over is computed, be it in a branch that is rarely taken.
        """
        products = {
            key: {id(node) for node in walk([value]) if node.op in MATRIX}
            for key, value in self.targets.items()
            if not self._is_fused(key)
        }
        for key, mine in products.items():
            if self.program.states[key].dims == SCALAR:
                others = [self.when[k] for k, theirs in products.items() if theirs & mine]
                self.when[key] = max([self.when[key], *others])

    def _attempt(self) -> Phases:
        self.scratch: dict[str, State] = {}
        self.names: dict[int, str] = {}
        self.lives: dict[str, tuple[int, int]] = {}
        self.made: dict[int, list[Expr]] = {}  # what each phase leaves in scratch
        self.late = self._latest()
        last = max(self.when.values())
        opened = [_Open("matrix" if index % 2 else "fused") for index in range(last + 1)]
        for index in range(last, -1, -1):
            phase = opened[index]
            for key, value in self.targets.items():
                if self.when[key] == index:
                    built = self._build(value, index, phase)
                    if key == "w":
                        phase.result = built
                    else:
                        phase.writes[key] = cast("Value", built)
                        phase.states[key] = self.program.states[key]
            for node in self.made.get(index, []):
                name = self.names[id(node)]
                phase.writes[name] = cast("Value", self._build(node, index, phase))
                phase.states[name] = self.scratch[name]
        return self._numbered([phase for phase in opened if phase.writes or phase.result is not None], opened)

    def _latest(self) -> dict[int, int]:
        """Return for each value the last phase that still serves its first user: what is made late need not be kept."""
        late: dict[int, int] = {}

        def need(node: Operand, index: int) -> None:
            if isinstance(node, Expr):
                fits = (on_host(node) and "label" not in node.attrs) or (index % 2 == 1) == self.matrix[id(node)]
                late[id(node)] = min(late.get(id(node), index), index if fits else index - 1)

        for key, value in self.targets.items():
            need(value, self.when[key])
        for node in reversed(self.program.nodes):
            for arg in node.args:
                need(arg, late[id(node)])
        return late

    def _numbered(self, kept: list[_Open], opened: list[_Open]) -> Phases:
        number = {id(phase): place for place, phase in enumerate(kept)}
        lives = {
            name: (number[id(opened[born])], number[id(opened[died])]) for name, (born, died) in self.lives.items()
        }
        asked = self.program.asked
        phases = tuple(
            Phase(p.kind, Program(self.w if p.result is None else cast("Value", p.result), p.writes, p.states, asked))
            for p in kept
        )
        return Phases(phases, self.scratch, lives)

    def _build(self, node: Operand, index: int, phase: _Open) -> Operand:
        """Return a value as the phase with this index sees it."""
        if not isinstance(node, Expr):
            return node
        done = phase.built.get(id(node))
        if done is None:
            done = phase.built[id(node)] = self._built(node, index, phase)
        return done

    def _built(self, node: Expr, index: int, phase: _Open) -> Operand:
        if not node.args:
            self._read(node, index, phase)
            return node
        stored = next((k for k, v in self.targets.items() if v is node and self.when[k] < index), None)
        if stored is not None and (stored == "w" or self.program.states[stored].dims == node.dims):
            return self._new_value_of(stored, node, phase)
        if not on_host(node) or "label" in node.attrs:
            level = self.late[id(node)]
            is_matrix = self.matrix[id(node)]
            foreign = is_matrix != (phase.kind == "matrix")
            # what costs more than reading it: products, and sums over elements
            dear = level < index and (node.op in REDUCTIONS or (is_matrix and node.op != "transpose"))
            if foreign or dear:
                return self._from_scratch(node, level, index, phase)
        args = tuple(self._build(arg, index, phase) for arg in node.args)
        if all(a is b for a, b in zip(args, node.args, strict=True)):
            return node
        return Expr(node.op, args, attrs=node.attrs, dims=node.dims, scope=node.scope, host=node.host)

    def _read(self, node: Expr, index: int, phase: _Open) -> None:
        """Note that a leaf is read; put its overwriting off if it would come too early."""
        if node.op == "state" or (node.op == "input" and node.attrs["name"] == "w"):
            key = array_name(node)
            if self.when.get(key, index) < index:
                self.when[key] = self._first(key, index)
                raise _LaterError
            if node.op == "state":
                phase.states[key] = self.program.states[key]

    def _new_value_of(self, key: str, node: Expr, phase: _Open) -> Expr:
        if key == "w":
            return self.w
        slot = phase.states[key] = self.program.states[key]
        return Expr("state", attrs={"name": slot.name, "key": key}, dims=node.dims, scope=slot.scope)

    def _from_scratch(self, node: Expr, level: int, index: int, phase: _Open) -> Expr:
        name = self.names.get(id(node))
        if name is None:
            name = self.names[id(node)] = f"~{len(self.names)}"
            self.scratch[name] = _declared(node)
            self.made.setdefault(level, []).append(node)
            self.lives[name] = (level, index)  # phases are filled from the last: the first reader met is the last
        phase.states[name] = self.scratch[name]
        read = Expr("state", attrs={"name": name, "key": name}, dims=node.dims, scope=self.scratch[name].scope)
        return build("gt", read, 0.5) if node.op in _CONDITIONS else read  # kept as a number, 0 or 1


def _declared(node: Expr) -> State:
    if "label" in node.attrs:
        return State(per=node.attrs["per"])
    dims, block = block_of(node.dims)
    rank = next((int(side[1:]) for side in dims if side.startswith("r")), 0)
    for kind in _KINDS:
        slot = dataclasses.replace(kind, rank=rank)
        if slot.dims == dims:
            return dataclasses.replace(slot, block=block)
    raise UnplannableError(f"a value of shape {node.dims} is needed on both sides of a product")
