"""Methods that remember a few directions of a matrix, or move in them."""

from __future__ import annotations

import math
from typing import Any

import pytorch_optimizer
import torch
from torch import Tensor

import slalom
from cases.matrix import randoms
from cases.tools import Case
from networks import quietly
from slalom.algebra.chance import drawn


def path_of(name: str, gradients: list[Tensor], **settings: Any) -> tuple[list[Tensor], slalom.Optimizer]:
    """Every step (old minus new, over the rate) of a hidden matrix under these gradients, and the optimizer."""
    w = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    settings = {"weight_decay": 0.0, "lr": 0.01, **settings}
    optimizer = quietly(lambda: slalom.create(name, [{"params": [w], "role": "matrix"}], **settings))
    steps = []
    for gradient in gradients:
        before = w.detach().clone()
        w.grad = gradient
        optimizer.step()
        steps.append((before - w.detach()) / settings["lr"])
    return steps, optimizer


def same(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-10) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# --- GaLore ----------------------------------------------------------------------------------------------


def _galore(gradients: list[Tensor], rank: int, frequency: int, scale: float) -> list[Tensor]:
    """The authors' algorithm with the signs of singular vectors fixed, for wide and tall matrices each in its way."""
    steps = []
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        if (t - 1) % frequency == 0:
            left, _, right = torch.linalg.svd(g, full_matrices=False)
            p = right[:rank].T if g.shape[0] >= g.shape[1] else left[:, :rank]
            p = p * torch.stack([c[c.abs().argmax()].sign() for c in p.T])
        r = g @ p if g.shape[0] >= g.shape[1] else p.T @ g
        m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r * r
        q = m / (v.sqrt() + 1e-6) * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        steps.append(scale * (q @ p.T if g.shape[0] >= g.shape[1] else p @ q))
    return steps


def galore_is_adam_in_a_subspace() -> None:
    for shape in ((9, 5), (5, 9)):
        gradients = randoms(7, *shape)
        steps, optimizer = path_of("galore", gradients, rank=3, frequency=3)
        same(steps, _galore(gradients, 3, 3, 0.25))
        assert all(torch.linalg.matrix_rank(step, atol=1e-9) == 3 for step in steps)
        (state,) = optimizer.state.values()
        assert {key: tuple(value.shape) for key, value in state.items() if value.ndim} == {
            "singular.P": (5, 3),
            "ema.m": (9, 3),
            "second_moment.v": (9, 3),
        }
    # a second witness, as long as the subspace stays
    w = torch.nn.Parameter(torch.zeros(9, 5, dtype=torch.float64))
    other = pytorch_optimizer.GaLore(
        [{"params": [w], "rank": 3, "update_proj_gap": 1000, "scale": 0.25, "projection_type": "std"}], lr=0.01
    )
    gradients = randoms(7, 9, 5)
    for gradient in gradients:
        w.grad = gradient.clone()
        other.step()
    same([-0.01 * sum(path_of("galore", gradients, rank=3)[0])], [w.detach()], 1e-8)


# --- APOLLO ----------------------------------------------------------------------------------------------


def _apollo(gradients: list[Tensor], rank: int, frequency: int, scale: float, *, channels: bool) -> list[Tensor]:
    """The authors' algorithm (with their ``scale_front``) and our random numbers."""
    steps = []
    wide = gradients[0].shape[0] < gradients[0].shape[1]
    m = v = last = 0.0
    for t, given in enumerate(gradients, 1):
        g = given.T if wide else given
        p = drawn(g, (t - 1) // frequency, 0, rank=rank)
        r = g @ p
        m, v = 0.9 * m + 0.1 * r, 0.999 * v + 0.001 * r * r
        q = m / (v.sqrt() + 1e-6)
        axis = (1,) if channels else (0, 1)
        u = g * q.norm(dim=axis, keepdim=True) / (r.norm(dim=axis, keepdim=True) + 1e-8)
        u = u * math.sqrt(scale)
        if t > 1:
            u = u / (max(u.norm() / (last + 1e-8), 1.01) / 1.01)
        last = u.norm()
        u = u * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        steps.append(u.T if wide else u)
    return steps


def apollo_sizes_the_whole_gradient() -> None:
    for shape in ((9, 5), (5, 9)):
        gradients = [g * 1.3**t for t, g in enumerate(randoms(7, *shape))]  # the limiter has work
        steps, optimizer = path_of("apollo", gradients, rank=2, frequency=3)
        same(steps, _apollo(gradients, 2, 3, 1.0, channels=True))
        assert torch.linalg.matrix_rank(steps[-1]) == 5  # of full rank, though the subspace has two directions
        (state,) = optimizer.state.values()
        assert sum(value.numel() for value in state.values() if value.ndim) == 2 * 2 * 9  # and no projection is kept
    unlimited, _ = path_of("apollo", gradients, rank=2, frequency=3, growth=1e9)
    assert max(a.norm() / b.norm() for a, b in zip(unlimited, steps, strict=True)) > 1.2  # the limiter has worked


def apollo_mini_goes_where_the_gradient_goes() -> None:
    gradients = randoms(7, 9, 5)
    steps, optimizer = path_of("apollo-mini", gradients, frequency=3)
    same(steps, _apollo(gradients, 1, 3, 128.0, channels=False), 1e-9)
    for step, gradient in zip(steps, gradients, strict=True):
        same([step / step.norm()], [gradient / gradient.norm()], 1e-9)
    (state,) = optimizer.state.values()
    assert sum(value.numel() for value in state.values() if value.ndim) == 2 * 9


# --- LDAdam ----------------------------------------------------------------------------------------------


def _ldadam(gradients: list[Tensor], rank: int, rho: float = 0.908) -> list[Tensor]:
    """The paper's algorithm as it is written for wide matrices: the left side is projected."""
    b1, b2 = 0.908, 0.99
    steps = []
    e = torch.zeros_like(gradients[0])
    m = v = torch.zeros(rank, e.shape[1], dtype=e.dtype)
    for t, gradient in enumerate(gradients, 1):
        a = gradient + e
        if t == 1:
            old = torch.zeros(e.shape[0], rank, dtype=e.dtype)
            p = torch.linalg.svd(a, full_matrices=False)[0][:, :rank]
            mh, vh = m, v
        else:
            mh, vh = m / (1 - b1 ** (t - 1)), v / (1 - b2 ** (t - 1))
            b = rho * old @ mh + (1 - rho) * a
            p = torch.linalg.qr(b @ b.T @ old).Q
        r = p.T @ old
        g = p.T @ a
        carried = r @ m
        moved = (1 - b2 ** (t - 1)) * ((r * r) @ (vh - mh * mh) + (r @ mh) ** 2).abs()
        e = a - p @ g + b1 / (1 - b1) * (old @ m - p @ carried)
        m, v = b1 * carried + (1 - b1) * g, b2 * moved + (1 - b2) * g * g
        steps.append(p @ (m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + 1e-8)))
        old = p
    return steps


def ldadam_loses_nothing() -> None:
    gradients = randoms(7, 5, 9)
    theirs = _ldadam(gradients, 3)
    same(path_of("ldadam", gradients, rank=3)[0], theirs, 1e-8)
    turned, _ = path_of("ldadam", [g.T for g in gradients], rank=3)
    same([step.T for step in turned], theirs, 1e-8)
    # what was moved along, what is fed back and what momentum still holds make up every gradient that came
    w = torch.nn.Parameter(torch.zeros(5, 9, dtype=torch.float64))
    optimizer = slalom.LDAdam([{"params": [w], "role": "matrix"}], rank=3)
    moved = torch.zeros_like(w)
    for gradient in gradients:
        w.grad = gradient
        optimizer.step()
        momentum = (optimizer.state[w]["tracked_subspace.m"] @ optimizer.state[w]["tracked_subspace.P"].T).T
        moved += momentum
    fed_back = optimizer.state[w]["tracked_subspace.e"]
    assert fed_back.norm() > 1
    same([moved + fed_back + 0.908 / (1 - 0.908) * momentum], [sum(gradients)])
    _, full = path_of("ldadam", gradients, rank=5)
    (state,) = full.state.values()
    assert state["tracked_subspace.e"].abs().max() < 1e-12  # nothing is left over at full rank


# --- Dion2 -----------------------------------------------------------------------------------------------


def dion2_moves_what_has_grown_most() -> None:
    for shape in ((6, 9), (9, 6)):
        gradients = randoms(3, *shape)
        steps, optimizer = path_of("dion2", gradients)
        momentum = torch.zeros(shape, dtype=torch.float64)
        for gradient, step in zip(gradients, steps, strict=True):
            momentum += gradient
            seen, moved = (momentum, step) if shape[0] < shape[1] else (momentum.T, step.T)
            rows = seen.abs().sum(dim=1).topk(2).indices  # a quarter of six, rounded up
            assert sorted(rows.tolist()) == torch.nonzero(moved.norm(dim=1)).flatten().tolist()
            left, _, right = torch.linalg.svd(seen[rows], full_matrices=False)
            exact = math.sqrt(shape[0] / shape[1]) * left @ right
            assert (moved[rows] - exact).norm() < 0.15 * exact.norm()  # five iterations in bfloat16
            seen[rows] *= 0.95
        (state,) = optimizer.state.values()
        same([state["strongest_polar.M"]], [momentum], 1e-12)


# --- Conda -----------------------------------------------------------------------------------------------


def conda_is_adam_on_the_singular_directions_of_its_momentum() -> None:
    for shape in ((6, 4), (4, 6)):
        gradients = randoms(4, *shape)
        steps, _ = path_of("conda", gradients, frequency=2, eps=0.0)
        m, v = torch.zeros(shape, dtype=torch.float64), 0.0
        for t, (gradient, step) in enumerate(zip(gradients, steps, strict=True), 1):
            m = 0.9 * m + 0.1 * gradient
            if t % 2:
                left, _, right = torch.linalg.svd(m, full_matrices=False)
            turn = (lambda a, p=right.T: a @ p) if shape[0] > shape[1] else (lambda a, p=left.T: p @ a)
            back = (lambda a, p=right: a @ p) if shape[0] > shape[1] else (lambda a, p=left: p @ a)
            v = 0.999 * v + 0.001 * turn(gradient) ** 2
            expected = back(turn(m) / v.sqrt()) * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)  # type: ignore[no-untyped-call]
            same([step], [expected], 1e-9)
        theirs = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        other = pytorch_optimizer.Conda([theirs], lr=1e-2)
        steps, _ = path_of("conda", gradients)
        for gradient, step in zip(gradients, steps, strict=True):
            before, theirs.grad = theirs.detach().clone(), gradient.clone()
            other.step()
            same([step], [(before - theirs.detach()) / 1e-2], 1e-5)  # whose decompositions are in float32


CASES: dict[str, Case] = {
    "conda": Case(property=conda_is_adam_on_the_singular_directions_of_its_momentum),
    "galore": Case(property=galore_is_adam_in_a_subspace),
    "apollo": Case(property=apollo_sizes_the_whole_gradient),
    "apollo-mini": Case(property=apollo_mini_goes_where_the_gradient_goes),
    "ldadam": Case(property=ldadam_loses_nothing),
    "dion2": Case(property=dion2_moves_what_has_grown_most),
}
