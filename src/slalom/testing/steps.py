"""What a step is: its closure, its hooks, its direction, what it may not do."""

from __future__ import annotations

import inspect
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from slalom.testing.conformance import Factory, contract
from slalom.testing.driving import _backward, _close, _equal, _fill, _go, _parameters, _step

# Arguments that choose who computes, not what.
_IMPLEMENTATIONS: Final[tuple[dict[str, Any], ...]] = (
    {"foreach": False},
    {"foreach": True},
    {"fused": True},
    {"executor": "eager"},
    {"executor": "foreach"},
)


@contract(
    "direction",
    "on a quadratic it lowers the loss",
    why="a sign error is the first thing that goes wrong when a formula is typed in",
)
def direction(make: Factory) -> None:
    w = nn.Parameter(torch.tensor([2.0, -3.0]))
    optimizer = make([w])
    before = (w**2).sum().item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = (w**2).sum()
        _backward(loss)
        _go(optimizer, loss.item())
    assert (w**2).sum().item() < before, "100 steps did not lower the loss"


@contract(
    "closure-name",
    "step takes one optional argument, and it is called closure",
    why="distributed checkpoints and Lightning hand it over by this name",
)
def closure_name(make: Factory) -> None:
    optimizer = make(_parameters())
    spec = inspect.signature(optimizer.step).parameters
    assert "closure" in spec, f"the arguments of step are called {list(spec)}"
    assert spec["closure"].default is None, "closure must be optional"
    optimizer.step(closure=None)


@contract(
    "closure-once",
    "a closure runs once, with gradients enabled, before any gradient is read; its value returns",
    why="Lightning runs forward and backward in it: under no_grad, twice or too late that is other gradients",
)
def closure_once(make: Factory) -> None:
    parameters, twins = _parameters(), _parameters()
    optimizer, plain = make(parameters), make(twins)
    calls = []

    def closure() -> Tensor:
        assert torch.is_grad_enabled(), "the closure ran without gradients"
        optimizer.zero_grad()
        loss: Tensor = sum((p**2).sum() for p in parameters)  # type: ignore[assignment]
        _backward(loss)
        calls.append(loss)
        return loss

    with torch.no_grad():
        returned: Any = optimizer.step(closure)  # type: ignore[arg-type]
    assert len(calls) == 1, f"the closure ran {len(calls)} times"
    assert returned is not None
    assert float(returned) == float(calls[0]), "step did not return the closure's value"
    for p in twins:
        p.grad = 2 * p.detach()
    _go(plain, float(calls[0]))
    _equal(parameters, twins, "a step with a closure is not a step with its gradients")


@contract(
    "no-loss",
    "a step without closure returns None, and a closure may return a plain number",
    why="trainers tell a loss from None",
)
def no_loss(make: Factory) -> None:
    optimizer = make(_parameters())
    _step(optimizer, 0)
    if not getattr(optimizer, "needs_loss", False):
        plain: Any = optimizer.step()
        assert plain is None, f"it returned {plain!r}"
    assert optimizer.step(lambda: 1.5) == 1.5, "the closure's number was lost"


@contract(
    "hooks",
    "step hooks run once per step, before and after",
    why="a subclass that calls its parent's step fires them twice",
)
def hooks(make: Factory) -> None:
    optimizer = make(_parameters())
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    _step(optimizer, 0)
    assert seen == ["pre", "post"], f"they ran as {seen}"


@contract(
    "hooks-global",
    "hooks for all optimizers run once per step, around its own, and can be removed",
    why="profilers and trackers register for all optimizers",
)
def hooks_global(make: Factory) -> None:
    optimizer = make(_parameters())
    seen: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: seen.append("all before")),
        register_optimizer_step_post_hook(lambda *_: seen.append("all after")),
        optimizer.register_step_pre_hook(lambda *_: seen.append("before")),
        optimizer.register_step_post_hook(lambda *_: seen.append("after")),
    ]
    try:
        _step(optimizer, 0)
    finally:
        for handle in handles:
            handle.remove()
    assert seen == ["all before", "before", "after", "all after"], f"they ran as {seen}"
    _step(optimizer, 1)
    assert len(seen) == 4, "removed hooks still run"


@contract(
    "maximize",
    "maximize=True equals minimizing the negative, with weight decay too",
    why="a flag that only some paths honour ascends there and descends elsewhere",
)
def maximize(make: Factory) -> None:
    decays = "weight_decay" in inspect.signature(make).parameters
    for settings in ({}, {"weight_decay": 0.1})[: 1 + decays]:
        a, b = _parameters(), _parameters()
        up, down = make(a, maximize=True, **settings), make(b, **settings)
        for number in range(3):
            _step(up, number, loss=-0.1)
            _step(down, number, scale=-1.0)
        _close(a, b, f"they disagree, with {settings or 'the defaults'}")


@contract(
    "nan-stays",
    "nan in one tensor's gradient does not reach another tensor",
    why="one bad layer would take the others with it",
)
def nan_stays(make: Factory) -> None:
    sick, healthy = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = make([sick, healthy])
    sick.grad, healthy.grad = torch.tensor([1.0, float("nan"), 1.0]), torch.ones(3)
    _go(optimizer)
    assert torch.isfinite(healthy).all(), "the other tensor is no longer finite"


@contract(
    "deterministic",
    "the same run twice ends in the same bits",
    why="without it no resume can be checked",
)
def deterministic(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    for parameters in (a, b):
        torch.manual_seed(5)
        optimizer = make(parameters)
        for number in range(4):
            _step(optimizer, number)
    _equal(a, b, "they disagree")


@contract(
    "implementations",
    "whichever implementation it offers (foreach, fused, an executor), steps are the same",
    why="twin paths drift: 5 of 15 methods of one library moved elsewhere with foreach, by 20 to 100 % of the way",
)
def implementations(make: Factory) -> None:
    known = inspect.signature(make).parameters
    decay = {"weight_decay": 0.1} if "weight_decay" in known else {}
    plain: list[nn.Parameter] | None = None
    for choice in ({}, *(one for one in _IMPLEMENTATIONS if set(one) <= set(known))):
        torch.manual_seed(0)
        # As matrices of full rank: roots of others magnify rounding.
        parameters = [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,), (8, 2, 2, 2))]
        try:
            optimizer = make(parameters, **choice, **decay)
            for number in range(6):
                _fill(parameters, number)
                if number in (2, 3):
                    parameters[1].grad = None
                _go(optimizer)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            if not choice:
                raise
            continue  # not here, or not for this method
        plain = plain or parameters
        _close(plain, parameters, f"with {choice} it is another run")


@contract(
    "strict",
    "an argument that does not exist is refused",
    why="wieght_decay=0.1 would train without decay: 117 of 123 classes of one library take it",
)
def strict(make: Factory) -> None:
    try:
        make(_parameters(), wieght_decay=0.1)
    except TypeError:
        return
    raise AssertionError("wieght_decay=0.1 was accepted")


@contract(
    "ranges",
    "a negative learning rate is refused",
    why="a rate below 0 ascends",
)
def ranges(make: Factory) -> None:
    make(_parameters(), lr=1.0)
    try:
        make(_parameters(), lr=-1.0)
    except Exception:  # some libraries have errors of their own for this
        return
    raise AssertionError("lr=-1.0 was accepted")


@contract(
    "subclass",
    "a dynamic subclass works, as Lightning makes one",
    why="Lightning makes one of every optimizer",
)
def subclass(make: Factory) -> None:
    optimizer = make(_parameters())
    cls = type("Lightning" + type(optimizer).__name__, (type(optimizer),), {})
    changed: Any = object.__new__(cls)
    changed.__dict__.update(optimizer.__dict__)
    _step(changed, 0)


@contract(
    "printing",
    "it can be printed, before and after steps",
    why="notebooks and logs do it unasked",
)
def printing(make: Factory) -> None:
    optimizer = make(_parameters())
    name = type(optimizer).__name__
    for _ in range(2):
        assert len(repr(optimizer)) > len(name) // 2, "it prints as nothing"
        _step(optimizer, 0)
