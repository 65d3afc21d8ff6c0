"""The methods that an experiment compares, built by name through slalom's public face."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

import slalom
from slalom.recipes.spec import parse_spec


def build(word: str, parameters: Sequence[Tensor], **hyperparameters: float) -> slalom.Optimizer:
    """Build an optimizer for hidden matrices and vectors.

    Args:
        word: a name with arguments, as "sgd:momentum=0.9"; its own arguments win.
        parameters: what it moves.
        **hyperparameters: those of the experiment, for the methods that have them.
    """
    entry, given = parse_spec(word)
    groups = [{"params": [p], "role": "matrix" if p.dim() > 1 else "vector"} for p in parameters]
    shared = {name: value for name, value in hyperparameters.items() if name in entry.defaults}
    return slalom.create(entry.name, groups, **{**shared, **given})


def set_rate(optimizer: slalom.Optimizer, rate: float) -> None:
    """Give all groups a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
