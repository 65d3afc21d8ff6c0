"""What two processes do with compressed gradients; test_compress.py starts them and reads what they found.

python compressed_ranks.py RANK STORE RESULT
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import slalom
from slalom.compress import QSGD, Compressed, Identity, Natural, RandK, TopK, hook, vote

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
Y = torch.tanh(X @ torch.randn(6, 3, generator=torch.Generator().manual_seed(1)))


def model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3))


def wrapped(net: nn.Module) -> DistributedDataParallel:
    """Buckets of about one tensor each, which are rebuilt after the first step."""
    return DistributedDataParallel(net, bucket_cap_mb=0.0005)


class Run:
    """Training of one network with the hook."""

    def __init__(self, compressor: Any, magnify: float = 1.0, **settings: Any) -> None:
        self.net = model()
        self.ddp = wrapped(self.net)
        self.magnify = magnify
        self.state = Compressed(compressor, self.net.parameters(), scale=lambda: magnify, **settings)
        self.ddp.register_comm_hook(self.state, hook)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)

    def steps(self, first: int, last: int) -> float:
        rank, loss = dist.get_rank(), torch.zeros(())
        for step in range(first, last):
            number = step % 2
            rows = slice(16 * rank + 8 * number, 16 * rank + 8 * number + 8)
            self.state.batch = number
            self.optimizer.zero_grad()
            loss = functional.mse_loss(self.ddp(X[rows]), Y[rows])
            (loss * self.magnify).backward()
            for p in self.net.parameters():
                assert p.grad is not None
                p.grad.div_(self.magnify)
            self.optimizer.step()
        return self.loss()

    def loss(self) -> float:
        with torch.no_grad():
            return float(functional.mse_loss(self.net(X), Y))

    def weights(self) -> list[float]:
        return torch.cat([p.detach().flatten() for p in self.net.parameters()]).tolist()


def identity() -> bool:
    """Whether the hook without compression does what plain data parallel training does."""
    ours = Run(Identity(), shifts="none")
    theirs = Run(Identity(), shifts="none")
    theirs.ddp = wrapped(theirs.net)
    for run in (ours, theirs):
        run.steps(0, 6)
    return ours.weights() == theirs.weights()


def learning(compressor: Any, **settings: Any) -> dict[str, Any]:
    run = Run(compressor, **settings)
    start = run.loss()
    return {"start": start, "loss": run.steps(0, 150), "weights": run.weights()}


def resumed() -> bool:
    run = Run(QSGD(3), shifts="batch")
    run.steps(0, 5)
    kept = copy.deepcopy((run.net.state_dict(), run.state.state_dict()))
    run.steps(5, 9)
    again = Run(QSGD(3), shifts="batch", seed=77)
    again.net.load_state_dict(kept[0])
    again.state.load_state_dict(kept[1])
    again.steps(5, 9)
    return run.weights() == again.weights()


def scaled() -> bool:
    """Memories of gradients that are magnified by a power of two are the same."""
    plain, magnified = Run(RandK(0.3)), Run(RandK(0.3), magnify=1024.0)
    for run in (plain, magnified):
        run.steps(0, 8)
    return plain.weights() == magnified.weights()


def voted() -> dict[str, Any]:
    """What two workers agree on: gradients that agree, differ, are 0 for one or both, and are no numbers."""
    rank = dist.get_rank()
    found: dict[str, Any] = {}
    for name, pulls in (
        (
            "signs",
            [[3.0, -0.5, 2.0, 0.0, 0.0, -1e-30, 7.0, -7.0, 1.0], [1e-3, -9.0, -2.0, 4.0, 0.0, 0.0, 1.0, -1.0, 1.0]],
        ),
        ("nan", [[1.0] * 9, [1.0] * 8 + [float("nan")]]),
        ("inf", [[float("inf")] + [1.0] * 8, [1.0] * 9]),
    ):
        net = nn.Linear(9, 1, bias=False)
        ddp = DistributedDataParallel(net)
        ddp.register_comm_hook(None, vote)
        ddp(torch.tensor([pulls[rank]])).sum().backward()
        assert net.weight.grad is not None
        found[name] = net.weight.grad.flatten().tolist()
    net = model()
    ddp = wrapped(net)
    ddp.register_comm_hook(None, vote)
    optimizer = slalom.SignSGD(net.parameters(), lr=3e-3)
    rows = slice(16 * rank, 16 * rank + 16)
    start = float(functional.mse_loss(net(X), Y))
    for _ in range(150):
        optimizer.zero_grad()
        functional.mse_loss(ddp(X[rows]), Y[rows]).backward()
        optimizer.step()
    weights = torch.cat([p.detach().flatten() for p in net.parameters()]).tolist()
    return found | {"start": start, "loss": float(functional.mse_loss(net(X), Y)), "weights": weights}


def disagree() -> str:
    run = Run(Natural(), shifts="batch")
    run.state.batch = dist.get_rank()
    try:
        functional.mse_loss(run.ddp(X[:4]), Y[:4]).backward()
    except Exception as error:  # DDP raises what it likes
        return str(error)
    return "no error"


def main() -> None:
    rank, store, result = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    found: dict[str, Any] = {
        "identity": identity(),
        "randk": learning(RandK(0.3)),
        "topk": learning(TopK(0.1)),
        "qsgd": learning(QSGD(7)),
        "natural": learning(Natural()),
        "none": learning(Natural(), shifts="none"),
        "batch": learning(RandK(0.3), shifts="batch"),
        "resumed": resumed(),
        "scaled": scaled(),
        "disagree": disagree(),
        "vote": voted(),
    }
    result.write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
