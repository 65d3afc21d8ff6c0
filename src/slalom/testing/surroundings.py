"""More contracts, with what surrounds a step: autograd, layouts, schedules, hooks, checkpoints of other ages."""

from __future__ import annotations

import copy
import gc
import inspect
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from slalom.testing.conformance import Factory, contract
from slalom.testing.contracts import _backward, _close, _equal, _fill, _go, _parameters, _step

# --- parameters and gradients -----------------------------------------------------------------------------------


@contract("bad-params", "no parameters, no tensors, results of operations, and a parameter in two groups are refused")
def bad_params(make: Factory) -> None:
    p = nn.Parameter(torch.ones(2))
    cases: dict[str, Any] = {
        "an empty list": [],
        "a number": [1.0],
        "the result of an operation": [p * 2],
        "a parameter in two groups": [{"params": [p]}, {"params": [p]}],
        "a bare tensor": p,
    }
    for what, given in cases.items():
        try:
            make(given)
        except (TypeError, ValueError):
            continue
        raise AssertionError(f"{what} was accepted")


@contract("in-place", "parameters stay the same tensors in the same memory, leaves that require gradients")
def in_place(make: Factory) -> None:
    parameters = _parameters()
    before = [(p, p.data_ptr()) for p in parameters]
    optimizer = make(parameters)
    with torch.enable_grad():
        _step(optimizer, 0)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for p, place in before:
        assert id(p) in held, "a parameter was replaced"
        assert p.data_ptr() == place, "a parameter moved in memory"
        assert p.is_leaf, "a parameter is no leaf any more"
        assert p.requires_grad, "a parameter needs no gradient any more"
    for state in optimizer.state.values():
        for key, value in state.items():
            assert not (isinstance(value, Tensor) and value.requires_grad), f"{key} is part of a graph"


@contract("autograd-told", "a backward through values from before the step is refused, not computed with new ones")
def autograd_told(make: Factory) -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = make([w])
    for _ in range(5):  # a method may look around first
        loss, before = (w**3).sum(), w.detach().clone()
        w.grad = torch.ones(2)
        _go(optimizer)
        if not torch.equal(w, before):
            break
    try:
        _backward(loss)
    except RuntimeError:
        return
    raise AssertionError("autograd was not told that the parameter changed")


@contract("gradient-strides", "gradients of other layouts, expanded ones too, count as their values")
def gradient_strides(make: Factory) -> None:
    plain, other = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    one, two = make([plain]), make([other])
    row = torch.tensor([0.5, -1.0, 2.0])
    for layout in (row.expand(4, 3), torch.arange(12.0).reshape(3, 4).t(), torch.ones(4, 6)[:, ::2]):
        plain.grad, other.grad = layout.clone(memory_format=torch.contiguous_format), layout
        _go(one)
        _go(two)
    _close([plain], [other], "layouts disagree")


@contract("mixed-dtypes", "parameters of different dtypes share a group, and each keeps its own")
def mixed_dtypes(make: Factory) -> None:
    kinds = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
    together = [nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3).to(kind)) for kind in kinds]
    apart = [nn.Parameter(p.detach().clone()) for p in together]
    one, each = make(together), [make([p]) for p in apart]
    for number in range(2):
        for p, q in zip(together, apart, strict=True):
            p.grad = torch.full_like(p, 0.5 + number)
            q.grad = p.grad.clone()
        _go(one)
        for optimizer in each:
            _go(optimizer)
    for p, q, kind in zip(together, apart, kinds, strict=True):
        assert p.dtype == kind, f"a {kind} parameter became {p.dtype}"
        assert torch.isfinite(p).all(), f"the {kind} parameter is no longer finite"
        assert torch.allclose(p, q, rtol=1e-2, atol=1e-3), f"the {kind} parameter steps otherwise than alone"


@contract("tall-wide", "matrices of every proportion take steps, and are finite after them")
def tall_wide(make: Factory) -> None:
    shapes = [(7, 2), (2, 7), (1, 5), (5, 1), (1, 1), (3, 3)]
    parameters = [
        nn.Parameter(torch.linspace(-1, 1, rows * columns).reshape(rows, columns)) for rows, columns in shapes
    ]
    optimizer = make(parameters)
    for number in range(12):
        _step(optimizer, number)
    for p in parameters:
        assert torch.isfinite(p).all(), f"the one of shape {tuple(p.shape)} is not finite"


@contract("zero-values", "parameters that begin as zeros, as biases do, stay finite")
def zero_values(make: Factory) -> None:
    parameters = [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(()))]
    optimizer = make(parameters)
    for number in range(4):
        _step(optimizer, number)
    assert all(torch.isfinite(p).all() for p in parameters), "they do not"


@contract("gradients-freed", "once they are cleared, nothing holds the memory of a step's gradients")
def gradients_freed(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    for number in range(3):
        _step(optimizer, number)
    held = [weakref.ref(p.grad.untyped_storage()) for p in parameters if p.grad is not None]
    optimizer.zero_grad(set_to_none=True)
    gc.collect()
    assert all(one() is None for one in held), "a gradient is still there"


@contract("begin-anew", "an optimizer whose state was cleared goes on like a new one")
def begin_anew(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    used = make(a)
    for number in range(3):
        _step(used, number)
    used.state.clear()
    with torch.no_grad():
        for p, q in zip(a, b, strict=True):
            q.copy_(p)
    new = make(b)
    for number in range(3, 5):
        _step(used, number)
        _step(new, number)
    _close(a, b, "they disagree")
    assert len(used.state) == len(new.state), "its state is kept elsewhere"


@contract("frozen", "a parameter that requires no gradient may be in the list, and stays")
def frozen(make: Factory) -> None:
    # small and for some steps: methods that find their own rate, or rectify it, begin with steps of next to nothing
    moving, still = nn.Parameter(torch.full((3,), 1e-6)), nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = make([moving, still])
    for _ in range(8):
        optimizer.zero_grad()
        _backward((moving * still).sum())
        _go(optimizer)
    assert torch.equal(still, torch.ones(3)), "it moved"
    assert not torch.equal(moving, torch.full((3,), 1e-6)), "its neighbour did not move"


@contract("order", "the order of the parameters does not matter")
def order(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    one, other = make(a), make(b[::-1])
    for number in range(3):
        for parameters in (a, b):
            _fill(parameters, number)
        _go(one)
        _go(other)
    _close(a, b, "they disagree")


@contract("deterministic", "the same run twice ends in the same bits")
def deterministic(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    for parameters in (a, b):
        torch.manual_seed(5)
        optimizer = make(parameters)
        for number in range(4):
            _step(optimizer, number)
    _equal(a, b, "they disagree")


@contract("default-dtype", "torch.set_default_dtype changes nothing for parameters of another dtype")
def default_dtype(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    one = make(a)
    for number in range(3):
        _step(one, number)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        other = make(b)
        for number in range(3):
            for place, p in enumerate(b):
                generator = torch.Generator().manual_seed(97 * number + place)
                p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            _go(other)
    finally:
        torch.set_default_dtype(kept)
    assert all(p.dtype == torch.float32 for p in b), "the dtype of a parameter changed"
    _close(a, b, "it is another run")


# --- groups, rates, schedules -----------------------------------------------------------------------------------


@contract("group-rate", "a group whose rate is 0 stays while another moves")
def group_rate(make: Factory) -> None:
    moving, still = nn.Parameter(torch.full((3,), 1e-6)), nn.Parameter(torch.ones(3))
    optimizer = make([{"params": [moving]}, {"params": [still], "lr": 0.0}])
    for number in range(8):
        _step(optimizer, number)
    assert torch.equal(still, torch.ones(3)), "the group with rate 0 moved"
    assert not torch.equal(moving, torch.full((3,), 1e-6)), "the other group did not move"


@contract("schedules", "torch's schedules drive it: step, one cycle with momentum, plateau, and one after the other")
def schedules(make: Factory) -> None:
    def one_cycle(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        cycles = "momentum" in optimizer.defaults or "betas" in optimizer.defaults
        return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8, cycle_momentum=cycles)

    def sequence(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        parts: list[Any] = [lr_scheduler.LinearLR(optimizer), lr_scheduler.CosineAnnealingLR(optimizer, 4)]
        return lr_scheduler.SequentialLR(optimizer, parts, [2])

    def plateau(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)

    builders: list[Any] = [lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5), one_cycle, sequence, plateau]
    for build in builders:
        parameters = _parameters()
        optimizer = make(parameters)
        schedule = build(optimizer)
        first = float(optimizer.param_groups[0]["lr"])
        for number in range(4):
            given = float(optimizer.param_groups[0]["lr"])
            _step(optimizer, number)
            assert float(optimizer.param_groups[0]["lr"]) == given, f"a step changed {type(schedule).__name__}'s rate"
            schedule.step(*([1.0] if build is plateau else []))
        assert float(optimizer.param_groups[0]["lr"]) != first, f"{type(schedule).__name__} changed no rate"
        assert all(torch.isfinite(p).all() for p in parameters), f"not finite under {type(schedule).__name__}"


@contract("rate-kept", "a rate that is a tensor is not written to, and is its group's own")
def rate_kept(make: Factory) -> None:
    lr = torch.tensor(0.01)
    optimizer = make([{"params": [p]} for p in _parameters()], lr=lr)
    for number in range(2):
        _step(optimizer, number)
    assert float(lr) == torch.tensor(0.01).item(), "the tensor changed"
    again = make([{"params": [p]} for p in _parameters()], lr=lr.clone())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _step(again, 2)


@contract("zero-grad", "zero_grad clears gradients, to None or to zeros as it is asked")
def zero_grad(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    assert "set_to_none" in inspect.signature(optimizer.zero_grad).parameters, "set_to_none is no argument"
    _step(optimizer, 0)
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in parameters), "gradients are not zero"
    optimizer.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in parameters), "gradients are not None"


# --- hooks and printing -----------------------------------------------------------------------------------------


@contract("hooks-global", "hooks for all optimizers run once per step, around its own, and can be removed")
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


@contract("state-hooks", "hooks of state_dict and load_state_dict run once, and what they return counts")
def state_hooks(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    _step(optimizer, 0)
    seen: list[str] = []

    def returned(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        seen.append("saved")
        return {**state, "extra": 1}

    def changed(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        seen.append("load")
        groups = [{**group, "lr": 0.125} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    optimizer.register_state_dict_pre_hook(lambda _: seen.append("save"))
    optimizer.register_state_dict_post_hook(returned)
    state = optimizer.state_dict()
    assert state.get("extra") == 1, "what the hook of state_dict returned was dropped"
    again = make(parameters)
    again.register_load_state_dict_pre_hook(changed)
    again.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    again.load_state_dict(state)
    assert seen == ["save", "saved", "load", "loaded"], f"they ran as {seen}"
    assert float(again.param_groups[0]["lr"]) == 0.125, "what the hook of load_state_dict returned was dropped"


@contract("printing", "it can be printed, before and after steps")
def printing(make: Factory) -> None:
    optimizer = make(_parameters())
    name = type(optimizer).__name__
    for _ in range(2):
        assert len(repr(optimizer)) > len(name) // 2, "it prints as nothing"
        _step(optimizer, 0)


@contract("no-loss", "a step without closure returns None, and a closure may return a plain number")
def no_loss(make: Factory) -> None:
    optimizer = make(_parameters())
    _step(optimizer, 0)
    if not getattr(optimizer, "needs_loss", False):
        plain: Any = optimizer.step()
        assert plain is None, f"it returned {plain!r}"
    assert optimizer.step(lambda: 1.5) == 1.5, "the closure's number was lost"


# --- checkpoints of other ages ----------------------------------------------------------------------------------


@contract("load-older", "a checkpoint from before torch's flags existed loads, and steps")
def load_older(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    _step(optimizer, 0)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        for key in ("foreach", "fused", "capturable", "differentiable", "param_names"):
            group.pop(key, None)
    again = make(parameters)
    again.load_state_dict(state)
    _step(again, 1)


@contract("load-step", "step counts that were saved as plain numbers load")
def load_step(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    optimizer, twin = make(a), make(b)
    for number in range(2):
        _step(optimizer, number)
        _step(twin, number)
    state = copy.deepcopy(optimizer.state_dict())
    for entry in state["state"].values():
        if isinstance(entry.get("step"), Tensor):
            entry["step"] = float(entry["step"])
    again = make(a)
    again.load_state_dict(state)
    _step(again, 2)
    _step(twin, 2)
    _equal(a, b, "the next step is another one")


@contract("load-names", "checkpoints with and without parameter names load into each other")
def load_names(make: Factory) -> None:
    model = nn.Linear(3, 2)
    for source, target in ((model.named_parameters, model.parameters), (model.parameters, model.named_parameters)):
        one = make(source())
        _step(one, 0)
        other = make(target())
        other.load_state_dict(copy.deepcopy(one.state_dict()))
        held = {p: set(state) for p, state in one.state.items()}
        assert held == {p: set(state) for p, state in other.state.items()}, "state was lost"
        _step(other, 1)


@contract("copy-attributes", "a deep copy has every public attribute")
def copy_attributes(make: Factory) -> None:
    optimizer = make(_parameters())
    _step(optimizer, 0)
    public = {name for name in vars(optimizer) if not name.startswith("_")}
    copied = {name for name in vars(copy.deepcopy(optimizer)) if not name.startswith("_")}
    assert public == copied, f"the copy lacks {sorted(public - copied)}"
