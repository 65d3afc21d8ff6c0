"""What flows through a recipe from part to part."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from slalom.algebra import Value


class Divide(Protocol):
    """How a direction is divided by a metric: plainly, or by an angle."""

    linear: bool

    def quotient(self, direction: Value, metric: Value) -> Value:
        """Return the step in units of the learning rate."""


NO_RATE: Final[Any] = float(1)  # its own object: what the rate is until a step part has set it


def _no_metric() -> Value:
    raise ValueError("this step measures by the scale's metric, and there is no scale: add scale=SecondMoment(...).")


def not_ahead() -> Value:
    """How far in front of the parameters the gradient is taken where nothing says so: at them."""
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
            ahead=not_ahead,
            pull=none,
            l1=none,
            l2=none,
            l1_past=none,
            l2_past=none,
            penalties=(),
            rate=NO_RATE,
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
