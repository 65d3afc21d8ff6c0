"""Run by a test in a process of its own: what the system's own limit of memory does to a run.

Prints what happened in each case as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

import slalom

SIDE = 700  # a matrix of 2 MB
Run = tuple[nn.Module, slalom.Optimizer]


@contextmanager
def memory_for(more: int) -> Iterator[None]:
    """Let the process have so many more bytes of addresses than it has now, and none after that."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def make(executor: Any = "auto") -> Run:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIDE, SIDE, bias=False), nn.Linear(SIDE, SIDE, bias=False))
    return model, slalom.AdamW(model.parameters(), executor=executor)


def go(run: Run, step: int) -> None:
    for place, p in enumerate(run[0].parameters()):
        p.grad = torch.full_like(p, 1.0 + step + place)
    run[1].step()


def everything(run: Run) -> list[torch.Tensor]:
    model, optimizer = run
    held = [value for p in model.parameters() for value in optimizer.state.get(p, {}).values()]
    return [t.detach().clone() for t in (*model.parameters(), *held)]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def refused(call: Callable[[], object], more: int) -> str:
    """Do something with little memory; return the words of the error, "" if there was none."""
    try:
        with memory_for(more):
            call()
    except (RuntimeError, OSError, MemoryError) as error:
        return " ".join([type(error).__name__, str(error), *getattr(error, "__notes__", [])])
    return ""


def state_is_created() -> dict[str, Any]:
    """Memory ends in the middle of the second parameter's state; then there is enough again."""
    run, reference = make(), make()
    go(reference, 0)
    for p in run[0].parameters():
        p.grad = torch.zeros_like(p)
    before = [p.detach().clone() for p in run[0].parameters()]
    said = refused(run[1].step, 7 << 20)
    found = [sorted(run[1].state.get(p, {})) for p in run[0].parameters()]
    counts = [float(state["step"]) for state in run[1].state.values()]
    same = equal(before, [p.detach() for p in run[0].parameters()])
    go(run, 0)
    again = equal(everything(run), everything(reference))
    return {"said": said, "found": found, "counts": counts, "same": same, "again": again}


def a_step_runs(executor: str) -> dict[str, Any]:
    """There is no memory for anything: compiled steps need none, lists do."""
    run, reference = make(executor), make(executor)
    for one in (run, reference):
        go(one, 0)
        for place, p in enumerate(one[0].parameters()):
            p.grad = torch.full_like(p, 2.0 + place)
    said = refused(run[1].step, 0)
    if not said:
        reference[1].step()
    return {"said": said, "same": equal(everything(run), everything(reference))}


def a_checkpoint_is_written(folder: Path) -> dict[str, Any]:
    run = make()
    go(run, 0)
    slalom.save_checkpoint(folder, model=run[0], optimizer=run[1], position=1)
    names = sorted(path.name for path in folder.iterdir())
    go(run, 1)
    before = everything(run)
    said: list[str] = []
    for more in range(0, 64 << 20, 1 << 19):  # wherever it ends
        words = refused(lambda: slalom.save_checkpoint(folder, model=run[0], optimizer=run[1], position=2), more)
        left = sorted(path.name for path in folder.iterdir())
        if not words:
            break
        said.append(words)
        assert left == names, (words, left)
    loaded = slalom.load_checkpoint(folder, model=run[0], optimizer=run[1])
    assert loaded is not None
    return {"said": said, "position": loaded.position, "same": equal(before, everything(run))}


def a_checkpoint_is_read(folder: Path) -> dict[str, Any]:
    """The newest is whole; short of memory, the one before must not be taken for it, nor half of anything be there."""
    run = make()
    for step in range(2):
        go(run, step)
        slalom.save_checkpoint(folder, model=run[0], optimizer=run[1], position=step)
    after = everything(run)
    fresh = make()
    before = everything(fresh)
    said: list[str] = []
    for more in range(0, 256 << 20, 1 << 20):
        words = refused(lambda: slalom.load_checkpoint(folder, model=fresh[0], optimizer=fresh[1]), more)
        if not words:
            break
        said.append(words)
        assert equal(before, everything(fresh)), words
    return {"said": said, "same": equal(after, everything(fresh))}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")  # a checkpoint that is passed over is warned of
    folder = Path(sys.argv[1])
    make()[1].init_state()  # whatever is loaded at first use
    go(make(), 0)
    found = {
        "created": state_is_created(),
        "compiled": a_step_runs("auto"),
        "lists": a_step_runs("foreach"),
        "written": a_checkpoint_is_written(folder / "written"),
        "read": a_checkpoint_is_read(folder / "read"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
