"""How contracts drive an optimizer: the same parameters, the same gradients by number, and comparisons."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

Optimizer = torch.optim.Optimizer


def _parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(4, 3), (5,), (2, 3, 2, 2)]
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def _go(optimizer: Optimizer, loss: float = 0.1) -> None:
    """Take a step, with a loss if the optimizer says that it needs one."""
    if getattr(optimizer, "needs_loss", False):
        optimizer.step(lambda: loss)
    else:
        optimizer.step()


def _step(optimizer: Optimizer, number: int, *, scale: float = 1.0, loss: float = 0.1) -> None:
    """Take a step with gradients that depend on its number alone."""
    _fill([p for group in optimizer.param_groups for p in group["params"]], number, scale)
    _go(optimizer, loss)


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _fill(parameters: list[nn.Parameter], number: int, scale: float = 1.0) -> None:
    """Set the gradients that `_step` gives to these parameters."""
    for place, p in enumerate(parameters):
        generator = torch.Generator().manual_seed(97 * number + place)
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(p.dtype)


def _equal(a: list[nn.Parameter], b: list[nn.Parameter], what: str) -> None:
    for p, q in zip(a, b, strict=True):
        assert torch.equal(p, q), f"{what}: parameters differ by up to {(p - q).abs().max().item():.2g}"


def _close(a: list[nn.Parameter], b: list[nn.Parameter], what: str) -> None:
    for p, q in zip(a, b, strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6), (
            f"{what}: parameters differ by up to {(p - q).abs().max().item():.2g}"
        )


def _saved(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded
