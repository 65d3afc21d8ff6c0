"""What recipes of all families share: orders of slots, and decay that is left out where it is zero."""

from __future__ import annotations

from typing import Final, TypeAlias

from slalom.parts import Decoupled
from slalom.recipes.recipe import ORDER, Slot

Betas: TypeAlias = tuple[float, float]


def moved(*slots: Slot, before: Slot) -> tuple[Slot, ...]:
    """Return the natural order with some slots, as they are listed, right before another one."""
    rest = [slot for slot in ORDER if slot not in slots]
    place = rest.index(before)
    return (*rest[:place], *slots, *rest[place:])


SCALE_FIRST: Final = moved("scale", before="momentum")  # momentum works on the quotient
CLIPPED_FIRST: Final = moved("scale", "guard", before="momentum")  # and on what a guard has left of it
SCALE_AFTER: Final = moved("scale", before="guard")  # the scale works on the geometry's step, not on the gradient
DECAY_INSIDE: Final = moved("regularize", before="guard")  # the guard sees step and decay together


def decoupled(weight_decay: float) -> Decoupled | None:
    """Return decoupled decay, none where it is 0."""
    return Decoupled(weight_decay) if weight_decay else None
