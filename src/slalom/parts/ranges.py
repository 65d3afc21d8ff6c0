"""The ranges of hyper-parameters, as types."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from slalom.algebra import Expr, Hyper


@dataclass(frozen=True)
class Within:
    """The range of a hyper-parameter; ``[low, high)`` when ``high`` is not allowed itself."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"greater than {self.low:g}" if self.low_open else f"{self.low:g} or more"
        return f"in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


Decay: TypeAlias = Annotated[float, Within(0, 1, high_open=True)]
Fraction: TypeAlias = Annotated[float, Within(0, 1)]
NonNegative: TypeAlias = Annotated[float, Within(0)]
Positive: TypeAlias = Annotated[float, Within(0, low_open=True)]
# A number that shapes the formula itself, such as one that tables are computed from: fixed once the recipe is made.
Constant: TypeAlias = Annotated[float, "constant"]

_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def check_range(owner: str, name: str, value: object, allowed: Within) -> None:
    """Raise `ValueError` unless ``value`` is a number in the range; name it as the user wrote it.

    Args:
        owner: the part, for values that were given to it directly.
        name: the part's own name for the hyper-parameter.
        value: a number, or the `Hyper` that a recipe's argument became.
        allowed: the range.
    """
    number = value.value if isinstance(value, Hyper) else value
    if isinstance(number, Expr):
        return  # computed from other hyper-parameters, which were checked themselves
    if isinstance(number, (int, float)) and not isinstance(number, bool) and number in allowed:
        return
    if not isinstance(value, Hyper):
        kind = "" if isinstance(number, (int, float)) and not isinstance(number, bool) else "a number, "
        raise ValueError(f"{owner}({name}={number!r}): {name} must be {kind}{allowed}.")  # noqa: TRY004
    which = value.name if value.index is None else f"the {_ORDINALS[value.index]}"
    raise ValueError(f"{value.name}={value.whole!r}: {which} must be {allowed}.")


def check_count(owner: str, name: str, value: object, least: int = 1) -> None:
    """Raise `ValueError` unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{owner}({name}={value!r}): {name} must be a whole number of {least} or more.")


def range_of(hint: Any) -> Within | None:
    """Return the range that a type hint states, None if it is no number."""
    if hint is float:
        return Within()
    if typing.get_origin(hint) is Annotated:
        return next((extra for extra in hint.__metadata__ if isinstance(extra, Within)), None)
    return next((found for arm in typing.get_args(hint) if (found := range_of(arm)) is not None), None)
