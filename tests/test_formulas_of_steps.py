"""Every part's formula, written a second time in plain torch, as its paper or docstring has it: all but what remembers.

What methods use is compared with independent packages besides (test_methods.py); here the options are that no method
uses, and epsilons and bounds large enough to matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from by_hand import LOSSES, LR, SLOPES, Formula, M, N, check, ema, lengths, rms, row, table
from slalom import parts as P  # noqa: N812

# --- gradient ---------------------------------------------------------------------------------------------------


def reduced(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    c = g + 0.3 * 0.8 / 0.2 * (g - s.get("g", 0.0))
    s["g"] = g
    return c / max(1.0, c.norm().item())


def clipped_layer_rate(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    return min(0.04 * w.norm() / (g.norm() + 0.2 * w.norm()) / LR, torch.tensor(1.0)) * (g + 0.2 * w)


def layer_rate(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    return 0.4 * w.norm() / (g.norm() + 0.2 * w.norm()) * (g + 0.2 * w)


@table(
    decayed=({"gradient": P.L2(0.3)}, lambda w, g, t, s: g + 0.3 * w),
    clipped=({"gradient": P.ClipNorm(0.9, "tensor")}, lambda w, g, t, s: g / max(1.0, g.norm().item() / 0.9)),
    clipped_by_value=({"gradient": P.ClipValue(0.4)}, lambda w, g, t, s: g.clamp(-0.4, 0.4)),
    normal=({"gradient": P.Normalize(eps=0.5)}, lambda w, g, t, s: g / (g.norm() + 0.5)),
    normal_rows=({"gradient": P.Normalize("row", 0.5)}, lambda w, g, t, s: g / (lengths(g) + 0.5)),
    standard_rows=(
        {"gradient": P.StandardizeRows()},
        lambda w, g, t, s: (g - row(g)) / row((g - row(g)) ** 2).sqrt(),
    ),
    centred=({"gradient": P.Centralize()}, lambda w, g, t, s: g - row(g)),
    adaptively_clipped=(
        {"gradient": P.AdaptiveClip(0.3, 1.5)},
        lambda w, g, t, s: g * (0.3 * lengths(w).clamp(min=1.5) / lengths(g)).clamp(max=1.0),
    ),
    softly_clipped=(
        {"gradient": P.SoftClip(0.7)},
        lambda w, g, t, s: g * (row(w * w).sqrt().clamp(min=0.7) / row(g * g).sqrt()).clamp(max=1.0),
    ),
    layer_rate=({"gradient": P.LayerRate(0.4, 0.2)}, layer_rate),
    layer_rate_that_slows_only=(
        {"gradient": P.LayerRate(0.04, 0.2, clip=True), "order": ("step", "gradient", "form")},
        clipped_layer_rate,
    ),
    reduced=({"gradient": P.VarianceReduced(0.3, 0.8)}, reduced),
    length_kept=(
        {"gradient": P.KeepLength(0.8)},
        lambda w, g, t, s: g * max(1.0, float(ema(s, "e", g.norm(), 0.8) / g.norm())),
    ),
)
def test_gradient(parts: dict[str, Any], formula: Formula) -> None:
    check(parts, formula)


# --- guard ------------------------------------------------------------------------------------------------------

SCALED = {"momentum": P.Ema(0.8, debias=False), "scale": P.SecondMoment(0.9, 0.1, debias=False)}


def guarded(change: Callable[[Tensor, Tensor, Tensor, Tensor, int, dict[str, Any]], Tensor]) -> Formula:
    """What a guard makes of u and D, in the order w, g, u, D, t, s."""

    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        return change(w, g, ema(s, "m", g, 0.8), ema(s, "v", g * g, 0.9).sqrt() + 0.1, t, s)

    return formula


def no_growth(w: Tensor, g: Tensor, u: Tensor, d: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    q, last = u / d, s.get("n", 0.0)
    excess = max(q.norm().item() / (last + 1e-8), 1.05) / 1.05 if last > 0 else 1.0
    s["n"] = q.norm().item() / excess
    return q / excess


def cautious(kind: str, rest: float = 0.0) -> Formula:
    def change(w: Tensor, g: Tensor, u: Tensor, d: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        phi = torch.where(u * g > 0, 1.0, rest).double()
        made_up = {"count": phi.numel() / (phi.sum() + 1), "mean": 1 / phi.mean().clamp(min=1e-3), "none": 1.0}
        return u / d * phi * made_up[kind]

    return guarded(change)


def friction(curve: Callable[[Tensor], Tensor]) -> Formula:
    def change(w: Tensor, g: Tensor, u: Tensor, d: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        changed = (s.get("g", torch.zeros_like(g)) - g).abs()
        s["g"] = g
        return u / d * curve(changed)

    return guarded(change)


@table(
    trust=(
        {"guard": P.TrustRatio()},
        guarded(lambda w, g, u, d, t, s: u / d * w.norm() / (u / d).norm()),
    ),
    trust_in_long_weights=(
        {"guard": P.TrustRatio(low=5.0)},
        guarded(lambda w, g, u, d, t, s: u / d * max(w.norm().item(), 5.0) / (u / d).norm()),
    ),
    trust_in_short_weights=(
        {"guard": P.TrustRatio(high=2.0)},
        guarded(lambda w, g, u, d, t, s: u / d * min(w.norm().item(), 2.0) / (u / d).norm()),
    ),
    little_trust=(
        {"guard": P.TrustRatio(most=2.5)},
        guarded(lambda w, g, u, d, t, s: u / d * min((w.norm() / (u / d).norm()).item(), 2.5)),
    ),
    clipped=(
        {"guard": P.ClipUpdate(0.5)},
        guarded(lambda w, g, u, d, t, s: u / d / max(1.0, rms(u / d) / 0.5)),
    ),
    slowed=(
        {"guard": P.ClipRate(0.5)},
        guarded(lambda w, g, u, d, t, s: u / d / max(1.0, rms(g / d) / 0.5)),
    ),
    each_clipped=(
        {"guard": P.ClipEach(0.3, 0.25)},
        guarded(lambda w, g, u, d, t, s: (u / d).clamp(-0.3 * t**0.25, 0.3 * t**0.25)),
    ),
    same_norm=(
        {"guard": P.SameNorm()},
        guarded(lambda w, g, u, d, t, s: u / d * u.norm() / (u / d).norm()),
    ),
    fixed_size=({"guard": P.FixedRms(0.3)}, guarded(lambda w, g, u, d, t, s: 0.3 * u / d / rms(u / d))),
    no_growth=({"guard": P.GrowthLimit(1.05)}, guarded(no_growth)),
    corrected_late=(
        {"guard": P.LateCorrection(0.8, 0.9)},
        guarded(lambda w, g, u, d, t, s: u / d * math.sqrt(1 - 0.9**t) / (1 - 0.8**t)),
    ),
    relative=(
        {"guard": P.RelativeSize(0.4), "step": 0.7},
        guarded(lambda w, g, u, d, t, s: 7 * u / d * max(0.4, rms(w)) * min(1.0, 1 / (0.7 * t**0.5))),
    ),
    sign_of_the_gradient=(
        {"guard": P.GradientSign()},
        guarded(lambda w, g, u, d, t, s: g.sign() * u.abs() / d),
    ),
    cautious=({"guard": P.Cautious()}, cautious("count")),
    cautious_by_mean=({"guard": P.Cautious("mean")}, cautious("mean")),
    hesitant=({"guard": P.Cautious("mean", rest=0.25)}, cautious("mean", 0.25)),
    cautious_alone=({"guard": P.Cautious("none")}, cautious("none")),
    friction=({"guard": P.Friction()}, friction(lambda x: 1 / (1 + (-x).exp()))),
    friction_rational=({"guard": P.Friction("rational")}, friction(lambda x: 1.1 - 1 / (2 * (1 + x)))),
)
def test_guard(parts: dict[str, Any], formula: Formula) -> None:
    check({**SCALED, **parts}, formula)


def tangent(delta: float) -> Formula:
    """AdamP's projection with a decay that stands before it."""

    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        for n_of, size in ((lengths, N), (lambda x: x.norm(), M * N)):
            inner = (w * g).sum(1, keepdim=True) if size == N else (w * g).sum()
            if ((inner.abs() / (n_of(w) * n_of(g).clamp(min=0.05))).max() < delta / math.sqrt(size)).item():
                n = w / (n_of(w) + 0.05)
                along = (n * g).sum(1, keepdim=True) if size == N else (n * g).sum()
                return g - n * along + 0.2 * 0.3 * w
        return g + 0.3 * w

    return formula


@pytest.mark.parametrize(("delta", "acts"), [(10.0, "rows"), (1.3, "whole"), (1e-3, "not")])
def test_tangent(delta: float, acts: str) -> None:
    order = ("gradient", "momentum", "scale", "regularize", "guard", "step", "form")
    check({"guard": P.Tangent(delta, 0.2, 0.05), "regularize": P.Decoupled(0.3), "order": order}, tangent(delta))


# --- regularize -------------------------------------------------------------------------------------------------


def constrained(kind: str, steps: int) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        a = w - LR * g
        length, known = (a * a).sum().item(), True
        if kind == "uniform":
            kappa = 4.0
        elif kind == "dependent":
            kappa = s.setdefault("kappa", 0.5 * (w * w).sum().item())
        else:  # a warm start
            known = t >= steps
            kappa = s.setdefault("kappa", length) if known else 0.0
        s["l"] = max(s.get("l", 0.0) + 0.7 / w.numel() * (length - kappa), 0.0) if known else 0.0
        return g + 2 * s["l"] / LR * a

    return formula


def measured(measure: str, by_rate: bool = False) -> Formula:
    """CPR by what autograd says of each measure."""
    of: dict[str, Callable[[Tensor], Tensor]] = {
        "half": lambda a: a.square().sum() / 2,
        "l1": lambda a: a.abs().sum(),
        "huber": lambda a: torch.nn.functional.huber_loss(a, torch.zeros_like(a), reduction="sum"),
        "deviation": lambda a: a.std(),
    }

    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        a = (w - LR * g).requires_grad_()
        length = of[measure](a)
        (slope,) = torch.autograd.grad(length, a)
        mu = 0.7 if measure in ("half", "deviation") else 0.7 / w.numel()
        s["l"] = max(s.get("l", 0.0) + mu * (length.item() - 0.5), 0.0)
        return g + s["l"] * (1.0 if by_rate else 1 / LR) * slope

    return formula


def proximal(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    return (w - (w - LR * g) / (1 + LR * 0.4)) / LR


def shrunk(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    a = w - LR * g
    return (w - a.sign() * (a.abs() - LR * 0.4).clamp(min=0)) / LR


def grouped(along: int) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        a = w - LR * g
        return (w - a * (1 - LR * 4 / a.norm(dim=along, keepdim=True)).clamp(min=0)) / LR

    return formula


@table(
    decoupled=({"regularize": P.Decoupled(0.3)}, lambda w, g, t, s: g + 0.3 * w),
    fixed=({"regularize": P.FixedDecay(0.03)}, lambda w, g, t, s: g + 0.03 / LR * w),
    squared=({"regularize": P.SquaredDecay(3.0)}, lambda w, g, t, s: g + 3 * LR * w),
    proximal=({"regularize": P.ProximalDecay(0.4)}, proximal),
    proximal_l2=({"regularize": P.ProximalL2(0.4)}, proximal),
    l1=({"regularize": P.L1(0.4)}, shrunk),
    rows=({"regularize": P.GroupL2(4.0)}, grouped(1)),
    columns=({"regularize": P.GroupL2(4.0, "column")}, grouped(0)),
    cautious=(
        {"regularize": P.CautiousDecay(0.3)},
        lambda w, g, t, s: g + 0.3 * torch.where(g * w >= 0, w, 0.0),
    ),
    towards_the_start=({"regularize": P.TowardsStart(0.3)}, lambda w, g, t, s: g + 0.3 * (w - s.setdefault("w", w))),
    unit_rows=({"regularize": P.NormLoss(0.3)}, lambda w, g, t, s: g + 0.6 * (1 - 1 / lengths(w)) * w),
    constrained=({"regularize": P.Constrained(4.0, mu=0.7)}, constrained("uniform", 0)),
    **{
        f"constrained_by_{measure}": (
            {"regularize": P.Constrained(0.5, mu=0.7, measure=measure)},  # type: ignore[arg-type]
            measured(measure),
        )
        for measure in ("half", "l1", "huber", "deviation")
    },
    constrained_by_the_rate=(
        {"regularize": P.Constrained(0.5, mu=0.7, measure="half", by_rate=True)},
        measured("half", by_rate=True),
    ),
    constrained_from_the_start=({"regularize": P.Constrained(0.5, "dependent", mu=0.7)}, constrained("dependent", 0)),
    constrained_after_three=({"regularize": P.Constrained(1.0, "warm_start", 3, 0.7)}, constrained("warm", 3)),
)
def test_regularize(parts: dict[str, Any], formula: Formula) -> None:
    check(parts, formula)


def test_stable_decay() -> None:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        d = ema(s, "v", g * g, 0.9).sqrt() + 0.1
        return g / d + 0.3 * w / (d * d).mean().sqrt()

    check({"scale": P.SecondMoment(0.9, 0.1, debias=False), "regularize": P.StableDecay(0.3)}, formula)


# --- step -------------------------------------------------------------------------------------------------------


def relative(by_size: bool, by_time: bool, warmup: float) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        rate = min(0.6, 1 / math.sqrt(t)) if by_time else 0.6
        rate = min(rate, warmup * t) if warmup else rate
        return g * rate * (max(0.4, rms(w)) if by_size else 1.0)

    return formula


def rectified(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    longest = 2 / (1 - 0.9) - 1
    rho = longest - 2 * t * 0.9**t / (1 - 0.9**t)
    if rho <= 4:
        return 0 * g
    return g * math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))


def polyak(growth: float) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        rate = min(0.8, max(LOSSES[t - 1] - 0.5, 0) / (0.7 * (g * g).sum().item() + 0.2))
        if s.get("last", 0.0) > 0:
            rate = min(rate, growth * s["last"])
        s["last"] = rate or s.get("last", 0.0)
        return rate * g

    return formula


def momo(debias: bool, estimate: bool) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        def average(key: str, value: Any) -> Any:
            if not debias and t == 1:
                s[key] = value
                return value
            return ema(s, key, value, 0.8) / (1 - 0.8**t if debias else 1.0)

        u = average("u", g)
        h = average("f", LOSSES[t - 1]) + (u * w).sum().item() - average("p", (g * w).sum().item())
        floor = s.get("floor", 0.1)
        if estimate and h < floor:
            floor = max(h / 2, 0.1)
        square = (u * u).sum().item()
        rate = min(max(h - floor, 0.0) / square, 0.05)
        s["floor"] = max(h - rate * square / 2, 0.1) if estimate else 0.1
        return rate * u

    return formula


def driven(form: str) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        f = LOSSES[t - 1]
        a = ema(s, "a", f / 2.5 if form == "paper" else 1 / (2 + f), 0.8)
        rate = {"paper": a, "adversarial": a / 2.5, "compliant": (1 - a) / 2.5}[form]
        return 0.5 * max(rate, 0.07) * g

    return formula


def normalized_polyak(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    size = ema(s, "size", math.sqrt(math.pi / 2) * g.abs().sum().item(), 0.8) / (1 - 0.8**t)
    return 0.5 * max(LOSSES[t - 1] - 0.5, 0) / size * g


@table(
    decaying=({"step": P.Decaying(0.6, 0.3)}, lambda w, g, t, s: 0.6 / (1 + (t - 1) * 0.3) * g),
    relative=({"step": P.Relative(0.6, 0.4)}, relative(by_size=True, by_time=True, warmup=0.0)),
    relative_warming_up=({"step": P.Relative(0.6, 0.4, 0.2)}, relative(by_size=True, by_time=True, warmup=0.2)),
    relative_at_any_time=({"step": P.Relative(0.6, 0.4, by_time=False)}, relative(True, False, 0.0)),
    absolute=({"step": P.Relative(0.6, 0.4, 0.2, by_size=False)}, relative(False, True, 0.2)),
    rectified=({"step": P.RectifiedRate(1.0, 0.9)}, rectified),
    polyak=({"step": P.Polyak(0.8, 0.7, 0.5, 0.2)}, polyak(math.inf)),
    polyak_growing_slowly=({"step": P.Polyak(0.8, 0.7, 0.5, 0.2, growth=1.1)}, polyak(1.1)),
    normalized_polyak=({"step": P.NormalizedPolyak(0.5, 0.8, 0.5)}, normalized_polyak),
    driven=({"step": P.LossDriven(0.5, 2.5, 0.8, "paper", 0.07)}, driven("paper")),
    driven_adversarially=({"step": P.LossDriven(0.5, 2.5, 0.8, "adversarial", 0.07)}, driven("adversarial")),
    driven_compliantly=({"step": P.LossDriven(0.5, 2.5, 0.8, "compliant", 0.07)}, driven("compliant")),
)
def test_step(parts: dict[str, Any], formula: Formula) -> None:
    check(parts, formula, lr=1.0)


@pytest.mark.parametrize("estimate", [False, True])
@pytest.mark.parametrize("debias", [False, True])
def test_momo(debias: bool, estimate: bool) -> None:
    momentum = P.Ema(0.8) if debias else P.HeavyBall(0.8, 0.8)  # whose first average is the first gradient
    step = P.MoMo(0.05, 0.8, debias, 0.1, estimate)
    check(
        {"momentum": momentum, "step": step, "order": ("momentum", "scale", "step", "form")},
        momo(debias, estimate),
        1.0,
    )


# --- steps that find their own length ---------------------------------------------------------------------------


def distance(squared: bool) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        start = s.setdefault("start", w)
        s["r"] = max(s.get("r", 0.05 * (1 + w.norm().item())), (w - start).norm().item())
        weight = s["r"] ** 2 if squared else 1.0
        s["v"] = s.get("v", 0.0) + weight * (g * g).sum().item()
        return 0.6 * s["r"] * g * (s["r"] / math.sqrt(s["v"]) if squared else 1 / math.sqrt(s["v"] + 0.5))

    return formula


def prodigy(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    start, d, b = s.setdefault("start", w), s.get("d", 0.2), math.sqrt(0.8)
    weight = d / 0.2 * 0.6 * d
    s["s"] = b * s.get("s", 0.0) + weight * g
    s["r"] = b * s.get("r", 0.0) + weight * (g * (start - w)).sum().item()
    s["d"] = max(d, 10 * s["r"] / s["s"].abs().sum().item())
    return 0.6 * d * d * g


def adaptation(growth: float) -> Formula:
    """D-Adaptation for Adam."""

    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        d, q = s.get("d", 0.2), math.sqrt(0.8)
        fed = 0.6 * d * g
        earlier = torch.as_tensor(s.get("v", 0.0)).double().sqrt() + 0.1
        s["r"] = q * s.get("r", 0.0) + (1 - q) * (fed * s.get("s", 0.0) / earlier).sum().item()
        s["s"] = q * s.get("s", 0.0) + (1 - q) * fed
        s["d"] = max(d, min(s["r"] / ((1 - q) * s["s"].abs().sum().item()), growth * d))
        return fed / (ema(s, "v", g * g, 0.8).sqrt() + 0.1)

    return formula


def adaptation_of_sgd(growth: float) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        d, first = s.get("d", 0.2), s.setdefault("first", g.norm().item())
        rate = 0.6 * d / first
        s["r"] = s.get("r", 0.0) + rate * (g * s.get("s", 0.0)).sum().item()
        s["s"] = s.get("s", 0.0) + rate * g
        s["d"] = max(d, min(2 * s["r"] / s["s"].norm().item(), growth * d))
        return rate * g

    return formula


def hypergradient(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    step = s.get("before", w) - w
    if step.norm() > 0:
        s["a"] = s.get("a", 1.0) * (1 + 0.3 * (g * step).sum().item() / (g.norm() * step.norm()).item())
    s["before"] = w
    return 0.6 * s.get("a", 1.0) * g


def mechanic(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    """With three horizons; plain torch has no state that starts at 1e-6, so m does here."""
    start, delta = s.setdefault("start", w), s.setdefault("delta", torch.zeros_like(w))
    n, ahead = 3, w - 0.6 * g
    scales = s.setdefault("s", [0.0] * n)
    whole = sum(scales)
    pull = 0.2 * whole * g.norm() / (ahead.norm() + 1e-3)
    h = ((delta * g).sum() + pull * (delta * ahead).sum()).item()
    m, v, r = (s.setdefault(key, [start_of] * n) for key, start_of in (("m", 1e-6), ("v", 0.0), ("r", 0.0)))
    for i in range(n):
        b = 1 - 10.0 ** -(i + 1)
        m[i] = max(b * m[i], abs(h))
        v[i] = b * b * v[i] + h * h
        r[i] = max(0.0, b * r[i] - scales[i] * h)
        scales[i] = (0.01 * m[i] / n + r[i]) / (math.sqrt(v[i]) + 1e-3)
    s["delta"] = delta + (ahead - w)
    return w - (start + max(sum(scales), 0.0) * s["delta"])


FLAT = {"scale": P.SecondMoment(0.8, 0.1, debias=False)}


@table(
    distance=({"step": P.DoG(0.6, 0.05, "tensor", eps=0.5)}, distance(squared=False)),
    distance_of_the_model=({"step": P.DoG(0.6, 0.05, "model", eps=0.5)}, distance(squared=False)),
    weighted_distance=({"step": P.DoWG(0.6, 0.05)}, distance(squared=True)),
    prodigy=({"step": P.Prodigy(0.6, 0.8, 0.2, 10.0)}, prodigy),
    adaptation=({**FLAT, "step": P.DAdaptation(0.6, 0.8, 0.2)}, adaptation(math.inf)),
    adaptation_growing_slowly=({**FLAT, "step": P.DAdaptation(0.6, 0.8, 0.2, 1.1)}, adaptation(1.1)),
    adaptation_of_sgd=({"step": P.DAdaptationSGD(0.6, 0.2)}, adaptation_of_sgd(math.inf)),
    adaptation_of_sgd_growing_slowly=({"step": P.DAdaptationSGD(0.6, 0.2, 1.1)}, adaptation_of_sgd(1.1)),
    hypergradient=({"step": P.Hypergradient(0.6, 0.3)}, hypergradient),
    inertial=(
        {"step": 0.6, "form": P.Inertial(beta=0.8), "regularize": P.Decoupled(0.3)},
        lambda w, g, t, s: ema(s, "d", 0.6 * (g + 0.3 * w), 0.8),
    ),
    mechanic=({"step": 0.6, "form": P.Mechanic(decay=0.2, s_init=0.01, eps=1e-3, count=3)}, mechanic),
)
def test_steps_that_find_their_length(parts: dict[str, Any], formula: Formula) -> None:
    check(parts, formula, lr=1.0)
    check(parts, formula, lr=1.0, gradients=SLOPES)
