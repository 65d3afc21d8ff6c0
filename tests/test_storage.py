"""States that are kept as bits or over another view: what goes in comes out, in every executor and through a file."""

from __future__ import annotations

import copy
import io
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import slalom
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.algebra import State, blockwise, fold, largest, mean, unfold, where
from slalom.algebra.matrix import square_shape
from slalom.engine.storage import fresh, packed, unpacked
from slalom.parts import Memory, Momentum, Signals
from test_native import drive, lists

SHAPES = [(3, 4), (5,), (), (2, 3, 2, 2), (1, 7), (7, 1), (40, 25), (3, 1100), (1031,)]


class Remembered(Momentum):
    """Moves by the sign of the gradient before this one, kept in one bit per element."""

    bit = State(format="sign")

    def apply(self, x: Signals, s: Memory) -> Signals:
        before = s.bit
        s.bit = x.grad
        return x.replace(direction=before)


class Extremes(Momentum):
    """Uses a maximum per row, per column and per tensor."""

    r = State(per="row")

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.r = largest(x.grad, "row")
        spread = largest(x.grad, "row") + largest(-x.grad, "column") + largest(x.grad)
        return x.replace(direction=x.grad + spread)


class Blocks(Momentum):
    """Uses the mean of two blocks of rows."""

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.replace(direction=x.grad - blockwise(mean(x.grad, "row"), 2))


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 64, 513])
def test_signs_survive_packing(columns: int) -> None:
    values = torch.randn(5, columns)
    values[0, 0] = 0.0
    bits = packed(values)
    assert bits.dtype == torch.uint8
    assert bits.shape == (5, -(-columns // 8))
    assert torch.equal(unpacked(bits, columns, torch.float32), where(values > 0, 1.0, -1.0))  # type: ignore[arg-type]
    assert bits[1, 0] & 1 == int(values[1, 0] > 0)  # the first sign in the lowest bit


@pytest.mark.parametrize("part", [Remembered(), Extremes(), Blocks(), P.FoldedEma(0.5), P.FoldedMoment()], ids=str)
@pytest.mark.parametrize("executor", ["native", "foreach", "eager"])
def test_every_executor_computes_the_same(part: Any, executor: Any) -> None:
    recipe = Recipe(scale=part, step=0.01) if part.slot == "scale" else Recipe(momentum=part, step=0.01)
    params, exact = lists(SHAPES, torch.float32), lists(SHAPES, torch.float64)
    optimizer, reference = slalom.Optimizer(params, recipe, executor=executor), recipe.build(exact)
    drive(optimizer, 4)
    drive(reference, 4)
    for p, q in zip(params, exact, strict=True):
        torch.testing.assert_close(p.double(), q, rtol=1e-5, atol=1e-6)
        for key, value in optimizer.state[p].items():
            if value.dtype == torch.uint8:
                assert torch.equal(value, reference.state[q][key])


@pytest.mark.parametrize("executor", ["native", "eager"])
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (2, 17)])
def test_a_maximum_keeps_nan(executor: Any, place: tuple[int, int]) -> None:
    w = torch.nn.Parameter(torch.zeros(3, 18))
    optimizer = slalom.Optimizer([w], Recipe(momentum=Extremes(), step=1.0), executor=executor)
    w.grad = torch.ones(3, 18)
    w.grad[place] = float("nan")
    optimizer.step()
    rows = optimizer.state[w]["extremes.r"]
    assert torch.isnan(rows).tolist() == [row == place[0] for row in range(3)]
    assert torch.isnan(w).all()


def test_bits_go_through_files_and_copies() -> None:
    w = torch.nn.Parameter(torch.randn(5, 13))
    optimizer = Recipe(momentum=Remembered(), step=0.1).build([w])
    drive(optimizer, 3)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    assert saved["state"][0]["remembered.bit"].dtype == torch.uint8
    other = torch.nn.Parameter(w.detach().clone())
    second = Recipe(momentum=Remembered(), step=0.1).build([other])
    second.load_state_dict(saved)
    w3, third = copy.deepcopy((w, optimizer))
    for one in (optimizer, second, third):
        drive(one, 2, seed=7)
    assert torch.equal(w, other)
    assert torch.equal(w, w3)


def test_a_checkpoint_in_another_format_is_refused() -> None:
    w = torch.nn.Parameter(torch.randn(5, 8))
    optimizer = Recipe(momentum=Remembered(), step=0.1).build([w])
    drive(optimizer, 1)
    state = optimizer.state_dict()
    state["state"][0]["remembered.bit"] = torch.ones(5, 1)
    with pytest.raises(ValueError, match=r'remembered\.bit holds float32.*format "sign"'):
        optimizer.load_state_dict(state)


def test_declarations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match='format "sign" is for a number per element'):
        State(per="row", format="sign")
    with pytest.raises(ValueError, match="a square view has elements, rows and columns only"):
        State(per="left", view="square")


def test_the_most_square_shape() -> None:
    assert [square_shape(n) for n in (0, 1, 6, 7, 36, 768, 294912)] == [
        (0, 1), (1, 1), (3, 2), (7, 1), (6, 6), (32, 24), (576, 512),
    ]  # fmt: skip
    g = torch.arange(12.0).reshape(2, 6)
    assert fold(g).shape == (4, 3)  # type: ignore[arg-type]
    assert torch.equal(unfold(fold(g), g), g)  # type: ignore[arg-type]


def test_two_views_in_one_recipe_run_in_torch_and_say_so() -> None:
    recipe = Recipe(momentum=P.FoldedEma(), regularize=P.NormLoss(0.1), step=0.1)
    params, exact = lists([(3, 4)], torch.float32), lists([(3, 4)], torch.float64)
    optimizer, reference = recipe.build(params), recipe.build(exact)
    drive(optimizer, 3)
    drive(reference, 3)
    torch.testing.assert_close(params[0].double(), exact[0], rtol=1e-5, atol=1e-6)
    assert optimizer.executors() == {"eager": "rows and columns of two views of one tensor, which torch computes"}


def test_blocks_of_rows_share_their_mean() -> None:
    x = torch.tensor([[1.0], [3.0], [5.0], [7.0], [100.0]])
    assert blockwise(x, 2).flatten().tolist() == [3.0, 3.0, 3.0, 53.5, 53.5]  # type: ignore[arg-type, attr-defined]
    assert torch.equal(blockwise(x, 9), x)  # type: ignore[arg-type]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it counts page faults in /proc")
def test_a_large_state_asks_for_large_pages() -> None:
    """A gigabyte on small pages is a quarter of a million faults, and as many entries to look rows up in."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this system has no large pages")

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    before = faults()
    state = fresh(State(init=0.5), torch.empty(1 << 24))
    assert faults() - before < (1 << 26) / 4096 / 4
    assert state.eq(0.5).all()
    assert state.shape == (1 << 24,)
