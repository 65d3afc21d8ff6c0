"""Truth values as bits of bytes, for messages."""

from __future__ import annotations

import torch
from torch import Tensor


def packed(flags: Tensor) -> Tensor:
    """Return a vector of truth values as bytes, eight in each, the first in the lowest bit."""
    padded = torch.nn.functional.pad(flags.to(torch.uint8), (0, -len(flags) % 8)).reshape(-1, 8)
    return (padded << _places(flags.device)).sum(1, dtype=torch.uint8)


def bools(message: Tensor, size: int) -> Tensor:
    """Return the first so many truth values of what `packed` made."""
    return ((message[:, None] >> _places(message.device)) & 1).flatten()[:size].bool()


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
