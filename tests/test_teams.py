"""Teams of matrices: what scratch they take and where it lies, who counts a step, in which order what runs."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import slalom
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.algebra import Expr, State, norm, polar, where
from slalom.algebra.matrix import MUON_QUINTIC
from slalom.engine import matrices, stacks
from slalom.engine.batch import latest
from slalom.engine.matrices import PhasedBatch, PhasedLaunch, scratch_bytes
from slalom.engine.phases import Phase, Phases, cut
from slalom.engine.program import Program
from slalom.engine.scratch import Scratch, teams
from test_native import compare, drive, lists

POLAR = P.Spectral(iteration=P.NewtonSchulz(dtype="float32"))
MUON = Recipe(momentum=P.Ema(0.9), geometry=POLAR, step=0.02)
CLIPPED = Recipe(gradient=P.ClipNorm(0.5), momentum=P.HeavyBall(), geometry=POLAR, step=0.02)
SOAP = slalom.recipes.method("soap").recipe(frequency=3)
SHAPES = [(6, 6), (5, 9), (6, 6), (4, 2, 2, 2), (6, 6), (1, 4)]


class Remembered(P.Guard, name="test_remembered"):
    """The product is a state of its own."""

    last = State()

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        s.last = (x.grad @ x.grad.T) @ x.grad
        return x.divided().replace(direction=s.last)


class Spread(P.Guard, name="test_spread"):
    """One number per tensor, kept for every element of it, and needed itself after products."""

    size = State()

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        x = x.divided()
        s.size = norm(x.grad)
        return x.replace(direction=((x.grad @ x.grad.T) / norm(x.grad)) @ x.direction)


class Whitened(P.Average, name="test_whitened"):
    """A product of what the step has just left."""

    a = State(init="parameter")

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        s.a = (x.result @ x.result.T) @ x.result
        return x

    def readout(self, x: P.Signals, s: P.Memory) -> Any:
        return s.a


class Folded(P.Guard, name="test_folded"):
    """Something to multiply before and after, so that a folded state stands between."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        cheap = abs(x.grad) + x.w
        return x.replace(direction=((x.grad @ x.grad.T) / norm(cheap)) @ x.direction + cheap)


class Kernel:
    """What runs a fused phase on nothing, and writes down that it was asked to."""

    def __init__(self, log: list[Any], unread: bool) -> None:
        self.log = log
        self.unread = unread
        self.gradients: list[Tensor] = []

    def set_gradients(self, gradients: list[Tensor]) -> None:
        self.gradients = gradients

    def batch(self, numbers: Any, clock: float, group: int, *, counts_step: bool = True) -> Kernel:
        self.log.append(("begins", counts_step))
        self.group = group
        return self

    def finish(self) -> list[Any]:
        self.log.append("finishes")
        return []


def program_of(recipe: Recipe, shape: tuple[int, ...] = (4, 3)) -> Program:
    """What a tensor of this shape runs."""
    w = torch.nn.Parameter(torch.ones(shape))
    optimizer = recipe.build([w])
    return optimizer.program(optimizer.param_groups[0], w)


def launched(
    recipe: Recipe, shapes: Sequence[tuple[int, ...]], log: list[Any] | None = None, *, unread: Any = True
) -> tuple[Program, list[torch.nn.Parameter], list[tuple[PhasedLaunch, list[int]]]]:
    """The teams of some parameters, with kernels that do nothing; ``unread`` may be one word for each in turn."""
    params = lists(list(shapes), torch.float32)
    optimizer = recipe.build(params)
    optimizer.init_state()
    program = optimizer.program(optimizer.param_groups[0], params[0])
    words = itertools.repeat(unread) if isinstance(unread, bool) else iter(unread)
    states = [dict(optimizer.state[p]) for p in params]
    kept: list[Any] = [] if log is None else log
    return program, params, matrices.launches(program, params, states, lambda *given: Kernel(kept, next(words)))


# --- teams ------------------------------------------------------------------------------------------------------


def test_a_team_is_of_one_shape_and_as_large_as_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slalom.engine.scratch._MOST_ELEMENTS", {"cpu": 24, "cuda": 36})
    shapes = [(3, 4), (4, 3), (3, 4), (3, 4), (5, 5), (0, 3), (0, 3)]
    assert teams(shapes) == [[0, 2], [3], [1], [4], [5, 6]]
    assert teams(shapes, "cuda") == [[0, 2, 3], [1], [4], [5, 6]]
    assert teams(shapes, "mps") == teams(shapes)
    assert teams([(5, 5), (5, 5)]) == [[0], [1]]  # larger than there is room, one at a time
    assert [len(team) for team in teams([(1, 1)] * 25)] == [24, 1]
    assert teams([]) == []


# --- scratch ----------------------------------------------------------------------------------------------------


def by_hand(lives: Mapping[str, tuple[int, int]], kinds: Sequence[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Each array, in the order of birth, as low as it fits beside those that live when it does."""

    def moments(born: int, died: int) -> set[int]:
        return set(range(2 * born + (kinds[born] == "matrix"), 2 * died + (kinds[died] == "fused") + 1))

    found: dict[str, int] = {}
    for name in sorted(lives, key=lambda key: lives[key]):
        taken = {
            place
            for other in found
            if moments(*lives[other]) & moments(*lives[name])
            for place in range(found[other], found[other] + sizes[other])
        }
        found[name] = next(
            start for start in itertools.count(0, 16) if taken.isdisjoint(range(start, start + sizes[name]))
        )
    return found


@pytest.mark.parametrize("seed", range(12))
def test_scratch_lies_as_low_as_it_fits_and_nothing_alive_is_overwritten(seed: int) -> None:
    chance = random.Random(seed)
    kinds = ["matrix", "fused"] * 4
    made = tuple(Phase(kind, None) for kind in kinds)  # type: ignore[arg-type]
    lives = {}
    for index in range(7):
        born = chance.randrange(7)
        lives[f"~{index}"] = (born, chance.randrange(born + 1, 8))
    per = {name: chance.choice(["element", "row", "column", "left", "tensor"]) for name in lives}
    like, members = torch.zeros(9, 5), chance.choice([1, 3])
    count = {"element": 45, "row": 9, "column": 5, "left": 81, "tensor": 1}
    sizes = {name: math.ceil(members * count[per[name]] / 16) * 16 for name in lives}
    found = Scratch(Phases(made, {name: State(per=per[name]) for name in lives}, lives), like, members)  # type: ignore[arg-type]
    assert found.offsets == by_hand(lives, kinds, sizes)
    assert found.size == max(found.offsets[name] + sizes[name] for name in lives)


def test_a_gap_that_fits_exactly_is_used() -> None:
    made = tuple(Phase("fused", None) for _ in range(6))  # type: ignore[arg-type]
    lives = {"a": (0, 1), "b": (0, 5), "c": (2, 5), "d": (3, 5)}
    found = Scratch(Phases(made, dict.fromkeys(lives, State()), lives), torch.zeros(4, 4), 1)
    assert found.offsets == {"a": 0, "b": 16, "c": 0, "d": 32}
    assert found.size == 48
    larger = Scratch(Phases(made, dict.fromkeys(lives, State()), lives), torch.zeros(4, 5), 1)
    assert (larger.offsets["c"], larger.size) == (0, 96)  # 20 elements and what aligns the next


def test_stacks_are_views_of_one_arena_with_exactly_their_elements() -> None:
    made = tuple(Phase("fused", None) for _ in range(2))  # type: ignore[arg-type]
    scratch = {"~0": State(), "~1": State(per="row"), "~2": State(per="left", block=2), "~3": State(per="model")}
    found = Scratch(Phases(made, scratch, dict.fromkeys(["~0", "~1", "~2"], (0, 1))), torch.zeros(4, 3), 5)
    arena = torch.zeros(found.size)
    views = found.views(arena)
    assert {name: tuple(view.shape) for name, view in views.items()} == {
        "~0": (5, 4, 3), "~1": (5, 4), "~2": (4, 5, 2, 2), "~3": (),
    }  # fmt: skip  # of blocks each has a stack of its own, in front
    assert views["~3"].dtype == torch.float64
    for name in ("~0", "~1", "~2"):
        views[name].fill_(1.0)
        assert arena.sum() == views[name].numel()
        assert arena.data_ptr() <= views[name].data_ptr()
        arena.zero_()
    for a, b in itertools.combinations([views["~0"], views["~1"], views["~2"]], 2):
        assert matrices._disjoint(a, b)
        assert matrices._disjoint(b, a)


def test_arrays_that_touch_are_disjoint_and_those_that_share_an_element_are_not() -> None:
    whole = torch.zeros(10)
    assert matrices._disjoint(whole[:4], whole[4:])
    assert matrices._disjoint(whole[4:], whole[:4])
    for a, b in ((whole[:5], whole[4:]), (whole, whole[4:6]), (whole[:4], whole[:4])):
        assert not matrices._disjoint(a, b)
        assert not matrices._disjoint(b, a)


def held(made: list[tuple[PhasedLaunch, list[int]]]) -> int:
    """The bytes of memory that scratch of one float per element lies in."""
    storages = {
        view.untyped_storage().data_ptr(): view.untyped_storage().nbytes()
        for launch, _ in made
        for view in launch.scratch.values()
        if view.dtype == torch.float32
    }
    return sum(storages.values())


@pytest.mark.parametrize("recipe", [MUON, CLIPPED, SOAP], ids=["in turn", "all at once", "blocks"])
@pytest.mark.parametrize("most", [1 << 23, 80])
def test_scratch_that_is_told_is_what_is_made(recipe: Recipe, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slalom.engine.scratch._MOST_ELEMENTS", {"cpu": most})
    program, params, made = launched(recipe, SHAPES)
    assert scratch_bytes(program, params, "cpu") == held(made) > 0
    without = [torch.empty(p.shape, device="meta") for p in params]
    assert scratch_bytes(program, without, "cpu") == held(made)
    assert sorted(place for _, places in made for place in places) == list(range(len(SHAPES)))
    assert all(launch.parameters[k] is params[p] for launch, places in made for k, p in enumerate(places))


def test_teams_take_turns_unless_they_wait_for_each_other() -> None:
    tensors = [torch.zeros(8, 8), torch.zeros(4, 4)]
    assert scratch_bytes(program_of(MUON), tensors) == 4 * 64
    # what the gradient is multiplied by is one number for the whole model, which is no array
    each = [scratch_bytes(program_of(CLIPPED), [one]) for one in tensors]
    assert scratch_bytes(program_of(CLIPPED), tensors) == sum(each) > max(each)


def test_what_needs_no_scratch_gets_none() -> None:
    some = [torch.zeros(4, 3)]
    assert scratch_bytes(program_of(Recipe(scale=P.SecondMoment())), some) == 0
    assert scratch_bytes(program_of(Recipe(guard=Remembered())), some) == 0  # read where it is kept
    assert scratch_bytes(program_of(MUON), [torch.zeros(0, 3)]) == 0
    assert scratch_bytes(program_of(MUON), []) == 0
    left_to_torch = program_of(Recipe(guard=Folded(), scale=P.FoldedMoment()))
    assert scratch_bytes(left_to_torch, some) == 0


# --- who counts -------------------------------------------------------------------------------------------------


def test_kernels_count_the_step_if_all_of_them_can_and_no_product_depends_on_it() -> None:
    def kernels_count(recipe: Recipe, unread: Any) -> bool:
        _, _, ((launch, _),) = launched(recipe, [(4, 4), (4, 4)], unread=unread)
        assert launch.counts_on_host is matrices.counts_on_host(program_of(recipe))
        return launch.kernels_count

    assert kernels_count(MUON, True)
    assert not kernels_count(MUON, False)
    assert not kernels_count(MUON, [True, False])
    assert not kernels_count(SOAP, True)


def test_a_phase_that_fills_all_scratch_from_states_stays_within_it() -> None:
    state = Expr("state", attrs={"name": "m", "key": "m"}, dims=State().dims)
    for keys, beyond in ((["~0"], False), (["~0", "~1"], False), (["~0", "m"], True)):
        w = Expr("input", attrs={"name": "w"}, dims=State().dims)
        program = Program(w, dict.fromkeys(keys, 2 * state), {}, {})
        assert matrices._goes_beyond(Phase("matrix", program), {"~0": State(), "~1": State()}) is beyond
        assert matrices._goes_beyond(Phase("matrix", program), {"~0": State()}) is (keys != ["~0"])


def test_one_result_in_another_s_input_is_enough_to_read_all_before() -> None:
    arena = torch.zeros(40)
    places = {"a": arena[:8].view(2, 4), "b": arena[8:16].view(2, 4), "apart": arena[32:].view(2, 4)}
    places |= {"its own": places["a"], "another's": arena[12:20].view(2, 4)}
    read = [Expr("state", attrs={"name": key, "key": key}, dims=State().dims) for key in ("a", "b")]
    w = Expr("input", attrs={"name": "w"}, dims=State().dims)
    for written, expected in (
        (["apart"], True), (["its own"], True), (["its own", "apart"], True), (["another's"], False),
        (["its own", "another's"], False), (["another's", "apart"], False),
    ):  # fmt: skip
        phase = Phase("matrix", Program(w, dict.fromkeys(written, read[0] + read[1]), {}, {}))
        scratch: Any = SimpleNamespace(scratch=places)
        assert PhasedLaunch._keeps_apart(scratch, phase) is expected, written


def test_a_step_is_read_by_nobody_if_torch_sees_nothing_but_scratch() -> None:
    def unread(recipe: Recipe, kernels: bool = True) -> bool:
        _, _, ((launch, _),) = launched(recipe, [(4, 4)], unread=kernels)
        return launch.unread

    assert unread(MUON)
    assert not unread(MUON, kernels=False)
    assert not unread(Recipe(guard=Remembered()))  # torch writes a state


class OfGradient(P.Guard, name="test_of_gradient"):
    """Torch reads the gradient itself and leaves scratch alone."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        return x.divided().replace(direction=(x.grad @ x.grad.T) @ x.grad)


def test_torch_that_reads_gradients_goes_beyond_scratch() -> None:
    found = cut(program_of(Recipe(guard=OfGradient())))
    assert [phase.kind for phase in found.phases] == ["matrix", "fused"]
    assert [matrices._goes_beyond(phase, found.scratch) for phase in found.phases] == [True, False]
    muon = cut(program_of(MUON))
    assert [matrices._goes_beyond(phase, muon.scratch) for phase in muon.phases] == [False, False, False]


@pytest.mark.parametrize("counts_step", [True, False])
@pytest.mark.parametrize("unread", [True, False])
def test_a_step_is_counted_once_by_the_first_kernel_or_by_torch(unread: bool, counts_step: bool) -> None:
    log: list[Any] = []
    _, _, ((launch, _),) = launched(MUON, [(4, 4), (4, 4)], log, unread=unread)
    launch.set_gradients([torch.ones(4, 4)] * 2)
    before = [float(state["step"]) for state in launch.states]
    for view in launch.scratch.values():
        view.fill_(0.5)
    assert launch.batch({}, 1.0, 0, counts_step=counts_step).finish() == []
    ticks = counts_step and unread
    assert log == [("begins", ticks), "finishes", ("begins", False), "finishes"]
    after = [float(state["step"]) for state in launch.states]
    assert after == [count + (counts_step and not unread) for count in before]


# --- copies and order -------------------------------------------------------------------------------------------


def test_only_phases_that_look_beyond_scratch_copy() -> None:
    _, _, ((launch, _),) = launched(MUON, [(4, 4)])
    assert launch.copies[1] is False
    _, _, ((launch, _),) = launched(Recipe(guard=OfGradient()), [(4, 4)])
    assert launch.copies[0] is True


def sizes_of_stacks(launch: PhasedLaunch, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Which members a step multiplies together, in order."""
    seen: list[list[int]] = []
    original = stacks.Stack.__init__

    def note(self: Any, batch: PhasedBatch, members: list[int], count: float) -> None:
        seen.append(members)
        original(self, batch, members, count)

    monkeypatch.setattr(stacks.Stack, "__init__", note)
    launch.set_gradients([torch.ones_like(p) for p in launch.parameters])
    for view in launch.scratch.values():
        view.fill_(0.5)
    launch.batch({}, 1.0, 0).finish()
    return seen


@pytest.mark.parametrize(("most", "expected"), [(16, [[0], [1], [2]]), (32, [[0, 1], [2]]), (1, [[0], [1], [2]])])
def test_as_many_are_copied_at_a_time_as_pay(
    most: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "_MOST_COPIED", {"cpu": most})
    _, _, ((copied, _),) = launched(Recipe(guard=OfGradient()), [(4, 4)] * 3)
    _, _, ((seen, _),) = launched(MUON, [(4, 4)] * 3)
    with monkeypatch.context() as patched:
        assert sizes_of_stacks(copied, patched) == expected
    with monkeypatch.context() as patched:
        assert sizes_of_stacks(seen, patched) == [[0, 1, 2]]  # what lies in scratch is never copied


def test_members_of_one_step_count_are_multiplied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    params = lists([(4, 4)] * 4, torch.float32)
    optimizer = SOAP.build(params)
    seen: list[tuple[list[int], float]] = []
    original = stacks.Stack.__init__

    def note(self: Any, batch: PhasedBatch, members: list[int], count: float) -> None:
        seen.append((members, count))
        original(self, batch, members, count)

    monkeypatch.setattr(stacks.Stack, "__init__", note)
    for left_out in (1, None):
        seen.clear()
        for place, p in enumerate(params):
            p.grad = None if place == left_out else torch.ones(4, 4) + torch.eye(4)
        optimizer.step()
    assert ([0, 2, 3], 2.0) in seen
    assert ([1], 1.0) in seen
    assert {tuple(members) for members, _ in seen} == {(0, 2, 3), (1,)}


def test_a_stack_of_one_is_a_view_and_more_are_copied() -> None:
    a, b = torch.ones(2, 3), torch.zeros(2, 3)
    one = stacks._stacked([a])
    assert one.shape == (1, 2, 3)
    assert one.data_ptr() == a.data_ptr()
    assert stacks._stacked([a], dim=1).shape == (2, 1, 3)
    assert torch.equal(stacks._stacked([a, b]), torch.stack([a, b]))
    assert stacks._stacked([a, b], dim=1).shape == (2, 2, 3)


def test_products_of_states_of_numbers_and_of_what_was_just_stepped_equal_the_reference() -> None:
    for recipe in (
        Recipe(guard=Remembered(), step=1e-3),
        Recipe(guard=Spread(), step=1e-2),
        Recipe(average=Whitened(), step=1e-3),
    ):
        compare(recipe, [(4, 3), (4, 3), (3, 5), (4, 3)])
        compare(recipe, [(4, 3), (4, 3), (3, 5), (4, 3)], missing=True)


class NowAndThen(P.Guard, name="test_now_and_then"):
    """A factor that is a product in one step and a number in the next."""

    factor = State(per="left")

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        before = s.factor
        s.factor = where(x.t % 2 <= 0, x.grad @ x.grad.T, 0.5)
        return x.divided().replace(direction=before @ x.direction)


def test_a_state_of_matrices_may_be_given_a_number() -> None:
    recipe = Recipe(guard=NowAndThen(), step=1e-2)
    compare(recipe, [(4, 3), (4, 3), (3, 5)])
    compare(recipe, [(4, 3), (4, 3), (3, 5)], missing=True)


class Watcher(P.Average, name="test_watcher"):
    """A product of the parameter as it was before the step."""

    seen = State(per="left")

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        s.seen = x.w @ x.w.T
        return x

    def readout(self, x: P.Signals, s: P.Memory) -> Any:
        return s.seen @ x.w


def test_a_parameter_is_read_by_products_before_it_is_overwritten() -> None:
    recipe = Recipe(momentum=P.Ema(), average=Watcher(), step=1e-2)
    assert [phase.kind for phase in cut(program_of(recipe)).phases] == ["fused", "matrix", "fused"]
    params = lists([(4, 3), (4, 3)], torch.float32)
    optimizer = recipe.build(params)
    drive(optimizer, 2)
    before = [p.detach().clone() for p in params]
    drive(optimizer, 1)
    for old, parameter in zip(before, params, strict=True):
        torch.testing.assert_close(optimizer.state[parameter]["test_watcher.seen"], old @ old.T)


@pytest.mark.parametrize("kind", ["number", "elements"])
def test_a_branch_that_is_rarely_taken_is_not_computed_to_be_handed_over(kind: str) -> None:
    class Rare(P.Guard, name=f"test_rare_{kind}"):
        """Elements of a product, now and then."""

        def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
            x = x.divided()
            otherwise = 0.5 if kind == "number" else 0.5 * x.direction
            product = where(x.t % 4 <= 0, (x.grad @ x.grad.T) @ x.grad, otherwise)
            return x.replace(direction=product + x.direction)

    recipe = Recipe(momentum=P.Ema(), guard=Rare(), step=1e-3)
    found = cut(program_of(recipe))
    ((place,),) = [[at for at, phase in enumerate(found.phases) if any(n.op == "where" for n in phase.program.nodes)]]
    assert found.phases[place].kind == "matrix"
    compare(recipe, [(4, 3), (4, 3), (3, 5)])


@pytest.mark.parametrize("value", [1.0, math.inf])
def test_compiled_kernels_look_whether_gradients_are_finite_before_the_products(value: float) -> None:
    params = lists([(4, 3), (4, 3)], torch.float32)
    optimizer = MUON.build(params)
    drive(optimizer, 1)
    gradients = [torch.full((4, 3), value), torch.zeros(4, 3)]
    assert optimizer._crews[0].crew.looked_at(gradients) == (value == 1.0, [])


def test_a_team_without_compiled_kernels_does_not_answer() -> None:
    ((launch, _),) = launched(MUON, [(4, 3), (4, 3)])[2]
    assert launch.all_finite() is None


def test_a_number_kept_for_every_element_is_handed_over_as_a_number() -> None:
    found = cut(program_of(Recipe(guard=Spread(), step=1e-2)))
    assert [phase.kind for phase in found.phases] == ["fused", "matrix", "fused"]
    assert sorted(slot.per for slot in found.scratch.values()) == ["element", "tensor"]


def test_a_product_of_the_new_parameter_reads_it_where_it_was_stored() -> None:
    found = cut(program_of(Recipe(average=Whitened(), step=1e-3)))
    assert [phase.kind for phase in found.phases] == ["fused", "matrix"]
    assert found.scratch == {}


def test_the_latest_count_is_a_number_on_the_host() -> None:
    counts = [torch.tensor(3.0), torch.tensor(7.0), torch.tensor(5.0)]
    assert latest(counts) == 7.0
    assert isinstance(latest(counts), float)
    assert latest([]) == 0.0


# --- what torch computes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["total", "largest", "mean", "norm"])
def test_reductions_of_stacks_are_those_of_each_matrix(op: str) -> None:
    function: Any = {"total": torch.sum, "largest": torch.amax, "mean": torch.mean, "norm": torch.linalg.vector_norm}[
        op
    ]
    stack = torch.rand(3, 2, 4, 5)  # blocks, members, rows, columns

    def reduced(per: str, blocks: bool) -> Tensor:
        return stacks._over_matrices(op, per, blocks)(stack)

    for block, member in itertools.product(range(3), range(2)):
        matrix = stack[block, member]
        for blocks in (True, False):
            row, column = reduced("row", blocks), reduced("column", blocks)
            torch.testing.assert_close(row[block, member], function(matrix, dim=1, keepdim=True))
            torch.testing.assert_close(column[block, member], function(matrix, dim=0, keepdim=True))
            torch.testing.assert_close(reduced("block", blocks)[block, member], function(matrix).view(1, 1))
        torch.testing.assert_close(reduced("tensor", False)[block, member], function(matrix).view(1, 1))
        torch.testing.assert_close(reduced("tensor", True)[member], function(stack[:, member]).view(1, 1))


def test_products_compute_in_scratch_that_nobody_reads_again() -> None:
    _, _, ((launch, _),) = launched(MUON, [(4, 4)] * 2)
    (read,) = (name for name, (_, died) in launch.phases.lives.items() if died == 1)
    assert launch.apart[1]
    assert launch.spent[1] == {read}
    tape = stacks.StackTape(launch.phases.phases[1].program, launch.spent[1])
    (made,) = (node for node in tape.nodes if node.op == "polar")
    assert tape._is_spent(made.args[0])
    assert tape.call(made).keywords["spent"] is True  # type: ignore[attr-defined]
    kept = stacks.StackTape(launch.phases.phases[1].program, frozenset())
    assert not kept._is_spent(made.args[0])
    assert not kept._is_spent(1.0)
    assert "spent" not in kept.call(made).keywords  # type: ignore[attr-defined]


def test_scratch_that_a_phase_writes_as_it_is_is_not_spent() -> None:
    phase = cut(program_of(MUON)).phases[1].program
    (made,) = (node for node in phase.nodes if node.op == "polar")
    leaf = made.args[0]
    assert isinstance(leaf, Expr)
    both = Program(phase.result, {**phase.writes, "copy": leaf}, {**phase.states, "copy": State()}, phase.asked)
    assert not stacks.StackTape(both, frozenset({leaf.attrs["key"]}))._is_spent(leaf)


class PolarTwice(P.Guard, name="test_polar_twice"):
    """Two things that need one input: neither may compute in it."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        u = abs(x.divided().direction) + x.grad
        return x.divided().replace(direction=polar(u, 3, MUON_QUINTIC, "float32") @ u.T @ u)


def test_what_is_read_twice_is_never_computed_in() -> None:
    _, _, ((launch, _),) = launched(Recipe(guard=PolarTwice()), [(4, 4)] * 2)
    (phase,) = (one for one in launch.phases.phases if one.kind == "matrix")
    tape = stacks.StackTape(phase.program, frozenset(launch.phases.scratch))
    (made,) = (node for node in tape.nodes if node.op == "polar")
    assert not tape._is_spent(made.args[0])
    compare(Recipe(guard=PolarTwice(), step=1e-3), [(4, 4), (4, 4), (3, 5)])


class Both(P.Guard, name="test_both"):
    """A phase that leaves two things."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        u = abs(x.divided().direction) + x.grad
        left = polar(u, 3, MUON_QUINTIC, "float32")
        return x.divided().replace(direction=abs(left) + abs(polar(x.grad + abs(u), 2, MUON_QUINTIC, "float32")))


def test_scratch_is_spent_only_where_a_phase_leaves_one_thing() -> None:
    _, _, ((launch, _),) = launched(Recipe(guard=Both()), [(4, 4)] * 2)
    ((index, phase),) = ((k, one) for k, one in enumerate(launch.phases.phases) if one.kind == "matrix")
    assert len(phase.program.writes) == 2
    assert launch.spent[index] == frozenset()


def test_members_of_a_list_are_a_slice_if_they_lie_side_by_side() -> None:
    _, _, ((launch, _),) = launched(MUON, [(4, 4)] * 4)
    launch.set_gradients([torch.zeros(4, 4)] * 4)
    batch = launch.batch({}, 0.0, 0, counts_step=False)
    batch.at = 1
    for members, place in (([1, 2], slice(1, 3)), ([2], slice(2, 3)), ([0, 1, 3], [0, 1, 3]), ([0, 3], [0, 3])):
        assert stacks.Stack(batch, members, 0.0).place == place


class Moves(P.Guard, name="test_moves"):
    """A factor that is written first and kept as it was besides."""

    now = State(per="left")
    last = State(per="left", init="identity")

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        old = s.now
        s.now = x.grad @ x.grad.T
        s.last = old
        return x.divided().replace(direction=s.now @ x.direction + old @ x.grad)


def test_a_factor_that_moves_is_not_overwritten_before() -> None:
    recipe = Recipe(guard=Moves(), step=1e-3)
    assert list(program_of(recipe).writes)[:2] == ["test_moves.now", "test_moves.last"]
    compare(recipe, [(4, 3), (3, 5)])  # of one shape each: stacks are views
    compare(recipe, [(4, 3), (4, 3), (3, 5)])


class Relative(P.Guard, name="test_relative"):
    """A product that torch divides by what the whole model has in common."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        return x.divided().replace(direction=((x.grad @ x.grad.T) / norm(x.grad, "model")) @ x.direction)


def test_products_may_need_a_number_of_the_whole_model() -> None:
    recipe = Recipe(guard=Relative(), step=1e-2)
    compare(recipe, [(4, 3), (4, 3), (3, 5)])
    compare(recipe, [(4, 3), (4, 3), (3, 5)], missing=True)
