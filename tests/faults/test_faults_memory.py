"""Row "out of memory (RLIMIT_AS)": while state is created, a step runs, a checkpoint is written or read.

A machine that has no memory left for a process kills it, which is row "kill -9"; here allocations are refused.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from harm import calls_to_the_system, equal, make, saved_at, train, weights
from torch.utils._python_dispatch import TorchDispatchMode

import slalom
from networks import build
from test_native import lists

HERE = Path(__file__).parent
SHAPES: list[tuple[int, ...]] = [(3, 4), (5,), (6, 6)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process met whose memory the system itself limits."""
    if sys.platform != "linux":
        pytest.skip("the limit is Linux's")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"}
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"  # what is freed is given back, so that the limit is one
    done = subprocess.run(
        [sys.executable, str(HERE / "short.py"), str(tmp_path_factory.mktemp("short"))],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_state_of_a_parameter_is_there_whole_or_not_at_all(found: dict[str, Any]) -> None:
    """Row "out of memory", while state is created: nothing moved, nothing counted, and the second try is the step."""
    created = found["created"]
    assert "can't allocate memory" in created["said"]
    assert created["found"] == [["ema.m", "second_moment.v", "step"], []]
    assert created["counts"] == [0.0]
    assert created["same"]
    assert created["again"]


def test_a_compiled_step_needs_no_memory(found: dict[str, Any]) -> None:
    """Row "out of memory", while a step runs, compiled: it is the step that it is with memory."""
    assert found["compiled"] == {"said": "", "same": True}


def test_a_step_of_lists_that_ends_halfway_says_so(found: dict[str, Any]) -> None:
    """Row "out of memory", while a step runs as lists of torch operations: what cannot be undone is said."""
    said = found["lists"]["said"]
    assert "can't allocate memory" in said
    assert "some parameters may have moved and others not: go on from a checkpoint" in said


def test_a_checkpoint_is_written_without_a_copy_of_anything(found: dict[str, Any]) -> None:
    """Row "out of memory", while a checkpoint is written: it is there with what memory there is, or not at all."""
    written = found["written"]
    assert 0 < len(written["said"]) <= 10, written  # 5 MB are enough for a tensor and a block, of 12 MB that are saved
    assert (written["position"], written["same"]) == (2, True)


def test_a_checkpoint_that_memory_is_too_short_for_is_not_taken_for_a_damaged_one(found: dict[str, Any]) -> None:
    """Row "out of memory", while a checkpoint is read: no older one is taken instead, and nothing was changed."""
    read = found["read"]
    assert read["said"]
    for words in read["said"]:  # Python's own has no words
        assert words == "MemoryError " or (words.startswith("MemoryError") and words.endswith("nothing was changed."))
    assert read["same"]


def test_memory_that_ends_while_unpacking_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row "out of memory", while a checkpoint is read: torch has no word for it on a CPU but a RuntimeError."""
    saved_at(tmp_path, 2, 4)

    def short(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    monkeypatch.setattr(torch, "load", short)
    with pytest.raises(MemoryError, match=r"no memory to read checkpoint-000002.pt; nothing was changed"):
        slalom.load_checkpoint(tmp_path, **make())


class Short(TorchDispatchMode):
    """Refuses memory to the operation with a number."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.seen = at, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        if self.seen == self.at:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return func(*args, **(kwargs or {}))


def fill(parameters: list[torch.nn.Parameter], step: int) -> None:
    for place, p in enumerate(parameters):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * step + place))


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lamb"])
def test_a_first_compiled_step_may_fail_anywhere_and_is_taken_the_second_time(name: str) -> None:
    """Row "out of memory", while state is created: at every operation, not only where a limit happens to strike."""
    theirs = lists(SHAPES, torch.float32)
    reference = build(name, theirs)
    fill(theirs, 0)
    reference.step()
    for at in range(1, 1000):
        ours = lists(SHAPES, torch.float32)
        optimizer, before = build(name, ours), lists(SHAPES, torch.float32)
        fill(ours, 0)
        try:
            with Short(at):
                optimizer.step()
        except RuntimeError:
            assert equal(ours, before)  # type: ignore[arg-type]
            for p, q in zip(ours, theirs, strict=True):
                state = optimizer.state.get(p, {})
                assert state.keys() in ({}.keys(), reference.state[q].keys())
                assert float(state.get("step", 0.0)) == 0.0
            optimizer.step()
            assert equal(ours, theirs)  # type: ignore[arg-type]
        else:
            break
    assert at > 10
    fill(ours, 1)
    with Short(1):
        optimizer.step()  # and later steps ask torch for nothing


@pytest.mark.parametrize("executor", ["foreach", "eager"])
def test_every_step_of_lists_that_is_cut_short_is_said_to_be(executor: Any) -> None:
    """Row "out of memory", while a step runs: whatever has changed, the error says what to do."""
    for at in range(1, 1000):
        ours = lists(SHAPES, torch.float32)
        optimizer = build("adamw", ours, executor=executor)
        fill(ours, 0)
        optimizer.step()
        before = [p.detach().clone() for p in ours]
        counts = [float(optimizer.state[p]["step"]) for p in ours]
        fill(ours, 1)
        said = None
        try:
            with Short(at):
                optimizer.step()
        except RuntimeError as error:
            said = "".join(getattr(error, "__notes__", []))
        if said is None:
            break
        moved = not equal(before, ours)  # type: ignore[arg-type]
        counted = counts != [float(optimizer.state[p]["step"]) for p in ours]
        assert not (moved or counted) or "go on from a checkpoint" in said
    assert at > 10


def test_memory_that_ends_at_any_moment_of_saving_loses_nothing(tmp_path: Path) -> None:
    """Row "out of memory", while a checkpoint is written: refused at each call that it makes, by Python or torch."""
    known = saved_at(tmp_path, 2, 4)
    run = make()
    slalom.load_checkpoint(tmp_path, **run)
    names = sorted(tmp_path.iterdir())
    for at in range(1, 1000):
        count = 0

        def before(name: str, at: int = at) -> None:
            nonlocal count
            count += 1
            if count == at and name in ("write", "half"):
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            if count == at:
                raise MemoryError

        refused: OSError | None = None
        with calls_to_the_system(before, stride=60):
            try:
                slalom.save_checkpoint(tmp_path, **run, position=4, keep=9)
            except OSError as raised:
                refused = raised
        if refused is None:
            break
        assert refused.errno == errno.ENOMEM
        assert "Cannot allocate memory); those that were there are untouched" in str(refused)
        assert sorted(tmp_path.iterdir()) == names
    assert at > 10
    train(run, 4, 9)
    assert equal(weights(run), known[9])
