"""The compiled executor against eager float64: every method, random recipes, awkward tensors, threads, the cache."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slalom
from networks import build as make
from networks import go, quietly
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.engine import executors, fused
from slalom.engine import plan as planner
from slalom.engine.native import build, launch, wiring
from slalom.recipes import ByRole, method
from test_recipes import DECAYS, GRADIENTS, GUARDS, MOMENTA, ORDERS, SCALES, STEPS

SHAPES = [(3, 4), (5,), (), (2, 3, 2, 2), (1, 7), (7, 1), (130, 300), (40000,)]


def lists(shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int = 0) -> list[torch.nn.Parameter]:
    """Parameters of these shapes; their values fit bfloat16, so that every dtype starts alike."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter((torch.randn(shape, generator=generator) * 0.5).bfloat16().to(dtype)) for shape in shapes
    ]


def drive(optimizer: torch.optim.Optimizer, steps: int, *, missing: bool = False, seed: int = 1) -> None:
    """Take steps with gradients that depend on the step's number alone, and fit bfloat16."""
    for step in range(steps):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        for place, p in enumerate(itertools.chain.from_iterable(g["params"] for g in optimizer.param_groups)):
            grad = torch.randn(p.shape, generator=generator).bfloat16()
            p.grad = None if missing and (step + place) % 3 == 0 else grad.to(p.dtype)
        go(optimizer, 1.0 + 0.25 * step)


def compare(recipe: Recipe | ByRole, shapes: list[tuple[int, ...]], *, steps: int = 5, missing: bool = False) -> None:
    """Run a recipe natively in float32 and eagerly in float64; states and parameters must agree to rounding."""
    native, exact = lists(shapes, torch.float32), lists(shapes, torch.float64)
    ours = quietly(lambda: recipe.build(native))
    reference = quietly(lambda: recipe.build(exact))
    drive(ours, steps, missing=missing)
    drive(reference, steps, missing=missing)
    assert "native" in ours.executors()
    for p, q in zip(native, exact, strict=True):
        torch.testing.assert_close(p.double(), q, rtol=2e-4, atol=2e-5)
        for key, value in ours.state.get(p, {}).items():
            expected = reference.state[q][key].double()
            scale = expected.abs().max().item() if expected.numel() else 0.0
            torch.testing.assert_close(value.double(), expected, rtol=2e-4, atol=2e-5 * scale + 1e-30)


# From a distance of 1e-6 the first steps are below the resolution of float32.
SETTINGS: dict[str, dict[str, float]] = {
    **{name: {"d0": 1e-2} for name in ("dadapt-adam", "dadapt-sgd", "prodigy")},
    **{name: {"reps_rel": 1e-2} for name in ("dog", "dowg", "ldog")},
}

# Products of matrices are torch's: test_phases.py compares what surrounds them.
FUSED = [name for name in slalom.list_optimizers() if method(name).family != "matrix"]


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("missing", [False, True], ids=["", "missing"])
def test_every_method_equals_eager_float64(name: str, missing: bool) -> None:
    if name in ("signsgd", "signum", "lion", "c-lion", "mars-lion"):
        pytest.skip(
            "a sign flips on the last bit of a sum that is nearly zero; the next test compares those bit by bit"
        )
    compare(method(name).recipe(**SETTINGS.get(name, {})), SHAPES, missing=missing)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_method_equals_eager_in_its_own_dtype(name: str, dtype: torch.dtype) -> None:
    a, b = lists(SHAPES, dtype), lists(SHAPES, dtype)
    drive(make(name, a, executor="native"), 3)
    drive(make(name, b, executor="eager"), 3)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    for p, q in zip(a, b, strict=True):
        difference = (p.double() - q.double()).abs()
        # an element that rounds the other way may turn a sign; that must stay an exception
        wrong = (difference > tolerance * (1 + q.double().abs())).double().mean().item()
        assert wrong < 1e-4, (p.shape, difference.max())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(GRADIENTS, MOMENTA, SCALES, GUARDS, DECAYS, STEPS, ORDERS, st.booleans(), st.booleans(), st.booleans())
def test_random_recipes_equal_eager_float64(
    gradient: Any, momentum: Any, scale: Any, guard: Any, decay: Any, step: Any, order: Any,
    lazy: bool, averaged: bool, missing: bool,
) -> None:  # fmt: skip
    if lazy and isinstance(getattr(scale, "eps", None), P.Atan2):
        return
    if any(isinstance(part, P.Cautious) for part in (guard if isinstance(guard, tuple) else (guard,))):
        return  # its mask flips on the last bit; test_every_guard_by_itself compares it where it does not
    if any(isinstance(part, P.CenteredMoment) for part in (scale,)):
        return  # v - a^2 cancels: float32 and float64 differ by more than rounding, in eager too
    recipe = Recipe(
        gradient=gradient, momentum=momentum, scale=scale, guard=guard, regularize=decay, step=step,
        form=P.FTRL() if lazy else P.Greedy(), average=P.ScheduleFree() if averaged else None, order=order,
    )  # fmt: skip
    compare(recipe, [(3, 4), (5,), (2, 3, 2, 2)], steps=4, missing=missing)


@pytest.mark.parametrize("guard", [P.TrustRatio(), P.ClipUpdate(0.5), P.Cautious()], ids=str)
@pytest.mark.parametrize("per", ["tensor", "group", "model"])
def test_every_guard_by_itself(guard: Any, per: Any) -> None:
    compare(Recipe(gradient=P.ClipNorm(0.5, per), guard=guard, step=0.1), SHAPES)


def test_a_state_is_never_read_after_it_was_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAMB stores its moments in the first pass and must re-read the new ones in the second."""
    compare(method("lamb").recipe(), SHAPES)
    stages = planner.plan(_program("lamb")).stages
    assert [sorted(stage.stores) for stage in stages] == [["ema.m", "second_moment.v"], ["w"]]
    assert set(stages[1].loads) == {"w", "ema.m", "second_moment.v"}

    # The fault that this guards against, planted: later stages compute new moments from the stored ones again.
    real = planner._stage

    def careless(index: int, arrays: Any, when: Any, reductions: Any, levels: Any, rounded: Any) -> Any:
        late = real(index, arrays, dict.fromkeys(when, len(when)), reductions, levels, rounded)
        late.stores = {name: value for name, value in arrays.items() if when[name] == index}
        for value in late.stores.values():
            for node in planner.walk([value]):
                if node.dims == planner.ELEMENT and node.args and node not in late.values:
                    late.values.append(node)
                elif node.op in ("input", "state") and node.dims == planner.ELEMENT:
                    planner._add(late.loads, planner.array_name(node))
        return late

    monkeypatch.setattr(planner, "_stage", careless)
    forget = [fused.planned, wiring.wire, launch.kernel]  # numbers apart, other tests run the same program
    for remembered in forget:
        remembered.cache_clear()
    try:
        with pytest.raises(AssertionError):
            compare(method("lamb").recipe(), SHAPES)
    finally:
        for remembered in forget:
            remembered.cache_clear()


def _program(name: str) -> Any:
    w = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = slalom.create(name, [w])
    return optimizer.program(optimizer.param_groups[0], w)


@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor", "prodigy", "sm3", "smmf"])
def test_the_bits_do_not_depend_on_the_number_of_threads(name: str) -> None:
    ends = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        params = lists(SHAPES, torch.float32)
        drive(slalom.create(name, params, executor="native"), 4)
        ends.append(torch.cat([p.detach().flatten() for p in params]))
    torch.set_num_threads(1)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["adamw", "adamax", "amsgrad", "lamb", "lion", "adafactor", "came", "sm3", "smmf"])
def test_nan_and_infinity_go_where_they_go_in_eager(name: str, value: float) -> None:
    a, b = lists([(3, 4), (6,)], torch.float32), lists([(3, 4), (6,)], torch.float32)
    for params, executor in ((a, "native"), (b, "eager")):
        optimizer = slalom.create(name, params, executor=executor)
        drive(optimizer, 1)
        params[0].grad[1, 2] = value  # type: ignore[index]
        optimizer.step()
    for p, q in zip(a, b, strict=True):
        assert torch.equal(torch.isnan(p), torch.isnan(q))
        assert torch.equal(torch.isinf(p), torch.isinf(q))


def test_dense_tensors_in_any_order_run_natively_and_gaps_do_not() -> None:
    base = torch.randn(2, 3, 4, 4)
    plain = torch.nn.Parameter(base.clone())
    channels_last = torch.nn.Parameter(base.clone().to(memory_format=torch.channels_last))
    gaps = torch.nn.Parameter(torch.randn(6, 8)[:, ::2])
    assert "native" in slalom.AdamW([channels_last]).executors()
    assert "eager" in slalom.AdamW([gaps]).executors()
    assert "eager" in slalom.Adafactor([channels_last]).executors()
    for name in ("adamw", "lamb", "adafactor"):
        a, b = torch.nn.Parameter(plain.detach().clone()), torch.nn.Parameter(channels_last.detach().clone())
        for p in (a, b):
            drive(slalom.create(name, [p]), 3)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    drive(slalom.AdamW([gaps]), 2)


def test_a_gradient_of_another_layout_is_read_in_the_right_order() -> None:
    a, b = lists([(3, 4)], torch.float32)[0], lists([(3, 4)], torch.float32)[0]
    grad = torch.randn(3, 4)
    for p, g in ((a, grad), (b, grad.t().contiguous().t())):
        optimizer = slalom.AdamW([p], executor="native")
        p.grad = g.clone() if p is a else g
        optimizer.step()
    assert torch.equal(a, b)


def test_tensors_that_move_in_memory_are_found_again() -> None:
    params = lists([(3, 4), (5,)], torch.float32)
    twins = lists([(3, 4), (5,)], torch.float32)
    moving, still = slalom.AdamW(params, executor="native"), slalom.AdamW(twins, executor="native")
    for step in range(4):
        drive(moving, 1, seed=step)
        drive(still, 1, seed=step)
        params[0].data = params[0].data.clone()
        state = moving.state[params[1]]
        state["ema.m"] = state["ema.m"].clone()
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)


def test_different_step_counts_in_one_launch() -> None:
    compare(Recipe(momentum=P.NesterovEma(), scale=P.Rectified(), step=0.01), SHAPES, steps=9, missing=True)


def test_one_launch_serves_matrices_and_vectors() -> None:
    optimizer = slalom.AdamW(lists(SHAPES, torch.float32))
    drive(optimizer, 2)
    (known,) = optimizer._crews.values()
    made = known.crew
    assert made is not None
    assert len(made.launches) == 1
    assert not made.others
    drive(optimizer, 2)
    assert optimizer._crews[0].crew is made  # whose tables are filled once


def test_mixed_dtypes_in_one_optimizer() -> None:
    params = [*lists([(4, 4)], torch.float32), *lists([(4, 4)], torch.bfloat16, 1), *lists([(4, 4)], torch.float64, 2)]
    optimizer = slalom.LAMB(params)
    drive(optimizer, 2)
    assert set(optimizer.executors()) == {"native", "eager"}


def test_native_can_be_demanded_and_says_why_not() -> None:
    with pytest.raises(ValueError, match="float64 is computed in torch"):
        drive(slalom.AdamW(lists([(2, 2)], torch.float64), executor="native"), 1)
    with pytest.raises(ValueError, match=r'no executor "natve"\. Did you mean native'):
        slalom.AdamW(lists([(2, 2)], torch.float32), executor="natve")  # type: ignore[arg-type]
    elsewhere = slalom.AdamW([torch.nn.Parameter(torch.empty(3, 4, device="meta"))], executor="native")
    with pytest.raises(ValueError, match="the parameter is on meta, and C runs on the CPU"):
        elsewhere.executors()


def test_a_change_of_numbers_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    params = lists([(2, 2)], torch.float32)
    optimizer = slalom.AdamW(params, executor="native")
    drive(optimizer, 1)
    monkeypatch.setattr(build, "load", lambda source: pytest.fail("built again"))
    monkeypatch.setattr("slalom.engine.native.launch.load", lambda source: pytest.fail("built again"))
    for step in range(5):
        optimizer.param_groups[0].update(
            lr=0.1 / (step + 1), betas=(0.5, 0.9 + step / 100), weight_decay=0.1 * (step + 1)
        )
        drive(optimizer, 1)


# --- the cache ---------------------------------------------------------------------------------------

SOURCE = "int answer(void) { return %d; }"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SLALOM_CACHE", str(folder))
    return folder


def test_a_library_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.load(SOURCE % 1).answer() == 1
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build.load(SOURCE % 1).answer() == 1
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@pytest.mark.parametrize("harm", ["truncated", "foreign", "unsealed", "writable"])
def test_a_damaged_or_foreign_library_is_rebuilt_never_loaded(cache: Path, harm: str) -> None:
    build.load(SOURCE % 2)
    (library,) = cache.glob("*.so")
    original = library.read_bytes()
    library.unlink()  # the loaded one stays mapped; a new file takes its place
    library.write_bytes(original[:100] if harm == "truncated" else original)
    if harm == "foreign":
        library.write_bytes(original + b"x")
    if harm == "unsealed":
        next(cache.glob("*.sha256")).unlink()
    if harm == "writable":
        library.chmod(0o777)
    called = []
    real = build._compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_compile", lambda *args: (called.append(1), real(*args)))
        build.load(SOURCE % 2)
    assert called


def test_concurrent_builds_do_not_disturb_each_other(cache: Path) -> None:
    code = f"from slalom.engine.native.build import load; print(load({SOURCE % 3!r}).answer())"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate()[0].strip() for run in runs] == ["3", "3"]
    assert not list(cache.glob(".build-*"))


def test_a_read_only_cache_is_replaced_by_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SLALOM_CACHE", str(blocked / "cache"))
    assert build.load(SOURCE % 4).answer() == 4


def test_a_failing_compiler_is_named_and_the_source_kept(cache: Path) -> None:
    with pytest.raises(build.CompileError, match=r"the C compiler failed: .*error.*kept in") as caught:
        build.load("this is no C")
    kept = str(caught.value).split("kept in ")[1].rstrip(").")
    assert Path(kept + ("" if kept.endswith(".c") else "c")).exists() or Path(kept).exists()


def test_without_a_compiler_torch_runs_and_one_warning_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "compiler", lambda: None)
    monkeypatch.setattr(executors, "_warned", set())
    params = lists([(2, 2)], torch.float32)
    optimizer = slalom.AdamW(params)
    with pytest.warns(RuntimeWarning, match="install gcc or clang") as caught:
        drive(optimizer, 3)
    assert len(caught) == 1
    assert "foreach" in optimizer.executors()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor", "prodigy", "radam", "sm3", "smmf", "came"])
def test_emitted_c_is_clean_under_sanitizers(name: str, tmp_path: Path) -> None:
    """Address and undefined-behaviour sanitizers over real steps, in a process that has them loaded."""
    script = (
        "import torch, sys\nsys.path.insert(0, 'tests')\nfrom slalom.engine.native import build\n"
        "build._FLAGS = (*build._FLAGS, '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-g')\n"
        "build.openmp = lambda: ('-fopenmp-simd', '-lm')\n"
        "import slalom\nfrom test_native import SHAPES, drive, lists\n"
        f"drive(slalom.create({name!r}, lists(SHAPES, torch.float32), executor='native'), 3)\n"
    )
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "SLALOM_CACHE": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("executor", ["eager", "foreach", "native"])
def test_what_float32_cannot_hold_becomes_infinity(executor: Any) -> None:
    w = torch.nn.Parameter(torch.ones(2))
    optimizer = slalom.Prodigy([w], d0=1e30, executor=executor)
    for _ in range(3):
        w.grad = torch.full((2,), -1e30)
        optimizer.step()
    assert not torch.isfinite(optimizer.state[w]["prodigy.d"])


def test_vectorised_functions_are_accurate_everywhere(cache: Path) -> None:
    """exp and log to a few units in the last place, atan2 to 3e-7, and the special values exactly."""
    from slalom.engine.native.prelude import PREAMBLE

    library = build.load(
        PREAMBLE
        + """
        void f_exp(const float *x, const float *y, float *out, int n) {
            for (int i = 0; i < n; i++) out[i] = sl_expf(x[i]); }
        void f_log(const float *x, const float *y, float *out, int n) {
            for (int i = 0; i < n; i++) out[i] = sl_logf(x[i]); }
        void f_atan2(const float *x, const float *y, float *out, int n) {
            for (int i = 0; i < n; i++) out[i] = sl_atan2f(x[i], y[i]); }
        """
    )

    def run(name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        import ctypes

        out = torch.empty_like(x)
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, y, out)]
        getattr(library, f"f_{name}")(*pointers, x.numel())
        return out

    special = torch.tensor(
        [0.0, -0.0, 1.0, -1.0, float("inf"), -float("inf"), float("nan"), 1e-42, 1e-38, 3e38, -200.0, 88.7]
    )
    wide = torch.cat([special, torch.linspace(-110, 95, 100_001)])
    torch.testing.assert_close(
        run("exp", wide, wide), wide.double().exp().float(), rtol=4e-7, atol=1e-44, equal_nan=True
    )
    positive = torch.cat([special, torch.logspace(-44, 38, 100_001), torch.linspace(0.5, 2, 10_001)])
    torch.testing.assert_close(
        run("log", positive, positive), positive.double().log().float(), rtol=4e-7, atol=1e-7, equal_nan=True
    )
    y, x = torch.randn(100_000), torch.randn(100_000)
    y[: len(special)], x[: len(special)] = special, special.flip(0)
    finite = torch.isfinite(x) & torch.isfinite(y)
    torch.testing.assert_close(run("atan2", y, x)[finite], torch.atan2(y, x)[finite], rtol=4e-7, atol=4e-7)


@pytest.mark.parametrize("executor", ["eager", "foreach", "native"])
def test_autograd_refuses_a_graph_whose_parameters_have_stepped(executor: Any) -> None:
    """Compiled code writes through a pointer; unless it is told, autograd takes the new values for the old ones."""
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = slalom.AdamW([w], executor=executor)
    loss = (w**3).sum()
    w.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_average_without_memory_is_the_gradient_to_the_bit() -> None:
    """AdaBelief divides by how far the gradient is from it: rounding there is no small matter."""
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = slalom.AdaBelief([w], betas=(0.0, 0.999), executor="native")
    for g in (torch.tensor([100.0, -37.7, 1e5]), torch.tensor([0.1, 1.7e-3, -0.3])):
        w.grad = g
        optimizer.step()
        assert torch.equal(optimizer.state[w]["ema.m"], g)
