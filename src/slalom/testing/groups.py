"""What groups hold, and what schedules and users do to them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from slalom.testing.conformance import Factory, contract
from slalom.testing.driving import _close, _fill, _go, _parameters, _saved, _step


@contract(
    "groups-complete",
    "every group holds every hyper-parameter, as plain values",
    why="schedulers, checkpoints and copies see groups and nothing else",
)
def groups_complete(make: Factory) -> None:
    optimizer = make([{"params": [nn.Parameter(torch.ones(2))]}, {"params": [nn.Parameter(torch.ones(2))], "lr": 0.5}])
    for group in optimizer.param_groups:
        missing = set(optimizer.defaults) - set(group)
        assert not missing, f"a group lacks {sorted(missing)}"
    assert optimizer.param_groups[1]["lr"] == 0.5, "the group's own rate was lost"


@contract(
    "group-keys",
    "what users and schedulers write into a group is saved and restored with it",
    why="schedulers keep initial_lr there, and libraries their labels",
)
def group_keys(make: Factory) -> None:
    parameters = _parameters()

    def groups() -> list[dict[str, Any]]:
        return [{"params": parameters[:2], "label": "stem"}, {"params": parameters[2:], "label": "head"}]

    optimizer = make(groups())
    for group in optimizer.param_groups:
        group["initial_lr"], group["note"] = 0.25, group["label"]
    _step(optimizer, 0)
    again = make(groups())
    again.load_state_dict(_saved(optimizer.state_dict()))
    for group in again.param_groups:
        assert group.get("initial_lr") == 0.25, "initial_lr was lost"
        assert group.get("note") == group["label"], "a key of the user's own was lost"


@contract(
    "live-rate",
    "a rate that is assigned holds from the next step, and a scheduler's too",
    why="a rate that is read once makes every schedule a no-op",
)
def live_rate(make: Factory) -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = make([w])
    _step(optimizer, 0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0)
    before = w.detach().clone()
    _step(optimizer, 1)
    schedule.step()
    assert torch.equal(w, before), "a rate of 0 moved the parameter"


@contract(
    "group-rate",
    "a group whose rate is 0 stays while another moves",
    why="a rate of 0 is how layers are frozen by schedule",
)
def group_rate(make: Factory) -> None:
    moving, still = nn.Parameter(torch.full((3,), 1e-6)), nn.Parameter(torch.ones(3))
    optimizer = make([{"params": [moving]}, {"params": [still], "lr": 0.0}])
    for number in range(8):
        _step(optimizer, number)
    assert torch.equal(still, torch.ones(3)), "the group with rate 0 moved"
    assert not torch.equal(moving, torch.full((3,), 1e-6)), "the other group did not move"


@contract(
    "tensor-rate",
    "a learning rate may be a tensor",
    why="compiled and captured steps keep the rate in one",
)
def tensor_rate(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    lr = float(make(_parameters()).param_groups[0]["lr"])
    one, other = make(a, lr=lr), make(b, lr=torch.tensor(lr, dtype=torch.float64))
    for number in range(3):
        _step(one, number)
        _step(other, number)
    _close(a, b, "a tensor is another rate")


@contract(
    "rate-kept",
    "a rate that is a tensor is not written to, and is its group's own",
    why="a schedule writes into the tensor that it finds",
)
def rate_kept(make: Factory) -> None:
    lr = torch.tensor(0.01)
    optimizer = make([{"params": [p]} for p in _parameters()], lr=lr)
    before = [float(group["lr"]) for group in optimizer.param_groups]
    for number in range(2):
        _step(optimizer, number)
    assert float(lr) == torch.tensor(0.01).item(), "the tensor changed"
    assert [float(group["lr"]) for group in optimizer.param_groups] == before, "a step changed a group's rate"
    factors = (1.0, 0.5, 0.25)
    due = [float(group["lr"]) * factor for group, factor in zip(optimizer.param_groups, factors, strict=True)]
    lr_scheduler.LambdaLR(optimizer, [lambda _, factor=factor: factor for factor in factors])  # type: ignore[misc]
    for group, rate in zip(optimizer.param_groups, due, strict=True):
        found = float(group["lr"])
        assert abs(found - rate) <= 1e-5 * rate, f"groups share one tensor: a schedule's {rate:.4g} became {found:.4g}"
    again = make([{"params": [p]} for p in _parameters()], lr=lr.clone())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _step(again, 2)


@contract(
    "schedules",
    "torch's schedules drive it: step, one cycle with momentum, plateau, and one after the other",
    why="each of them writes rates, and some betas, its own way",
)
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


@contract(
    "idle-step",
    "a rate of 0 and a gradient of 0 change no parameter, as distributed checkpoints rely on",
    why="distributed checkpoints take such a step to make state",
)
def idle_step(make: Factory) -> None:
    parameters = _parameters()
    optimizer = make(parameters)
    before = [p.detach().clone() for p in parameters]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    _step(optimizer, 0, scale=0.0)
    for p, old in zip(parameters, before, strict=True):
        assert torch.equal(p, old), "it changed a parameter"


@contract(
    "two-groups",
    "two groups equal two optimizers",
    why="no-decay groups, layer-wise rates",
)
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


@contract(
    "one-each",
    "one optimizer per parameter equals one for all",
    why="optimizers that step inside backward are built one per parameter",
)
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


@contract(
    "added-group",
    "a group that is added later starts at its own first step",
    why="fine-tuning unfreezes layer by layer",
)
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


@contract(
    "swapped",
    "parameters that replace others in the groups are the ones that move",
    why="Accelerate replaces parameters by shards after the optimizer was made",
)
def swapped(make: Factory) -> None:
    # small: methods that find their own rate begin with steps of next to nothing
    old, new = ([nn.Parameter(torch.full_like(p, 1e-6)) for p in _parameters()] for _ in range(2))
    optimizer = make(old)
    for group in optimizer.param_groups:
        places = [next(at for at, p in enumerate(old) if p is q) for q in group["params"]]
        group["params"] = [new[place] for place in places]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as Accelerate does it then
    for number in range(8):
        _step(optimizer, number)
    for p, q in zip(old, new, strict=True):
        assert torch.equal(p, torch.full_like(p, 1e-6)), "one that is in no group any more moved"
        assert not torch.equal(q, torch.full_like(q, 1e-6)), "one that was put into its place did not"


@contract(
    "named",
    "named parameters are accepted and their names kept",
    why="checkpoints that are sorted by name need them",
)
def named(make: Factory) -> None:
    model = nn.Linear(3, 2)
    optimizer = make(model.named_parameters())
    names = [name for group in optimizer.param_groups for name in group.get("param_names", [])]
    assert sorted(names) == ["bias", "weight"], f"the groups know the names {names}"
