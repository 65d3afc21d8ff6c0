"""Bad gradients: found whatever their dtype, named, and kept away from every parameter and every state."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import slalom
import slalom.optimizer.nonfinite
from networks import build, go, largest_difference, network, train, twins
from slalom import Recipe, list_optimizers
from slalom.engine import finite
from slalom.errors import UsageError
from slalom.optimizer.nonfinite import all_finite
from test_mixed_precision import assert_untouched, everything

NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=["compiled", "lists"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to look: compiled C, and what runs on other devices and without a compiler."""
    if request.param == "lists":
        monkeypatch.setattr(slalom.optimizer.nonfinite, "finite", lambda tensors: None)
    chosen: str = request.param
    return chosen


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_bad_value_is_found_wherever_it_is(dtype: torch.dtype, bad: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (1, 7, 64, 4097):
        place = int(torch.randint(size, (), generator=generator))
        gradient = torch.zeros(size, dtype=dtype)
        assert all_finite([gradient, None, torch.zeros(0, 3)])
        gradient[place] = bad
        assert not all_finite([torch.ones(3), gradient])
        assert not all_finite([gradient.expand(2, size)[:, ::1]])
    if dtype.is_complex:
        assert not all_finite([torch.tensor([complex(0.0, bad)], dtype=dtype)])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_as_large_as_they_come_are_finite(dtype: torch.dtype) -> None:
    """The quick test overflows here; the slow one behind it decides."""
    assert all_finite([torch.full((9,), torch.finfo(dtype).max, dtype=dtype), torch.ones(2)])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_bad_value_is_found_at_every_border_of_the_work(threads: int) -> None:
    """The compiled pass cuts tensors into units and shares those among threads."""
    torch.set_num_threads(threads)
    tensors = [torch.ones(n) for n in (5, 3 * 32768, 0, 32769, 1, 70000)]
    assert all_finite(tensors)
    for tensor in tensors:
        for place in {0, 1, 32767, 32768, 65536, len(tensor) - 1}:
            if 0 <= place < len(tensor):
                tensor[place] = NAN
                assert not all_finite(tensors)
                tensor[place] = 1.0
    assert all_finite([*tensors, torch.ones(3, dtype=torch.float64), torch.ones(2).bfloat16()])
    assert not all_finite([*tensors, torch.ones(3, dtype=torch.float64), torch.full((2,), INF).bfloat16()])
    assert all_finite([])


def test_without_a_compiler_it_looks_through_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slalom.engine.native.scan._bad", lambda: None)
    assert finite([torch.ones(2)]) is None
    assert not all_finite([torch.tensor([NAN])])


@pytest.mark.parametrize("name", list_optimizers())
def test_a_skipped_step_touches_nothing_in_any_group(name: str) -> None:
    """The first step, where state would be created, and a later one, in a group whose own gradients are fine."""
    model = network(torch.float32, kernels=False)
    params = list(model.parameters())
    optimizer = build(name, [{"params": params[:3]}, {"params": params[3:]}], on_nonfinite="skip")
    for step in (0, 3):
        before = everything(optimizer)
        for p in params:
            p.grad = torch.ones_like(p)
        params[-1].grad[0] = NAN if step else INF  # type: ignore[index]
        go(optimizer)
        assert_untouched(before, optimizer)
        train(model, optimizer, 8, first=step)  # rectified methods stand still at first
        assert not torch.equal(before[0][1], params[0])
    assert optimizer.skipped == 2


def test_a_run_with_skipped_steps_is_the_run_without_them() -> None:
    model, plain = twins(torch.float32)
    optimizer = slalom.RAdam(model.parameters(), on_nonfinite="skip")
    for step in range(8):
        train(model, optimizer, 1, first=step)
        for p in model.parameters():
            p.grad = torch.full_like(p, NAN)
        optimizer.step()
    train(plain, slalom.RAdam(plain.parameters()), 8)
    assert largest_difference(model, plain) == 0
    assert optimizer.skipped == 8


def test_raise_names_parameter_step_and_share_and_changes_nothing() -> None:
    model = network(torch.float32)
    optimizer = slalom.AdamW(model.named_parameters(), on_nonfinite="raise")
    train(model, optimizer, 6)
    before = everything(optimizer)
    weight = model[4].weight  # 6 x 12
    weight.grad[0, :9] = NAN
    with pytest.raises(FloatingPointError, match=r'^step 7: .* "4.weight" is not finite in 9 of 72 values \(12.5 %\);'):
        optimizer.step()
    model[4].bias.grad[0] = INF
    with pytest.raises(FloatingPointError, match="nor is that of 1 other parameter; nothing was changed"):
        optimizer.step()
    assert_untouched(before, optimizer)
    train(model, optimizer, 1)


def test_unnamed_parameters_are_told_by_place_and_shape() -> None:
    w = nn.Parameter(torch.ones(2, 3))
    optimizer = slalom.SGD([nn.Parameter(torch.ones(1)), w], on_nonfinite="raise")
    w.grad = torch.full((2, 3), NAN)
    with pytest.raises(FloatingPointError, match=r"step 1: .* number 1 of shape \(2, 3\) .* 6 of 6 values \(100 %\)"):
        optimizer.step()


def test_ignore_is_the_default_and_takes_the_step_as_torch_does() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = slalom.SGD([w], lr=1.0)
    w.grad = torch.tensor([NAN, 1.0])
    optimizer.step()
    assert w.isnan().tolist() == [True, False]
    assert optimizer.skipped == 0


def test_the_choice_is_live_and_travels_with_copies() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = slalom.SGD([w], lr=1.0)
    optimizer.on_nonfinite = "skip"
    w.grad = torch.tensor([NAN, 1.0])
    optimizer.step()
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert (copied.on_nonfinite, copied.skipped) == ("skip", 1)
    old = optimizer.__getstate__()
    del old["on_nonfinite"], old["skipped"]
    restored = copy.copy(optimizer)
    restored.__dict__.clear()
    restored.__setstate__(old)
    assert (restored.on_nonfinite, restored.skipped) == ("ignore", 0)


def test_every_way_to_build_takes_the_choice() -> None:
    w = [nn.Parameter(torch.ones(2))]
    assert slalom.create("lion", w, on_nonfinite="raise").on_nonfinite == "raise"
    assert slalom.Optimizer(w, Recipe(step=0.1), on_nonfinite="skip").on_nonfinite == "skip"
    with pytest.raises(UsageError, match=r'on_nonfinite has no choice "stop"\. There are: ignore, raise, skip'):
        slalom.AdamW(w, on_nonfinite="stop")  # type: ignore[arg-type]


def test_ranks_can_be_made_to_agree() -> None:
    """A rank whose own gradients are fine skips with the others; in both modes."""

    class Sharded(slalom.AdamW):
        def _agree_to_refuse(self, refuse: bool) -> bool:
            assert not refuse
            return True  # another rank has seen nan

    w = nn.Parameter(torch.ones(2))
    optimizer = Sharded([w], on_nonfinite="skip")
    w.grad = torch.ones(2)
    optimizer.step()
    assert w.tolist() == [1.0, 1.0]
    assert not optimizer.state
    optimizer.on_nonfinite = "raise"
    with pytest.raises(FloatingPointError, match="on another rank"):
        optimizer.step()


def test_a_sparse_bad_gradient_is_found_too() -> None:
    layer = nn.Embedding(4, 2, sparse=True)
    optimizer: Any = slalom.SGD(layer.parameters(), on_nonfinite="skip")
    (layer(torch.tensor([1, 1])) * NAN).sum().backward()
    optimizer.step()
    assert optimizer.skipped == 1
