"""What `DistributedDataParallel` asks of a communication hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def communication_hook(function: _Hook) -> _Hook:
    """Annotate a hook with types themselves: torch looks at them and knows no deferred ones."""
    if dist.is_available():
        function.__annotations__ |= {"bucket": vars(dist)["GradBucket"], "return": torch.futures.Future[Tensor]}
    return function
