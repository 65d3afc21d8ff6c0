"""The contracts themselves: each a claim, and a few lines that fail where it is not kept."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from slalom.testing.conformance import Factory, contract

Optimizer = torch.optim.Optimizer


def _parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(4, 3), (5,), (2, 3, 2, 2)]
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def _go(optimizer: Optimizer, loss: float = 0.1) -> None:
    """Take a step, with a loss if the optimizer says that it needs one."""
    if getattr(optimizer, "needs_loss", False):
        optimizer.step(lambda: loss)
    else:
        optimizer.step()


def _step(optimizer: Optimizer, number: int, *, scale: float = 1.0, loss: float = 0.1) -> None:
    """Take a step with gradients that depend on its number alone."""
    for place, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        generator = torch.Generator().manual_seed(97 * number + place)
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(p.dtype)
    _go(optimizer, loss)


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _fill(parameters: list[nn.Parameter], number: int) -> None:
    """Set the gradients that `_step` gives to these parameters."""
    for place, p in enumerate(parameters):
        generator = torch.Generator().manual_seed(97 * number + place)
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def _equal(a: list[nn.Parameter], b: list[nn.Parameter], what: str) -> None:
    for p, q in zip(a, b, strict=True):
        assert torch.equal(p, q), f"{what}: parameters differ by up to {(p - q).abs().max().item():.2g}"


def _close(a: list[nn.Parameter], b: list[nn.Parameter], what: str) -> None:
    for p, q in zip(a, b, strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6), (
            f"{what}: parameters differ by up to {(p - q).abs().max().item():.2g}"
        )


def _saved(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


@contract("direction", "on a quadratic it lowers the loss")
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


@contract("closure-name", "step takes one optional argument, and it is called closure")
def closure_name(make: Factory) -> None:
    optimizer = make(_parameters())
    spec = inspect.signature(optimizer.step).parameters
    assert "closure" in spec, f"the arguments of step are called {list(spec)}"
    assert spec["closure"].default is None, "closure must be optional"
    optimizer.step(closure=None)


@contract("closure-once", "a closure runs once, with gradients enabled, before any gradient is read; its value returns")
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


@contract("no-gradient", "a parameter without gradient neither moves nor gets state")
def no_gradient(make: Factory) -> None:
    moved, still = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = make([moved, still])
    moved.grad = torch.ones(3)
    _go(optimizer)
    assert torch.equal(still, torch.ones(3)), "it moved"
    assert not optimizer.state.get(still), f"it has state: {list(optimizer.state[still])}"


@contract("late-gradient", "a parameter whose gradient comes late takes a correct first step")
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


@contract("zero-gradient", "gradients that are zero from the start make no nan")
def zero_gradient(make: Factory) -> None:
    w = nn.Parameter(torch.ones(3, 2))
    optimizer = make([w])
    for _ in range(3):
        w.grad = torch.zeros(3, 2)
        _go(optimizer)
    assert torch.isfinite(w).all(), "the parameter is no longer finite"


@contract("gradients-kept", "gradients are never written to, with weight decay and maximize neither")
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


@contract("shapes", "scalars, single elements, empty tensors and kernels all take steps")
def shapes(make: Factory) -> None:
    for shape in ((), (1,), (0,), (0, 3), (1, 4), (4, 1), (2, 3, 2, 2)):
        w = nn.Parameter(torch.randn(shape))
        optimizer = make([w])
        for _ in range(2):
            w.grad = torch.randn(shape)
            _go(optimizer)
        assert torch.isfinite(w).all(), f"shape {shape} is no longer finite"


@contract("strides", "a parameter that is not contiguous moves like one that is")
def strides(make: Factory) -> None:
    plain = nn.Parameter(torch.randn(4, 3))
    strided = nn.Parameter(plain.detach().t().contiguous().t())
    for w in (plain, strided):
        optimizer = make([w])
        for number in range(3):
            _step(optimizer, number)
    _close([plain], [strided], "layouts disagree")


@contract("groups-complete", "every group holds every hyper-parameter, as plain values")
def groups_complete(make: Factory) -> None:
    optimizer = make([{"params": [nn.Parameter(torch.ones(2))]}, {"params": [nn.Parameter(torch.ones(2))], "lr": 0.5}])
    for group in optimizer.param_groups:
        missing = set(optimizer.defaults) - set(group)
        assert not missing, f"a group lacks {sorted(missing)}"
    assert optimizer.param_groups[1]["lr"] == 0.5, "the group's own rate was lost"


@contract("live-rate", "a rate that is assigned holds from the next step, and a scheduler's too")
def live_rate(make: Factory) -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = make([w])
    _step(optimizer, 0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0)
    before = w.detach().clone()
    _step(optimizer, 1)
    schedule.step()
    assert torch.equal(w, before), "a rate of 0 moved the parameter"


@contract("idle-step", "a rate of 0 and a gradient of 0 change no parameter, as distributed checkpoints rely on")
def idle_step(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    before = [p.detach().clone() for p in parameters]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    _step(optimizer, 0, scale=0.0)
    for p, old in zip(parameters, before, strict=True):
        assert torch.equal(p, old), "it changed a parameter"


@contract("state-plain", "state is tensors and numbers under string keys, and loads with weights_only")
def state_plain(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    _step(optimizer, 0)
    for state in optimizer.state_dict()["state"].values():
        for key, value in state.items():
            assert isinstance(key, str), f"the key {key!r} is no string"
            assert isinstance(value, (Tensor, int, float)), f"{key} is a {type(value).__name__}"
    _saved(optimizer.state_dict())


@contract("state-at-once", "all state of a parameter is there after its first step; none comes later")
def state_at_once(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    _step(optimizer, 0)
    first = {p: set(optimizer.state.get(p, {})) for p in parameters}
    for number in range(1, 12):
        _step(optimizer, number)
    for p in parameters:
        late = set(optimizer.state.get(p, {})) - first[p]
        assert not late, f"{sorted(late)} came later"


@contract("load-exact", "loading restores every value and dtype of bfloat16 parameters' state")
def load_exact(make: Factory) -> None:
    parameters = _parameters(torch.bfloat16)
    optimizer = make(parameters)
    _step(optimizer, 0)
    _step(optimizer, 1)
    before = {p: dict(optimizer.state[p]) for p in parameters if p in optimizer.state}
    again = make(parameters)
    again.load_state_dict(_saved(optimizer.state_dict()))
    for p, state in before.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                now = again.state[p][key]
                assert now.dtype == value.dtype, f"{key} was {value.dtype}, is {now.dtype}"
                assert torch.equal(now, value), f"{key} has other values"
    _step(again, 2)


@contract("resume", "a run that is saved and resumed ends in the same bits")
def resume(make: Factory) -> None:
    whole, parts = _parameters(), _parameters()
    one, first = make(whole), make(parts)
    for number in range(8):
        _step(one, number)
    for number in range(3):
        _step(first, number)
    second = make(parts)
    second.load_state_dict(_saved(first.state_dict()))
    for number in range(3, 8):
        _step(second, number)
    _equal(whole, parts, "the resumed run is another one")


@contract("load-copies", "loading leaves the given dictionary alone, also after further steps")
def load_copies(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    _step(optimizer, 0)
    state = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(state)
    again = make(parameters)
    again.load_state_dict(state)
    _step(again, 1)
    for key, values in kept["state"].items():
        for name, value in values.items():
            same = torch.equal(value, state["state"][key][name]) if isinstance(value, Tensor) else True
            assert same, f"{name} in the given dictionary changed"


@contract("load-fresh", "a state that was saved before the first step loads")
def load_fresh(make: Factory) -> None:
    parameters = _parameters()
    make(parameters).load_state_dict(_saved(make(parameters).state_dict()))


@contract("load-refuses", "a checkpoint with other parameters is refused and changes nothing")
def load_refuses(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    _step(optimizer, 0)
    other = make([nn.Parameter(torch.ones(2))])
    _step(other, 0)
    keys = {p: set(optimizer.state.get(p, {})) for p in parameters}
    try:
        optimizer.load_state_dict(other.state_dict())
    except Exception:
        assert {p: set(optimizer.state.get(p, {})) for p in parameters} == keys, "refusing it changed the state"
        return
    raise AssertionError("it was accepted")


@contract("copies", "deepcopy and pickle go on alike")
def copies(make: Factory) -> None:
    copiers: list[Any] = [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))]
    for copier in copiers:
        parameters = _parameters()
        optimizer = make(parameters)
        _step(optimizer, 0)
        others, other = copier((parameters, optimizer))
        _step(optimizer, 1)
        _step(other, 1)
        _equal(parameters, others, "the copy goes another way")


@contract("added-group", "a group that is added later starts at its own first step")
def added_group(make: Factory) -> None:
    old, new, alone = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = make([old])
    for number in range(4):
        old.grad = torch.full((2,), 1.0 + number)
        _go(optimizer)
    optimizer.add_param_group({"params": [new]})
    old.grad, new.grad, alone.grad = torch.ones(2), torch.full((2,), 0.5), torch.full((2,), 0.5)
    _go(optimizer)
    _go(make([alone]))
    _close([new], [alone], "its first step is another one")


@contract("two-groups", "two groups equal two optimizers")
def two_groups(make: Factory) -> None:
    together, apart = _parameters()[:2], _parameters()[:2]
    one = make([{"params": [together[0]], "lr": 0.01}, {"params": [together[1]], "lr": 0.02}])
    two = [make([apart[0]], lr=0.01), make([apart[1]], lr=0.02)]
    for number in range(4):
        for place, (p, q) in enumerate(zip(together, apart, strict=True)):
            generator = torch.Generator().manual_seed(31 * number + place)
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        _go(one)
        for optimizer in two:
            _go(optimizer)
    _close(together, apart, "they disagree")


@contract("one-each", "one optimizer per parameter equals one for all")
def one_each(make: Factory) -> None:
    together, apart = _parameters(), _parameters()
    one = make(together)
    each = [make([p]) for p in apart]
    for number in range(4):
        _step(one, number)
        _fill(apart, number)
        for optimizer in each:
            _go(optimizer)
    _close(together, apart, "they disagree")


@contract("named", "named parameters are accepted and their names kept")
def named(make: Factory) -> None:
    model = nn.Linear(3, 2)
    optimizer = make(model.named_parameters())
    names = [name for group in optimizer.param_groups for name in group.get("param_names", [])]
    assert sorted(names) == ["bias", "weight"], f"the groups know the names {names}"


@contract("hooks", "step hooks run once per step, before and after")
def hooks(make: Factory) -> None:
    optimizer = make(_parameters())
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    _step(optimizer, 0)
    assert seen == ["pre", "post"], f"they ran as {seen}"


@contract("subclass", "a dynamic subclass works, as Lightning makes one")
def subclass(make: Factory) -> None:
    optimizer = make(_parameters())
    cls = type("Lightning" + type(optimizer).__name__, (type(optimizer),), {})
    changed: Any = object.__new__(cls)
    changed.__dict__.update(optimizer.__dict__)
    _step(changed, 0)


@contract("tensor-rate", "a learning rate may be a tensor")
def tensor_rate(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    lr = float(make(_parameters()).param_groups[0]["lr"])
    one, other = make(a, lr=lr), make(b, lr=torch.tensor(lr, dtype=torch.float64))
    for number in range(3):
        _step(one, number)
        _step(other, number)
    _close(a, b, "a tensor is another rate")


@contract("maximize", "maximize=True equals minimizing the negative")
def maximize(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    up, down = make(a, maximize=True), make(b)
    for number in range(3):
        _step(up, number, loss=-0.1)
        _step(down, number, scale=-1.0)
    _close(a, b, "they disagree")


@contract("strict", "an argument that does not exist is refused")
def strict(make: Factory) -> None:
    try:
        make(_parameters(), wieght_decay=0.1)
    except TypeError:
        return
    raise AssertionError("wieght_decay=0.1 was accepted")


@contract("ranges", "a negative learning rate is refused")
def ranges(make: Factory) -> None:
    make(_parameters(), lr=1.0)
    try:
        make(_parameters(), lr=-1.0)
    except Exception:  # some libraries have errors of their own for this
        return
    raise AssertionError("lr=-1.0 was accepted")


@contract("nan-stays", "nan in one tensor's gradient does not reach another tensor")
def nan_stays(make: Factory) -> None:
    sick, healthy = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = make([sick, healthy])
    sick.grad, healthy.grad = torch.tensor([1.0, float("nan"), 1.0]), torch.ones(3)
    _go(optimizer)
    assert torch.isfinite(healthy).all(), "the other tensor is no longer finite"


@contract("scaler", "a step that a GradScaler skips changes nothing, and one that it takes is the unscaled one")
def scaler(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    optimizer, plain = make(a), make(b)
    amp = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        _backward(amp.scale(factor * torch.stack([(p**2).sum() for p in a]).sum()))
        amp.step(optimizer)
        amp.update()
    for p in b:
        p.grad = 2 * p.detach()
    _go(plain)
    _close(a, b, "the scaled step is another one")


@contract("complex", "complex parameters step like pairs of reals, or are refused")
def complex_pairs(make: Factory) -> None:
    w = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    pairs = nn.Parameter(torch.view_as_real(w.detach()).clone())
    try:
        optimizer = make([w])
        w.grad = torch.randn(3, dtype=torch.complex64)
        _go(optimizer)
    except Exception as error:
        if isinstance(error, (RuntimeError, ValueError, TypeError)) or "complex" in str(error).lower():
            return
        raise
    pairs.grad = torch.view_as_real(w.grad).clone()
    _go(make([pairs]))
    assert torch.allclose(torch.view_as_real(w.detach()), pairs, rtol=1e-4, atol=1e-6), "it is another step"


@contract("sparse", "a sparse gradient is used as its dense form would be, or refused with an error that says so")
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
