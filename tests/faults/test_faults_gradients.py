"""Gradients that are not finite: how far they reach today, the same on every executor, and how a run comes back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from harm import equal
from torch import nn

import slalom
from networks import build
from slalom.recipes import method

BAD = [math.nan, math.inf, -math.inf]
EXECUTORS: tuple[Literal["eager", "foreach", "native"], ...] = ("eager", "foreach", "native")
# Methods whose every operation concerns one element.
ELEMENTWISE = ("adamw", "sgd", "lion", "rmsprop", "adagrad", "adan", "nadam", "adabelief", "adamax")


def steps(name: str, executor: Any, bad: float | None, count: int = 4) -> tuple[list[nn.Parameter], slalom.Optimizer]:
    """Take steps; one element of the first tensor's second gradient is bad."""
    generator = torch.Generator().manual_seed(2)
    parameters = [
        nn.Parameter(torch.randn(5, 3, generator=generator)),
        nn.Parameter(torch.randn(4, generator=generator)),
    ]
    optimizer = slalom.create(name, parameters, executor=executor)
    for step in range(count):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator)
        if step == 1 and bad is not None:
            assert parameters[0].grad is not None
            parameters[0].grad[2, 1] = bad
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_bad_element_reaches_no_other_element(name: str, executor: Any, bad: float) -> None:
    """Row "NaN and infinite gradients": one element."""
    harmed, optimizer = steps(name, executor, bad)
    healthy, reference = steps(name, executor, None)
    others = torch.ones(5, 3, dtype=torch.bool)
    others[2, 1] = False
    assert torch.equal(harmed[0][others], healthy[0][others])
    assert torch.equal(harmed[1], healthy[1])
    for key, value in optimizer.state[harmed[0]].items():
        if value.shape == others.shape:
            assert torch.equal(value[others], reference.state[healthy[0]][key][others]), key


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", [*ELEMENTWISE, "lamb", "adafactor", "prodigy", "lars"])
def test_executors_agree_on_what_is_finite(name: str, bad: float) -> None:
    """Row "NaN and infinite gradients": no executor hides what another shows."""
    one, *others = [[torch.isfinite(p) for p in steps(name, executor, bad)[0]] for executor in EXECUTORS]
    for other in others:
        assert equal(one, other)
    if name == "adamw" and math.isnan(bad):
        assert [int((~mask).sum()) for mask in one] == [1, 0]


def test_a_run_that_was_poisoned_comes_back_from_its_checkpoint_to_the_bits_without_the_poison(tmp_path: Path) -> None:
    """Row "NaN and infinite gradients": the way back; tests/test_nonfinite.py keeps them out."""

    def make() -> tuple[nn.Module, slalom.Optimizer]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        return model, slalom.AdamW(model.parameters(), lr=0.1)

    def train(model: nn.Module, optimizer: slalom.Optimizer, first: int, last: int, bad: int = -1) -> None:
        for step in range(first, last):
            optimizer.zero_grad()
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            (model(x).square().mean() * (math.nan if step == bad else 1.0)).backward()
            optimizer.step()

    model, optimizer = make()
    train(model, optimizer, 0, 3)
    slalom.save_checkpoint(tmp_path, model=model, optimizer=optimizer, position=3)
    train(model, optimizer, 3, 6, bad=4)
    assert not torch.isfinite(model[0].weight).any()
    loaded = slalom.load_checkpoint(tmp_path, model=model, optimizer=optimizer)  # into the poisoned objects themselves
    assert loaded is not None
    train(model, optimizer, 3, 6)
    clean, cleanly = make()
    train(clean, cleanly, 0, 6)
    assert equal(list(model.parameters()), list(clean.parameters()))


def test_state_that_is_not_finite_is_saved_and_loaded_as_it_is(tmp_path: Path) -> None:
    """Row "NaN and infinite gradients", that reached state."""
    parameters, optimizer = steps("adamw", "eager", math.nan)
    model = nn.ParameterList(parameters)
    slalom.save_checkpoint(tmp_path, model=model, optimizer=optimizer)
    again, fresh = steps("adamw", "eager", None, count=0)
    slalom.load_checkpoint(tmp_path, model=nn.ParameterList(again), optimizer=fresh)
    for p, q in zip(parameters, again, strict=True):
        for key, value in optimizer.state[p].items():
            assert torch.equal(value.view(torch.int32), fresh.state[q][key].view(torch.int32)), key


@pytest.mark.parametrize("name", [n for n in slalom.list_optimizers() if "scaler" not in method(n).exceptions])
def test_steps_that_a_scaler_skips_leave_no_trace(name: str) -> None:
    """Row "NaN and infinite gradients", every k steps: the run is the one that never had those."""

    def run(overflows: bool) -> tuple[list[nn.Parameter], slalom.Optimizer]:
        parameters = [nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3)), nn.Parameter(torch.ones(3))]
        optimizer = build(name, parameters)
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=1000, backoff_factor=0.5)
        for _ in range(3):
            for factor in (math.inf, 1.0) if overflows else (1.0,):
                optimizer.zero_grad()
                scaler.scale(factor * sum(p.square().sum() for p in parameters)).backward()
                scaler.step(optimizer)
                scaler.update(1.0)
        return parameters, optimizer

    (a, one), (b, other) = run(True), run(False)
    assert equal(a, b)
    for p, q in zip(a, b, strict=True):
        assert all(torch.equal(value, other.state[q][key]) for key, value in one.state[p].items())
