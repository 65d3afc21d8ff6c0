"""What two processes do that should be alike, and what one does when the other hangs, or is no more.

python ranks.py CASE RANK STORE RESULT
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from harm import equal
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import slalom
from slalom.observe import diverged

PATIENCE = 4  # seconds that a group waits for a rank


def model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def fill(parameters: list[Any], step: int) -> None:
    for place, p in enumerate(parameters):
        grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + place))
        sharded = hasattr(p, "device_mesh")
        p.grad = distribute_tensor(grad, p.device_mesh, p.placements, src_data_rank=None) if sharded else grad


def told(optimizer: torch.optim.Optimizer) -> list[str]:
    return [str(found) for found in diverged(optimizer)]


def second() -> bool:
    return dist.get_rank() == 1


def replicas(make: Callable[[Any], torch.optim.Optimizer], harm: Callable[[Any, int], None]) -> list[list[str]]:
    """Take steps as replicas do, one of them harmed on the second rank; return what is told after each."""
    optimizer = make(model().named_parameters())
    heard = []
    for step in range(3):
        fill(optimizer.param_groups[0]["params"], step)
        if second():
            harm(optimizer, step)
        optimizer.step()
        heard.append(told(optimizer))
    return heard


def one_ulp(optimizer: Any, step: int) -> None:
    if step == 1:
        grad = optimizer.param_groups[0]["params"][2].grad
        grad[0, 0] = torch.nextafter(grad[0, 0], torch.tensor(9.0))


def another_rate(optimizer: Any, step: int) -> None:
    optimizer.param_groups[0]["lr"] = 1e-3 if step == 0 else 2e-3


def no_gradient(optimizer: Any, step: int) -> None:
    optimizer.param_groups[0]["params"][3].grad = None


def nothing(optimizer: Any, step: int) -> None:
    pass


def shards() -> list[list[str]]:
    """Parts differ, as they should; step counts are everybody's."""
    sharded = model()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
    optimizer = slalom.create("adamw", sharded)
    parameters = optimizer.param_groups[0]["params"]
    fill(parameters, 0)
    optimizer.step()
    heard = [told(optimizer)]
    if second():
        parameters[0].detach().to_local().mul_(2.0)  # nobody else has this part
        optimizer.state[parameters[1]]["step"] += 1.0
    return [*heard, told(optimizer)]


def copies(mesh: DeviceMesh, placements: list[Any]) -> list[list[str]]:
    """Every rank has the same part of a DTensor."""
    whole = torch.arange(12.0).reshape(4, 3)
    p = nn.Parameter(distribute_tensor(whole, mesh, placements, src_data_rank=None))
    optimizer = slalom.SGD([("w", p)], lr=0.5)
    fill([p], 0)
    optimizer.step()
    heard = [told(optimizer)]
    if second():
        p.detach().to_local().view(-1)[5] += 1.0
    return [*heard, told(optimizer)]


def comparisons() -> dict[str, Any]:
    return {
        "alike": replicas(lambda p: slalom.create("prodigy", p), nothing),
        "gradient": replicas(slalom.AdamW, one_ulp),
        "torch": replicas(lambda p: torch.optim.Adam([w for _, w in p]), one_ulp),
        "rate": replicas(slalom.AdamW, another_rate),
        "missing": replicas(slalom.AdamW, no_gradient),
        "shards": shards(),
        "replicated": copies(init_device_mesh("cpu", (2,)), [Replicate()]),
        "both": copies(init_device_mesh("cpu", (2, 1)), [Replicate(), Shard(0)]),
    }


def loses_the_other(case: str) -> dict[str, Any]:
    """Take a step that communicates when the other rank has stopped, or is no more."""
    name, stop, settings = LOSSES[case]
    sharded = model()
    # a group of its own: what prepares the step may take longer
    group = dist.new_group(timeout=datetime.timedelta(seconds=PATIENCE))
    fully_shard(sharded, mesh=DeviceMesh.from_group(group, "cpu"))
    optimizer = slalom.create(name, sharded, **settings)
    parameters = optimizer.param_groups[0]["params"]
    fill(parameters, 0)
    optimizer.step()
    fill(parameters, 1)
    pids: list[Any] = [None, None]
    dist.all_gather_object(pids, os.getpid())
    dist.barrier()
    if second():
        time.sleep(600)

    def everything() -> list[torch.Tensor]:
        held = [value for p in parameters for value in (p, *optimizer.state[p].values())]
        return [(v.detach().to_local() if hasattr(v, "to_local") else v).detach().clone() for v in held]

    before = everything()
    os.kill(pids[1], stop)
    begin, said = time.monotonic(), ""
    try:
        optimizer.step()
    except RuntimeError as error:
        said = str(error)
    seconds = time.monotonic() - begin
    return {"said": said, "seconds": seconds, "same": equal(before, everything()), "skipped": optimizer.skipped}


# When a step gathers what is sharded; when ranks decide together whether gradients are finite.
LOSSES: dict[str, tuple[str, signal.Signals, dict[str, Any]]] = {
    "gathering": ("lamb", signal.SIGSTOP, {}),
    "deciding": ("adamw", signal.SIGSTOP, {"on_nonfinite": "skip"}),
    "dead": ("lamb", signal.SIGKILL, {}),
}


def main() -> None:
    case, rank, store, result = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    result.write_text(json.dumps(loses_the_other(case) if case in LOSSES else comparisons()))
    os._exit(0)  # there may be no group left to say goodbye to


if __name__ == "__main__":
    main()
