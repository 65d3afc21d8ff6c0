"""How many threads compiled kernels run on: as many as torch, whose OpenMP runtime they share."""

from __future__ import annotations

import os
from typing import Final

import torch

# GNU's OpenMP keeps its threads for the next call. A forked process inherits the list of them and none of the threads,
# and would wait for them for ever; torch's own operations do.
_forks: Final[list[int]] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forks.append(os.getpid()))


def threads() -> int:
    """Return how many threads a kernel may run on; one in a forked process. The number changes no bit of a result."""
    return 1 if _forks else torch.get_num_threads()
