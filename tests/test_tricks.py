"""The tricks of the Triceps project: each against its algorithm written out, and in every executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from slalom import Recipe
from slalom import parts as P  # noqa: N812
from test_native import compare, lists

F64 = torch.float64


def quadratic(recipe: Recipe, curvature: np.ndarray[Any, Any], start: np.ndarray[Any, Any], steps: int) -> Any:
    """Where a quadratic leads, step by step."""
    w = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = recipe.build([w])
    path = []
    for _ in range(steps):
        w.grad = torch.from_numpy(curvature) * w.detach()
        optimizer.step()
        path.append(w.detach().numpy().copy())
    return np.array(path)


@pytest.mark.parametrize("rising", [False, True])
def test_arrested_momentum_is_the_pass_written_out(rising: bool) -> None:
    """A pass moves by the momentum, looks, steps, and stops what turned; ours hands over the point it looks at next."""
    curvature, eta = np.linspace(0.1, 1.0, 7), 0.9
    w = np.linspace(-2, 3, 7)
    ours = quadratic(Recipe(momentum=P.Arrested(rising=rising), step=eta), curvature, w, 40)
    d, before = np.zeros(7), np.zeros(7)
    for step in range(40):
        nu = 0.0 if step < 2 else (step - 1) / (step + 2) if rising else 1.0
        w = w + nu * d
        if step:
            np.testing.assert_allclose(ours[step - 1], w, rtol=1e-12, atol=1e-14)
        g = curvature * w
        s = -eta * g
        w = w + s
        d = np.where(g * before < 0, 0.0, nu * d + s)
        before = g


def test_arrested_momentum_beats_fista_along_the_axes_and_full_momentum_alone_does_not_converge() -> None:
    curvature, start = np.geomspace(1e-2, 1.0, 50), np.ones(50)
    needed = {}
    for name, momentum in {"arrested": P.Arrested(), "free": P.HeavyBall(1.0, nesterov=True)}.items():
        path = quadratic(Recipe(momentum=momentum, step=1.0), curvature, start, 400)
        good = np.abs(path).max(1) < 1e-8
        needed[name] = int(good.argmax()) if good.any() else None
    assert needed["free"] is None
    assert needed["arrested"] is not None
    assert needed["arrested"] < 150  # FISTA needs 1826 (benchmarks/tricks.py)


def test_a_step_towards_zero_stops_at_the_floor_and_the_next_one_jumps() -> None:
    w = torch.nn.Parameter(torch.tensor([0.5, -0.5, 0.5, 0.0, 0.05], dtype=F64))
    optimizer = Recipe(form=P.Tunnel(floor=0.1, limit=0.7), step=1.0).build([w])
    path = []
    for gradient in ([1.0, -1.0, -1.0, 0.0, 0.01], [1.0, -1.0, 0.0, 0.0, 0.0], [0.1, -0.1, 0.5, 0.0, 0.0]):
        w.grad = torch.tensor(gradient, dtype=F64)
        optimizer.step()
        path.append([round(value, 12) for value in w.tolist()])
    assert path[0] == [0.1, -0.1, 0.7, 0.1, -0.1]  # 0 counts as negative, and what is inside the floor is thrown out
    assert path[1][:2] == [-0.1, 0.1]
    assert path[2][:2] == [-0.2, 0.2]
    assert path[2][2] == 0.2


@pytest.mark.parametrize("form", [P.Tunnel(floor=0.01), P.Tunnel(P.FTRL(), 0.01, 0.6)], ids=["greedy", "lazy"])
def test_no_weight_rests_inside_the_floor(form: Any) -> None:
    w = torch.nn.Parameter(torch.randn(1000, generator=torch.Generator().manual_seed(0)))
    optimizer = Recipe(momentum=P.Ema(), scale=P.SecondMoment(0.9), form=form, step=0.01).build([w])
    for _ in range(50):
        w.grad = w.detach() + torch.randn(1000)
        optimizer.step()
        assert w.detach().abs().min() >= 0.01 * (1 - 1e-6)


def test_the_sign_rate_follows_its_table() -> None:
    """Two tensors count as one model. Written out from the rules, with numpy."""
    chance = np.random.default_rng(0)
    w = [torch.nn.Parameter(torch.zeros(5, dtype=F64)), torch.nn.Parameter(torch.zeros(3, dtype=F64))]
    optimizer = Recipe(step=P.SignRate(0.1)).build(w)
    q, before, at, seen = 1.0, np.zeros(8), np.zeros(8), set()
    scales = [1, 1, 3, 0.3, 0.3, 5, 1, 1, 0.1, 1, 1, 4, 0.05, 3, 1, 1, 2, 0.5] * 4
    for scale in scales:
        g = scale * (chance.normal(size=8) + 2 * (chance.random() - 0.5))
        c = g * before < 0
        n_c, n_u = c.sum(), (~c).sum()
        rms = [np.sqrt((x**2).sum() / max(len(x), 1)) for x in (g[c], before[c], before[~c])]
        if before.any():
            now, was, other = rms
            if now > was and n_c * now > 2 * n_u * other:
                factor = 0.2 if now > 2 * was or n_c > 0.7 * 8 else 0.67
            elif now > was and now > 3 * other:
                factor = 0.8
            else:
                factor = 1.2
            seen.add(factor)
            q *= factor
        at = at - q * 0.1 * g
        before = g
        w[0].grad, w[1].grad = torch.from_numpy(g[:5].copy()), torch.from_numpy(g[5:].copy())
        optimizer.step()
        np.testing.assert_allclose(torch.cat([p.detach() for p in w]).numpy(), at, rtol=1e-10, atol=1e-12)
    assert seen == {0.2, 0.67, 0.8, 1.2}


def test_tweaked_gradients_shrink_along_three_rows_and_begin_again() -> None:
    w = torch.nn.Parameter(torch.zeros(4, 5, dtype=F64))
    w.grad = torch.linspace(-1, 1, 20, dtype=F64).reshape(4, 5)
    Recipe(gradient=P.Tweak(0.3), step=1.0).build([w]).step()
    expected = np.array([1 - 0.3 * (k % 15) / 15 for k in range(20)]).reshape(4, 5)
    np.testing.assert_allclose((-w.detach() / w.grad).numpy(), expected, rtol=1e-7)  # places become single precision


@pytest.mark.parametrize("tweaked", [False, True])
def test_neurons_that_began_alike_part_where_gradients_are_tweaked(tweaked: bool) -> None:
    x = torch.linspace(-1, 1, 24, dtype=F64).reshape(8, 3)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1)).double()
    for p in net.parameters():
        torch.nn.init.constant_(p, 0.3)
    optimizer = Recipe(gradient=P.Tweak() if tweaked else None, step=0.1).build(net)
    for _ in range(100):
        optimizer.zero_grad()
        (net(x) - x.prod(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    first, second = net[0].weight.detach()
    assert bool((first - second).abs().max() > 1e-5) == tweaked


def test_turns_are_what_each_part_would_do_alone() -> None:
    curvature, start = np.linspace(0.1, 1.0, 5), np.linspace(-1, 2, 5)
    alternating = P.Alternating(P.Arrested(), plain=3, turns=4, boost=2.0)
    ours = quadratic(Recipe(momentum=alternating, step=0.3), curvature, start, 14)
    w = start
    for begin in (0, 7):
        plain = quadratic(Recipe(step=0.6), curvature, w, 3)
        turn = quadratic(Recipe(momentum=P.Arrested(), step=0.3), curvature, plain[-1], 4)
        np.testing.assert_allclose(ours[begin : begin + 7], np.concatenate([plain, turn]), rtol=1e-12, atol=1e-14)
        w = turn[-1]


@pytest.mark.parametrize(
    "parts",
    [
        {"momentum": P.Arrested()},
        {"momentum": P.Arrested(rising=True)},
        {"momentum": P.Arrested(0.9), "scale": P.SecondMoment(0.9)},
        {"momentum": P.Alternating(P.Arrested(), 2, 2, 3.0)},
        {"momentum": P.Alternating(P.Ema(), 1, 3)},
        {"gradient": P.Tweak(0.5, 2), "momentum": P.Ema()},
        {"step": P.SignRate(0.01)},
        {"form": P.Tunnel(floor=1e-2, limit=1.0)},
        {"form": P.Tunnel(P.FTRL(), 1e-2), "scale": P.Accumulated()},
    ],
    ids=str,
)
def test_the_tricks_run_compiled_as_the_reference_does(parts: Any) -> None:
    compare(Recipe(**{"step": 0.05, **parts}), [(3, 4), (5,), (2, 3, 2, 2)], steps=6)


def test_the_tricks_can_be_written_to_a_file_and_read_back() -> None:
    recipe = Recipe(momentum=P.Alternating(P.Arrested()), step=P.SignRate(), form=P.Tunnel(P.FTRL(), 1e-3))
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert "Arrested" in repr(recipe)
    params = lists([(3, 2)], torch.float32)
    assert "plain" not in str(recipe.build(params))  # the screen shows formulas, not names of settings
