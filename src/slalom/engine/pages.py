"""Large memory pages for large states: rows that lie anywhere in a tall table are found through far fewer entries."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

_LARGE: Final = 1 << 25  # bytes; what is smaller fits what a processor remembers of small pages, or nearly
_ADVICE: Final = 14  # MADV_HUGEPAGE


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    """Return the system's call, None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError, AttributeError):
        found = ctypes.CDLL(None, use_errno=True).madvise
        found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return found
    return None


def filled(like: Tensor, value: float, dtype: torch.dtype) -> Tensor:
    """Return ``torch.full_like``, on large pages where the system has them on request.

    It is advice: a system that does not follow it, or has no such pages, does as ever.
    """
    made = torch.empty_like(like, dtype=dtype)
    advise = _advise()
    size = made.numel() * made.element_size()
    if advise is not None and size >= _LARGE and made.device.type == "cpu" and made.layout == torch.strided:
        begin = -(-made.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(begin, made.data_ptr() + size - begin, _ADVICE)
    return made.fill_(value)
