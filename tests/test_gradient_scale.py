"""Gradients a thousand times larger: which methods do not notice, which step a thousand times further."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import build, go
from slalom import list_optimizers
from slalom.recipes import method

FACTOR = 1024.0  # a power of two, so that scaling costs no bit


def path(name: str, factor: float) -> Tensor:
    """Where a few steps lead, without decay and with epsilons too small to be seen."""
    known = method(name).defaults
    small: dict[str, Any] = {key: 1e-40 for key in ("eps", "adam_eps") if isinstance(known.get(key), float)}
    small |= {key: 0.0 for key in ("weight_decay",) if key in known}
    generator = torch.Generator().manual_seed(4)
    start = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((4, 4), (4,))]
    parameters = [nn.Parameter(p.clone()) for p in start]
    try:
        optimizer = build(name, parameters, **small)
    except ValueError:
        optimizer = build(name, parameters, **{key: value for key, value in small.items() if "eps" not in key})
    for _ in range(8):
        for p in parameters:
            p.grad = factor * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        go(optimizer, factor)
    return torch.cat([(p.detach() - q).flatten() for p, q in zip(parameters, start, strict=True)])


def kind(name: str) -> str:
    plain, large = path(name, 1.0), path(name, FACTOR)
    for what, factor in (("invariant", 1.0), ("proportional", FACTOR)):
        if torch.allclose(large, factor * plain, rtol=1e-6, atol=1e-12):
            return what
    return "neither"


# Steps that are sums of gradients.
PROPORTIONAL = ["aggmo", "am-msgd", "lookahead", "pnm", "schedule-free-sgd", "sgd", "sgds", "sgdw", "swa"]
# They compare gradients with a constant (a friction, a floor of factors, a softplus, squares that begin at 1), take
# another power of them, or treat vectors as SGD does.
NEITHER = [
    "adagl",
    "adamg",
    "adalo",
    "am-adamw",
    "diffgrad",
    "diffgradnorm",
    "distributed-shampoo",
    "ftrl-proximal",
    "group-ftrl",
    "kate",
    "kl-shampoo",
    "lars",
    "radam",
    "rmsprop-tf",
    "sadam",
    "sc-adagrad",
    "sc-rmsprop",
    "shampoo",
]


@pytest.mark.parametrize("name", list_optimizers())
def test_a_method_answers_to_the_size_of_gradients_as_it_is_said_to(name: str) -> None:
    said = "proportional" if name in PROPORTIONAL else "neither" if name in NEITHER else "invariant"
    assert kind(name) == said
