"""A scaler that leaves its verdict and the scale to the step: to kernels that read them on the device, or by copies."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import slalom
from networks import build
from test_mixed_precision import assert_untouched, everything
from test_native import lists
from test_triton import needs_triton

Scaler = torch.amp.GradScaler
SHAPES: list[tuple[int, ...]] = [(3, 4), (5,), (), (4, 2, 3, 3)]


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every optimizer say that its step honours a scaler; whatever then runs must."""
    monkeypatch.setattr(slalom.Optimizer, "_step_supports_amp_scaling", True)


def fill(parameters: list[nn.Parameter], step: int, scale: float = 1.0) -> None:
    """Give parameters the gradients of a step, multiplied."""
    for place, p in enumerate(parameters):
        generator = torch.Generator().manual_seed(100 * step + place)
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(p)


def ready(scale: float) -> Scaler:
    """A scaler that has made its scale, which the first loss does."""
    scaler = Scaler("cpu", init_scale=scale)
    scaler.scale(torch.ones(()))
    return scaler


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("executor", ["eager", "foreach", "auto"])
@pytest.mark.parametrize("name", ["adamw", "prodigy", "lamb", "adafactor", "muon", "soap", "schedule-free-adamw"])
def test_a_step_that_is_left_the_scale_is_the_unscaled_step_and_writes_no_gradient(name: str, executor: str) -> None:
    """A scale of a power of two costs no bit, so equality is exact."""
    ours, theirs = lists(SHAPES, torch.float32), lists(SHAPES, torch.float32)
    groups = [{"params": ours[:2]}, {"params": ours[2:]}]
    optimizer, reference = build(name, groups, executor=executor), build(name, theirs, executor=executor)
    scaler = ready(2.0**10)
    for step in range(4):
        scale = scaler.get_scale()
        fill(ours, step, scale)
        before = everything(optimizer)
        if step in (0, 2):
            ours[-1].grad.view(-1)[0] = float("nan" if step else "inf")  # type: ignore[union-attr]
        given = [p.grad.clone() for p in ours if p.grad is not None]
        scaler.step(optimizer)
        scaler.update()
        torch.testing.assert_close([p.grad for p in ours], given, rtol=0, atol=0, equal_nan=True)
        if step in (0, 2):
            assert_untouched(before, optimizer)
            continue
        fill(theirs, step)
        reference.step()
    for (key, a), (_, b) in zip(everything(optimizer), everything(reference), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.usefixtures("trusting")
def test_sparse_gradients_and_blocks_are_unscaled_too() -> None:
    def rows(step: int, scale: float) -> Tensor:
        values = torch.randn(3, 3, generator=torch.Generator().manual_seed(step))
        return torch.sparse_coo_tensor(torch.tensor([[1, 4, 1]]), scale * values, (6, 3), check_invariants=True)

    def dense(step: int, scale: float) -> Tensor:
        return scale * torch.randn(6, 3, generator=torch.Generator().manual_seed(step))

    for gradient, blocks in ((rows, None), (dense, 3)):
        p, q = (nn.Parameter(torch.ones(6, 3)) for _ in range(2))
        ours, theirs = (slalom.Adagrad([{"params": [one], "blocks": blocks}], lr=0.1) for one in (p, q))
        scaler = ready(8.0)
        for step in range(3):
            p.grad, q.grad = gradient(step, 8.0), gradient(step, 1.0)
            scaler.step(ours)
            scaler.update()
            theirs.step()
            assert torch.equal(p, q), step


def test_only_a_scaler_that_steps_is_told_that_the_step_sees_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning asks too, and refuses to clip if so, even where no scaler is."""
    monkeypatch.setattr(slalom.Optimizer, "_stepped_unread", lambda self: True)
    (w,) = lists([(3, 4)], torch.float32)
    optimizer = slalom.SGD([w], lr=1.0)
    assert not optimizer._step_supports_amp_scaling
    scaler = ready(4.0)
    left: list[Any] = []
    optimizer.register_step_pre_hook(lambda *_: left.append("found_inf" in vars(optimizer)))
    for given in ({}, {"clip": lambda: None}):
        fill([w], 0, 4.0)
        scaler.step(optimizer, **given)  # type: ignore[arg-type]
        scaler.update()
    assert left == [True, False]  # a clip is shown unscaled gradients, which the scaler makes


def test_what_runs_on_a_cpu_leaves_both_to_the_scaler() -> None:
    (w,) = lists([(3, 4)], torch.float32)
    optimizer, scaler = slalom.AdamW([w]), ready(4.0)
    called: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: called.append(1))
    for step, factor in enumerate((1.0, 1.0, float("inf"))):
        fill([w], step, factor)
        scaler.step(optimizer)
        scaler.update()
    assert len(called) == 2


def test_a_step_that_fails_forgets_what_the_scaler_left() -> None:
    """torch takes it back only from a step that ends; the next one would divide by a scale of long ago."""
    (w,) = lists([(3, 4)], torch.float32)
    optimizer = slalom.SGD([w], lr=1.0)

    def left() -> None:
        w.grad = torch.full_like(w, 8.0)
        vars(optimizer).update(found_inf=torch.zeros(()), grad_scale=torch.tensor(8.0))

    left()
    with pytest.raises(RuntimeError, match=r"clip would see gradients that are still scaled: call scaler.unscale_"):
        optimizer.step(clip=lambda: None)
    assert not {"found_inf", "grad_scale"} & vars(optimizer).keys()
    before = w.detach().clone()
    optimizer.step()
    assert torch.equal(w, before - 8.0)
    left()
    optimizer.step()
    assert torch.equal(w, before - 9.0)


def test_skipped_steps_that_nobody_counted_yet_are_counted_when_asked_for() -> None:
    (w,) = lists([(3, 4)], torch.float32)
    optimizer = slalom.SGD([w])
    optimizer._skipped = torch.tensor(3) + torch.tensor([True])[0]
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert copied.skipped == 4
    optimizer.skipped += 1
    assert optimizer.skipped == 5


# Element-wise; sums over the model; rows and columns; products between kernels.
UNREAD = ("sgd", "prodigy", "adafactor", "muon")
READ = ("soap", "sgd-on-skip")

SCRIPT = (
    f"UNREAD, READ = {UNREAD}, {READ}"
    + """
import sys
import torch, slalom
sys.path.insert(0, "tests")
from slalom.optimizer.closures import Scaled
from networks import build
from test_mixed_precision import assert_untouched, everything
from test_native import lists
from test_scaled import SHAPES, fill, ready

def read(self):
    raise AssertionError("somebody read the verdict")

honest, Scaled.overflowed = Scaled.overflowed, read

for name in UNREAD:
    ours, theirs = lists(SHAPES[:2], torch.float32), lists(SHAPES[:2], torch.float32)
    a = build(name, [{"params": ours[:1]}, {"params": ours[1:]}], executor="triton")
    b = build(name, [{"params": theirs[:1]}, {"params": theirs[1:]}], executor="triton")
    scaler, ends = ready(2.0**10), []
    a.register_step_post_hook(lambda *_: ends.append(1))
    for step in range(5):
        fill(ours, step, scaler.get_scale())
        if step == 2:
            ours[-1].grad.view(-1)[3] = float("inf")
            for shared in {value for o in (a, b) for state in o.state.values() for value in state.values()
                           if value.dtype == torch.float64}:
                shared *= 2  # what the model has in common is not what the last step left, and must stay so
        before = everything(a)
        if step == 3:
            scaler.unscale_(a)
        given = [p.grad.clone() for p in ours]
        scaler.step(a)
        scaler.update()
        if step:
            torch.testing.assert_close([p.grad for p in ours], given, rtol=0, atol=0)
        if step == 2:
            assert_untouched(before, a)
        else:
            fill(theirs, step)
            b.step()
    assert len(ends) == 5, "the step was not left to itself"
    assert scaler.get_scale() == 2.0**9
    # without a scaler gradients are what they are again
    for parameters, optimizer in ((ours, a), (theirs, b)):
        fill(parameters, 9)
        optimizer.step()
    for (key, x), (_, y) in zip(everything(a), everything(b), strict=True):
        assert torch.equal(x, y), key
    print("ok", name)

for name in READ:
    more = {"on_nonfinite": "skip"} if name.endswith("-on-skip") else {}
    ours = lists(SHAPES[:2], torch.float32)
    a = build(name.removesuffix("-on-skip"), ours, executor="triton", **more)
    scaler, ends = ready(4.0), []
    a.register_step_post_hook(lambda *_: ends.append(1))
    for step in range(3):
        fill(ours, step, float("inf") if step == 2 else 1.0)
        scaler.step(a)
        scaler.update()
    assert (len(ends), a.skipped) == (2, 0), name
    print("ok", name)

# a closure under a scaler waits for nothing either, unless somebody wants to know
w, v = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
a, b = (slalom.AdamW([p], executor="triton") for p in (w, v))
scaler = ready(2.0**8)
for step in range(6):
    factor = float("inf") if step in (2, 4) else 1.0 + step
    loss = a.step(lambda: factor * w.square().sum(), scaler=scaler)
    if step not in (2, 4):
        v.grad = None
        (factor * v.square().sum()).backward()
        b.step()
    assert isinstance(a._skipped, torch.Tensor) == (step > 0)
assert torch.equal(w, v) and a.skipped == 2
a.step(lambda: w.square().sum(), scaler=scaler, clip=lambda: torch.nn.utils.clip_grad_norm_([w], 1.0))
assert isinstance(a._skipped, int)

# a crew that cannot do it after all, since a gradient is sparse now, reads
Scaled.overflowed = honest
w = torch.nn.Parameter(torch.ones(4, 2))
a = slalom.SGD([w], lr=1.0, executor="triton")
for step in range(2):
    w.grad = torch.full((4, 2), 0.25)
    ready(1.0).step(a)
w.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.full((1, 2), 4.0), (4, 2))
ready(8.0).step(a)
assert w.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.5, 0.5], [0.5, 0.5]]
print("ok the rest")
"""
)


@needs_triton
def test_kernels_honour_a_verdict_and_a_scale_that_nobody_reads() -> None:
    """Through the interpreter: nothing changes on an overflow, and else all bits are those of the unscaled step."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("ok ") == len(UNREAD) + len(READ) + 1
