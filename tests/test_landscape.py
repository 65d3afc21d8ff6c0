"""Loss surfaces and sharpness: closed forms, exact Hessians, and nothing at all different afterwards."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import slalom
from networks import build
from slalom.cli.landscape import landscape as command
from slalom.errors import UsageError
from slalom.landscape import Plane, density, line, plane, sharpness, snapshot
from slalom.landscape.contours import regions
from slalom.landscape.lanczos import quadrature
from slalom.landscape.points import Place, random_direction


class Weights(nn.Module):
    """A vector that is a model."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))


class Restless(nn.Module):
    """A model that changes all it has whenever it is used: running statistics, chance, modes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1  # another tensor, not another value
        random.random()
        np.random.rand()
        self.body[2].train()
        return self.body(x)


X, Y = torch.randn(16, 6, generator=torch.Generator().manual_seed(1)), torch.zeros(16, 2)


def mse(model: nn.Module) -> Tensor:
    return (model(X) - Y).square().mean()


WAYS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "line": lambda model, loss: line(model, loss, points=5),
    "line to a point": lambda model, loss: line(model, loss, Restless(), points=5),
    "plane": lambda model, loss: plane(model, loss, size=3),
    "trails": lambda model, loss: plane(model, loss, trails={"a": [Restless() for _ in range(4)]}, size=3),
    "sharpness": lambda model, loss: sharpness(model, loss, samples=2, iterations=6),
    "spectrum": lambda model, loss: density(model, loss, vectors=2, iterations=6, method="finite differences"),
    "differences": lambda model, loss: sharpness(
        model, loss, samples=2, iterations=6, rho=0.1, batch_norm="batch", method="finite differences"
    ),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_different_afterwards(way: str, fails: bool) -> None:
    model = Restless()
    mse(model).backward()
    model.body[1].eval()
    before = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    objects = [id(t) for t in (*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()))]
    modes = [module.training for module in model.modules()]
    chance = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    calls = 0

    def loss(model: nn.Module) -> Tensor:
        nonlocal calls
        calls += 1
        if fails and calls == 3:
            raise RuntimeError("out of luck")
        return mse(model)

    # Chance differs between what is measured here and what other points are made from.
    ready = torch.get_rng_state()
    others = WAYS[way]
    torch.set_rng_state(ready)
    if fails and way == "sharpness":
        calls = 2  # the graph of the gradient is made once
    if fails:
        with pytest.raises(RuntimeError, match="out of luck"):
            others(model, loss)
    else:
        others(model, loss)
    if way not in ("line to a point", "trails"):  # where making the other points draws numbers
        assert torch.equal(chance[0], torch.get_rng_state())
    assert chance[1] == random.getstate()
    assert (chance[2] == np.random.get_state()[1]).all()
    assert objects == [id(t) for t in (*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters()))]
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), model.state_dict().values(), strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(before[1], model.parameters(), strict=True))


# --- directions ---------------------------------------------------------------------------------------------------


def test_a_direction_has_the_length_of_each_filter_once_and_none_for_vectors() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    place = Place(model)
    for weight, drawn in zip(place.origin, random_direction(place, seed=3), strict=True):
        if weight.ndim == 1:
            assert not drawn.any()
        else:
            torch.testing.assert_close(drawn.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
    for weight, drawn in zip(place.origin, random_direction(place, 3, "layer"), strict=True):
        assert float(drawn.norm()) == pytest.approx(float(weight.norm()) if weight.ndim > 1 else 0.0)
    gaussian = torch.cat([d.flatten() for d in random_direction(place, 3, "none")])
    assert float(gaussian.square().mean()) == pytest.approx(1.0, abs=0.3)
    again = [torch.equal(a, b) for a, b in zip(random_direction(place, 3), random_direction(place, 3), strict=True)]
    assert all(again)
    assert not torch.equal(random_direction(place, 3)[0], random_direction(place, 4)[0])


def test_rescaling_a_network_leaves_its_filter_normalised_picture_alone() -> None:
    """Dinh et al. 2017: W1 c and W2 / c compute the same through a ReLU."""
    model = nn.Sequential(nn.Linear(6, 16, bias=False), nn.ReLU(), nn.Linear(16, 2, bias=False))
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight *= 8
        scaled[2].weight /= 8
    assert mse(scaled).item() == pytest.approx(mse(model).item())
    same = line(model, mse, points=9).losses, line(scaled, mse, points=9).losses
    assert same[0] == pytest.approx(same[1], rel=1e-5)
    raw = line(model, mse, points=9, normalize="none").losses, line(scaled, mse, points=9, normalize="none").losses
    assert max(abs(a - b) for a, b in zip(*raw, strict=True)) > 0.1
    plain = sharpness(model, mse, samples=0).largest, sharpness(scaled, mse, samples=0).largest
    assert plain[1] > 20 * plain[0]
    relative = [sharpness(one, mse, measure="relative", samples=0).largest for one in (model, scaled)]
    assert relative[0] == pytest.approx(relative[1], rel=1e-3)


# --- lines and planes ---------------------------------------------------------------------------------------------


def test_a_line_ends_in_the_two_points() -> None:
    model, other = nn.Linear(6, 2), nn.Linear(6, 2)
    found = line(model, mse, other, points=11)
    assert found.losses[0] == float(mse(model).detach())
    assert found.losses[-1] == pytest.approx(float(mse(other).detach()), rel=1e-5)
    assert found.losses == pytest.approx(line(model, mse, dict(other.named_parameters()), points=11).losses)
    assert found.losses == pytest.approx(line(model, mse, list(other.parameters()), points=11).losses)
    part = line(model, mse, other, points=3, only="bias")
    assert part.losses[0] == found.losses[0]
    assert part.losses[-1] != pytest.approx(found.losses[-1])
    beyond = line(model, mse, other, points=4, low=-1.0, high=2.0)
    assert beyond.at == (-1.0, 0.0, 1.0, 2.0)
    assert beyond.losses[1] == found.losses[0]


def bowl(model: nn.Module) -> Tensor:
    """w A w / 2 with known eigenvalues."""
    return 0.5 * (model.w * torch.tensor([5.0, 3.0, 3.0, -1.0], dtype=torch.float64) * model.w).sum()


def test_a_plane_through_three_points_is_what_the_formula_says() -> None:
    a, b, c = Weights(0, 0, 0, 0), Weights(2, 0, 0, 0), Weights(1, 0, 0, 3)
    found = plane(a, bowl, through=[a, b, c], size=7)
    expected = [[0.5 * (5 * x * x - y * y) for x in found.x] for y in found.y]
    assert np.array(found.losses) == pytest.approx(np.array(expected), abs=1e-12)
    assert found.x[0] == pytest.approx(-0.5)  # a quarter beyond the points on each side
    assert found.x[-1] == pytest.approx(2.5)
    assert found.y[-1] == pytest.approx(3.75)


def test_how_far_a_trail_runs_off_the_plane_is_told() -> None:
    a, b, c, off = Weights(0, 0, 0, 0), Weights(2, 0, 0, 0), Weights(0, 4, 0, 0), Weights(1, 1, 2, 0)
    found = plane(a, bowl, through=[a, b, c], trails={"way": [a, off, c]}, size=3)
    (trail,) = found.trails
    assert trail.off == pytest.approx((0, 2, 0))
    aliased = plane(a, bowl, through=[a.state_dict(), b, c], trails={"way": [a.state_dict(), off, c]}, size=3)
    assert aliased == found
    assert (trail.x[1], trail.y[1]) == pytest.approx((1, 1))
    assert trail.losses[1] == pytest.approx(0.5 * (5 + 3 + 12))
    assert trail.shown[1] == pytest.approx(0.5 * (5 + 3))
    assert "up to 2 off it on the way" in str(found)


def test_the_nearest_plane_holds_a_flat_trail_and_most_of_any_other() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = [Weights(0.3 + x, 0.1, 2 - y, 1.0) for x, y in torch.randn(9, 2, generator=generator).tolist()]
    found = plane(Weights(0, 0, 0, 0), bowl, trails={"flat": flat}, size=3)
    assert max(found.trails[0].off) < 1e-12
    assert sum(found.shares or ()) == pytest.approx(1)
    assert found.trails[0].losses == pytest.approx(found.trails[0].shown)
    cloud = torch.randn(20, 4, generator=generator, dtype=torch.float64) * torch.tensor([9.0, 4.0, 1.0, 0.5])
    found = plane(Weights(0, 0, 0, 0), bowl, trails={"cloud": [Weights(*row) for row in cloud.tolist()]}, size=3)
    sizes = torch.linalg.svdvals(cloud - cloud.mean(0)).square()
    assert found.shares == pytest.approx((sizes[:2] / sizes.sum()).tolist())
    assert sum(off**2 for off in found.trails[0].off) == pytest.approx(float(sizes[2:].sum()))


def test_points_on_a_line_span_no_plane() -> None:
    a, b, c = Weights(0, 0, 0, 0), Weights(1, 1, 0, 0), Weights(2, 2, 0, 0)
    with pytest.raises(UsageError, match="lie on a line"):
        plane(a, bowl, through=[a, b, c])
    with pytest.raises(UsageError, match="lie on a line"):
        plane(a, bowl, trails={"way": [a, b, c]})
    with pytest.raises(UsageError, match="record at least three"):
        plane(a, bowl, trails={"way": [a, b]})


def test_batch_norms_take_the_statistics_that_are_said() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    for _ in range(5):
        model(X)
    running, batch = (line(model, mse, points=3, batch_norm=how).losses[1] for how in ("running", "batch"))
    assert running == float(mse(model.eval()).detach())
    assert batch == float(mse(model.train()).detach())
    assert running != pytest.approx(batch, rel=1e-3)
    assert line(model, mse, points=3).batch_norm == "running"
    assert line(model, mse, copy.deepcopy(model), points=3).batch_norm == "batch"
    assert line(nn.Linear(6, 2), mse, points=3).batch_norm is None


def test_chance_is_the_same_at_every_point() -> None:
    noisy = line(nn.Linear(6, 2), lambda model: (model(X) * 0 + torch.randn(16, 2)).sum(), points=5)
    assert len(set(noisy.losses)) == 1


def test_what_makes_no_sense_is_refused_in_one_sentence() -> None:
    model = nn.Linear(6, 2)
    for attempt, words in [
        (lambda: line(model, mse, points=1), "points=1"),
        (lambda: line(model, mse, low=2.0), "low must be below high"),
        (lambda: line(model, mse, nn.Linear(6, 3)), "here and"),
        (lambda: line(model, mse, {"weight": model.weight}), 'no parameter "bias"'),
        (lambda: line(model, mse, [model.weight]), "has 1 tensors"),
        (lambda: line(model, mse, only="wieght"), "Did you mean weight"),
        (lambda: line(model, mse, normalize="row"), "normalize='row'"),  # type: ignore[arg-type]
        (lambda: plane(model, mse, batch_norm="none"), "batch_norm='none'"),  # type: ignore[arg-type]
        (lambda: plane(model, mse, radius=0.0), "radius=0"),
        (lambda: plane(model, mse, through=[model, model]), "a plane goes through three"),
        (lambda: sharpness(model, mse, top=0), "top=0"),
        (lambda: sharpness(model, mse, rho=-1.0), "rho=-1"),
        (lambda: sharpness(model, mse, measure="absolute"), "measure='absolute'"),  # type: ignore[arg-type]
        (lambda: sharpness(model, mse, method="guess"), "method='guess'"),  # type: ignore[arg-type]
        (lambda: sharpness(model, lambda model: mse(model).item()), "no gradient"),  # type: ignore[arg-type, return-value]
        (lambda: sharpness(model, lambda model: mse(model) * math.nan), "diverged"),
        (lambda: sharpness(model, mse, measure=slalom.AdamW(model.parameters())), "has taken no step"),
    ]:
        with pytest.raises(UsageError, match=words):
            attempt()


# --- pictures -----------------------------------------------------------------------------------------------------


def area(loops: list[list[tuple[float, float]]]) -> float:
    """What loops enclose, by the shoelace formula; loops inside of others count as holes."""
    signed = [0.5 * sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(loop)) for loop in loops]
    outer = max(map(abs, signed))
    return outer - (sum(map(abs, signed)) - outer)


def test_contours_are_closed_and_enclose_what_is_above() -> None:
    side = 61
    grid = [[math.hypot(i - 30, j - 30) for i in range(side)] for j in range(side)]
    loops = regions(grid, 20.0)  # all but a disc
    assert all(loop[0] == loop[-1] for loop in loops)
    assert len(loops) == 2
    assert area(loops) == pytest.approx(60 * 60 - math.pi * 400, rel=2e-3)
    assert area(regions([[-value for value in row] for row in grid], -20.0)) == pytest.approx(math.pi * 400, rel=5e-3)
    assert regions(grid, 100.0) == []
    (whole,) = regions(grid, -1.0)
    assert area([whole]) == pytest.approx(3600)
    holed = [[math.nan if (i, j) == (2, 2) else 0.0 for i in range(5)] for j in range(5)]
    (spot,) = regions(holed, 1.0)
    assert area([spot]) == pytest.approx(0.5)


@pytest.mark.parametrize("middle", [0.9, -0.9])
def test_a_saddle_joins_its_high_corners_if_its_middle_is_high(middle: float) -> None:
    high, low = 1 + middle, -1 + middle
    loops = regions([[high, low], [low, high]], 0.0)
    assert len(loops) == (1 if middle > 0 else 2)


def test_pictures_show_surfaces_with_trails_and_without() -> None:
    a, b, c = Weights(0, 0, 0, 0), Weights(2, 0, 0, 0), Weights(0, 4, 0, 0)
    found = plane(a, bowl, trails={"<one>": [a, Weights(1, 2, 0, 0), b], "two": [a, c]}, size=9)
    drawn = found.svg("a & b")
    assert drawn.startswith("<svg")
    assert "a &amp; b" in drawn
    assert "&lt;one&gt;" in drawn
    assert drawn.count('class="way"') == 2
    screen = found.draw(80)
    assert "A" in screen
    assert "B" in screen
    assert max(map(len, screen.splitlines()[:20])) <= 80
    assert json.loads(json.dumps(found.as_json()))["trails"]["two"]["off"] == pytest.approx([0, 0], abs=1e-6)
    flat = plane(nn.Linear(6, 2), lambda model: model(X).sum() * 0, size=3)
    assert "the same everywhere" in flat.draw()
    assert flat.svg()
    broken = plane(nn.Linear(6, 2), lambda model: model(X).sum() * math.nan, size=3)
    assert broken.as_json()["losses"][0][0] is None
    assert broken.svg()
    assert broken.draw()
    curve = line(nn.Linear(6, 2), mse, points=5)
    assert "along a random direction" in str(curve)
    assert curve.svg().startswith("<svg")


# --- sharpness ----------------------------------------------------------------------------------------------------


def test_quadratics_have_their_eigenvalues_trace_and_rise() -> None:
    model = Weights(0, 0, 0, 0)
    found = sharpness(model, bowl, top=4, rho=0.3)
    assert found.eigenvalues == pytest.approx((5, 3, 3, -1))  # the equal ones too
    assert found.smallest == pytest.approx(-1)
    assert found.trace == pytest.approx(10)  # random signs are exact for a diagonal matrix
    assert found.trace_error == pytest.approx(0, abs=1e-12)
    assert found.rise == pytest.approx(0.5 * 0.3**2 * 5)
    assert found.converged
    slope = sharpness(Weights(1.0), lambda model: 3 * model.w.sum(), rho=0.1)
    assert slope.largest == 0
    assert slope.rise == pytest.approx(0.3)


@pytest.mark.parametrize("a", [1.0, 3.0])
def test_a_deep_linear_network_has_its_closed_form(a: float) -> None:
    """(w1 w2 - 1)^2 / 2 at w1 = a, w2 = 1 / a has eigenvalues 0 and a^2 + 1 / a^2; relative to |w| always 0 and 2."""
    model = Weights(a, 1 / a)
    loss = lambda model: 0.5 * (model.w.prod() - 1) ** 2  # noqa: E731
    assert sharpness(model, loss, top=2).eigenvalues == pytest.approx((a**2 + a**-2, 0), abs=1e-9)
    relative = sharpness(model, loss, measure="relative", top=2)
    assert relative.eigenvalues == pytest.approx((2, 0), abs=1e-9)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(6, 18), nn.Linear(6, 2), nn.RMSNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        heads = (z.view(4, 4, 2, 3).transpose(1, 2) for z in self.qkv(self.norm(x)).view(4, 4, 18).chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(*heads)
        return self.out(mixed.transpose(1, 2).reshape(16, 6))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 2)),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)),
    "group norm": lambda: nn.Sequential(nn.Linear(6, 6), nn.GroupNorm(2, 6), nn.SiLU(), nn.Linear(6, 2)),
    "kernels": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 2)
    ),
    "attention": Attention,
}


def exact(loss: Callable[[], Tensor], parameters: list[Tensor]) -> Tensor:
    """The Hessian, row by row, by reverse mode over reverse mode."""
    with sdpa_kernel(SDPBackend.MATH):
        gradients = torch.autograd.grad(loss(), parameters, create_graph=True)
    entries = torch.cat([g.reshape(-1) for g in gradients])
    rows = [torch.autograd.grad(e, parameters, retain_graph=True, materialize_grads=True) for e in entries]
    return torch.stack([torch.cat([piece.reshape(-1) for piece in row]) for row in rows])


@pytest.mark.parametrize("method", ["double backward", "finite differences"])
@pytest.mark.parametrize("name", NETWORKS)
def test_sharpness_is_that_of_the_exact_hessian(name: str, method: Any) -> None:
    torch.manual_seed(2)
    model = NETWORKS[name]().double()
    x, y = torch.randn(16, 6, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64)

    def loss(model: nn.Module) -> Tensor:
        return (model(x) - y).square().mean()

    hessian = exact(lambda: loss(model), list(model.parameters()))
    values = torch.linalg.eigvalsh(hessian)
    found = sharpness(model, loss, top=3, samples=40, tolerance=1e-6, batch_norm="batch", method=method)
    near: dict[str, float] = {"rel": 1e-9} if method == "double backward" else {"rel": 1e-6}
    assert found.eigenvalues == pytest.approx(values.flip(0)[:3].tolist(), **near)
    assert found.smallest == pytest.approx(float(values[0]), **near)
    assert abs(found.trace - float(hessian.trace())) < 4 * found.trace_error
    assert found.method == method
    some = [model.get_parameter(n) for n, _ in model.named_parameters() if n.endswith("bias")]
    block = torch.linalg.eigvalsh(exact(lambda: loss(model), some))
    assert sharpness(model, loss, only="*bias", samples=0, tolerance=1e-6, batch_norm="batch").largest == pytest.approx(
        float(block[-1]), rel=1e-9
    )


def test_a_kernel_without_second_derivative_is_differenced() -> None:
    torch.manual_seed(2)
    model = Attention()

    def fused(model: nn.Module) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return mse(model)

    by_differences, by_math = sharpness(model, fused, samples=0), sharpness(model, mse, samples=0)
    assert (by_differences.method, by_math.method) == ("finite differences", "double backward")
    assert by_differences.largest == pytest.approx(by_math.largest, rel=5e-3)
    with pytest.raises(RuntimeError, match="out of luck"):  # what is wrong with a loss is not hidden
        sharpness(model, lambda model: _unlucky())


def _unlucky() -> Tensor:
    raise RuntimeError("out of luck")


def test_an_optimizer_measures_by_its_own_metric() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, y = X.double(), torch.randn(16, 2, dtype=torch.float64)

    def loss(model: nn.Module) -> Tensor:
        return (model(x) - y).square().mean()

    def train(optimizer: torch.optim.Optimizer) -> None:
        for _ in range(7):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()

    adam = slalom.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.99))
    twin = copy.deepcopy(model)
    theirs = torch.optim.Adam(twin.parameters(), lr=0.01, betas=(0.9, 0.99))
    train(adam)
    for _ in range(7):
        theirs.zero_grad()
        loss(twin).backward()
        theirs.step()
    metric = [(s["exp_avg_sq"] / (1 - 0.99**7)).sqrt() + 1e-8 for s in theirs.state.values()]
    root = torch.cat([(0.01 / d).sqrt().flatten() for d in metric])
    expected = torch.linalg.eigvalsh(root[:, None] * exact(lambda: loss(twin), list(twin.parameters())) * root)
    found = sharpness(model, loss, measure=adam, samples=0, tolerance=1e-8)
    assert found.largest == pytest.approx(float(expected[-1]), rel=1e-6)
    assert "as Adam sees it" in found.measure
    sgd = slalom.SGD(model.parameters(), lr=0.25)
    train(sgd)
    plain = sharpness(model, loss, samples=0, tolerance=1e-8).largest
    assert sharpness(model, loss, measure=sgd, samples=0, tolerance=1e-8).largest == pytest.approx(0.25 * plain)
    for name in ("lamb", "muon", "lion", "soap"):
        other = build(name, model.parameters())
        train(other)
        with pytest.raises(UsageError, match="measures no sharpness"):
            sharpness(model, loss, measure=other)


def test_full_batch_descent_ends_at_the_edge_of_stability() -> None:
    """Cohen et al. 2021: the largest eigenvalue rises to 2 / lr and stays there. Width is set by the rate."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(5, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))
    x = torch.randn(64, 5)
    y = torch.sin(x.sum(1, keepdim=True))

    def loss(model: nn.Module) -> Tensor:
        return 0.5 * (model(x) - y).square().mean()

    for lr in (0.5, 0.25):
        model = copy.deepcopy(start)
        optimizer = slalom.SGD(model.parameters(), lr=lr)
        before = lr * sharpness(model, loss, samples=0).largest
        for _ in range(800):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()
        after = lr * sharpness(model, loss, samples=0).largest
        assert before < 1.4
        assert after == pytest.approx(2.0, abs=0.35)


# --- spectra ------------------------------------------------------------------------------------------------------


def test_over_all_axes_the_quadrature_is_the_whole_spectrum() -> None:
    """e_i f(A) e_i, added up over all i, is the trace of f(A), whatever f."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = matrix + matrix.T
    found = [quadrature(lambda v: matrix @ v, axis, 12) for axis in torch.eye(12, dtype=torch.float64)]
    values = torch.linalg.eigvalsh(matrix)
    for f in (torch.exp, torch.sin, lambda x: (x > 0.5).double()):
        assert float(sum((weights * f(nodes)).sum() for nodes, weights in found)) == pytest.approx(
            float(f(values).sum())
        )


def test_few_nodes_are_exact_for_low_powers() -> None:
    generator = torch.Generator().manual_seed(4)
    diagonal, start = (torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(2))
    nodes, weights = quadrature(lambda v: diagonal * v, start, 4)
    share = start.square() / start.square().sum()
    assert len(nodes) == 4
    for power in range(8):
        assert float((weights * nodes**power).sum()) == pytest.approx(float((share * diagonal**power).sum()))
    assert float((weights * nodes**8).sum()) != pytest.approx(float((share * diagonal**8).sum()))


def test_a_diagonal_spectrum_is_seen_whole_by_one_vector() -> None:
    found = density(Weights(0, 0, 0, 0), bowl, vectors=1)  # 5, 3, 3, -1
    assert found.nodes[0] == pytest.approx((-1, 3, 5))
    assert found.weights[0] == pytest.approx((0.25, 0.5, 0.25))
    assert found.products == 3  # it ends by itself
    assert found.trace == pytest.approx(10)
    assert found.share(low=4)[0] == pytest.approx(0.25)
    assert found.share(high=0)[0] == pytest.approx(0.25)
    assert math.isnan(found.share()[1])  # one vector knows no error
    assert found.at(3, blur=0.1) == pytest.approx(0.5 / (0.1 * math.sqrt(2 * math.pi)))
    widths = [low + 0.01 for low in itertools.takewhile(lambda x: x < 6, itertools.count(-2, 0.02))]
    assert sum(found.at(x, blur=0.1) * 0.02 for x in widths) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("measure", ["plain", "relative"])
def test_a_spectrum_is_that_of_the_exact_hessian(measure: Any) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    x, y = torch.randn(48, 6, dtype=torch.float64), torch.randint(0, 3, (48,))

    def loss(model: nn.Module) -> Tensor:
        return functional.cross_entropy(model(x), y)

    parameters = list(model.parameters())
    hessian = exact(lambda: loss(model), parameters)
    if measure == "relative":
        size = torch.cat([p.detach().abs().reshape(-1) for p in parameters])
        hessian = size[:, None] * hessian * size
    values = torch.linalg.eigvalsh(hessian)
    found = density(model, loss, measure=measure, vectors=24, iterations=80)
    assert found.parameters == len(values)
    assert found.largest == pytest.approx(float(values[-1]), rel=1e-6)
    assert found.smallest == pytest.approx(float(values[0]), rel=1e-6)
    assert abs(found.trace - float(values.sum())) < 4 * found.trace_error < float(values.sum())
    near = 0.01 * found.size
    for low, high in ((-math.inf, -near), (-near, near), (near, math.inf), (10 * near, math.inf)):
        share, error = found.share(low, high)
        whole = float(((values >= low) & (values <= high)).double().mean())
        assert share == pytest.approx(whole, abs=4 * error + 0.01)
        assert error < 0.02
    block = density(model, loss, only="4.*", vectors=24, iterations=80)
    assert block.parameters == 39
    assert block.largest == pytest.approx(sharpness(model, loss, only="4.*", samples=0).largest, rel=1e-3)


def test_a_spectrum_is_a_picture_and_words_and_data() -> None:
    found = density(Weights(0, 0, 0, 0), bowl, vectors=2)
    screen = str(found)
    assert "4 eigenvalues" in screen
    assert "from -1 to 5; trace 10 ± 0;" in screen
    assert "about 3 of 4" in screen
    assert found.svg().startswith("<svg")
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["parameters"] == 4
    for wrong in ({"vectors": 0}, {"iterations": 0}, {"method": "guess"}, {"measure": "square"}):
        with pytest.raises(UsageError):
            density(Weights(0, 0, 0, 0), bowl, **wrong)
    flat = density(Weights(0.0), lambda model: 3 * model.w.sum())
    assert "from 0 to 0" in str(flat)


# --- the command --------------------------------------------------------------------------------------------------

TASK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(20, 4)
    return model, lambda model: (model(x) - x[:, :1]).square().mean()

def alone():
    return build()[0]

def unlucky():
    return build()[0], lambda model: model(torch.randn(2, 9)).sum()
"""


def asked(capsys: pytest.CaptureFixture[str], *words: str, **options: Any) -> Any:
    defaults = {
        "workload": None, "steps": 12, "plane": "auto", "size": 5, "batches": 1, "seed": 0, "sharpness": True,
        "spectrum": False, "out": None, "as_json": True,
    }  # fmt: skip
    command(list(words), **{**defaults, **options})
    out = capsys.readouterr().out
    return json.loads(out) if options.get("as_json", True) else out


@pytest.fixture
def task(tmp_path: Path) -> str:
    file = tmp_path / "task.py"
    file.write_text(TASK)
    return str(file)


def test_the_command_on_a_model_of_ones_own(task: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    around = asked(capsys, f"{task}:build", out=tmp_path / "map.svg")
    assert len(around["plane"]["losses"]) == 5
    assert around["ends"][""]["plain"]["parameters"] == 49
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
    trained = asked(capsys, f"{task}:build", "adam:lr=0.01", "sgd:lr=0.05")
    ways = trained["plane"]["trails"]
    assert all(way["losses"][-1] < way["losses"][0] for way in ways.values())
    assert trained["plane"]["kind"].startswith("the plane through three points")
    assert max(way["off"][-1] for way in ways.values()) < 1e-5
    spectrum = asked(capsys, f"{task}:build", spectrum=True, out=tmp_path / "map.svg")["ends"][""]["spectrum"]
    assert spectrum["parameters"] == 49
    assert "eigenvalues of the Hessian" in (tmp_path / "map-spectrum.svg").read_text()
    screen = asked(capsys, f"{task}:build", "adam:lr=0.01", as_json=False, spectrum=True)
    assert "of 49\n" in screen
    assert "the plane nearest to the trails" in screen
    assert "double backward" in screen


def test_the_command_on_a_workload(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "adamw", "sgd:momentum=0.9", workload="quadratic", steps=30, sharpness=False)
    assert list(found["plane"]["trails"]) == ["adamw", "sgd:momentum=0.9"]
    lost = asked(capsys, "adamw", "sgd:lr=1e9", workload="quadratic", steps=30, sharpness=False, as_json=False)
    assert "sgd:lr=1e9 diverged at step" in lost


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (["adamw"], {}, "of which loss"),
        (["{}:build"], {"workload": "quadratic"}, "of which loss"),
        (["{}:alone"], {}, "return the model and a function"),
        (["{}:unlucky"], {}, "line 15: RuntimeError: mat1"),
        (["{}:build"], {"plane": "flat"}, "--plane"),
        (["{}:build", "adamw"], {"plane": "ends"}, "1 ways are drawn"),
        (["{}:build"], {"batches": 0}, "--batches 0"),
        (["{}:build", "sgd:lr=1e30"], {}, "no way to draw"),
        (["adamw"], {"workload": "qadratic"}, "Did you mean quadratic"),
        (["{}:build"], {"size": 1}, "size=1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    task: str, words: list[str], options: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=said):
        asked(capsys, *(word.format(task) for word in words), **options)


def test_a_snapshot_stays_where_it_was() -> None:
    model = nn.Linear(6, 2)
    kept = snapshot(model)
    with torch.no_grad():
        model.weight.zero_()
    assert kept["weight"].abs().sum() > 0
    assert isinstance(plane(model, mse, trails={"way": [kept, model, nn.Linear(6, 2)]}, size=3), Plane)
