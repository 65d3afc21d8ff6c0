"""Recipes and formulas written a second time, run side by side: what test_formulas*.py have in common.

A formula by hand is told the parameter, the gradient, the step number and a dictionary for what it remembers, and
returns the step: ``w <- w - lr u``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from slalom import Recipe

Formula = Callable[[Tensor, Tensor, int, dict[str, Any]], Tensor]

LR = 0.1
_GENERATOR = torch.Generator().manual_seed(7)
W = torch.randn(4, 3, generator=_GENERATOR, dtype=torch.float64)
GRADIENTS = [torch.randn(4, 3, generator=_GENERATOR, dtype=torch.float64) * size for size in (1.0, 0.3, 2.0, 0.7, 0.5)]
GRADIENTS[2][1, 2] = -GRADIENTS[1][1, 2]  # one that turns
SLOPES = [1.0 + 0.3 * g for g in GRADIENTS]  # that agree on where to go
LOSSES = [1.5, 0.7, 2.0, 0.4, 0.9]
M, N = W.shape


def ema(s: dict[str, Any], key: str, value: Any, beta: float, start: float = 0.0) -> Any:
    s[key] = beta * s.get(key, start) + (1 - beta) * value
    return s[key]


def row(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


def column(x: Tensor) -> Tensor:
    return x.mean(0, keepdim=True)


def rms(x: Tensor) -> float:
    return math.sqrt((x * x).mean().item())


def outer_root(r: Tensor, c: Tensor) -> Tensor:
    return (r * c / r.mean()).sqrt()


def go(parts: dict[str, Any], gradients: list[Tensor]) -> list[Tensor]:
    """Where a recipe goes, step by step."""
    w = torch.nn.Parameter(W.clone())
    optimizer = Recipe(**{"step": LR, **parts}).build([w])
    path = []
    for g, loss in zip(gradients, LOSSES, strict=True):
        w.grad = g.clone()
        optimizer.step(lambda loss=loss: loss)
        path.append(w.detach().clone())
    return path


def by_hand(formula: Formula, lr: float, gradients: list[Tensor]) -> list[Tensor]:
    w, kept = W.clone(), dict[str, Any]()
    path = []
    for t, g in enumerate(gradients, 1):
        w = w - lr * formula(w, g, t, kept)
        path.append(w)
    return path


def check(parts: dict[str, Any], formula: Formula, lr: float = LR, gradients: list[Tensor] = GRADIENTS) -> None:
    for size in (1.0, 0.02):  # lengths above 1 and below
        given = [size * g for g in gradients]
        for found, expected in zip(go(parts, given), by_hand(formula, lr, given), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def table(**cases: tuple[dict[str, Any], Formula]) -> Any:
    return pytest.mark.parametrize(
        ("parts", "formula"), [pytest.param(*case, id=name.replace("_", " ")) for name, case in cases.items()]
    )


def lengths(x: Tensor) -> Tensor:
    return x.norm(dim=1, keepdim=True)
