"""Shapes of results from the shapes of arguments."""

from __future__ import annotations

from typing import Any

from slalom.algebra.expr import ELEMENT, SCALAR, SQUARE, TALL, Dims, Per, block_of, in_blocks


def reduced(dims: Dims, *, per: Per) -> Dims:
    """Shape of a reduction."""
    (rows, columns), size = block_of(dims)
    inside = {"row": (rows, "1"), "column": ("1", columns), "block": SCALAR}
    return in_blocks(inside[per], size) if per in inside else SCALAR


def product(a: Dims, b: Dims) -> Dims:
    """Shape of a product."""
    if a[1] != b[0]:
        raise ValueError(f"matrices of shapes {a} and {b} cannot be multiplied")
    return (a[0], b[1])


def folded(x: Dims) -> Dims:
    """Shape of the most square view."""
    if x not in (ELEMENT, SCALAR):
        raise ValueError(f"fold() takes a value per element; this one has shape {x}")
    return x if x == SCALAR else SQUARE


def turned(x: Dims, *_: Dims) -> Dims:
    """Shape of the view with its longer side first."""
    if x not in (ELEMENT, TALL):
        raise ValueError(f"turned() takes a value per element; this one has shape {x}")
    return TALL if x == ELEMENT else ELEMENT


def thin(x: Dims, *_: Dims, rank: int) -> Dims:
    """Shape of a thin factor."""
    return (x[1], f"r{rank}")


def cut(x: Dims, *, size: int) -> Dims:
    """Shape of blocks."""
    if x != ELEMENT:
        raise ValueError(f"blocks() cuts a value per element; this one has shape {x}")
    return in_blocks(x, size)


def of_rows(x: Dims, **_: Any) -> Dims:
    """Shape of one value per row, which it must be."""
    if x[1] != "1" or x == SCALAR:
        raise ValueError(f"blockwise() takes one value per row; this one has shape {x}")
    return x
