"""Schedules at work on optimizers: every contract of a torch scheduler, and the promises beyond."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as theirs

import slalom
from networks import network, train, twins
from rates import LR, an_optimizer, rates
from slalom.errors import UsageError
from slalom.schedules import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    LinearWarmup,
    OneCycleMomentum,
    Plateau,
    Schedule,
    Scheduler,
    Values,
    WarmRestarts,
    Wsd,
)


def test_it_is_a_torch_scheduler() -> None:
    optimizer = an_optimizer()
    scheduler = Cosine(10).attach(optimizer)
    assert isinstance(scheduler, theirs.LRScheduler)
    assert scheduler.get_last_lr() == [LR]
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [optimizer.param_groups[0]["lr"]] == [LR * Cosine(10)(1)]
    early = Cosine(10).attach(an_optimizer())
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        early.step()


def test_it_runs_inside_torchs_sequential() -> None:
    one, two = an_optimizer(), an_optimizer()
    phases = [Linear(4, end=1, start=0.5).attach(one), Cosine(6).attach(one), theirs.ExponentialLR(one, 0.5)]
    sequential = theirs.SequentialLR(one, phases, milestones=[4, 10])
    inner = [
        theirs.LinearLR(two, 0.5, total_iters=4),
        theirs.CosineAnnealingLR(two, 6),
        theirs.ExponentialLR(two, 0.5),
    ]
    expected = theirs.SequentialLR(two, inner, milestones=[4, 10])
    assert rates(one, sequential, 9) == pytest.approx(rates(two, expected, 9))
    again = copy.deepcopy(sequential.state_dict())
    rate = one.param_groups[0]["lr"]
    sequential.load_state_dict(again)
    assert one.param_groups[0]["lr"] == rate  # a phase that is not on changes nothing when it is loaded


def test_every_number_of_every_recipe_can_be_moved() -> None:
    recipe = slalom.Recipe(momentum=slalom.parts.Ema(0.8), scale=slalom.parts.SecondMoment(0.99), step=1e-2)
    model, twin = twins()
    moved, held = recipe.build(model), recipe.build(twin)
    scheduler = Scheduler(moved, {"momentum.beta": Linear(10, end=0.5), "scale.beta": Values(Constant(factor=0.9))})
    assert moved.param_groups[0]["scale.beta"] == 0.9
    for step in range(10):
        beta = moved.param_groups[0]["momentum.beta"]
        assert beta == pytest.approx(0.8 * (1 - 0.05 * step))
        # By hand: the same numbers, assigned.
        held.param_groups[0].update({"momentum.beta": beta, "scale.beta": 0.9})
        assert train(model, moved, 1, step) == train(twin, held, 1, step)
        scheduler.step()
    assert moved.param_groups[0]["lr"] == 1e-2


def test_groups_keep_their_own_rates_and_late_groups_join() -> None:
    a, b, c = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    optimizer = slalom.AdamW([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.01, "betas": (0.8, 0.99)}])
    scheduler = Scheduler(optimizer, {"lr": Linear(10), "betas.1": Linear(10, end=0.5)})
    optimizer.step()
    scheduler.step()
    optimizer.add_param_group({"params": [c], "lr": 1.0})
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.08, 0.008, 0.8])
    assert optimizer.param_groups[1]["betas"] == pytest.approx((0.8, 0.99 * 0.9))
    assert isinstance(optimizer.param_groups[1]["betas"], tuple)


def test_a_rate_that_is_a_tensor_stays_the_same_tensor() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(2))], lr=rate)
    scheduler = Linear(10).attach(optimizer)
    before = scheduler.get_last_lr()[0]
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.09)
    assert float(before) == 0.1  # what was handed out does not follow


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("weight_deca", "Did you mean weight_decay"),
        ("betas", 'as "betas.0"'),
        ("betas.2", "has no place 2"),
        ("nesterov", "not a number"),
        ("params", "no hyper-parameter"),
    ],
)
def test_what_cannot_be_moved_is_refused(name: str, sentence: str) -> None:
    optimizer = slalom.create("nadamw", [nn.Parameter(torch.zeros(2))])
    optimizer.param_groups[0]["nesterov"] = True
    with pytest.raises(UsageError, match=sentence):
        Cosine(10).attach(optimizer, name)


def test_a_switch_of_a_recipe_is_refused() -> None:
    optimizer = slalom.create("soap", network())
    switch = next(name for name, default in slalom.recipes.method("soap").defaults.items() if type(default) is int)
    with pytest.raises(UsageError, match="is a switch"):
        Cosine(10).attach(optimizer, switch)


# --- nothing is ever compiled again ----------------------------------------------------------------------


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with every trace and every build."""
    import slalom.engine.native.launch as native
    import slalom.optimizer.programs as face

    seen: list[str] = []
    trace, kernel = face.trace, native.kernel

    def traced(*arguments: Any, **keywords: Any) -> Any:
        seen.append("trace")
        return trace(*arguments, **keywords)

    def built(*arguments: Any, **keywords: Any) -> Any:
        seen.append("kernel")
        return kernel(*arguments, **keywords)

    monkeypatch.setattr(face, "trace", traced)
    monkeypatch.setattr("slalom.engine.crew.kernel", built)
    return seen


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "muon", "nadam"])
def test_a_schedule_never_rebuilds_a_kernel(name: str, builds: list[str]) -> None:
    settings = {"momentum": 0.9, "weight_decay": 0.1} if name == "sgd" else {}
    model = network(torch.float32, kernels=False)
    optimizer = slalom.create(name, model, lr=1e-3, **settings)
    plan: dict[str, Schedule | Values] = {"lr": LinearWarmup(5).then(Cosine(20))}
    group = optimizer.param_groups[0]
    if "betas" in group:
        plan["betas.0"] = Values(Linear(20, end=0.95, start=0.85))
    if group.get("weight_decay"):
        plan["weight_decay"] = Exponential(0.9)
    if "momentum" in group:
        plan["momentum"] = Linear(30, end=0.5)
    assert len(plan) > 1
    scheduler = Scheduler(optimizer, plan)
    train(model, optimizer, 1)
    scheduler.step()
    assert builds, "the first step must be seen to build"
    first = len(builds)
    for step in range(1, 24):  # up to, not including, the step whose rate is exactly 0
        train(model, optimizer, 1, step)
        scheduler.step()
    assert len(builds) == first
    train(model, optimizer, 2, 24)
    assert "trace" not in builds[first:]  # a rate of 0 is a number like any other


def test_a_decay_that_reaches_zero_brings_in_the_shorter_formula_once(builds: list[str]) -> None:
    model = network(torch.float32, kernels=False)
    optimizer = slalom.AdamW(model.parameters(), weight_decay=0.1)
    scheduler = (Linear(5).then(Constant(2, 0.0))).repeated().attach(optimizer, "weight_decay")
    for step in range(30):
        train(model, optimizer, 1, step)
        scheduler.step()
    programs = {id(program) for known in optimizer._programs.values() for program in known}
    assert len(programs) == 2


# --- going on --------------------------------------------------------------------------------------------


PLAN: dict[str, Schedule | Values] = {
    "lr": LinearWarmup(6).then(Cosine(20, end=0.1)),
    "betas.0": Values(OneCycleMomentum(30)),
    "weight_decay": Exponential(0.97),
}


def _through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("stop", [0, 3, 6, 15])
@pytest.mark.parametrize("scheduler_first", [True, False])
def test_a_resumed_run_has_the_same_bits(stop: int, scheduler_first: bool) -> None:
    model, twin = twins()
    optimizer = slalom.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    scheduler = Scheduler(optimizer, PLAN)

    def go(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Scheduler, first: int, last: int) -> Any:
        losses = []
        for step in range(first, last):
            losses += train(model, optimizer, 1, step)
            scheduler.step()
        return losses

    go(model, optimizer, scheduler, 0, stop)
    saved = _through_a_file([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()])
    expected = go(model, optimizer, scheduler, stop, 25)

    twin.load_state_dict(saved[0])
    resumed = slalom.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.1)
    if scheduler_first:
        again = Scheduler(resumed, PLAN)
        resumed.load_state_dict(saved[1])
    else:
        # The order in which torch's own schedulers silently begin with the rate of step 0.
        resumed.load_state_dict(saved[1])
        again = Scheduler(resumed, PLAN)
    again.load_state_dict(saved[2])
    assert go(twin, resumed, again, stop, 25) == expected
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("shape", ["linear", "1-sqrt", "cosine"])
def test_a_cooldown_begins_when_it_is_called_and_survives_a_checkpoint(shape: Any) -> None:
    open_end = LinearWarmup(5).then(Constant())
    optimizer = an_optimizer()
    scheduler = open_end.attach(optimizer)
    before = rates(optimizer, scheduler, 20)
    scheduler.cool_down(10, shape)
    assert optimizer.param_groups[0]["lr"] == LR
    middle = rates(optimizer, scheduler, 4)
    saved = _through_a_file([optimizer.state_dict(), scheduler.state_dict()])
    rest = rates(optimizer, scheduler, 10)

    known = Wsd(30, cooldown=10, warmup=5, shape=shape)
    assert before + middle + rest == pytest.approx([LR * known(t) for t in range(34)], rel=1e-15)
    resumed = an_optimizer()
    again = open_end.attach(resumed)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    assert rates(resumed, again, 10) == rest


def test_a_cooldown_after_the_end_or_of_a_name_that_is_not_moved() -> None:
    optimizer = an_optimizer()
    scheduler = Linear(4, end=0.5).attach(optimizer)
    rates(optimizer, scheduler, 10)
    scheduler.cool_down(5, "linear", end=0.2)
    found = rates(optimizer, scheduler, 7)
    assert found == pytest.approx([0.05 * (1 - 0.8 * min(t, 5) / 5) for t in range(7)])
    with pytest.raises(UsageError, match="this scheduler has no schedule"):
        scheduler.cool_down(5, names=["weight_decay"])


def test_a_checkpoint_of_something_else_is_refused_and_changes_nothing() -> None:
    optimizer = an_optimizer()
    scheduler = Cosine(10).attach(optimizer)
    rates(optimizer, scheduler, 3)
    before = json.dumps(scheduler.state_dict())
    for wrong in (theirs.StepLR(an_optimizer(), 3), Cosine(10).attach(an_optimizer(), "momentum")):
        with pytest.raises(UsageError, match="checkpoint"):
            scheduler.load_state_dict(wrong.state_dict())
    assert json.dumps(scheduler.state_dict()) == before


def test_restarts_forget_the_state_if_asked() -> None:
    model, twin = twins()
    optimizer, other = slalom.AdamW(model.parameters(), lr=1e-2), slalom.AdamW(twin.parameters(), lr=1e-2)
    scheduler = WarmRestarts(4).attach(optimizer, reset=True)
    plain = WarmRestarts(4).attach(other)
    for step in range(4):
        assert train(model, optimizer, 1, step) == train(twin, other, 1, step)
        scheduler.step()
        plain.step()
    assert not optimizer.state
    assert other.state
    assert optimizer.param_groups[0]["lr"] == 1e-2
    fresh = copy.deepcopy(model)
    new = slalom.AdamW(fresh.parameters(), lr=1e-2)
    assert train(model, optimizer, 1, 4) == train(fresh, new, 1, 4)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), fresh.parameters(), strict=True))
    train(twin, other, 1, 4)
    assert not all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


# --- plateaus --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_a_plateau_reduces_what_torchs_does_and_other_numbers_too(mode: Any, threshold_mode: Any) -> None:
    one, two = an_optimizer(momentum=0.9), an_optimizer(momentum=0.9)
    ours = Plateau(
        one,
        ["lr", "momentum"],
        mode=mode,
        factor=0.5,
        patience=2,
        cooldown=1,
        threshold_mode=threshold_mode,
        least=0.02,
    )
    reference = theirs.ReduceLROnPlateau(two, mode, 0.5, 2, threshold_mode=threshold_mode, cooldown=1, min_lr=0.02)
    metrics = [5, 4, 4, 4.1, 4, 3.99999, 3, 3, 3, 3, 3, 2, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5]
    for metric in metrics:
        ours.step(metric)
        reference.step(metric)
        assert one.param_groups[0]["lr"] == two.param_groups[0]["lr"]
    assert one.param_groups[0]["lr"] < LR
    assert one.param_groups[0]["momentum"] < 0.9
    again = Plateau(an_optimizer(momentum=0.9), ["lr", "momentum"])
    again.load_state_dict(_through_a_file(ours.state_dict()))
    assert again.state_dict() == ours.state_dict()
