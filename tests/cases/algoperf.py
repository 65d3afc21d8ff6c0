"""The entries to AlgoPerf v0.5 that precondition coordinate by coordinate; for the others see kronecker.py."""

from __future__ import annotations

import torch

import slalom
from cases.tools import Case, close, moves

GRADIENTS = (0.3, -0.5, 0.8, 0.1, -0.2)
POINT = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.0}


def generalized_adam_is_nadamw_or_nesterov() -> None:
    nadamw = moves("nadamw", GRADIENTS, **POINT)
    for name in ("algoperf-generalized-adam", "algoperf-nadamp", "algoperf-cyclic"):
        assert all(close(a, b, 1e-12) for a, b in zip(moves(name, GRADIENTS, **POINT), nadamw, strict=True)), name
    first = moves("algoperf-generalized-adam", GRADIENTS, **POINT, scale=False)[0]
    assert close(first, 0.01 * (0.9 * 0.1 + 0.1) * 0.3 / 0.1, 1e-12)
    trap = moves("algoperf-generalized-adam", GRADIENTS, **POINT, nesterov=False)[0]
    assert close(trap, 0.01 * 0.1, 1e-6)  # a tenth of Adam's first step: m is not corrected, v is


def another_root_depends_on_the_scale_of_gradients() -> None:
    for name in ("algoperf-generalized-adam", "algoperf-nadamp"):
        found = moves(name, [8.0], **POINT, power=1.5)[0]
        assert close(found, 0.01 * 1.9 * 8 / 8 ** (4 / 3), 1e-7)
    assert close(moves("algoperf-nadamp", [8.0], **POINT)[0], 0.01 * 1.9, 1e-7)


def defaults_are_the_baselines_point() -> None:
    w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = slalom.create("algoperf-cyclic", [w])
    w.grad = torch.ones_like(w)
    optimizer.step()
    moved = 0.0017486387539278373 * (1 + 0.93266073836 + 0.08121616522670176)
    assert close(1 - w.item(), moved, 1e-7)


def _snapshots(name: str, steps: int, **settings: float) -> tuple[list[float], float]:
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = slalom.create(name, [w], steps=1000, **settings)
    path = []
    for step in range(1, steps + 1):
        w.grad = torch.tensor([(-1.0) ** step + 0.3], dtype=torch.float64)
        optimizer.step()
        path.append(w.item())
    with optimizer.averaged():
        return path, w.item()


def the_queue_holds_ten_snapshots_from_two_percent_on() -> None:
    path, average = _snapshots("algoperf-lawa-queue", 37)
    assert average == path[-1]  # nine of ten: not yet full
    path, average = _snapshots("algoperf-lawa-queue", 39)
    assert close(average, sum(path[step - 1] for step in range(20, 40, 2)) / 10, 1e-12)


def the_average_as_submitted_is_the_latest_snapshot() -> None:
    path, average = _snapshots("algoperf-lawa-ema", 33)
    first, second, third = (path[step - 1] for step in (20, 25, 30))
    assert close(average, 0.2 * (0.2 * first + 0.8 * second) + 0.8 * third, 1e-12)
    assert close(_snapshots("algoperf-lawa-ema", 33, ema=0.0)[1], third, 1e-12)


CASES: dict[str, Case] = {
    "algoperf-generalized-adam": Case(property=generalized_adam_is_nadamw_or_nesterov),
    "algoperf-nadamp": Case(property=another_root_depends_on_the_scale_of_gradients),
    "algoperf-cyclic": Case(property=defaults_are_the_baselines_point),
    "algoperf-lawa-queue": Case(property=the_queue_holds_ten_snapshots_from_two_percent_on),
    "algoperf-lawa-ema": Case(property=the_average_as_submitted_is_the_latest_snapshot),
}
