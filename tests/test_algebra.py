"""One formula text is computed, traced and printed; the three must agree."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slalom import algebra as a
from slalom.algebra import ELEMENT, OPS, Expr, Hyper, latex, leaf, text
from slalom.engine.program import walk


def symbol(name: str, dims: tuple[str, str] = ELEMENT) -> Expr:
    return leaf("input", name, dims)


def formula(w: Any, g: Any, beta: Any) -> Any:
    """One of everything, as parts write it."""
    m = a.lerp(w, g, 1 - beta)
    r = a.where((a.norm(w) > 0) & (a.norm(m) > 0), a.norm(w) / a.norm(m), 1.0)
    d = a.sqrt(a.mean(g * g, "row")) + a.maximum(abs(w), 1e-3) + a.largest(abs(g), "column") + a.total(w) ** 2
    return r * a.atan2(m, d) - a.sign(w) * a.minimum(a.tanh(g), 0.5) / (1 + a.exp(-a.log(1 + abs(w)))) + w.T.T % 3


def evaluate(root: Expr, given_values: dict[str, Any]) -> Any:
    """The plainest possible interpreter, to compare with."""
    values: dict[int, Any] = {}
    for node in walk([root]):
        if "name" in node.attrs:
            values[id(node)] = given_values[node.attrs["name"]]
        else:
            args = [values[id(arg)] if isinstance(arg, Expr) else arg for arg in node.args]
            op = OPS[node.op]
            values[id(node)] = (op.numbers if node.host else op.tensors)(*args, **node.attrs)  # type: ignore[misc]
    return values[id(root)]


def test_the_graph_computes_what_the_text_computes() -> None:
    w, g = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    beta = Hyper("beta", 0.9)
    traced = formula(symbol("w"), symbol("g"), beta)
    torch.testing.assert_close(evaluate(traced, {"w": w, "g": g, "beta": 0.9}), formula(w, g, 0.9), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("build", "unicode", "tex"),
    [
        (lambda m, g, b: a.lerp(m, g, 1 - b), "0.9 m + 0.1 g", r"\beta\, m + \left(1 - \beta\right)\, g"),
        (lambda m, g, b: m / (1 - b ** leaf("input", "t", host=True)), "m / (1 − 0.9ᵗ)", r"\frac{m}{1 - \beta^{t}}"),
        (
            lambda m, g, b: -(m + g) * g - (m - g),
            "−(m + g) g − (m − g)",
            r"-\left(m + g\right)\, g - \left(m - g\right)",
        ),
        (lambda m, g, b: a.sqrt(m) / (g * g), "√m / g²", r"\frac{\sqrt{m}}{g^{2}}"),
        (lambda m, g, b: m / g / m, "m / g / m", r"\frac{\frac{m}{g}}{m}"),
        (lambda m, g, b: m / g * m, "(m / g) m", r"\frac{m}{g}\, m"),
        (lambda m, g, b: b * (m / g) * a.sqrt(m), "(0.9 m / g) √m", None),
        (lambda m, g, b: 0.5 * (m / g), "0.5 m / g", None),
        (lambda m, g, b: m * (b - 2), "-1.1 m", None),
        (lambda m, g, b: (m / g) * b * g, "(0.9 m / g) g", None),
        (lambda m, g, b: a.norm(m, "row") * a.total(g), "‖m‖[row] sum(g)", None),
        (lambda m, g, b: a.where(g > 0, m, 0.0), "m if g > 0 else 0", None),
        (lambda m, g, b: m @ g.T, "m gᵀ", r"m g^{\top}"),
        (lambda m, g, b: a.norm(m, "model"), "‖m‖[model]", None),
        (lambda m, g, b: a.total(m, "row") - (a.total(g) - 1) % 5, "sum(m)[row] − ((sum(g) − 1) mod 5)", None),
        (lambda m, g, b: (a.total(g) - 1) % 5 <= 0, "5 divides sum(g) − 1", None),
    ],
)
def test_printing(build: Any, unicode: str, tex: str | None) -> None:
    node = build(symbol("m"), symbol("g"), Hyper("beta", 0.9))
    assert text(node) == unicode
    if tex is not None:
        assert latex(node) == tex


def test_what_is_taken_off_and_added_again_is_no_arithmetic() -> None:
    m, g = symbol("m"), symbol("g")
    assert (m - g) + g is m
    assert text((m - g) + m) == "m − g + m"


def test_what_a_value_makes_neutral_is_left_out_where_values_are_shown() -> None:
    m, g = symbol("m"), symbol("g")
    none, one = Hyper("beta", 0.0), Hyper("alpha", 1.0)
    assert text(a.lerp(m, g, 1 - none)) == "g"
    assert text(a.lerp(m, g, 1 - one)) == "m"
    assert text(one * g / one + none) == "g"
    assert text(m**none * g**one) == "g"
    assert text(m - none * g) == "m"
    assert text(none - g) == "0 − g"
    assert text(none * g + none) == "0"
    assert text(a.minimum(m, Hyper("growth", math.inf) * g)) == "m"
    assert text(a.minimum(m, Hyper("growth", 2.0) * g)) == "min(m, 2 g)"
    assert text(one * g + none, values=False) == "α g + β"


def test_shapes_and_scopes_are_worked_out() -> None:
    g = symbol("g")
    assert a.mean(g, "row").dims == ("m", "1")
    assert a.mean(g, "column").dims == ("1", "n")
    assert (a.mean(g, "row") * a.mean(g, "column")).dims == ELEMENT
    assert (g @ g.T).dims == ("m", "m")
    assert a.total(g, "model").scope == "model"
    assert (a.total(g, "model") + a.total(g)).scope == "tensor"
    assert (1 - Hyper("beta", 0.9)).host
    assert not a.total(g).host
    with pytest.raises(ValueError, match="cannot be multiplied"):
        g @ g
    with pytest.raises(ValueError, match="do not fit"):
        g @ g.T + g


def test_a_formula_cannot_branch_on_values() -> None:
    with pytest.raises(TypeError, match="where"):
        bool(symbol("g") > 0)
    with pytest.raises(TypeError, match="Python number"):
        float(symbol("g"))


def test_a_hyper_parameter_remembers_what_it_was_asked() -> None:
    asked: dict[tuple[str, int | None], bool] = {}
    assert not Hyper("momentum", 0.0, asked=asked)
    assert Hyper("betas", 0.9, index=1, asked=asked)
    assert asked == {("momentum", None): False, ("betas", 1): True}


def test_neutral_operations_leave_no_node() -> None:
    g = symbol("g")
    assert g * 1.0 is g
    assert g + 0.0 is g
    assert g / 1.0 is g
    assert g**1 is g
    assert 1.0 * g is g
    assert g**0 == 1.0
    assert (g * 0.0) is not g  # nan * 0 is nan: this one computes something


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(numbers, numbers)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "atan2", "lt", "ge"])
def test_host_numbers_follow_the_rules_of_tensors(name: str, x: float, y: float) -> None:
    host = OPS[name].numbers(x, y)  # type: ignore[misc]
    device = OPS[name].tensors(torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)).item()
    assert host == device or (math.isnan(host) and math.isnan(device))


@given(numbers)
@pytest.mark.parametrize("name", ["sqrt", "log", "sign", "abs", "neg", "tanh"])
def test_host_functions_follow_the_rules_of_tensors(name: str, x: float) -> None:
    host = OPS[name].numbers(x)  # type: ignore[misc]
    device = OPS[name].tensors(torch.tensor(x, dtype=torch.float64)).item()
    assert host == pytest.approx(device, rel=1e-14, abs=0, nan_ok=True)


def test_a_choice_between_plain_numbers_keeps_their_digits() -> None:
    chosen: Any = a.where(torch.tensor(True), 0.1, 0.7)  # type: ignore[arg-type]
    assert chosen.item() == 0.1
    assert (chosen * torch.ones(2)).dtype == torch.float32
