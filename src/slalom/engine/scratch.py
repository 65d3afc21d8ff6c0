"""Memory between the phases of a step: which matrices go through them together, and where what they leave lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from slalom.engine.phases import Phases
from slalom.engine.storage import layout

# Elements that a team may have in scratch: enough that torch's products are large, little beside a model.
_MOST_ELEMENTS: Final = {"cpu": 1 << 23, "cuda": 1 << 25}
_ALIGNED: Final = 16  # elements; a cache line

Values = dict[str, Tensor]


def teams(shapes: Sequence[tuple[int, ...]], device: str = "cpu") -> list[list[int]]:
    """Sort tensors by shape, as many to a team as fit into scratch; every team as one list of places."""
    room = _MOST_ELEMENTS.get(device, _MOST_ELEMENTS["cpu"])
    found: dict[tuple[int, ...], list[list[int]]] = {}
    for place, shape in enumerate(shapes):
        most = max(1, room // max(1, math.prod(shape)))
        lists = found.setdefault(shape, [[]])
        if len(lists[-1]) == most:
            lists.append([])
        lists[-1].append(place)
    return [members for lists in found.values() for members in lists]


class Scratch:
    """Where a team's scratch lies: arrays whose lives do not overlap share their place."""

    def __init__(self, phases: Phases, like: Tensor, members: int) -> None:
        self.members = members
        self.shapes: dict[str, tuple[int, ...]] = {
            name: layout(slot, like) for name, slot in phases.scratch.items() if slot.scope == "tensor"
        }
        self.blocks = {name: bool(slot.block) for name, slot in phases.scratch.items()}
        self.common = [name for name, slot in phases.scratch.items() if slot.scope != "tensor"]
        self.device = like.device
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name in sorted(self.shapes, key=lambda key: phases.lives[key]):
            length = self._length(name)
            rivals = [other for other in self.offsets if _overlap(phases, other, name)]
            ends = [0, *(self.offsets[other] + self._length(other) for other in rivals)]
            self.offsets[name] = next(
                start
                for start in sorted(ends)
                if all(start >= self.offsets[o] + self._length(o) or start + length <= self.offsets[o] for o in rivals)
            )
            self.size = max(self.size, self.offsets[name] + length)

    def _length(self, name: str) -> int:
        return -(-self.members * math.prod(self.shapes[name]) // _ALIGNED) * _ALIGNED

    def _stack(self, name: str) -> tuple[int, ...]:
        shape = self.shapes[name]
        return (shape[0], self.members, *shape[1:]) if self.blocks[name] else (self.members, *shape)

    def views(self, arena: Tensor) -> Values:
        """Return each array as one stack of all members; what the whole model has in common as a number."""
        stacks = {
            name: arena[offset : offset + self.members * math.prod(self.shapes[name])].view(self._stack(name))
            for name, offset in self.offsets.items()
        }
        return stacks | {name: torch.zeros((), dtype=torch.float64, device=self.device) for name in self.common}


def _overlap(phases: Phases, a: str, b: str) -> bool:
    """Whether two arrays are needed at the same time. Matrix phases read everything before they write anything."""
    (born_a, died_a), (born_b, died_b) = phases.lives[a], phases.lives[b]
    if died_a == born_b or died_b == born_a:
        border = born_b if died_a == born_b else born_a
        return phases.phases[border].kind != "matrix"
    return born_a < died_b and born_b < died_a
