"""Sparse tables that catch up before they are read do what dense ones do."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import slalom
from networks import build
from slalom.parts import L1, HeavyBall, ProximalL2, SecondMoment
from slalom.recipes import Recipe
from slalom.recipes.blueprint import numbers
from slalom.replay import skips
from test_sparse import Clicks, clicks, gap

MOVING: dict[str, dict[str, Any]] = {
    "adam": {"lr": 0.01},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
    "amsgrad-lean": {"lr": 0.01},
    "ftrl-adam": {"lr": 0.01, "l1": 0.01},
    "ftrl-proximal": {"lr": 0.3, "l1": 0.01, "l2": 0.01, "growth": "incremental"},
    "group-ftrl": {"lr": 0.3, "group": 0.05, "growth": "square"},
    "lion": {"lr": 0.001, "weight_decay": 0.1},
    "online-rmsprop": {"lr": 0.01},
    "rmsprop": {"lr": 0.001},
    "sgd": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01},
}


def fit(model: Clicks, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    """Train at a rate that changes, on rows that come back after a while."""
    for t in range(first, first + steps):
        generator = torch.Generator().manual_seed(t)
        rows = torch.randint(0, 30, (4, 2), generator=generator) + (20 if t % 10 == 3 else 0)
        target = torch.randn(4, 1, generator=generator, dtype=torch.float64)
        for group in optimizer.param_groups:
            group["lr"] *= 0.99 if t % 2 else 1.0
        optimizer.zero_grad()
        ((model(rows) - target) ** 2).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", MOVING)
def test_replayed_rows_equal_dense_ones(name: str) -> None:
    sparse, dense = clicks(torch.float64)
    lazy = copy.deepcopy(sparse)
    optimizer = build(name, sparse.parameters(), **MOVING[name])
    replayed = slalom.replay(optimizer, sparse)
    fit(sparse, optimizer, 60)
    fit(dense, build(name, dense.parameters(), **MOVING[name]), 60)
    replayed.catch_up()
    assert gap(sparse, dense) < 1e-11
    fit(lazy, build(name, lazy.parameters(), sparse="lazy", **MOVING[name]), 60)
    assert gap(lazy, dense) > 1e-5, "there was nothing to make up for"


def test_skipped_greedy_shrinkage_is_composed() -> None:
    """k missed steps of L1 and L2 at gradient 0 are k soft thresholds and k divisions."""
    layer = nn.Embedding(3, 1, sparse=True).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-1.0], [0.03]]))
    optimizer = Recipe(regularize=(L1(0.1), ProximalL2(0.5)), step=0.1).build(layer)
    replayed = slalom.replay(optimizer, layer)
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.tensor([0])).sum().mul(0.0).backward()
        optimizer.step()
    expected = 1.0
    for _ in range(5):
        expected = (expected - 0.01) / 1.05
    assert layer.weight[1].item() == -1.0  # nobody has read it
    assert layer(torch.tensor([1])).item() == pytest.approx(-expected, rel=1e-12)
    replayed.catch_up()
    assert layer.weight[2].item() == 0.0


def test_time_growing_penalties_take_one_step_however_many_were_missed() -> None:
    for name, settings, one in (
        ("ftrl-proximal", {"l1": 0.1, "l2": 0.1, "growth": "incremental"}, True),
        ("ftrl-proximal", {"l1": 0.1, "growth": "square"}, True),
        ("adam", {}, False),
        ("sgd", {"weight_decay": 0.1}, False),
    ):
        w = nn.Parameter(torch.ones(3, 2))
        optimizer = build(name, [w], **settings)  # type: ignore[arg-type]
        group = optimizer.param_groups[0]
        assert skips(optimizer.program(group, w), tuple(sorted(numbers(group).items(), key=repr))) == one


def test_saving_catches_up_and_resuming_goes_on_alike() -> None:
    whole, halves = (clicks(torch.float64)[0] for _ in range(2))
    first = slalom.AdamW(whole.parameters())
    slalom.replay(first, whole)
    fit(whole, first, 30)
    first.state_dict()

    second = slalom.AdamW(halves.parameters())
    replayed = slalom.replay(second, halves)
    fit(halves, second, 13)
    buffer = io.BytesIO()
    torch.save((halves.state_dict(), second.state_dict()), buffer)
    replayed.remove()
    buffer.seek(0)
    weights, saved = torch.load(buffer, weights_only=True)
    halves.load_state_dict(weights)
    third = slalom.AdamW(halves.parameters())
    third.load_state_dict(saved)
    slalom.replay(third, halves).catch_up()
    fit(halves, third, 17, first=13)
    third.state_dict()
    assert gap(whole, halves) < 1e-13


def test_what_cannot_be_replayed_is_refused_at_once() -> None:
    model = Clicks(sparse=True)
    with pytest.raises(ValueError, match="cannot be replayed row by row"):
        slalom.replay(build("lamb", model.parameters()), model)
    with pytest.raises(ValueError, match="keep_length"):
        slalom.replay(build("adanorm", model.parameters()), model)
    dense = Clicks(sparse=False)
    with pytest.raises(ValueError, match="there is nothing to replay"):
        slalom.replay(slalom.Adam(dense.parameters()), dense)


def test_recipes_of_parts_are_replayed_too() -> None:
    recipe = Recipe(momentum=HeavyBall(0.9, 0.0, nesterov=True), scale=SecondMoment(0.99), step=0.01)
    sparse, dense = clicks(torch.float64)
    optimizer = recipe.build(sparse)
    replayed = slalom.replay(optimizer, sparse)
    fit(sparse, optimizer, 30)
    fit(dense, recipe.build(dense), 30)
    replayed.catch_up()
    assert gap(sparse, dense) < 1e-11
