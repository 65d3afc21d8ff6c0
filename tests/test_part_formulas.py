"""Formulas of single parts, by hand: what planted faults (scripts/mutate.py) got past the methods' own entries."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from slalom import Recipe, parts
from slalom.parts.epsilon import Bare, Inside

P = parts
F64 = torch.float64


def run(recipe: Recipe, w: list[Any], *gradients: list[Any]) -> torch.Tensor:
    """Return a parameter after steps with these gradients."""
    parameter = torch.nn.Parameter(torch.tensor(w, dtype=F64))
    optimizer = recipe.build([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=F64)
        optimizer.step()
    return parameter.detach()


def close(found: torch.Tensor, expected: list[Any]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=F64), rtol=1e-9, atol=1e-12)


def test_epsilon_inside_the_root() -> None:
    found = run(Recipe(scale=P.SecondMoment(0.9, Inside(0.25)), step=1.0), [0.0, 0.0], [2.0, 0.0])
    close(found, [-2.0 / (4.0 + 0.25) ** 0.5, 0.0])


def test_no_epsilon_at_all_moves_by_the_sign_and_leaves_zeros() -> None:
    close(run(Recipe(scale=P.SecondMoment(0.9, Bare()), step=1.0), [0.0, 0.0, 0.0], [0.5, 0.0, -3.0]), [-1.0, 0.0, 1.0])


@pytest.mark.parametrize(("longest", "expected"), [(2.0, [-1.2, -1.6]), (10.0, [-3.0, -4.0])])
def test_clipping_by_the_norm_leaves_that_norm(longest: float, expected: list[float]) -> None:
    close(run(Recipe(gradient=P.ClipNorm(longest), step=1.0), [0.0, 0.0], [3.0, 4.0]), expected)


def test_rows_of_gradients_are_cut_to_the_size_of_their_weights() -> None:
    found = run(Recipe(gradient=P.SoftClip(), step=1.0), [[2.0, 2.0], [2.0, 2.0]], [[8.0, -8.0], [0.5, -0.5]])
    close(found, [[0.0, 4.0], [1.5, 2.5]])


def test_what_is_restarted_has_its_first_step_again() -> None:
    restarted = Recipe(momentum=P.Restarted(P.Ema(0.5), every=2), step=1.0)
    close(run(restarted, [0.0], [1.0], [4.0]), [-1.0 - 3.0])  # (0.5 * 0.5 + 0.5 * 4) / 0.75
    close(run(restarted, [0.0], [1.0], [4.0], [7.0]), [-4.0 - 7.0])


@pytest.mark.parametrize("a", [0.9, 2.0, 5.0, -3.0])
def test_the_half_power_s_point_is_the_lowest(a: float) -> None:
    strength, candidates = 1.0, torch.linspace(-6, 6, 1_200_001, dtype=F64)
    lowest = candidates[(0.5 * (candidates - a) ** 2 + strength * candidates.abs().sqrt()).argmin()]
    found = run(Recipe(regularize=P.HalfPower(strength), step=1.0), [a], [0.0])
    assert abs(found.item() - lowest.item()) < 2e-5


@pytest.mark.parametrize(("every", "start", "taken"), [(1, 0, [1, 2, 3, 4, 5]), (2, 0, [2, 4]), (1, 3, [4, 5])])
def test_averages_take_their_points_when_they_are_due(every: int, start: int, taken: list[int]) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=F64))
    optimizer = Recipe(step=1.0, average=P.SWA(start=start, every=every)).build([parameter])
    for number in range(1, 6):
        parameter.grad = -torch.tensor([float(number)], dtype=F64)
        optimizer.step()
    points = [number * (number + 1) / 2 for number in taken]
    with optimizer.averaged():
        close(parameter.detach(), [sum(points) / len(points)])


@pytest.mark.parametrize(
    ("within", "said"), [("lr", "0 or more"), ("beta", r"in \[0, 1\)")], ids=["no end", "with an end"]
)
def test_ranges_are_said_as_they_are(within: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        P.Ema(1.5) if within == "beta" else P.Decoupled(-1.0)


ONE_OF = {"matrix": [[0.6, -0.8], [0.3, 0.4]], "vector": [0.6, -0.8]}
PUSH = {"matrix": [[0.5, 0.1], [-0.2, 0.3]], "vector": [0.5, 0.1]}


@pytest.mark.parametrize(
    "parts_of",
    [
        {"gradient": P.Centralize()},
        {"gradient": P.LayerRate()},
        {"guard": P.Tangent(delta=10.0)},
        {"guard": P.SpectralCap(tau=1e-3)},
        {"regularize": P.GroupL2(0.5)},
        {"regularize": P.NormLoss(0.5)},
        {"regularize": P.Constrained(kappa=0.1)},
        {"geometry": P.Eigenbasis(Recipe(), beta=0.5, frequency=1)},
        {"geometry": P.Kronecker()},
    ],
    ids=lambda given: type(next(iter(given.values()))).__name__,
)
def test_vectors_are_left_alone_by_what_is_for_matrices(parts_of: dict[str, Any]) -> None:
    def moved(kind: str, **given: Any) -> torch.Tensor:
        return run(Recipe(**given, step=0.1), ONE_OF[kind], PUSH[kind], PUSH[kind], PUSH[kind])

    assert torch.equal(moved("vector", **parts_of), moved("vector"))
    assert not torch.allclose(moved("matrix", **parts_of), moved("matrix"), rtol=1e-3)


def test_a_vector_has_no_confidence_to_lose() -> None:
    for kind, same in (("vector", True), ("matrix", False)):
        one, other = (
            run(Recipe(momentum=momentum, step=0.1), ONE_OF[kind], PUSH[kind], PUSH[kind])
            for momentum in (P.Confidence(0.9), P.Ema(0.9, debias=False))
        )
        assert torch.allclose(one, other) is same
