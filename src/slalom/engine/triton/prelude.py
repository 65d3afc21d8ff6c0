"""What every emitted Triton module begins with: loads, stores and reductions as torch has them."""

from __future__ import annotations

from typing import Final

PRELUDE: Final = '''"""Emitted by slalom from a plan."""

import triton
import triton.language as tl


@triton.jit
def sl_hinted(x, ALIGNED: tl.constexpr):
    """Say that an address or a length is a multiple of 16, where it is: wide loads need to know."""
    if ALIGNED:
        x = tl.multiple_of(x, 16)
    return x


@triton.jit
def sl_load(p, mask, FULL: tl.constexpr):
    if FULL:
        x = tl.load(p)
    else:
        x = tl.load(p, mask=mask, other=0.0)
    return x


@triton.jit
def sl_store(p, x, mask, FULL: tl.constexpr):
    if FULL:
        tl.store(p, x)
    else:
        tl.store(p, x, mask=mask)


@triton.jit
def sl_total(x, mask, AXIS: tl.constexpr):
    return tl.sum(tl.where(mask, x, 0.0), axis=AXIS)


@triton.jit
def sl_largest(x, mask, AXIS: tl.constexpr):
    """A maximum that is nan if anything was."""
    bad = tl.sum(tl.where(mask & (x != x), 1, 0), axis=AXIS)
    return tl.where(bad > 0, float("nan"), tl.max(tl.where(mask, x, float("-inf")), axis=AXIS))


@triton.jit
def sl_lerp(a, b, w):
    """From the nearer end, as torch has it: with a weight of 1 this is b to the bit."""
    return tl.where(w < 0.5, a + w * (b - a), b + (w - 1.0) * (b - a))


@triton.jit
def sl_join_total(a, b):
    return a + b


@triton.jit
def sl_join_largest(a, b):
    return tl.where((b > a) | (b != b), b, a)


@triton.jit
def sl_pow(x, y):
    """x to the y, for a base that is not negative."""
    power = tl.exp(y * tl.log(tl.where(x > 0.0, x, 1.0)))
    power = tl.where(x == 0.0, tl.where(y > 0.0, 0.0, float("inf")), tl.where(x < 0.0, float("nan"), power))
    return tl.where(y == 0.0, 1.0, tl.where(x != x, x, power))


@triton.jit
def sl_atan2(y, x):
    """Reduce to [0, tan(pi/8)], odd polynomial, unfold; error below 3e-7."""
    ax = tl.abs(x)
    ay = tl.abs(y)
    big = tl.where(ax > ay, ax, ay)
    small = tl.where(ax > ay, ay, ax)
    r = tl.where(big == 0.0, 0.0, tl.where(big == small, 1.0, small / tl.where(big == 0.0, 1.0, big)))
    upper = r > 0.41421356
    z = tl.where(upper, (r - 1.0) / (r + 1.0), r)
    q = z * z
    p = ((8.05374449538e-2 * q - 1.38776856032e-1) * q + 1.99777106478e-1) * q - 3.33329491539e-1
    angle = p * q * z + z + tl.where(upper, 0.785398163397, 0.0)
    angle = tl.where(ay > ax, 1.57079632679 - angle, angle)
    angle = tl.where(x < 0.0, 3.14159265359 - angle, angle)
    angle = tl.where(y < 0.0, -angle, angle)
    return tl.where((x != x) | (y != y), x + y, angle)


@triton.jit
def sl_mix(x):
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


@triton.jit
def sl_uniform(index, stream, t, seed):
    """Random numbers: see algebra/chance.py, whose arithmetic this is."""
    whose = stream.to(tl.int64)
    when = t.to(tl.int64)
    zero = whose * 0
    first = sl_mix(sl_mix(sl_mix(zero + seed) ^ whose) ^ when)
    second = sl_mix(sl_mix(sl_mix(zero + (seed ^ 0x9E3779B9)) ^ whose) ^ when)
    bits = sl_mix(sl_mix((index & 0xFFFFFFFF) ^ first) ^ second ^ (index >> 32))
    return ((bits >> 9).to(tl.float32) + 0.5) * (1.0 / 8388608.0)'''
