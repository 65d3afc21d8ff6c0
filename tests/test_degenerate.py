"""Matrices that are hardly matrices: zero, of rank one, a single row or column, longer than a block."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import slalom
from networks import quietly
from slalom.recipes import list_optimizers, method

NAMES = [name for name in list_optimizers() if method(name).family == "matrix"]
SHAPES = [(6, 4), (4, 6), (5, 5), (1, 7), (7, 1), (1, 1), (3, 2, 2), (1, 3, 1, 1)]
# so small that sides are longer than a block, and that there are fewer directions than columns
SMALL = {"block": 3, "frequency": 2, "start": 1, "rank": 2, "weight_decay": 0.0}


def gradient(kind: str, shape: tuple[int, ...], step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * step + sum(shape))
    rows, columns = shape[0], torch.Size(shape).numel() // shape[0]
    left, right = torch.randn(rows, 1, generator=generator), torch.randn(1, columns, generator=generator)
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "one row":
        left = torch.zeros(rows, 1).index_fill_(0, torch.tensor([step % rows]), 1.0)
    return (left @ right).reshape(shape)


def built(name: str, parameters: list[torch.nn.Parameter], executor: str) -> slalom.Optimizer:
    known = method(name).defaults
    settings: dict[str, Any] = {key: value for key, value in SMALL.items() if key in known}
    groups = [{"params": [p], "role": "matrix" if p.ndim == 2 else "convolution"} for p in parameters]
    by_role = "adam_lr" in known or name == "scion"
    return quietly(
        lambda: slalom.create(name, groups if by_role else parameters, lr=1e-2, executor=executor, **settings)
    )


@pytest.mark.parametrize("executor", ["eager", "native"])
@pytest.mark.parametrize("kind", ["zero", "rank one", "one row"])
@pytest.mark.parametrize("name", NAMES)
def test_steps_are_finite_and_zero_moves_nothing(name: str, kind: str, executor: str) -> None:
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    optimizer = built(name, parameters, executor)
    moved = [False] * len(parameters)
    for step in range(6):
        before = [parameter.detach().clone() for parameter in parameters]
        for parameter in parameters:
            parameter.grad = gradient(kind, tuple(parameter.shape), step)
        optimizer.step()
        moved = [m or not torch.equal(p, q) for m, p, q in zip(moved, parameters, before, strict=True)]
    for parameter, has_moved in zip(parameters, moved, strict=True):
        where = f"{tuple(parameter.shape)}: {parameter}"
        assert torch.isfinite(parameter).all(), where
        if (name, kind) != ("conda", "one row"):  # its squares stay behind when the basis turns, as the authors' do
            assert parameter.abs().max() < 100, where
        standardised = name == "swan" and parameter[0].numel() == 1  # a row of one number is its own mean
        assert has_moved == (kind != "zero" and not standardised), where
    for state in optimizer.state.values():
        assert all(torch.isfinite(value).all() for value in state.values())
    assert slalom.observe.failed_roots(optimizer) == {}
