"""Preconditioners that are Kronecker products."""

from __future__ import annotations

import torch

import slalom
from cases.matrix import randoms, step_of
from cases.tools import Case, Golden, Oracle, from_pytorch_optimizer


def soap_turns_with_the_problem() -> None:
    generator = torch.Generator().manual_seed(3)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))
    gradients = [torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(6)]
    ends = []
    for turn in (torch.eye(4, dtype=torch.float64), rotation):
        w = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
        optimizer = slalom.SOAP([w], lr=0.1, frequency=100)
        for grad in gradients:
            w.grad = turn @ grad
            optimizer.step()
        ends.append(turn.T @ w.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)


def shampoo_begins_with_the_polar_factor() -> None:
    (gradient,) = randoms(1, 5, 5)
    left, _, right = torch.linalg.svd(gradient)
    torch.testing.assert_close(step_of("shampoo", [gradient], eps=1e-14), left @ right, rtol=0, atol=1e-4)


def grafting_takes_adams_length() -> None:
    gradients = randoms(3, 5, 7)
    ours = step_of("distributed-shampoo", gradients, frequency=1)
    adam = step_of("adamw", gradients, betas=(0.9, 0.995))
    torch.testing.assert_close(ours.norm(), adam.norm(), rtol=1e-9, atol=0)
    assert (ours - adam).norm() > 0.1 * adam.norm()


def caspr_adds_where_shampoo_multiplies() -> None:
    gradients = randoms(3, 5, 7)
    left = right = mean = 0
    for g in gradients:
        left, right = 0.995 * left + 0.005 * g @ g.T, 0.995 * right + 0.005 * g.T @ g
        mean = 0.9 * mean + 0.1 * g
    a, b = (_root(factor / (1 - 0.995**3), 1e-8) for factor in (left, right))
    direction = a @ a @ mean + 2 * a @ mean @ b + mean @ b @ b
    ours = step_of("caspr", gradients, frequency=1)
    torch.testing.assert_close(ours / ours.norm(), direction / direction.norm(), rtol=0, atol=1e-7)


def _root(factor: torch.Tensor, eps: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(factor)
    return vectors @ torch.diag((values - values.min().clamp(max=0) + eps) ** -0.25) @ vectors.T


CASES: dict[str, Case] = {
    "soap": Case(
        golden=(
            # the vector's QR ran in float32
            Golden(
                {"lr": 0.1, "weight_decay": 0.0, "frequency": 2},
                (0.3095149397, -0.1889179581, 0.6274939494, 0.5675732298, 1.1531985056, 0.3638463023),
                1e-6,
            ),
        ),
        oracles=(
            # no refresh within the run: the float32 QR of the other side is left out
            Oracle(
                from_pytorch_optimizer(
                    "SOAP", lr=1e-2, betas=(0.95, 0.9), weight_decay=0.0, precondition_frequency=1000
                ),
                {"lr": 1e-2, "betas": (0.95, 0.9), "weight_decay": 0.0, "frequency": 1000},
                1e-9,
                kernels=False,
            ),
        ),
        property=soap_turns_with_the_problem,
    ),
    "shampoo": Case(property=shampoo_begins_with_the_polar_factor),
    "distributed-shampoo": Case(property=grafting_takes_adams_length),
    "caspr": Case(property=caspr_adds_where_shampoo_multiplies),
}
