"""What gradients do over a run: they stay away, come late, go, are zero, lie in the same memory, are sparse."""

from __future__ import annotations

import gc
import inspect
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from slalom.testing.conformance import Factory, contract
from slalom.testing.driving import _close, _equal, _fill, _go, _parameters, _step

Everything = list[tuple[str, Tensor]]


def _everything(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> Everything:
    """Return copies of parameters and of what is kept for them."""
    found = []
    for place, p in enumerate(parameters):
        found.append((f"parameter {place}", p.detach().clone()))
        kept = optimizer.state.get(p, {})
        found += [(f"{key} of parameter {place}", torch.as_tensor(v).clone()) for key, v in kept.items() if _plain(v)]
    return found


def _plain(value: Any) -> bool:
    return isinstance(value, (Tensor, int, float))


def _unchanged(before: Everything, after: Everything, when: str) -> None:
    assert [name for name, _ in before] == [name for name, _ in after], f"{when}, state came or went"
    for (name, old), (_, new) in zip(before, after, strict=True):
        assert torch.equal(old, new), f"{when}, {name} changed"


@contract(
    "no-gradient",
    "a parameter without gradient neither moves nor gets state",
    why="layers that a batch does not reach (experts, LoRA under dropout, frozen parts) must not decay",
)
def no_gradient(make: Factory) -> None:
    moved, still = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = make([moved, still])
    moved.grad = torch.ones(3)
    _go(optimizer)
    assert torch.equal(still, torch.ones(3)), "it moved"
    assert not optimizer.state.get(still), f"it has state: {list(optimizer.state[still])}"


@contract(
    "no-gradients",
    "a step without any gradient changes nothing, before and after other steps",
    why="what an accumulation loop or a skipped batch leaves behind",
)
def no_gradients(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    for when in ("before the first one", "after three"):
        optimizer.zero_grad(set_to_none=True)
        before = _everything(optimizer, parameters)
        _go(optimizer)
        _unchanged(before, _everything(optimizer, parameters), when)
        for number in range(3):
            _step(optimizer, number)


@contract(
    "gradient-gone",
    "a parameter whose gradient goes away rests: neither momentum nor decay moves it",
    why="taking None for zero lets weights drift that nothing trains",
)
def gradient_gone(make: Factory) -> None:
    for settings in ({}, {"weight_decay": 0.1}):
        parameters = _parameters()
        try:
            optimizer = make(parameters, **settings)
        except (TypeError, ValueError):
            continue  # it has no such argument
        for number in range(3):
            _step(optimizer, number)
        before = parameters[0].detach().clone()
        for number in range(3, 5):
            _fill(parameters, number)
            parameters[0].grad = None
            _go(optimizer)
        assert torch.equal(parameters[0], before), f"it moved, with {settings or 'the defaults'}"


@contract(
    "late-gradient",
    "a parameter whose gradient comes late takes a correct first step",
    why="with counts per group an unfrozen layer began with steps up to 16 times wrong, in 42 classes of one library",
)
def late_gradient(make: Factory) -> None:
    late, other, fresh = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    shared = make([late, other])
    for _ in range(5):
        other.grad = torch.ones(2)
        _go(shared)
    alone = make([fresh])
    late.grad, fresh.grad = torch.full((3,), 0.5), torch.full((3,), 0.5)
    _go(shared)
    _go(alone)
    _close([late], [fresh], "the late first step is another one")


@contract(
    "zero-gradient",
    "gradients that are zero from the start make no nan",
    why="rows of padding and dead units have none, and 0 / 0 is nan for good",
)
def zero_gradient(make: Factory) -> None:
    w = nn.Parameter(torch.ones(3, 2))
    optimizer = make([w])
    for _ in range(3):
        w.grad = torch.zeros(3, 2)
        _go(optimizer)
    assert torch.isfinite(w).all(), "the parameter is no longer finite"


@contract(
    "zero-still",
    "gradients that are zero from the start move nothing, if there is no weight decay",
    why="a division by its own size makes a step out of nothing",
)
def zero_still(make: Factory) -> None:
    parameters = _parameters()
    decays = [name for name in inspect.signature(make).parameters if name.endswith("weight_decay")]
    optimizer = make(parameters, **dict.fromkeys(decays, 0.0))
    before = [p.detach().clone() for p in parameters]
    for number in range(4):
        _step(optimizer, number, scale=0.0)
    for p, old in zip(parameters, before, strict=True):
        assert torch.equal(p, old), f"one moved by up to {(p - old).abs().max().item():.2g}"


@contract(
    "zero-later",
    "gradients that become zero leave everything finite",
    why="a masked loss, a gate that closes: averages run towards 0 / 0",
)
def zero_later(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    for number in range(33):
        _step(optimizer, number, scale=float(number < 3))
    assert all(torch.isfinite(p).all() for p in parameters), "a parameter is no longer finite"


@contract(
    "gradients-kept",
    "gradients are never written to, with weight decay and maximize neither",
    why="logging, accumulation, a second optimizer and a step that is tried again read them afterwards",
)
def gradients_kept(make: Factory) -> None:
    for settings in ({}, {"maximize": True}, {"weight_decay": 0.1}):
        parameters = _parameters()
        try:
            optimizer = make(parameters, **settings)
        except (TypeError, ValueError):
            continue  # it has no such argument
        kept = [torch.randn_like(p) for p in parameters]
        for p, g in zip(parameters, kept, strict=True):
            p.grad = g.clone()
        _go(optimizer)
        for p, g in zip(parameters, kept, strict=True):
            assert p.grad is not None
            assert torch.equal(p.grad, g), f"a gradient was changed in place, with {settings or 'the defaults'}"


@contract(
    "gradient-reused",
    "gradients that are written anew into the same memory count as what they are then",
    why="zero_grad(set_to_none=False) and buckets of DistributedDataParallel write where the last ones were",
)
def gradient_reused(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    fresh, reused = make(a), make(b)
    for q in b:
        q.grad = torch.zeros_like(q)
    for number in range(5):
        _step(fresh, number)
        for p, q in zip(a, b, strict=True):
            assert p.grad is not None
            assert q.grad is not None
            q.grad.copy_(p.grad)
        _go(reused)
        for q in b:
            q.grad.zero_()  # type: ignore[union-attr]
    _equal(a, b, "something of the last gradients was kept by reference")


@contract(
    "gradient-strides",
    "gradients of other layouts, expanded ones too, count as their values",
    why="sums and broadcasts hand over expanded gradients",
)
def gradient_strides(make: Factory) -> None:
    plain, other = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    one, two = make([plain]), make([other])
    row = torch.tensor([0.5, -1.0, 2.0])
    for layout in (row.expand(4, 3), torch.arange(12.0).reshape(3, 4).t(), torch.ones(4, 6)[:, ::2]):
        plain.grad, other.grad = layout.clone(memory_format=torch.contiguous_format), layout
        _go(one)
        _go(two)
    _close([plain], [other], "layouts disagree")


@contract(
    "gradients-freed",
    "once they are cleared, nothing holds the memory of a step's gradients",
    why="one set of gradients more is as much memory as the model",
)
def gradients_freed(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    for number in range(3):
        _step(optimizer, number)
    held = [weakref.ref(p.grad.untyped_storage()) for p in parameters if p.grad is not None]
    optimizer.zero_grad(set_to_none=True)
    if any(one() is not None for one in held):
        gc.collect()  # a cycle may hold them a little longer
    assert all(one() is None for one in held), "a gradient is still there"


@contract(
    "zero-grad",
    "zero_grad clears gradients, to None or to zeros as it is asked",
    why="trainers look for the argument in the signature",
)
def zero_grad(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    assert "set_to_none" in inspect.signature(optimizer.zero_grad).parameters, "set_to_none is no argument"
    _step(optimizer, 0)
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in parameters), "gradients are not zero"
    optimizer.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in parameters), "gradients are not None"


@contract(
    "sparse",
    "a sparse gradient is used as its dense form would be, or refused with an error that says so",
    why="a row that a batch uses twice has two gradients, which add up before anything is squared",
)
def sparse(make: Factory) -> None:
    layer = nn.Embedding(5, 2, sparse=True)
    optimizer = make(layer.parameters())
    before = layer.weight.detach().clone()
    layer(torch.tensor([1, 1])).sum().backward()
    try:
        _go(optimizer)
    except Exception as error:
        if "sparse" not in str(error).lower():
            raise
        assert torch.equal(layer.weight, before), "it was refused after the parameter had changed"
        return
    assert not torch.equal(layer.weight[1], before[1]), "the row with a gradient did not move"
    dense = nn.Embedding(5, 2)
    dense.weight.data.copy_(before)
    dense(torch.tensor([1, 1])).sum().backward()
    twin = make(dense.parameters())
    try:
        twin.step()
    except RuntimeError:
        return  # made for sparse gradients alone
    alike = torch.allclose(layer.weight[1], dense.weight[1], rtol=1e-4, atol=1e-6)
    assert alike, "a row that occurs twice steps otherwise than with a dense gradient: sum duplicates first"
