"""Whether tensors hold nan or infinity: one compiled pass over all of them, where tensors are many and small too."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import torch
from torch import Tensor

from slalom.engine.native.build import CompileError, compiler, load
from slalom.engine.native.prelude import PREAMBLE
from slalom.engine.native.threads import threads

# A number is not finite if all bits of its exponent are set: its width in bytes, the exponent's mask, how many numbers.
_FORMATS: Final[dict[torch.dtype, tuple[int, int, int]]] = {
    torch.float16: (2, 0x7C00, 1),
    torch.bfloat16: (2, 0x7F80, 1),
    torch.float32: (4, 0x7F800000, 1),
    torch.float64: (8, 0x7FF0000000000000, 1),
    torch.complex64: (4, 0x7F800000, 2),
    torch.complex128: (8, 0x7FF0000000000000, 2),
}
_UNIT: Final = 32768
_SERIAL: Final = 65536

_WIDTH: Final = """
static int bad{bits}(const uint{bits}_t *x, int64_t n, uint{bits}_t mask) {{
    uint{bits}_t found = 0;
    for (int64_t i = 0; i < n; i++) found |= (uint{bits}_t)((x[i] & mask) == mask);
    return found != 0;
}}
static void range{bits}(const args_t *a, int64_t first, int64_t last) {{
    const uint{bits}_t mask = (uint{bits}_t)a->hs;
    int64_t unit = 0;
    for (int64_t k = 0; k < a->tensors && unit < last; k++) {{
        const uint{bits}_t *x = (const uint{bits}_t *)a->T[k * a->chunks];
        const int64_t count = a->C[k * a->chunks];
        for (int64_t at = 0; at < count; at += {unit}, unit++) {{
            if (unit < first || unit >= last) continue;
            int64_t left = count - at;
            if (bad{bits}(x + at, left < {unit} ? left : {unit}, mask)) {{ a->S[0] = 1.0; return; }}
        }}
    }}
}}
"""
_ENTRY: Final = """
/* Addresses and counts lie in rows of a table, `stride` numbers apart. */
int bad(const int64_t *T, const int64_t *C, int64_t stride, int64_t tensors, int64_t units, int64_t mask, int width,
        int threads) {
    double found = 0.0;  /* every thread that writes it writes 1 */
    args_t a = {T, 0, mask, &found, 0, C, stride, 0, 0, tensors};
    sl_run(width == 2 ? range16 : width == 4 ? range32 : range64, &a, units, threads);
    return found != 0.0;
}
"""


@functools.cache
def _bad() -> Any:
    """Return the compiled function, None where it cannot be had."""
    if compiler() is None:
        return None
    widths = "".join(_WIDTH.format(bits=bits, unit=_UNIT) for bits in (16, 32, 64))
    try:
        found = load(PREAMBLE + widths + _ENTRY).bad
    except CompileError:
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4, ctypes.c_int, ctypes.c_int)
    found.restype = ctypes.c_int
    return found


def finite(tensors: Sequence[Tensor]) -> bool | None:
    """Return whether all values of all tensors are finite; None if these are not for this pass, which reads CPUs."""
    if not (all(map(attrgetter("is_cpu"), tensors)) and not any(map(attrgetter("is_sparse"), tensors))):
        return None
    dtypes = set(map(attrgetter("dtype"), tensors))
    if _bad() is None or not dtypes <= _FORMATS.keys():
        return None
    if len(dtypes) == 1:
        return _finite(tensors, *_FORMATS[dtypes.pop()])
    return all(_finite([t for t in tensors if t.dtype == dtype], *_FORMATS[dtype]) for dtype in dtypes)


def _finite(tensors: Sequence[Tensor], width: int, mask: int, numbers: int) -> bool:
    if not all(map(Tensor.is_contiguous, tensors)):
        tensors = [tensor.contiguous() for tensor in tensors]
    counts = [numbers * count for count in map(Tensor.numel, tensors)]
    table = ctypes.c_int64 * len(counts)
    most = threads() if sum(counts) > _SERIAL else 1
    addresses = table(*map(Tensor.data_ptr, tensors))
    return not _bad()(addresses, table(*counts), 1, len(counts), units(counts), mask, width, most)


def units(counts: Iterable[int]) -> int:
    """Return into how many pieces the pass cuts tensors of these many numbers."""
    return sum(-(-count // _UNIT) for count in counts)


def finite_in_table(addresses: int, counts: int, stride: int, tensors: int, pieces: int, dtype: torch.dtype) -> bool:
    """Return whether all values are finite, of tensors whose addresses and counts a kernel's table holds already.

    Args:
        addresses: where in memory the first address is.
        counts: where the first count of numbers is.
        stride: how many int64 a row of the table has.
        tensors: the number of rows.
        pieces: what `units` gives for their counts.
        dtype: of all of them.
    """
    width, mask, _ = _FORMATS[dtype]
    most = threads() if pieces > 2 else 1
    return not _bad()(addresses, counts, stride, tensors, pieces, mask, width, most)
