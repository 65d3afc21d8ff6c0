"""What a part is: hyper-parameters with ranges, declared state, and a formula that reads and sets signals.

Nothing here or beside it knows of parameter lists, devices, dtypes, sparsity, shards or threads.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Protocol, TypeAlias, dataclass_transform

from slalom.algebra import THIN, Expr, Hyper, State, Store, Value, where
from slalom.errors import unknown

# --- hyper-parameters and their ranges -------------------------------------------------------------------


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
        raise ValueError(f"{owner}({name}={number!r}): {name} must be {allowed}.")  # noqa: TRY004
    which = value.name if value.index is None else f"the {_ORDINALS[value.index]}"
    raise ValueError(f"{value.name}={value.whole!r}: {which} must be {allowed}.")


def check_count(owner: str, name: str, value: object, least: int = 1) -> None:
    """Raise `ValueError` unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{owner}({name}={value!r}): {name} must be a whole number of {least} or more.")


def _range_of(hint: Any) -> Within | None:
    """Return the range that a type hint states, None if it is no number."""
    if hint is float:
        return Within()
    if typing.get_origin(hint) is Annotated:
        return next((extra for extra in hint.__metadata__ if isinstance(extra, Within)), None)
    return next((found for arm in typing.get_args(hint) if (found := _range_of(arm)) is not None), None)


# --- signals ---------------------------------------------------------------------------------------------


class Divide(Protocol):
    """How a direction is divided by a metric: plainly, or by an angle."""

    linear: bool

    def quotient(self, direction: Value, metric: Value) -> Value:
        """Return the step in units of the learning rate."""


def _no_metric() -> Value:
    raise ValueError("this step measures by the scale's metric, and there is no scale: add scale=SecondMoment(...).")


def _not_ahead() -> Value:
    return 0.0  # type: ignore[return-value]  # a number, as all neutral signals are


class Penalty(Protocol):
    """A convex or other penalty that forms apply implicitly, beyond the l1 and l2 they know themselves."""

    def shrink(self, point: Value, curvature: Value, strength: Value) -> Value:
        """Return the minimum of ``curvature / 2 (w - point)^2 + strength penalty(w)``."""


class Plainly:
    """The ordinary quotient ``u / D``."""

    linear = True

    def quotient(self, direction: Value, metric: Value) -> Value:
        """Return ``direction / metric``."""
        return direction / metric


@dataclass(frozen=True)
class Signals:
    """What flows through a recipe. Each slot reads some and sets some; keeping them apart lets parts combine.

    Attributes:
        w: the parameter, in matrix view.
        t: its own step count, 1 at the first step it takes part in.
        clock: the optimizer's step count.
        loss: what the closure of this step returned; a recipe that reads it cannot step without one.
        ndim: 0, 1 or 2 (for anything higher too): fixed while a formula is traced, so plain ``if`` may ask.
        rows, columns, size: of the matrix view.
        position: of each element among those of its parameter, for random numbers.
        grad: the gradient after edits.
        direction: what is moved along.
        energy: what the scale squares: Adam the gradient, AdaBelief its surprise, Adan its extrapolation.
        trend: the running average as the momentum part stored it, before any correction.
        metric: the divisor (sigma). Scales yield it and do not divide: lazy forms need it itself.
        divide: how the division is done.
        earlier: yields the metric as the last step left it, for steps that measure by it before the scale has run.
        ahead: yields the way from the parameter to the point that an average adds steps to; 0 if that is the parameter.
        pull: what the prior adds to the step, in units of the learning rate, explicitly (at the old parameter).
        l1, l2: strengths of the penalties that a form applies implicitly, as proximal steps.
        l1_past, l2_past: what earlier steps added to those two; lazy forms hold on to it, greedy ones have paid it.
        penalties: further penalties, each with its strength now and the strength that earlier steps added.
        rate: the length of the step.
        unit: by how much gradients were magnified on purpose; an epsilon must be magnified alike.
        result: the new parameter, set by the form.
    """

    w: Value
    t: Value
    clock: Value
    loss: Value
    ndim: int
    rows: Value
    columns: Value
    size: Value
    position: Value
    grad: Value
    direction: Value
    energy: Value
    trend: Value
    metric: Value
    divide: Divide
    earlier: Callable[[], Value]
    ahead: Callable[[], Value]
    pull: Value
    l1: Value
    l2: Value
    l1_past: Value
    l2_past: Value
    penalties: tuple[tuple[Penalty, Value, Value], ...]
    rate: Value
    unit: Value
    result: Value

    @classmethod
    def start(
        cls,
        w: Value,
        grad: Value,
        *,
        t: Value,
        clock: Value,
        ndim: int,
        rows: Value,
        columns: Value,
        size: Value,
        loss: Any = math.nan,
        position: Any = math.nan,
    ) -> Signals:
        """Return the signals as a recipe finds them: every default is neutral."""
        none: Any = 0.0
        one: Any = 1.0
        return cls(
            w=w,
            t=t,
            clock=clock,
            loss=loss,
            ndim=ndim,
            rows=rows,
            columns=columns,
            size=size,
            position=position,
            grad=grad,
            direction=grad,
            energy=grad,
            trend=grad,
            metric=one,
            divide=Plainly(),
            earlier=_no_metric,
            ahead=_not_ahead,
            pull=none,
            l1=none,
            l2=none,
            l1_past=none,
            l2_past=none,
            penalties=(),
            rate=one,
            unit=one,
            result=w,
        )

    def replace(self, **signals: Any) -> Signals:
        """Return a copy with some signals set."""
        return dataclasses.replace(self, **signals)

    def with_gradient(self, grad: Value) -> Signals:
        """Edit the gradient: everything downstream that defaults to it follows."""
        return self.replace(grad=grad, direction=grad, energy=grad, trend=grad)

    def through(self, change: Callable[[str, Value], Value]) -> Signals:
        """Return gradient, direction, energy and trend as a linear map shows them.

        Args:
            change: the map; it is told the letter of the signal that it is given.
        """
        grad = change("g", self.grad)
        # Where a signal is the gradient itself, it stays the gradient itself.
        direction, energy, trend = (
            grad if signal is self.grad else change(letter, signal)
            for letter, signal in (("u", self.direction), ("e", self.energy), ("m", self.trend))
        )
        return self.replace(grad=grad, direction=direction, energy=energy, trend=trend)

    def quotient(self) -> Value:
        """Return the step so far, in units of the learning rate: direction over metric."""
        return self.divide.quotient(self.direction, self.metric)

    def divided(self) -> Signals:
        """Carry the division out, for parts that must work on the quotient itself."""
        one: Any = 1.0
        return self.replace(direction=self.quotient(), metric=one, divide=Plainly())


# --- state -----------------------------------------------------------------------------------------------


class Memory:
    """A part's own view of its state: ``s.m`` reads, ``s.m = ...`` writes what the next step finds.

    Keys are ``"<part name>.<slot>"``. They depend on declared names only: putting a guard around a part, or
    running it elsewhere, never renames what it remembers.
    """

    __slots__ = ("_condition", "_part", "_prefix", "_store")
    _store: Store
    _part: Part
    _prefix: str
    _condition: Value | None

    def __init__(self, store: Store, part: Part, prefix: str = "", condition: Value | None = None) -> None:
        for name, value in (
            ("_store", store),
            ("_part", part),
            ("_prefix", prefix),
            ("_condition", condition),
        ):
            object.__setattr__(self, name, value)

    def of(self, part: Part) -> Memory:
        """Return the view of a part that this one wraps."""
        return Memory(self._store, part, self._prefix, self._condition)

    def inside(self, name: str) -> Memory:
        """Return a view whose keys start with ``name.``: for combinators that hold two recipes with equal parts."""
        return Memory(self._store, self._part, f"{self._prefix}{name}.", self._condition)

    def afresh_if(self, condition: Value) -> Memory:
        """Return a view that, where ``condition`` holds, finds everything as before the first step."""
        return Memory(_Afresh(self._store, condition), self._part, self._prefix, self._condition)

    def noting(self) -> tuple[Memory, Notes]:
        """Return a view that notes which states that live where gradients live are written through it."""
        notes = Notes(self._store)
        return Memory(notes, self._part, self._prefix, self._condition), notes

    def only_if(self, condition: Value) -> Memory:
        """Return a view that writes only where ``condition`` holds."""
        return Memory(self._store, self._part, self._prefix, condition)

    def thin(self, rank: int) -> Memory:
        """Return a view for what runs in a subspace of the shorter side: all that it keeps is as thin as that."""
        return Memory(_Thin(self._store, rank), self._part, self._prefix, self._condition)

    def _slot(self, name: str) -> tuple[str, State]:
        slots = self._part.slots()
        if name not in slots:
            raise AttributeError(str(unknown("state", name, slots, owner=type(self._part).__name__)))
        slot = slots[name]
        if slot.per in THIN:
            slot = dataclasses.replace(slot, rank=self._part.rank)  # type: ignore[attr-defined]
        return f"{self._prefix}{self._part.part_name()}.{name}", slot

    def __getattr__(self, name: str) -> Value:
        key, slot = self._slot(name)
        return self._store.read(key, slot)

    def __setattr__(self, name: str, value: Value) -> None:
        key, slot = self._slot(name)
        if self._condition is not None:
            value = where(self._condition, value, self._store.read(key, slot))
        self._store.write(key, slot, value)


class Notes:
    """A store that notes what is written to it of gradients as such: states that turn when gradients are turned."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.turning: dict[str, State] = {}

    def read(self, key: str, slot: State) -> Value:
        """Return the value as it is now."""
        return self.store.read(key, slot)

    def write(self, key: str, slot: State, value: Value) -> None:
        """Set the value that the next step will find."""
        if slot.turns:
            self.turning[key] = slot
        self.store.write(key, slot, value)

    def change(self, follow: Callable[[Value], Value]) -> None:
        """Replace every noted state by what it becomes in new coordinates."""
        for key, slot in self.turning.items():
            self.store.write(key, slot, follow(self.store.read(key, slot)))


class _Afresh:
    """A store whose first reads yield initial values where a condition holds; what a step wrote it reads as written."""

    def __init__(self, store: Store, condition: Value) -> None:
        self.store, self.condition = store, condition
        self.written: set[str] = set()

    def read(self, key: str, slot: State) -> Value:
        """Return the value as it is now, or as it was before the first step."""
        now = self.store.read(key, slot)
        if key in self.written:
            return now
        if isinstance(slot.init, str):
            raise ValueError(  # noqa: TRY004
                f"{key} begins as more than a number ({slot.init}): it cannot be begun afresh."
            )
        return where(self.condition, slot.init, now)

    def write(self, key: str, slot: State, value: Value) -> None:
        """Set the value that the next step will find."""
        self.written.add(key)
        self.store.write(key, slot, value)


class _Thin:
    """A store for parts that see a tall matrix of few columns, as many as a subspace has directions."""

    def __init__(self, store: Store, rank: int) -> None:
        self.store, self.rank = store, rank

    def read(self, key: str, slot: State) -> Value:
        """Return the value as it is now."""
        return self.store.read(key, self._kept(key, slot))

    def write(self, key: str, slot: State, value: Value) -> None:
        """Set the value that the next step will find."""
        self.store.write(key, self._kept(key, slot), value)

    def _kept(self, key: str, slot: State) -> State:
        if slot.scope != "tensor" or slot.per == "tensor":
            return slot
        per = _IN_SUBSPACE.get(slot.per)
        if per is None or slot.view != "matrix" or slot.format != "float" or isinstance(slot.init, str):
            raise ValueError(
                f"{key} is kept per {slot.per} in a way that has no meaning in a subspace: "
                "give InSubspace a recipe with states per element, row or column."
            )
        return dataclasses.replace(slot, per=per, view="tall", rank=self.rank, torch=(), name=slot.name)


_IN_SUBSPACE: Final[Mapping[str, Any]] = {"element": "left_rank", "row": "row", "column": "rank"}


# --- parts -----------------------------------------------------------------------------------------------

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
        found = {entry.name: _range_of(hints[entry.name]) for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
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
        return _not_ahead()

    def readout(self, x: Signals, s: Memory) -> Value:
        """Return the averaged point, from the parameter as training left it and the state."""
        raise NotImplementedError


class Inner(Protocol):
    """A recipe used inside another one: what turns a gradient into a direction and a metric."""

    def direct(self, x: Signals, s: Memory) -> Signals:
        """Run momentum, scale, geometry and guards."""
