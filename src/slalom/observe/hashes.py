"""Whether ranks hold the same bits where they should: what differs, and on which of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor

from slalom.engine import STEP, real_view
from slalom.engine.shards import any_sharded, local
from slalom.roles import label


class _Thing(NamedTuple):
    """Something that ranks can hold alike: whose, what, and where on the mesh this part of it lies if it is cut."""

    owner: str
    what: str
    part: tuple[int, ...]


@dataclass(frozen=True)
class Diverged:
    """Something that ranks should hold alike and do not.

    Attributes:
        step: how many steps the optimizer of this rank had taken when it was noticed.
        owner: the parameter, by name if it has one, or the parameter group.
        what: "value", the key of a state, or the key of a setting.
        camps: the ranks, those with equal bits together, the largest camp first; where nothing is there is a camp too.
    """

    step: int
    owner: str
    what: str
    camps: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        ranks = " | ".join(", ".join(map(str, camp)) for camp in self.camps)
        return f"step {self.step}: {self.what} of {self.owner} differs between ranks: {ranks}"


@torch.no_grad()
def diverged(optimizer: torch.optim.Optimizer, group: dist.ProcessGroup | None = None) -> list[Diverged]:
    """Return what differs between ranks although every one should hold it alike: nothing, if all is well.

        for found in slalom.observe.diverged(optimizer):
            print(found)    # step 300: ema.m of parameter "0.weight" differs between ranks: 0, 2, 3 | 1

    Parameters, their state and the settings of their groups are hashed, and the hashes are exchanged. Every rank must
    call it, between two steps, and every rank hears the same but for its own count of steps. Of what is sharded
    (DTensor) ranks are compared that hold the same part, which without replicas is nobody. Reading all bytes costs
    about a tenth of a second per 100 MB: enough every few hundred steps.

    Args:
        optimizer: any optimizer of torch's interface.
        group: the ranks that are compared; by default all.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return []
    step = max((int(state[STEP]) for state in optimizer.state.values() if STEP in state), default=0)
    return list(_compare(_gathered(dict(_hashes(optimizer)), group), step))


def _gathered(mine: dict[_Thing, str], group: dist.ProcessGroup | None) -> dict[int, dict[_Thing, str]]:
    """Return the hashes of all ranks, by rank."""
    ranks = dist.get_process_group_ranks(group)
    everybody: list[Any] = [None] * len(ranks)
    dist.all_gather_object(everybody, mine, group)
    return dict(zip(ranks, everybody, strict=True))


def _compare(hashes: Mapping[int, Mapping[_Thing, str]], step: int) -> Iterator[Diverged]:
    for thing in dict.fromkeys(thing for held in hashes.values() for thing in held):
        camps: dict[str | None, list[int]] = {}
        for rank, held in hashes.items():
            if thing in held or not thing.part:  # other ranks hold other parts, but what is whole none may lack
                camps.setdefault(held.get(thing), []).append(rank)
        if len(camps) > 1:
            ordered = sorted(map(tuple, camps.values()), key=lambda camp: (-len(camp), camp))
            yield Diverged(step, thing.owner, thing.what, tuple(ordered))


def _hashes(optimizer: torch.optim.Optimizer) -> Iterator[tuple[_Thing, str]]:
    for place, group in enumerate(optimizer.param_groups):
        for key, setting in group.items():
            if key != "params":
                yield _Thing(f"group {place}", key, ()), _hash(setting)
        for index, parameter in enumerate(group["params"]):
            where = "" if group.get("param_names") else f" in group {place}"
            owner = f"parameter {label(group, index)}{where}"
            for key, value in {"value": parameter, **optimizer.state.get(parameter, {})}.items():
                yield _Thing(owner, key, _part(value)), _hash(value)


def _part(value: Any) -> tuple[int, ...]:
    """Return which part of a tensor this rank holds: its place along the dimensions of the mesh that cut it."""
    if not any_sharded([value]):
        return ()
    tensor = cast("Any", value)
    places = zip(tensor.device_mesh.get_coordinate(), tensor.placements, strict=True)
    return tuple(place for place, placement in places if not placement.is_replicate())


def _hash(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    held = real_view(local(value)).detach().cpu().contiguous()
    found = hashlib.blake2b(f"{held.dtype} {tuple(held.shape)}".encode(), digest_size=16)
    found.update(held.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
