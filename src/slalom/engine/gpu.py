"""The GPU executor: a plan as Triton kernels, over all tensors of a group through one table of addresses.

Nothing here waits for the device. Step counts are kept there, and what only the host knows travels when it changes, so
a step can be captured in a CUDA graph and replayed: it counts on, with the numbers that it was captured with.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from slalom.algebra import Expr
from slalom.engine.batch import LOSS, OVERFLOW, UNSCALE, Numbers, SharedWrites
from slalom.engine.build import CompileError, cache_folder
from slalom.engine.emit_triton import RANGES, by_extent, emit_triton, supports_triton
from slalom.engine.plan import Plan, Stage, UnplannableError
from slalom.engine.program import Program
from slalom.engine.staged import Held, planned
from slalom.engine.storage import matrix_shape
from slalom.engine.triton_places import Places, find_places

STEP: Final = "step"

# Elements per program of a pass; partial sums of a tensor that a program combines at a time; partial sums of rows or
# columns, so many tiles by so many rows; small values.
BLOCK: Final = 2048
COMBINED: Final = 1024
WAYS: Final = 32
ABREAST: Final = 64
SMALL: Final = 4096
WARPS: Final = 8
# Tiles of a row, of narrow matrices, of others: few shapes, since Triton compiles each pass for each of them.
_TILES: Final = ((1, 4096), (256, 16), (64, 64))


@dataclass(frozen=True, eq=False)
class TritonKernel:
    """A program as Triton for one dtype of parameters.

    Attributes:
        plan: what it runs.
        places: where its values lie.
        module: the emitted functions.
        crossings: its reductions over several tensors, by label, each with the stage that computes it.
        busy: which sections have anything to compute.
    """

    plan: Plan
    places: Places
    module: ModuleType
    crossings: dict[str, tuple[int, Expr]]
    busy: tuple[bool, ...]


@functools.cache
def available() -> bool:
    """Return whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


@functools.lru_cache(maxsize=256)
def triton_kernel(program: Program, dtype: str) -> TritonKernel:
    """Return the Triton kernels of a program; Triton itself compiles each when it is first launched.

    Raises:
        UnplannableError: if the program cannot be fused.
    """
    plan = planned(program)
    reason = supports_triton(plan)
    if reason is not None:
        raise UnplannableError(reason)
    stores_small = any(plan.states[key].scope == "tensor" for key in plan.writes)
    last = len(plan.small) - 1
    return TritonKernel(
        plan=plan,
        places=find_places(plan),
        module=_import(emit_triton(plan, dtype)),
        crossings={r.attrs["label"]: (s.index, r) for s in plan.stages for r in s.reductions if "label" in r.attrs},
        busy=tuple(
            bool(small)
            or any("label" not in node.attrs for node in plan.host[index])
            or (index == last and stores_small)
            for index, small in enumerate(plan.small)
        ),
    )


def _import(source: str) -> ModuleType:
    """Import emitted text; Triton reads a kernel's source from its file, so there must be one."""
    name = f"slalom_triton_{hashlib.sha256(source.encode()).hexdigest()[:24]}"
    if name not in sys.modules:
        file = cache_folder() / f"{name}.py"
        _write(file, source)  # always written anew: what is imported is what was emitted
        specification = importlib.util.spec_from_file_location(name, file)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def _write(file: Path, text: str) -> None:
    """Write a file that another process, which writes the same one, may be reading."""
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".build-", suffix=".py")
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    os.replace(draft, file)


@dataclass(frozen=True)
class _Shape:
    """How one kind of chunk is cut, and the chunks of that kind: a slice of the table."""

    sizes: tuple[int, ...]
    aligned: bool
    first: int
    count: int


class TritonLaunch(Held):
    """Kernels on a fixed set of tensors: the tables, on their device.

    Raises:
        CompileError: if Triton cannot compile them.
    """

    def __init__(self, kernel: TritonKernel, parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> None:
        super().__init__(parameters, states)
        self.kernel = kernel
        self.contiguous = all(parameter.is_contiguous() for parameter in parameters)
        self.device = parameters[0].device
        self.gradients: list[Tensor] = []
        self._gradient_addresses: list[int] = []
        self._numbers: list[Any] = []
        self._captured: list[Tensor] = []
        plan, at = kernel.plan, kernel.places
        n = len(parameters)
        shapes = [matrix_shape(parameter, plan.view) for parameter in parameters]
        # Matrix phases ask for step counts on the host; then the device has copies.
        steps = [state[STEP] for state in self.states]
        self.mirrored = None if steps[0].device == self.device else self._zeros(n, dtype=torch.float32)
        self.unread = self.mirrored is None
        counts = [step.data_ptr() for step in steps]
        if self.mirrored is not None:
            counts = [self.mirrored.data_ptr() + 4 * place for place in range(n)]
        table, room = _table(at, self.parameters, self.states, shapes, counts)
        self.aligned = not (table[:, : len(at.base.arrays)] & 15).any()
        chunks, self.shapes, ranges, lists, partials = _cut(plan, shapes, aligned=self.aligned)
        self.T, self.C, self.R = self._on_device(table), self._on_device(chunks), self._on_device(ranges)
        self.L = {extent: self._on_device(places) for extent, places in lists.items()}
        self.G = self._zeros(n, dtype=torch.int64)
        self.N, self.S = self._zeros(at.overflow + 1), self._zeros(n * max(1, len(at.scalars)))
        self.V, self.Q = self._zeros(max(1, room)), self._zeros(max(1, partials), dtype=torch.float32)
        self.P = self._zeros(max(1, len(chunks) * max((*at.base.partials, 1))))
        self.sections = [self._section(index) for index in range(len(plan.small))]
        self.stages = [self._passes(stage) for stage in plan.stages]
        self._fits = True  # whether this step's gradients are aligned too
        self._compile()

    def _zeros(self, length: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(length, dtype=dtype, device=self.device)

    def _on_device(self, array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(-1)).to(self.device)

    def _compile(self) -> None:
        """Launch everything on nothing, so that what cannot be compiled is known before a step has begun."""
        try:
            for index, section in enumerate(self.sections):
                if index == 0:
                    self._launch(section, 0, TICK=1)
                self._launch(section, 0, TICK=0)
            for passes in self.stages:
                for call in passes:
                    self._launch(call, 0)
        except Exception as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise CompileError(f"Triton cannot compile this recipe: {first}") from error

    def batch(self, numbers: Numbers, clock: Any, group: int, *, counts_step: bool = True) -> TritonBatch:
        """Return the batch of one step."""
        return TritonBatch(self, numbers, clock, group, counts_step=counts_step)

    def set_gradients(self, gradients: list[Tensor]) -> None:
        """Write the addresses of this step's gradients into their table."""
        self.gradients = gradients
        addresses = [gradient.data_ptr() for gradient in gradients]
        if addresses != self._gradient_addresses or self._is_recorded():
            self._gradient_addresses = addresses
            self._fits = all(address % 16 == 0 for address in addresses)
            self._copy(self.G, addresses, torch.int64)

    def set_numbers(self, values: list[Any]) -> None:
        """Write what all tensors share; numbers travel when they changed, tensors are copied where they are."""
        numbers = [None if isinstance(value, Tensor) else float(value) for value in values]
        if numbers != self._numbers or self._is_recorded():  # nan differs from itself, and travels
            self._numbers = numbers
            self._copy(self.N, [0.0 if value is None else value for value in numbers], torch.float64)
        for place, value in enumerate(values):
            if isinstance(value, Tensor):
                self.N[place].copy_(value.detach().reshape(()))

    def _is_recorded(self) -> bool:
        """Whether a step was or is being captured: a replay then puts back what it was captured with."""
        return bool(self._captured) or (self.device.type == "cuda" and torch.cuda.is_current_stream_capturing())

    def _copy(self, target: Tensor, values: list[Any], dtype: torch.dtype) -> None:
        """Send numbers without waiting; a captured copy reads its source again whenever it is replayed."""
        if not values:
            return
        on_gpu = self.device.type == "cuda"
        source = torch.tensor(values, dtype=dtype, pin_memory=on_gpu)
        target[: len(values)].copy_(source, non_blocking=True)
        if on_gpu and torch.cuda.is_current_stream_capturing():
            self._captured.append(source)

    # --- kernels ---------------------------------------------------------------------------------

    def _section(self, index: int) -> _Call:
        """What computes what is small: one program per tensor."""
        warps = WARPS if self.kernel.plan.two_dimensional else 1
        function = getattr(self.kernel.module, f"section{index}")
        constants = {"BLOCK": SMALL, "num_warps": warps}
        return _Call(function, len(self.parameters), (self.T, self.N, self.S, self.V), constants)

    def _passes(self, stage: Stage) -> list[_Call]:
        """What makes one pass over all elements: a call for each kind of chunk, and those that combine what they leave.

        Programs of a call count from 0, so each gets its part of the chunks and of what chunks leave.
        """
        module, index = self.kernel.module, stage.index
        many = self.kernel.places.base.partials[index]
        names = ("ROWS", "COLUMNS") if self.kernel.plan.two_dimensional else ("BLOCK",)
        calls = []
        for shape in self.shapes:
            chunks, partials = self.C[4 * shape.first :], self.P[shape.first * many :]
            tables = (self.T, self.G, self.N, self.S, self.V, chunks, self.R, partials, self.Q)
            constants = {**dict(zip(names, shape.sizes, strict=True)), "num_warps": WARPS}
            calls.append(_Call(getattr(module, f"stage{index}"), shape.count, tables, constants, aligned=shape.aligned))
        for extent, reduced in by_extent(stage).items():
            if reduced:
                places = self.L.get(extent, self.R)
                programs = len(self.parameters) if extent == "tensor" else len(places) // 2
                left = (self.T, self.R, places, self.P, self.Q, self.S, self.V)
                sizes = {"BLOCK": COMBINED} if extent == "tensor" else {"WAYS": WAYS, "BLOCK": ABREAST}
                constants = {**sizes, "num_warps": WARPS}
                calls.append(_Call(getattr(module, f"{extent}{index}"), programs, left, constants))
        return calls

    def run_section(self, index: int, tick: int) -> None:
        """Compute what is small."""
        call = self.sections[index]
        self._launch(call, call.programs, TICK=tick)

    def run_stage(self, index: int) -> None:
        """Make one pass over all elements."""
        for call in self.stages[index]:
            self._launch(call, call.programs)

    def _launch(self, call: _Call, programs: int, **more: int) -> None:
        """Launch a kernel where its tables are: Triton itself launches on the current device, whatever it is given."""
        if call.aligned is not None:
            more["ALIGNED"] = call.aligned and self._fits
        if self.device.type != "cuda" or self.device.index == torch.cuda.current_device():
            call.function[(programs,)](*call.tables, **call.constants, **more)
            return
        with torch.cuda.device(self.device):
            call.function[(programs,)](*call.tables, **call.constants, **more)


@dataclass(frozen=True, eq=False)
class _Call:
    """A kernel with what it is called with.

    Attributes:
        function: the kernel.
        programs: how many.
        tables: its arguments.
        constants: what it is compiled for.
        aligned: whether all addresses that it reads are known to be multiples of 16; None where it does not matter.
    """

    function: Any
    programs: int
    tables: tuple[Tensor, ...]
    constants: dict[str, int]
    aligned: bool | None = None


def _table(
    at: Places,
    parameters: Sequence[Tensor],
    states: Sequence[dict[str, Tensor]],
    shapes: Sequence[tuple[int, int]],
    counts: Sequence[int],
) -> tuple[np.ndarray[Any, Any], int]:
    """Return the rows of addresses and sizes, and how much room vectors need."""
    arrays, vectors = at.base.arrays, at.base.vectors.values()
    table = np.zeros((len(parameters), at.base.width), dtype=np.int64)
    room = 0
    for row, (parameter, state, (rows, columns)) in enumerate(zip(parameters, states, shapes, strict=True)):
        addresses = [
            parameter.data_ptr() if name == "w" else 0 if name == "g" else state[name].data_ptr() for name in arrays
        ]
        offsets = []
        for _, node in vectors:
            offsets.append(room)
            room += rows if node.dims[0] != "1" else columns
        table[row] = [*addresses, rows, columns, rows * columns, *offsets, counts[row]]
    return table, room


def _cut(
    plan: Plan, shapes: Sequence[tuple[int, int]], *, aligned: bool
) -> tuple[np.ndarray[Any, Any], list[_Shape], np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]], int]:
    """Cut tensors into chunks, those of one shape behind each other.

    Returns:
        The chunks (tensor, first element, how many, whether all of a block; for tiles tensor, first row, first column,
        whether all of the tile exists), their kinds, the ranges of `emit_triton`, where programs that combine rows
        and columns begin, and how many partial sums of rows and columns there are.
    """
    many = {extent: max(len(by_extent(stage)[extent]) for stage in plan.stages) for extent in ("row", "column")}
    kinds: dict[tuple[tuple[int, ...], bool], list[int]] = {}
    for tensor, (rows, columns) in enumerate(shapes):
        sizes: tuple[int, ...] = (BLOCK,)
        wide = aligned
        if plan.two_dimensional:
            sizes = _TILES[0] if rows == 1 else _TILES[1] if columns <= _TILES[1][1] else _TILES[2]
            wide = aligned and columns % 16 == 0
        kinds.setdefault((sizes, wide), []).append(tensor)
    chunks: list[np.ndarray[Any, Any]] = []
    found: list[_Shape] = []
    ranges = np.zeros((len(shapes), RANGES), dtype=np.int64)
    lists: dict[str, list[tuple[int, int]]] = {"row": [], "column": []}
    total = room = 0
    for (sizes, wide), tensors in kinds.items():
        first = total
        for tensor in tensors:
            rows, columns = shapes[tensor]
            cut = (_tiles if plan.two_dimensional else _runs)(tensor, rows, columns, sizes)
            down, across = (-(-rows // sizes[0]), -(-columns // sizes[-1])) if plan.two_dimensional else (0, 0)
            of_rows = many["row"] * rows * across
            ranges[tensor] = (total, len(cut), down, across, room, room + of_rows)
            room += of_rows + many["column"] * columns * down
            total += len(cut)
            chunks.append(cut)
            for extent, length in (("row", rows), ("column", columns)):
                lists[extent] += [(tensor, begin) for begin in range(0, length, ABREAST) if many[extent]]
        found.append(_Shape(sizes, wide, first, total - first))
    arrays = {extent: np.array(places, dtype=np.int64) for extent, places in lists.items() if places}
    return np.concatenate(chunks), found, ranges, arrays, room


def _runs(tensor: int, rows: int, columns: int, sizes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    first = np.arange(0, rows * columns, sizes[0], dtype=np.int64)
    count = np.minimum(rows * columns - first, sizes[0])
    return np.stack([np.full_like(first, tensor), first, count, count == sizes[0]], axis=1)


def _tiles(tensor: int, rows: int, columns: int, sizes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    high, wide = sizes
    grid = np.meshgrid(np.arange(0, rows, high), np.arange(0, columns, wide), indexing="ij")
    i, j = (axis.reshape(-1).astype(np.int64) for axis in grid)
    return np.stack([np.full_like(i, tensor), i, j, (i + high <= rows) & (j + wide <= columns)], axis=1)


class TritonBatch:
    """A launch on its way through one step."""

    def __init__(
        self, launch: TritonLaunch, numbers: Numbers, clock: Any, group: int, *, counts_step: bool = True
    ) -> None:
        self.launch = launch
        self.kernel = launch.kernel
        self.group = group
        self.done = -1
        self.tick = int(counts_step)
        self.may_overflow = OVERFLOW in numbers
        if launch.mirrored is not None:  # counted on the host already
            launch._copy(launch.mirrored, [float(state[STEP]) for state in launch.states], torch.float32)
        given = {"clock": clock, "loss": numbers.get(LOSS, float("nan"))}
        values: list[Any] = []
        for leaf in self.kernel.places.leaves:
            if leaf.op == "hyper":
                values.append(numbers[leaf.attrs["name"], leaf.attrs["index"]])
            elif leaf.op == "state":
                values.append(launch.states[0][leaf.attrs["key"]])
            else:
                values.append(given.get(leaf.attrs.get("name", ""), 0.0))  # reductions come later
        launch.set_numbers([*values, numbers.get(UNSCALE, 1.0), numbers.get(OVERFLOW, 0.0)])

    def crossings(self) -> list[Expr]:
        """Return the reductions over several tensors, in the order in which they depend on each other."""
        return [node for _, node in self.kernel.crossings.values()]

    def reduce(self, label: str) -> Tensor:
        """Return this batch's share of a reduction."""
        stage, node = self.kernel.crossings[label]
        self._until(stage)
        values = self._column(node)
        return values.amax() if node.op == "largest" else values.sum()

    def _column(self, node: Expr) -> Tensor:
        scalars = self.kernel.places.scalars
        return self.launch.S.view(len(self.launch.parameters), -1)[:, scalars[id(node)]]

    def resolve(self, label: str, value: Any) -> None:
        """Take the whole reduction's value."""
        number = self.launch.N[self.kernel.places.numbers[id(self.kernel.crossings[label][1])]]
        number.copy_(torch.as_tensor(value, dtype=torch.float64))

    def finish(self) -> SharedWrites:
        """Run what is left; return what is shared with other batches, to be written last."""
        plan, places, numbers = self.kernel.plan, self.kernel.places, self.launch.N
        self._until(len(plan.stages) - 1)
        self._section(len(plan.stages))
        shared: SharedWrites = []
        for key, value in plan.writes.items():
            if plan.states[key].scope != "tensor":
                found: Any = value
                if isinstance(value, Expr):
                    number = places.numbers.get(id(value))
                    found = self._column(value)[0] if number is None else numbers[number]
                target = self.launch.states[0][key]
                if self.may_overflow:
                    found = torch.where(numbers[places.overflow] == 0, found, target)
                shared.append((target, found))
        return shared

    def _until(self, stage: int) -> None:
        while self.done < stage:
            self.done += 1
            self._section(self.done)
            self.launch.run_stage(self.done)

    def _section(self, index: int) -> None:
        # the first one counts the step
        tick = self.tick if index == 0 else 0
        if self.kernel.busy[index] or tick:
            self.launch.run_section(index, tick)
