"""Every part's formula, written a second time in plain torch, as its paper or docstring has it: momenta and scales.

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

from by_hand import GRADIENTS, LR, Formula, M, N, check, column, ema, go, outer_root, row, table
from slalom import parts as P  # noqa: N812
from slalom.parts import epsilon as E  # noqa: N812

# --- momentum ---------------------------------------------------------------------------------------------------


def heavy(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    s["b"] = g if t == 1 else 0.8 * s["b"] + (1 - 0.3) * g
    return g + 0.8 * s["b"]


def aggregated(light: float) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        for beta in (light, 0.8, 0.95):
            s[beta] = beta * s.get(beta, 0.0) + g
        return sum(s[beta] for beta in (light, 0.8, 0.95)) / 3

    return formula


def two_speeds(warmup: int, alpha_warmup: int = 0, beta: float = 0.8) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        share = min(t / warmup, 1.0) if warmup else 1.0
        weight = min(t / alpha_warmup, 1.0) if alpha_warmup else share
        fast, slow = math.log(max(beta, 1e-8)), math.log(0.99)
        decay = math.exp(fast * slow / ((1 - share) * slow + share * fast))
        return ema(s, "m", g, beta) / (1 - beta**t) + 4 * weight * ema(s, "l", g, decay)

    return formula


def positive_negative(debias: bool) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        m = [torch.zeros_like(g), torch.zeros_like(g), *s.setdefault("m", [])]
        s["m"].append(0.64 * m[-2] + 0.36 * g)
        u = (1.5 * s["m"][-1] - 0.5 * m[-1]) / math.sqrt(1.5**2 + 0.5**2)
        return u / (1 - 0.8**t) if debias else u

    return formula


def adaptive(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    d = g if t == 1 else s["d"]
    gap = ((d - g) ** 2).sum()
    gain = (g * g).sum() + 2 * 0.1 * (g * d).sum() - 0.1 * (d * d).sum()
    beta = min(max(float(gain / gap), 0.0), 0.7) if gap > 0 else 0.0
    s["d"] = ((beta + 0.1) * d + (1 - beta) * g) / 1.1
    return s["d"]


def fractional(coefficients: list[float]) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        s.setdefault("past", []).insert(0, g)
        return sum(c * old for c, old in zip([1.0, *coefficients], s["past"], strict=False))

    return formula


def confidence(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    m = ema(s, "m", g, 0.8)
    residual = (g - m) ** 2 + 0.1
    return m / outer_root(ema(s, "r", row(residual), 0.9), ema(s, "c", column(residual), 0.9))


@table(
    heavy_ball=({"momentum": P.HeavyBall(0.8, 0.3, nesterov=True)}, heavy),
    aggregated=({"momentum": P.Aggregated(0.5, 0.8, 0.95)}, aggregated(0.5)),
    aggregated_without_the_light=({"momentum": P.Aggregated(0.0, 0.8, 0.95)}, aggregated(0.0)),
    two_speeds=({"momentum": P.TwoSpeeds(0.8, 0.99, 4.0)}, two_speeds(0)),
    two_speeds_warming_up=({"momentum": P.TwoSpeeds(0.8, 0.99, 4.0, warmup=3)}, two_speeds(3)),
    two_speeds_with_a_warm_alpha=({"momentum": P.TwoSpeeds(0.8, 0.99, 4.0, alpha_warmup=3)}, two_speeds(0, 3)),
    two_speeds_warming_up_apart=({"momentum": P.TwoSpeeds(0.8, 0.99, 4.0, 4, 3)}, two_speeds(4, 3)),
    one_slow_speed=({"momentum": P.TwoSpeeds(0.0, 0.99, 4.0, warmup=3)}, two_speeds(3, beta=0.0)),
    positive_negative=({"momentum": P.PositiveNegative(0.8, 0.5)}, positive_negative(debias=False)),
    positive_negative_debiased=({"momentum": P.PositiveNegative(0.8, 0.5, debias=True)}, positive_negative(True)),
    adaptive_memory=({"momentum": P.AdaptiveMemory(0.7, 0.1, "tensor")}, adaptive),
    a_difference=({"momentum": P.FractionalMemory(0.4, "difference", 2)}, fractional([-0.4, -0.4 * 0.6 / 2])),
    a_difference_of_more_than_one=(
        {"momentum": P.FractionalMemory(1.5, "difference", 2)},
        fractional([-1.5, 1.5 * 0.5 / 2]),
    ),
    a_memory=({"momentum": P.FractionalMemory(0.4, "memory", 3)}, fractional([0.3, 0.16, 0.16 * 2.6 / 4])),
    confidence=({"momentum": P.Confidence(0.8, 0.9, 0.1)}, confidence),
    nesterov=(
        {"momentum": P.Ema(0.8, nesterov=True)},
        lambda w, g, t, s: (0.8 * ema(s, "m", g, 0.8) + 0.2 * g) / (1 - 0.8**t),
    ),
    interpolated=(
        {"momentum": P.Interpolated(0.6, 0.9)},
        lambda w, g, t, s: [0.6 * s.get("m", 0.0) + 0.4 * g, ema(s, "m", g, 0.9)][0],
    ),
)
def test_momentum(parts: dict[str, Any], formula: Formula) -> None:
    check(parts, formula)


# --- scale ------------------------------------------------------------------------------------------------------


def largest_yet(kind: str, debias: bool) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        before = s.get("v", torch.zeros_like(g))
        right = 1 - 0.8**t if debias else 1.0
        v = ema(s, "v", g * g, 0.8, torch.zeros_like(g))
        if kind == "post":
            s["V"] = torch.maximum(s.get("V", torch.zeros_like(g)), v)
            variance = s["V"] / right
        elif kind == "pre":
            variance = s["V"] = torch.maximum(s.get("V", torch.zeros_like(g)), v / right)
        elif kind == "memoryless":
            s["v"] = torch.maximum(before, v)
            variance = s["v"] / right
        else:
            earlier = (before / (1 - 0.8 ** (t - 1)) if debias else before) if t > 1 else torch.zeros_like(g)
            variance = torch.maximum(v, earlier) / right
        return g / (variance.sqrt() + 0.1)

    return formula


def previous(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    seen = g * g if t == 1 else s["v"]
    s["v"] = 0.8 * seen + 0.2 * g * g
    return g / seen.sqrt().clamp(min=0.5)


def belief(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    m = ema(s, "m", g, 0.8)
    s["s"] = 0.9 * s.get("s", 0.0) + 0.1 * (g - m) ** 2 + 0.05
    return m / ((s["s"] / (1 - 0.9**t)).sqrt() + 0.05)


def of_trend(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    m = ema(s, "m", g, 0.8)
    s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * m * m + 0.05
    return m / (s["v"] / (1 - 0.9**t)).sqrt()


def centred(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    a, v = ema(s, "a", g, 0.8), ema(s, "v", g * g, 0.8)
    return g / ((v - a * a).clamp(min=0).sqrt() + 0.1)


def maximum_of(inside: bool) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        s["u"] = torch.maximum(0.8 * s.get("u", torch.zeros_like(g)), g.abs() + (0.1 if inside else 0.0))
        return g / (s["u"] if inside else s["u"].clamp(min=0.6))

    return formula


def summed(key: Callable[[Tensor], Tensor], beta: float = 1.0, start: float = 0.0) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        s["v"] = beta * s.get("v", start) + key(g * g)
        return g / (s["v"].sqrt() + 0.1)

    return formula


def growing(root: bool, gamma: float = 0.7) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        s["v"] = (1 - gamma / t) * s.get("v", 0.0) + gamma / t * g * g
        tv = t * s["v"]
        return g / (tv.sqrt() + 0.1 if root else tv + 0.3 * (-0.2 * tv).exp())

    return formula


def strongly(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    s["v"] = s.get("v", 0.0) + g * g
    return g / (s["v"] + 0.3 * (-0.2 * s["v"]).exp())


def unrooted(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
    s["b"] = s.get("b", 0.0) + g * g
    s["m"] = s.get("m", 0.0) + 0.5 * g * g + g * g / (s["b"] + 0.1)
    return g * s["m"].sqrt() / (s["b"] + 0.1)


def factored(kind: str, most: float = 1.0) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        beta = min(1 - t**-0.6, most) if kind != "ema" else 0.8
        square = g * g + (0.2 if kind != "estimate" else 0.0)
        r, c = ema(s, "r", row(square), beta), ema(s, "c", column(square), beta)
        if kind != "estimate":
            return g / outer_root(r, c)
        return g / (r * c / r.mean().clamp(min=0.2)).sqrt().clamp(min=0.2)

    return formula


def cover(variant: str) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        r, c = s.get("r", torch.zeros(M, 1)), s.get("c", torch.zeros(1, N))
        if variant == "I":
            r, c = r + (g * g).amax(1, keepdim=True), c + (g * g).amax(0, keepdim=True)
            nu = torch.minimum(r, c)
        else:
            nu = torch.minimum(r, c) + g * g
            r, c = nu.amax(1, keepdim=True), nu.amax(0, keepdim=True)
        s["r"], s["c"] = r, c
        return g / (nu + 0.2).sqrt()

    return formula


def blocks_of(mean: Callable[[Tensor], Tensor]) -> Formula:
    return lambda w, g, t, s: g / ((ema(s, "v", mean(g * g), 0.8) / (1 - 0.8**t)).sqrt() + 0.1)


def oriented(mean: Callable[[Tensor], Any], eta: float) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        v, b = ema(s, "v", mean(g * g), 0.8) / (1 - 0.8**t), torch.as_tensor(s.get("b", 0.0), dtype=torch.float64)
        root = v.sqrt().clamp(min=0.05)
        q = mean(g * g) / root**2
        c = 1 / (1 + 0.3 * math.sqrt(LR) * b).sqrt()
        d = 1 / (1 + 0.4 * math.sqrt(LR * eta) * b)
        s["b"] = b + c * LR**2 * q * (1 + b)
        return g * eta * d / root + d * c * LR * q * w / 2

    return formula


def halves(x: Tensor) -> Tensor:
    return x.reshape(2, -1).mean(1).repeat_interleave(M // 2).reshape(M, 1)


AVERAGED = {"momentum": P.Ema(0.8, debias=False)}


@table(
    **{
        f"{kind}_{'corrected' if debias else 'plain'}": (
            {"scale": P.SecondMoment(0.8, 0.1, debias=debias, amsgrad=kind)},
            largest_yet(kind, debias),
        )
        for kind in ("post", "pre", "memoryless", "two-step")
        for debias in (True, False)
    },
    previous=({"scale": P.PreviousMoment(0.8, E.Clamped(0.5))}, previous),
    belief=({**AVERAGED, "scale": P.Belief(0.9, 0.05)}, belief),
    of_the_trend=({**AVERAGED, "scale": P.TrendMoment(0.9, 0.05)}, of_trend),
    centred=({"scale": P.CenteredMoment(0.8, 0.1)}, centred),
    maximum=({"scale": P.MaxNorm(0.8, 0.1)}, maximum_of(inside=True)),
    maximum_clamped=({"scale": P.MaxNorm(0.8, E.Clamped(0.6))}, maximum_of(inside=False)),
    summed=({"scale": P.Accumulated(0.5, 0.1)}, summed(lambda x: x, start=0.5)),
    discounted=({"scale": P.DiscountedSquares(0.7, 0.1)}, summed(lambda x: x, 0.7)),
    summed_by_row=({"scale": P.RowAccumulated(0.1)}, summed(row)),
    summed_by_column=({"scale": P.ColumnAccumulated(0.1)}, summed(column)),
    averaged_by_row=(
        {"scale": P.RowMoment(0.8, 0.1)},
        lambda w, g, t, s: g / (ema(s, "v", row(g * g), 0.8).sqrt() + 0.1),
    ),
    online=({"scale": P.OnlineMoment(0.7, 0.1)}, growing(root=True)),
    strongly_convex=({"scale": P.StronglyConvex(0.2, 0.3)}, strongly),
    strongly_convex_moment=({"scale": P.StronglyConvexMoment(0.7, 0.2, 0.3)}, growing(root=False)),
    unrooted=({"scale": P.Unrooted(0.5, 0.1)}, unrooted),
    factored=({"scale": P.Factored(-0.6, 0.2)}, factored("squares")),
    factored_and_forgetful=({"scale": P.Factored(-0.6, 0.2, most=0.5)}, factored("squares", 0.5)),
    factored_estimate=({"scale": P.Factored(-0.6, 0.2, "estimate")}, factored("estimate")),
    factored_average=({"scale": P.FactoredEma(0.8, 0.2)}, factored("ema")),
    cover_one=({"scale": P.Cover("I", 0.2)}, cover("I")),
    cover_two=({"scale": P.Cover("II", 0.2)}, cover("II")),
    rows=({"scale": P.BlockMoment(0.8, 0.1)}, blocks_of(row)),
    rows_in_two_blocks=({"scale": P.BlockMoment(0.8, 0.1, blocks=2)}, blocks_of(halves)),
    whole=({"scale": P.BlockMoment(0.8, 0.1, "tensor")}, blocks_of(lambda x: x.mean())),
    oriented=({"scale": P.ModelOriented(0.8, 0.05, gain=1.2, slow_c=0.3, slow_d=0.4)}, oriented(row, 1.2 / 3**0.5)),
    oriented_whole=(
        {"scale": P.ModelOriented(0.8, 0.05, "tensor", eta=0.6, slow_c=0.3, slow_d=0.4)},
        oriented(lambda x: x.mean(), 0.6),
    ),
)  # fmt: skip
def test_scale(parts: dict[str, Any], formula: Formula) -> None:
    check(parts, formula)


def with_epsilon(divided: Callable[[Tensor, Tensor, float], Tensor], added: float = 0.0) -> Formula:
    """The quotient of g, the average of squares and its correction."""

    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        s["v"] = 0.8 * s.get("v", 0.0) + 0.2 * g * g + added
        return divided(g, s["v"], 1 - 0.8**t)

    return formula


def soft(x: Tensor) -> Tensor:
    return (1 + (5 * x).exp()).log() / 5


EPSILONS: dict[E.Epsilon, Formula] = {
    E.Outside(0.2): with_epsilon(lambda g, v, b: g / ((v / b).sqrt() + 0.2)),
    E.Inside(0.2): with_epsilon(lambda g, v, b: g / (v / b + 0.2).sqrt()),
    E.InState(0.02, 0.1): with_epsilon(lambda g, v, b: g / ((v / b).sqrt() + 0.1), 0.02),
    E.Clamped(0.8): with_epsilon(lambda g, v, b: g / (v / b).sqrt().clamp(min=0.8)),
    E.Bare(): with_epsilon(lambda g, v, b: g / (v / b).sqrt()),
    E.Early(0.2): with_epsilon(lambda g, v, b: g / (v.sqrt() + 0.2) * b**0.5),
    E.Softplus(5.0): with_epsilon(lambda g, v, b: g / soft(v.sqrt()) * b**0.5),
    E.Power(1.5, 0.1): with_epsilon(lambda g, v, b: g / ((v / b) ** (1 / 1.5) + 0.1)),
    E.Atan2(0.7, 1.3): with_epsilon(lambda g, v, b: 0.7 * torch.atan2(g, 1.3 * (v / b).sqrt())),
}


@pytest.mark.parametrize("epsilon", EPSILONS, ids=str)
def test_epsilon(epsilon: E.Epsilon) -> None:
    check({"scale": P.SecondMoment(0.8, epsilon)}, EPSILONS[epsilon])


def of_maximum(floor: Callable[[Tensor], Tensor]) -> Formula:
    def formula(w: Tensor, g: Tensor, t: int, s: dict[str, Any]) -> Tensor:
        s["u"] = torch.maximum(0.8 * s.get("u", torch.zeros_like(g)), g.abs())
        return g / floor(s["u"])

    return formula


@pytest.mark.parametrize(
    ("epsilon", "floor"),
    [
        (E.Outside(0.2), lambda u: u + 0.2),
        (E.Inside(0.2), lambda u: (u * u + 0.2).sqrt()),
        (E.Bare(), lambda u: u),
        (E.Early(0.2), lambda u: u + 0.2),
        (E.Softplus(5.0), soft),
        (E.Power(1.5, 0.1), lambda u: (u * u) ** (1 / 1.5) + 0.1),
    ],
    ids=lambda value: str(value) if isinstance(value, E.Epsilon) else "",  # a function's has its address
)
def test_epsilon_of_a_metric_that_is_no_root(epsilon: E.Epsilon, floor: Callable[[Tensor], Tensor]) -> None:
    check({"scale": P.MaxNorm(0.8, epsilon)}, of_maximum(floor))


# --- gradients that are magnified on purpose --------------------------------------------------------------------


class Magnified(P.Step, name="test_magnified"):
    """Three times the gradient, and says so: what a step that finds its length does with its estimate."""

    lr: float = LR

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        return x.with_gradient(3.0 * x.grad).replace(rate=self.lr, unit=3.0 * x.unit)


FREE_OF_SCALE = [
    *({"scale": P.SecondMoment(0.8, eps)} for eps in EPSILONS if not isinstance(eps, (E.Softplus, E.Power))),
    *({"scale": P.MaxNorm(0.8, eps)} for eps in EPSILONS if not isinstance(eps, (E.Softplus, E.Power))),
    {"scale": P.MaxNorm(0.8, 0.1)},
    {"scale": P.Accumulated(0.0, E.InState(0.02, 0.1))},
    {"scale": P.PreviousMoment(0.8, E.InState(0.02, 0.1))},
    {"scale": P.DiscountedSquares(0.8, 0.1)},
    {"scale": P.CenteredMoment(0.8, E.InState(0.02, 0.1))},
    {**AVERAGED, "scale": P.Belief(0.8, 0.1)},
    {**AVERAGED, "scale": P.TrendMoment(0.8, 0.1)},
    {"scale": P.RowMoment(0.8, 0.1)},
    {"scale": P.RowAccumulated(0.1)},
    {"scale": P.ColumnAccumulated(0.1)},
    {"scale": P.OnlineMoment(0.7, 0.1)},
    {"scale": P.SecondMoment(0.8, 0.1, amsgrad="memoryless")},
    {"scale": P.Cover("II", 0.1)},
    {"scale": P.BlockMoment(0.8, 0.1)},
    {"scale": P.FoldedMoment(-0.5, 0.1)},
    {"geometry": P.UnitLength(eps=0.5)},
    {"geometry": P.TrackedSubspace(2, eps=0.1)},
    {"gradient": P.Normalize(eps=0.5), "order": ("step", "gradient", "momentum", "scale", "form")},
]
# Steps that depend on the scale of gradients, by this power of it.
OF_A_POWER = [
    ({"scale": P.SecondMoment(0.8, E.Power(1.5, 0.1))}, 1 - 2 / 1.5),
    ({"scale": P.MaxNorm(0.8, E.Power(1.5, 0.1))}, 1 - 2 / 1.5),
    ({"scale": P.StronglyConvex(0.2, 0.3)}, -1.0),
    ({"scale": P.StronglyConvexMoment(0.7, 0.2, 0.3)}, -1.0),
    ({"scale": P.Unrooted(0.0, 0.1)}, -1.0),
]


@pytest.mark.parametrize(("parts", "power"), [*((parts, 0.0) for parts in FREE_OF_SCALE), *OF_A_POWER], ids=str)
def test_an_epsilon_is_magnified_with_the_gradient(parts: dict[str, Any], power: float) -> None:
    plain, magnified = go(parts, GRADIENTS), go({**parts, "step": Magnified(LR / 3.0**power)}, GRADIENTS)
    for one, other in zip(plain, magnified, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
