"""What is built around optimizers: scalers and torch.compile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from slalom.testing.conformance import Factory, contract
from slalom.testing.driving import _backward, _close, _equal, _fill, _go, _parameters, _step


@contract(
    "scaler",
    "a step that a GradScaler skips changes nothing, and one that it takes is the unscaled one",
    why="an overflow at step 1 would spoil the averages for good",
)
def scaler(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    optimizer, plain = make(a), make(b)
    amp = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        _backward(amp.scale(factor * torch.stack([(p**2).sum() for p in a]).sum()))
        amp.step(optimizer)
        amp.update()
    for p in b:
        p.grad = 2 * p.detach()
    _go(plain)
    _close(a, b, "the scaled step is another one")


@contract(
    "scaled-closure",
    "scaler.step(optimizer, closure) is refused, or steps with the unscaled gradients",
    why="torch refuses it by keyword and lets it pass by position, where the step uses gradients 65536 times too large",
)
def scaled_closure(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    optimizer, plain = make(a), make(b)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([(p**2).sum() for p in a]).sum()
        _backward(scaler.scale(loss))
        return loss

    closure()
    try:
        scaler.step(optimizer, closure)
    except Exception:
        _equal(a, b, "it was refused after parameters had changed")
        return
    for q in b:
        q.grad = 2 * q.detach()
    _go(plain)
    _close(a, b, "it stepped with gradients that were scaled")


@contract(
    "compiled",
    "a step inside torch.compile is the step",
    why="whole training steps are compiled",
)
def compiled(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    inside, plain = make(a), make(b)
    given: Any = [lambda: 0.1] if getattr(inside, "needs_loss", False) else []
    with _quiet():
        try:
            step = torch.compile(lambda: inside.step(*given), backend="eager")
        except RuntimeError:
            return  # torch does not compile on this Python
        for number in range(3):
            _fill(a, number)
            step()
            _step(plain, number)
    _close(a, b, "it is another one")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.compile's remarks from the screen, and nothing of what it compiled."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        torch.compiler.reset()
