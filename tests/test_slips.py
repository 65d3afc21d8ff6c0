"""What people mistype, and the sentence that they get: what was given, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import slalom
from slalom.errors import UsageError
from slalom.recipes.spec import parse_spec
from slalom.userfiles import read_recipe


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def build(*args: Any, **given: Any) -> slalom.Optimizer:
    return slalom.AdamW(*(args or (net().parameters(),)), **given)


def step(*args: Any, **given: Any) -> None:
    build().step(*args, **given)


SLIPS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: build(lr="1e-3"), TypeError, r"^lr='1e-3': it must be a number. Write float\('1e-3'\)\.$"),
    (lambda: build(lr="fast"), TypeError, r"^lr='fast': it must be a number\.$"),
    (lambda: build(lr=None), ValueError, "lr must be a number, 0 or more"),
    (lambda: build(lr=torch.ones(2)), ValueError, r"lr is a tensor of shape \(2,\)"),
    (lambda: build(betas=0.9), TypeError, r"AdamW\(betas=0.9\): betas is 2 numbers, as in \(0.9, 0.999\)"),
    (lambda: build(betas=(0.9,)), ValueError, r"betas=\(0.9,\)\): betas is 2 numbers"),
    (lambda: build(betas=(0.9, 0.99, 0.999)), ValueError, r"betas=\(0.9, 0.99, 0.999\)\): betas is 2 numbers"),
    (lambda: build([{"params": net().parameters(), "betas": 0.9}]), TypeError, "betas is 2 numbers"),
    (lambda: slalom.AdamW(lr=1e-3), TypeError, "AdamW: missing a required argument: 'params'"),
    (lambda: build(1e-3), TypeError, "params=0.001: give the model"),
    (lambda: build([{"lr": 1e-3}]), ValueError, "a parameter group has 'lr' and no \"params\""),
    (lambda: slalom.create(slalom.AdamW, net()), TypeError, "AdamW'> is no name"),
    (lambda: build().load_state_dict({}), ValueError, 'a dictionary with "state" and "param_groups"'),
    (lambda: build().load_state_dict(net().state_dict()), ValueError, "this has keys '0.weight', '0.bias'"),
    (lambda: build().load_state_dict(None), ValueError, "this has None"),
    (lambda: step(torch.tensor(1.0)), TypeError, r"step got a Tensor where a closure belongs: call loss.backward\(\)"),
    (lambda: step(lambda: 1.0, sharpness="sam"), TypeError, "sharpness='sam'.*SAM"),
    (lambda: slalom.parts.EMA, AttributeError, 'slalom.parts has no part "EMA". Did you mean Ema'),
    (lambda: read_recipe("none.toml"), UsageError, '^cannot read recipe "none.toml": No such file or directory.$'),
]


@pytest.mark.parametrize("place", range(len(SLIPS)))
def test_a_slip_gets_a_sentence(place: int) -> None:
    slip, kind, sentence = SLIPS[place]
    with pytest.raises(kind, match=sentence):
        slip()


@pytest.mark.parametrize("word", ["adamw:lr=abc", "adamw:lr=-1", "adamw:betas=0.9", "muon:polar=newton", "sgd:lr=none"])
def test_a_name_with_a_value_that_cannot_be_used_is_refused_where_it_is_read(word: str) -> None:
    with pytest.raises(UsageError, match=f'^"{word}": '):
        parse_spec(word)


def test_numbers_of_numpy_are_numbers() -> None:
    model, twin = net(), net()
    twin.load_state_dict(model.state_dict())
    ours = slalom.AdamW(model.parameters(), lr=np.float32(0.5), betas=(np.float64(0.5), np.float32(0.75)))
    theirs = slalom.AdamW(twin.parameters(), lr=0.5, betas=(0.5, 0.75))
    for _ in range(3):
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            one.grad = other.grad = torch.ones_like(one)
        ours.step()
        theirs.step()
        ours.param_groups[0]["lr"] = np.float32(0.25)
        theirs.param_groups[0]["lr"] = 0.25
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_model_that_was_moved_after_a_step_says_what_brings_the_state_along() -> None:
    model = net()
    optimizer = slalom.AdamW(model.parameters())
    for dtype in (torch.float32, torch.float64):
        model.to(dtype)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        if dtype == torch.float64:
            with pytest.raises(
                RuntimeError, match=r"state ema\.m is float32 on cpu, its parameter became float64 on cpu"
            ):
                optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    assert all(state["ema.m"].dtype == torch.float64 for state in optimizer.state.values())
