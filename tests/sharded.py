"""What two processes do with sharded parameters; test_shards.py starts them and reads what they found.

python sharded.py RANK STORE RESULT
"""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import slalom
from networks import build
from slalom.engine.shards import gradient_of

# Elements alone; norms of tensors; sums over the model; rows and columns; products of matrices; thin factors; signs.
METHODS = [
    "adamw",
    "lion",
    "sgd",
    "adan",
    "ftrl-proximal",
    "lamb",
    "prodigy",
    "adafactor",
    "muon",
    "soap",
    "dion",
    "smmf",
]
EXECUTORS = ["auto", "foreach", "eager"]


def model() -> nn.Sequential:
    """Two ranks get uneven shards, and for the last layer one of them gets none."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))


def pair(name: str, executor: str, **settings: Any) -> tuple[list[Any], Any, list[Any], Any]:
    """A sharded model and a whole one, equal, with an optimizer each."""
    plain, sharded = model(), model()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    ours = list(sharded.parameters())
    theirs = list(plain.parameters())
    optimizers = [build(name, params, executor=executor, **settings) for params in (ours, theirs)]
    return ours, optimizers[0], theirs, optimizers[1]


def fill(ours: list[Any], theirs: list[Any], number: int) -> None:
    """Give both the same gradients."""
    for place, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        q.grad = torch.randn(q.shape, generator=torch.Generator().manual_seed(100 * number + place))
        p.grad = distribute_tensor(q.grad, p.device_mesh, p.placements, src_data_rank=None)


def step(optimizer: Any) -> None:
    optimizer.step(lambda: 1.0)


def difference(ours: list[Any], theirs: list[Any]) -> float:
    return max((p.detach().full_tensor() - q.detach()).abs().max().item() for p, q in zip(ours, theirs, strict=True))


def steps_alike(name: str, executor: str) -> float:
    ours, sharded, theirs, plain = pair(name, executor)
    for number in range(4):
        fill(ours, theirs, number)
        step(sharded)
        step(plain)
    moved = max((q.detach() - w).abs().max().item() for q, w in zip(theirs, model().parameters(), strict=True))
    return difference(ours, theirs) if moved > 0 else -1.0


def resumes(name: str) -> float:
    """Halfway the state is saved and loaded into a new optimizer; once as it is, once gathered."""
    ours, sharded, theirs, plain = pair(name, "auto")
    for number in range(6):
        if number in (2, 4):
            state = copy.deepcopy(sharded.state_dict())
            if number == 4:
                for entry in state["state"].values():
                    for key, value in entry.items():
                        entry[key] = value.full_tensor() if isinstance(value, DTensor) else value
            sharded = build(name, ours)
            sharded.load_state_dict(state)
        fill(ours, theirs, number)
        step(sharded)
        step(plain)
    return difference(ours, theirs)


def state_lies_like_the_parameter() -> list[str]:
    ours, sharded, theirs, _ = pair("adamw", "auto")
    fill(ours, theirs, 0)
    step(sharded)
    wrong = []
    for p in ours:
        for key, value in sharded.state[p].items():
            if key != "step" and not (isinstance(value, DTensor) and value.placements == p.placements):
                wrong.append(key)
    return wrong


def one_rank_meets_nan(choice: str) -> dict[str, Any]:
    """The gradient is bad on the last rank alone; both must leave everything as it was."""
    ours, sharded, theirs, _ = pair("adamw", "auto", on_nonfinite=choice)
    for number in range(2):
        fill(ours, theirs, number)
        if number == 1:
            before = [p.detach().full_tensor().clone() for p in ours]
            if dist.get_rank() == 1:
                ours[0].grad.to_local()[0, 0] = float("nan")
        try:
            step(sharded)
            said = ""
        except FloatingPointError as error:
            said = str(error)
    same = all(torch.equal(p.detach().full_tensor(), q) for p, q in zip(ours, before, strict=True))
    return {"same": same, "skipped": sharded.skipped, "said": said, "steps": float(sharded.state[ours[0]]["step"])}


def trains_with_fsdp() -> float:
    """The whole way: forward, backward, clipping, step; against a model that is not sharded, on the same data."""
    plain, sharded = model(), model()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    pairs = [(m, slalom.AdamW(m.parameters(), lr=0.01)) for m in (plain, sharded)]
    for number in range(5):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(number))
        for net, optimizer in pairs:
            optimizer.zero_grad()
            (net(x) ** 2).mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
    return difference(list(sharded.parameters()), list(plain.parameters()))


def columns_are_cut() -> float:
    """Tensor parallelism cuts columns, which do not lie together in memory."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    w = torch.arange(24.0).reshape(4, 6)
    p, q = nn.Parameter(distribute_tensor(w, mesh, [Shard(1)], src_data_rank=None)), nn.Parameter(w.clone())
    optimizers = slalom.AdamW([p], lr=0.1), slalom.AdamW([q], lr=0.1)
    for number in range(3):
        fill([p], [q], number)
        if number == 2:  # laid out otherwise than the parameter
            p.grad = distribute_tensor(q.grad, mesh, [Shard(0)], src_data_rank=None)
        for optimizer in optimizers:
            optimizer.step()
    return difference([p], [q])


def plain_gradient_is_refused() -> str:
    """torch itself lets nobody assign one; another library may get round that."""
    ours, sharded, *_ = pair("adamw", "auto")
    try:
        gradient_of(ours[0], torch.zeros(ours[0].shape), sharded.program(sharded.param_groups[0], ours[0]))
    except RuntimeError as error:
        return str(error)
    return ""


def own_checkpoint_is_refused() -> str:
    sharded = model()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            slalom.save_checkpoint(folder, model=sharded)
        except TypeError as error:
            return str(error)
    return ""


def distributed_checkpoint(name: str, folder: str) -> float:
    """torch's own checkpoint of models that are sharded: saved, loaded into a new optimizer, and on."""
    plain, first = model(), model()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(first, mesh=mesh)
    theirs, one, other = list(plain.parameters()), build(name, first), build(name, plain)
    for number in range(2):
        fill(list(first.parameters()), theirs, number)
        step(one)
        step(other)
    for p in first.parameters():
        p.grad = None
    content = {"model": get_model_state_dict(first), "optimizer": get_optimizer_state_dict(first, one)}
    dcp.save(content, checkpoint_id=folder)
    second = model()
    fully_shard(second, mesh=mesh)
    again = build(name, second)
    again.init_state()
    content = {"model": get_model_state_dict(second), "optimizer": get_optimizer_state_dict(second, again)}
    dcp.load(content, checkpoint_id=folder)
    set_model_state_dict(second, content["model"])
    set_optimizer_state_dict(second, again, content["optimizer"])
    for number in range(2, 4):
        fill(list(second.parameters()), theirs, number)
        step(again)
        step(other)
    return difference(list(second.parameters()), theirs)


def averages() -> float:
    """Reading an average out and back changes nothing."""
    ours, sharded, theirs, plain = pair("schedule-free-adamw", "auto")
    for number in range(3):
        fill(ours, theirs, number)
        step(sharded)
        step(plain)
    with sharded.averaged(), plain.averaged():
        inside = difference(ours, theirs)
    return max(inside, difference(ours, theirs))


def watched() -> dict[str, float]:
    """What is measured of a sharded run, beside the same of the whole one: the largest relative difference."""
    plain, sharded = model(), model()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    runs = []
    for network in (plain, sharded):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        with slalom.observe.watch(network, optimizer, every=2) as watch:
            for number in range(6):
                x = torch.randn(16, 6, generator=torch.Generator().manual_seed(number))
                optimizer.zero_grad()
                network(x).square().mean().backward()
                optimizer.step()
        runs.append(watch.run())
    found = {}
    for name in slalom.observe.record.QUANTITIES:
        a, b = (run[name] for run in runs)
        same_gaps = bool((a.isnan() == b.isnan()).all())
        found[name] = (
            float((a - b).nan_to_num().abs().max() / (a.nan_to_num().abs().max() + 1e-9)) if same_gaps else 1.0
        )
    return found


CASES: dict[str, Callable[[], Any]] = {
    **{
        f"{name} {executor}": lambda n=name, e=executor: steps_alike(n, e) for name in METHODS for executor in EXECUTORS
    },
    **{f"resume {name}": lambda n=name: resumes(n) for name in ("adamw", "muon", "prodigy")},
    "state lies": state_lies_like_the_parameter,
    "nan skip": lambda: one_rank_meets_nan("skip"),
    "nan raise": lambda: one_rank_meets_nan("raise"),
    "fsdp": trains_with_fsdp,
    "columns": columns_are_cut,
    "plain gradient": plain_gradient_is_refused,
    "own checkpoint": own_checkpoint_is_refused,
    **{f"dcp {name}": lambda n=name: distributed_checkpoint(n, f"{sys.argv[2]}-{n}") for name in ("adamw", "lamb")},
    "averages": averages,
    "watched": watched,
}


def loses_the_other_rank() -> dict[str, Any]:
    """The other process is killed; this one steps on, and must hear of it with everything as it was."""
    ours, sharded, theirs, _ = pair("lamb", "auto")
    for number in range(2):
        fill(ours, theirs, number)
        if number == 0:
            step(sharded)
    before = [p.to_local().clone() for p in ours]
    dist.barrier()
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    begin = time.monotonic()
    try:
        step(sharded)
        said = ""
    except RuntimeError as error:
        said = str(error)
    same = all(torch.equal(p.to_local(), q) for p, q in zip(ours, before, strict=True))
    counts = sorted({float(state["step"]) for state in sharded.state.values()})
    return {"same": same, "counts": counts, "said": said, "seconds": time.monotonic() - begin}


def main() -> None:
    rank, store, result = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        try:
            found[name] = case()
        except Exception as error:  # the other rank would wait: say what it was and stop
            found[name] = f"{type(error).__name__}: {error}"
            break
    result.write_text(json.dumps(found))
    result.with_suffix(".alone").write_text(json.dumps(loses_the_other_rank()))
    os._exit(0)  # there is no group left to say goodbye to


if __name__ == "__main__":
    main()
