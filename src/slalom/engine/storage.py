"""How states are kept in memory: shapes, dtypes, and formats that executors unpack on loading and pack on storing.

A format changes no formula and no key. ``"float"`` is float32, or float64 for double precision; ``"double"`` is always
float64 and belongs to factors that only torch multiplies. ``"sign"`` keeps one
bit per element, set where the value is above 0; it reads as 1 or -1. Eight signs share a byte, the first in its lowest
bit, and every row starts on a byte of its own, so that threads that work on different rows never share one.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from slalom.algebra import State
from slalom.algebra.cutting import block_shape
from slalom.algebra.expr import block_of
from slalom.algebra.matrix import square_shape
from slalom.engine.blocks import Blocks, pieces
from slalom.engine.pages import filled

# The key of a parameter's step count, beside the states of its recipe.
STEP: Final = "step"


def real_view(parameter: Tensor) -> Tensor:
    """Return a complex tensor as pairs of reals, any other as it is."""
    return torch.view_as_real(parameter) if parameter.is_complex() else parameter


def matrix_shape(tensor: Tensor, view: str = "matrix") -> tuple[int, int]:
    """Return the shape of a view: a vector is one row of a matrix, "tall" has the longer side first."""
    if view == "square":
        return square_shape(tensor.numel())
    if tensor.ndim < 2:
        shape = 1, tensor.numel()
    else:
        rows = tensor.shape[0]
        shape = rows, tensor.numel() // rows if rows else 0
    return (max(shape), min(shape)) if view == "tall" else shape


def seen(slot: State, parameter: Tensor) -> tuple[int, ...]:
    """Return the shape in which formulas see a state."""
    rows, columns = matrix_shape(parameter, slot.view)
    if slot.block:
        count, high, wide = block_shape(rows, columns, slot.block)
        sides = {"m": high, "n": wide, "1": 1}
        (first, second), _ = block_of(slot.dims)
        return (count, sides[first], sides[second])
    rank = min(slot.rank, rows, columns)
    shapes = {
        "element": (rows, columns),
        "row": (rows, 1),
        "column": (1, columns),
        "left": (rows, rows),
        "right": (columns, columns),
        "left_rank": (rows, rank),
        "right_rank": (columns, rank),
        "rank": (1, rank),
    }
    return shapes.get(slot.per, (1, 1))


def layout(slot: State, parameter: Tensor, blocks: Blocks | None = None) -> tuple[int, ...]:
    """Return the shape in which a state is kept: for equal blocks one after the other, for unequal ones end to end."""
    if blocks is not None and slot.scope == "tensor" and not _follows(slot):
        each = [layout(slot, piece) for piece in pieces(parameter, blocks)]
        return (len(each), *each[0]) if len(set(each)) == 1 else (sum(map(math.prod, each)),)
    shape = seen(slot, parameter)
    if slot.block:
        return shape
    rows, columns = shape
    if slot.format == "sign":
        return (rows, -(-columns // 8))
    shapes: dict[str, tuple[int, ...]] = {
        "element": tuple(parameter.shape),
        "row": (rows,),
        "column": (columns,),
        "rank": (columns,),
        "tensor": (),
        "group": (),
        "model": (),
    }
    return shapes.get(slot.per, (rows, columns))


def computed_dtype(parameter: Tensor) -> torch.dtype:
    """Return the dtype of the arithmetic, and of states kept as floats: float32, or float64 for double precision."""
    return torch.float64 if parameter.dtype in (torch.float64, torch.complex128) else torch.float32


def kept_dtype(slot: State, parameter: Tensor) -> torch.dtype:
    """Return the dtype in which a state is kept.

    What tensors have in common is kept in double precision: it must not depend on which of them came first.
    """
    double = slot.scope != "tensor" or slot.format == "double"
    if double and parameter.device.type != "mps":  # which has no double precision
        return torch.float64
    return torch.uint8 if slot.format == "sign" else computed_dtype(parameter)


def _follows(slot: State) -> bool:
    """Whether a state has the shape of its parameter, and is cut like it."""
    return slot.per == "element" and slot.format == "float" and not slot.block


def shares(kept: Tensor, slot: State, parameter: Tensor, blocks: Blocks | None) -> list[Tensor]:
    """Return each block's share of a state as a view; what tensors have in common is the same for all."""
    if blocks is None:
        return [kept]
    own = pieces(parameter, blocks)
    if slot.scope != "tensor":
        return [kept] * len(own)
    if _follows(slot):
        return pieces(kept, blocks)
    shapes = [layout(slot, piece) for piece in own]
    parts = torch.split(kept.view(-1), [math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def kept_bytes(slot: State, parameter: Tensor, blocks: Blocks | None = None) -> int:
    """Return how many bytes a state takes."""
    return kept_dtype(slot, parameter).itemsize * math.prod(layout(slot, parameter, blocks))


def positions(shape: tuple[int, ...], device: torch.device, rows: Tensor | None = None) -> Tensor:
    """Return the index of every element of a tensor, or of these rows of a taller one."""
    if rows is None:
        return torch.arange(math.prod(shape), device=device).reshape(shape)
    columns = math.prod(shape[1:])
    return (rows.unsqueeze(1) * columns + torch.arange(columns, device=device)).reshape(shape)


# Numbers of blocks follow those of parameters from here on; both are exact in single precision up to 256 blocks.
_NEXT_BLOCK: Final = 1 << 16


def fresh(slot: State, parameter: Tensor, blocks: Blocks | None = None, number: int = 0) -> Tensor:
    """Return a state as it is before the first step; each block's as if it were a parameter of its own.

    Args:
        slot: its declaration.
        parameter: whose it is.
        blocks: how the parameter is cut.
        number: the parameter's place in its optimizer.
    """
    dtype = kept_dtype(slot, parameter)
    if blocks is not None and slot.scope == "tensor":
        shape = layout(slot, parameter, blocks)
        whole = torch.empty_like(parameter, dtype=dtype) if _follows(slot) else parameter.new_empty(shape, dtype=dtype)
        own = zip(shares(whole, slot, parameter, blocks), pieces(parameter, blocks), strict=True)
        for place, (share, piece) in enumerate(own):
            share.copy_(fresh(slot, piece, number=number + _NEXT_BLOCK * place))
        return whole
    if slot.init == "parameter":
        return parameter.to(dtype, copy=True)
    if slot.init == "number":
        return torch.full(layout(slot, parameter), float(number), dtype=dtype, device=parameter.device)
    if slot.init == "normal":
        generator = torch.Generator().manual_seed(0)  # whatever else draws random numbers, runs repeat
        return torch.randn(layout(slot, parameter), generator=generator, dtype=dtype).to(parameter.device)
    if slot.init == "identity":
        *stack, side, _ = layout(slot, parameter)
        return torch.eye(side, dtype=dtype, device=parameter.device).expand(*stack, side, side).clone()
    if slot.format == "sign":
        value = 255 if slot.init > 0 else 0
        return torch.full(layout(slot, parameter), value, dtype=dtype, device=parameter.device)
    if slot.per == "element" and not slot.block:
        return filled(parameter, slot.init, dtype)
    return torch.full(layout(slot, parameter), slot.init, dtype=dtype, device=parameter.device)


def unpacked(kept: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Return signs as numbers, 1 or -1, from rows of bits."""
    places = torch.arange(8, dtype=torch.uint8, device=kept.device)
    bits = ((kept.unsqueeze(-1) >> places) & 1).flatten(1)[:, :columns]
    return bits.to(dtype) * 2 - 1


def packed(values: Tensor) -> Tensor:
    """Return rows of bits, set where a value is above 0."""
    rows, columns = values.shape
    bits = torch.zeros(rows, -(-columns // 8) * 8, dtype=torch.uint8, device=values.device)
    bits[:, :columns] = values > 0
    places = torch.arange(8, dtype=torch.uint8, device=values.device)
    return (bits.view(rows, -1, 8) << places).sum(-1, dtype=torch.uint8)
