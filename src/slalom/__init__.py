"""slalom: optimizers for PyTorch, written as the paper writes them, composed freely, explained, raced honestly."""

from typing import Any

from slalom import (
    accumulate,
    algebra,
    compress,
    finite_sums,
    landscape,
    losses,
    memory,
    observe,
    parts,
    schedules,
    sharpness,
)
from slalom.attention import largest_logits, qk_clip
from slalom.ball import start_on_ball
from slalom.batchnorm import update_bn
from slalom.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from slalom.named import class_names, create, named_class
from slalom.observe import sparsity
from slalom.optimizer import Optimizer
from slalom.range_test import find_lr
from slalom.recipes import ByRole, Recipe, list_optimizers, recipe
from slalom.replay import replay
from slalom.roles import assign_roles, param_groups

__version__ = "0.1.0"

__all__ = [
    "ByRole",
    "Checkpoint",
    "Optimizer",
    "Recipe",
    "accumulate",
    "algebra",
    "assign_roles",
    "compress",
    "create",
    "find_lr",
    "finite_sums",
    "landscape",
    "largest_logits",
    "list_optimizers",
    "load_checkpoint",
    "losses",
    "memory",
    "observe",
    "param_groups",
    "parts",
    "qk_clip",
    "recipe",
    "replay",
    "save_checkpoint",
    "schedules",
    "sharpness",
    "sparsity",
    "start_on_ball",
    "update_bn",
    *class_names(),
]


def __getattr__(name: str) -> Any:
    """Find the class of a named optimizer, ``slalom.AdamW``; also of those that you entered into the catalogue."""
    entry = class_names().get(name)
    if entry is None:
        from slalom.errors import unknown

        raise AttributeError(str(unknown("name", name, __all__, owner="slalom")))
    return named_class(entry)


def __dir__() -> list[str]:
    return sorted(__all__)
