"""Programs with matrix operations: cut into phases, stacked by shape, equal to the reference in all surroundings."""

from __future__ import annotations

import itertools

import pytest
import torch

import slalom
from networks import quietly
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.algebra import norm, polar, where
from slalom.algebra.matrix import MUON_QUINTIC
from slalom.engine import matrices, scratch, stacks
from slalom.engine.phases import Phase, Phases, cut
from test_native import compare, drive, lists

MATRIX_METHODS = [name for name in slalom.list_optimizers() if slalom.recipes.method(name).family == "matrix"]
SHAPES = [(6, 6), (5, 9), (9, 5), (6, 6), (4, 2, 2, 2), (6, 6), (1, 4), (4, 1)]
POLAR = P.Spectral(iteration=P.NewtonSchulz(dtype="float32"))


class WholeLength(P.Guard, name="test_whole_length"):
    """The update of the whole model has length 1."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        x = x.divided()
        return x.replace(direction=x.direction / norm(x.direction, "model"))


class SharedFriction(P.Guard, name="test_shared_friction"):
    """Needs a matrix product's sum over each tensor, and after that the gradient's again."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        x = x.divided()
        length = norm(x.grad @ x.grad.T)
        return x.replace(direction=x.direction / (1 + length) + 0.1 * norm(x.grad, "column") * x.grad)


class DualLength(P.Geometry, name="test_dual_length"):
    """As long as the gradient of the whole model, which is needed before the products and after them."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        length = norm(x.grad, "model")
        u = polar(x.direction + x.grad / length, 3, MUON_QUINTIC, "float32")
        return x.replace(direction=u * length)


class WhenLarge(P.Guard, name="test_when_large"):
    """A condition that elements decide, on matrices."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        gram = x.grad @ x.grad.T
        chosen = where(norm(x.grad) > 2.0, gram, 2 * gram)
        return x.divided().replace(direction=where(abs(x.grad) > 0.3, chosen @ x.direction, x.direction))


class FromRows(P.Guard, name="test_from_rows"):
    """What comes out of the products is larger than what went in, and may lie where another member's input is."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        lengths = norm(x.grad, "row")
        return x.divided().replace(direction=(lengths * (x.grad @ x.grad.T)) @ x.grad)


class TwicePolar(P.Guard, name="test_twice_polar"):
    """Two more iterations on what one left: the pass between them reads and writes scratch in two stages."""

    def apply(self, x: P.Signals, s: P.Memory) -> P.Signals:
        u = x.divided().direction
        again = polar(2 * u, 3, MUON_QUINTIC, "float32") + polar(u / norm(u) - 0.1, 3, MUON_QUINTIC, "float32")
        return x.divided().replace(direction=again)


RECIPES = {
    "muon": Recipe(momentum=P.Ema(0.9, nesterov=True), geometry=POLAR, regularize=P.Decoupled(0.1), step=0.02),
    "clipped over the model": Recipe(gradient=P.ClipNorm(0.5), momentum=P.HeavyBall(), geometry=POLAR, step=0.02),
    "as long as the model's gradient": Recipe(momentum=P.Ema(), geometry=DualLength(), step=1e-3),
    "three times polar": Recipe(momentum=P.Ema(), geometry=POLAR, guard=TwicePolar(), step=0.02),
    "conditions across the border": Recipe(momentum=P.Ema(), guard=WhenLarge(), step=1e-3),
    "rows that become matrices": Recipe(guard=FromRows(), step=1e-3),
    "one length for all": Recipe(momentum=P.Ema(), geometry=POLAR, guard=WholeLength(), step=0.1),
    "scaled afterwards": Recipe(
        momentum=P.Ema(), geometry=POLAR, scale=P.SecondMoment(0.9), step=0.02,
        order=("gradient", "step", "momentum", "geometry", "scale", "guard", "regularize", "form", "average"),
    ),
    "trusted": Recipe(momentum=P.Ema(), geometry=POLAR, guard=P.TrustRatio(), step=0.02),
    "grafted": Recipe(
        geometry=P.Graft(Recipe(momentum=P.Ema(), geometry=POLAR), Recipe(scale=P.SecondMoment(0.9))), step=0.02
    ),
    "rate of its own": Recipe(momentum=P.Ema(), geometry=POLAR, step=P.Prodigy(d0=1e-2)),
    "averaged": Recipe(geometry=POLAR, average=P.ScheduleFree(), step=0.02),
    "products in sums": Recipe(momentum=P.Ema(), guard=SharedFriction(), step=0.02),
    "lazy": Recipe(momentum=P.Ema(), geometry=POLAR, form=P.FTRL(), step=0.02),
}  # fmt: skip


@pytest.mark.parametrize("missing", [False, True], ids=["all", "missing"])
@pytest.mark.parametrize("name", list(RECIPES))
def test_phases_equal_the_reference(name: str, missing: bool) -> None:
    # a tensor that comes late finds its model-wide neighbours elsewhere; what is compared is one rule in two executors
    compare(RECIPES[name], SHAPES, missing=missing)


@pytest.mark.parametrize("missing", [False, True], ids=["all", "missing"])
def test_members_that_are_multiplied_one_by_one_do_not_disturb_each_other(
    missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "_MOST_COPIED", {"cpu": 1})
    compare(RECIPES["rows that become matrices"], [(6, 6)] * 5, missing=missing)


def test_teams_that_take_turns_in_little_scratch_equal_one_team(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for most in (1 << 23, 40):
        monkeypatch.setattr("slalom.engine.scratch._MOST_ELEMENTS", {"cpu": most})
        params = lists(SHAPES, torch.float32)
        drive(RECIPES["muon"].build(params), 4)
        ends.append(params)
    for one, many in zip(*ends, strict=True):
        torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MATRIX_METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_matrix_method_runs_compiled_and_equals_eager_in_its_own_dtype(name: str, dtype: torch.dtype) -> None:
    # square and full of rank, so that no eigenbasis is a matter of rounding; the products are the same in both
    shapes = [(6, 6), (5, 5), (6, 6), (12, 3, 2, 2), (7,)]
    a, b = lists(shapes, dtype), lists(shapes, dtype)
    compiled = quietly(lambda: slalom.create(name, a))
    drive(compiled, 4)
    drive(quietly(lambda: slalom.create(name, b, executor="eager")), 4)
    assert list(compiled.executors()) == ["native"]
    for p, q in zip(a, b, strict=True):
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("missing", [False, True], ids=["all", "missing"])
def test_soap_equals_the_reference_over_several_refreshes(missing: bool) -> None:
    # square and full of rank: where a factor is singular the eigenbasis, and so the path, is a matter of rounding
    recipe = slalom.recipes.method("soap").recipe(frequency=3)
    compare(recipe, [(6, 6), (6, 6), (5, 5), (12, 3, 2, 2)], steps=9, missing=missing)


def test_muon_is_cut_before_and_after_the_iteration() -> None:
    w = torch.nn.Parameter(torch.zeros(4, 3))
    optimizer = RECIPES["muon"].build([w])
    phases = cut(optimizer.program(optimizer.param_groups[0], w))
    assert [phase.kind for phase in phases.phases] == ["fused", "matrix", "fused"]
    assert list(phases.phases[0].program.writes) == ["ema.m", "~1"]  # the buffer is stored in the first pass
    assert len(phases.scratch) == 2


def test_a_norm_of_the_model_is_taken_once_though_two_phases_need_it() -> None:
    w = torch.nn.Parameter(torch.zeros(4, 3))
    optimizer = RECIPES["as long as the model's gradient"].build([w])
    phases = cut(optimizer.program(optimizer.param_groups[0], w))
    assert [len(phase.program.crossings) for phase in phases.phases] == [1, 0, 0]


def test_scratch_that_is_needed_in_turn_shares_its_place() -> None:
    w = torch.nn.Parameter(torch.zeros(64, 64))
    optimizer = RECIPES["muon"].build([w])
    phases = cut(optimizer.program(optimizer.param_groups[0], w))
    assert scratch.Scratch(phases, w, 1).size == 64 * 64


def test_a_state_that_is_exchanged_is_noticed() -> None:
    params = lists([(6, 6), (6, 6)], torch.float32)
    optimizer = RECIPES["muon"].build(params)
    drive(optimizer, 2)
    optimizer.state[params[0]]["ema.m"] = torch.zeros(6, 6)
    drive(optimizer, 1)
    assert optimizer.state[params[0]]["ema.m"].abs().sum() > 0


def test_arrays_share_a_place_exactly_when_their_lives_do_not_meet() -> None:
    """A matrix phase reads at one moment and writes at the next; a fused one reads and writes all the time."""
    kinds = ["matrix", "fused", "matrix", "fused", "matrix"]
    made = tuple(Phase("matrix" if kind == "matrix" else "fused", None) for kind in kinds)  # type: ignore[arg-type]
    lives = [(born, died) for born in range(5) for died in range(born + 1, 5)]

    def moments(born: int, died: int) -> set[int]:
        first = 2 * born + (kinds[born] == "matrix")
        last = 2 * died + (kinds[died] == "fused")
        return set(range(first, last + 1))

    for a, b in itertools.product(lives, lives):
        found = scratch._overlap(Phases(made, {}, {"a": a, "b": b}), "a", "b")
        assert found == bool(moments(*a) & moments(*b)), (a, b)


class Nothing:
    """A fused phase that does nothing."""

    unread = False

    def set_gradients(self, gradients: list[torch.Tensor]) -> None: ...


def test_members_that_lie_side_by_side_are_seen_without_a_copy() -> None:
    params = lists([(6, 5)] * 4, torch.float32)
    optimizer = RECIPES["muon"].build(params)
    optimizer.init_state()
    program = optimizer.program(optimizer.param_groups[0], params[0])
    states = [optimizer.state[p] for p in params]
    ((launch, places),) = matrices.launches(program, params, states, lambda *given: Nothing())
    assert places == [0, 1, 2, 3]
    launch.set_gradients([torch.zeros(6, 5)] * 4)
    batch = launch.batch({}, 0.0, 0, counts_step=False)
    batch.at = 1
    read = next(key for key, (_, died) in launch.phases.lives.items() if died == 1)
    for members, shared in (([1, 2], True), ([0, 1, 2, 3], True), ([0, 2], False), ([3], True)):
        stack = stacks.Stack(batch, members, 0.0)
        seen = stack.inputs()[stack.tape.states[read]]
        assert seen.shape[0] == len(members)
        assert (seen.data_ptr() == launch.scratch[read][members[0]].data_ptr()) is shared, members
