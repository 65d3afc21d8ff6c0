"""The list executor equals eager: every method, missing gradients, different step counts, mixed dtypes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slalom
from networks import build, quietly
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.engine import foreach
from test_native import SHAPES, drive, lists
from test_recipes import DECAYS, GRADIENTS, GUARDS, MOMENTA, ORDERS, SCALES, STEPS

# A long vector is for kernels, which cut it; to lists it is one tensor, and to Shampoo forty factors of a thousand.
UNCUT = [*SHAPES[:-1], (1500,)]


@pytest.mark.parametrize("name", slalom.list_optimizers())
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_every_method_equals_eager(name: str, dtype: torch.dtype) -> None:
    a, b = lists(UNCUT, dtype), lists(UNCUT, dtype)
    drive(build(name, a, executor="foreach"), 4, missing=True)
    drive(build(name, b, executor="eager"), 4, missing=True)
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9 if dtype == torch.float64 else 1e-2, atol=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(GRADIENTS, MOMENTA, SCALES, GUARDS, DECAYS, STEPS, ORDERS, st.booleans(), st.booleans())
def test_random_recipes_equal_eager(
    gradient: Any, momentum: Any, scale: Any, guard: Any, decay: Any, step: Any, order: Any, lazy: bool, averaged: bool
) -> None:
    if lazy and isinstance(getattr(scale, "eps", None), P.Atan2):
        return
    recipe = Recipe(
        gradient=gradient, momentum=momentum, scale=scale, guard=guard, regularize=decay, step=step,
        form=P.FTRL() if lazy else P.Greedy(), average=P.ScheduleFree() if averaged else None, order=order,
    )  # fmt: skip
    ends = []
    for executor in ("eager", "foreach"):
        params = lists([(3, 4), (5,), ()], torch.float64)
        drive(quietly(lambda: slalom.Optimizer(params, recipe, executor=executor)), 3, missing=True)  # noqa: B023
        ends.append(torch.cat([p.detach().flatten() for p in params]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-12)


def test_lists_are_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW on two equal shapes must not run tensor by tensor."""
    calls: list[str] = []
    for name, function in list(foreach._LISTS.items()):
        monkeypatch.setitem(foreach._LISTS, name, lambda *a, f=function, n=name: (calls.append(n), f(*a))[1])
    drive(slalom.AdamW(lists([(3, 4), (5,)], torch.float32), executor="foreach"), 1)
    assert {"lerp", "mul", "sqrt", "add", "div", "sub"} <= set(calls)
    assert len(calls) >= 10
