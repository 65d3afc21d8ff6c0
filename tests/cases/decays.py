"""Methods whose one idea is the pull towards small weights."""

from __future__ import annotations

from typing import Any

import torch

import slalom
from cases.tools import Case, Golden, Oracle, close, from_pytorch_optimizer, moves


def stable_decay_keeps_its_share_of_the_step() -> None:
    # gradients ten times as large: Adam's step stays, this decay is a tenth; AdamW's would stay
    for name, ratio in (("adams", 0.1), ("adamw", 1.0)):
        decays = [
            moves(name, [scale], lr=0.01, weight_decay=0.1)[0] - moves(name, [scale], lr=0.01, weight_decay=0.0)[0]
            for scale in (0.1, 1.0)
        ]
        assert close(decays[1] / decays[0], ratio, 1e-4)
    # one number for the whole model, by elements: 6 of square 4, 2 of square 0
    pair = [torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in ((2, 3), (2,))]
    optimizer = slalom.AdamS(pair, lr=0.1, weight_decay=0.01)
    for p, value in zip(pair, (2.0, 0.0), strict=True):
        p.grad = torch.full_like(p, value)
    optimizer.step()
    assert close(1.0 - pair[1][0].item(), 0.1 * 0.01 / (6 * 4 / 8) ** 0.5)


def sgds_decay_grows_with_momentum() -> None:
    assert close(moves("sgds", [0.0], lr=0.1, momentum=0.9, weight_decay=0.01)[0], 0.1 * 0.01 / 0.1)
    assert close(moves("sgds", [0.0], lr=0.1, momentum=0.0, weight_decay=0.01)[0], 0.1 * 0.01)


def _lengths(gradients: list[float], **settings: Any) -> list[float]:
    """Squared lengths of a matrix of ones after each step."""
    w = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    optimizer = slalom.AdamCPR([w], lr=0.1, **settings)
    lengths = []
    for value in gradients:
        w.grad = torch.full((2, 2), value, dtype=torch.float64)
        optimizer.step()
        lengths.append(w.detach().square().sum().item())
    return lengths


def cpr_decays_only_beyond_its_bound() -> None:
    plain = _lengths([-1.0] * 8, kappa=1e9, kappa_init="uniform")
    assert close(plain[0], 4 * 1.1**2)
    bound = _lengths([-1.0] * 8, kappa=6.0, kappa_init="uniform")
    assert all(close(a, b, 1e-12) for a, b in zip(bound[:2], plain[:2], strict=True))  # 4.84, 5.76: below 6
    assert bound[2] < plain[2]
    twice = _lengths([-1.0] * 8, kappa=1.5, kappa_init="dependent")  # 1.5 times 4
    assert all(close(a, b, 1e-12) for a, b in zip(twice, bound, strict=True))
    warm = _lengths([-1.0] * 8, kappa_init="warm_start", steps=4)
    assert all(close(a, b, 1e-12) for a, b in zip(warm[:4], plain[:4], strict=True))
    assert warm[4] < plain[4]
    # growth is longest at once and then ever shorter, as the rate of gradients fades: it bends at the third sample
    fading = [-(0.5**t) for t in range(40)]
    free, bends = _lengths(fading, kappa=1e9, kappa_init="uniform"), _lengths(fading, kappa_init="inflection", steps=5)
    assert all(close(a, b, 1e-12) for a, b in zip(free[:15], bends[:15], strict=True))
    assert bends[-1] < free[-1]


def adamp_only_turns_weights_that_have_no_length() -> None:
    torch.manual_seed(0)
    for name in ("adamp", "nadamp"):
        w = torch.nn.Parameter(torch.randn(5, 40, dtype=torch.float64))
        optimizer = slalom.create(name, [w], lr=0.01, weight_decay=0.0)
        for _ in range(5):
            before = w.detach().clone()
            raw = torch.randn(5, 40, dtype=torch.float64)
            # at right angles to the weights, row by row, as the gradients in front of a normalisation are
            w.grad = raw - before * (raw * before).sum(1, keepdim=True) / before.square().sum(1, keepdim=True)
            optimizer.step()
            along = ((w.detach() - before) * before).sum(1) / before.norm(dim=1)
            assert along.abs().max() < 1e-9
    settings = {"lr": 0.01, "weight_decay": 0.1}
    assert close(moves("adamp", [0.3], **settings)[0], moves("adamw", [0.3], **settings)[0], 1e-12)
    turned = torch.nn.Parameter(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    optimizer = slalom.AdamP([turned], lr=0.01, weight_decay=0.5)
    turned.grad = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    optimizer.step()
    assert close(turned[0, 0].item(), 1 - 0.01 * 0.5 * 0.1)  # a tenth of the decay


# The other side adds its eps before the bias correction, the authors after it: it is made too small to tell. What is
# left is rounding, 5e-14 after one step, which projections carry on.
_PROJECTED: dict[str, float] = {"weight_decay": 0.1, "eps": 1e-18}

CASES: dict[str, Case] = {
    "adams": Case(
        # both leave eps out of the mean over the model, 1e-8 of a decay of 0.01
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.0641625598, 0.1629692690, 0.4364649204, 0.4491316852, 0.8503419894, 0.6744103492),
                6e-10,
            ),
        ),
        oracles=(
            Oracle(
                from_pytorch_optimizer("AdamS", lr=1e-3, weight_decay=0.01), {"lr": 1e-3, "weight_decay": 0.01}, 1e-10
            ),
            Oracle(
                from_pytorch_optimizer("AdamS", lr=1e-3, weight_decay=0.01, ams_bound=True),
                {"lr": 1e-3, "weight_decay": 0.01, "amsgrad": True},
                1e-10,
            ),
        ),
        property=stable_decay_keeps_its_share_of_the_step,
    ),
    "sgds": Case(property=sgds_decay_grows_with_momentum),
    "adamcpr": Case(
        golden=(
            Golden(
                {"lr": 0.1, "kappa": 0.5, "kappa_init": "uniform"},
                (-0.0112864556, 0.0537064955, 0.0704387750, 0.1109579896, 0.1675837224, 0.1451013007),
            ),
        ),
        property=cpr_decays_only_beyond_its_bound,
    ),
    "adamp": Case(
        oracles=(
            Oracle(from_pytorch_optimizer("AdamP", lr=1e-3, **_PROJECTED), {"lr": 1e-3, **_PROJECTED}),
            Oracle(
                from_pytorch_optimizer("AdamP", lr=1e-3, delta=1.0, **_PROJECTED),
                {"lr": 1e-3, "delta": 1.0, **_PROJECTED},
                1e-11,
            ),
        ),
        property=adamp_only_turns_weights_that_have_no_length,
    ),
    "nadamp": Case(
        oracles=(
            Oracle(
                from_pytorch_optimizer("AdamP", lr=1e-3, nesterov=True, delta=0.5, **_PROJECTED),
                {"lr": 1e-3, "delta": 0.5, **_PROJECTED},
                1e-11,
            ),
        ),
        property=adamp_only_turns_weights_that_have_no_length,
    ),
}
