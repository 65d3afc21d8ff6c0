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
from slalom.engine.batch import Numbers
from slalom.engine.fused import Held, planned
from slalom.engine.native.build import CompileError, cache_folder
from slalom.engine.plan import Plan, Stage, UnplannableError
from slalom.engine.program import Program
from slalom.engine.storage import STEP, matrix_shape
from slalom.engine.triton.batch import TritonBatch
from slalom.engine.triton.chunks import ABREAST, cut, table
from slalom.engine.triton.emit import by_extent, emit_triton, supports_triton
from slalom.engine.triton.places import Places, find_places

# Partial sums of a tensor that a program combines at a time; of rows or columns, so many tiles; small values.
COMBINED: Final = 1024
WAYS: Final = 32
SMALL: Final = 4096
WARPS: Final = 8


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
        rows, room = table(at, self.parameters, self.states, shapes, counts)
        self.aligned = not (rows[:, : len(at.base.arrays)] & 15).any()
        chunks, self.shapes, ranges, lists, partials = cut(plan, shapes, aligned=self.aligned)
        self.T, self.C, self.R = self._on_device(rows), self._on_device(chunks), self._on_device(ranges)
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
