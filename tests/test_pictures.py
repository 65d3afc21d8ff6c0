"""Pictures of several curves: who is who, in a terminal and as SVG."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from slalom.pictures import COLOURS, LETTERS, Axis, Curve, Picture, dots, legend, painted, svg

X = list(range(50))
TWO = Picture((Curve(X, X, "up"), Curve(X, X[::-1], "down"), Curve(X, [20] * 50, faint=True)), "steps", "height")
ONE = Picture((Curve(X, X, "alone"),), "steps", "height")


def test_several_curves_carry_letters_and_one_carries_none() -> None:
    assert legend(TWO) == [("A up", 0), ("B down", 1)]
    assert {letter for row in dots(TWO) for letter in row if letter in LETTERS} == {"A", "B"}
    assert legend(ONE) == []
    assert not any(letter in LETTERS for row in dots(ONE) for letter in row)


def test_pieces_are_the_drawing_and_name_the_curve() -> None:
    pieces = painted(TWO, 40, 8)
    assert ["".join(text for text, _ in row) for row in pieces] == dots(TWO, 40, 8)
    owners = {place: text for row in pieces for text, place in row if any(letter in "AB" for letter in text)}
    assert "A" in owners[0]
    assert "B" in owners[1]


def test_letters_of_curves_that_run_together_are_all_there() -> None:
    same = Picture(tuple(Curve(X, X, f"run {k}") for k in range(7)), "steps", "height")
    assert {letter for row in dots(same, 60) for letter in row if letter in LETTERS} == set("ABCDEFG")


def test_svg_gives_each_its_colour_and_a_legend_that_wraps() -> None:
    many = Picture(tuple(Curve(X, [k + x for x in X], f"a rather long name {k}") for k in range(9)), "steps", "height")
    text = svg(many, "nine")
    tree = ElementTree.fromstring(text)
    assert int(tree.get("height", "0")) > int(ElementTree.fromstring(svg(ONE, "one")).get("height", "0"))
    assert all(text.count(f'class="line c{k}"') == 2 for k in range(9))  # the curve and its key
    assert all(light in text and dark in text for light, dark in COLOURS)
    assert ".c0{" not in svg(ONE, "one")


def test_a_curve_that_hides_another_is_dashed() -> None:
    one, other = Curve(range(20), [1.0] * 20, "one"), Curve(range(20), [2.0] * 20, "other")
    apart = svg(Picture((one, other), "x", "y"), "apart")
    hidden = svg(Picture((one, replace(one, label="same"), other), "x", "y"), "hidden")
    assert 'c1 over"' not in apart
    assert 'c1 over"' in hidden
    assert hidden.count(' over"') == 1


def test_a_short_logarithmic_axis_has_round_ticks() -> None:
    assert Axis(0.19, 5.2, log=True).ticks(6) == pytest.approx([0.2, 0.5, 1, 2, 5])
    assert Axis(0.001, 10, log=True).ticks(9) == pytest.approx([0.001, 0.01, 0.1, 1, 10])
    assert Axis(2.1, 2.9, log=True).ticks(6) == pytest.approx([2.2, 2.4, 2.6, 2.8])
