"""Watching changes nothing, measures what it says, keeps nothing alive, and its log survives what kills the run."""

from __future__ import annotations

import gc
import itertools
import json
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

import slalom
from fresh import call
from sick_runs import adam, classes, error, perceptron, sgd, trained
from slalom.cli import app
from slalom.errors import UsageError
from slalom.observe import budget, read_log, reading, watch, watching
from slalom.observe.record import QUANTITIES, Run
from slalom.observe.report import Report

Make = Callable[[nn.Module], torch.optim.Optimizer]


def restless() -> nn.Sequential:
    """Running statistics and chance: what an evaluation on the side could disturb."""
    torch.manual_seed(0)
    return perceptron(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.ReLU())


OPTIMIZERS: dict[str, Make] = {
    "torch sgd": sgd,
    "torch adam": adam,
    "torch fused": lambda model: torch.optim.AdamW(model.parameters(), fused=True),
    "torch lbfgs": lambda model: torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3),
    "slalom adamw": lambda model: slalom.AdamW(model.parameters()),
    "slalom muon": lambda model: slalom.create("muon", model),
    "slalom prodigy": lambda model: slalom.Prodigy(model.parameters()),
}


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_watched_run_has_the_same_bits(name: str, closure: bool) -> None:
    if name == "torch lbfgs" and not closure:
        pytest.skip("lbfgs needs a closure")

    def train(watched: bool) -> tuple[dict[str, Any], dict[str, Any], Tensor]:
        model = restless()
        optimizer = OPTIMIZERS[name](model)
        torch.manual_seed(7)
        batch: Any = None
        if watched:
            seen = watch(model, optimizer, every=3, probe=lambda: error(model, batch))
        for batch in classes(12):

            def evaluate() -> Tensor:
                optimizer.zero_grad()
                loss = error(model, batch)  # noqa: B023
                loss.backward()
                return loss

            if closure:
                optimizer.step(evaluate)
            else:
                loss = evaluate()
                optimizer.step()
                if watched:
                    seen.loss(loss)
        if watched:
            seen.close()
            assert len(seen.run().samples) >= 5
        return model.state_dict(), optimizer.state_dict()["state"], torch.get_rng_state()

    weights, state, chance = train(watched=True)
    others, other_state, other_chance = train(watched=False)
    assert all(torch.equal(weights[key], others[key]) for key in others)
    assert torch.equal(chance, other_chance)
    torch.testing.assert_close(state, other_state, rtol=0, atol=0)


def test_what_is_measured_is_what_it_is_called() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, betas=(0.5, 0.9), eps=1e-2)
    weights, gradients = [], []
    with watch(model, optimizer, every=4) as seen:
        for step in range(8):
            x = torch.randn(7, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            optimizer.zero_grad(set_to_none=False)  # the next gradient is written over this one
            loss = model(x).square().mean()
            loss.backward()
            weights.append(model[0].weight.detach().clone())
            assert model[0].weight.grad is not None
            gradients.append(model[0].weight.grad.clone())
            optimizer.step()
            seen.loss(loss)
    run = seen.run()
    assert run.steps == [2, 4, 8]
    found = dict(zip(QUANTITIES, run.numbers[1, 0].tolist(), strict=True))

    def cosine(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum() / (a.norm() * b.norm()))

    w, g, g0, u, u0 = weights[3], gradients[3], gradients[2], weights[4] - weights[3], weights[3] - weights[2]
    v = optimizer.state[model[0].weight]["exp_avg_sq"]  # of step 8
    wanted = {
        "weight": w.norm(), "gradient": g.norm(), "update": u.norm(), "gradient_before": g0.norm(),
        "update_before": u0.norm(), "descent": -cosine(u, g), "turn": cosine(u, u0), "agree": cosine(g, g0),
        "past": cosine(g, u0), "radial": cosine(g, w), "zeros": (g == 0).double().mean(), "bad": 0.0, "weight_bad": 0.0,
        "update_bad": 0.0, "stuck": 0.0, "dead": ((g == 0) & (g0 == 0)).all(1).double().mean(),
    }  # fmt: skip
    for name, value in wanted.items():
        assert found[name] == pytest.approx(float(value), rel=1e-6, abs=1e-12), name
    last = dict(zip(QUANTITIES, run.numbers[2, 0].tolist(), strict=True))
    unbiased = v / (1 - 0.9**8)
    assert last["stale"] == pytest.approx(float(unbiased.sum() / gradients[7].square().sum()), rel=1e-6)
    assert last["epsilon"] == pytest.approx(float((unbiased[v > 0].sqrt() < 1e-2).double().mean()))
    assert run.samples[2].norms[-1] == pytest.approx(float(run.norm("gradient")[2]), rel=1e-5)
    assert sum(len(sample.norms) for sample in run.samples) == 8
    together = torch.cat([(p.grad if p.grad is not None else p).flatten() for p in model.parameters()])
    assert float(run.norm("gradient")[2]) == pytest.approx(float(together.norm()), rel=1e-6)


def test_gradients_that_are_still_scaled_are_measured_unscaled() -> None:
    """torch's fused methods get scaled gradients from a GradScaler and unscale them in the middle of the step."""

    def gradients(scaler: Any, fused: bool) -> list[tuple[float, ...]]:
        model = perceptron()
        optimizer = torch.optim.Adam(model.parameters(), fused=fused)
        with watch(model, optimizer, every=2) as seen:
            for batch in classes(6):
                optimizer.zero_grad()
                scaler.scale(error(model, batch)).backward()
                scaler.step(optimizer)
                scaler.update()
        run = seen.run()
        return [(float(run.norm("gradient")[k]), *sample.norms) for k, sample in enumerate(run.samples)]

    plain = gradients(torch.amp.GradScaler("cpu", enabled=False), fused=True)
    for fused in (False, True):
        for found, wanted in zip(gradients(torch.amp.GradScaler("cpu", init_scale=1024.0), fused), plain, strict=True):
            assert found == pytest.approx(wanted, rel=1e-4)


def test_the_loss_of_a_closure_is_heard_also_under_a_scaler_and_once_per_step() -> None:
    model = perceptron()
    optimizer = slalom.AdamW(model.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    wanted = []
    with watch(model, optimizer, every=2) as seen:
        for batch in classes(4):
            wanted.append(optimizer.step(lambda batch=batch: error(model, batch), scaler=scaler).item())
    run = seen.run()
    assert run.losses == pytest.approx([sum(wanted[:2]) / 2, sum(wanted[2:]) / 2])
    assert float(run.norm("gradient")[-1]) == pytest.approx(run.samples[-1].norms[-1], rel=1e-4)
    assert float(run.norm("gradient")[-1]) < 10

    model = perceptron()
    lbfgs = torch.optim.LBFGS(model.parameters(), max_iter=4)
    batch = classes(1)[0]
    heard = []

    def closure() -> Tensor:
        lbfgs.zero_grad()
        loss = error(model, batch)
        loss.backward()
        heard.append(loss.item())
        return loss

    with watch(model, lbfgs, every=1) as seen:
        lbfgs.step(closure)
    assert len(heard) > 1
    assert seen.run().losses == pytest.approx(heard[:1])


class Counted(TorchDispatchMode):
    """How often a tensor becomes a number."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_sample_reads_as_often_whatever_the_number_of_parameters() -> None:
    reads = []
    for depth in (1, 12):
        model = perceptron(*(nn.Linear(32, 32) for _ in range(depth)))
        optimizer = adam(model)
        hooks = watch(model, optimizer, every=1)
        for batch in classes(3):
            error(model, batch).backward()
            with Counted() as counted:
                optimizer.step()
        hooks.close()
        with Counted() as alone:
            optimizer.step()
        reads.append(counted.count - alone.count)
    assert reads[0] == reads[1]


def test_nothing_is_kept_alive() -> None:
    model = perceptron()
    optimizer = adam(model)
    seen = watch(model, optimizer, every=2)
    gc.collect()
    gc.disable()
    try:
        for batch in classes(4):
            optimizer.zero_grad()
            loss = error(model, batch)
            loss.backward()
            optimizer.step()
            seen.loss(loss)
        alive = [weakref.ref(model[0]), weakref.ref(optimizer)]
        seen.close()
        del model, optimizer, loss
        assert [one() for one in alive] == [None, None]
    finally:
        gc.enable()
    assert len(seen.run().samples) == 2


def test_between_samples_no_copy_is_held() -> None:
    model = perceptron()
    optimizer = adam(model)
    held = []
    with watch(model, optimizer, every=5) as seen:
        for batch in classes(10):
            error(model, batch).backward()
            optimizer.step()
            held.append(bool(seen._earlier))
            assert seen._around is None
    assert held == [True, False, False, True, False, False, False, False, True, False]


def test_closing_takes_the_hooks_away_and_may_be_done_twice() -> None:
    model = perceptron()
    optimizer = adam(model)
    with watch(model, optimizer) as seen:
        assert optimizer._optimizer_step_pre_hooks
    seen.close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_wrappers_of_trainers_are_looked_through() -> None:
    class Wrapped(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:  # as accelerate's: torch's is never called
            self.optimizer = optimizer

    model = perceptron()
    optimizer = adam(model)
    with watch(model, Wrapped(optimizer), every=1) as seen:
        error(model, classes(1)[0]).backward()
        optimizer.step()
    assert seen.run().optimizer == "Adam"
    assert seen.run().steps == [1]
    with pytest.raises(TypeError, match="where a torch"):
        watch(model, object())  # type: ignore[arg-type]


def test_odd_parameters_are_measured_or_left_out() -> None:
    """None of these may stop a training run: sparse, complex, empty, single, late, and a group that comes later."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 3, sparse=True)
            self.wave = nn.Parameter(torch.randn(4, dtype=torch.complex64))
            self.none = nn.Parameter(torch.zeros(0, 3))
            self.one = nn.Parameter(torch.tensor(0.5))
            self.late = nn.Parameter(torch.ones(3))

    model = Odd()
    optimizer = torch.optim.SGD([model.table.weight, model.wave, model.none, model.one], lr=0.1)
    with watch(model, optimizer, every=1) as seen:
        for step in range(6):
            optimizer.zero_grad()
            loss = model.table(torch.tensor([1, 1, 5])).square().sum() + model.wave.abs().square().sum()
            loss = loss + model.one.square() + model.none.sum()
            if step == 3:
                optimizer.add_param_group({"params": [model.late]})
            if step >= 3:
                loss = loss + model.late.square().sum()
            loss.backward()
            optimizer.step()
            seen.loss(loss)
    run = seen.run()
    assert [parameter.name for parameter in run.parameters] == ["wave", "none", "one", "late", "table.weight"]
    gradient = dict(zip([p.name for p in run.parameters], run["gradient"].T.tolist(), strict=True))
    assert all(value > 0 for name in ("table.weight", "wave", "one") for value in gradient[name])
    assert [math.isnan(value) for value in gradient["late"]] == [True] * 3 + [False] * 3
    assert run["descent"][:, 0].tolist() == pytest.approx([1.0] * 6, abs=1e-6)
    assert "unheld" in Report(run.until(3)).names
    assert str(Report(run))


def test_a_long_run_keeps_its_beginning_and_its_end_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slalom.observe.record.MOST", 20)
    model = nn.Linear(1, 1)
    optimizer = sgd(model)
    with watch(model, optimizer, every=1) as seen:
        model(torch.ones(1)).backward()
        for _ in range(60):
            optimizer.step()
    steps = seen.run().steps
    assert len(steps) <= 20
    assert steps[0] == 1
    assert steps[-10:] == list(range(51, 61))


# --- the log --------------------------------------------------------------------------------------------------------


def logged(path: Path, steps: int, *, done: int = 0, lr: float = 0.05) -> Run:
    model = perceptron()
    optimizer = sgd(model, lr=lr)
    with watch(model, optimizer, every=5, log=path, done=done) as seen:
        for batch in classes(steps):
            optimizer.zero_grad()
            loss = error(model, batch)
            loss.backward()
            optimizer.step()
            seen.loss(loss)
    return seen.run()


def same(one: Run, other: Run) -> None:
    assert one.parameters == other.parameters
    assert one.steps == other.steps
    assert one.settings == other.settings
    torch.testing.assert_close(one.numbers, other.numbers, rtol=1e-6, atol=0, equal_nan=True)
    assert one.losses == pytest.approx(other.losses, rel=1e-6, nan_ok=True)
    for a, b in zip(one.samples, other.samples, strict=True):
        assert a.norms == pytest.approx(b.norms, rel=1e-6, nan_ok=True)
        assert (a.bad_losses, a.rates) == (b.bad_losses, pytest.approx(b.rates))


@pytest.mark.parametrize("lr", [0.05, 1e4])
def test_a_log_holds_the_run_as_strict_json_also_one_that_ends_in_nan(tmp_path: Path, lr: float) -> None:
    run = logged(tmp_path / "run.jsonl", 32, lr=lr)
    for row in (tmp_path / "run.jsonl").read_text().splitlines():
        json.loads(row, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    read = read_log(tmp_path / "run.jsonl")
    same(read, run)
    assert Report(read).names == Report(run).names == ([] if lr < 1 else ["non-finite"])


def test_nan_between_two_samples_is_in_the_log_when_the_run_ends(tmp_path: Path) -> None:
    model = perceptron()
    optimizer = sgd(model)
    with watch(model, optimizer, every=20, log=tmp_path / "run.jsonl") as seen:
        for step, batch in enumerate(classes(27)):
            optimizer.zero_grad()
            loss = error(model, batch)
            loss.backward()
            optimizer.step()
            seen.loss(loss if step < 26 else math.nan)
    assert Report(read_log(tmp_path / "run.jsonl")).names == ["non-finite"]


@pytest.mark.parametrize("cut", [1, 5, 200])
def test_a_log_whose_last_line_is_broken_is_read_up_to_it_and_grows_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "run.jsonl"
    run = logged(path, 30)
    path.write_bytes(path.read_bytes()[:-cut])
    short = read_log(path)
    assert short.steps == (run.steps if cut == 1 else run.steps[:-1])
    logged(path, 20, done=15)
    assert read_log(path).steps == [2, 5, 10, 15, 17, 20, 25, 30, 35]


def test_a_resumed_run_replaces_what_it_does_again_and_a_new_one_replaces_all(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    logged(path, 30)
    logged(path, 20, done=20)
    assert read_log(path).steps == [2, 5, 10, 15, 20, 22, 25, 30, 35, 40]
    same(logged(path, 10), read_log(path))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "is no log"), ("{}\n", "is no log"), ('{"slalom_observe": 1}\n', "line 1 of"), ("[1]\nx\n", "is no log")],
)
def test_what_is_no_log_is_refused_with_a_sentence(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        read_log(path)


def test_a_log_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    model = perceptron()
    with pytest.raises(UsageError, match="cannot write the log"):
        watch(model, adam(model), log=tmp_path / "nowhere" / "run.jsonl")


def test_a_disk_that_is_full_ends_the_log_and_not_the_training(tmp_path: Path) -> None:
    model = perceptron()
    optimizer = sgd(model)
    with watch(model, optimizer, every=1, log="/dev/full") as seen:
        error(model, classes(1)[0]).backward()
        with pytest.warns(UserWarning, match="ends at step 0: No space left"):
            optimizer.step()
        optimizer.step()
    assert seen.run().steps == [1, 2]


def test_bad_numbers_are_refused() -> None:
    model = perceptron()
    with pytest.raises(ValueError, match="every=0"):
        watch(model, adam(model), every=0)
    with pytest.raises(ValueError, match="done=-1"):
        watch(model, adam(model), done=-1)
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="share="):
            watch(model, adam(model), share=share)


# --- what watching may take -----------------------------------------------------------------------------------------


class Clock:
    """A clock that goes on when something is said to take its time."""

    now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def slowed(self, function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def slow(*args: Any, **kwargs: Any) -> Any:
            self.now += seconds
            return function(*args, **kwargs)

        return slow


def on_the_clock(monkeypatch: pytest.MonkeyPatch, steps: int, **options: Any) -> tuple[Run, float]:
    """Train with steps of half a second, norms of 0.05 s and samples of 3 s; return the run and what it took in all."""
    clock = Clock()
    monkeypatch.setattr(watching, "time", clock)
    monkeypatch.setattr(watching, "whole_norm", clock.slowed(reading.whole_norm, 0.05))
    monkeypatch.setattr(watching, "fetched", clock.slowed(reading.fetched, 3.0))
    model = nn.Linear(2, 1)
    optimizer = sgd(model)
    with watch(model, optimizer, **options) as seen:
        for _ in range(steps):
            clock.now += 0.5
            optimizer.zero_grad()
            loss = (model(torch.randn(4, 2)) - torch.randn(4, 1)).square().mean()
            loss.backward()
            optimizer.step()
            seen.loss(loss)
    return seen.run(), clock.now - 1000.0


def test_by_default_watching_takes_its_share_of_the_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FIRST", 1)
    run, seconds = on_the_clock(monkeypatch, 3000)
    spent = seconds - 1500 - 3  # which closing takes
    assert 0.8 * 0.02 * seconds < spent < 1 + 0.02 * seconds + 0.1
    norms = sum(len(sample.norms) for sample in run.samples)
    assert norms * 0.05 == pytest.approx(spent / 2, rel=0.35)  # neither takes all
    assert run.steps[0] == 2
    gaps = [b - a for a, b in itertools.pairwise(run.steps[:-1])]  # the last one is the rest
    # The first is taken on trust; the second waits until both are paid: 6 seconds out of 0.5 + 0.01 t.
    assert gaps == pytest.approx([5.5 / 0.01 / 0.5, *[3 / 0.01 / 0.5] * 3], rel=0.05)
    assert all(math.isfinite(sample.loss) for sample in run.samples)
    more, seconds = on_the_clock(monkeypatch, 3000, share=0.1)
    assert 0.8 * 0.1 * seconds < seconds - 1503 < 1 + 0.1 * seconds + 0.1
    assert len(more.samples) > 3 * len(run.samples)


def test_what_is_cheap_is_measured_at_every_50_steps_and_what_is_asked_for_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = on_the_clock(monkeypatch, 300, share=1.0)
    assert run.steps == [2, 50, 100, 150, 200, 250, 300]
    first, _ = on_the_clock(monkeypatch, 1500)
    assert first.steps == [2, *range(50, 951, 50), 1500]  # the first 20, though they are dear; and the rest
    exact, seconds = on_the_clock(monkeypatch, 300, every=20)
    assert exact.steps == [2, *range(20, 301, 20)]
    assert sum(len(sample.norms) for sample in exact.samples) == 300
    assert seconds == pytest.approx(150 + 300 * 0.05 + 16 * 3)


def test_a_sample_that_was_put_off_is_of_two_successive_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FIRST", 1)
    run, _ = on_the_clock(monkeypatch, 1200)
    assert run.steps[1] % 50
    assert bool(run["agree"][:2].isfinite().all())  # the gradient of the step before was there
    assert bool(run["past"][:2].isfinite().all())


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_shows_a_log_a_moment_of_it_its_data_and_its_picture(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    logged(path, 32, lr=1e4)
    shown = call("observe", str(path), "--at", "30")
    assert shown.returncode == 0, shown.stderr
    assert "30 steps" in shown.stdout
    assert "nan or infinity" in shown.stdout
    assert "\x1b[" not in shown.stdout  # plain where there is no terminal

    command = CliRunner()
    picture = tmp_path / "loss.svg"
    facts = json.loads(command.invoke(app, ["observe", str(path), "--json", "--svg", str(picture)]).stdout)
    assert facts["verdicts"][0]["name"] == "non-finite"
    assert picture.read_text().startswith("<svg")
    missing = command.invoke(app, ["observe", str(tmp_path / "missing.jsonl")])
    assert isinstance(missing.exception, UsageError)
    assert "cannot read the log" in str(missing.exception)


def test_two_trainings_of_one_optimizer_may_be_watched_at_once() -> None:
    model = perceptron()
    optimizer = adam(model)
    with watch(model, optimizer, every=2) as one:
        run = trained(model, optimizer, classes(6), every=3)
    assert one.run().steps == [2, 4, 6]
    assert run.steps == [2, 3, 6]
