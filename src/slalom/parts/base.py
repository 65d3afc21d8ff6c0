"""What a part is: hyper-parameters with ranges, declared state, and a formula that reads and sets signals.

Nothing here or beside it knows of parameter lists, devices, dtypes, sparsity, shards or threads.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, dataclass_transform

from slalom.algebra import State, Value
from slalom.errors import unknown
from slalom.parts.memory import Memory
from slalom.parts.ranges import Within, check_range, range_of
from slalom.parts.signals import Signals, not_ahead

_PARTS: dict[str, type[Part]] = {}


def part_classes() -> dict[str, type[Part]]:
    """Return every part class that has been imported, by name."""
    return dict(_PARTS)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Part:
    """One answer to one of an optimizer's questions. Subclass a slot (`Momentum`, `Scale`, ...), not this.

    A subclass becomes a frozen dataclass: its annotated attributes are its hyper-parameters, with the range in the
    type (`Decay`, `Positive`, ...); its `State` attributes are what it remembers; `apply` is its formula.

    The part's name, used in state keys and recipe files, is its class's name in snake case, or ``name=`` in the class
    statement. It must never change once checkpoints exist.
    """

    slot: ClassVar[str] = ""
    lesson: ClassVar[str] = ""  # why the formula is what it is, for who reads it on a screen
    _name: ClassVar[str] = ""
    _slots: ClassVar[dict[str, State]] = {}

    def __init_subclass__(cls, *, name: str | None = None, abstract: bool = False) -> None:
        super().__init_subclass__()
        dataclass(frozen=True)(cls)
        cls._slots = {
            slot.name: slot for base in reversed(cls.__mro__) for slot in vars(base).values() if isinstance(slot, State)
        }
        cls._name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        if not abstract:
            known = _PARTS.get(cls._name, cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):  # a cell may run again
                raise ValueError(
                    f'there is already a part named "{cls._name}", in {known.__module__}: '
                    f"give yours another one, class {cls.__name__}({cls.slot.title()}, name=...)."
                )
            _PARTS[cls._name] = cls

    def __post_init__(self) -> None:
        for name, allowed in self.ranges().items():
            value = getattr(self, name)
            if not isinstance(value, Part):  # `eps: NonNegative | Epsilon` takes a part instead of the number
                check_range(type(self).__name__, name, value, allowed)
        for name, choices in self.choices().items():
            if getattr(self, name) not in choices:
                raise unknown(name, str(getattr(self, name)), choices, owner=type(self).__name__)

    def question(self) -> str:
        """Return the slot this part fits into."""
        return self.slot

    @classmethod
    def part_name(cls) -> str:
        """Return the stable name in state keys and recipe files."""
        return cls._name

    def slots(self) -> Mapping[str, State]:
        """Return the state by slot name: what the class declares, unless a part's numbers say how much it keeps."""
        return self._slots

    @classmethod
    @functools.cache  # parts are made at every trace and every check of a group; reading hints is slow
    def ranges(cls) -> Mapping[str, Within]:
        """Return the ranges of the numeric hyper-parameters, by field name."""
        hints = typing.get_type_hints(cls, include_extras=True)
        found = {entry.name: range_of(hints[entry.name]) for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return {name: allowed for name, allowed in found.items() if allowed is not None}

    @classmethod
    @functools.cache
    def choices(cls) -> Mapping[str, tuple[str, ...]]:
        """Return what the hyper-parameters that are words may be, by field name."""
        hints = typing.get_type_hints(cls, include_extras=True)
        return {
            entry.name: typing.get_args(hints[entry.name])
            for entry in dataclasses.fields(cls)  # type: ignore[arg-type]
            if typing.get_origin(hints[entry.name]) is typing.Literal
        }

    def apply(self, x: Signals, s: Memory) -> Signals:
        """The formula: read signals and state, write state, return the signals it sets."""
        raise NotImplementedError


class Gradient(Part, abstract=True):
    """What is done to the raw gradient? Sets ``grad`` (use `Signals.with_gradient`)."""

    slot = "gradient"


class Step(Part, abstract=True):
    """How long is the step? Sets ``rate``; may magnify gradients and must then say so in ``unit``."""

    slot = "step"

    def measures(self) -> bool:
        """Whether it reads what momentum, scale and geometry make of the gradient: recipes then run it after them."""
        return False


class Momentum(Part, abstract=True):
    """Which direction does history suggest? Sets ``direction``, ``trend`` and, if it differs, ``energy``."""

    slot = "momentum"


class Scale(Part, abstract=True):
    """How is each coordinate's step sized? Sets ``metric`` (it does not divide)."""

    slot = "scale"

    def before(self, x: Signals, s: Memory) -> Value:
        """Return the metric as the last step left it.

        Raises:
            ValueError: if what is stored does not say it.
        """
        raise ValueError(f"{type(self).__name__} does not store the metric of the last step: take SecondMoment.")


class Geometry(Part, abstract=True):
    """In which norm is "steepest" meant? Sets ``direction`` from the divided signals."""

    slot = "geometry"


class Guard(Part, abstract=True):
    """What is refused or re-scaled after that? Scales or masks ``direction`` (and ``pull``, if it is inside)."""

    slot = "guard"


class Regularize(Part, abstract=True):
    """Where does the prior pull? Adds to ``pull`` (explicit), ``l1`` or ``l2`` (proximal)."""

    slot = "regularize"


class Form(Part, abstract=True):
    """Greedy or lazy? Sets ``result`` from everything before."""

    slot = "form"


class Average(Part, abstract=True):
    """Which point is handed back? Moves ``result``; `readout` gives the point to evaluate."""

    slot = "average"

    def ahead(self, x: Signals, s: Memory) -> Value:
        """Return the way from the parameter to the point that steps are added to."""
        return not_ahead()

    def readout(self, x: Signals, s: Memory) -> Value:
        """Return the averaged point, from the parameter as training left it and the state."""
        raise NotImplementedError


class Inner(Protocol):
    """A recipe used inside another one: what turns a gradient into a direction and a metric."""

    def direct(self, x: Signals, s: Memory) -> Signals:
        """Run momentum, scale, geometry and guards."""
