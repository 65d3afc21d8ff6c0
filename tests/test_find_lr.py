"""The range test: what it suggests, and that nothing at all is different afterwards."""

from __future__ import annotations

import copy
import functools
import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import slalom
from fresh import call
from networks import train
from slalom.errors import UsageError
from slalom.range_test import RangeTest, find_lr
from slalom.schedules import Cosine


class Restless(nn.Module):
    """A model that changes all it has whenever it is used: running statistics, chance, modes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", None)

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1  # another tensor, not another value
        self.last = x.detach()
        random.random()
        np.random.rand()
        self.body[2].train()
        return self.body(x)


def loss(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return (model(x) - y).square().mean()


def batches(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    made = []
    for _ in range(count):
        x = torch.randn(8, 16, generator=generator)
        made.append((x, x[:, :2] - x[:, 2:4]))
    return made


class Everything:
    """All that a range test could have changed, to be compared bit by bit."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        self.model, self.optimizer = model, optimizer
        self.objects = [id(t) for t in (*model.parameters(), *model.buffers())]
        self.objects += [id(p.grad) for p in model.parameters()]
        self.values = copy.deepcopy(model.state_dict())
        self.grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        self.modes = [module.training for module in model.modules()]
        self.state = copy.deepcopy(optimizer.state_dict()) if optimizer else None
        self.tensors = self._tensors()
        self.random = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())

    def _tensors(self) -> list[int]:
        states = self.optimizer.state.values() if self.optimizer else []
        return [id(value) for state in states for value in state.values()]

    def check(self) -> None:
        now = Everything(self.model, self.optimizer)
        assert now.objects == self.objects
        assert now.tensors == self.tensors
        assert now.modes == self.modes
        _same(now.values, self.values)
        _same(now.grads, self.grads)
        _same(now.state, self.state)
        assert torch.equal(now.random[0], self.random[0])
        assert now.random[1] == self.random[1]
        assert (now.random[2] == self.random[2]).all()


def _same(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            _same(one, other)
    else:
        assert a == b


OPTIMIZERS = {
    "by name": lambda model: "adamw",
    "spec": lambda model: "sgd:momentum=0.9",
    "recipe": lambda model: slalom.Recipe(momentum=slalom.parts.Ema(0.9), step=0.1),
    "class": lambda model: torch.optim.Adam,
    "ours": lambda model: slalom.AdamW(model.parameters(), lr=1e-3),
    "torch's": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True),
    "rate is a tensor": lambda model: torch.optim.Adam(model.parameters(), lr=torch.tensor(1e-3)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("fails_at", [None, 1, 30])
def test_nothing_is_different_afterwards(kind: str, fails_at: int | None) -> None:
    model = Restless()
    who: Any = OPTIMIZERS[kind](model)
    optimizer = who if isinstance(who, torch.optim.Optimizer) else None
    if optimizer is not None:  # in the middle of a run, with a scheduler around its step
        scheduler = Cosine(100).attach(optimizer)
        for batch in batches():
            loss(model, batch).backward()
            optimizer.step()
            scheduler.step()
    model.body[2].eval()
    everything = Everything(model, optimizer)
    calls = 0

    def counted(model: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise RuntimeError("out of luck")
        return loss(model, batch)

    if fails_at is None:
        test = find_lr(model, who, counted, batches(), steps=60)
        assert len(set(test.losses)) > 20, "it must really have trained"
    else:
        with pytest.raises(RuntimeError, match="out of luck"):
            find_lr(model, who, counted, batches(), steps=60)
    everything.check()


def test_gradients_of_what_the_optimizer_does_not_hold_are_kept() -> None:
    model = Restless()
    loss(model, batches()[0]).backward()
    everything = Everything(model)
    find_lr(model, torch.optim.SGD(model.body[0].parameters(), lr=0.1), loss, batches(), steps=20)
    everything.check()


@pytest.mark.parametrize("name", ["adamw", "muon", "schedule-free-adamw", "prodigy"])
def test_a_run_goes_on_as_if_there_had_been_no_test(name: str) -> None:
    from networks import build, twins

    model, twin = twins(torch.float32)
    optimizer, other = build(name, model), build(name, twin)
    for step in range(3):
        assert train(model, optimizer, 1, step) == train(twin, other, 1, step)
    find_lr(model, optimizer, loss, batches(), low=1e-3, steps=20)
    for step in range(3, 8):
        assert train(model, optimizer, 1, step) == train(twin, other, 1, step)


def test_a_loaders_own_generator_is_left_alone() -> None:
    data = TensorDataset(*(torch.cat(part) for part in zip(*batches(), strict=True)))
    loader = DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3))
    expected = [x.clone() for x, _ in loader]
    loader.generator.manual_seed(3)
    find_lr(Restless(), "adamw", loss, loader, steps=20)
    assert all(torch.equal(a, b) for a, (b, _) in zip(expected, loader, strict=True))


def test_hooks_of_the_optimizer_are_not_called() -> None:
    model = Restless()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls: list[str] = []
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    find_lr(model, optimizer, loss, batches(), steps=20)
    assert not calls


# --- what it measures --------------------------------------------------------------------------------------------


def test_on_a_parabola_the_edge_of_stability_is_found() -> None:
    # f = w^2 / 2 with curvature 1: SGD shrinks w by |1 - lr| per step and diverges from lr = 2 on.
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    test = find_lr(model, "sgd", lambda m, _: m.weight.square().sum() / 2, [0], low=1e-3, high=1e3, steps=120)
    assert test.diverged
    assert 2 < test.lrs[-1] < 20
    assert test.start == 4.5
    w = 3.0
    for lr, value in zip(test.lrs, test.losses, strict=True):
        w *= 1 - lr
        assert value == pytest.approx(w * w / 2, rel=1e-4, abs=1e-12)
    assert test.suggestion is not None
    assert 0.003 < test.suggestion < 2


def test_groups_keep_their_proportion() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    model = nn.ParameterList([a, b])
    seen: list[float] = []

    def slope(model: nn.Module, batch: Any) -> Tensor:
        seen.append(((1 - b) / (1 - a)).item())
        return a.sum() + b.sum()

    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.3}])
    find_lr(model, optimizer, slope, [0], low=1e-2, high=1.0, steps=10)
    assert seen[1:] == pytest.approx([3.0] * (len(seen) - 1), rel=1e-4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]


@pytest.mark.parametrize(("rule", "word"), [("third", "lowest"), ("tenth", "lowest"), ("steepest", "fastest")])
def test_the_rule_is_stated_and_kept(rule: Any, word: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 2)
    test = find_lr(model, "adamw", loss, batches(16), low=1e-5, rule=rule)
    assert test.rule == rule
    assert word in test.why
    assert test.suggestion is not None
    lowest = min(range(len(test.smooth)), key=lambda k: test.smooth[k] if math.isfinite(test.smooth[k]) else math.inf)
    if rule != "steepest":
        assert test.suggestion == test.lrs[lowest] / {"third": 3, "tenth": 10}[rule]
    else:
        place = test.lrs.index(test.suggestion)
        assert place <= lowest
        assert test.smooth[place + 2] < test.smooth[place - 2]


def test_it_says_so_when_there_is_nothing_to_suggest() -> None:
    model = nn.Linear(16, 2)
    flat = find_lr(model, "adamw", loss, batches(), low=1e-12, high=1e-9, steps=40)
    assert flat.suggestion is None
    assert "never fell" in flat.why
    exploded = find_lr(model, "sgd", loss, batches(), low=1e3, high=1e6, steps=40)
    assert exploded.suggestion is None
    assert exploded.diverged
    for test in (flat, exploded):
        assert "no suggestion" in str(test)
        json.dumps(test.as_json(), allow_nan=False)
        assert "<svg" in test.svg()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"low": 1.0, "high": 0.1}, "low < high"),
        ({"steps": 5}, "at least 10 steps"),
        ({"rule": "best"}, "third, tenth, steepest"),
        ({"data": []}, "holds no batch"),
        ({"data": iter(batches())}, "ended after 4 batches"),
        ({"optimizer": "adamv"}, "Did you mean"),
        ({"optimizer": nn.Linear}, "TypeError|gives no optimizer|missing"),
        ({"loss": lambda m, b: m(b[0]).sum() * math.nan}, "nan before the first step"),
    ],
)
def test_mistakes_are_sentences(settings: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"optimizer": "adamw", "loss": loss, "data": batches(), **settings}
    model = Restless()
    everything = Everything(model)
    with pytest.raises((UsageError, TypeError), match=sentence):
        find_lr(model, **given)
    everything.check()


def test_the_picture_shows_curve_and_suggestion() -> None:
    lrs = tuple(10.0 ** (k / 10 - 4) for k in range(41))
    losses = tuple(1 / (1 + 300 * lr) + 10 * lr**2 for lr in lrs)
    test = RangeTest(lrs, losses, losses, 1.0, 1e-2, "steepest", "suggestion 0.01: because", True)
    screen = test.draw(70)
    assert "↑ 0.01, steepest" in screen
    assert "suggestion 0.01: because" in screen
    rows = [row for row in screen.splitlines() if "│" in row]
    assert all(len(row) <= 72 for row in rows)
    assert sum(any("⠀" < letter <= "⣿" for letter in row) for row in rows) >= 8


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> Any:
    toys = shutil.copy(Path(__file__).parent / "race" / "toys.py", tmp_path)
    assert toys

    return functools.partial(call, "find-lr", cwd=tmp_path)


def test_the_command_draws_writes_and_prints_data(command: Any, tmp_path: Path) -> None:
    shown = command("sgd:momentum=0.5", "-w", "digits_mlp", "--steps", "30", "--svg", "a.svg")
    assert shown.returncode == 0, shown.stderr
    assert "sgd:momentum=0.5 on digits_mlp" in shown.stdout
    assert "suggestion" in shown.stdout
    assert "\x1b[" not in shown.stdout
    assert "sgd:momentum=0.5 on digits_mlp" in (tmp_path / "a.svg").read_text()
    facts = [json.loads(command("adamw", "-w", "digits_mlp", "--steps", "30", "--json").stdout) for _ in range(2)]
    assert facts[0] == facts[1]  # the seed decides
    assert facts[0]["workload"] == "digits_mlp"
    assert len(facts[0]["lrs"]) == len(facts[0]["losses"]) > 5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["adamv", "-w", "digits_mlp"], "Did you mean"),
        (["adamw", "-w", "digit_mlp"], "Did you mean digits_mlp"),
        (["adamw", "sgd", "-w", "digits_mlp"], "name one"),
        (["adamw"], "Choose one with --workload"),
        (["adamw", "-w", "digits_mlp", "--rule", "best"], "third, tenth, steepest"),
    ],
)
def test_what_the_command_refuses(command: Any, words: list[str], sentence: str) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
