"""Sparse gradients that a recipe cannot use, refused in a sentence that says why and what to do."""

from __future__ import annotations

from typing import Final, get_args

from torch import Tensor

from slalom.engine import Numbers, Program, Rows, rests, row_obstacle

CHOICES: Final[tuple[str, ...]] = get_args(Rows)
_WORKS: Final = "adagrad, adagrad-rowwise, ftrl-proximal, group-ftrl and plain sgd"


def check_choice(sparse: object) -> None:
    """Raise `ValueError` unless this is a way to treat sparse gradients."""
    if sparse not in CHOICES:
        raise ValueError(f'sparse={sparse!r}: it must be "exact" or "lazy".')


def check_gradient(
    gradient: Tensor, parameter: Tensor, label: str, program: Program, numbers: Numbers, sparse: Rows
) -> None:
    """Raise `RuntimeError` if this sparse gradient cannot be used, with the reason and what can be done.

    Args:
        gradient: a sparse COO tensor.
        parameter: as real values.
        label: what the parameter is called in the sentence.
        program: what it runs.
        numbers: its hyper-parameters.
        sparse: "exact" demands that rows without gradient rest; "lazy" lets them rest whatever the recipe says.
    """
    begin = f"parameter {label} has a sparse gradient, "
    if gradient.sparse_dim() != 1:
        raise RuntimeError(
            f"{begin}sparse in {gradient.sparse_dim()} of its dimensions: only whole rows can be, as from "
            "nn.Embedding(sparse=True); make it dense with to_dense()."
        )
    obstacle = row_obstacle(program, parameter.ndim)
    if obstacle is not None:
        raise RuntimeError(
            f"{begin}but {obstacle}, so this recipe has no meaning for single rows: build the layer with "
            f"sparse=False, or give it a recipe that works row by row, such as {_WORKS}."
        )
    if sparse == "exact" and not rests(program, tuple(sorted(numbers.items(), key=repr))):
        raise RuntimeError(
            f"{begin}but under this recipe rows without one move or forget too (momentum, averages, decay). "
            'Leave them out with sparse="lazy", another algorithm as SparseAdam is to Adam; make up for what '
            "they miss with slalom.replay(optimizer, model); "
            f"or take a recipe whose rows rest, such as {_WORKS}; or build the layer with sparse=False."
        )
