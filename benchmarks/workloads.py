"""The parameter lists that step times are measured on, with gradients in place."""

from __future__ import annotations

import torch
from torch import nn

Shapes = list[tuple[int, ...]]


def filled(shapes: Shapes, device: str = "cpu") -> list[nn.Parameter]:
    """Parameters of these shapes with their gradients, the same at every call."""
    if device == "meta":
        return [nn.Parameter(torch.empty(shape, device=device)) for shape in shapes]
    generator = torch.Generator(device).manual_seed(0)
    params = []
    for shape in shapes:
        parameter = nn.Parameter(torch.randn(shape, generator=generator, device=device) * 0.02)
        parameter.grad = torch.randn(shape, generator=generator, device=device) * 1e-3
        params.append(parameter)
    return params


def gpt(width: int, layers: int) -> Shapes:
    """A GPT-2 of this width and depth: 12 tensors in each layer, and four."""
    shapes: Shapes = [(50257, width), (1024, width)]
    for _ in range(layers):
        shapes += [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,)]
        shapes += [(width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return [*shapes, (width,), (width,)]


def resnet18() -> Shapes:
    """11.7 million parameters in 62 tensors."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for out in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(out, channels, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            if block == 0 and out != channels:
                shapes += [(out, channels, 1, 1), (out,), (out,)]
            channels = out
    return [*shapes, (1000, 512), (1000,)]


LISTS: dict[str, Shapes] = {
    "gpt2-small": gpt(768, 12),  # 124 million parameters in 148 tensors
    "resnet18": resnet18(),
    "1000 x 32x32": [(32, 32)] * 1000,
    "mlp": [(128, 64), (128,), (128, 128), (128,), (10, 128), (10,)],  # 26 thousand
}
# For GPUs, which have the memory: a billion parameters in 220 tensors.
LARGE: dict[str, Shapes] = {"gpt-1b": gpt(2048, 18)}
