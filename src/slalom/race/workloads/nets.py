"""Networks and pieces of them that several workloads share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["pre", "post"]
ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def perceptron(sizes: tuple[int, ...], activation: str = "relu", gain: float = 1.0) -> nn.Sequential:
    """Return linear layers with activations between; their initial weights are torch's, times a gain."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        with torch.no_grad():
            linear.weight.mul_(gain)
        layers += [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """Attention and a perceptron around a shortcut, normalised before each of them or after."""

    def __init__(
        self, width: int, heads: int, norm: Norm = "pre", activation: str = "gelu", *, causal: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.norm, self.causal = heads, norm, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.activation = ACTIVATIONS[activation]()

    def attend(self, x: Tensor) -> Tensor:
        """Return what each place reads from the others."""
        batch, time, width = x.shape
        parts = self.qkv(x).view(batch, time, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        read: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return read

    def think(self, x: Tensor) -> Tensor:
        """Return what each place makes of itself."""
        made: Tensor = self.down(self.activation(self.up(x)))
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (batch, time, width)."""
        if self.norm == "post":
            x = self.norm1(x + self.attend(x))
            after: Tensor = self.norm2(x + self.think(x))
            return after
        x = x + self.attend(self.norm1(x))
        before: Tensor = x + self.think(self.norm2(x))
        return before


def narrow(model: nn.Module, layers: int, scale: float, width: int) -> None:
    """Draw the matrices of a transformer from normal distributions whose width follows the model's.

    GPT-2's 0.02 is meant for a width of 768; at 64 it makes a run wait at a plateau for a time that depends on the seed
    more than on the optimizer.
    """
    std = scale * 0.5 / width**0.5
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            # What writes into the residual stream starts smaller: the stream adds up 2 x layers of them.
            writes = name.endswith(("out.weight", "down.weight"))
            nn.init.normal_(parameter, std=std / (2 * layers) ** 0.5 if writes else std)


class Gpt(nn.Module):
    """A decoder-only transformer with learned positions."""

    def __init__(
        self,
        symbols: int,
        context: int,
        width: int,
        layers: int,
        heads: int,
        norm: Norm = "pre",
        activation: str = "gelu",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, norm, activation) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols, bias=False)
        narrow(self, layers, scale, width)

    def forward(self, symbols: Tensor) -> Tensor:
        """Return the logits of each next symbol."""
        positions = torch.arange(symbols.shape[1], device=symbols.device)
        x = self.embedding(symbols) + self.position(positions)
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


class Vit(nn.Module):
    """A transformer over square patches of an image, read by a class token; ten classes unless told otherwise."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        norm: Norm,
        activation: str,
        *,
        channels: int,
        side: int,
        patch: int,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.patches = nn.Linear(channels * patch**2, width)
        self.position = nn.Parameter(0.02 * torch.randn((side // patch) ** 2 + 1, width))
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, norm, activation, causal=False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)
        narrow(self, layers, 1.0, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the classes."""
        patches = self.patches(functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2))
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens)[:, 0]))
        return logits


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm around a shortcut, as He et al. 2015 (arXiv:1512.03385) draw them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        inside = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(inside)) + self.shortcut(x))


def resnet18(channels: int, classes: int, width: int = 64) -> nn.Sequential:
    """Return ResNet-18 for small images: the first convolution keeps the size and nothing is pooled after it."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        layers += [ResidualBlock(inputs, outputs, 1 if stage == 0 else 2), ResidualBlock(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
