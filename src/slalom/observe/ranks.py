"""Sums over the ranks that hold parts of sharded parameters (DTensor)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from slalom.engine.shards import any_sharded


def summed(rows: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Add up each parameter's row over the ranks that hold different parts of it. Every such rank must call this.

    Args:
        rows: one row of sums per parameter, of this rank's parts.
        parameters: whose they are; rows of those that are not sharded stay as they are.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for place, parameter in enumerate(parameters):
        if any_sharded([parameter]):
            sharded = cast("Any", parameter)
            cut = tuple(k for k, placement in enumerate(sharded.placements) if placement.is_shard())
            alike.setdefault((sharded.device_mesh, cut), []).append(place)
    whole = list(rows)
    for (mesh, cut), places in alike.items():
        part = torch.stack([rows[place] for place in places])
        for dimension in cut:
            dist.all_reduce(part, group=mesh.get_group(dimension))
        for place, row in zip(places, part, strict=True):
            whole[place] = row
    return whole


__all__ = ["summed"]
