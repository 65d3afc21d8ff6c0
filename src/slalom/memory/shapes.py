"""Well-known transformers as shapes: built on the meta device, where they have parameters but take no memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer.

    Attributes:
        vocabulary: tokens.
        context: the longest sequence.
        width: of the residual stream.
        layers: how many.
        heads: of queries.
        key_heads: of keys and values.
        hidden: width inside the feed-forward layers.
        gated: SwiGLU, RMS norms, rotary positions and no biases, as in Llama; else GELU, layer norms, learned
            positions and biases, as in GPT-2.
        tied: whether the head is the embedding.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    key_heads: int
    hidden: int
    gated: bool
    tied: bool


def _gpt2(width: int, layers: int, heads: int) -> Shape:
    return Shape(50257, 1024, width, layers, heads, heads, 4 * width, gated=False, tied=True)


SHAPES: Final = {
    "gpt2-small": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    "llama-7b": Shape(32000, 2048, 4096, 32, 32, 32, 11008, gated=True, tied=False),
    "llama3-8b": Shape(128256, 8192, 4096, 32, 32, 8, 14336, gated=True, tied=False),
}


class Transformer(nn.Module):
    """A decoder-only transformer without values: what it keeps while it runs can be counted, nothing be computed.

    Attention is a fused kernel's: queries, keys, values, the result and a number per row are kept, no matrix of
    tokens by tokens. There is no dropout.

    Args:
        shape: its sizes.
        dtype: of parameters and activations.
        checkpointed: keep each layer's input only, and compute the rest anew in the backward pass.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32, *, checkpointed: bool = False) -> None:
        super().__init__()
        self.shape, self.checkpointed = shape, checkpointed
        like: Any = {"device": "meta", "dtype": dtype}
        self.tokens = _Embedding(shape.vocabulary, shape.width, **like)
        self.positions = None if shape.gated else _Embedding(shape.context, shape.width, **like)
        self.layers = nn.ModuleList(_Layer(shape, like) for _ in range(shape.layers))
        self.norm = _norm(shape, like)
        self.head = _Linear(shape.width, shape.vocabulary, bias=False, **like)
        if shape.tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions(torch.arange(tokens.shape[1], device="meta"))
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.checkpointed else layer(x)
        out: Tensor = self.head(self.norm(x))
        return out

    def loss(self, sequences: int, length: int) -> Callable[[], Tensor]:
        """Return what evaluates the loss of the next token on so many sequences."""
        tokens = torch.empty(sequences, length, dtype=torch.long, device="meta")
        return lambda: functional.cross_entropy(self(tokens).flatten(0, 1), tokens.flatten())

    def layer(self, sequences: int, length: int) -> Callable[[], Tensor]:
        """Return what evaluates one layer, as the backward pass of a checkpointed model does."""
        like = self.norm.weight
        assert isinstance(like, Tensor)
        x = torch.empty(sequences, length, self.shape.width, dtype=like.dtype, device="meta", requires_grad=True)
        return lambda: self.layers[0](x)


def matrices(count: int) -> nn.Module:
    """Return so many parameters, of which nothing else is known: layers of twelve square matrices, and what is left.

    Args:
        count: the number of parameters; the matrices are 1024 wide, or 4096 from two billion on.
    """
    side = 1024 if count < 2e9 else 4096
    whole, rest = divmod(count, side * side)
    shapes = [(side, side)] * whole + [shape for shape in ((rest // side, side), (rest % side,)) if math.prod(shape)]
    return nn.ModuleList(
        nn.ParameterList(torch.empty(shape, device="meta") for shape in shapes[first : first + 12])
        for first in range(0, len(shapes), 12)
    )


class _Linear(nn.Linear):
    """A layer that draws no initial values: there are none on the meta device, and asking for them takes a second."""

    def reset_parameters(self) -> None:
        """Leave them out."""


class _Embedding(nn.Embedding):
    """As above."""

    def reset_parameters(self) -> None:
        """Leave them out."""


class _Layer(nn.Module):
    def __init__(self, shape: Shape, like: Any) -> None:
        super().__init__()
        self.heads, self.key_heads, self.gated = shape.heads, shape.key_heads, shape.gated
        self.size = shape.width // shape.heads
        together = (shape.heads + 2 * shape.key_heads) * self.size
        bias = not shape.gated
        self.norm1 = _norm(shape, like)
        self.qkv = _Linear(shape.width, together, bias=bias, **like)
        self.proj = _Linear(shape.width, shape.width, bias=bias, **like)
        self.norm2 = _norm(shape, like)
        self.up = _Linear(shape.width, shape.hidden, bias=bias, **like)
        self.gate = _Linear(shape.width, shape.hidden, bias=bias, **like) if shape.gated else None
        self.down = _Linear(shape.hidden, shape.width, bias=bias, **like)

    def forward(self, x: Tensor) -> Tensor:
        width, inner = x.shape[-1], self.key_heads * self.size
        q, k, v = self.qkv(self.norm1(x)).split((width, inner, inner), dim=-1)
        x = x + self.proj(_attention(q, k, v, self.heads))
        y = self.norm2(x)
        inside = functional.gelu(self.up(y)) if self.gate is None else functional.silu(self.gate(y)) * self.up(y)
        out: Tensor = x + self.down(inside)
        return out


class _Kernel(torch.autograd.Function):
    """A fused kernel, by what it keeps: its inputs, its result if asked, and one number in float32 per row."""

    @staticmethod
    def forward(ctx: Any, like: Tensor, rows: int, keeps_result: bool, *inputs: Tensor) -> Tensor:
        result = torch.empty_like(like, memory_format=torch.contiguous_format)
        numbers = like.new_empty(rows, dtype=torch.float32)
        ctx.save_for_backward(*inputs, numbers, *((result,) if keeps_result else ()))
        return result


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Return attention's result; rotary positions are taken to be applied inside."""
    result: Tensor = _Kernel.apply(q, heads * q.shape[:-1].numel(), True, q, k, v)  # type: ignore[no-untyped-call]
    return result


class _RmsNorm(nn.RMSNorm):
    """As the kernel on GPUs runs it; off them torch composes it of operations that keep several times as much."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        result: Tensor = _Kernel.apply(x, x.shape[:-1].numel(), False, x, self.weight)  # type: ignore[no-untyped-call]
        return result


def _norm(shape: Shape, like: Any) -> nn.Module:
    return _RmsNorm(shape.width, **like) if shape.gated else nn.LayerNorm(shape.width, **like)
