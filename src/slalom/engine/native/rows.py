"""Touched rows in C: duplicates summed by hashing, then the compiled plan on every row where it lies, without copies.

A row of a table is a matrix of one row to a kernel: it has an address in the parameter, one in every state and one in
the gradient. So the table of addresses that kernels read anyway serves as the index of rows.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from slalom.algebra import REDUCTIONS
from slalom.engine.native.build import CompileError, load
from slalom.engine.native.launch import Kernel, Launch
from slalom.engine.program import Program
from slalom.engine.storage import STEP

# Rows lie anywhere in memory: threads wait for it side by side, which pays sooner than arithmetic does.
_SERIAL: Final = 16384

_SOURCE: Final = r"""
#include <stdint.h>
#include <string.h>

/* Rows in the order in which they first occur; equal ones added up in the order in which they come. `slots` has room
   for `size` places, a power of two above twice the count, all -1. Returns how many different rows there are. */
int64_t sum_duplicates(const int64_t *rows, const float *values, int64_t count, int64_t columns, int32_t *slots,
                       int64_t size, int64_t *found, float *sums) {
    int64_t different = 0;
    for (int64_t i = 0; i < count; i++) {
        uint64_t place = ((uint64_t)rows[i] * 0x9E3779B97F4A7C15ull) >> 32 & (uint64_t)(size - 1);
        while (slots[place] >= 0 && found[slots[place]] != rows[i]) place = (place + 1) & (uint64_t)(size - 1);
        const float *from = values + i * columns;
        if (slots[place] < 0) {
            slots[place] = (int32_t)different;
            found[different] = rows[i];
            memcpy(sums + different * columns, from, (size_t)columns * sizeof(float));
            different++;
        } else {
            float *to = sums + (int64_t)slots[place] * columns;
            for (int64_t j = 0; j < columns; j++) to[j] += from[j];
        }
    }
    return different;
}

/* The table of addresses with a row for every touched one: base + pitch * row for what is kept, base + pitch * place
   for what is made for this step. Sizes, offsets of vectors
   and the step count follow; every row is one chunk. */
void lay_rows(const int64_t *rows, int64_t count, int64_t width, int64_t arrays, int64_t gradient, const int64_t *base,
              const int64_t *pitch, int64_t columns, int64_t vectors, const int64_t *length, float *steps, float step,
              int64_t per_chunk, int64_t *table, int64_t *chunks) {
    for (int64_t i = 0; i < count; i++) {
        int64_t *t = table + i * width, offset = 0;
        for (int64_t k = 0; k < arrays; k++) t[k] = base[k] + pitch[k] * (k == gradient ? i : rows[i]);
        t[arrays] = 1;
        t[arrays + 1] = t[arrays + 2] = columns;
        for (int64_t k = 0; k < vectors; k++) {
            t[arrays + 3 + k] = offset + i * length[k];
            offset += count * length[k];
        }
        steps[i] = step;
        t[width - 1] = (int64_t)(steps + i);
        int64_t *c = chunks + 4 * i;
        c[0] = i; c[1] = 0; c[2] = per_chunk; c[3] = 0;
    }
}
"""


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = load(_SOURCE)
    except CompileError:
        return None
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    library.sum_duplicates.argtypes = (pointer, pointer, whole, whole, pointer, whole, pointer, pointer)
    library.sum_duplicates.restype = whole
    library.lay_rows.argtypes = (
        *(pointer, whole, whole, whole, whole, pointer, pointer, whole, whole, pointer, pointer),
        *(ctypes.c_float, whole, pointer, pointer),
    )
    library.lay_rows.restype = None
    return library


class Scratch:
    """Memory that is used again at every step: asking the system for it costs as much as the step itself."""

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray[Any, Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Return an array with whatever is in it."""
        length = math.prod(shape)
        if name not in self._kept or len(self._kept[name]) < length:
            self._kept[name] = np.empty(length + length // 4, dtype=dtype)
        return self._kept[name][:length].reshape(shape)


def summed(gradient: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor]:
    """Return the different rows of a sparse gradient, and the sums of their values; they hold for this step."""
    values, given = gradient._values(), gradient._indices()[0]
    if len(given) and not 0 <= int(given.min()) <= int(given.max()) < len(gradient):
        # torch checks this only when asked to; kernels would write anywhere
        raise RuntimeError(
            f"a sparse gradient names rows outside of its {len(gradient)}: it was made by hand, wrongly."
        )
    quick = values.dtype == torch.float32 and values.device.type == "cpu" and values.is_contiguous()
    library = _library() if quick and not gradient.is_coalesced() and 0 < len(values) < 2**30 else None
    if library is None:
        whole = gradient.coalesce()
        return whole.indices()[0], whole.values()
    rows = given.contiguous()
    count, columns = len(rows), values[0].numel()
    size = 1 << (2 * count).bit_length()
    slots = scratch.take("slots", (size,), np.int32)
    slots.fill(-1)
    found = torch.from_numpy(scratch.take("found", (count,), np.int64))
    sums = torch.from_numpy(scratch.take("sums", tuple(values.shape), np.float32))
    different = library.sum_duplicates(
        rows.data_ptr(), values.data_ptr(), count, columns, slots.ctypes.data, size, found.data_ptr(), sums.data_ptr()
    )
    return found[:different], sums[:different]


@functools.lru_cache(maxsize=256)
def is_local(program: Program) -> bool:
    """Whether every row computes alone: nothing but rows is summed or kept."""
    alone = all(node.op not in REDUCTIONS or node.attrs["per"] == "row" for node in program.nodes)
    return alone and all(slot.per in ("element", "row") for slot in program.states.values())


@functools.lru_cache(maxsize=256)
def _by_rows(kernel: Kernel) -> bool:
    """Whether a kernel's chunks are counted in rows, not in elements; to find out, the whole plan is walked."""
    return kernel.wiring.plan.two_dimensional


class RowsLaunch(Launch):
    """A kernel on the touched rows of one table, each a tensor of its own to it."""

    def __init__(
        self,
        kernel: Kernel,
        parameter: Tensor,
        state: dict[str, Tensor],
        rows: Tensor,
        gradient: Tensor,
        scratch: Scratch,
    ) -> None:
        at = kernel.wiring.layout
        count, columns = len(rows), gradient.shape[1:].numel()
        self.kernel = kernel
        self.parallel = gradient.numel() > _SERIAL
        self.gradients = [gradient]  # lives as long as its address is used
        self.parameters = range(count)  # type: ignore[assignment]  # only their number is asked for
        self.states = [state]
        self.shapes = [(1, columns)]
        arrays = [{"w": parameter, "g": gradient}.get(name, state.get(name, parameter)) for name in at.arrays]
        base = np.array([tensor.data_ptr() for tensor in arrays], dtype=np.int64)
        pitch = np.array([tensor.stride(0) * tensor.element_size() for tensor in arrays], dtype=np.int64)
        lengths = [1 if node.dims == ("m", "1") else columns for _, node in at.vectors.values()]
        length = np.array(lengths, dtype=np.int64)
        self.table = scratch.take("table", (count, at.width), np.int64)
        self.chunks = scratch.take("chunks", (count, 4), np.int64)
        # The kernel counts a step for every tensor it sees; these rows share one count.
        self._steps = scratch.take("steps", (count,), np.float32)
        library = _library()
        assert library is not None  # whatever built the kernel built this
        library.lay_rows(
            rows.data_ptr(), count, at.width, len(arrays), at.arrays.index("g"), base.ctypes.data, pitch.ctypes.data,
            columns, len(lengths), length.ctypes.data, self._steps.ctypes.data, float(state[STEP]),
            1 if _by_rows(kernel) else columns, self.table.ctypes.data, self.chunks.ctypes.data,
        )  # fmt: skip
        state[STEP] += 1.0
        self.scalars = scratch.take("scalars", (count, max(1, len(at.scalars))), np.float64)
        self.vectors = scratch.take("vectors", (max(1, count * sum(lengths)),), np.float64)
        self.partials = scratch.take("partials", (max(1, count * max((*at.partials, 1))),), np.float64)
        self.column_partials = np.zeros(1, dtype=np.float64)
        self.counts = scratch.take("counts", (count,), np.float64)
        self.host = np.zeros((1, max(1, len(at.host))), dtype=np.float64)
        self._bind()
