"""What is kept, saved and restored, and copied."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from slalom.testing.conformance import Factory, contract
from slalom.testing.driving import _close, _equal, _parameters, _saved, _step


@contract(
    "state-plain",
    "state is tensors and numbers under string keys, of parameters alone, and loads with weights_only",
    why="torch.load reads nothing else since 2.6, and trainers save with it; what hangs on no parameter is dropped",
)
def state_plain(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    _step(optimizer, 0)
    for owner in optimizer.state:
        assert any(owner is p for p in parameters), f"the state of {str(owner)[:20]!r} is no parameter's"
    for state in optimizer.state_dict()["state"].values():
        for key, value in state.items():
            assert isinstance(key, str), f"the key {key!r} is no string"
            assert isinstance(value, (Tensor, int, float)), f"{key} is a {type(value).__name__}"
    _saved(optimizer.state_dict())


@contract(
    "state-at-once",
    "all state of a parameter is there after its first step; none comes later",
    why="distributed checkpoints drop what came later",
)
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


@contract(
    "begin-anew",
    "an optimizer whose state was cleared goes on like a new one",
    why="what is kept beside the state belongs to a model that is gone",
)
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


@contract(
    "load-exact",
    "loading restores every value and dtype of bfloat16 parameters' state",
    why="torch's loader casts state to the dtype of the parameter: float32 averages, counters and codes are destroyed",
)
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


@contract(
    "resume",
    "a run that is saved and resumed ends in the same bits",
    why="a run that was killed is to be the same run",
)
def resume(make: Factory) -> None:
    whole = _parameters()
    one = make(whole)
    for number in range(8):
        _step(one, number)
    for stop in (3, 4):  # some do other things in odd steps than in even ones
        parts = _parameters()
        first = make(parts)
        for number in range(stop):
            _step(first, number)
        second = make(parts)
        second.load_state_dict(_saved(first.state_dict()))
        for number in range(stop, 8):
            _step(second, number)
        _equal(whole, parts, f"the run that was resumed after step {stop} is another one")


@contract(
    "load-copies",
    "loading leaves the given dictionary alone, also after further steps",
    why="the checkpoint in memory would change while the run goes on",
)
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


@contract(
    "load-fresh",
    "a state that was saved before the first step loads",
    why="Accelerate saves and loads before the first step",
)
def load_fresh(make: Factory) -> None:
    parameters = _parameters()
    make(parameters).load_state_dict(_saved(make(parameters).state_dict()))


@contract(
    "load-refuses",
    "a checkpoint with other parameters is refused and changes nothing",
    why="half a checkpoint is worse than none",
)
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


@contract(
    "load-older",
    "a checkpoint from before torch's flags existed loads, and steps",
    why="a flag that a later version adds is not in a checkpoint of last year",
)
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


@contract(
    "load-step",
    "step counts that were saved as plain numbers load",
    why="counts were numbers before they were tensors",
)
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


@contract(
    "load-names",
    "checkpoints with and without parameter names load into each other",
    why="the run that saved may have given names",
)
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


@contract(
    "state-hooks",
    "hooks of state_dict and load_state_dict run once, and what they return counts",
    why="libraries rename and move state there",
)
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


@contract(
    "modes",
    "where it has train and eval, a run that is saved in either mode goes on alike",
    why="saving for evaluation is when averages are in place: the run must still know where it was",
)
def modes(make: Factory) -> None:
    if not all(callable(getattr(make(_parameters()), mode, None)) for mode in ("train", "eval")):
        return
    for mode in ("train", "eval"):
        a = _parameters()
        one: Any = make(a)
        one.train()
        for number in range(4):
            _step(one, number)
        getattr(one, mode)()
        b = [nn.Parameter(p.detach().clone()) for p in a]
        other: Any = make(b)
        other.load_state_dict(_saved(one.state_dict()))
        for optimizer in (one, other):
            optimizer.train()
        for number in range(4, 7):
            _step(one, number)
            _step(other, number)
        _equal(a, b, f"saved in {mode} mode it goes another way")


@contract(
    "distributed-checkpoint",
    "torch's state dictionaries for distributed checkpoints, flat ones too, restore it",
    why="FSDP and torchtitan save through them",
)
def distributed_checkpoint(make: Factory) -> None:
    from torch.distributed.checkpoint import state_dict as distributed

    for flat in (False, True):
        options = distributed.StateDictOptions(flatten_optimizer_state_dict=flat)
        models = [nn.Linear(3, 2), nn.Linear(3, 2)]
        models[1].load_state_dict(models[0].state_dict())
        one, other = (make(model.parameters()) for model in models)
        for number in range(3):
            _step(one, number)
        one.zero_grad(set_to_none=True)
        saved = copy.deepcopy(distributed.get_optimizer_state_dict(models[0], one, options=options))
        models[1].load_state_dict(models[0].state_dict())
        distributed.set_optimizer_state_dict(models[1], other, saved, options=options)
        for number in range(3, 5):
            _step(one, number)
            _step(other, number)
        shape = "flat" if flat else "nested"
        a, b = (list(model.parameters()) for model in models)
        _close(a, b, f"restored from the {shape} one it goes another way")


@contract(
    "copies",
    "deepcopy and pickle go on alike",
    why="torch copies groups and state alone: every other attribute is lost without a word",
)
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


@contract(
    "copy-attributes",
    "a deep copy has every public attribute",
    why="torch copies groups and state alone",
)
def copy_attributes(make: Factory) -> None:
    optimizer = make(_parameters())
    _step(optimizer, 0)
    public = {name for name in vars(optimizer) if not name.startswith("_")}
    copied = {name for name in vars(copy.deepcopy(optimizer)) if not name.startswith("_")}
    assert public == copied, f"the copy lacks {sorted(public - copied)}"
