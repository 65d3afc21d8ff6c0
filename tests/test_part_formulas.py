"""Formulas of single parts, by hand: what planted faults (scripts/mutate.py) got past the methods' own entries."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from slalom import Recipe, parts
from slalom.parts.epsilon import Bare, Inside
from slalom.recipes.common import SCALE_FIRST
from test_native import compare

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


def test_what_does_not_move_decays_or_rests() -> None:
    for strict, moved in ((False, 0.5), (True, 1.0)):
        found = run(Recipe(regularize=P.CautiousDecay(0.5, strict), step=1.0), [1.0, 1.0, 1.0], [0.0, 0.25, -0.25])
        close(found, [moved, 0.25, 1.25])


def test_a_row_of_one_element_is_not_centred_away() -> None:
    close(run(Recipe(gradient=P.Centralize(), step=1.0), [[0.0], [0.0]], [[1.0], [2.0]]), [[-1.0], [-2.0]])


def test_vectors_have_layer_rates_if_asked() -> None:
    found = run(Recipe(gradient=P.LayerRate(0.5, 0.0, vectors=True), step=1.0), [3.0, 4.0], [0.0, 2.0])
    close(found, [3.0, 4.0 - 2.5])


def test_a_layer_rate_that_needs_the_rate_asks_for_it_first() -> None:
    with pytest.raises(ValueError, match="state an order with step before gradient"):
        run(Recipe(gradient=P.LayerRate(clip=True), step=1.0), [[3.0]], [[1.0]])


def test_rectified_steps_may_wait_and_need_a_decay_to_judge_by() -> None:
    waits = P.Rectified(P.SecondMoment(0.9), 4.0, "nothing")
    moved = [run(Recipe(scale=waits, step=1.0), [0.0], *[[1.0]] * steps).item() for steps in (4, 5)]
    assert moved[0] == 0.0  # rho is 4.03 at the fifth step
    assert moved[1] < 0.0
    with pytest.raises(ValueError, match=r"Rectified\(Factored\(...\)\): its memory has no single decay"):
        P.Rectified(P.Factored())


@pytest.mark.parametrize("scale", [P.Belief, P.TrendMoment])
def test_other_moments_have_their_maxima(scale: Any) -> None:
    spiked = [[0.1], [9.0], *[[0.1]] * 80]
    for kind, falls in (("none", True), ("post", False), ("pre", False), ("memoryless", False), ("two-step", True)):
        parameter = torch.nn.Parameter(torch.zeros(1, dtype=F64))
        optimizer = Recipe(momentum=P.Ema(0.5), scale=scale(0.5, 0.0, kind), step=1.0).build([parameter])
        steps = []
        for gradient in spiked:
            before, parameter.grad = parameter.item(), torch.tensor(gradient, dtype=F64)
            optimizer.step()
            steps.append(before - parameter.item())
        assert (steps[-1] > 0.5) is falls, kind


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
        {"geometry": P.Eigenbasis(Recipe(guard=P.Tangent(delta=10.0)), beta=0.5, frequency=1)},
        {"geometry": P.Kronecker()},
        {"geometry": P.InSubspace(Recipe(), P.Singular(1))},
        {"geometry": P.ScaledAsInSubspace(Recipe(), P.Singular(1), scale=4.0)},
    ],
    ids=lambda given: type(next(iter(given.values()))).__name__,
)
def test_vectors_are_left_alone_by_what_is_for_matrices(parts_of: dict[str, Any]) -> None:
    def moved(kind: str, **given: Any) -> torch.Tensor:
        return run(Recipe(**given, step=0.1), ONE_OF[kind], PUSH[kind], PUSH[kind], PUSH[kind])

    assert torch.equal(moved("vector", **parts_of), moved("vector"))
    assert not torch.allclose(moved("matrix", **parts_of), moved("matrix"), rtol=1e-3)


@pytest.mark.parametrize("weight_decay", [0.0, 10.0])
def test_memory_is_longest_at_the_first_step_whatever_decay_would_make_of_it(weight_decay: float) -> None:
    momentum = P.AdaptiveMetricMemory(most=0.5, lam=0.0, weight_decay=weight_decay)
    recipe = Recipe(momentum=momentum, scale=P.SecondMoment(0.9, Bare()), step=1.0, order=SCALE_FIRST)
    close(run(recipe, [3.0], [-2.0]), [4.0])


@pytest.mark.parametrize("step", [P.MoMo(1.0), P.MoMo(1.0, estimate=True), P.Polyak(1.0)], ids=str)
def test_a_loss_of_zero_without_a_gradient_is_the_end(step: Any) -> None:
    parameter = torch.nn.Parameter(torch.tensor([2.0], dtype=F64))
    optimizer = Recipe(step=step).build([parameter])
    for _ in range(3):
        parameter.grad = torch.zeros(1, dtype=F64)
        optimizer.step(lambda: 0.0)
    assert parameter.item() == 2.0


def test_a_vector_has_no_heads() -> None:
    for kind, blocks, same in (("vector", 2, True), ("matrix", 2, True), ("matrix", 1, False)):
        one, other = (
            run(Recipe(scale=P.BlockMoment(0.9, blocks=given), step=0.1), ONE_OF[kind], PUSH[kind], PUSH[kind])
            for given in (0, blocks)
        )
        assert torch.allclose(one, other) is same


def test_a_bound_is_looked_for_when_a_sample_is_due() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2, dtype=F64))
    regularize = P.Constrained(kappa_init="inflection", steps=2)
    optimizer = Recipe(regularize=regularize, step=0.1).build([parameter])
    seen, lengths = [], []
    for _ in range(5):
        lengths.append((parameter.detach() + 0.1).square().sum().item())  # where the step would lead
        parameter.grad = -torch.ones(2, 2, dtype=F64)
        optimizer.step()
        seen.append(float(optimizer.state[parameter]["constrained.last"]))
    assert seen == pytest.approx([0.0, lengths[1], lengths[1], lengths[3], lengths[3]])


@pytest.mark.parametrize("by_rate", [False, True])
def test_a_constraint_rests_while_the_rate_is_zero(by_rate: bool) -> None:
    parameter = torch.nn.Parameter(torch.full((2, 2), 3.0, dtype=F64))
    optimizer = Recipe(regularize=P.Constrained(kappa=0.1, by_rate=by_rate), step=0.0).build([parameter])
    for _ in range(3):
        parameter.grad = torch.ones(2, 2, dtype=F64)
        optimizer.step()
    assert torch.equal(parameter, torch.full((2, 2), 3.0, dtype=F64))
    assert float(optimizer.state[parameter]["constrained.multiplier"]) == 0.0


def test_without_a_penalty_a_row_of_zeros_is_one() -> None:
    point, nothing = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=F64), torch.tensor(0.0, dtype=F64)
    found = P.GroupL2(0.5).shrink(point, torch.tensor(2.0, dtype=F64), nothing)  # type: ignore[arg-type]
    assert torch.equal(found, point)  # type: ignore[arg-type]


def test_a_vector_has_no_confidence_to_lose() -> None:
    for kind, same in (("vector", True), ("matrix", False)):
        one, other = (
            run(Recipe(momentum=momentum, step=0.1), ONE_OF[kind], PUSH[kind], PUSH[kind])
            for momentum in (P.Confidence(0.9), P.Ema(0.9, debias=False))
        )
        assert torch.allclose(one, other) is same


@pytest.mark.parametrize(
    ("part", "field", "least"),
    [
        (P.Constrained, "steps", 1),
        (P.WeightEma, "every", 1),
        (P.WeightEma, "start", 0),
        (P.SWA, "every", 1),
        (P.SWA, "start", 0),
        (P.LAWA, "k", 1),
        (P.LAWA, "every", 1),
        (P.LAWA, "start", 0),
        (P.Lookahead, "k", 1),
        (P.ScheduleFree, "warm", 0),
        (P.ScheduleFree, "anneal", 0),
        (P.Mechanic, "count", 1),
        (P.Kronecker, "frequency", 1),
        (P.Kronecker, "start", 1),
        (P.Kronecker, "block", 0),
        (P.Kronecker, "root", 1),
        (P.FractionalMemory, "terms", 1),
        (P.BlockMoment, "blocks", 0),
        (P.Noise, "seed", 0),
        (P.CoupledNewton, "steps", 1),
    ],
)
def test_counts_have_their_least(part: Any, field: str, least: int) -> None:
    assert getattr(part(**{field: least}), field) == least
    with pytest.raises(ValueError, match=rf"{part.__name__}\(.*{field}={least - 1}"):
        part(**{field: least - 1})


# --- parts around parts -----------------------------------------------------------------------------------------


def test_turns_along_the_gradient_are_longer_and_momentum_begins_anew_in_its_own() -> None:
    turns = Recipe(momentum=P.Alternating(P.HeavyBall(0.5), plain=2, turns=2, boost=3.0), step=1.0)
    close(
        run(turns, [0.0], [1.0], [2.0], [4.0], [8.0], [16.0], [32.0], [64.0], [1.0]),
        [-(3.0 + 6.0 + 4.0 + 10.0 + 48.0 + 96.0 + 64.0 + 33.0)],
    )
    corrected = Recipe(momentum=P.Alternating(P.Ema(0.5), plain=1, turns=2), step=1.0)
    close(run(corrected, [0.0], [1.0], [2.0], [8.0]), [-(1.0 + 2.0 + (0.5 * 1.0 + 0.5 * 8.0) / 0.75)])


def test_what_is_delayed_has_its_first_step_later() -> None:
    delayed = Recipe(momentum=P.Delayed(P.Ema(0.5), steps=2), step=P.Hold(P.Fixed(1.0), steps=2))
    close(run(delayed, [0.0], [1.0], [2.0], [4.0], [8.0]), [-(4.0 + (0.5 * 2.0 + 0.5 * 8.0) / 0.75)])


@pytest.mark.parametrize(
    "wrapped",
    [
        P.Alternating(P.Arrested(0.0), plain=2, turns=1),
        P.Restarted(P.Arrested(0.0), every=2),
        P.Delayed(P.Arrested(0.0), steps=2),
    ],
    ids=lambda wrapped: type(wrapped).__name__,
)
def test_a_clock_of_one_s_own_is_not_handed_on(wrapped: Any) -> None:
    scale = P.SecondMoment(0.9, 0.1)  # whose correction counts the steps
    pushes = [[1.0], [2.0], [0.5], [3.0], [1.0]]
    found = run(Recipe(momentum=wrapped, scale=scale, step=1.0), [0.0], *pushes)
    close(found, run(Recipe(scale=scale, step=1.0), [0.0], *pushes).tolist())


@pytest.mark.parametrize(("steps", "expected"), [(1, -6.0), (2, -4.0)])
def test_who_is_held_stands_still_and_then_goes(steps: int, expected: float) -> None:
    close(run(Recipe(step=P.Hold(P.Fixed(1.0), steps)), [0.0], [1.0], [2.0], [4.0]), [expected])


def test_momentum_is_pulled_back_with_the_weights() -> None:
    pulled = Recipe(momentum=P.PulledBack(P.HeavyBall(0.5), every=2, alpha=0.25), step=1.0)
    # b: 1; 2.5, pulled to 2.5 / 4; 0.3125 + 4; 2.15625 + 8, pulled to 0.625 + (10.15625 - 0.625) / 4
    last = 0.5 * (0.625 + (10.15625 - 0.625) / 4) + 16.0
    close(run(pulled, [0.0], [1.0], [2.0], [4.0], [8.0], [16.0]), [-(1.0 + 2.5 + 4.3125 + 10.15625 + last)])


def test_a_sum_weighs_its_second() -> None:
    both = P.Sum(Recipe(momentum=P.HeavyBall(0.5)), Recipe(), weight=-0.25)
    close(run(Recipe(geometry=both, step=1.0), [0.0], [1.0], [2.0]), [-(1.0 - 0.25 + 2.5 - 0.5)])


def test_grafts_measure_by_blocks_begin_late_and_may_leave_vectors() -> None:
    def step(w: list[Any], g: list[Any], count: int = 1, **settings: Any) -> torch.Tensor:
        graft = P.Graft(Recipe(), Recipe(geometry=P.Sign()), **settings)
        return run(Recipe(geometry=graft, step=1.0), w, *[g] * count)

    square, g = [[0.0, 0.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 4.0]]
    close(step(square, g), [[-3 * 2**0.5 / 5, 0.0], [0.0, -4 * 2**0.5 / 5]])
    close(step(square, g, block=1), [[-1.0, 0.0], [0.0, -1.0]])
    close(step(square, g, 3, start=3), [[-2 - 3 * 2**0.5 / 5, 0.0], [0.0, -2 - 4 * 2**0.5 / 5]])
    close(step([0.0, 0.0], [3.0, 4.0], vectors=False), [-1.0, -1.0])
    close(step([0.0, 0.0], [3.0, 4.0]), [-3 * 2**0.5 / 5, -4 * 2**0.5 / 5])


# --- geometry ---------------------------------------------------------------------------------------------------

TALL, WIDE = [[3.0, 0.0], [0.0, -2.0], [0.0, 0.0]], [[3.0, 0.0, 0.0], [0.0, -2.0, 0.0]]


@pytest.mark.parametrize(
    ("scaling", "tall", "wide"),
    [
        ("original", 1.5**0.5, 1.0),
        ("rms", 0.2 * 3**0.5, 0.2 * 3**0.5),
        ("rms-to-rms", 1.5**0.5, (2 / 3) ** 0.5),
        ("none", 1.0, 1.0),
    ],
)
def test_polar_factors_are_scaled_to_the_shape(scaling: Any, tall: float, wide: float) -> None:
    recipe = Recipe(geometry=P.Spectral(scaling, P.ExactPolar()), step=1.0)
    close(run(recipe, torch.zeros(3, 2).tolist(), TALL), [[-tall, 0.0], [0.0, tall], [0.0, 0.0]])
    close(run(recipe, torch.zeros(2, 3).tolist(), WIDE), [[-wide, 0.0, 0.0], [0.0, wide, 0.0]])


@pytest.mark.parametrize(("scaling", "size"), [("rms-to-rms", 1.5**0.5), ("none", 1.0)])
def test_few_directions_are_scaled_alike(scaling: Any, size: float) -> None:
    found = run(Recipe(geometry=P.LowRankPolar(2, scaling=scaling), step=1.0), torch.zeros(3, 2).tolist(), TALL)
    torch.testing.assert_close(found.norm().item(), size * 2**0.5, rtol=1e-6, atol=0)  # two columns of that length


@pytest.mark.parametrize(("scaled", "expected"), [(False, [-1.2, -1.6]), (True, [-6.0, -8.0])])
def test_steepest_steps_have_the_radius_or_the_dual_norm(scaled: bool, expected: list[float]) -> None:
    recipe = Recipe(geometry=P.Steepest(P.Euclidean(), scaled, radius=2.0), step=1.0)
    close(run(recipe, [0.0, 0.0], [3.0, 4.0]), expected)


def test_lengths_of_rows_have_their_epsilon() -> None:
    recipe = Recipe(geometry=P.UnitLength("row", 5.0), step=1.0)
    close(run(recipe, [[0.0, 0.0]] * 2, [[3.0, 4.0], [0.0, 0.0]]), [[-0.3, -0.4], [0.0, 0.0]])


@pytest.mark.parametrize("columns", [1, 2])
def test_a_row_that_is_just_not_at_a_right_angle_is_left_alone(columns: int) -> None:
    w = [[3.0 * columns], [4.0]] if columns == 1 else [[1.0, 0.0], [1.0, 0.0]]
    g = [[1.0], [1.0]] if columns == 1 else [[1.0, 0.0], [1.0, 0.0]]
    delta = 1.0 if columns == 1 else 2.0**0.5  # the largest cosine is 1 exactly, times sqrt(columns)
    guarded, plain = (run(Recipe(guard=guard, step=0.1), w, g) for guard in (P.Tangent(delta), None))
    assert torch.equal(guarded, plain)


@pytest.mark.parametrize(
    ("w", "g", "moved"),
    [([[3.0, 4.0]], [[0.0, 0.0]], 1.0), ([[0.0, 0.0]], [[3.0, 4.0]], 1.0), ([[3.0, 4.0]], [[5.0, 0.0]], 0.1)],
    ids=["no gradient", "no weights", "both"],
)
def test_a_layer_s_rate_is_the_recipe_s_where_there_is_nothing_to_compare(w: Any, g: Any, moved: float) -> None:
    ratio = 0.15 * 5 / (5 + 0.5 * 5) if moved < 1 else 1.0
    assert ratio == pytest.approx(moved)
    found = run(Recipe(gradient=P.LayerRate(0.15, 0.5), step=1.0), w, g)
    w, g = torch.tensor(w, dtype=F64), torch.tensor(g, dtype=F64)
    torch.testing.assert_close(found, w - ratio * (g + 0.5 * w))


def test_few_directions_have_their_epsilon() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3, 2, dtype=F64))
    optimizer = Recipe(geometry=P.LowRankPolar(1), step=1.0).build([parameter])
    parameter.grad = 1e-8 * torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 0.0]], dtype=F64)  # 5e-8 long, one direction
    optimizer.step()
    (q,) = (value for key, value in optimizer.state[parameter].items() if key.endswith(".Q"))
    torch.testing.assert_close(q.norm().item(), 5 / (5 + 1), rtol=1e-9, atol=0)


def test_a_gradient_that_turns_to_its_very_opposite_has_not_grown() -> None:
    recipe = Recipe(step=P.SignRate(1.0))
    close(run(recipe, [0.0] * 3, [1.0, 1.0, 0.5], [-1.0, -1.0, 0.5]), [-1.0 + 1.2, -1.0 + 1.2, -0.5 - 0.6])
    close(run(recipe, [0.0, 0.0], [1.0, 1.0], [-3.0, 1.0]), [-1.0 + 0.6, -1.0 - 0.2])


@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
@pytest.mark.parametrize(("rank", "size"), [(2, 8.0), (9, 12.0)])
def test_a_recipe_inside_a_subspace_sees_its_size(shape: tuple[int, int], rank: int, size: float) -> None:
    inner = Recipe(geometry=P.Steepest(P.RootMeanSquare()))
    recipe = Recipe(geometry=P.InSubspace(inner, P.Singular(rank), scale=1.0), step=1.0)
    moved = run(recipe, torch.zeros(shape).tolist(), torch.randn(shape, dtype=F64).tolist())
    torch.testing.assert_close(moved.norm().item(), size**0.5, rtol=1e-9, atol=0)


# --- averages ---------------------------------------------------------------------------------------------------


def read(average: Any, *points: float) -> tuple[float, float]:
    """Return the average and the parameter of a run that passes these points, starting at 0."""
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=F64))
    optimizer = Recipe(step=1.0, average=average).build([parameter])
    for before, point in zip((0.0, *points), points, strict=False):
        parameter.grad = torch.tensor([before - point], dtype=F64)
        optimizer.step()
    last = parameter.item()
    with optimizer.averaged():
        return parameter.item(), last


def test_averages_of_points_are_what_they_say() -> None:
    a, b, c = 1.0, 3.0, -2.0
    beta = 0.8
    weights = [beta**2, beta, 1.0]
    debiased = sum(w * x for w, x in zip(weights, (a, b, c), strict=True)) / sum(weights)
    ramp = c + min(beta, 2 / 11) * ((b + min(beta, 1 / 10) * (a - b)) - c)
    plain = c + beta * ((b + beta * (a - b)) - c)
    polynomial = c + (1 - 3 / 5) * ((b + (1 - 3 / 4) * (a - b)) - c)
    for average, expected in (
        (P.WeightEma(beta), debiased),
        (P.WeightEma(beta, "ramp"), ramp),
        (P.WeightEma(beta, "plain"), plain),
        (P.WeightEma(0.05, "ramp"), c + 0.05 * ((b + 0.05 * (a - b)) - c)),
        (P.PolynomialAverage(2.0), polynomial),
        (P.SWA(), (a + b + c) / 3),
        (P.LAWA(k=2, every=1), (b + c) / 2),
        (P.LAWA(k=4, every=1), c),  # not enough yet
    ):
        assert read(average, a, b, c) == pytest.approx((expected, c), abs=1e-12), average


def test_lookahead_goes_back_every_few_steps() -> None:
    looking = Recipe(step=1.0, average=P.Lookahead(k=2, alpha=0.25))
    # 1, 3 -> 3 / 4; then 4 and 8 farther -> back to 3 / 4 + 12 / 4
    close(run(looking, [0.0], [-1.0], [-2.0], [-4.0], [-8.0], [-1.0]), [0.75 + 3.0 + 1.0])


def test_the_average_of_iterates_is_the_iterate() -> None:
    found = run(Recipe(step=1.0, average=P.PrimalAverage(0.75)), [0.0], [-1.0], [-2.0])
    close(found, [0.75 * 0.25 + 0.25 * 3.0])


@pytest.mark.parametrize(("power", "r"), [(0.0, 0.0), (2.0, 0.0), (0.0, 1.5), (2.0, 1.0)])
@pytest.mark.parametrize(("warm", "anneal"), [(0, 0), (2, 0), (0, 3), (2, 4)])
def test_schedule_free_is_two_sequences_and_what_lies_between(power: float, r: float, warm: int, anneal: int) -> None:
    def beta(t: int) -> float:
        progress = min(max(t - 1, 0) / anneal, 1.0) if anneal else 0.0
        return 1 - 0.3 ** (1 - progress) * 0.1**progress

    average = P.ScheduleFree(0.7, r, power, warm=warm, last_beta=0.9, anneal=anneal)
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=F64))
    optimizer = Recipe(step=0.5, average=average).build([parameter])
    x, z, weights, largest = 1.0, 1.0, 0.0, 0.0
    for t, (g, rate) in enumerate(zip((1.0, -2.0, 0.5, 3.0, -1.0), (0.5, 0.8, 0.4, 0.9, 0.2), strict=True), 1):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.tensor([g], dtype=F64)
        optimizer.step()
        largest = max(largest, rate)
        weight = t**r * largest**power
        weights += weight if t > warm else 0.0
        c = weight / weights if t > warm else 1.0
        z -= rate * g
        x = (1 - c) * x + c * z
        close(parameter.detach(), [(1 - beta(t)) * z + beta(t) * x])
        with optimizer.averaged():
            close(parameter.detach(), [x])


@pytest.mark.parametrize(("side", "longest"), [(4, 10.0), (12, 12.0)])
def test_roots_of_inverse_eigenvalues_are_limited_by_the_side(side: int, longest: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(side, side, dtype=F64))
    geometry = P.KLEigenbasis(Recipe(), beta=0.1, eps=0.0, frequency=1)
    optimizer = Recipe(geometry=geometry, step=1.0).build([parameter])
    g = 1e-9 * torch.randn(side, side, dtype=F64)
    for _ in range(6):  # eigenvalues fall to where they are held: 1 / longest^2 on both sides
        before, parameter.grad = parameter.detach().clone(), g.clone()
        optimizer.step()
    torch.testing.assert_close((parameter - before).norm() / g.norm(), torch.tensor(longest**2, dtype=F64))


@pytest.mark.parametrize(
    "given",
    [
        {"momentum": P.WholeSteps(P.Extrapolated()), "scale": P.SecondMoment(0.9)},
        {"momentum": P.WholeSteps(P.HeavyBall(0.9, nesterov=True)), "form": P.FTRL(), "regularize": P.L1(1e-3)},
        {"momentum": P.Ema(), "scale": P.Belief(0.9, 1e-4, "pre"), "guard": P.Cautious("mean", 0.3)},
        {"momentum": P.Ema(), "scale": P.Rectified(P.TrendMoment(0.9), 4.0, "nothing")},
        {"momentum": P.TwoSpeeds(0.0, warmup=3, alpha_warmup=2), "scale": P.Factored(most=0.9)},
        {"gradient": P.LayerRate(0.5, vectors=True), "regularize": P.TowardsStart(0.1), "form": P.Inertial()},
        {"momentum": P.Golden(), "average": P.Transport(0.8), "guard": P.ShapeRate()},
        {"momentum": P.Ema(), "scale": P.SecondMoment(0.9), "step": P.DoG(reps_rel=1e-2), "form": P.Inertial()},
        {"momentum": P.NesterovEma(momentum_decay=float("inf")), "guard": P.TrustRatio(0.1, 5.0, 2.0)},
        {"regularize": P.Constrained(0.5, measure="huber"), "gradient": P.Centralize()},
        {"regularize": P.Constrained(0.5, measure="deviation", by_rate=True)},
    ],
    ids=lambda given: ", ".join(map(str, given)),
)
def test_options_are_compiled_as_they_are_written(given: dict[str, Any]) -> None:
    recipe = Recipe(**{"step": 0.05, **given})
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    compare(recipe, [(3, 4), (5,), (2, 3, 2, 2), (1, 1)], steps=5, missing=True)
