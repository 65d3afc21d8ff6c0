"""On a GPU: every method against eager float64 on the CPU, steps that wait for nothing, captured steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import slalom
from networks import build, go, network, train
from slalom import Recipe, parts
from slalom.schedules import Cosine
from test_mixed_precision import assert_untouched, everything
from test_native import SETTINGS, drive, lists
from test_triton import LEFT_OUT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

SHAPES: list[tuple[int, ...]] = [(3, 4), (5,), (), (40, 50), (70, 130), (4, 3, 3, 3)]


def on_gpu(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """The parameters of `lists`, there."""
    return [nn.Parameter(p.detach().cuda()) for p in lists(shapes, dtype)]


def fill(parameters: list[nn.Parameter], step: int) -> None:
    """Write a step's gradients where the last ones were."""
    for place, parameter in enumerate(parameters):
        generator = torch.Generator().manual_seed(100 * step + place)
        new = torch.randn(parameter.shape, generator=generator).to(parameter)
        if parameter.grad is None:
            parameter.grad = new
        else:
            parameter.grad.copy_(new)


@pytest.mark.parametrize("missing", [False, True], ids=["", "missing"])
@pytest.mark.parametrize("name", [name for name in slalom.list_optimizers() if name not in LEFT_OUT])
def test_every_method_equals_eager_float64(name: str, missing: bool) -> None:
    settings = SETTINGS.get(name, {})
    ours, exact = on_gpu(SHAPES), lists(SHAPES, torch.float64)
    optimizer = build(name, ours, **settings)
    drive_there(optimizer, 4, missing=missing)
    drive(build(name, exact, **settings), 4, missing=missing)
    assert "triton" in optimizer.executors()
    for p, q in zip(ours, exact, strict=True):
        wrong = (p.double().cpu() - q).abs() > 1e-4 * (1 + q.abs())
        assert wrong.double().mean() < 1e-3, (p.shape, (p.double().cpu() - q).abs().max())


def drive_there(optimizer: torch.optim.Optimizer, steps: int, *, missing: bool = False) -> None:
    """Do as `drive` does, on a GPU."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(steps):
        generator = torch.Generator().manual_seed(1000 + step)
        for place, p in enumerate(parameters):
            grad = torch.randn(p.shape, generator=generator).bfloat16()
            p.grad = None if missing and (step + place) % 3 == 0 else grad.to(p)
        go(optimizer, 1.0 + 0.25 * step)


@pytest.mark.parametrize("name", ["muon", "soap", "shampoo", "adafactor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_trains_as_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a = network(torch.float32)
    b = copy.deepcopy(a).cuda().to(dtype)
    first, second = slalom.create(name, a, lr=1e-3), slalom.create(name, b, lr=1e-3)
    losses = train(a, first, 10)
    for step in range(10):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 16, generator=generator, dtype=torch.float64).to("cuda", dtype)
        y = torch.randn(8, 2, generator=generator, dtype=torch.float64).to("cuda", dtype)
        second.zero_grad()
        loss = ((b(x) - y) ** 2).float().mean()
        loss.backward()
        second.step()
        assert loss.item() == pytest.approx(losses[step], rel=2e-2 if dtype == torch.float32 else 1e-1)


# What reads the loss, what many tensors have in common, what is reduced over tensors, rows and columns.
CAPTURED = ["adamw", "sgd", "lamb", "prodigy", "dog", "adafactor", "radam", "schedule-free-adamw", "mars-adamw", "muon"]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("name", CAPTURED)
def test_a_step_waits_for_nothing(name: str) -> None:
    parameters = on_gpu([(40, 50), (7,)])
    optimizer = build(name, parameters)
    loss = torch.ones((), device="cuda")
    for step in range(4):
        fill(parameters, step)
        try:
            torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
            go(optimizer, loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", CAPTURED)
def test_replays_of_a_captured_step_equal_steps(name: str) -> None:
    ours, theirs = on_gpu([(40, 50), (7,)]), on_gpu([(40, 50), (7,)])
    captured, plain = build(name, ours), build(name, theirs)
    for step in range(3):  # the first steps build tables and kernels
        fill(ours, step)
        fill(theirs, step)
        captured.step()
        plain.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for step in range(3, 7):
        fill(ours, step)
        fill(theirs, step)
        graph.replay()
        plain.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert float(captured.state[p]["step"]) == float(plain.state[q]["step"])


def test_a_rate_on_the_gpu_is_live_in_replays() -> None:
    (p,), (q,) = on_gpu([(40, 50)]), on_gpu([(40, 50)])
    rate = torch.tensor(0.1, device="cuda")
    captured, plain = slalom.AdamW([p], lr=rate), slalom.AdamW([q], lr=0.1)
    for _ in range(2):
        for parameter, optimizer in ((p, captured), (q, plain)):
            fill([parameter], 0)
            optimizer.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for lr in (0.1, 0.01, 0.5):
        rate.fill_(lr)
        plain.param_groups[0]["lr"] = lr
        fill([p], 1)
        fill([q], 1)
        graph.replay()
        plain.step()
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_steps_between_replays_keep_their_own_numbers() -> None:
    (p,), (q,) = on_gpu([(40, 50)]), on_gpu([(40, 50)])
    captured, plain = slalom.SGD([p], lr=0.1), slalom.SGD([q], lr=0.1)
    for _ in range(2):
        fill([p], 0)
        fill([q], 0)
        captured.step()
        plain.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for group in (captured.param_groups[0], plain.param_groups[0]):
        group["lr"] = 0.3
    for _ in range(2):  # a replay takes the rate it was captured with, a step the one that is set
        graph.replay()
        captured.step()
        plain.param_groups[0]["lr"] = 0.1
        plain.step()
        plain.param_groups[0]["lr"] = 0.3
        plain.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize("name", ["adamw", "lamb", "prodigy", "adafactor", "muon"])
def test_the_same_steps_twice_give_the_same_bits(name: str) -> None:
    def run() -> list[nn.Parameter]:
        parameters = on_gpu([(300, 257), (5000,), (33, 65)])
        drive_there(build(name, parameters), 5)
        return parameters

    assert all(torch.equal(p, q) for p, q in zip(run(), run(), strict=True))


def test_parameters_and_gradients_that_are_not_aligned() -> None:
    def run(offset: int) -> nn.Parameter:
        flat = torch.linspace(-1, 1, 5000, device="cuda")
        p = nn.Parameter(torch.empty(5000 + offset, device="cuda")[offset:])
        p.data.copy_(flat)
        p.grad = torch.empty(5000 + offset, device="cuda")[offset:]
        optimizer = slalom.AdamW([p], lr=0.1)
        for step in range(3):
            p.grad.copy_(flat.flip(0) + step)
            optimizer.step()
        return p

    assert torch.equal(run(0), run(1))


def test_channels_last_and_half_precision() -> None:
    # three steps are rounded to the dtype, each by half a unit in the last place of values below 8
    for dtype, atol in ((torch.float32, 1e-5), (torch.bfloat16, 3 * 2.0**-6), (torch.float16, 3 * 2.0**-9)):
        a = nn.Parameter(torch.randn(8, 4, 3, 3, device="cuda").to(dtype).to(memory_format=torch.channels_last))
        b = nn.Parameter(a.detach().double().cpu().contiguous())
        first, second = slalom.AdamW([a], lr=0.01), slalom.AdamW([b], lr=0.01)
        for step in range(3):
            grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
            a.grad, b.grad = grad.to(a), grad.to(dtype).double()
            first.step()
            second.step()
        assert "triton" in first.executors()
        torch.testing.assert_close(a.double().cpu(), b, rtol=0, atol=atol)


def test_state_moves_between_devices() -> None:
    ours, theirs = on_gpu([(40, 50), (7,)]), lists([(40, 50), (7,)], torch.float32)
    a, b = slalom.AdamW(ours, lr=0.1), slalom.AdamW(theirs, lr=0.1)
    for step in range(3):
        fill(ours, step)
        a.step()
    with torch.no_grad():
        for p, q in zip(ours, theirs, strict=True):
            q.copy_(p.cpu())
    b.load_state_dict(a.state_dict())
    fill(ours, 3)
    fill(theirs, 3)
    a.step()
    b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.cpu(), q, rtol=1e-5, atol=1e-6)
        assert float(a.state[p]["step"]) == float(b.state[q]["step"]) == 4


def test_closures_scalers_and_schedules() -> None:
    torch.manual_seed(0)
    model = network(torch.float32).cuda()
    optimizer = slalom.AdamW(model.parameters(), lr=1e-2, on_nonfinite="skip")
    scheduler = Cosine(30).attach(optimizer)
    scaler = torch.amp.GradScaler("cuda")
    x, y = torch.randn(32, 16, device="cuda"), torch.randn(32, 2, device="cuda")

    def closure() -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.float16):
            return ((model(x).float() - y) ** 2).mean()

    losses = []
    for _ in range(30):
        losses.append(float(optimizer.step(closure, scaler=scaler)))
        scheduler.step()
    assert losses[-1] < 0.7 * losses[0]


def overflowing(parameters: list[nn.Parameter], step: int, scaler: torch.amp.GradScaler) -> bool:
    """Write a step's gradients, scaled; those of step 4 overflow."""
    fill(parameters, step)
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.mul_(float("inf") if step == 4 else scaler.get_scale())
    return step == 4


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("unscaled", [False, True], ids=["scaled", "unscaled"])
@pytest.mark.parametrize("name", ["adamw", "lamb", "prodigy", "adafactor", "schedule-free-adamw", "muon"])
def test_a_scaler_s_verdict_and_scale_are_honoured_without_waiting(name: str, unscaled: bool) -> None:
    ours, theirs = on_gpu([(40, 50), (7,)]), on_gpu([(40, 50), (7,)])
    optimizer, plain = build(name, ours), build(name, theirs)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    scaler.scale(torch.ones((), device="cuda"))
    for step in range(7):
        skipped = overflowing(ours, step, scaler)
        before = everything(optimizer)
        try:
            torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
            if unscaled:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        if skipped:
            assert_untouched(before, optimizer)
        else:
            fill(theirs, step)
            plain.step()
    assert scaler.get_scale() == 2.0**9
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", ["adamw", "prodigy", "muon"])
def test_a_scaled_step_can_be_captured(name: str) -> None:
    ours, theirs = on_gpu([(40, 50), (7,)]), on_gpu([(40, 50), (7,)])
    optimizer, plain = build(name, ours), build(name, theirs)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    scaler.scale(torch.ones((), device="cuda"))

    def step() -> None:
        scaler.step(optimizer)
        scaler.update()

    graph = torch.cuda.CUDAGraph()
    for number in range(7):
        if number == 3:  # the first steps build tables and kernels
            with torch.cuda.graph(graph):
                step()
        if not overflowing(ours, number, scaler):
            fill(theirs, number)
            plain.step()
        (step if number < 3 else graph.replay)()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert float(optimizer.state[p]["step"]) == float(plain.state[q]["step"]) == 6


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_closure_under_a_scaler_waits_for_nothing() -> None:
    (w,) = on_gpu([(40, 50)])
    optimizer = slalom.AdamW([w], lr=0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    factor = torch.ones((), device="cuda")
    for step in range(5):
        factor.fill_(float("inf") if step == 3 else 1.0)
        before = w.detach().clone()
        try:
            torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
            optimizer.step(lambda: factor * w.square().sum(), scaler=scaler)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(before, w) == (step == 3)
    assert optimizer.skipped == 1


def test_one_optimizer_over_two_devices() -> None:
    a, b = lists([(40, 50)], torch.float32), on_gpu([(7,)])
    exact = lists([(40, 50), (7,)], torch.float64)
    exact[1].data.copy_(b[0].detach().cpu())
    recipe = Recipe(gradient=parts.ClipNorm(0.1), momentum=parts.Ema(0.9), step=0.1)
    mixed, whole = slalom.Optimizer([*a, *b], recipe), slalom.Optimizer(exact, recipe)
    for step in range(3):
        for p, q in zip([*a, *b], exact, strict=True):
            grad = torch.randn(q.shape, generator=torch.Generator().manual_seed(step), dtype=torch.float32)
            p.grad, q.grad = grad.to(p), grad.double()
        mixed.step()
        whole.step()
    assert set(mixed.executors()) == {"native", "triton"}
    for p, q in zip([*a, *b], exact, strict=True):
        torch.testing.assert_close(p.detach().double().cpu(), q.detach(), rtol=1e-5, atol=1e-6)


def test_more_elements_than_an_int32_counts() -> None:
    if torch.cuda.get_device_properties(0).total_memory < 24 << 30:
        pytest.skip("needs 24 GiB")
    p = nn.Parameter(torch.ones(2**31 + 64, dtype=torch.bfloat16, device="cuda"))
    p.grad = torch.ones_like(p)
    slalom.SGD([p], lr=0.5).step()
    assert p[-1].item() == p[0].item() == 0.5
    assert p.min().item() == p.max().item() == 0.5


def test_what_cannot_be_compiled_runs_as_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no launcher")

    monkeypatch.setattr("slalom.engine.triton.launch.TritonLaunch._launch", fail)
    (p,), (q,) = on_gpu([(4, 4)]), on_gpu([(4, 4)])
    fill([p], 0)
    fill([q], 0)
    ours: Callable[[], Any] = slalom.AdamW([p], lr=0.1).step
    with pytest.warns(RuntimeWarning, match="Triton cannot compile"):
        ours()
    slalom.AdamW([q], lr=0.1, executor="foreach").step()
    assert torch.equal(p, q)


def test_a_step_that_decides_by_its_count_refuses_to_be_captured() -> None:
    parameters = on_gpu([(8, 8)])
    optimizer = build("soap", parameters)
    for step in range(3):
        fill(parameters, step)
        optimizer.step()
    graph = torch.cuda.CUDAGraph()
    message = ""
    try:
        with torch.cuda.graph(graph):
            try:
                optimizer.step()
            except RuntimeError as error:
                message = str(error)
    except RuntimeError:
        pass  # an empty capture is an error of torch's
    assert "cannot be captured" in message
    assert float(optimizer.state[parameters[0]]["step"]) == 3


@pytest.mark.parametrize("name", ["adagrad", "ftrl-proximal"])
def test_sparse_rows_equal_dense_ones(name: str) -> None:
    torch.manual_seed(0)
    sparse = nn.Embedding(50, 8, sparse=True, device="cuda")
    dense = nn.Embedding(50, 8, device="cuda")
    dense.load_state_dict(sparse.state_dict())
    a, b = build(name, sparse.parameters(), lr=0.1), build(name, dense.parameters(), lr=0.1)
    for step in range(4):
        rows = torch.randint(0, 50, (20,), generator=torch.Generator().manual_seed(step)).cuda()
        for table, optimizer in ((sparse, a), (dense, b)):
            optimizer.zero_grad()
            table(rows).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(sparse.weight, dense.weight, rtol=1e-5, atol=1e-6)


def test_noise_is_the_same_as_on_the_cpu() -> None:
    recipe = Recipe(gradient=parts.Noise(eta=0.5), step=0.1)
    ours, exact = on_gpu([(40, 50), (7,)]), lists([(40, 50), (7,)], torch.float64)
    a, b = slalom.Optimizer(ours, recipe), slalom.Optimizer(exact, recipe)
    drive_there(a, 3)
    drive(b, 3)
    assert "triton" in a.executors()
    for p, q in zip(ours, exact, strict=True):
        torch.testing.assert_close(p.detach().double().cpu(), q.detach(), rtol=1e-5, atol=1e-5)


def test_c_is_not_for_parameters_on_a_gpu() -> None:
    parameters = on_gpu([(3, 4)])
    fill(parameters, 0)
    with pytest.raises(ValueError, match="the parameter is on cuda, and C runs on the CPU"):
        slalom.AdamW(parameters, executor="native").step()
