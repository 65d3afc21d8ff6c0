"""The sign of sigma, against the table of inequalities in the new gradient (r is the ratio of two rates)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import slalom
from networks import build, network, train
from slalom.observe import sigma
from slalom.parts import FTRL, Ema, SecondMoment
from slalom.recipes import Recipe

Inequality = Callable[[torch.Tensor, torch.Tensor, float, float], torch.Tensor]
BETA = 0.9

# g^2 below this means a negative sigma; v the state before the step, t its number, r2 the squared ratio of rates.
TABLE: dict[str, tuple[dict[str, Any], str, Inequality]] = {
    "adagrad": ({"eps": 0.0}, "accumulated.v", lambda g2, v, t, r2: g2 < (r2 - 1) * v),
    "rmsprop": (
        {"alpha": BETA, "eps": 0.0},
        "second_moment.v",
        lambda g2, v, t, r2: g2 < v * (r2 - BETA) / (1 - BETA),
    ),
    "rmsprop-bc": (
        {"beta": BETA, "eps": 0.0},
        "second_moment.v",
        lambda g2, v, t, r2: g2 < v / (1 - BETA) * (r2 * (1 - BETA**t) / (1 - BETA ** (t - 1)) - BETA),
    ),
    "adam": (
        {"betas": (0.5, BETA), "eps": 0.0},
        "second_moment.v",
        lambda g2, v, t, r2: g2 < v / (1 - BETA) * (r2 * (1 - BETA**t) / (1 - BETA ** (t - 1)) - BETA),
    ),
}


@pytest.mark.parametrize("drift", [1.0, 1.03, 0.99, 0.94], ids=["constant", "rising", "falling", "falling fast"])
@pytest.mark.parametrize("name", TABLE)
def test_signs_agree_with_the_inequality_in_the_gradient(name: str, drift: float) -> None:
    settings, key, negative = TABLE[name]
    w = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = build(name, [w], lr=0.01, **settings)
    watch = sigma(optimizer)
    generator = torch.Generator().manual_seed(0)
    seen = 0.0
    for t in range(1, 60):
        optimizer.param_groups[0]["lr"] = 0.01 * drift**t
        w.grad = torch.randn(50, generator=generator, dtype=torch.float64)
        expected = 0.0
        if t > 1:
            expected = negative(w.grad**2, optimizer.state[w][key], float(t), drift**2).double().mean().item()
        optimizer.step()
        assert watch.history[-1].fraction == pytest.approx(expected, abs=1e-9), t
        seen += watch.history[-1].fraction
    # AdaGrad breaks only under a rising rate; RMSProp cannot once the squared ratio is below beta
    safe = drift <= 1.0 if name == "adagrad" else drift**2 <= BETA and name == "rmsprop"
    assert (seen == 0.0) == safe


BETAS = (0.0, BETA)
# What the sheet of inequalities says of scales that keep a maximum: their root's square under the maximum, before and
# after, from the states before and after; r2 as above.
RATCHETS: dict[str, tuple[str, dict[str, Any], str, Callable[[torch.Tensor, float], torch.Tensor]]] = {
    "AMS-0": ("amsgrad", {"variant": "paper", "betas": BETAS}, "second_moment.v_max", lambda m, t: m),
    "AMS-pre": ("amsgrad", {"variant": "pre", "betas": BETAS}, "second_moment.v_max", lambda m, t: m),
    "AMS-nomem": ("amsgrad", {"variant": "memoryless", "betas": BETAS}, "second_moment.v", lambda m, t: m),
    "AMS-post": ("amsgrad", {"betas": BETAS}, "second_moment.v_max", lambda m, t: m / (1 - BETA**t)),
    "Online RMSprop": ("online-rmsprop", {}, "online_moment.v", lambda v, t: t * v),
}


@pytest.mark.parametrize("drift", [1.0, 1.03, 0.99], ids=["constant", "rising", "falling"])
@pytest.mark.parametrize("label", RATCHETS)
def test_scales_with_a_maximum_break_as_their_maximum_says(label: str, drift: float) -> None:
    """AMSGrad is safe at a rate that does not rise, but for torch's variant, whose correction shrinks at first."""
    name, settings, key, root = RATCHETS[label]
    w = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = build(name, [w], lr=0.01, eps=0.0, **settings)
    watch = sigma(optimizer)
    generator = torch.Generator().manual_seed(0)
    broken, before = 0.0, torch.zeros(50, dtype=torch.float64)
    for t in range(1, 60):
        optimizer.param_groups[0]["lr"] = 0.01 * drift**t
        w.grad = torch.randn(50, generator=generator, dtype=torch.float64)
        optimizer.step()
        after = root(optimizer.state[w][key].clone(), float(t))
        still = (after - drift**2 * before).abs() <= 1e-14 * after  # equal but for rounding
        expected = ((after < drift**2 * before) & ~still).double().mean().item() if t > 1 else 0.0
        assert watch.history[-1].fraction == pytest.approx(expected, abs=1e-9), t
        broken += expected
        before = after
    assert (broken > 0) == (drift > 1 or label == "AMS-post")


def test_two_thirds_of_adams_coordinates_are_broken_under_stationary_noise() -> None:
    w = torch.nn.Parameter(torch.zeros(20_000))
    watch = sigma(build("adam", [w], betas=(0.9, 0.999)))
    optimizer = watch._optimizer
    for _ in range(300):
        w.grad = torch.randn(20_000)
        optimizer.step()
    last = watch.history[-1]
    assert last.fraction == pytest.approx(0.683, abs=0.03)  # erf(1 / sqrt 2)
    assert 0.3 < last.weight < 0.6
    assert 0.0 < last.drawdown < 1.0


def test_the_lazy_forms_own_sum_is_the_same() -> None:
    w = torch.nn.Parameter(torch.ones(10, dtype=torch.float64))
    optimizer = Recipe(momentum=Ema(0.9), scale=SecondMoment(0.9), form=FTRL(), step=0.01).build([w])
    watch = sigma(optimizer)
    previous = torch.zeros(10)
    for _ in range(30):
        w.grad = torch.randn(10, dtype=torch.float64)
        optimizer.step()
        h = optimizer.state[w]["ftrl.h"].clone()
        change = h - previous
        assert watch.history[-1].fraction == pytest.approx((change < 0).double().mean().item())
        weight = -change.clamp(max=0).sum() / change.abs().sum()
        assert watch.history[-1].weight == pytest.approx(weight.item(), rel=1e-9)
        previous = h


def test_drawdown_is_below_the_highest_so_far() -> None:
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = slalom.RMSpropBC([w], beta=0.5, eps=0.0)
    watch = sigma(optimizer)
    metrics = []
    for value in (1.0, 4.0, 0.0, 0.0, 2.0):
        w.grad = torch.full((1,), value, dtype=torch.float64)
        optimizer.step()
        t = len(metrics) + 1
        metrics.append((optimizer.state[w]["second_moment.v"].item() / (1 - 0.5**t)) ** 0.5)
        assert watch.history[-1].drawdown == pytest.approx(1 - metrics[-1] / max(metrics))


def test_sgd_breaks_exactly_when_its_rate_rises() -> None:
    w = torch.nn.Parameter(torch.zeros(3, 2))
    optimizer = slalom.SGD([w], lr=0.1)
    watch = sigma(optimizer)
    for rate in (0.1, 0.1, 0.2, 0.05):
        optimizer.param_groups[0]["lr"] = rate
        w.grad = torch.ones(3, 2)
        optimizer.step()
    assert [one.fraction for one in watch.history] == [0.0, 0.0, 1.0, 0.0]


def test_watching_changes_nothing_and_ends() -> None:
    torch.manual_seed(0)
    model = network(torch.float32)
    twin = network(torch.float32)
    twin.load_state_dict(model.state_dict())
    watched, alone = slalom.Adam(model.named_parameters()), slalom.Adam(twin.parameters())
    watch = sigma(watched)
    train(model, watched, 5)
    watch.remove()
    train(model, watched, 2, first=5)
    train(twin, alone, 7)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    assert len(watch.history) == 5
    assert set(watch.last) == {name for name, _ in model.named_parameters()}
    assert "sigma < 0" in str(watch)
    assert not watch._peaks


def test_a_closure_is_no_obstacle() -> None:
    w = torch.nn.Parameter(torch.ones(4))
    optimizer = slalom.Adam([w])
    watch = sigma(optimizer, drawdown=False)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (w**4).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert len(watch.history) == 3
    assert watch.history[-1].fraction == 1.0  # the gradient falls, and with it the average
    assert watch.history[-1].drawdown == 0.0


NOT_A_FUNCTION_OF_STATE = {
    "adafactor", "adafactor-hf", "adopt", "alig", "amos", "dadapt-adam", "dadapt-sgd", "momo", "momo-adam", "prodigy",
    "sm3", "schedule-free-plus", "smmf", "sps",
}  # fmt: skip


@pytest.mark.parametrize("name", slalom.list_optimizers())
def test_every_method_is_watched_or_refused(name: str) -> None:
    model = network(torch.float32)
    optimizer = build(name, model.parameters())
    if name in NOT_A_FUNCTION_OF_STATE:
        with pytest.raises(ValueError, match="depends on more than its state"):
            sigma(optimizer)
        return
    watch = sigma(optimizer)
    train(model, optimizer, 3)
    assert all(0 <= one.fraction <= 1 and 0 <= one.weight <= 1 for one in watch.history)
