"""Online learning and sparse features: lazy forms, growing memories, proximal penalties."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

import slalom
from cases.tools import Case, Golden, Oracle, close, from_pytorch_optimizer, moves


def ftrl_equals_the_production_formula() -> None:
    """McMahan et al. 2013, algorithm 1, in numpy; weights start at 0 there. Half of the gradients are 0."""
    ftrl_as_in_keras_counts_from_an_accumulator_and_shrinks()
    chance = np.random.default_rng(0)
    alpha, beta, l1, l2 = 0.1, 1.0, 1.5, 0.7
    w = torch.nn.Parameter(torch.zeros(40, dtype=torch.float64))
    optimizer = slalom.FTRLProximal([w], lr=alpha, beta=beta, l1=l1, l2=l2)
    z, n, theirs = np.zeros(40), np.zeros(40), np.zeros(40)
    zeros = 0
    for _ in range(100):
        g = chance.normal(size=40) * (chance.random(40) < 0.5) + 0.2 * np.sign(theirs - 0.1)
        g[:5] = 0.0  # never seen
        sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / alpha
        z += g - sigma * theirs
        n += g * g
        theirs = np.where(np.abs(z) <= l1, 0.0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / alpha + l2))
        w.grad = torch.from_numpy(g)
        optimizer.step()
        ours = w.detach().numpy()
        assert np.array_equal(ours == 0, theirs == 0)
        assert np.abs(ours - theirs).max() < 1e-13
        zeros += int((theirs[5:] == 0).sum())
    assert 100 < zeros < 3400, "a test without zeros, or with nothing else, says little"


def ftrl_as_in_keras_counts_from_an_accumulator_and_shrinks() -> None:
    """Keras's Ftrl in numpy: initial accumulator, 2 l2, and 2 shrinkage w in the linear term alone."""
    chance = np.random.default_rng(1)
    alpha, initial, l1, l2, shrinkage = 0.1, 0.1, 0.4, 0.3, 0.2
    w = torch.nn.Parameter(torch.zeros(20, dtype=torch.float64))
    optimizer = slalom.FTRLProximal([w], lr=alpha, beta=0.0, l1=l1, l2=2 * l2, initial=initial, shrinkage=2 * shrinkage)
    linear, n, theirs = np.zeros(20), np.full(20, initial), np.zeros(20)
    for _ in range(60):
        g = chance.normal(size=20) + theirs - 0.5
        grown = n + g * g
        linear += g + 2 * shrinkage * theirs - (np.sqrt(grown) - np.sqrt(n)) / alpha * theirs
        n = grown
        theirs = np.where(np.abs(linear) <= l1, 0.0, (np.sign(linear) * l1 - linear) / (np.sqrt(n) / alpha + 2 * l2))
        w.grad = torch.from_numpy(g.copy())
        optimizer.step()
        assert np.abs(w.detach().numpy() - theirs).max() < 1e-12
    assert (theirs == 0).sum() < 20


def group_ftrl_drops_whole_rows() -> None:
    torch.manual_seed(0)
    w = torch.nn.Parameter(0.1 * torch.randn(20, 4, dtype=torch.float64))
    signal = torch.zeros(20, 4, dtype=torch.float64)
    signal[:5] = torch.randn(5, 4, dtype=torch.float64).sign()
    optimizer = slalom.GroupFTRL([w], lr=0.3, group=20.0)
    for _ in range(200):
        w.grad = w.detach() - signal + 0.3 * torch.randn(20, 4, dtype=torch.float64)
        optimizer.step()
    assert (w[5:] == 0).all()
    assert (w[:5] != 0).all()


def rowwise_keeps_the_direction_of_a_rows_gradient() -> None:
    w = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    w.grad = torch.tensor([[1.0, 2.0, 3.0], [1e-6, 0.0, 0.0]], dtype=torch.float64)
    optimizer = slalom.RowwiseAdagrad([w], lr=0.1)
    optimizer.step()
    expected = 0.1 * w.grad / w.grad.square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(-w.detach(), expected, rtol=1e-3, atol=0)
    assert optimizer.state[w]["row_accumulated.v"].shape == (2,)


def _equal(name: str, other: str, gradients: Iterable[float], settings: dict[str, float], **theirs: float) -> None:
    gradients = list(gradients)
    ours = moves(name, gradients, **settings)
    assert all(close(a, b, 1e-12) for a, b in zip(ours, moves(other, gradients, **theirs), strict=True))


NOISE = [math.sin(7.0 * t) for t in range(1, 60)]


def online_rmsprop_with_gamma_1_is_adagrad() -> None:
    _equal("online-rmsprop", "adagrad", NOISE, {"lr": 0.1, "gamma": 1.0, "eps": 1e-10}, lr=0.1, eps=1e-10)
    assert not close(moves("online-rmsprop", NOISE, lr=0.1)[5], moves("adagrad", NOISE, lr=0.1)[5])


def sc_adagrad_steps_shrink_as_one_over_t() -> None:
    on_strongly_convex_losses_regret_falls_by_one_over_t()
    ours = moves("sc-adagrad", [2.0] * 100, lr=0.1)
    assert close(ours[99], 0.1 * 2 / (4 * 100), 1e-9)


def on_strongly_convex_losses_regret_falls_by_one_over_t() -> None:
    """Mean excess of 2000 noisy quadratics of curvature 1 between steps 100 and 1000, as a power of the step."""
    slopes = {}
    for name, lr in (("sc-adagrad", 2.0), ("adagrad", 1.0)):
        generator = torch.Generator().manual_seed(0)
        w = torch.nn.Parameter(torch.ones(2000, dtype=torch.float64))
        optimizer = slalom.create(name, [w], lr=lr)
        found = {}
        for t in range(1, 1001):
            w.grad = w.detach() + torch.randn(2000, generator=generator, dtype=torch.float64)
            optimizer.step()
            if t in (100, 1000):
                found[t] = w.detach().square().mean().item()
        slopes[name] = math.log10(found[1000] / found[100])
    assert -1.15 < slopes["sc-adagrad"] < -0.85
    assert -0.6 < slopes["adagrad"] < -0.4


def sc_rmsprop_with_gamma_1_is_sc_adagrad() -> None:
    _equal("sc-rmsprop", "sc-adagrad", NOISE, {"lr": 0.1, "gamma": 1.0}, lr=0.1)


def _losses(build: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], scales: torch.Tensor) -> list[float]:
    """Losses of logistic regression on features of these scales, from w = 0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, len(scales), generator=generator, dtype=torch.float64)
    y = torch.sign(x @ torch.linspace(-1, 1, len(scales), dtype=torch.float64) + 0.1)
    w = torch.nn.Parameter(torch.zeros(len(scales), dtype=torch.float64))
    optimizer, found = build([w]), []
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.softplus(-y * ((x * scales) @ w)).mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def kate_ignores_the_scale_of_features() -> None:
    one, many = torch.ones(4, dtype=torch.float64), torch.tensor([1.0, 100.0, 0.01, 7.0], dtype=torch.float64)
    plain, scaled = (_losses(lambda p: slalom.KATE(p, lr=0.1, eta=0.0, eps=0.0), s) for s in (one, many))
    assert all(close(a, b, 1e-9) for a, b in zip(plain, scaled, strict=True))
    plain, scaled = (_losses(lambda p: slalom.Adagrad(p, lr=0.1), s) for s in (one, many))
    assert not close(plain[-1], scaled[-1], 0.05)


def sgdw_divides_or_multiplies() -> None:
    def end(**settings: bool) -> float:
        w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = slalom.SGDW([w], lr=1.0, weight_decay=3.0, **settings)
        w.grad = torch.zeros(1, dtype=torch.float64)
        optimizer.step()
        return w.item()

    assert end() == -2.0
    assert end(proximal=True) == 0.25


def proximal_adamw_never_flips_a_sign() -> None:
    assert moves("adamw-proximal", [0.0], lr=1.0, weight_decay=3.0) == [0.75]
    assert moves("adamw", [0.0], lr=1.0, weight_decay=3.0) == [3.0]


def lean_amsgrad_creeps_to_the_largest_square() -> None:
    """g^2 is 1 once in a hundred steps: the average is 0.01, AMSGrad's maximum a few times that, this one nears 1."""
    generator = torch.Generator().manual_seed(0)
    rare = (torch.rand(20_000, generator=generator) < 0.01).double()
    average = highest = lean = 0.0
    for square in rare.tolist():
        average = 0.99 * average + 0.01 * square
        highest = max(highest, average)
        lean = max(0.99 * lean + 0.01 * square, lean)
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = slalom.LeanAMSGrad([w], betas=(0.9, 0.99))
    for square in rare.tolist():
        w.grad = torch.tensor([square], dtype=torch.float64)
        optimizer.step()
    assert close(optimizer.state[w]["second_moment.v"].item(), lean, 1e-9)
    assert lean > 0.8 > 8 * highest


CASES: dict[str, Case] = {
    "ftrl-proximal": Case(
        golden=(
            Golden({}, (0.2476107249, -0.0821456820, 0.5522528285, 0.2568393858, 0.8819260043, 0.5644562272)),
            Golden(
                {"l1": 3.0, "l2": 2.0},
                (0.0858701248, 0.0000000000, 0.3916261315, 0.0863283563, 0.6499564779, 0.4241769615),
            ),
            Golden(
                {"l1": 2.0, "l2": 0.5, "growth": "square"},
                (0.0222601917, 0.0000000000, 0.3523996054, 0.0375911185, 0.6551904515, 0.3906759948),
            ),
        ),
        oracles=(Oracle(from_pytorch_optimizer("FTRL", lr=0.1, beta=0.0), {"lr": 0.1, "beta": 0.0}),),
        property=ftrl_equals_the_production_formula,
    ),
    "group-ftrl": Case(
        golden=(
            Golden(
                {"group": 4.0}, (0.0473733997, -0.0095942852, 0.3972722536, 0.1724292410, 0.7037308109, 0.4829506855)
            ),
            Golden(
                {"beta": 0.5, "l1": 1.0, "l2": 0.5, "group": 2.0},
                (0.0249230250, 0.0000000000, 0.3779019929, 0.1464209899, 0.6569705908, 0.4717818010),
            ),
        ),
        property=group_ftrl_drops_whole_rows,
    ),
    "adagrad-rowwise": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1555363056, -0.0575157230, 0.5072619648, 0.3010281725, 0.8877390059, 0.6257215977)),
        ),
        property=rowwise_keeps_the_direction_of_a_rows_gradient,
    ),
    "online-rmsprop": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1900260811, 0.0588065784, 0.5190385447, 0.3276600111, 0.8530109857, 0.6049120730)),
        ),
        property=online_rmsprop_with_gamma_1_is_adagrad,
    ),
    "sc-adagrad": Case(
        golden=(
            Golden({"lr": 0.1}, (0.2031461901, 0.0223490248, 0.5531423328, 0.3213526308, 0.8397214737, 0.5545773830)),
        ),
        property=sc_adagrad_steps_shrink_as_one_over_t,
    ),
    "sc-rmsprop": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1935602254, 0.0313429930, 0.5468568574, 0.3336361526, 0.8341818134, 0.5603901140)),
        ),
        property=sc_rmsprop_with_gamma_1_is_sc_adagrad,
    ),
    "kate": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1548239371, 2.3190509708, 0.5108697784, 0.3794660765, 0.8230239596, 0.6099195234)),
        ),
        # at eps > 0 the package adds it up, step by step
        oracles=(Oracle(from_pytorch_optimizer("Kate", lr=1e-3, delta=0.9, eps=0.0), {"eps": 0.0}, 1e-10),),
        property=kate_ignores_the_scale_of_features,
    ),
    "sgdw": Case(
        golden=(
            Golden(
                {"lr": 0.05, "weight_decay": 0.1},
                (0.1301814968, -0.0032528853, 0.4721581678, 0.4161702880, 0.9707088005, 0.7419871034),
            ),
            Golden(
                {"lr": 0.05, "weight_decay": 0.1, "proximal": True},
                (0.1310122835, -0.0037255503, 0.4727846527, 0.4151136627, 0.9703652064, 0.7408036334),
            ),
        ),
        property=sgdw_divides_or_multiplies,
    ),
    "adamw-proximal": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.5},
                (0.0455873772, 0.1345008415, 0.3435106681, 0.3618030946, 0.6762493023, 0.5379537215),
            ),
        ),
        property=proximal_adamw_never_flips_a_sign,
    ),
    "amsgrad-lean": Case(
        golden=(
            Golden(
                {"lr": 0.1, "betas": (0.9, 0.9)},
                (0.0711139831, 0.1652783611, 0.4649938142, 0.4690951352, 0.8992396336, 0.7124755422),
            ),
        ),
        property=lean_amsgrad_creeps_to_the_largest_square,
    ),
}
