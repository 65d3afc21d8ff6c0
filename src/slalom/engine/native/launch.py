"""The CPU executor: a plan compiled to C, run over all tensors of a group through one table of addresses."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from slalom.engine.batch import Numbers
from slalom.engine.fused import Held
from slalom.engine.native.batch import NativeBatch
from slalom.engine.native.build import load
from slalom.engine.native.emit import CHUNK, MOST_CHUNKS, emit
from slalom.engine.native.scan import finite_in_table, units
from slalom.engine.native.wiring import Wiring, wire
from slalom.engine.plan import Plan, host_function
from slalom.engine.program import Program
from slalom.engine.storage import STEP, matrix_shape

DTYPES: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

# Below this many elements waking a second thread costs more than it saves.
_SERIAL: Final = 65536

_Call = Callable[..., int]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A program compiled for one dtype of parameters.

    Attributes:
        wiring: its plan and host side.
        stages, sections: the functions of the library.
        tick: counts steps.
        host: computes host values, one function per section.
    """

    wiring: Wiring
    stages: tuple[_Call, ...]
    sections: tuple[_Call, ...]
    tick: _Call
    host: tuple[Callable[[list[Any]], None], ...]


@functools.lru_cache(maxsize=256)
def kernel(program: Program, dtype: str) -> Kernel:
    """Return the compiled kernel of a program.

    Raises:
        UnplannableError: if the program cannot be fused.
        CompileError: if it cannot be compiled.
    """
    wiring = wire(program)
    found = wiring.plan
    library = load(emit(found, dtype))
    return Kernel(
        wiring=wiring,
        stages=tuple(_function(library, f"stage{k}", _STAGE) for k in range(len(found.stages))),
        sections=tuple(_function(library, f"section{k}", _SECTION) for k in range(len(found.small))),
        tick=_function(library, "tick", _TICK),
        host=tuple(host_function(nodes, wiring.place) for nodes in found.host),
    )


_P, _I = ctypes.c_void_p, ctypes.c_int64
_STAGE: Final = (_P, _P, _I, _P, _P, _P, _I, _P, _P, ctypes.c_int)
_SECTION: Final = (_P, _P, _I, _P, _P, _I, ctypes.c_int)
_TICK: Final = (_P, _I, _P, ctypes.c_int)


def _function(library: ctypes.CDLL, name: str, arguments: tuple[Any, ...]) -> _Call:
    found = getattr(library, name)
    found.argtypes = arguments
    found.restype = ctypes.c_int if name == "tick" else None
    return found  # type: ignore[no-any-return]


class Launch(Held):
    """A kernel on a fixed set of tensors: the table of addresses, the chunks, the scratch space."""

    def __init__(self, kernel: Kernel, parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> None:
        super().__init__(parameters, states)
        self.kernel = kernel
        self.contiguous = all(parameter.is_contiguous() for parameter in parameters)
        self.parallel = sum(parameter.numel() for parameter in parameters) > _SERIAL
        at = kernel.wiring.layout
        n = len(self.parameters)
        self.shapes = [matrix_shape(p, kernel.wiring.plan.view) for p in self.parameters]
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
            table[row, -1] = state[STEP].data_ptr()
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
        self.chunks, partial_columns = _chunks(self.shapes, kernel.wiring.plan)
        self.scalars = np.zeros((n, max(1, len(at.scalars))), dtype=np.float64)
        self.vectors = np.zeros(max(1, offset), dtype=np.float64)
        self.partials = np.zeros(max(1, len(self.chunks) * max((*at.partials, 1))), dtype=np.float64)
        self.column_partials = np.zeros(max(1, partial_columns), dtype=np.float64)
        self.counts = np.zeros(max(1, n), dtype=np.float64)
        self.host = np.zeros((n, max(1, len(at.host))), dtype=np.float64)
        self.gradients: list[Tensor] = []
        self._addresses_of_gradients: list[int] = []
        self._g = table[:, at.arrays.index("g")]
        self._pieces = units(parameter.numel() for parameter in self.parameters)
        self._bind()

    def _bind(self) -> None:
        """Take the addresses of the tables once: they never move while the launch lives."""
        self._T, self._S, self._V = (a.ctypes.data for a in (self.table, self.scalars, self.vectors))
        self._C, self._P, self._Q = (a.ctypes.data for a in (self.chunks, self.partials, self.column_partials))
        self._H, self._counts = (a.ctypes.data for a in (self.host, self.counts))

    def batch(self, numbers: Numbers, clock: float, group: int, *, counts_step: bool = True) -> NativeBatch:
        """Return the batch of one step."""
        return NativeBatch(self, numbers, clock, group, counts_step=counts_step)

    def set_gradients(self, gradients: list[Tensor]) -> None:
        """Write the addresses of this step's gradients into the table."""
        self.gradients = gradients  # a copy made for this step must live as long as its address is used
        addresses = list(map(Tensor.data_ptr, gradients))
        if addresses != self._addresses_of_gradients:
            self._addresses_of_gradients = addresses
            self._g[:] = addresses

    def all_finite(self) -> bool:
        """Return whether the gradients that were set are finite, in one pass that asks Python for nothing."""
        at, whole = self.kernel.wiring.layout, self._T
        g, count = whole + 8 * at.arrays.index("g"), whole + 8 * (len(at.arrays) + 2)
        return finite_in_table(g, count, at.width, len(self.parameters), self._pieces, self.parameters[0].dtype)


def _chunks(shapes: Sequence[tuple[int, int]], plan: Plan) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    """Cut tensors into chunks: tensor, first, count, offset of its column sums. Borders depend on shapes alone."""
    rows_matter = plan.two_dimensional
    column_sums = max(sum(r.dims == ("1", "n") for r in stage.reductions) for stage in plan.stages)
    found: list[tuple[int, int, int, int]] = []
    offset = 0
    for tensor, (rows, columns) in enumerate(shapes):
        total = rows if rows_matter else rows * columns
        length = CHUNK
        if rows_matter:
            length = max(1, CHUNK // max(1, columns))
            if column_sums:
                # every chunk leaves a row of sums: few and large ones keep that small beside the tensor
                length = max(8 * length, -(-rows // MOST_CHUNKS))
        for first in range(0, total, length):
            found.append((tensor, first, min(length, total - first), offset))
            offset += column_sums * columns
    return np.array(found, dtype=np.int64).reshape(-1, 4), offset
