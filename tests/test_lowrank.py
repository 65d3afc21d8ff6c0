"""Geometry in a few directions: random numbers that nothing keeps, thin states, and every executor alike."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import slalom
from networks import quietly
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.algebra.chance import drawn
from slalom.algebra.matrix import right_vectors, strongest
from test_native import drive, lists

THIN = ["galore", "apollo", "apollo-mini", "ldadam", "dion2"]
SHAPES = [(12, 40), (40, 12), (12, 40), (8, 3, 3, 3), (1, 7), (7, 1), (16,)]


def made(name: str, params: Any, **settings: Any) -> slalom.Optimizer:
    """An optimizer whose subspace is smaller than the matrices, and changes within a few steps."""
    if name != "dion2":
        settings = {"rank": 1 if name == "apollo-mini" else 3, **settings}
    if name in ("galore", "apollo", "apollo-mini"):
        settings = {"frequency": 3, **settings}
    optimizer: slalom.Optimizer = quietly(lambda: slalom.create(name, params, **settings))
    return optimizer


# --- random numbers ----------------------------------------------------------------------------------------


def test_random_directions_are_the_same_for_ever() -> None:
    numbers = drawn(torch.empty(3, 3, dtype=torch.float64), 2.0, 5, rank=2).flatten()
    # computed with Python's integers and math
    expected = [0.493030338, 0.2153647869, 1.2146196009, -0.3209130286, 1.8585499879, -0.3434049918]
    assert [round(x, 10) for x in numbers.tolist()] == expected


def test_random_directions_are_normal_and_independent() -> None:
    tall = torch.empty(2, 4000, dtype=torch.float64)
    draws = [drawn(tall, epoch, seed, rank=4) * 2 for epoch in (0, 1) for seed in (0, 1)]
    for draw in draws:
        assert abs(draw.mean()) < 4 / 16000**0.5
        assert abs(draw.var() - 1) < 4 * (2 / 16000) ** 0.5
        assert abs((draw**4).mean() - 3) < 4 * (96 / 16000) ** 0.5
    flat = torch.stack([draw.flatten() for draw in draws] + [draws[0].roll(1, 0).flatten()])
    correlations = torch.corrcoef(flat) - torch.eye(5, dtype=torch.float64)
    assert correlations.abs().max() < 4 / 16000**0.5


def test_random_directions_do_not_depend_on_precision_or_torchs_own_generator() -> None:
    torch.manual_seed(1)
    single = drawn(torch.empty(5, 6), 0, 0, rank=3)
    torch.manual_seed(2)
    double = drawn(torch.empty(5, 6, dtype=torch.float64), 0, 0, rank=3)
    assert torch.equal(single, double.float())


def test_another_seed_goes_another_way() -> None:
    ends = []
    for seed in (0, 0, 1):
        params = lists([(6, 9)], torch.float32)
        drive(made("apollo", params, seed=seed), 2)
        ends.append(params[0].detach().clone())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_singular_vectors_have_one_sign_and_stacks_are_like_their_members() -> None:
    stack = torch.randn(4, 6, 3, dtype=torch.float64)
    found = right_vectors(stack, rank=2)
    for one, vectors in zip(stack, found, strict=True):
        torch.testing.assert_close(right_vectors(-one, rank=2), vectors)
        torch.testing.assert_close(vectors.T @ vectors, torch.eye(2, dtype=torch.float64))
        assert (vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all()


def test_of_equal_columns_the_first_are_chosen() -> None:
    assert strongest(torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0]]), 0.4).tolist() == [[1, 2]]
    assert strongest(torch.zeros(1, 3), 1e-9).tolist() == [[0]]


# --- executors and resuming ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THIN)
def test_executors_agree_with_the_reference(name: str) -> None:
    exact = lists(SHAPES, torch.float64)
    drive(made(name, exact, executor="eager"), 7)
    for executor in ("eager", "foreach", "native"):
        ours = lists(SHAPES, torch.float32)
        drive(made(name, ours, executor=executor), 7)
        for p, q in zip(ours, exact, strict=True):
            torch.testing.assert_close(p.double(), q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", THIN)
@pytest.mark.parametrize("executor", ["eager", "foreach", "native"])
def test_a_resumed_run_ends_with_the_same_bits(name: str, executor: str) -> None:
    params = lists(SHAPES, torch.float32)
    optimizer = made(name, params, executor=executor)
    drive(optimizer, 2)
    saved = copy.deepcopy((optimizer.state_dict(), [p.detach() for p in params]))
    drive(optimizer, 5, seed=2)  # the subspace changes twice
    again = [torch.nn.Parameter(p.clone()) for p in saved[1]]
    resumed = made(name, again, executor=executor)
    resumed.load_state_dict(saved[0])
    drive(resumed, 5, seed=2)
    for p, q in zip(params, again, strict=True):
        assert torch.equal(p, q)


# --- combinations ----------------------------------------------------------------------------------------------


def _steps(recipe: Recipe, gradients: list[Tensor]) -> tuple[list[Tensor], slalom.Optimizer]:
    w = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = recipe.build([w])
    steps = []
    for gradient in gradients:
        before = w.detach().clone()
        w.grad = gradient
        optimizer.step()
        steps.append(before - w.detach())
    return steps, optimizer


def test_a_factored_scale_works_in_a_subspace() -> None:
    inner = Recipe(scale=P.Factored())
    recipe = Recipe(geometry=P.InSubspace(inner, P.Singular(3)), step=0.1)
    gradients = [torch.randn(5, 9, dtype=torch.float64) for _ in range(4)]
    steps, optimizer = _steps(recipe, gradients)
    (state,) = optimizer.state.values()
    assert {key: tuple(value.shape) for key, value in state.items() if value.ndim} == {
        "singular.P": (5, 3),
        "factored.r": (9,),
        "factored.c": (3,),
    }
    directions = state["singular.P"]
    shadows = [(gradient.T @ directions).contiguous() for gradient in gradients]
    expected, _ = _steps(Recipe(scale=P.Factored(), step=0.1 * 0.25), shadows)
    torch.testing.assert_close(steps[-1], directions @ expected[-1].T)


def test_at_full_rank_a_subspace_is_a_rotation() -> None:
    gradients = [torch.randn(6, 4, dtype=torch.float64) for _ in range(4)]
    momentum = Recipe(momentum=P.HeavyBall(0.9))
    turned = Recipe(geometry=P.InSubspace(momentum, P.Singular(9), scale=1.0), step=0.1)
    plain = Recipe(momentum=P.HeavyBall(0.9), step=0.1)
    for ours, theirs in zip(_steps(turned, gradients)[0], _steps(plain, gradients)[0], strict=True):
        torch.testing.assert_close(ours, theirs)  # momentum is linear and does not mind


def test_what_is_no_number_per_element_row_or_column_is_refused_in_a_subspace() -> None:
    recipe = Recipe(geometry=P.InSubspace(Recipe(geometry=P.Eigenbasis(Recipe(scale=P.SecondMoment())))), step=0.1)
    with pytest.raises(ValueError, match=r"eigenbasis\.Q_L is kept per left in a way that has no meaning"):
        _steps(recipe, [torch.ones(3, 4)])


@pytest.mark.parametrize(("part", "wrong"), [(P.Singular, {"rank": 0}), (P.Random, {"frequency": 0})])
def test_a_subspace_without_directions_is_refused(part: Any, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be a whole number of 1 or more"):
        part(**wrong)


def test_a_limited_step_grows_by_the_limit_and_leaves_zero_behind() -> None:
    recipe = Recipe(guard=P.GrowthLimit(1.5), step=1.0)
    one = torch.ones(2, 2, dtype=torch.float64)
    steps, _ = _steps(recipe, [one, 2 * one, one, 0 * one, 4 * one])
    assert [round(step[0, 0].item(), 6) for step in steps] == [1.0, 1.5, 1.0, 0.0, 4.0]


def test_all_columns_are_muon_with_error_feedback() -> None:
    (gradient,) = [torch.randn(4, 6, dtype=torch.float64)]
    iteration = P.ExactPolar()
    whole = Recipe(geometry=P.StrongestPolar(1.0, scaling="none", iteration=iteration), step=1.0)
    muon = Recipe(geometry=P.Spectral("none", iteration), step=1.0)
    torch.testing.assert_close(_steps(whole, [gradient])[0], _steps(muon, [gradient])[0])
