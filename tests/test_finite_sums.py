"""Variance reduction and acceleration: unbiased, linear where SGD is not, faster where theory says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import slalom
from slalom.finite_sums import FISTA, SVRG, Katyusha, Natasha2, Natasha15, l1, l2


class Logistic:
    """Ridge logistic regression in float64, with its minimum."""

    def __init__(self, examples: int = 60, dims: int = 8, ridge: float = 0.1, *, spread: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(examples, dims, generator=generator, dtype=torch.float64)
        self.x = x / x.norm(dim=1, keepdim=True) * 10 ** (-spread * torch.rand(dims, generator=generator).double())
        self.y = torch.sign(torch.randn(examples, generator=generator, dtype=torch.float64))
        self.ridge, self.examples = ridge, examples
        self.w = torch.zeros(dims, dtype=torch.float64, requires_grad=True)
        newton = torch.zeros(dims, dtype=torch.float64)
        for _ in range(60):
            p = torch.sigmoid(-self.y * (self.x @ newton))
            gradient = -(self.x * (self.y * p)[:, None]).mean(0) + ridge * newton
            hessian = (self.x * (p * (1 - p))[:, None]).T @ self.x / examples + ridge * torch.eye(dims).double()
            newton = newton - torch.linalg.solve(hessian, gradient)
        self.best = newton
        self.smoothness = 0.25 + ridge

    def loss(self, rows: Tensor) -> Tensor:
        margins = self.y[rows] * (self.x[rows] @ self.w)
        return functional.softplus(-margins).mean() + self.ridge / 2 * self.w.square().sum()

    def excess(self) -> float:
        everything = torch.arange(self.examples)
        with torch.no_grad():
            now = float(self.loss(everything))
            kept = self.w.detach().clone()
            self.w.copy_(self.best)
            best = float(self.loss(everything))
            self.w.copy_(kept)
        return now - best


def svrg(problem: Logistic, **settings: float) -> SVRG:
    optimizer = torch.optim.SGD([problem.w], lr=0.5)
    return SVRG(optimizer, problem.loss, problem.examples, generator=torch.Generator().manual_seed(1), **settings)  # type: ignore[arg-type]


def test_the_reduced_gradient_is_unbiased_and_exact_at_the_snapshot() -> None:
    problem = Logistic()
    method = svrg(problem)
    everything = torch.arange(problem.examples)
    for seen in (0.0, 0.7):  # at the snapshot and away from it
        with torch.no_grad():
            problem.w.add_(seen)
        estimates = []
        for i in range(problem.examples):
            method.draw = lambda i=i: torch.tensor([i])  # type: ignore[method-assign, misc]
            estimates.append(method.reduced(method.snapshot, method.mean)[0])
        stacked = torch.stack(estimates)
        torch.testing.assert_close(stacked.mean(0), method.gradient(everything)[0], rtol=1e-12, atol=1e-14)
        assert (stacked.std(0).max() < 1e-12) == (seen == 0.0)


@pytest.mark.parametrize("settings", [{}, {"probability": 1 / 60}], ids=["loop", "loopless"])
def test_svrg_converges_linearly_where_sgd_stays_in_its_ball(settings: dict[str, float]) -> None:
    problem = Logistic()
    method = svrg(problem, **settings)
    for _ in range(3000):
        method.step()
    assert problem.excess() < 1e-13
    plain = Logistic()
    optimizer = torch.optim.SGD([plain.w], lr=0.5)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3000):
        optimizer.zero_grad()
        plain.loss(torch.randint(plain.examples, (1,), generator=generator)).backward()
        optimizer.step()
    assert plain.excess() > 1e-4


@pytest.mark.parametrize("which", ["last", "average", "random"])
def test_the_next_snapshot_is_the_last_point_their_average_or_one_of_them(
    which: Literal["last", "average", "random"],
) -> None:
    problem = Logistic()
    method = svrg(problem, period=5, snapshot=which)  # type: ignore[arg-type]
    seen: list[Tensor] = []
    method.optimizer.register_step_post_hook(lambda *_: seen.append(problem.w.detach().clone()))
    for _ in range(4):
        seen.clear()
        before = method.snapshot[0]
        for _ in range(5):
            method.step()
        now = method.snapshot[0]
        assert not torch.equal(now, before)
        assert torch.equal(problem.w.detach(), now)
        if which == "average":
            torch.testing.assert_close(now, torch.stack(seen).mean(0))
        else:
            assert any(torch.equal(now, point) for point in seen[-1 if which == "last" else 0 :])
    for _ in range(3000):
        method.step()
    assert problem.excess() < 1e-10


def test_svrg_wraps_any_optimizer_and_counts_its_gradients() -> None:
    problem = Logistic()
    method = SVRG(slalom.Adam([problem.w], lr=0.05), problem.loss, problem.examples, batch=4, period=10)
    for _ in range(20):
        method.step()
    # three passes over all (at the start and after 10 and 20 steps), and two gradients for each of 4 examples a step
    assert method.evaluated == 3 * 60 + 20 * 8
    assert method.passes == pytest.approx(340 / 60)
    assert problem.excess() < 0.1


def test_both_points_of_a_step_see_the_same_dropout() -> None:
    w = torch.ones(50, requires_grad=True)

    def loss(rows: Tensor) -> Tensor:
        return functional.dropout(w, 0.5).sum() * len(rows)

    method = SVRG(torch.optim.SGD([w], lr=0.0), loss, 10, chunk=10)
    reduced = method.reduced(method.snapshot, [torch.zeros(50)])[0]
    assert torch.equal(reduced, torch.zeros(50))


def passes_to(problem: Logistic, method: SVRG | Katyusha, advance: Callable[[], None], goal: float) -> float:
    while method.passes < 600:
        advance()
        if problem.excess() < goal:
            return method.passes
    return float("inf")


def test_katyusha_needs_fewer_passes_on_ill_conditioned_sums() -> None:
    settings = {"examples": 40, "dims": 30, "ridge": 1e-4, "spread": 1.0}
    ours = Logistic(**settings)  # type: ignore[arg-type]
    fast = Katyusha(
        [ours.w], ours.loss, 40, smoothness=ours.smoothness, convexity=1e-4, generator=torch.Generator().manual_seed(0)
    )

    def epoch() -> None:
        fast.epoch()
        fast.finish()

    theirs = Logistic(**settings)  # type: ignore[arg-type]
    slow = SVRG(
        torch.optim.SGD([theirs.w], lr=1 / (3 * theirs.smoothness)),
        theirs.loss,
        40,
        generator=torch.Generator().manual_seed(0),
    )

    def loop() -> None:
        for _ in range(slow.period):
            slow.step()

    goal = 1e-2
    assert passes_to(ours, fast, epoch, goal) * 2 < passes_to(theirs, slow, loop, goal)


def test_katyusha_with_a_prox_finds_the_minimum_of_the_whole() -> None:
    problem = Logistic(ridge=0.0)
    method = Katyusha([problem.w], problem.loss, 60, smoothness=0.25, convexity=0.05, prox=l2(0.05))
    for _ in range(60):
        method.epoch()
    method.finish()
    whole = Logistic(ridge=0.05)
    torch.testing.assert_close(problem.w.detach(), whole.best, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("anchor", [0.5, 0.2])
@pytest.mark.parametrize("option", ["I", "II"])
def test_katyushas_sequence_on_one_example_is_the_papers(option: Literal["I", "II"], anchor: float) -> None:
    """With one example the reduced gradient is the gradient, and an epoch is two steps that can be written out."""
    slope, sigma, smooth = torch.tensor([2.0, 0.5], dtype=torch.float64), 0.1, 2.0
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    method = Katyusha(
        [w], lambda rows: 0.5 * (slope * w * w).sum(), 1, smoothness=smooth, convexity=sigma, prox=l1(0.1),
        option=option, anchor=anchor,
    )  # fmt: skip
    tau = (2 * sigma / (3 * smooth)) ** 0.5
    alpha = 1 / (3 * tau * smooth)
    s = y = z = w.detach().clone()
    for _ in range(3):
        found = []
        for _ in range(2):
            x = tau * z + anchor * s + (1 - anchor - tau) * y
            before, z = z, l1(0.1)(z - alpha * slope * x, alpha)
            own = l1(0.1)(x - slope * x / (3 * smooth), 1 / (3 * smooth))
            y = own if option == "I" else x + tau * (z - before)
            found.append(y)
        s = (found[0] + (1 + alpha * sigma) * found[1]) / (2 + alpha * sigma)
        method.epoch()
        torch.testing.assert_close(method.snapshot[0], s, rtol=1e-12, atol=1e-14)


class Lasso:
    """100 x 400, ten true features."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.a = torch.randn(100, 400, generator=generator, dtype=torch.float64) / 10
        truth = torch.zeros(400, dtype=torch.float64)
        truth[:10] = 3.0
        self.b = self.a @ truth + 0.1 * torch.randn(100, generator=generator, dtype=torch.float64)
        self.strength = 0.2
        self.smoothness = float(torch.linalg.matrix_norm(self.a, 2) ** 2)
        self.x = torch.zeros(400, dtype=torch.float64, requires_grad=True)

    def loss(self) -> Tensor:
        return 0.5 * (self.a @ self.x - self.b).square().sum()

    def penalty(self) -> Tensor:
        return self.strength * self.x.abs().sum()

    def objective(self) -> float:
        with torch.no_grad():
            return float(self.loss() + self.penalty())


def iterations(goal: float, most: int = 4000, **settings: object) -> tuple[int, Lasso, FISTA]:
    problem = Lasso()
    settings = {"smoothness": problem.smoothness, **settings}
    method = FISTA([problem.x], problem.loss, prox=l1(problem.strength), penalty=problem.penalty, **settings)  # type: ignore[arg-type]
    for step in range(1, most + 1):
        method.step()
        if problem.objective() < goal:
            return step, problem, method
    return most, problem, method


def test_fista_solves_the_lasso_and_restarts_help() -> None:
    _, solved, _ = iterations(-1.0, most=3000)
    best = solved.objective()
    with torch.no_grad():
        gradient = solved.a.T @ (solved.a @ solved.x - solved.b)
    off = solved.x.detach() == 0
    assert 300 < int(off.sum()) < 400
    assert gradient[off].abs().max() <= solved.strength * (1 + 1e-9)
    on = gradient[~off] + solved.strength * solved.x.detach()[~off].sign()
    assert on.abs().max() < 1e-8
    goal = best * (1 + 1e-10)
    needed = {
        name: iterations(goal, **settings)[0]  # type: ignore[arg-type]
        for name, settings in {
            "ista": {"accelerate": False},
            "none": {"restart": "none"},
            "function": {"restart": "function"},
            "gradient": {"restart": "gradient"},
        }.items()
    }
    assert needed["gradient"] < needed["none"] < needed["ista"]
    assert needed["function"] < needed["none"]


def test_the_envelope_of_fista_holds() -> None:
    _, solved, _ = iterations(-1.0, most=3000)
    problem = Lasso()
    method = FISTA([problem.x], problem.loss, smoothness=problem.smoothness, prox=l1(problem.strength), restart="none")
    distance = float(solved.x.detach().square().sum())
    for k in range(1, 100):
        method.step()
        assert problem.objective() - solved.objective() <= 2 * problem.smoothness * distance / (k + 1) ** 2


def test_backtracking_finds_the_smoothness() -> None:
    step, problem, method = iterations(float("-inf"), most=300, smoothness=1e-3, backtracking=True)
    assert step == 300
    assert method.smoothness < 4 * problem.smoothness
    known = iterations(float("-inf"), most=300)[1]
    assert problem.objective() == pytest.approx(known.objective(), rel=1e-6)


def test_bad_settings_are_refused() -> None:
    w = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    with pytest.raises(ValueError, match="probability=2"):
        SVRG(optimizer, lambda rows: w.sum(), 10, probability=2.0)
    with pytest.raises(ValueError, match="examples=0"):
        SVRG(optimizer, lambda rows: w.sum(), 0)
    with pytest.raises(ValueError, match="convexity=0"):
        Katyusha([w], lambda rows: w.sum(), 10, smoothness=1.0, convexity=0.0)
    with pytest.raises(ValueError, match="restart='maybe'"):
        FISTA([w], w.sum, smoothness=1.0, restart="maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strength=nan"):
        l1(float("nan"))


def test_natashas_sequence_on_one_example_is_the_papers() -> None:
    """With one example the reduced gradient is the gradient; with B / p = 1 no chance is left."""
    slope = torch.tensor([2.0, -0.5], dtype=torch.float64)
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    method = Natasha15([w], lambda rows: 0.5 * (slope * w * w).sum(), 1, lr=0.1, sigma=0.5, sub_epochs=3, prox=l1(0.1))
    x = w.detach().clone()
    method.epoch()
    for _ in range(3):
        x = l1(0.1)(x - 0.1 * slope * x, 0.1)  # x is x^ at the first step of a sub-epoch: sigma pulls nowhere
    torch.testing.assert_close(w.detach(), x, rtol=1e-14, atol=0)
    method.polish(2)
    start = x.clone()
    for _ in range(2):
        x = l1(0.1)(x - 0.1 * (slope * x + 2 * 0.5 * (x - start)), 0.1)
    torch.testing.assert_close(w.detach(), x, rtol=1e-14, atol=0)


def test_sigma_holds_a_sub_epoch_back() -> None:
    """On a slope that goes on for ever, m steps lead to (g / 2 sigma) (1 - (1 - 2 alpha sigma)^m) and no farther."""
    ends = []
    for seed in range(20):
        w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        chance = torch.Generator().manual_seed(seed)
        Natasha15([w], lambda rows: w.sum(), 40, lr=0.1, sigma=2.0, sub_epochs=1, generator=chance).epoch()  # noqa: B023
        ends.append(-w.item())
    allowed = torch.tensor([(1 - 0.6**m) / 4 for m in range(1, 41)], dtype=torch.float64)
    assert all((allowed - end).abs().min() < 1e-14 for end in ends)
    assert len({round(end, 9) for end in ends}) > 5


class Bent:
    """A loss that is not convex, ``mean_i log(1 + (a_i w - b_i)^2)``, of 200 examples."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.a = torch.randn(200, 10, generator=generator, dtype=torch.float64) / 10**0.5
        self.b = self.a @ torch.ones(10, dtype=torch.float64) + torch.randn(200, generator=generator).double()
        self.w = torch.zeros(10, dtype=torch.float64, requires_grad=True)

    def loss(self, rows: Tensor) -> Tensor:
        return (1 + (self.a[rows] @ self.w - self.b[rows]) ** 2).log().mean()

    def slope(self) -> float:
        (g,) = torch.autograd.grad(self.loss(torch.arange(200)), self.w)
        return float(g.norm())


def test_natasha_finds_points_without_slope_where_sgd_stays_in_its_ball() -> None:
    problem = Bent()
    chance = torch.Generator().manual_seed(0)
    method = Natasha15([problem.w], problem.loss, 200, lr=0.2, sigma=0.05, generator=chance)
    while method.passes < 60:
        method.epoch()
    assert problem.slope() < 1e-7
    plain = Bent()
    optimizer = torch.optim.SGD([plain.w], lr=0.2)
    for _ in range(60 * 200):
        optimizer.zero_grad()
        plain.loss(torch.randint(200, (1,), generator=chance)).backward()
        optimizer.step()
    assert plain.slope() > 1e-2


def test_natasha_can_do_without_full_passes() -> None:
    problem = Bent()
    before = problem.slope()
    method = Natasha15([problem.w], problem.loss, 200, lr=0.1, sigma=0.05, sub_epochs=2, anchor=40)
    method.epoch()
    assert method.evaluated <= 40 + 2 * 2 * 20  # of 200 examples
    for _ in range(60):
        method.epoch()
    assert problem.slope() < before / 2  # what 40 examples know of the slope is its ball


class Ridge:
    """``x^4 / 4 - x^2 / 2 + |y|^2 / 2`` with a slope along y that differs between 50 examples; a saddle at 0."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        tilt = torch.randn(50, 3, generator=generator, dtype=torch.float64)
        self.tilt = 0.1 * (tilt - tilt.mean(0))
        self.x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        self.y = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def loss(self, rows: Tensor) -> Tensor:
        valley = (self.x**4 / 4 - self.x**2 / 2).sum() + self.y.square().sum() / 2
        return valley + (self.tilt[rows] @ self.y).mean()


def test_natasha_2_leaves_a_ridge_in_one_step_and_finds_the_valley() -> None:
    problem = Ridge()
    method = Natasha2(
        [problem.x, problem.y], problem.loss, 50, lr=0.1, smoothness=2.0, hessian_smoothness=2.0, delta=0.4,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert method.step() == "curvature"
    assert abs(problem.x.item()) == pytest.approx(0.4 / 2, rel=1e-3)  # delta / L2 along x
    assert [method.step() for _ in range(60)].count("gradient") > 50
    assert abs(problem.x.item()) == pytest.approx(1.0, abs=1e-4)
    assert problem.y.detach().abs().max() < 1e-3
    stuck = Ridge()
    optimizer = torch.optim.SGD([stuck.x, stuck.y], lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        stuck.loss(torch.randint(50, (1,))).backward()
        optimizer.step()
    assert stuck.x.item() == 0.0


def test_natasha_2_finds_the_lowest_curvature_and_may_leave_either_way() -> None:
    sides = set()
    for seed in range(12):
        problem = Ridge()
        method = Natasha2(
            [problem.x, problem.y], problem.loss, 50, lr=0.1, smoothness=2.0, hessian_smoothness=2.0, delta=0.4,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        curvature, v = method._lowest()
        assert curvature == pytest.approx(-1.0, abs=1e-3)
        assert abs(v[0].item()) == pytest.approx(1.0, abs=1e-3)
        method.step()
        sides.add(problem.x.item() > 0)
    assert sides == {True, False}


def test_an_epoch_of_natasha_2_stays_where_the_curvature_is_known() -> None:
    ends = []
    for seed in range(10):
        w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        settings = {"lr": 1e-3, "smoothness": 10.0, "hessian_smoothness": 1.0, "delta": 0.1}
        chance = torch.Generator().manual_seed(seed)
        method = Natasha2([w], lambda rows: w.sum() * 100, 100, sub_epochs=1, generator=chance, **settings)  # noqa: B023
        assert method.step() == "gradient"
        ends.append(abs(w.item()))
    # where the slope of 100 and the penalty's 2 L (distance - delta / L2) cancel; 100 steps alone lead to 10
    assert 2.5 < max(ends) <= 0.1 + 100 / 20


def test_bad_settings_of_natasha_are_refused() -> None:
    w = torch.zeros(2, requires_grad=True)
    with pytest.raises(ValueError, match="anchor=11"):
        Natasha15([w], lambda rows: w.sum(), 10, lr=0.1, sigma=0.1, anchor=11)
    with pytest.raises(ValueError, match="lr=0"):
        Natasha15([w], lambda rows: w.sum(), 10, lr=0.0, sigma=0.1)
    with pytest.raises(ValueError, match="delta=-1"):
        Natasha2([w], lambda rows: w.sum(), 10, lr=0.1, smoothness=1.0, hessian_smoothness=1.0, delta=-1.0)
