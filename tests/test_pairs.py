"""Every gradient edit, guard, decay and epsilon style with every Adam-like scale, on all executors.

Drawn at random but one at a time: what fails names one pair. What decides by a threshold is compared where no value of
the test lies near it, for one bit of rounding may then turn a whole row.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slalom
from cases import gradient, start
from networks import quietly
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.recipes.common import DECAY_INSIDE
from test_native import compare, drive, lists

EDITS = [
    P.L2(0.1),
    P.ClipNorm(0.5),
    P.ClipNorm(0.5, "tensor"),
    P.ClipValue(0.5),
    P.Normalize(),
    P.Normalize("row"),
    P.Normalize("model"),
    P.Centralize(),
    P.AdaptiveClip(0.1),
    P.SoftClip(),
    P.LayerRate(0.1),
    P.VarianceReduced(),
    P.KeepLength(),
    P.Noise(0.3),
    (P.Noise(0.3, seed=7), P.ClipNorm(0.5)),
]
MOMENTA = [
    (P.FractionalMemory(0.5), P.Ema(0.9)),
    (P.FractionalMemory(0.7, "memory", 3), P.Ema(0.9)),
    P.Aggregated(),
    P.Aggregated(0.5, 0.8, 0.95),
    P.AdaptiveMemory(),
    P.AdaptiveMemory(per="tensor"),
    P.PositiveNegative(debias=True),
    P.Ema(0.9, nesterov=True),
]
GUARDS = [
    P.TrustRatio(),
    P.ClipUpdate(0.5),
    P.ClipRate(0.5),
    P.ClipEach(0.5),
    P.ClipEach(0.3, 0.25),
    P.Friction(),
    P.Friction("rational"),
    P.Tangent(),
    P.Tangent(1.5),
    P.SpectralCap(1e-3),
    P.SpectralCap(1e-3, iterations=3),
    P.Switch(),
    P.GradientSign(),
]
MASKS = [P.Cautious("count"), P.Cautious("mean"), P.Cautious("none")]
DECAYS = [
    P.Decoupled(0.1),
    P.FixedDecay(1e-3),
    P.SquaredDecay(2.0),
    P.ProximalDecay(0.1),
    P.StableDecay(0.1),
    P.NormLoss(0.1),
    P.Constrained(0.5),
    P.Constrained(0.9, "dependent"),
    P.Constrained(kappa_init="warm_start", steps=2),
    P.Constrained(kappa_init="inflection", steps=1),
    P.CautiousDecay(0.1),
]
EPSILONS: list[Any] = [
    1e-8,
    P.Inside(1e-12),
    P.Early(1e-8),
    P.InState(1e-6),
    P.InState(1e-6, 1e-6),
    P.Clamped(1e-4),
    P.Softplus(),
    P.Atan2(),
    P.Bare(),
]


def scales(eps: Any) -> list[Any]:
    """Every Adam-like scale with one style of epsilon."""
    kinds = ("none", "post", "pre", "memoryless", "two-step")
    return [
        *(P.SecondMoment(0.9, eps, amsgrad=kind) for kind in kinds),  # type: ignore[arg-type]
        P.SecondMoment(0.9, eps, debias=False, amsgrad="post"),
        P.PreviousMoment(0.9, eps),
        P.Accumulated(eps=eps),
        P.MaxNorm(0.9, eps),
        P.TrendMoment(0.9, eps),
        P.Rectified(P.SecondMoment(0.9, eps), 4.0),
    ]


ANY_SCALE = st.sampled_from(EPSILONS).flatmap(lambda eps: st.sampled_from(scales(eps)))
SHAPES = [(6, 5), (7,), (4, 3, 2, 2)]
randomly = settings(max_examples=20, deadline=None, derandomize=True)


def adam_with(**parts: Any) -> Recipe:
    """Adam with something changed."""
    return Recipe(**{"momentum": P.Ema(0.9), "step": 1e-2, **parts})


@randomly
@given(ANY_SCALE, st.sampled_from(EDITS))
def test_every_gradient_edit_runs_with_every_scale(scale: Any, edit: Any) -> None:
    compare(adam_with(scale=scale, gradient=edit), SHAPES, steps=4)


@randomly
@given(ANY_SCALE, st.sampled_from(MOMENTA))
def test_every_momentum_runs_with_every_scale(scale: Any, momentum: Any) -> None:
    compare(adam_with(scale=scale, momentum=momentum), SHAPES, steps=4)


@randomly
@given(ANY_SCALE, st.sampled_from(GUARDS), st.booleans())
def test_every_guard_runs_with_every_scale(scale: Any, guard: Any, decayed: bool) -> None:
    inside = {"regularize": P.Decoupled(0.1), "order": DECAY_INSIDE} if decayed else {}
    compare(adam_with(scale=scale, guard=guard, **inside), SHAPES, steps=4)


@randomly
@given(ANY_SCALE, st.sampled_from(DECAYS), st.booleans())
def test_every_decay_runs_with_every_scale(scale: Any, decay: Any, missing: bool) -> None:
    compare(adam_with(scale=scale, regularize=decay), SHAPES, steps=4, missing=missing)


@pytest.mark.parametrize("eps", EPSILONS, ids=lambda eps: type(eps).__name__)
def test_every_epsilon_runs_with_every_scale(eps: Any) -> None:
    for scale in [*scales(eps), P.CenteredMoment(0.9, eps), P.Belief(0.9, eps)]:
        # on gradients without history, whose variances do not cancel
        for executor in ("native", "foreach"):
            ends = []
            for chosen in (executor, "eager"):
                params = lists(SHAPES, torch.float32)
                optimizer = slalom.Optimizer(params, adam_with(scale=scale), executor=chosen)  # type: ignore[arg-type]
                drive(optimizer, 3)
                ends.append(torch.cat([p.detach().flatten() for p in params]))
            assert torch.isfinite(ends[0]).all(), scale
            torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4, msg=lambda text: f"{scale}: {text}")  # noqa: B023


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: str(mask.normalize))
@pytest.mark.parametrize("eps", EPSILONS, ids=lambda eps: type(eps).__name__)
def test_every_mask_runs_with_every_scale(mask: Any, eps: Any) -> None:
    for scale in scales(eps):
        w = [
            torch.nn.Parameter(torch.full((4, 3), 0.5)),
            torch.nn.Parameter(torch.full((5,), 0.5, dtype=torch.float64)),
        ]
        optimizer = adam_with(scale=scale, guard=mask).build(w)
        for step in range(4):
            for p in w:
                # by turns of +-1 and +-2: momentum is never near 0
                p.grad = torch.arange(p.numel()).reshape(p.shape).sub(2.4).sign().to(p.dtype) * (1 + step % 2)
            optimizer.step()
        torch.testing.assert_close(w[0].detach().flatten()[:5].double(), w[1].detach(), rtol=0.2, atol=1e-2)
        assert torch.isfinite(w[0]).all()


@pytest.mark.parametrize("eps", EPSILONS, ids=lambda eps: type(eps).__name__)
def test_zero_gradients_move_nothing_whatever_the_epsilon(eps: Any) -> None:
    for scale in [*scales(eps), P.CenteredMoment(0.9, eps), P.Belief(0.9, eps)]:
        for decay in (None, P.StableDecay(0.1)):
            w = torch.nn.Parameter(torch.ones(3, 2))
            optimizer = adam_with(scale=scale, regularize=decay).build([w])
            for _ in range(3):
                w.grad = torch.zeros(3, 2)
                optimizer.step()
            assert torch.isfinite(w).all()
            assert decay is not None or torch.equal(w.detach(), torch.ones(3, 2))


def test_a_rate_of_zero_stops_every_decay() -> None:
    for decay in DECAYS:
        w = torch.nn.Parameter(torch.ones(3, 2))
        optimizer = adam_with(scale=P.SecondMoment(), regularize=decay, step=0.0).build([w])
        for _ in range(3):
            w.grad = torch.ones(3, 2)
            optimizer.step()
        assert torch.equal(w.detach(), torch.ones(3, 2)), decay


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (P.SoftClip(1e-12), (0.2593347973, -0.1013239571, 0.5373743027, 0.2370217425, 0.8609801744, 0.5839419172)),
        (P.Normalize(), (0.2572818563, -0.0934538676, 0.5458013355, 0.2422952126, 0.8748938206, 0.5753033473)),
    ],
    ids=["soft clip", "normalize"],
)
def test_gradient_edits_equal_their_golden_vectors(part: Any, expected: tuple[float, ...]) -> None:
    w = start()
    optimizer = Recipe(gradient=part, step=0.1).build([w])
    for t in range(1, 7):
        w.grad = gradient(t)
        optimizer.step()
    torch.testing.assert_close(w.detach().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=3e-9)


def test_soft_clip_lets_zeros_move_and_clips_rows() -> None:
    for floor, moved in ((1e-3, 1e-3), (0.5, 0.5)):
        w = torch.nn.Parameter(torch.zeros(2, 3))
        optimizer = Recipe(gradient=P.SoftClip(floor), step=1.0).build([w])
        w.grad = torch.full((2, 3), 7.0)
        optimizer.step()
        torch.testing.assert_close(w.detach(), torch.full((2, 3), -moved))
    row = torch.nn.Parameter(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    optimizer = Recipe(gradient=P.SoftClip(), step=1.0).build([row])
    row.grad = torch.tensor([[10.0, 10.0], [0.5, 0.5]])
    optimizer.step()
    torch.testing.assert_close(row.detach(), torch.tensor([[0.0, 0.0], [0.5, 0.5]]))


def test_value_clipping_turns_and_norm_clipping_does_not() -> None:
    for part, expected in ((P.ClipValue(1.0), [1.0, -0.5, 1.0]), (P.ClipNorm(1.0), [0.6, -0.1, 0.8])):
        w = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        optimizer = Recipe(gradient=part, step=1.0).build([w])
        w.grad = torch.tensor([3.0, -0.5, 4.0], dtype=torch.float64)
        optimizer.step()
        torch.testing.assert_close(-w.detach(), torch.tensor(expected, dtype=torch.float64), rtol=0.02, atol=0.01)


def test_fractional_memory_has_the_coefficients_of_its_convention() -> None:
    known = {
        ("difference", 0.5): [1.0, -0.5, -0.125, -0.0625],
        ("difference", 1.0): [1.0, -1.0, 0.0, 0.0],
        ("memory", 0.5): [1.0, 0.25, 0.125, 0.078125],
        ("memory", 1.0): [1.0, 0.0, 0.0, 0.0],
    }
    for (convention, alpha), coefficients in known.items():
        w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        momentum = P.FractionalMemory(alpha, convention)  # type: ignore[arg-type]
        optimizer = Recipe(momentum=momentum, step=1.0).build([w])
        seen = []
        for value in (1.0, 0.0, 0.0, 0.0):
            before = w.item()
            w.grad = torch.tensor([value], dtype=torch.float64)
            optimizer.step()
            seen.append(before - w.item())
        assert seen == pytest.approx(coefficients, abs=1e-15)
    with pytest.raises(ValueError, match="terms must be from 1 to 10"):
        P.FractionalMemory(0.5, terms=11)


def test_fixed_decay_takes_the_same_share_at_every_rate() -> None:
    for rate in (1.0, 1e-3):
        w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = Recipe(regularize=P.FixedDecay(0.01), step=rate).build([w])
        w.grad = torch.zeros(3, dtype=torch.float64)
        optimizer.step()
        torch.testing.assert_close(w.detach(), torch.full((3,), 0.99, dtype=torch.float64))


def test_epsilons_are_where_their_names_say() -> None:
    metric_of = {  # of a first gradient of 2 with beta 0.75: v = 1, corrected 4
        P.Outside(0.5): 2.5,
        P.Inside(0.41): (4.41) ** 0.5,
        P.Early(0.5): 1.5 / 0.5,
        P.InState(0.21): (1.21 / 0.25) ** 0.5,
        P.InState(0.21, 0.3): (1.21 / 0.25) ** 0.5 + 0.3,
        P.Clamped(3.0): 3.0,
        P.Clamped(1.0): 2.0,
        P.Bare(): 2.0,
    }
    for eps, metric in metric_of.items():
        w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = Recipe(scale=P.SecondMoment(0.75, eps), step=1.0).build([w])
        w.grad = torch.full((1,), 2.0, dtype=torch.float64)
        optimizer.step()
        assert -w.item() == pytest.approx(2.0 / metric, rel=1e-12), eps


def test_a_word_that_a_part_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean count"):
        P.Cautious("cont")  # type: ignore[arg-type]
    for build in (
        lambda: slalom.AMSGrad([torch.nn.Parameter(torch.ones(1))], variant="torhc"),
        lambda: slalom.AdamCPR([torch.nn.Parameter(torch.ones(1))], kappa_init="warm"),
    ):
        with pytest.raises(ValueError, match=r"Did you mean (torch|warm_start)"):
            quietly(build)  # type: ignore[arg-type]


def test_cpr_refuses_a_warm_start_at_no_step() -> None:
    with pytest.raises(ValueError, match="steps must be 1 or more"):
        P.Constrained(steps=0)
