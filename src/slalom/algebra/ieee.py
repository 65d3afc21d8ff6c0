"""Arithmetic on host numbers by IEEE rules: inf or nan where a device would yield it, never an exception."""

from __future__ import annotations

import math


def div(a: float, b: float) -> float:
    """Quotient."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def power(a: float, b: float) -> float:
    """Power; inf where it overflows, nan where it is complex."""
    try:
        result = a**b
    except ZeroDivisionError:
        return math.inf
    except OverflowError:
        return math.inf
    return math.nan if isinstance(result, complex) else result


def exp(a: float) -> float:
    """Exponential."""
    return math.exp(a) if a < 709 else math.inf


def log(a: float) -> float:
    """Natural logarithm."""
    return math.log(a) if a > 0 else (-math.inf if a == 0 else math.nan)


def maximum(a: float, b: float) -> float:
    """The larger; nan if either is."""
    return math.nan if a != a or b != b else max(a, b)


def minimum(a: float, b: float) -> float:
    """The smaller; nan if either is."""
    return math.nan if a != a or b != b else min(a, b)


def sign(a: float) -> float:
    """Sign; 0 for nan, as torch has it."""
    return float((a > 0) - (a < 0))
