"""Formulas as `explain` writes them: read from top to bottom, every letter is what it was last set to."""

from __future__ import annotations

import pytest

from slalom.describe import symbolic
from slalom.describe.formulas import formula_lines
from slalom.recipes import ByRole, method
from slalom.recipes.spec import parse_spec


def told(name: str) -> list[str]:
    entry, settings = parse_spec(name)
    recipe = symbolic(entry, settings)
    return [line.text for line in formula_lines(recipe.rest if isinstance(recipe, ByRole) else recipe, 2)]


@pytest.mark.parametrize(
    ("name", "reads", "replaces"),
    [
        ("diffgrad", "u ← u / (1 + exp(−|previous − g|))", "previous ← g"),
        ("mars-adamw", "c = g + 0.475 (g − previous)", "previous ← g"),
        ("adan", "d = g − previous if t > 1 else 0", "previous ← g"),
        ("pnm", "m = 0.81 older + 0.19 g", "older ← newest"),
        ("pnm", "u = (2 m − newest) / 2.236067977", "newest ← m"),
        ("soap", "u = Q_L q Q_Rᵀ", "Q_L ← Q_L⁺"),
        ("prodigy", "rate = lr d", "d ← max(d, d_max)"),
        ("amos", "c = 1 / √(1 + 0.25 √lr b)", "b ← b + c lr lr q (1 + b)"),
        ("amsgrad:variant=two-step", "v′ = v", "v ← 0.999 v + 0.001 g²"),
    ],
)
def test_what_is_replaced_is_read_before(name: str, reads: str, replaces: str) -> None:
    lines = told(name)
    assert lines.index(reads) < lines.index(replaces)


@pytest.mark.parametrize(
    ("name", "sets", "reads"),
    [
        ("adam", "m ← 0.9 m + 0.1 g", "u = m / (1 − 0.9ᵗ)"),
        ("amsgrad", "v ← 0.999 v + 0.001 g²", "v_max ← max(v_max, v)"),
        ("pnm", "m = 0.81 older + 0.19 g", "newest ← m"),
        ("prodigy", "d ← max(d, d_max)", "D = √v + 1e-08 d"),  # the new one, unlike the rate
    ],
)
def test_what_is_set_is_read_after(name: str, sets: str, reads: str) -> None:
    lines = told(name)
    assert lines.index(sets) < lines.index(reads)


def test_two_values_of_one_letter_are_never_in_one_formula() -> None:
    """The maximum of an average and of what it was: one of them is written out or has another letter."""
    metric = told("amsgrad:variant=two-step")[-2]
    assert metric.startswith("D = √(max(v, v′ / (1 − 0.999^(t − 1)) if t > 1 else 0)")


@pytest.mark.parametrize(
    ("word", "given"),
    [
        ("amsgrad:variant=two-step", {"variant": "two-step"}),
        ("amsgrad:variant=memoryless-corrected,lr=0.1", {"variant": "memoryless-corrected", "lr": 0.1}),
        ("c-adamw:normalize=none", {"normalize": "none"}),
        ("adan:no_prox=true", {"no_prox": True}),
    ],
)
def test_words_may_have_hyphens_and_be_none(word: str, given: dict[str, object]) -> None:
    entry, settings = parse_spec(word)
    assert settings == given
    assert entry is method(word.partition(":")[0])
    entry.recipe(**settings)
