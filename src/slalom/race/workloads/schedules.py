"""How the built-in workloads move the learning rate over a run."""

from __future__ import annotations

import math


def warmup_cosine(progress: float, warmup: float = 0.05) -> float:
    """Rise linearly over the first twentieth of the run, then fall along a cosine to zero."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
