"""Sharpness-aware steps: against another implementation, in mixed precision, and what is left of them: nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn

import slalom
from networks import largest_difference, twins
from slalom.sharpness import ASAM, SAM


def _data(step: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x, y = (torch.randn(8, n, generator=generator, dtype=torch.float64).to(dtype) for n in (16, 2))
    return x, y


def _loss(model: nn.Module, step: int) -> Tensor:
    x, y = _data(step, next(model.parameters()).dtype)
    loss: Tensor = (model(x) - y).square().mean()
    return loss


def _closure(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Any:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(model, step)
        loss.backward()
        return loss

    return closure


def test_sam_equals_an_independent_implementation() -> None:
    ours, theirs = twins()
    a = slalom.AdamW(ours.parameters(), lr=0.01)
    b = pytorch_optimizer.SAM(theirs.parameters(), torch.optim.AdamW, rho=0.1, lr=0.01)
    for step in range(20):
        first = _loss(ours, step)
        loss = a.step(_closure(ours, a, step), sharpness=SAM(0.1))
        assert loss == first
        _closure(theirs, b, step)()
        b.step(_closure(theirs, b, step))
    assert largest_difference(ours, theirs) < 1e-7  # it adds the gradient's norm up in float32


def test_sam_is_its_formula() -> None:
    model, _ = twins()
    optimizer = slalom.SGD(model.parameters(), lr=0.0)
    _closure(model, optimizer, 0)()
    before = [p.detach().clone() for p in model.parameters()]
    g = [p.grad for p in model.parameters()]
    length = torch.cat([grad.flatten() for grad in g if grad is not None]).norm()
    with SAM(0.05).perturbed(optimizer.param_groups):
        for p, w, grad in zip(model.parameters(), before, g, strict=True):
            torch.testing.assert_close(p.detach() - w, 0.05 * grad / length, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("sharpness", [SAM(0.1), ASAM(0.5)])
def test_mixed_precision_takes_the_same_steps(sharpness: SAM) -> None:
    """The scale is a power of two, and cancels in the direction."""
    ours, theirs = twins(torch.float32)
    a, b = slalom.AdamW(ours.parameters(), lr=0.01), slalom.AdamW(theirs.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(5):
        loss = a.step(lambda step=step: _loss(ours, step), sharpness=sharpness, scaler=scaler)
        assert loss == b.step(_closure(theirs, b, step), sharpness=sharpness)
    assert largest_difference(ours, theirs) < 1e-6
    assert a.skipped == 0


@pytest.mark.parametrize("sharpness", [SAM(0.1), ASAM(0.5)])
def test_autocast_with_a_scaler_takes_the_same_steps_as_without(sharpness: SAM) -> None:
    """A scale that is a power of 2 moves no digit of a bfloat16, so the steps have the same bits."""
    scaled, plain = twins(torch.float32)
    a, b = slalom.AdamW(scaled.parameters(), lr=0.01), slalom.AdamW(plain.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def loss(model: nn.Module, step: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return _loss(model, step)

    for step in range(5):

        def closure(step: int = step) -> Tensor:
            b.zero_grad()
            value = loss(plain, step)
            value.backward()
            return value

        a.step(lambda step=step: loss(scaled, step), sharpness=sharpness, scaler=scaler)
        b.step(closure, sharpness=sharpness)
    assert largest_difference(scaled, plain) == 0
    assert a.skipped == 0


@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", init_scale=8.0)], ids=["plain", "scaled"])
def test_batch_norm_sees_the_first_evaluation_only(scaler: torch.amp.GradScaler | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    once = copy.deepcopy(model)
    optimizer = slalom.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        once.load_state_dict(model.state_dict())
        with torch.no_grad():
            once(_data(step, torch.float32)[0])
        seen = copy.deepcopy(once[1].state_dict())
        if scaler is None:
            optimizer.step(_closure(model, optimizer, step), sharpness=SAM(0.5))
        else:
            optimizer.step(lambda step=step: _loss(model, step), sharpness=SAM(0.5), scaler=scaler)
        for key, value in model[1].state_dict().items():
            if "running" in key or "tracked" in key:
                assert torch.equal(value, seen[key]), key
    assert model.training


def test_a_second_evaluation_that_fails_leaves_batch_norms_statistics_of_the_first() -> None:
    model = nn.Sequential(nn.Linear(16, 6), nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 2))
    optimizer = slalom.SGD(model.parameters(), lr=0.1)
    calls: list[int] = []

    def closure() -> Tensor:
        calls.append(0)
        loss = _closure(model, optimizer, 0)()
        if len(calls) == 2:
            raise KeyError
        return loss

    with pytest.raises(KeyError):
        optimizer.step(closure, sharpness=SAM(0.5))
    assert model[1].num_batches_tracked == 1
    _closure(model, optimizer, 0)()
    assert model[1].num_batches_tracked == 2  # nobody keeps watching


def test_asam_is_its_formula() -> None:
    model, _ = twins()
    optimizer = slalom.SGD(model.parameters(), lr=0.0)
    _closure(model, optimizer, 0)()
    before = [p.detach().clone() for p in model.parameters()]
    stretch = [w.abs() + 0.01 if w.ndim > 1 else torch.ones_like(w) for w in before]
    g = [p.grad for p in model.parameters()]
    length = torch.cat([(t * grad).flatten() for t, grad in zip(stretch, g, strict=True)]).norm()
    with ASAM(0.5).perturbed(optimizer.param_groups) as moved:
        assert moved
        for p, w, t, grad in zip(model.parameters(), before, stretch, g, strict=True):
            torch.testing.assert_close(p.detach() - w, 0.5 * t**2 * grad / length, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), before, strict=True))


def test_asam_does_not_see_two_layers_scaled_against_each_other() -> None:
    """Its claim, exact for eta = 0 and weights alone; SAM's second loss changes."""

    def second_loss(factor: float, sharpness: SAM) -> float:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False)).double()
        with torch.no_grad():
            model[0].weight *= factor
            model[2].weight /= factor
        optimizer, losses = slalom.SGD(model.parameters(), lr=0.0), []

        def closure() -> Tensor:
            losses.append(_closure(model, optimizer, 0)())
            return losses[-1]

        optimizer.step(closure, sharpness=sharpness)
        return losses[1].item()

    assert second_loss(1.0, ASAM(0.5, eta=0.0)) == pytest.approx(second_loss(8.0, ASAM(0.5, eta=0.0)), rel=1e-9)
    assert second_loss(1.0, SAM(0.05)) != pytest.approx(second_loss(8.0, SAM(0.05)), rel=1e-3)


def test_ascending_parameters_are_moved_the_other_way() -> None:
    """maximize equals minimizing the negative, so their worst point is where the loss is low."""
    up, down = twins()
    a, b = slalom.SGD(up.parameters(), lr=0.01, maximize=True), slalom.SGD(down.parameters(), lr=0.01)
    for step in range(3):

        def negative(step: int = step) -> Tensor:
            b.zero_grad()
            loss = -_loss(down, step)
            loss.backward()
            return loss

        a.step(_closure(up, a, step), sharpness=SAM(0.1))
        b.step(negative, sharpness=SAM(0.1))
    assert largest_difference(up, down) < 1e-14


def test_overflows_and_errors_leave_parameters_where_they_were() -> None:
    model, untouched = twins(torch.float32)
    optimizer = slalom.AdamW(model.parameters(), on_nonfinite="skip")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for bad in (1, 2):  # the first evaluation, the second
        calls: list[int] = []

        def loss(calls: list[int] = calls, bad: int = bad) -> Tensor:
            calls.append(0)
            return _loss(model, 0) * (float("inf") if len(calls) == bad else 1.0)

        optimizer.step(loss, sharpness=SAM(), scaler=scaler)
        assert len(calls) == bad

    def plain() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    calls.clear()
    optimizer.step(plain, sharpness=SAM())
    assert optimizer.skipped == 3
    calls.clear()

    def fails() -> Tensor:
        if calls:
            raise KeyError
        return plain()

    with pytest.raises(KeyError):
        optimizer.step(fails, sharpness=SAM())
    assert largest_difference(model, untouched) == 0
    assert not optimizer.state


def test_a_radius_of_zero_changes_no_bit() -> None:
    ours, theirs = twins(torch.float32)
    a, b = slalom.AdamW(ours.parameters()), slalom.AdamW(theirs.parameters())
    for step in range(3):
        a.step(_closure(ours, a, step), sharpness=SAM(0.0))
        b.step(_closure(theirs, b, step))
    assert largest_difference(ours, theirs) == 0


def test_refusals() -> None:
    optimizer = slalom.SGD([nn.Parameter(torch.ones(2))])
    with pytest.raises(TypeError, match="got no closure"):
        optimizer.step(sharpness=SAM())
    with pytest.raises(ValueError, match="the radius must be 0 or more"):
        SAM(-1.0)
    with pytest.raises(ValueError, match="eta=-1"):
        ASAM(eta=-1.0)
