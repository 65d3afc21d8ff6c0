"""The CPU executor: a plan compiled to C, run over all tensors of a group through one table of addresses."""

from __future__ import annotations

import ctypes
import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from slalom.algebra import Expr
from slalom.engine.batch import Numbers, SharedWrites
from slalom.engine.build import load
from slalom.engine.emit import CHUNK, MOST_CHUNKS, Layout, emit, lay_out, supports
from slalom.engine.plan import Plan, UnplannableError, host_function, on_host, plan
from slalom.engine.program import Program, matrix_shape, walk

DTYPES: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

# Below this many elements waking a second thread costs more than it saves.
_SERIAL: Final = 65536

_Call = Callable[..., int]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled program.

    Attributes:
        plan: what it does.
        layout: where its values lie.
        stages, sections: the functions of the library.
        tick: counts steps.
        registers: how many host values there are.
        inputs: places of "t", "clock" and the sizes among them.
        hypers: places of the hyper-parameters.
        shared: places of the states that tensors have in common, by key.
        crossings: places of the reductions over several tensors, by label, with level and column in the scalar table.
        host: computes host values, one function per section.
        busy: which sections have anything to compute in C.
        out: for each column of the host table, the place of its value.

    """

    plan: Plan
    layout: Layout
    stages: tuple[_Call, ...]
    sections: tuple[_Call, ...]
    tick: _Call
    registers: int
    inputs: dict[str, int]
    hypers: list[tuple[int, tuple[str, int | None]]]
    shared: dict[str, int]
    crossings: dict[str, tuple[int, int, int]]
    host: tuple[Callable[[list[Any]], None], ...]
    out: list[int]
    place: dict[int, int]
    label_of: dict[str, Expr]
    busy: tuple[bool, ...]

    @property
    def needs_sizes(self) -> bool:
        """Whether host values differ between tensors of different shape."""
        return any(name in self.inputs for name in ("rows", "columns", "size"))


@functools.lru_cache(maxsize=256)
def planned(program: Program) -> Plan:
    """Return the plan of a program.

    Raises:
        UnplannableError: if no fused stage can hold it; the message says why.

    """
    found = plan(program)
    reason = supports(found)
    if reason is not None:
        raise UnplannableError(reason)
    return found


@functools.lru_cache(maxsize=256)
def kernel(program: Program, dtype: str) -> Kernel:
    """Return the compiled kernel of a program.

    Raises:
        UnplannableError: if the program cannot be fused.
        CompileError: if it cannot be compiled.

    """
    found = planned(program)
    at = lay_out(found)
    library = load(emit(found, dtype))
    every = [node for stage in found.stages for node in (*stage.values, *stage.reductions)]
    roots = [*found.all_small(), *chain.from_iterable(found.host), *every, *found.writes.values(), found.result]
    roots += [value for stage in found.stages for value in stage.stores.values()]
    host_nodes = [node for node in walk(roots) if on_host(node)]
    place = {id(node): index for index, node in enumerate(host_nodes)}
    inputs = {n.attrs["name"]: place[id(n)] for n in host_nodes if n.op == "input"}
    shared = {n.attrs["key"]: place[id(n)] for n in host_nodes if n.op == "state"}
    reductions = [(stage.index, node) for stage in found.stages for node in stage.reductions if "label" in node.attrs]
    by_place = {column: key for key, column in at.host.items()}
    return Kernel(
        plan=found,
        layout=at,
        stages=tuple(_function(library, f"stage{k}", _STAGE) for k in range(len(found.stages))),
        sections=tuple(_function(library, f"section{k}", _SECTION) for k in range(len(found.small))),
        tick=_function(library, "tick", _TICK),
        registers=len(host_nodes),
        inputs=inputs,
        hypers=[(place[id(n)], (n.attrs["name"], n.attrs["index"])) for n in host_nodes if n.op == "hyper"],
        shared=shared,
        crossings={n.attrs["label"]: (place[id(n)], level, at.scalars[id(n)]) for level, n in reductions},
        host=tuple(host_function(nodes, place) for nodes in found.host),
        out=[place[by_place[column]] for column in range(len(by_place))],
        place=place,
        label_of={node.attrs["label"]: node for _, node in reductions},
        busy=tuple(bool(nodes) or (last and _stores_small(found)) for nodes, last in _with_last(found.small)),
    )


def _stores_small(found: Plan) -> bool:
    return any(found.states[key].scope == "tensor" for key in found.writes)


def _with_last(sections: list[list[Expr]]) -> list[tuple[list[Expr], bool]]:
    return [(nodes, index == len(sections) - 1) for index, nodes in enumerate(sections)]


_P, _I = ctypes.c_void_p, ctypes.c_int64
_STAGE: Final = (_P, _P, _I, _P, _P, _P, _I, _P, _P, ctypes.c_int)
_SECTION: Final = (_P, _P, _I, _P, _P, _I, ctypes.c_int)
_TICK: Final = (_P, _I, _P)


def _function(library: ctypes.CDLL, name: str, arguments: tuple[Any, ...]) -> _Call:
    found = getattr(library, name)
    found.argtypes = arguments
    found.restype = ctypes.c_int if name == "tick" else None
    return found  # type: ignore[no-any-return]


class Launch:
    """A kernel on a fixed set of tensors: the table of addresses, the chunks, the scratch space."""

    def __init__(self, kernel: Kernel, parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> None:
        self.kernel = kernel
        self.contiguous = all(parameter.is_contiguous() for parameter in parameters)
        self.parallel = sum(parameter.numel() for parameter in parameters) > _SERIAL
        self.parameters = list(parameters)
        self.states = list(states)
        at = kernel.layout
        n = len(self.parameters)
        self.step_counts = [state["step"] for state in self.states]
        self.kept = [tensor for state in self.states for tensor in state.values()]
        self.addresses = [p.data_ptr() for p in self.parameters]
        self.shapes = [matrix_shape(p) for p in self.parameters]
        table = np.zeros((n, at.width), dtype=np.int64)
        for row, (parameter, state) in enumerate(zip(self.parameters, self.states, strict=True)):
            for column, name in enumerate(at.arrays):
                if name == "w":
                    table[row, column] = parameter.data_ptr()
                elif name != "g":
                    table[row, column] = state[name].data_ptr()
            rows, columns = self.shapes[row]
            base = len(at.arrays)
            table[row, base : base + 3] = (rows, columns, rows * columns)
            table[row, -1] = state["step"].data_ptr()
        lengths = [
            [rows if node.dims == ("m", "1") else columns for _, node in at.vectors.values()]
            for rows, columns in self.shapes
        ]
        offset = 0
        for row, row_lengths in enumerate(lengths):
            for k, length in enumerate(row_lengths):
                table[row, len(at.arrays) + 3 + k] = offset
                offset += length
        self.table = table
        self.chunks, partial_columns = _chunks(self.shapes, kernel)
        self.scalars = np.zeros((n, max(1, len(at.scalars))), dtype=np.float64)
        self.vectors = np.zeros(max(1, offset), dtype=np.float64)
        self.partials = np.zeros(max(1, len(self.chunks) * max((*at.partials, 1))), dtype=np.float64)
        self.column_partials = np.zeros(max(1, partial_columns), dtype=np.float64)
        self.counts = np.zeros(max(1, n), dtype=np.float64)
        self.host = np.zeros((n, max(1, len(at.host))), dtype=np.float64)
        self.gradients: list[Tensor] = []
        self._addresses_of_gradients: list[int] = []
        self._g = table[:, at.arrays.index("g")]
        self._bind()

    def _bind(self) -> None:
        """Take the addresses of the tables once: they never move while the launch lives."""
        self._T, self._S, self._V = (a.ctypes.data for a in (self.table, self.scalars, self.vectors))
        self._C, self._P, self._Q = (a.ctypes.data for a in (self.chunks, self.partials, self.column_partials))
        self._H, self._counts = (a.ctypes.data for a in (self.host, self.counts))

    def still_holds(self) -> bool:
        """Whether every tensor is where it was when the table was made."""
        # A thousand tensors are looked at in every step: all loops here are C's.
        now = list(chain.from_iterable(map(dict.values, self.states)))
        return (
            len(now) == len(self.kept)
            and all(map(operator.is_, now, self.kept))
            and list(map(Tensor.data_ptr, self.parameters)) == self.addresses
        )

    def set_gradients(self, gradients: list[Tensor]) -> None:
        """Write the addresses of this step's gradients into the table."""
        self.gradients = gradients  # a copy made for this step must live as long as its address is used
        addresses = list(map(Tensor.data_ptr, gradients))
        if addresses != self._addresses_of_gradients:
            self._addresses_of_gradients = addresses
            self._g[:] = addresses


def _chunks(shapes: Sequence[tuple[int, int]], kernel: Kernel) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    """Cut tensors into chunks: tensor, first, count, offset of its column sums. Borders depend on shapes alone."""
    rows_matter = kernel.plan.two_dimensional
    column_sums = max(sum(r.dims == ("1", "n") for r in stage.reductions) for stage in kernel.plan.stages)
    found: list[tuple[int, int, int, int]] = []
    offset = 0
    for tensor, (rows, columns) in enumerate(shapes):
        total = rows if rows_matter else rows * columns
        length = CHUNK
        if rows_matter:
            length = max(1, CHUNK // max(1, columns))
            if column_sums:
                length = max(length, -(-rows // MOST_CHUNKS))
        for first in range(0, total, length):
            found.append((tensor, first, min(length, total - first), offset))
            offset += column_sums * columns
    return np.array(found, dtype=np.int64).reshape(-1, 4), offset


class NativeBatch:
    """A launch on its way through one step."""

    def __init__(self, launch: Launch, numbers: Numbers, clock: float, group: int) -> None:
        self.launch = launch
        self.group = group
        self.numbers = numbers
        self.clock = clock
        self.threads = torch.get_num_threads() if launch.parallel else 1
        kernel = launch.kernel
        n = len(launch.parameters)
        equal = kernel.tick(launch._T, n, launch._counts)
        self.shared = {key: float(launch.states[0][key]) for key in kernel.shared}
        # One row of host values serves all tensors that agree in step count and, if it matters, in shape.
        if equal and (not kernel.needs_sizes or len(set(launch.shapes)) == 1):
            self.rows = [(launch.counts[0], launch.shapes[0])]
            self.members: list[np.ndarray[Any, Any] | None] = [None]
            self.stride = 0
        else:
            keys = list(
                zip(launch.counts[:n].tolist(), launch.shapes if kernel.needs_sizes else [(0, 0)] * n, strict=True)
            )
            self.rows = list(dict.fromkeys(keys))
            where = np.array([self.rows.index(key) for key in keys])
            self.members = [np.flatnonzero(where == index) for index in range(len(self.rows))]
            self.stride = launch.host.shape[1]
        self.registers = [self._inputs(count, shape) for count, shape in self.rows]
        self.done = -1

    def _inputs(self, count: float, shape: tuple[int, int]) -> list[Any]:
        kernel = self.launch.kernel
        registers: list[Any] = [0.0] * kernel.registers
        rows, columns = shape
        given = {"t": float(count), "clock": self.clock, "rows": float(rows), "columns": float(columns)}
        given["size"] = float(rows * columns)
        for name, place in kernel.inputs.items():
            registers[place] = given[name]
        for place, hyper in kernel.hypers:
            registers[place] = self.numbers[hyper]
        for key, place in kernel.shared.items():
            registers[place] = self.shared[key]
        return registers

    def crossings(self) -> list[Expr]:
        """Return the reductions over several tensors."""
        return list(self.launch.kernel.label_of.values())

    def _section(self, index: int) -> None:
        """Compute what lies before a stage: host values, then what is small."""
        launch, kernel = self.launch, self.launch.kernel
        for registers, members in zip(self.registers, self.members, strict=True):
            kernel.host[index](registers)
            if index == len(kernel.stages) and not kernel.busy[index]:
                continue  # nobody reads the table any more
            values = [registers[place] for place in kernel.out]
            if values:
                launch.host[0 if members is None else members] = values
        if not kernel.busy[index]:
            return
        kernel.sections[index](
            launch._T, launch._H, self.stride, launch._S, launch._V, len(launch.parameters), self.threads
        )

    def _until(self, stage: int) -> None:
        """Run all stages up to this one."""
        launch = self.launch
        while self.done < stage:
            self.done += 1
            self._section(self.done)
            launch.kernel.stages[self.done](
                launch._T, launch._H, self.stride, launch._S, launch._V, launch._C, len(launch.chunks),
                launch._P, launch._Q, self.threads,
            )  # fmt: skip

    def reduce(self, label: str) -> float:
        """Return the sum, or maximum, over this batch."""
        _, level, column = self.launch.kernel.crossings[label]
        self._until(level)
        values = self.launch.scalars[:, column]
        op = self.launch.kernel.label_of[label].op
        return float(values.max() if op == "largest" else values.sum())

    def resolve(self, label: str, value: Any) -> None:
        """Take the value over all batches as a host number."""
        place = self.launch.kernel.crossings[label][0]
        for registers in self.registers:
            registers[place] = float(value)

    def finish(self) -> SharedWrites:
        """Run what is left."""
        kernel = self.launch.kernel
        self._until(len(kernel.stages) - 1)
        self._section(len(kernel.stages))
        shared: SharedWrites = []
        for key, value in kernel.plan.writes.items():
            if kernel.plan.states[key].scope != "tensor":
                number = self.registers[0][kernel.place[id(value)]] if isinstance(value, Expr) else value
                shared.append((self.launch.states[0][key], number))
        return shared
