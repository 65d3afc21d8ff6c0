"""A small run to be harmed, and a system whose every call can be made to fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

import slalom
from slalom.checkpoint.durable import Digesting

CALLS = ("open", "fsync", "replace", "unlink", "mkdir", "listdir", "close")


def make() -> dict[str, Any]:
    """A run with a model, an optimizer and a schedule."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    optimizer = slalom.AdamW(model.parameters(), executor="eager")
    return {"model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2)}


def train(run: Mapping[str, Any], first: int, last: int) -> None:
    """Take the steps of these numbers, on data that depend on the random state."""
    for _ in range(first, last):
        run["model"].zero_grad()
        run["model"](torch.randn(4, 6)).square().mean().backward()
        run["optimizer"].step()
        run["scheduler"].step()


def weights(run: Mapping[str, Any]) -> list[torch.Tensor]:
    """Copies of the parameters."""
    return [p.detach().clone() for p in run["model"].parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Whether two lists of tensors are equal bit by bit."""
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def saved_at(folder: Path, *positions: int) -> dict[int, list[torch.Tensor]]:
    """Train from the start and save at these positions; return the weights there, and at step 9."""
    torch.manual_seed(0)
    run, known, done = make(), {}, 0
    for position in (*positions, 9):
        train(run, done, position)
        done, known[position] = position, weights(run)
        if position != 9:
            slalom.save_checkpoint(folder, **run, position=position)
    return known


@contextmanager
def calls_to_the_system(before: Callable[[str], None], stride: int = 1) -> Iterator[None]:
    """Call ``before`` with a name ahead of every call that saving makes to the system.

    A ``write`` is announced twice, before it and when half of its bytes are in the file. There are some hundred of
    them: of each file the first is announced and every one in ``stride``.
    """
    real = {name: getattr(os, name) for name in CALLS}
    write = Digesting.write

    def announced(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            before(name)
            return real[name](*arguments, **keywords)

        return call

    def write_in_halves(self: Digesting, data: bytes) -> int:
        place = self.__dict__.setdefault("writes", 0)
        self.__dict__["writes"] += 1
        if place % stride:
            return write(self, data)
        before("write")
        view = memoryview(data)
        write(self, bytes(view[: len(view) // 2]))
        self.flush()
        before("half")
        write(self, bytes(view[len(view) // 2 :]))
        return len(view)

    for name in CALLS:
        setattr(os, name, announced(name))
    Digesting.write = write_in_halves  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)
        Digesting.write = write  # type: ignore[method-assign]
