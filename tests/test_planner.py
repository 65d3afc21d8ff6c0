"""What a plan must be, whatever the method: everything once, nothing twice, and as few bytes as by hand.

That plans compute the right thing is tested by running them; a plan that does too much computes it too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import slalom
from networks import build
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.algebra import ELEMENT, MATRIX, REDUCTIONS, SCALAR, Expr, State, mean, norm, total
from slalom.engine.fused import planned
from slalom.engine.matrices import counts_on_host, phased
from slalom.engine.native.batch import NativeBatch
from slalom.engine.native.wiring import wire
from slalom.engine.phases import Phases, cut, needs_phases
from slalom.engine.plan import UnplannableError, array_name, is_small, on_host, plan
from slalom.engine.program import Program, trace, walk
from test_native import compare, drive, lists

NAMES = slalom.list_optimizers()


@functools.cache
def program(name: str) -> Program:
    """What a matrix of a model runs."""
    w = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = build(name, [w])
    return optimizer.program(optimizer.param_groups[0], w)


def of_recipe(**parts: Any) -> Program:
    """What a matrix runs under a recipe of one's own."""
    w = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = Recipe(**{"step": 0.1, **parts}).build([w])
    return optimizer.program(optimizer.param_groups[0], w)


W, G = (Expr("input", attrs={"name": name}, dims=ELEMENT) for name in ("w", "g"))


def stays(writes: Callable[[Expr], dict[str, Any]]) -> tuple[Expr, dict[str, Any], dict[str, State], dict[Any, bool]]:
    """A program that writes states and leaves the parameter alone."""
    written = writes(G)
    slots = {
        key: State(per="element" if value.dims == ELEMENT else "tensor", name=key) for key, value in written.items()
    }
    return W, written, slots, {}


FUSED = [name for name in NAMES if slalom.recipes.method(name).family != "matrix" and not needs_phases(program(name))]
PHASED = [name for name in NAMES if needs_phases(program(name))]


# --- passes -----------------------------------------------------------------------------------------------------


def elements(stage: Any) -> list[Expr]:
    """What a pass is for: what it stores and what it reduces."""
    wanted = [*stage.stores.values(), *(node.args[0] for node in stage.reductions)]
    return [node for node in wanted if isinstance(node, Expr)]


def read(stage: Any) -> tuple[set[str], list[Expr]]:
    """Which arrays a pass needs for that, and what it computes."""
    arrays, values, seen = set(), [], set()

    def need(node: Any) -> None:
        if not isinstance(node, Expr) or node.dims != ELEMENT or id(node) in seen:
            return
        seen.add(id(node))
        if id(node) in stage.reread:
            arrays.add(stage.reread[id(node)])
        elif not node.args:
            arrays.add(array_name(node))
        else:
            for arg in node.args:
                need(arg)
            values.append(node)

    for node in elements(stage):
        need(node)
    return arrays - {"position"}, values


@pytest.mark.parametrize("name", FUSED)
def test_every_pass_reads_what_it_needs_and_everything_is_written_once(name: str) -> None:
    found = planned(program(name))
    stored = [array for stage in found.stages for array in stage.stores]
    assert sorted(stored) == sorted({"w", *(k for k, s in found.states.items() if s.per == "element")} & {*stored})
    assert {key for key, slot in program(name).states.items() if slot.per == "element"} & {*program(name).writes} == {
        *stored
    } - {"w"}
    overwritten: set[str] = set()
    for stage in found.stages:
        arrays, values = read(stage)
        assert stage.stores or stage.reductions
        assert sorted(stage.loads) == sorted(arrays)
        assert {id(value) for value in stage.values} == {id(value) for value in values}
        assert len(stage.values) == len(values)
        assert (arrays & overwritten) <= set(stage.reread.values())
        overwritten |= set(stage.stores)


@pytest.mark.parametrize("name", FUSED)
def test_every_small_value_is_computed_once_and_after_what_it_needs(name: str) -> None:
    found = planned(program(name))
    assert len(found.small) == len(found.host) == len(found.stages) + 1
    known = set()
    for index, (small, host) in enumerate(zip(found.small, found.host, strict=True)):
        for node in [*host, *small]:
            assert id(node) not in known
            assert all(not isinstance(a, Expr) or id(a) in known or not a.args for a in node.args), (index, node.op)
            known.add(id(node))
        assert all(is_small(node) for node in small)
        assert all(on_host(node) for node in host)
        if index < len(found.stages):
            reductions = found.stages[index].reductions
            assert not known & {id(node) for node in reductions}
            known |= {id(node) for node in reductions}
    uses = [*found.writes.values(), *(node for stage in found.stages for node in stage.values)]
    needed = {id(node) for node in walk(uses) if node.args and node.dims != ELEMENT}
    assert needed <= known


@pytest.mark.parametrize("name", FUSED)
def test_no_element_is_divided_by_a_number_that_the_host_knows(name: str) -> None:
    for stage in planned(program(name)).stages:
        assert not any(value.op == "div" and on_host(value.args[1]) for value in stage.values)


# Bytes per element and passes, by hand; what is written is w and what the method keeps.
COSTS: dict[str, tuple[int, int]] = {
    "lars": (28, 2),  # w g for two norms; w g b, and w b written
    "lamb": (40, 2),  # w g m v, and m v; then w m v, and w
    "c-adamw": (36, 2),  # g m v, and m v, for the share of the mask; then w g m v, and w
    "stable-adamw": (36, 2),  # the same, for the size of the update
    "c-lion": (28, 2),  # g m for the mask; w g m, and w m
    "adanorm": (32, 2),  # g for its norm; w g m v, and w m v
    "adafactor": (24, 3),  # w g; g for the size of the update; w g, and w
    "adam-mini": (24, 2),  # g; w g m, and w m
    "adagrad-rowwise": (16, 2),  # g; w g, and w
    "sps": (16, 2),  # the same
    "sm3": (12, 1),  # w g, and w: its maxima come out of the same pass
}


@pytest.mark.parametrize("name", COSTS)
def test_bytes_and_passes_are_those_by_hand(name: str) -> None:
    found = planned(program(name))
    assert (found.moved, len(found.stages)) == COSTS[name]


def test_without_sums_a_method_is_one_pass_over_what_it_has() -> None:
    count = 0
    for name in FUSED:
        if not any(node.op in REDUCTIONS for node in program(name).nodes):
            found = planned(program(name))
            arrays = 1 + sum(slot.per == "element" for slot in found.states.values())
            assert (found.moved, len(found.stages)) == (4 * (2 * arrays + 1), 1), name
            count += 1
    assert count > 40


def test_one_bit_counts_as_one_bit() -> None:
    found = planned(program("smmf"))
    assert {key for key in found.states if found.holds_signs(key)} == {"folded_ema.sign"}
    assert not found.holds_signs("w")
    assert found.moved == 12 + 2 / 8


@pytest.mark.parametrize(
    ("name", "expected"),
    [("adamw", False), ("lamb", False), ("dog", False), ("adafactor", True), ("sm3", True), ("adam-mini", True),
     ("smmf", True), ("adamp", True)],
)  # fmt: skip
def test_rows_matter_where_there_are_any(name: str, expected: bool) -> None:
    assert planned(program(name)).two_dimensional is expected
    assert program(name).needs_matrix_view is expected


FOLDED = P.FoldedMoment()


@pytest.mark.parametrize("other", [{}, {"guard": P.TrustRatio()}, {"regularize": P.Constrained()}], ids=str)
def test_a_folded_state_is_planned_with_what_is_per_tensor(other: dict[str, Any]) -> None:
    assert plan(of_recipe(scale=FOLDED, **other)).view == "square"


class Counting(P.Guard, name="test_counting"):
    """Asks how many rows there are."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        return x.replace(direction=x.direction * x.rows)


@pytest.mark.parametrize(
    "other",
    [{"regularize": P.NormLoss()}, {"gradient": P.Centralize()}, {"scale": P.Factored()}, {"guard": Counting()}],
    ids=str,
)
def test_rows_of_two_views_are_not_planned(other: dict[str, Any]) -> None:
    momentum = P.FoldedEma()
    with pytest.raises(UnplannableError, match="rows and columns of two views"):
        plan(of_recipe(momentum=momentum, **other))


def test_signs_in_one_view_and_rows_of_another_are_not_planned() -> None:
    folded = of_recipe(momentum=P.FoldedEma())
    for more in ({"a": State(format="sign")}, {"a": State(format="sign"), "b": State()}):
        with pytest.raises(UnplannableError, match="rows and columns of two views"):
            plan(Program(folded.result, folded.writes, {**folded.states, **more}, folded.asked))


def test_a_parameter_that_stays_is_not_stored() -> None:
    (left,) = plan(Program(*stays(lambda g: {"a": 2 * g}))).stages
    assert set(left.loads) == {"g"}
    assert set(left.stores) == {"a"}


def test_what_does_nothing_is_one_pass_over_nothing() -> None:
    (only,) = plan(Program(*stays(lambda g: {}))).stages
    assert not only.loads
    assert not only.stores


def test_a_sum_of_what_needs_a_sum_is_taken_though_nothing_is_stored_for_it() -> None:
    found = plan(Program(*stays(lambda g: {"a": 2 * g, "b": total(abs(g - mean(g)))})))
    assert [len(stage.reductions) for stage in found.stages] == [1, 1]
    assert len(found.small) == 3


def test_rows_matter_where_one_number_of_each_is_only_read() -> None:
    row = Expr("state", attrs={"name": "r", "key": "r"}, dims=State(per="row").dims)
    states = {"a": State(name="a"), "r": State(per="row", name="r")}
    w, _, _, asked = stays(lambda g: {})
    for value, expected in ((2 * G, False), (row * G, True)):
        assert plan(Program(w, {"a": value}, states, asked)).two_dimensional is expected


# --- what a program asks for ------------------------------------------------------------------------------------


def test_only_who_needs_it_is_given_the_loss_the_clock_or_places() -> None:
    assert {name for name in NAMES if program(name).needs_loss} == {
        "adalo", "alig", "momo", "momo-adam", "schedule-free-plus", "sps",
    }  # fmt: skip
    assert {name for name in NAMES if program(name).needs_clock} == {"momo", "momo-adam", "prodigy", "swats"}
    assert not any(program(name).needs_positions for name in NAMES)
    assert of_recipe(gradient=P.Noise(0.1)).needs_positions


@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor", "dog", "soap"])
def test_sizes_are_asked_where_a_mean_or_a_formula_has_them(name: str) -> None:
    nodes = program(name).nodes
    named = {node.attrs["name"] for node in nodes if node.op == "input"}
    assert program(name).needs_sizes == bool(named & {"rows", "columns", "size"})


def test_a_trace_remembers_what_it_was_asked() -> None:
    asked = {("lr", None): True}
    assert trace(lambda given, store: given.w - given.grad, asked).asked == asked
    assert trace(lambda given, store: given.w - given.grad).asked == {}


# --- phases -----------------------------------------------------------------------------------------------------


@functools.cache
def phases(name: str) -> Phases:
    return cut(program(name))


@pytest.mark.parametrize("name", PHASED)
def test_phases_take_turns_and_each_does_something(name: str) -> None:
    kinds = [phase.kind for phase in phases(name).phases]
    assert "matrix" in kinds
    assert all(a != b for a, b in itertools.pairwise(kinds))
    assert kinds[-1] == "fused"  # which writes the parameter
    for phase in phases(name).phases:
        assert phase.program.writes or phase is phases(name).phases[-1]


@pytest.mark.parametrize("name", PHASED)
def test_no_product_is_formed_twice_and_none_in_a_fused_phase(name: str) -> None:
    products = {op for op in MATRIX if op != "transpose"}
    formed = [
        node
        for phase in phases(name).phases
        for node in phase.program.nodes
        if node.op in products or (node.op in REDUCTIONS and phase.kind == "matrix")
    ]
    whole = [node for node in program(name).nodes if node.op in products]
    assert sum(node.op in products for node in formed) == len(whole)
    assert not any(
        node.op in MATRIX for phase in phases(name).phases if phase.kind == "fused" for node in phase.program.nodes
    )


@pytest.mark.parametrize("name", PHASED)
def test_scratch_is_written_once_and_lives_until_it_is_last_read(name: str) -> None:
    found = phases(name)
    written = [key for phase in found.phases for key in phase.program.writes]
    assert len(written) == len(set(written))
    assert set(written) == set(program(name).writes) | set(found.scratch)
    for key, (born, died) in found.lives.items():
        readers = [
            index
            for index, phase in enumerate(found.phases)
            if any(node.op == "state" and node.attrs["key"] == key for node in phase.program.nodes)
        ]
        assert key in found.phases[born].program.writes
        assert readers
        assert min(readers) > born
        assert max(readers) == died
    assert set(found.lives) == set(found.scratch)


@pytest.mark.parametrize("name", PHASED)
def test_nothing_is_kept_twice(name: str) -> None:
    for phase in phases(name).phases:
        values = [(id(value), value.dims) for value in phase.program.writes.values() if isinstance(value, Expr)]
        assert len(values) == len(set(values))  # a scratch beside the state that holds the same
        for key in phases(name).scratch.keys() & phase.program.writes.keys():
            value = phase.program.writes[key]
            assert isinstance(value, Expr)
            assert value.op != "state", key  # what a state holds can be read there


@pytest.mark.parametrize("name", PHASED)
def test_a_phase_declares_the_states_that_it_touches(name: str) -> None:
    for phase in phases(name).phases:
        touched = {node.attrs["key"] for node in phase.program.nodes if node.op == "state"}
        assert set(phase.program.states) == touched | set(phase.program.writes)


def test_products_wait_for_the_step_count_only_where_it_decides_them() -> None:
    assert {name for name in PHASED if counts_on_host(program(name))} == {
        "algoperf-caspr", "algoperf-shampoo", "apollo", "apollo-mini", "caspr", "conda", "distributed-shampoo",
        "galore", "kl-shampoo", "kl-soap", "ldadam", "soap", "splus",
    }  # fmt: skip
    assert not counts_on_host(program("adamw"))


class UsedTwice(P.Guard, name="test_used_twice"):
    """One product that two matrix phases need, with a pass between them."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        gram = x.grad @ x.grad.T
        return x.replace(direction=gram @ abs(gram @ x.direction))


class OfBoth(P.Guard, name="test_of_both"):
    """A number made of what the products leave and of what a pass makes of them."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        u = (x.grad @ x.grad.T) @ x.direction
        return x.replace(direction=u * (norm(x.grad @ x.grad.T) / norm(abs(u) + x.w)))


def test_a_product_that_two_phases_need_is_formed_once() -> None:
    found = cut(of_recipe(guard=UsedTwice()))
    assert [phase.kind for phase in found.phases] == ["matrix", "fused", "matrix", "fused"]
    products = [node.op for phase in found.phases for node in phase.program.nodes if node.op == "matmul"]
    assert len(products) == 3
    compare(Recipe(guard=UsedTwice(), step=0.01), [(4, 3), (4, 3), (3, 5)])


def test_a_number_made_of_both_kinds_costs_no_other_phase() -> None:
    found = cut(of_recipe(guard=OfBoth()))
    assert [phase.kind for phase in found.phases] == ["matrix", "fused"]
    compare(Recipe(guard=OfBoth(), step=0.01), [(4, 3), (4, 3), (3, 5)])


class WithTrend(P.Guard, name="test_with_trend"):
    """Needs the average again after the products."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        return x.replace(direction=(x.grad @ x.grad.T) @ x.direction + 0.1 * x.trend)


def test_what_was_stored_is_read_back_and_not_made_again() -> None:
    recipe = Recipe(momentum=P.Ema(), guard=WithTrend(), step=0.01)
    found = cut(of_recipe(momentum=P.Ema(), guard=WithTrend()))
    assert [phase.kind for phase in found.phases] == ["fused", "matrix", "fused"]
    assert set(found.phases[0].program.writes) >= {"ema.m"}
    read_last = {array_name(node) for node in found.phases[2].program.nodes if node.op in ("input", "state")}
    assert "ema.m" in read_last
    assert "g" not in read_last
    compare(recipe, [(4, 3), (4, 3), (3, 5)])


class CheapTwice(P.Guard, name="test_cheap_twice"):
    """An element-wise value whose sum the products need, and which is needed itself after them."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        cheap = abs(x.grad) + x.w
        return x.replace(direction=((x.grad @ x.grad.T) / norm(cheap)) @ x.direction + cheap)


def test_what_is_cheap_is_computed_again_and_not_kept() -> None:
    found = cut(of_recipe(guard=CheapTwice()))
    assert [phase.kind for phase in found.phases] == ["fused", "matrix", "fused"]
    assert sorted(slot.per for slot in found.scratch.values()) == ["element", "tensor"]  # the product, the length
    compare(Recipe(guard=CheapTwice(), step=0.01), [(4, 3), (4, 3), (3, 5)])


def test_numbers_that_no_product_made_are_not_handed_over() -> None:
    polar = P.Spectral(iteration=P.NewtonSchulz(dtype="float32"))
    recipe = {"momentum": P.NesterovEma(), "geometry": polar}
    found = cut(of_recipe(**recipe))  # whose product of coefficients is a state, one number per tensor
    assert [phase.kind for phase in found.phases] == ["fused", "matrix", "fused"]
    assert "tensor" not in {slot.per for key, slot in found.scratch.items() if found.lives[key][0] == 1}


@pytest.mark.parametrize("folded", [{"scale": P.FoldedMoment()}, {"momentum": P.FoldedEma()}], ids=str)
def test_signs_and_square_views_between_products_are_left_to_torch(folded: dict[str, Any]) -> None:
    with pytest.raises(UnplannableError, match="signs or square views stand between products"):
        phased(of_recipe(guard=CheapTwice(), **folded))


def test_one_state_of_signs_is_enough_to_look_at_rows() -> None:
    plain = of_recipe()  # gradient descent, without any state
    assert not plain.needs_matrix_view
    for states, expected in (
        ({"a": State()}, False),
        ({"a": State(format="sign")}, True),
        ({"a": State(), "b": State(format="sign")}, True),
    ):
        program = Program(plain.result, {}, states, plain.asked)
        assert program.needs_matrix_view is expected


# --- tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUSED)
def test_tables_hold_what_kernels_read_and_nothing_else(name: str) -> None:
    wiring = wire(program(name))
    found, layout = wiring.plan, wiring.layout
    assert layout.arrays == ("w", "g", *(key for key, slot in found.states.items() if slot.scope == "tensor"))
    assert layout.width == len(layout.arrays) + 4 + len(layout.vectors)
    kept = [*found.all_small(), *(node for stage in found.stages for node in stage.reductions)]
    assert len(layout.scalars) == sum(node.dims == SCALAR for node in kept)
    assert len(layout.vectors) == sum(node.dims != SCALAR for node in kept)
    assert sorted(layout.host.values()) == list(range(len(layout.host)))
    assert sorted(layout.scalars.values()) == list(range(len(layout.scalars)))
    assert [place for place, _ in layout.vectors.values()] == list(range(len(layout.vectors)))
    used: set[int] = set()
    for node in [*found.all_small(), *(node for stage in found.stages for node in (*stage.values, *stage.reductions))]:
        used |= {id(arg) for arg in node.args if isinstance(arg, Expr) and on_host(arg)}
    ends = [value for stage in found.stages for value in stage.stores.values()]
    used |= {id(value) for value in [*ends, *found.writes.values()] if isinstance(value, Expr) and on_host(value)}
    crossed = [node for node in walk([*found.writes.values(), found.result]) if "label" in node.attrs]
    used |= {id(arg) for node in crossed for arg in node.args if isinstance(arg, Expr) and on_host(arg)}
    assert set(layout.host) == used
    assert sorted(wiring.out) == sorted(set(wiring.out))
    assert len(wiring.out) == len(layout.host)
    assert set(wiring.shared) == {key for key, slot in found.states.items() if slot.scope != "tensor"} & {
        node.attrs["key"] for node in program(name).nodes if node.op == "state"
    }
    assert wiring.needs_sizes is any(key in wiring.inputs for key in ("rows", "columns", "size"))
    writes_small = any(found.states[key].scope == "tensor" for key in found.writes)
    assert wiring.busy == (*(bool(small) for small in found.small[:-1]), bool(found.small[-1]) or writes_small)


def test_numbers_of_the_host_are_handed_over_once_for_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[int] = []
    monkeypatch.setattr(NativeBatch, "_fill", lambda self, members, values: filled.append(self.done))
    for name in ("adamw", "lamb"):
        filled.clear()
        optimizer = build(name, lists([(4, 3)], torch.float32), executor="native")
        drive(optimizer, 1)
        stages = wire(optimizer.program(optimizer.param_groups[0], optimizer.param_groups[0]["params"][0])).plan.stages
        assert filled == list(range(len(stages)))
