"""The eager executor against the formula run directly on tensors, and the rules of a step across tensors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import slalom
from networks import build, go, quietly
from slalom.algebra import Expr, State, Value, total
from slalom.engine import fresh, latest, run
from slalom.engine.storage import seen
from slalom.parts import ClipNorm, Ema, Momentum, Signals
from slalom.parts.memory import Memory
from slalom.recipes import ByRole, Recipe, method


class Tensors:
    """A store of plain tensors: with it a recipe's text computes instead of being traced."""

    def __init__(self, w: Tensor) -> None:
        self.w = w
        self.kept: dict[str, Tensor] = {}

    def read(self, key: str, slot: State) -> Any:
        if key not in self.kept:
            shape = () if slot.per in ("tensor", "group", "model") else seen(slot, self.w)
            given = isinstance(slot.init, str)
            self.kept[key] = fresh(slot, self.w) if given else torch.full(shape, slot.init, dtype=self.w.dtype)
        return self.kept[key]

    def write(self, key: str, slot: State, value: Any) -> None:
        if slot.format == "sign":
            value = torch.where(value > 0, 1.0, -1.0)
        self.kept[key] = torch.as_tensor(value, dtype=self.w.dtype)


@pytest.mark.parametrize("name", slalom.list_optimizers())
def test_the_text_on_tensors_equals_the_traced_program(name: str) -> None:
    recipe = method(name).recipe()
    if isinstance(recipe, ByRole):
        recipe = recipe.of("matrix")
    w = torch.nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
    direct, store = w.detach().clone(), Tensors(w.detach().clone())
    optimizer = recipe.build([w])
    sizes: dict[str, Any] = {"rows": 4.0, "columns": 3.0, "size": 12.0}
    for t in range(1, 6):
        grad = torch.randn(4, 3, dtype=torch.float64)
        w.grad = grad.clone()
        go(optimizer, 1.0 + t)
        store.w = direct
        direct = recipe.run(
            Signals.start(direct, grad, t=float(t), clock=float(t), ndim=2, loss=1.0 + t, **sizes),  # type: ignore[arg-type]
            store,
        )
        torch.testing.assert_close(w.detach(), direct, rtol=1e-13, atol=1e-15)


def test_a_norm_over_the_model_is_over_all_of_it() -> None:
    shapes = [(3, 4), (5,), (), (2, 2, 3)]
    params = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimizer = Recipe(gradient=ClipNorm(0.5), step=1.0).build([{"params": params[:2]}, {"params": params[2:]}])
    for p in params:
        p.grad = torch.randn_like(p)
    expected = [p.grad.clone() for p in params]  # type: ignore[union-attr]
    length = torch.nn.utils.get_total_norm(expected)
    optimizer.step()
    for p, g in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), -g * 0.5 / length)


def test_roles_share_what_is_over_the_model() -> None:
    matrix, vector = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(3))
    recipe = ByRole(
        matrix=Recipe(gradient=ClipNorm(1.0), momentum=Ema(0.0), step=1.0),
        rest=Recipe(gradient=ClipNorm(1.0), step=1.0),
    )
    optimizer = quietly(lambda: recipe.build([matrix, vector]))
    matrix.grad, vector.grad = torch.full((2, 2), 3.0), torch.full((3,), 4.0)
    optimizer.step()
    length = (4 * 9 + 3 * 16) ** 0.5
    torch.testing.assert_close(matrix.detach(), -torch.full((2, 2), 3.0 / length))
    torch.testing.assert_close(vector.detach(), -torch.full((3,), 4.0 / length))


def test_clipping_per_tensor_and_per_group() -> None:
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    for per, expected in (("tensor", [-1.0, -1.0, -1.0]), ("group", [-0.6, -0.8, -1.0])):
        optimizer = Recipe(
            gradient=ClipNorm(1.0, per), step=1.0
        ).build(  # type: ignore[arg-type]
            [{"params": params[:2]}, {"params": params[2:]}]
        )
        for p, value in zip(params, (3.0, 4.0, 7.0), strict=True):
            p.data.zero_()
            p.grad = torch.tensor([value])
        optimizer.step()
        torch.testing.assert_close(torch.cat([p.detach() for p in params]), torch.tensor(expected))


def test_model_state_is_one_tensor_and_read_before_it_is_written() -> None:
    class Count(Momentum):
        """Adds to every direction what the whole model has summed so far, before this step."""

        c = State(per="model")

        def apply(self, x: Signals, s: Memory) -> Signals:
            before = s.c
            s.c = before + total(x.grad, "model")
            return x.replace(direction=x.grad + before)

    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = Recipe(momentum=Count(), step=1.0).build(params)
    for _ in range(2):
        for p in params:
            p.grad = torch.ones(1)
        optimizer.step()
    assert len({id(optimizer.state[p]["count.c"]) for p in params}) == 1
    assert optimizer.state[params[0]]["count.c"].item() == 6.0
    for p in params:  # -(1 + 0) - (1 + 3): nobody saw the sum of the step under way
        assert p.item() == -5.0


@pytest.mark.parametrize("executor", ["eager", "foreach", "native"])
def test_a_state_that_moves_into_another_is_read_before_it_is_overwritten(executor: Any) -> None:
    class Queue(Momentum):
        """The gradient of two steps ago, written in the order that would lose it."""

        newest = State()
        oldest = State()

        def apply(self, x: Signals, s: Memory) -> Signals:
            newest, oldest = s.newest, s.oldest
            s.newest = x.grad
            s.oldest = newest
            return x.replace(direction=oldest)

    w = torch.nn.Parameter(torch.zeros(2))
    optimizer = slalom.Optimizer([w], Recipe(momentum=Queue(), step=1.0), executor=executor)
    ends = []
    for value in (1.0, 2.0, 3.0, 4.0):
        w.grad = torch.full((2,), value)
        optimizer.step()
        ends.append(w[0].item())
    assert ends == [0.0, 0.0, -1.0, -3.0]


def test_only_the_chosen_branch_is_computed() -> None:
    calls = []
    optimizer = slalom.SOAP([torch.nn.Parameter(torch.randn(3, 3))], frequency=4)
    w = optimizer.param_groups[0]["params"][0]
    real = torch.linalg.qr

    def counted(x: Tensor) -> Any:
        calls.append(x)
        return real(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.linalg, "qr", counted)
        for _ in range(9):
            w.grad = torch.randn(3, 3)
            optimizer.step()
    assert len(calls) == 4  # two factors, refreshed at steps 5 and 9


def test_state_that_does_not_fit_its_declaration_is_refused() -> None:
    class Wrong(Momentum):
        """Writes a value per element where it declared one per row."""

        r = State(per="row")

        def apply(self, x: Signals, s: Memory) -> Signals:
            s.r = x.grad
            return x

    class Unreduced(Momentum):
        """Writes one tensor's value into what the model shares."""

        c = State(per="model")

        def apply(self, x: Signals, s: Memory) -> Signals:
            s.c = total(x.grad)
            return x

    w = torch.nn.Parameter(torch.ones(2, 2))
    w.grad = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"wrong\.r is declared per row"):
        Recipe(momentum=Wrong()).build([w]).step()
    with pytest.raises(ValueError, match=r"unreduced\.c is declared per model"):
        Recipe(momentum=Unreduced()).build([w]).step()


def test_nan_and_infinity_reach_only_their_own_coordinate() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = build("adamw", [w])
    w.grad = torch.tensor([float("nan"), 1.0, float("inf")])
    optimizer.step()
    assert torch.isnan(w[0])
    assert torch.isfinite(w[1])


def test_complex_parameters_are_pairs_of_reals() -> None:
    w = torch.nn.Parameter(torch.randn(3, dtype=torch.complex128))
    pairs = torch.nn.Parameter(torch.view_as_real(w.detach()).clone())
    ours, reference = slalom.AdamW([w], lr=0.1), slalom.AdamW([pairs], lr=0.1)
    for _ in range(3):
        w.grad = torch.randn(3, dtype=torch.complex128)
        pairs.grad = torch.view_as_real(w.grad).clone()
        ours.step()
        reference.step()
    torch.testing.assert_close(torch.view_as_real(w.detach()), pairs.detach(), rtol=0, atol=0)
    ours.load_state_dict(ours.state_dict())


def test_sparse_gradients_are_refused_with_a_sentence() -> None:
    layer = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = slalom.AdamW(layer.named_parameters())
    layer(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match='"weight" has a sparse gradient'):
        optimizer.step()


def test_scalars_of_a_formula_are_not_baked_in() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = slalom.AdamW([w])
    for lr in (0.1, 0.01, 0.001):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.param_groups[0]["betas"] = (1 - lr, 1 - lr / 2)
        w.grad = torch.ones(2)
        optimizer.step()
    (programs,) = optimizer._programs.values()
    assert len(programs) == 1


_: Value  # the vocabulary's type is public


class Waiting:
    """A batch that has one number to add to each of some sums over the model or over its group."""

    def __init__(self, group: int, sums: list[tuple[str, str, str]], share: float) -> None:
        self.group, self.share = group, share
        self.sums = [Expr(op, attrs={"label": label, "per": per}) for label, op, per in sums]
        self.told: dict[str, float] = {}

    def crossings(self) -> list[Expr]:
        return self.sums

    def reduce(self, label: str) -> float:
        assert label not in self.told
        return self.share

    def resolve(self, label: str, value: float) -> None:
        self.told[label] = value

    def finish(self) -> list[Any]:
        return []


def test_sums_wait_for_all_who_take_part_and_groups_have_their_own() -> None:
    a, b, c = ("a", "total", "model"), ("b", "total", "group"), ("c", "largest", "model")
    batches = [Waiting(0, [b, c], 1.0), Waiting(1, [a, b, c], 2.0), Waiting(1, [b], 4.0), Waiting(1, [], 8.0)]
    run(batches)
    assert [batch.told for batch in batches] == [{"b": 1.0, "c": 2.0}, {"a": 2.0, "b": 6.0, "c": 2.0}, {"b": 6.0}, {}]


@pytest.mark.parametrize("shares", [(1.0, math.nan), (math.nan, 1.0), (1.0, torch.tensor(math.nan))], ids=str)
def test_the_largest_of_all_is_nan_whoever_has_it(shares: tuple[Any, Any]) -> None:
    batches = [Waiting(0, [("a", "largest", "model")], share) for share in shares]
    run(batches)
    assert all(math.isnan(batch.told["a"]) for batch in batches)


def test_numbers_of_the_host_and_of_a_device_are_added_in_double_precision() -> None:
    batches = [Waiting(0, [("a", "total", "model")], share) for share in (torch.tensor(2.0**24), 1.0)]
    run(batches)
    assert float(batches[0].told["a"]) == 2**24 + 1


def test_conflicting_orders_of_sums_are_refused() -> None:
    a, b = ("a", "total", "model"), ("b", "total", "model")
    with pytest.raises(RuntimeError, match=r"conflicting orders: \['a', 'b'\]"):
        run([Waiting(0, [a, b], 1.0), Waiting(0, [b, a], 2.0)])


def test_the_latest_count_is_a_number_unless_it_waits_elsewhere() -> None:
    found = latest([torch.tensor(3.0), torch.tensor(5.0)])
    assert (type(found), found, latest([])) == (float, 5.0, 0.0)
    assert latest([torch.tensor(3.0), torch.tensor(5.0, device="meta")]).device.type == "meta"
