"""The named optimizers, by family, with their sources; importing this package fills the catalogue."""

from slalom.recipes import (
    adam,
    adaptive,
    averaging,
    decays,
    kronecker,
    lazy,
    light,
    lowrank,
    matrix,
    momenta,
    sgd,
    steadied,
    structured,
    tuning_free,
    variants,
)
from slalom.recipes.recipe import ORDER, ByRole, Recipe, Slot
from slalom.recipes.registry import FAMILIES, Method, list_optimizers, method, recipe

__all__ = [
    "FAMILIES",
    "ORDER",
    "ByRole",
    "Method",
    "Recipe",
    "Slot",
    "adam",
    "adaptive",
    "averaging",
    "decays",
    "kronecker",
    "lazy",
    "light",
    "list_optimizers",
    "lowrank",
    "matrix",
    "method",
    "momenta",
    "recipe",
    "sgd",
    "steadied",
    "structured",
    "tuning_free",
    "variants",
]
