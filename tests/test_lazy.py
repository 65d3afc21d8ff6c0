"""The lazy form against the greedy one, and penalties against direct minimisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import slalom
from slalom.parts import (
    FTRL,
    L1,
    Accumulated,
    Atan2,
    Belief,
    CenteredMoment,
    Clamped,
    ColumnAccumulated,
    Decaying,
    Decoupled,
    DiscountedSquares,
    Ema,
    Factored,
    Greedy,
    GroupL2,
    HalfPower,
    HeavyBall,
    MaxNorm,
    OnlineMoment,
    Outside,
    PreviousMoment,
    ProximalL2,
    Rectified,
    RowAccumulated,
    RowMoment,
    Scale,
    SecondMoment,
    StronglyConvex,
    StronglyConvexMoment,
    TrendMoment,
    Unrooted,
    part_classes,
)
from slalom.recipes import Recipe

SCALES: list[Scale] = [
    Accumulated(), Accumulated(initial=0.1), RowAccumulated(), ColumnAccumulated(), SecondMoment(0.9),
    SecondMoment(0.9, debias=False), SecondMoment(0.9, amsgrad="post"), CenteredMoment(0.9), MaxNorm(0.9),
    Belief(0.9, 1e-8), TrendMoment(0.9), Factored(), Rectified(SecondMoment(0.9)), OnlineMoment(), StronglyConvex(),
    StronglyConvexMoment(), Unrooted(), Unrooted(0.9), SecondMoment(0.9, amsgrad="memoryless"), DiscountedSquares(0.9),
    PreviousMoment(0.9, 0.1), RowMoment(0.9),
]  # fmt: skip


def test_every_scale_is_tried() -> None:
    known = {cls for cls in part_classes().values() if issubclass(cls, Scale) and cls.__module__.startswith("slalom.")}
    assert {type(scale) for scale in SCALES} >= {cls for cls in known if cls.__module__.startswith("slalom.parts.sca")}


def quadratic(recipe: Recipe, steps: int, *, schedule: Callable[[int], float] = lambda _: 1.0) -> Tensor:
    """Where a noisy quadratic leads; some coordinates get their first gradient late, one never."""
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(4, 6, generator=generator, dtype=torch.float64))
    optimizer = recipe.build([w])
    rate = optimizer.param_groups[0]["lr"]
    path = []
    for t in range(steps):
        noise = torch.randn(4, 6, generator=generator, dtype=torch.float64)
        w.grad = torch.linspace(0.1, 3, 6, dtype=torch.float64) * (w.detach() - 1) + 0.5 * noise
        if t < 20:
            w.grad[0] = 0.0
        w.grad[1, 2] = 0.0
        optimizer.param_groups[0]["lr"] = rate * schedule(t)
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize("momentum", [None, Ema(0.9), HeavyBall(0.5)], ids=["plain", "ema", "heavyball"])
@pytest.mark.parametrize("scale", [None, *SCALES], ids=str)
def test_without_penalties_lazy_equals_greedy(scale: Scale | None, momentum: Any) -> None:
    if isinstance(scale, Belief) and momentum is None:
        pytest.skip("nothing expects anything of the gradient: the surprise is 0 and every step is lr / eps long")
    lr = 1e-2
    greedy = quadratic(Recipe(momentum=momentum, scale=scale, step=lr), 300)
    lazy = quadratic(Recipe(momentum=momentum, scale=scale, step=lr, form=FTRL()), 300)
    assert torch.isfinite(greedy).all()
    assert (greedy[-1] - greedy[0]).abs().max() > 0.03
    assert (greedy - lazy).abs().max() < 1e-10


@pytest.mark.parametrize("scale", [Accumulated(), SecondMoment(0.9)], ids=str)
def test_lazy_equals_greedy_under_schedules_and_decoupled_decay(scale: Scale) -> None:
    parts: dict[str, Any] = {"scale": scale, "regularize": Decoupled(0.1)}
    for step in (1e-2, Decaying(1e-2, 0.1)):
        for schedule in (lambda t: min(1.0, (t + 1) / 100), lambda t: 1.0 if t % 7 else 0.0):
            greedy = quadratic(Recipe(**parts, step=step), 300, schedule=schedule)
            lazy = quadratic(Recipe(**parts, step=step, form=FTRL()), 300, schedule=schedule)
            assert (greedy - lazy).abs().max() < 1e-10


def test_the_greedy_l1_is_ftrl_whose_past_penalties_are_the_subgradients_that_were_used() -> None:
    """McMahan 2011, arXiv:1009.3240: only the newest penalty is kept whole. Written out beside the greedy form."""
    curvature, rate, strength = torch.linspace(0.2, 2, 6, dtype=torch.float64), 0.1, 0.3
    w = torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))
    optimizer = Recipe(regularize=L1(strength), step=rate).build([w])
    theirs, z, phi, zeros = w.detach().clone(), -w.detach() / rate, torch.zeros(6, dtype=torch.float64), 0
    for t in range(200):
        w.grad = curvature * w.detach() - torch.sin(torch.arange(6, dtype=torch.float64) + 0.05 * t)
        z = z + curvature * theirs - torch.sin(torch.arange(6, dtype=torch.float64) + 0.05 * t)
        u = z + phi
        theirs = -rate * torch.sign(u) * (u.abs() - strength).clamp(min=0)
        phi = phi - (u + theirs / rate)
        optimizer.step()
        assert (w - theirs).abs().max() < 1e-13
        zeros += int((w == 0).sum())
    assert 20 < zeros < 1180


def test_a_clamped_sigma_is_never_negative() -> None:
    w = torch.nn.Parameter(torch.ones(5, dtype=torch.float64))
    free = torch.nn.Parameter(torch.ones(5, dtype=torch.float64))
    pair = [
        Recipe(scale=SecondMoment(0.9), form=FTRL(clamp), step=0.01).build([p])
        for clamp, p in ((True, w), (False, free))
    ]
    falls, previous = 0, [torch.zeros(5), torch.zeros(5)]
    for t in range(1, 50):
        for place, (p, optimizer) in enumerate(zip((w, free), pair, strict=True)):
            p.grad = torch.full((5,), 1.0 / t, dtype=torch.float64)
            optimizer.step()
            h = optimizer.state[p]["ftrl.h"].clone()
            fell = bool((h < previous[place]).any())
            assert not (fell and place == 0)
            falls += fell
            previous[place] = h
    assert falls > 40
    assert not torch.allclose(w, free)


def test_l1_keeps_what_was_never_seen_and_zeroes_what_was() -> None:
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = slalom.FTRLProximal([w], lr=0.1, beta=0.0, l1=100.0)
    for _ in range(3):
        w.grad = torch.tensor([0.0, 0.5], dtype=torch.float64)
        optimizer.step()
    assert w.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_the_group_step_is_the_minimum_of_its_objective(spread: float) -> None:
    generator = torch.Generator().manual_seed(int(spread))
    for trial in range(20):
        a = torch.randn(3, 8, generator=generator, dtype=torch.float64)
        s = 10 ** (spread * (2 * torch.rand(3, 8, generator=generator, dtype=torch.float64) - 1))
        strength = float((s * a).norm(dim=1).mean()) * 10 ** (0.1 - 0.2 * trial)
        w = GroupL2(strength).shrink(a, s, strength)  # type: ignore[arg-type]
        rows = w.norm(dim=1)
        # optimality: s (w - a) + strength w / |w| = 0, or |s a| <= strength where w = 0
        alive = rows > 0
        residual = s[alive] * (w - a)[alive] + strength * w[alive] / rows[alive, None]
        assert residual.abs().max().item() < 1e-9 * strength if alive.any() else True
        assert ((s * a).norm(dim=1)[~alive] <= strength).all()


def test_the_groups_closed_form_agrees_with_the_iteration() -> None:
    a = torch.randn(5, 4, dtype=torch.float64)
    s = torch.rand(5, 1, dtype=torch.float64) + 0.5
    part = GroupL2(0.7)
    one, many = (part.shrink(a, curvature, 0.7) for curvature in (s, s.expand(5, 4)))  # type: ignore[arg-type]
    torch.testing.assert_close(one, many, rtol=1e-12, atol=1e-14)


def test_groups_of_one_are_l1() -> None:
    ends = []
    for penalty in (L1(6.0), GroupL2(6.0)):
        w = torch.nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None].clone())
        optimizer = Recipe(scale=Accumulated(eps=1.0), regularize=penalty, form=FTRL(), step=0.1).build([w])
        for t in range(30):
            w.grad = torch.sin(torch.arange(9, dtype=torch.float64)[:, None] + t)
            optimizer.step()
        ends.append(w.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-12)
    assert (ends[0] == 0).any()
    assert (ends[0] != 0).any()


def test_the_half_power_step_is_the_minimum_of_its_objective() -> None:
    grid = torch.linspace(-3, 3, 600_001, dtype=torch.float64)
    for a, s, strength in [(1.0, 1.0, 0.3), (1.0, 1.0, 1.2), (-2.0, 0.5, 0.4), (0.05, 3.0, 0.01), (0.0, 1.0, 1.0),
                           (-0.3, 2.0, 0.2), (2.9, 10.0, 0.1)]:  # fmt: skip
        best = grid[(0.5 * s * (grid - a) ** 2 + strength * grid.abs().sqrt()).argmin()].item()
        point, curvature = torch.tensor([a], dtype=torch.float64), torch.tensor([s], dtype=torch.float64)
        found = HalfPower(strength).shrink(point, curvature, strength).item()  # type: ignore[arg-type, attr-defined]
        assert abs(found - best) < 2e-5, (a, s, strength)
        assert (found == 0) == (abs(best) < 1e-4)


def test_greedy_penalties_shrink_at_the_rate() -> None:
    """Without gradient, a greedy group step at rate 0.1 shortens a row by 0.1 strength, with any scale."""
    w = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.03, 0.04]], dtype=torch.float64))
    optimizer = Recipe(regularize=GroupL2(1.0), step=0.1).build([w])
    w.grad = torch.zeros(2, 2, dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(w[0].norm().item(), 4.9)
    assert (w[1] == 0).all()


@pytest.mark.parametrize("per", ["row", "column"])
def test_native_runs_the_group_penalty_like_the_reference(per: Any) -> None:
    ends = []
    for dtype, executor in ((torch.float64, "eager"), (torch.float32, "auto"), (torch.float32, "foreach")):
        torch.manual_seed(0)
        w = torch.nn.Parameter(torch.randn(7, 5, dtype=torch.float64).to(dtype))
        optimizer = slalom.GroupFTRL([w], lr=0.3, group=3.0, per=per, executor=executor)
        for _ in range(20):
            w.grad = torch.randn(7, 5, dtype=torch.float64).to(dtype)
            optimizer.step()
        ends.append(w.detach().double())
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("growth", "held"), [("fixed", 2.0), ("incremental", 8.0), ("square", 4.0)])
def test_growth_of_the_lazy_l1(growth: Any, held: float) -> None:
    """After four steps of gradient 1 from w = 0, at D = 1 and rate 1: z = 4, and w = -(4 - l1)."""
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Recipe(regularize=L1(2.0, growth), form=FTRL(), step=1.0).build([w])
    for _ in range(4):
        w.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
    assert w.item() == -max(0.0, 4.0 - held)


def test_growth_in_the_greedy_form_is_paid_as_it_grows() -> None:
    for growth, paid in (("incremental", 4 * 0.1), ("square", 2 * 0.1), ("fixed", 4 * 0.1)):
        w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = Recipe(regularize=L1(0.1, growth), step=1.0).build([w])  # type: ignore[arg-type]
        for _ in range(4):
            w.grad = torch.zeros(1, dtype=torch.float64)
            optimizer.step()
        assert abs(w.item() - (1 - paid)) < 1e-12


UNDER_ADAGRAD: dict[str, Any] = {"scale": Accumulated(eps=0.0), "step": 1.0}


@pytest.mark.parametrize("form", [Greedy(), FTRL()], ids=str)
@pytest.mark.parametrize("penalty", [L1, GroupL2, HalfPower, ProximalL2])
def test_adaptive_growth_is_the_roots_where_every_gradient_is_1(penalty: Any, form: Any) -> None:
    """AdaGrad's metric is then the root of t."""
    ends = []
    for growth in ("square", "adaptive"):
        w = torch.nn.Parameter(torch.tensor([[2.0], [-3.0], [0.1]], dtype=torch.float64))
        optimizer = Recipe(**UNDER_ADAGRAD, regularize=penalty(0.3, growth=growth), form=form).build([w])
        for t in range(6):
            w.grad = torch.tensor([[1.0], [-1.0], [(-1.0) ** t]], dtype=torch.float64)
            optimizer.step()
        ends.append(w.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-14)


def test_the_lazy_form_holds_the_metric_even_where_it_falls() -> None:
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    scale = SecondMoment(0.5, 0.0, debias=False)
    optimizer = Recipe(scale=scale, regularize=L1(0.5, "adaptive"), form=FTRL(), step=1.0).build([w])
    v = z = h = theirs = 0.0
    for gradient in (2.0, -1.0, 3.0, 0.1, 0.1, -0.2):
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        v = 0.5 * v + 0.5 * gradient**2
        z, h = z + gradient - (v**0.5 - h) * theirs, v**0.5
        theirs = 0.0 if abs(z) <= 0.5 * h else -(z - math.copysign(0.5 * h, z)) / h
        assert w.item() == pytest.approx(theirs, abs=1e-12)


def test_a_greedy_adaptive_penalty_is_paid_once_and_never_paid_back() -> None:
    w = torch.nn.Parameter(torch.full((1,), 5.0, dtype=torch.float64))
    scale = SecondMoment(0.5, 0.0, debias=False)
    optimizer = Recipe(scale=scale, regularize=L1(0.5, "adaptive"), step=1.0).build([w])
    v = d = 0.0
    theirs = 5.0
    for gradient in (2.0, 0.0, 0.0, 3.0):
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        v = 0.5 * v + 0.5 * gradient**2
        before, d = d, v**0.5
        theirs = theirs - gradient / d - 0.5 * max(d - before, 0.0) / d
        assert w.item() == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("form", [Greedy(), FTRL()], ids=str)
def test_under_an_adaptive_l1_rows_without_gradient_rest(form: Any) -> None:
    """A root of t grows for everybody; a metric grows for who is seen. So sparse gradients are exact."""
    touched = torch.tensor([[1, 4, 1]])
    ends = []
    for sparse in (True, False):
        generator = torch.Generator().manual_seed(0)
        w = torch.nn.Parameter(torch.randn(6, 3, generator=generator, dtype=torch.float64))
        optimizer = Recipe(scale=Accumulated(), regularize=L1(0.3, "adaptive"), form=form, step=0.1).build([w])
        for _ in range(4):
            values = torch.randn(3, 3, generator=generator, dtype=torch.float64)
            grad = torch.sparse_coo_tensor(touched, values, (6, 3), check_invariants=True)
            w.grad = grad if sparse else grad.to_dense()
            optimizer.step()
        ends.append(w.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-14)
    growing = Recipe(scale=Accumulated(), regularize=L1(0.3, "square"), form=form, step=0.1).build([w])
    w.grad = torch.sparse_coo_tensor(touched, torch.ones(3, 3, dtype=torch.float64), (6, 3), check_invariants=True)
    with pytest.raises(RuntimeError, match="rows without one move"):
        growing.step()


def test_adaptive_groups_share_what_their_rows_have_seen() -> None:
    """With a metric per element a group weighs the root mean square of its metrics."""
    w = torch.nn.Parameter(torch.ones(1, 2, dtype=torch.float64))
    optimizer = Recipe(**UNDER_ADAGRAD, regularize=GroupL2(0.5, growth="adaptive"), form=FTRL()).build([w])
    w.grad = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    optimizer.step()
    d = torch.tensor([3.0, 4.0], dtype=torch.float64)
    strength = 0.5 * d.square().mean().sqrt().item()
    a, s = (d - w.grad[0]) / d, d  # z = g - D w at w = 1
    expected = GroupL2(strength).shrink(a[None], s[None], strength)  # type: ignore[arg-type]
    torch.testing.assert_close(w.detach(), torch.as_tensor(expected), rtol=1e-9, atol=1e-12)


def test_sparsity_grows_with_the_growth() -> None:
    """The qualitative signature: a fixed L1 keeps most features, an incremental one biases the true ones."""
    truth = torch.tensor([1.0, 0.5, 0, 0, 0, 0], dtype=torch.float64)
    kept = {}
    for growth in ("fixed", "square", "incremental"):
        generator = torch.Generator().manual_seed(0)
        w = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
        optimizer = slalom.FTRLProximal([w], lr=0.5, l1=0.3, growth=growth)
        for _ in range(200):
            w.grad = w.detach() - truth + 0.1 * torch.randn(6, generator=generator, dtype=torch.float64)
            optimizer.step()
        kept[growth] = w.detach().clone()
    counts = {growth: int((w != 0).sum()) for growth, w in kept.items()}
    assert counts["fixed"] >= counts["square"] >= counts["incremental"] >= 1
    assert kept["incremental"][0] < 0.8 < kept["fixed"][0]


def test_classic_and_decoupled_proximal_decay_differ_in_the_metric() -> None:
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = Recipe(scale=Accumulated(), regularize=ProximalL2(1.0), step=1.0).build([w])
    w.grad = torch.tensor([1.0, 2.0], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([0.0, 0.0], dtype=torch.float64), atol=1e-9, rtol=0)
    w.data.fill_(1.0)
    w.grad = torch.zeros(2, dtype=torch.float64)
    optimizer.step()  # D = 1 and 2: what was seen less decays more
    torch.testing.assert_close(w.detach(), torch.tensor([1 / 2, 1 / 1.5], dtype=torch.float64))


@pytest.mark.parametrize("value", [-1.0, float("nan"), True])
def test_bad_strengths_are_refused(value: float) -> None:
    for part in (L1, GroupL2, HalfPower, ProximalL2):
        with pytest.raises(ValueError, match="strength"):
            part(value)


def test_bad_growth_is_refused_with_a_sentence() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    with pytest.raises(ValueError, match='FTRLProximal has no growth "linear"'):
        slalom.FTRLProximal([w], l1=0.1, growth="linear").step()


def test_an_angle_has_no_lazy_form() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    with pytest.raises(ValueError, match="FTRL needs the metric itself"):
        Recipe(scale=SecondMoment(0.9, Atan2()), form=FTRL()).build([w]).step()
    Recipe(scale=SecondMoment(0.9, Outside()), form=FTRL()).build([w]).step()


def test_a_group_that_no_longer_grows_is_left_alone() -> None:
    """Kernels know row values in double precision and keep them in single: what should be 0 is a rounding error."""
    recipe = Recipe(scale=PreviousMoment(0.99, Clamped(1e-4)), regularize=GroupL2(1e-3, growth="adaptive"), step=1e-3)
    w = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = recipe.build([w])
    for _ in range(3):
        w.grad = torch.full((3, 4), 1e-4)  # the clamp holds: the metric never changes
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full((3, 4), 1 - 3e-3), rtol=1e-5, atol=0)
