"""The memory-light parts among others: drawn at random, compiled, compared with eager float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import quietly
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.engine.storage import matrix_shape
from slalom.recipes import ORDER
from slalom.recipes.common import CLIPPED_FIRST
from test_native import compare, drive, lists
from test_recipes import DECAYS, EPSILONS, GRADIENTS

MOMENTA = st.sampled_from(
    [None, P.Ema(0.9), P.FoldedEma(), P.WholeSteps(P.Ema(0.9, debias=False)), P.Confidence(beta_residual=0.9)]
)
SCALES = st.one_of(
    st.sampled_from([P.FactoredEma(0.9), P.Factored(), P.Factored(eps=1e-3, floor="estimate"), P.SecondMoment(0.9)]),
    EPSILONS.map(lambda eps: P.Cover(eps=eps)),
    EPSILONS.map(lambda eps: P.Cover("I", eps)),
    EPSILONS.map(lambda eps: P.BlockMoment(0.9, eps)),
    EPSILONS.map(lambda eps: P.BlockMoment(0.9, eps, "tensor")),
    EPSILONS.map(lambda eps: P.BlockMoment(0.9, eps, blocks=2)),
    EPSILONS.map(lambda eps: P.FoldedMoment(eps=eps)),
    EPSILONS.map(lambda eps: P.ModelOriented(0.9, eps)),
    EPSILONS.map(lambda eps: P.ModelOriented(0.9, eps, "tensor")),
)
GUARDS = st.sampled_from([None, P.ClipUpdate(0.5), P.TrustRatio(), P.RelativeSize(), P.Friction()])
STEPS = st.sampled_from([1e-2, P.Relative(), P.Relative(warmup=1e-3), P.Relative(by_size=False, by_time=False)])
ORDERS = st.sampled_from([ORDER, CLIPPED_FIRST])
FOLDED = (P.FoldedEma, P.FoldedMoment)


def _views(*parts: Any) -> set[str]:
    """Whose rows these parts speak of."""
    views = {"square" for part in parts if isinstance(part, FOLDED)}
    rows = (P.FactoredEma, P.Factored, P.Cover, P.Confidence, P.BlockMoment, P.ModelOriented, P.Centralize)
    rows += (P.AdaptiveClip, P.NormLoss)
    return views | {"matrix" for part in parts if isinstance(part, rows) and getattr(part, "per", "row") == "row"}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(GRADIENTS, MOMENTA, SCALES, GUARDS, DECAYS, STEPS, ORDERS, st.booleans())
def test_random_recipes_equal_eager_float64(
    gradient: Any, momentum: Any, scale: Any, guard: Any, decay: Any, step: Any, order: Any, missing: bool
) -> None:
    recipe = Recipe(
        gradient=gradient, momentum=momentum, scale=scale, guard=guard, regularize=decay, step=step, order=order,
    )  # fmt: skip
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    if len(_views(gradient, momentum, scale, decay)) < 2 and not isinstance(scale, P.ModelOriented):
        compare(recipe, [(3, 4), (5,), (2, 3, 2, 2)], steps=4, missing=missing)
        return
    # two views of one tensor run in torch; Amos reads the number of columns, which only its own view has
    params, exact = lists([(3, 4), (5,)], torch.float32), lists([(3, 4), (5,)], torch.float64)
    ours, reference = recipe.build(params), recipe.build(exact)
    drive(ours, 4, missing=missing)
    drive(reference, 4, missing=missing)
    for p, q in zip(params, exact, strict=True):
        torch.testing.assert_close(p.double(), q, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("shape", [(700, 1300), (33, 2100), (3, 5000)])
def test_strips_and_groups_of_rows_meet_at_their_borders(shape: tuple[int, int]) -> None:
    """Columns come in strips of 1024 and rows in groups of 16: every border must be crossed without a trace."""
    for recipe in (
        Recipe(scale=P.Factored(), guard=P.ClipUpdate(0.5), step=0.1),
        Recipe(scale=P.Cover(), step=0.1),
        Recipe(momentum=P.FoldedEma(), scale=P.FoldedMoment(), step=0.1),
        Recipe(scale=P.BlockMoment(0.9, blocks=5), step=0.1),
    ):
        compare(recipe, [shape], steps=3)


def test_sinkhorn_is_compiled() -> None:
    compare(Recipe(geometry=P.Sinkhorn(), step=0.1), [(3, 4), (2, 3, 2, 2), (130, 300)], steps=3)


def test_parts_that_need_matrices_say_so() -> None:
    w = torch.nn.Parameter(torch.zeros(3))
    w.grad = torch.ones(3)
    with pytest.raises(ValueError, match=r"Sinkhorn\(\) needs matrices, but this parameter has 1 dimensions"):
        quietly(lambda: Recipe(geometry=P.Sinkhorn(), step=0.1).build([w])).step()
    with pytest.raises(ValueError, match="blocks must be 0 or more and are of rows"):
        P.BlockMoment(per="tensor", blocks=2)


def test_a_kernel_is_a_matrix_of_its_output_channels() -> None:
    assert matrix_shape(torch.empty(256, 128, 3, 3)) == (256, 1152)
    assert matrix_shape(torch.empty(256, 128, 3, 3), "square") == (576, 512)


def test_a_value_is_never_read_back_from_its_sign() -> None:
    """The clip's pass needs M after the pass that measured it: it must come from the old factors, not from one bit."""
    compare(Recipe(momentum=P.FoldedEma(), guard=P.ClipUpdate(0.01), step=0.1), [(3, 4), (40, 25)], steps=4)
