"""The face towards torch: groups, schedulers, closures, hooks, checkpoints, and what is refused."""

from __future__ import annotations

import copy
import inspect
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import slalom
from networks import build, largest_difference, network, train, twins
from slalom import Recipe
from slalom.errors import UsageError
from slalom.parts import Decoupled, Ema, SecondMoment, Sign

PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ("Adagrad", {"lr": 0.02, "lr_decay": 0.01}),
    ("RMSprop", {"lr": 1e-3, "momentum": 0.9}),
    ("Adam", {"lr": 1e-3, "weight_decay": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 1e-3, "weight_decay": 0.1}),
    ("Adamax", {"lr": 1e-3}),
    ("NAdam", {"lr": 1e-3}),
    ("RAdam", {"lr": 1e-3}),
]
with_torch = pytest.mark.parametrize(("name", "settings"), PAIRS, ids=[name for name, _ in PAIRS])


@with_torch
def test_equals_torch_in_float32_over_100_steps_with_groups_and_a_scheduler(
    name: str, settings: dict[str, Any]
) -> None:
    """The claim of being a drop-in, on a real model: parameters agree to float32 rounding."""
    ours, theirs = twins(torch.float32)
    schedules = []
    for model, cls in ((ours, getattr(slalom, name)), (theirs, getattr(torch.optim, name))):
        body, head = list(model[:-1].parameters()), list(model[-1].parameters())  # type: ignore[index]
        optimizer = cls([{"params": body}, {"params": head, "lr": settings["lr"] / 3}], **settings)
        schedules.append((model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)))
    for step in range(100):
        for model, optimizer, schedule in schedules:
            train(model, optimizer, 1, first=step)
            schedule.step()
    scale = max(p.abs().max().item() for p in theirs.parameters())
    assert largest_difference(ours, theirs) < 2e-5 * scale


@with_torch
def test_takes_over_a_run_that_torch_began(name: str, settings: dict[str, Any]) -> None:
    ours, theirs = twins()
    before = getattr(torch.optim, name)(theirs.parameters(), **settings)
    train(theirs, before, 10)
    ours.load_state_dict(theirs.state_dict())
    optimizer = getattr(slalom, name)(ours.parameters(), **settings)
    optimizer.load_state_dict(before.state_dict())
    train(theirs, before, 10, first=10)
    train(ours, optimizer, 10, first=10)
    assert largest_difference(ours, theirs) < 1e-8


def test_groups_have_torchs_keys() -> None:
    w = [torch.nn.Parameter(torch.ones(1))]
    for name, _ in PAIRS:
        ours = getattr(slalom, name)(w).param_groups[0]
        theirs = getattr(torch.optim, name)(w).param_groups[0]
        switches = {"foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}
        switches |= {"variant", "degenerated_to_sgd"}  # which torch does not have
        assert set(theirs) - switches == set(ours) - switches


def test_one_cycle_cycles_momentum_too() -> None:
    for ours_cls, theirs_cls, settings in (
        (slalom.AdamW, torch.optim.AdamW, {}),
        (slalom.SGD, torch.optim.SGD, {"momentum": 0.9}),
    ):
        ours, theirs = twins()
        pairs = []
        for model, cls in ((ours, ours_cls), (theirs, theirs_cls)):
            optimizer = cls(model.parameters(), lr=1e-3, **settings)
            pairs.append((model, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=40)))
        for step in range(40):
            for model, optimizer, schedule in pairs:
                train(model, optimizer, 1, first=step)
                schedule.step()
        assert largest_difference(ours, theirs) < 1e-12


def test_closure_runs_once_with_gradients_and_its_value_is_returned() -> None:
    model = network()
    optimizer = slalom.AdamW(model.parameters())
    calls = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(torch.ones(2, 16, dtype=torch.float64)).sum()
        loss.backward()
        calls.append(loss)
        return loss

    assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    assert optimizer.step(closure=None) is None


def test_hooks_fire_once_around_each_step() -> None:
    model = network()
    optimizer = slalom.AdamW(model.parameters())
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    train(model, optimizer, 2)
    assert seen == ["pre", "post", "pre", "post"]


def test_load_hooks_fire() -> None:
    optimizer = slalom.AdamW(network().parameters())
    seen: list[str] = []
    optimizer.register_load_state_dict_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_load_state_dict_post_hook(lambda *_: seen.append("post"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["pre", "post"]


def test_a_learning_rate_may_be_a_tensor() -> None:
    a, b = twins()
    train(a, slalom.AdamW(a.parameters(), lr=0.01), 3)
    train(b, slalom.AdamW(b.parameters(), lr=torch.tensor(0.01, dtype=torch.float64)), 3)
    assert largest_difference(a, b) == 0


def test_what_is_assigned_to_a_group_holds_from_the_next_step() -> None:
    model, fresh = twins()
    changed = slalom.AdamW(model.parameters(), lr=1.0, betas=(0.1, 0.2), eps=1.0, weight_decay=0.0)
    changed.param_groups[0].update(lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    train(model, changed, 4)
    train(fresh, slalom.AdamW(fresh.parameters(), lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3), 4)
    assert largest_difference(model, fresh) == 0


def test_momentum_switched_on_later_gets_its_state() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = slalom.SGD([w], lr=0.1)
    w.grad = torch.ones(2)
    optimizer.step()
    assert list(optimizer.state[w]) == ["step"]
    optimizer.param_groups[0]["momentum"] = 0.9
    optimizer.step()
    assert list(optimizer.state[w]) == ["step", "heavy_ball.b"]


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.9), (0.9, 0.0)])
def test_a_number_switched_between_step_and_save_leaves_a_checkpoint_that_loads(before: float, after: float) -> None:
    """What the next step would make is not there yet, or what the last one made is still there."""
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    run, resumed = slalom.SGD([a], lr=0.1, momentum=before), slalom.SGD([b], lr=0.1)
    a.grad = torch.ones(2)
    run.step()
    run.param_groups[0]["momentum"] = after
    b.data = a.data.clone()
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    assert list(resumed.state[b]) == list(run.state[a])
    for momentum in (after, 0.5):
        for w, optimizer in ((a, run), (b, resumed)):
            optimizer.param_groups[0]["momentum"] = momentum
            w.grad = torch.full((2,), 0.3)
            optimizer.step()
        assert torch.equal(a, b)


def test_added_group_starts_at_its_own_first_step() -> None:
    old, new, alone = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = slalom.AdamW([old])
    for _ in range(5):
        old.grad = torch.ones(2)
        optimizer.step()
    optimizer.add_param_group({"params": [new], "lr": 0.1})
    new.grad = torch.full((2,), 0.5)
    alone.grad = torch.full((2,), 0.5)
    optimizer.step()
    slalom.AdamW([alone], lr=0.1).step()
    assert torch.equal(new, alone)


def test_init_state_makes_all_state_and_moves_nothing() -> None:
    model, untouched = twins(torch.float32)
    optimizer = slalom.AdamW(model.parameters())
    optimizer.init_state()
    assert all(set(optimizer.state[p]) == {"step", "ema.m", "second_moment.v"} for p in model.parameters())
    assert largest_difference(model, untouched) == 0
    train(model, optimizer, 3)
    train(untouched, slalom.AdamW(untouched.parameters()), 3)
    assert largest_difference(model, untouched) == 0


def test_one_optimizer_per_parameter_equals_one_for_all() -> None:
    together, apart = twins()
    train(together, slalom.AdamW(together.parameters()), 3)
    each = [slalom.AdamW([p]) for p in apart.parameters()]

    class All(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            for optimizer in each:
                optimizer.step()

    train(apart, All(apart.parameters()), 3)
    assert largest_difference(together, apart) == 0


def test_works_under_dynamic_subclassing_and_a_scaler() -> None:
    """What Lightning and mixed precision do to an optimizer."""
    model, plain = twins(torch.float32)
    cls = type("LightningAdamW", (slalom.AdamW,), {})
    optimizer = cls(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    reference = slalom.AdamW(plain.parameters(), lr=1e-2)
    for step in range(3):
        x = torch.randn(4, 16, generator=torch.Generator().manual_seed(step))
        for m, o in ((model, optimizer), (plain, reference)):
            o.zero_grad()
            loss = (m(x) ** 2).mean()
            if o is reference:
                loss.backward()
                o.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(o)
                scaler.update()
    assert largest_difference(model, plain) < 1e-6


def test_signatures_are_those_of_the_methods() -> None:
    names = list(inspect.signature(slalom.AdamW).parameters)
    assert names == [
        "params",
        "lr",
        "betas",
        "eps",
        "weight_decay",
        "amsgrad",
        "maximize",
        "executor",
        "on_nonfinite",
        "sparse",
        "blocks",
    ]
    w = [torch.nn.Parameter(torch.ones(1))]
    assert slalom.AdamW(w, 0.5).param_groups[0]["lr"] == 0.5
    assert slalom.AdamW.__doc__ is not None
    assert "Loshchilov" in slalom.AdamW.__doc__


@pytest.mark.parametrize(
    ("build_it", "error", "sentence"),
    [
        (
            lambda w: slalom.AdamW(w, wieght_decay=0.1),
            TypeError,
            'no argument "wieght_decay". Did you mean weight_decay',
        ),
        (lambda w: slalom.AdamW(w, fused=True), TypeError, "switch of torch.optim"),
        (lambda w: slalom.AdamW(w, lr=-1.0), ValueError, "lr=-1.0: lr must be 0 or more"),
        (lambda w: slalom.AdamW(w, lr=float("nan")), ValueError, "lr=nan"),
        (
            lambda w: slalom.AdamW(w, betas=(0.9, 1.0)),
            ValueError,
            r"betas=\(0.9, 1.0\): the second must be in \[0, 1\)",
        ),
        (lambda w: slalom.AdamW(w, weight_decay=-0.1), ValueError, "weight_decay=-0.1"),
        (lambda w: slalom.SGD(w, nesterov=True), ValueError, "momentum above 0"),
        (lambda w: slalom.AdamW([{"params": w, "wieght_decay": 0.1}]), ValueError, "Did you mean weight_decay"),
        (lambda w: slalom.AdamW([{"params": w, "eps": -1.0}]), ValueError, "eps=-1.0"),
        (lambda w: slalom.create("adamv", w), UsageError, "Did you mean .*adamw"),
        (lambda w: slalom.create("adamw", w, learning_rate=1.0), TypeError, "learning_rate"),
        (lambda w: slalom.Adamw(w), AttributeError, "Did you mean AdamW"),  # type: ignore[attr-defined]
        (lambda w: Ema(beta=1.0), ValueError, r"Ema\(beta=1.0\): beta must be in \[0, 1\)"),
        (lambda w: Ema(beta="much"), ValueError, "Ema"),  # type: ignore[arg-type]
        (lambda w: SecondMoment(eps=-1.0), ValueError, "eps"),
        (lambda w: Recipe(momentum=Sign()), ValueError, "this part answers geometry"),
        (lambda w: Recipe(order=("gradient", "form")), ValueError, "leaves out step"),
        (lambda w: Recipe(momentum=(Ema(0.9), Ema(0.5))), ValueError, 'two parts named "ema"'),
        (lambda w: Recipe(step=0.1).build(w, lrr=0.2), UsageError, "Did you mean lr"),
    ],
)
def test_refusals_name_what_is_wrong(build_it: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        build_it([torch.nn.Parameter(torch.ones(2))])


def test_a_checkpoint_that_does_not_fit_changes_nothing() -> None:
    model = network(torch.float32)
    optimizer = slalom.AdamW(model.parameters())
    train(model, optimizer, 2)
    before = copy.deepcopy(optimizer.state_dict())
    other = torch.nn.Linear(3, 2)
    stranger = slalom.AdamW(other.parameters())
    other(torch.ones(1, 3)).sum().backward()
    stranger.step()
    lion = slalom.Lion(model.parameters())
    train(model, lion, 1)
    for state, sentence in (
        (stranger.state_dict(), "has 2 parameters"),
        (lion.state_dict(), 'has a state "interpolated.m"'),
        (_with_shape(before), "shape"),
        (_without(before, "second_moment.v"), "has no second_moment.v"),
        (_with_rate(before, -1.0), "lr=-1.0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            optimizer.load_state_dict(state)
        after = optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        for key, values in before["state"].items():
            assert all(torch.equal(value, after["state"][key][name]) for name, value in values.items())


def _with_shape(state: dict[str, Any]) -> dict[str, Any]:
    state = copy.deepcopy(state)
    state["state"][0]["ema.m"] = torch.zeros(7)
    return state


def _without(state: dict[str, Any], key: str) -> dict[str, Any]:
    state = copy.deepcopy(state)
    del state["state"][1][key]
    return state


def _with_rate(state: dict[str, Any], lr: float) -> dict[str, Any]:
    state = copy.deepcopy(state)
    state["param_groups"][0]["lr"] = lr
    return state


def test_loading_leaves_the_given_dict_alone() -> None:
    model = network(torch.float32)
    optimizer = slalom.AdamW(model.parameters())
    train(model, optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())
    again = slalom.AdamW(model.parameters())
    again.load_state_dict(state)
    train(model, again, 1)
    assert state["state"][0]["step"].item() == 2


def test_shared_state_stays_shared_through_a_checkpoint() -> None:
    model = network(torch.float32)
    optimizer = build("prodigy", model.parameters())
    train(model, optimizer, 2)
    again = build("prodigy", model.parameters())
    again.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    assert len({id(state["prodigy.d"]) for state in again.state.values()}) == 1


def test_a_recipe_of_ones_own_is_a_full_optimizer() -> None:
    recipe = Recipe(momentum=Ema(0.9), scale=SecondMoment(0.99), regularize=Decoupled(0.1), step=3e-3)
    model, named = twins()
    optimizer = recipe.build(model)
    assert optimizer.param_groups[0]["momentum.beta"] == 0.9
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    reference = slalom.AdamW(named.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.1)
    schedule2 = torch.optim.lr_scheduler.StepLR(reference, 2)
    for step in range(5):
        train(model, optimizer, 1, first=step)
        train(named, reference, 1, first=step)
        schedule.step()
        schedule2.step()
    assert largest_difference(model, named) == 0
    copied = copy.deepcopy(optimizer)
    assert copied.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_repr_counts_what_the_model_has_in_common_once() -> None:
    model = network(torch.float32)
    optimizer = slalom.Prodigy(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = {id(t): t.numel() * t.element_size() for state in optimizer.state.values() for t in state.values()}
    assert f"state: {sum(kept.values()):,} bytes" in repr(optimizer)


def test_repr_shows_the_formula_and_the_bytes() -> None:
    model = network(torch.float32)
    shown = repr(slalom.AdamW(model.named_parameters(), lr=3e-4))
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters)
    assert "m ← 0.9 m + 0.1 g" in shown
    assert f"{8 * count + 4 * len(parameters):,} bytes for {count:,} parameters" in shown  # with a step count each
    assert "lr 0.0003" in shown


def test_a_group_may_name_its_parameters_last_and_hold_tensors() -> None:
    plain, odd = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    rate = torch.tensor(0.1)
    optimizer = slalom.AdamW([{"lr": rate, "betas": (torch.tensor(0.8), 0.9), "params": [odd]}])
    reference = slalom.AdamW([plain], lr=0.1, betas=(0.8, 0.9))
    for step in range(4):
        if step == 2:
            rate.fill_(0.01)
            optimizer.param_groups[0]["betas"][0].fill_(0.5)
            reference.param_groups[0].update(lr=0.01, betas=(0.5, 0.9))
        for w, o in ((odd, optimizer), (plain, reference)):
            w.grad = torch.full((3,), 1.0 - step)
            o.step()
    torch.testing.assert_close(odd, plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize("executor", ["eager", "foreach", "native"])
def test_the_clock_is_one_for_all_groups(executor: Any) -> None:
    """Prodigy starts its distance at the optimizer's first step; a second group must not take that for the second."""
    ends = []
    for split in (False, True):
        model = network(torch.float32 if executor == "native" else torch.float64)
        torch.manual_seed(0)
        for p in model.parameters():
            torch.nn.init.normal_(p)
        params = list(model.parameters())
        groups = [{"params": params[:3]}, {"params": params[3:]}] if split else [{"params": params}]
        train(model, slalom.Prodigy(groups, d0=1e-2, executor=executor), 5)
        ends.append(torch.cat([p.detach().flatten() for p in params]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_a_refused_step_counts_nothing() -> None:
    dense, layer = torch.nn.Parameter(torch.ones(3)), torch.nn.Embedding(4, 2, sparse=True)
    optimizer = slalom.AdamW([{"params": [dense]}, {"params": list(layer.parameters())}])
    dense.grad, layer.weight.grad = torch.ones(3), torch.ones(4, 2)
    optimizer.step()  # dense gradients everywhere: what was set up for them must not read a sparse one
    layer.weight.grad = None
    layer(torch.tensor([1])).sum().backward()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="has a sparse gradient"):
            optimizer.step()
    assert optimizer.state[dense]["step"].item() == 1.0


def test_empty_parameters_count_their_steps() -> None:
    w = torch.nn.Parameter(torch.ones(0, 3))
    optimizer = slalom.AdamW([w])
    for _ in range(3):
        w.grad = torch.ones(0, 3)
        optimizer.step()
    assert optimizer.state[w]["step"].item() == 3.0


@pytest.mark.parametrize("executor", ["auto", "foreach", "eager"])
def test_state_that_is_cleared_begins_anew(executor: Any) -> None:
    w, fresh = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    optimizer = slalom.AdamW([w], executor=executor)
    for _ in range(2):  # the second time nothing was there when the step began
        for _ in range(2):
            w.grad = torch.tensor([1.0, -2.0, 3.0, 0.5])
            optimizer.step()
        optimizer.state.clear()
    fresh.data.copy_(w.data)
    fresh.grad = w.grad.clone()
    optimizer.step()
    slalom.AdamW([fresh], executor=executor).step()
    assert torch.equal(w, fresh)
    assert optimizer.state[w]["step"] == 1


def test_state_that_is_cleared_after_a_refused_step_begins_anew() -> None:
    w, table = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(3, 2))
    optimizer = slalom.AdamW([{"params": [w]}, {"params": [table]}])
    w.grad, table.grad = torch.ones(4), torch.ones(3, 2).to_sparse(1)
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()  # the first group was ready when the second one refused
    optimizer.state.clear()
    table.grad = torch.ones(3, 2)
    optimizer.step()
    assert optimizer.state[w]["step"] == optimizer.state[table]["step"] == 1


@pytest.mark.parametrize("executor", ["auto", "foreach", "eager"])
@pytest.mark.parametrize(
    ("own", "given"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16), (torch.float64, torch.float32)]
)
def test_gradients_of_another_dtype_count_as_their_values(executor: Any, own: torch.dtype, given: torch.dtype) -> None:
    """torch lets parameters ask for such gradients; memory of one dtype read as another is not even a number."""
    if not hasattr(torch.Tensor, "grad_dtype"):
        pytest.skip("this torch has gradients of the parameter's dtype only")
    w = torch.nn.Parameter(torch.ones(3, 4, dtype=own))
    optimizer = slalom.SGD([w], lr=0.125, executor=executor, on_nonfinite="raise")
    w.grad = torch.full((3, 4), 2.0, dtype=own)
    optimizer.step()  # who steps is decided before the first other gradient comes
    w.grad = None
    w.grad_dtype = given
    for _ in range(2):
        w.grad = torch.full((3, 4), 2.0, dtype=given)
        optimizer.step()
    assert torch.equal(w, torch.full((3, 4), 0.25, dtype=own))


@pytest.mark.parametrize("name", ["adamw", "muon", "prodigy"])
@pytest.mark.parametrize("bad", [False, True])
def test_gradients_are_let_go_after_the_step(name: str, bad: bool) -> None:
    w = torch.nn.Parameter(torch.ones(8, 6))
    optimizer = build(name, [w], on_nonfinite="skip")
    for _ in range(2):
        w.grad = torch.ones(8, 6)
        optimizer.step()
    w.grad = torch.full((8, 6), float("nan") if bad else 1.0)
    gone = weakref.ref(w.grad.untyped_storage())
    optimizer.step()
    optimizer.zero_grad()
    assert gone() is None


def test_loading_takes_the_user_s_keys_along_and_leaves_torch_s_switches_out() -> None:
    theirs, ours = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    before = torch.optim.AdamW([{"params": [theirs], "note": "head"}], foreach=False)
    optimizer = slalom.AdamW([ours])
    optimizer.load_state_dict(before.state_dict())
    assert optimizer.param_groups[0]["note"] == "head"
    assert not {"foreach", "fused", "capturable"} & set(optimizer.param_groups[0])


@pytest.mark.parametrize(
    ("name", "number", "value"), [("galore", "rank", 1), ("soap", "block", 2), ("dion", "rank", 1)]
)
def test_a_number_that_decides_on_shapes_is_refused_once_there_is_state(name: str, number: str, value: int) -> None:
    w = nn.Parameter(torch.randn(8, 6))
    optimizer = slalom.create(name, [{"params": [w], "role": "matrix"}])
    w.grad = torch.randn(8, 6)
    optimizer.step()
    before, kept = w.detach().clone(), optimizer.param_groups[0][number]
    optimizer.param_groups[0][number] = value
    with pytest.raises(RuntimeError, match=r"now ask for .* put back the one that decides on shapes"):
        optimizer.step()
    assert torch.equal(w, before)
    optimizer.param_groups[0][number] = kept
    optimizer.step()
    assert not torch.equal(w, before)


def test_a_rate_that_is_a_tensor_is_its_groups_own() -> None:
    lr = torch.tensor(0.5)
    optimizer = slalom.SGD([{"params": [nn.Parameter(torch.ones(1))]} for _ in range(2)], lr=lr)
    optimizer.param_groups[0]["lr"].fill_(0.25)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.25, 0.5]


@pytest.mark.parametrize("given", [{"a", "b"}, frozenset({"a", "b"})])
def test_a_set_of_parameters_is_refused(given: Any) -> None:
    params = type(given)(nn.Parameter(torch.ones(2)) for _ in given)
    for bad in (params, [{"params": params}]):
        with pytest.raises(TypeError, match="put them into a list"):
            slalom.AdamW(bad)
        with pytest.raises(TypeError, match="put them into a list"):
            slalom.Muon(bad)
    with pytest.raises(TypeError, match=r"one tensor of shape \(2,\)"):
        slalom.AdamW(nn.Parameter(torch.ones(2)))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_a_compiled_training_step_goes_around_the_optimizer() -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    a, b = twins(torch.float32)
    ours, plain = slalom.AdamW(a.parameters()), slalom.AdamW(b.parameters())

    def step(model: nn.Module, optimizer: slalom.Optimizer, x: Tensor) -> Tensor:
        loss: Tensor = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    compiled = torch.compile(step, backend="eager")
    for number in range(6):
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(number))
        compiled(a, ours, x)
        step(b, plain, x)
    assert largest_difference(a, b) == 0
    assert counters["stats"]["unique_graphs"] == 1  # the model's, once
    torch.compiler.reset()
