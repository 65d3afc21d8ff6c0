"""Formulas as `explain` writes them: read from top to bottom, every letter is what it was last set to."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from slalom.describe import describe_method, formulas, symbolic
from slalom.describe.formulas import formula_lines
from slalom.errors import UsageError
from slalom.named import named_class
from slalom.recipes import ByRole, list_optimizers, method
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


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("AdaM^3", "adamomentum"),
        ("swd", "adams"),
        ("AdamW^2", "adamw2"),
        ("adam_atan2", "adam-atan2"),
        ("CautiousAdamW", "c-adamw"),
        ("mars", "mars-adamw or mars-lion or mars-shampoo"),
    ],
)
def test_other_names_lead_to_the_one_used_here(word: str, name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f'no optimizer "{word}": it is called {name} here.')):
        method(word)
    assert set(name.split(" or ")) <= set(list_optimizers(word))


@pytest.mark.parametrize(
    ("name", "other"),
    [("adams", "2505.16363"), ("sadam", "2605.29547"), ("apollo", "2009.13586"), ("adanorm", "layer")],
)
def test_methods_of_one_name_are_told_apart(name: str, other: str) -> None:
    entry = method(name)
    assert other in entry.others
    assert other in str(named_class(name).__doc__)
    assert f"  not         {entry.others[:20]}" in describe_method(entry)


def test_no_letter_stands_for_two_things_in_one_line() -> None:
    for name in list_optimizers():
        for line in told(name):
            left, _, right = line.partition(" ← ")
            assert left != right, f"{name}: {line}"


def test_what_depends_on_the_step_alone_is_said_once() -> None:
    lines = told("schedule-free-plus:anneal=100")
    assert sum(line.startswith("β = ") for line in lines) == 1
    assert sum(line.startswith("β₋₁ = ") for line in lines) == 1
    assert "f_z = loss + sum(g (β / β₋₁) (z − w))[model]" in lines


def test_under_an_average_the_step_has_a_letter_of_its_own() -> None:
    """What averages, and what mixes the old parameter in, needs both; the parameter itself is set last."""
    assert told("adamw-ema")[-3:] == ["βₙ = 0.999 (1 − 0.999^(t − 1)) / (1 − 0.999ᵗ)", "a ← w⁺ + βₙ (a − w⁺)", "w ← w⁺"]
    lines = told("schedule-free-adamw")
    assert lines.index("w⁺ = w − lr g / D") < lines.index("step = w⁺ − w")
    for name in list_optimizers():
        assert sum(line.startswith("w ← ") for line in told(name)) == 1, name


def test_every_method_can_be_read_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two lines each read what the other replaces: then neither could stand first."""
    ordered = formulas._in_reading_order

    def checked(said: list[formulas._Said]) -> Iterator[formulas.Line]:
        left = list(range(len(said)))
        while left:
            ready = [a for a in left if not any(formulas._goes_first(said, b, a) for b in left if a != b)]
            assert ready, [said[place].line.text for place in left]
            left.remove(ready[0])
        return ordered(said)

    monkeypatch.setattr(formulas, "_in_reading_order", checked)
    for name in list_optimizers():
        recipe = symbolic(*parse_spec(name))
        for one in recipe.recipes().values() if isinstance(recipe, ByRole) else [recipe]:
            formula_lines(one, 2)


def test_a_bound_that_is_infinite_is_not_told() -> None:
    assert "d ← max(d, d_hat)" in told("dadapt-adam")
    assert "d ← max(d, min(d_hat, 1.02 d))" in told("dadapt-adam:growth=1.02")


def test_a_negative_number_is_taken_away() -> None:
    assert any(line.startswith("f = g − 0.5 g1 − 0.125 g2 − 0.0625 g3") for line in told("adagl"))
