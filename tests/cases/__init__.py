"""What each named optimizer is held to: golden vectors, independent implementations, a distinguishing property.

An entry here buys the tests in test_methods.py; the shared ones run for every optimizer of the catalogue anyway. One
file per family, as in recipes/.
"""

from __future__ import annotations

from cases import (
    algoperf,
    averaging,
    classic,
    decays,
    kronecker,
    lazy,
    light,
    lowrank,
    matrix,
    momenta,
    steadied,
    structured,
    tuning_free,
    variants,
)
from cases.tools import Case, Golden, Oracle, gradient, start

_FAMILIES = (
    algoperf,
    averaging,
    classic,
    decays,
    kronecker,
    lazy,
    light,
    lowrank,
    matrix,
    momenta,
    steadied,
    structured,
    tuning_free,
    variants,
)

CASES: dict[str, Case] = {name: case for family in _FAMILIES for name, case in family.CASES.items()}


__all__ = ["CASES", "Case", "Golden", "Oracle", "gradient", "start"]
