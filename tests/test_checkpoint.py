"""Checkpoints: the same bits afterwards, refused whole where they do not fit, and never more than data."""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import slalom
from networks import go, quietly
from slalom.checkpoint.runstate import plain
from slalom.testing import assert_exact_resume


def network(width: int = 12) -> nn.Sequential:
    """A network with everything that has state: a kernel, dropout, running statistics."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(12, width), nn.BatchNorm1d(width), nn.Linear(width, 2),
    )  # fmt: skip


def train(run: Mapping[str, Any], step: int) -> None:
    """A step on random data, which the global random state decides."""
    del step
    x = torch.randn(8, 16) + random.random() * np.random.rand()
    run["optimizer"].zero_grad()
    loss = run["model"](x).square().mean()
    loss.backward()
    go(run["optimizer"], loss.item())
    if "scheduler" in run:
        run["scheduler"].step()


def simple(**settings: Any) -> dict[str, Any]:
    """A run with a model and AdamW."""
    model = network()
    return {"model": model, "optimizer": slalom.AdamW(model.parameters(), **settings)}


def everything(run: Mapping[str, Any]) -> list[Any]:
    """Copies of all that loading may change."""
    optimizer = run["optimizer"]
    parts = [run["model"].state_dict(), optimizer.state_dict(), torch.get_rng_state(), random.getstate()]
    parts += [run[name].state_dict() for name in ("scheduler", "scaler") if name in run]
    return copy.deepcopy([*parts, [m.training for m in run["model"].modules()]])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


# --- the same bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slalom.list_optimizers())
def test_every_method_resumes_to_the_same_bits(name: str) -> None:
    def make() -> dict[str, Any]:
        model = network()
        return {"model": model, "optimizer": quietly(lambda: slalom.create(name, model))}

    assert_exact_resume(make, train, before=3, after=3)


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 4, 5]),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "onecycle": lambda o: lr_scheduler.OneCycleLR(o, 1e-2, 20),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 1e-4, 1e-2, step_size_up=3, cycle_momentum=False),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.CosineAnnealingLR(o, 10)], [4]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)]),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_of_torch_goes_on(schedule: str) -> None:
    def make() -> dict[str, Any]:
        run = simple()
        return {**run, "scheduler": SCHEDULES[schedule](run["optimizer"])}

    assert_exact_resume(make, train, before=3, after=5)


def test_several_optimizers_scaler_other_models_and_generators_go_on() -> None:
    def make() -> dict[str, Any]:
        model, average = network(), network()
        optimizers = [
            slalom.Lion(model[4].parameters()),
            torch.optim.Adam([*model[1].parameters(), *model[6].parameters()]),
        ]
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        generators = {"shuffle": torch.Generator().manual_seed(random.getrandbits(30)),
                      "noise": np.random.default_rng(random.getrandbits(30))}  # fmt: skip
        return {"model": model, "optimizer": optimizers, "scaler": scaler, "others": {"average": average, **generators}}

    def advance(run: Mapping[str, Any], step: int) -> None:
        scaler, others = run["scaler"], run["others"]
        x = torch.randn(8, 16, generator=others["shuffle"]) + others["noise"].random()
        run["model"].zero_grad()
        scaler.scale(run["model"](x).square().mean() * (float("inf") if step == 2 else 1.0)).backward()
        for optimizer in run["optimizer"]:
            scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            for a, p in zip(others["average"].parameters(), run["model"].parameters(), strict=True):
                a.lerp_(p, 0.1)

    assert_exact_resume(make, advance)


def test_reduced_precision_frozen_layers_and_modes_go_on() -> None:
    def make() -> dict[str, Any]:
        model = network().bfloat16()
        return {"model": model, "optimizer": slalom.AdamW(model.parameters())}

    def advance(run: Mapping[str, Any], step: int) -> None:
        model = run["model"]
        if step == 1:  # only once: a resumed run must not need to do it again
            model[1].requires_grad_(False)
            model[5].eval()
        model.zero_grad()
        model(torch.randn(8, 16, dtype=torch.bfloat16)).square().mean().backward()
        run["optimizer"].step()

    assert_exact_resume(make, advance)


@pytest.mark.parametrize("cut", ["optimizer", "random"])
def test_what_is_not_restored_is_noticed(cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import slalom.checkpoint.checkpoint as module

    if cut == "random":
        monkeypatch.setattr(module, "set_random_states", lambda states: None)
    else:
        real = module.restore
        monkeypatch.setattr(
            module,
            "restore",
            lambda p, s, modes: None if isinstance(p, torch.optim.Optimizer) else real(p, s, modes=modes),
        )
    with pytest.raises(AssertionError, match="the resumed run is another one"):
        assert_exact_resume(simple, train)


def test_a_run_that_is_not_reproducible_is_told_from_a_bad_checkpoint() -> None:
    import itertools

    count = itertools.count()

    def advance(run: Mapping[str, Any], step: int) -> None:
        run["model"].zero_grad()
        run["model"](torch.full((8, 16), float(next(count)))).square().mean().backward()
        run["optimizer"].step()

    before = torch.get_rng_state()
    with pytest.raises(AssertionError, match="not reproducible"):
        assert_exact_resume(simple, advance)
    assert torch.equal(before, torch.get_rng_state())


class Forgetful(torch.optim.SGD):
    """Keeps its count where no checkpoint sees it."""

    count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        self.param_groups[0]["lr"] = 0.1 / self.count
        return super().step(closure)


def test_state_that_an_optimizer_hides_is_named() -> None:
    def make() -> dict[str, Any]:
        model = nn.Linear(16, 2)
        return {"model": model, "optimizer": Forgetful(model.parameters(), lr=0.1)}

    with pytest.raises(AssertionError, match=r"model\.state\.weight differs in \d+ of 32 elements"):
        assert_exact_resume(make, train)


# --- what lies on the disk --------------------------------------------------------------------------------------


def test_position_comes_back_and_old_checkpoints_go(tmp_path: Path) -> None:
    run = simple()
    assert slalom.load_checkpoint(tmp_path / "none", **run) is None
    for step in range(5):
        train(run, step)
        file = slalom.save_checkpoint(tmp_path, **run, position={"epoch": 1, "step": step, "seen": torch.arange(step)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"checkpoint-00000{n}.{kind}" for n in (4, 5) for kind in ("json", "pt")
    ]
    loaded = slalom.load_checkpoint(tmp_path, **simple())
    assert loaded is not None
    assert loaded.file == file
    assert loaded.position["step"] == 4
    assert loaded.position["seen"].tolist() == [0, 1, 2, 3]
    assert json.loads(file.with_suffix(".json").read_text())["environment"]["torch"] == torch.__version__
    with pytest.raises(ValueError, match="keep=0"):
        slalom.save_checkpoint(tmp_path, **run, keep=0)


def test_a_value_that_needs_unpickling_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            return {"a": [1, {"b": Path("x")}]}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...

    with pytest.raises(TypeError, match=r"odd\.a\.1\.b is a pathlib"):
        slalom.save_checkpoint(tmp_path, **simple(), others={"odd": Odd()})
    with pytest.raises(TypeError, match=r"position\.f is a builtins\.function"):
        slalom.save_checkpoint(tmp_path, **simple(), position={"f": same})
    with pytest.raises(ValueError, match='others has a "model"'):
        slalom.save_checkpoint(tmp_path, **simple(), others={"model": network()})
    assert not list(tmp_path.iterdir())


def test_numpy_numbers_become_plain_and_shared_tensors_stay_shared() -> None:
    shared = torch.ones(2)
    made = plain({"x": np.float64(0.5), "a": shared, "b": [shared]}, "here")
    assert type(made["x"]) is float
    assert made["a"] is made["b"][0]


def test_files_hold_nothing_that_only_pickle_can_read(tmp_path: Path) -> None:
    run = simple()
    run["scheduler"] = SCHEDULES["multistep"](run["optimizer"])
    train(run, 0)
    content = torch.load(slalom.save_checkpoint(tmp_path, **run), weights_only=True)
    assert set(content["pieces"]) == {"model", "optimizer", "scheduler"}


def test_the_model_alone_can_be_loaded_and_nothing_else_moves(tmp_path: Path) -> None:
    run = simple()
    train(run, 0)
    slalom.save_checkpoint(tmp_path, **run, position=7)
    model = network().eval()
    model[1].requires_grad_(False)
    state = torch.get_rng_state()
    loaded = slalom.load_checkpoint(tmp_path, model=model, partial=True)
    assert loaded is not None
    assert same(model.state_dict(), run["model"].state_dict())
    assert not model.training
    assert not model[1].weight.requires_grad
    assert torch.equal(state, torch.get_rng_state())


def test_other_surroundings_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slalom.save_checkpoint(tmp_path, **simple())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with pytest.warns(UserWarning, match="perhaps not to the same bits: threads was 1, is 3"):
        slalom.load_checkpoint(tmp_path, **simple())


# --- what does not fit ------------------------------------------------------------------------------------------


def amsgrad() -> dict[str, Any]:
    return simple(amsgrad=True)


def wider() -> dict[str, Any]:
    model = network(10)
    return {"model": model, "optimizer": slalom.AdamW(model.parameters())}


def deeper() -> dict[str, Any]:
    model = network().append(nn.Linear(2, 2))
    return {"model": model, "optimizer": slalom.AdamW(model.parameters())}


def double() -> dict[str, Any]:
    model = network().double()
    return {"model": model, "optimizer": slalom.AdamW(model.parameters())}


def other_class() -> dict[str, Any]:
    model = network()
    return {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}


def other_recipe() -> dict[str, Any]:
    """The same state under the same keys, another formula: only the recipe tells."""
    model = network()
    return {"model": model, "optimizer": slalom.Adam(model.parameters())}


def two_groups() -> dict[str, Any]:
    model = network()
    groups = [{"params": list(model[:4].parameters())}, {"params": list(model[4:].parameters())}]
    return {"model": model, "optimizer": slalom.AdamW(groups)}


def reordered() -> dict[str, Any]:
    """Two parameters of one shape in another order."""
    model = network()
    named = dict(model.named_parameters())
    names = list(named)
    a, b = names.index("5.weight"), names.index("5.bias")
    names[a], names[b] = names[b], names[a]
    return {"model": model, "optimizer": slalom.AdamW([(name, named[name]) for name in names])}


def with_schedule() -> dict[str, Any]:
    run = simple()
    return {**run, "scheduler": lr_scheduler.StepLR(run["optimizer"], 2)}


def with_scaler() -> dict[str, Any]:
    return {**simple(), "scaler": torch.amp.GradScaler("cpu")}


@pytest.mark.parametrize(
    ("saved", "here", "difference"),
    [
        (simple, wider, r'model: "4.weight" is float32 of shape \(12, 12\) in the checkpoint, .* \(10, 12\) here'),
        (simple, deeper, 'model: the checkpoint has no "7.weight", "7.bias"'),
        (deeper, simple, 'model: the checkpoint also has "7.weight", "7.bias"'),
        (simple, double, 'model: "1.weight" is float32 of shape .* in the checkpoint, float64'),
        (simple, other_class, "optimizer: class slalom.AdamW in the checkpoint, torch.optim.adamw.AdamW here"),
        (simple, other_recipe, "optimizer: class slalom.AdamW in the checkpoint, slalom.Adam here"),
        (simple, two_groups, "optimizer: 1 parameter groups in the checkpoint, 2 here"),
        (with_schedule, simple, "the checkpoint also has scheduler, which was not given"),
        (simple, with_schedule, "the checkpoint has no scheduler"),
        (simple, with_scaler, "the checkpoint has no scaler"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_whole(
    saved: Callable[[], dict[str, Any]], here: Callable[[], dict[str, Any]], difference: str, tmp_path: Path
) -> None:
    source, target = saved(), here()
    for run in (source, target):
        for _ in range(2):
            x = torch.randn(8, 16, dtype=run["model"][1].weight.dtype)
            run["model"](x).square().mean().backward()
            run["optimizer"].step()
    slalom.save_checkpoint(tmp_path, **source)
    before = everything(target)
    with pytest.raises(ValueError, match=difference):
        slalom.load_checkpoint(tmp_path, **target)
    assert same(before, everything(target))
    train(source, 0)  # and it all still works


def recipe(**parts: Any) -> dict[str, Any]:
    from slalom.parts import Ema, SecondMoment

    model = network()
    made = slalom.Recipe(**{"momentum": Ema(0.9), "scale": SecondMoment(0.99), **parts}, step=1e-2)
    return {"model": model, "optimizer": made.build(model)}


def test_recipes_are_told_apart_by_their_parts_and_not_by_their_numbers(tmp_path: Path) -> None:
    from slalom.parts import Atan2, Cautious, Ema, SecondMoment

    run = recipe()
    train(run, 0)
    slalom.save_checkpoint(tmp_path, **run)
    with pytest.raises(ValueError, match=r'group 0 runs "scale: SecondMoment.*" in the checkpoint, .*Atan2'):
        slalom.load_checkpoint(tmp_path, **recipe(scale=SecondMoment(0.99, eps=Atan2())))
    with pytest.raises(ValueError, match=r'group 0 runs less in the checkpoint, "guard: Cautious.*" here'):
        slalom.load_checkpoint(tmp_path, **recipe(guard=Cautious()))
    with pytest.raises(ValueError, match="the same parts in another order"):
        slalom.load_checkpoint(tmp_path, **recipe(order=("scale", "momentum", "step", "form")))
    other_numbers = recipe(momentum=Ema(0.5))
    assert slalom.load_checkpoint(tmp_path, **other_numbers) is not None
    assert other_numbers["optimizer"].param_groups[0]["momentum.beta"] == 0.9


def test_parameters_in_another_order_are_refused_by_name(tmp_path: Path) -> None:
    model = network()
    run = {"model": model, "optimizer": slalom.AdamW(model.named_parameters())}
    slalom.save_checkpoint(tmp_path, **run)
    with pytest.raises(ValueError, match=r'group 0 has "5\.weight" in the checkpoint where it has "5\.bias" here'):
        slalom.load_checkpoint(tmp_path, **reordered())


def test_a_loader_that_fails_halfway_leaves_everything_as_it_was(tmp_path: Path) -> None:
    class Fails:
        value = 1

        def state_dict(self) -> dict[str, Any]:
            return {"value": self.value}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            if state_dict["value"] == 3:
                torch.rand(1), random.random()
                raise RuntimeError("three is too much")
            self.value = state_dict["value"]

    source = {**with_schedule(), "others": {"last": Fails()}}
    source["others"]["last"].value = 3
    source["model"].eval()
    train(source, 0)
    slalom.save_checkpoint(tmp_path, **source)
    target = {**with_schedule(), "others": {"last": Fails()}}
    twin = copy.deepcopy({name: target[name] for name in ("model", "optimizer")})
    for run in (target, twin):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        run["optimizer"].zero_grad()
        run["model"](torch.ones(8, 16)).square().mean().backward()
        run["optimizer"].step()
    before = everything(target)
    with pytest.raises(ValueError, match=r"nothing was changed:\n  last: three is too much"):
        slalom.load_checkpoint(tmp_path, **target)
    assert same(before, everything(target))
    for run in (target, twin):  # the next step is the one that would have come
        run["optimizer"].zero_grad()
        for p in run["model"].parameters():
            p.grad = torch.ones_like(p)
        run["optimizer"].step()
    assert same(target["model"].state_dict(), twin["model"].state_dict())


def test_a_later_format_is_refused_and_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slalom.save_checkpoint(tmp_path, **simple())
    monkeypatch.setattr("slalom.checkpoint.checkpoint.FORMAT", 2)
    slalom.save_checkpoint(tmp_path, **simple())
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 2, this slalom reads 1"):
        slalom.load_checkpoint(tmp_path, **simple())


def test_tied_weights_and_module_versions_survive(tmp_path: Path) -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
        model[1].weight = model[0].weight
        return model

    source, target = make(), make()
    slalom.save_checkpoint(tmp_path, model=source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert slalom.load_checkpoint(tmp_path, model=target) is not None
    assert target[0].weight is target[1].weight
    assert same(source.state_dict(), target.state_dict())
    assert plain(network().state_dict(), "model")._metadata["5"] == {"version": 2}


def test_a_run_that_saves_within_an_epoch_goes_on_there(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.randn(32, 3, generator=torch.Generator().manual_seed(0)))

    def made(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        return {"model": model, "optimizer": slalom.AdamW(model.parameters())}

    def train(run: dict[str, Any], at: dict[str, Any] | None = None, stop: bool = False) -> None:
        shuffle = torch.Generator().manual_seed(5)
        for epoch in range(at["epoch"] if at else 0, 3):
            if at and epoch == at["epoch"]:
                shuffle.set_state(at["shuffle"])
            begun = shuffle.get_state()
            for batch, (x,) in enumerate(DataLoader(data, batch_size=8, shuffle=True, generator=shuffle)):
                if at and epoch == at["epoch"] and batch < at["batches"]:
                    continue
                run["optimizer"].zero_grad()
                run["model"](x).square().mean().backward()
                run["optimizer"].step()
                if stop and (epoch, batch) == (1, 1):
                    position = {"epoch": epoch, "batches": batch + 1, "shuffle": begun}
                    slalom.save_checkpoint(tmp_path, **run, position=position)
                    return

    whole = made(0)
    train(whole)
    train(made(0), stop=True)
    resumed = made(1)
    loaded = slalom.load_checkpoint(tmp_path, **resumed)
    assert loaded is not None
    train(resumed, loaded.position)
    for p, q in zip(whole["model"].parameters(), resumed["model"].parameters(), strict=True):
        assert torch.equal(p, q)


def test_state_that_is_made_first_keeps_distributed_checkpoints_from_counting_a_step() -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = nn.Linear(3, 2)
    optimizer = slalom.AdamW(model.parameters())
    optimizer.init_state()
    get_optimizer_state_dict(model, optimizer)
    assert all(state["step"] == 0 for state in optimizer.state.values())
