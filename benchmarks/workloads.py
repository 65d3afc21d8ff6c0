"""The parameter lists that step times are measured on, with gradients in place."""

from __future__ import annotations

import torch
from torch import nn


def _filled(shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = []
    for shape in shapes:
        parameter = nn.Parameter(torch.randn(shape, generator=generator) * 0.02)
        parameter.grad = torch.randn(shape, generator=generator) * 1e-3
        params.append(parameter)
    return params


def gpt2_small() -> list[nn.Parameter]:
    """124 million parameters in 148 tensors."""
    width, shapes = 768, [(50257, 768), (1024, 768)]
    for _ in range(12):
        shapes += [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,)]
        shapes += [(width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return _filled([*shapes, (width,), (width,)])


def resnet18() -> list[nn.Parameter]:
    """11.7 million parameters in 62 tensors."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for out in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(out, channels, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            if block == 0 and out != channels:
                shapes += [(out, channels, 1, 1), (out,), (out,)]
            channels = out
    return _filled([*shapes, (1000, 512), (1000,)])


def many_small() -> list[nn.Parameter]:
    """1000 tensors of 32 x 32."""
    return _filled([(32, 32)] * 1000)


def mlp() -> list[nn.Parameter]:
    """26 thousand parameters in 6 tensors."""
    return _filled([(128, 64), (128,), (128, 128), (128,), (10, 128), (10,)])


LISTS = {"gpt2-small": gpt2_small, "resnet18": resnet18, "1000 x 32x32": many_small, "mlp": mlp}
