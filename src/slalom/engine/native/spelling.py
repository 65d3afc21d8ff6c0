"""How values and operations of a plan are spelled in C, in single and in double precision."""

from __future__ import annotations

from typing import Final

from slalom.algebra import Expr
from slalom.engine.tables import ARITHMETIC

# `t` is f in single precision, nothing in double.
TEMPLATE: Final = {
    **ARITHMETIC,
    "where": "({0} ? {1} : {2})",
    "lerp": "sl_lerp{t}({0}, {1}, {2})",
    "maximum": "sl_max{t}({0}, {1})",
    "minimum": "sl_min{t}({0}, {1})",
    "sign": "sl_sign{t}({0})",
    "positive": "({0} > 0 ? 1 : 0)",
    "sqrt": "sqrt{t}({0})",
    "abs": "fabs{t}({0})",
    "exp": "sl_exp{t}({0})",
    "log": "sl_log{t}({0})",
    "tanh": "tanh{t}({0})",
    "pow": "pow{t}({0}, {1})",
    "mod": "sl_mod{t}({0}, {1})",
    "atan2": "sl_atan2{t}({0}, {1})",
    "uniform": "sl_uniform({0}, {1}, {2}, {seed}u)",
}

# What every function of a kernel has at hand (see `tables`).
UNPACK: Final = (
    "const int64_t *T = A->T; const double *H = A->H; const int64_t hs = A->hs; double *S = A->S; double *V = A->V; "
    "const int64_t *C = A->C; double *P = A->P; double *Q = A->Q; (void)T; (void)H; (void)hs; (void)S; (void)V; "
    "(void)C; (void)P; (void)Q;"
)


def number(value: float, t: str) -> str:
    """Spell a number; ``t`` is "f" in single precision, nothing in double."""
    if value != value:
        return "(float)NAN" if t else "(double)NAN"
    if value in (float("inf"), float("-inf")):
        return ("-" if value < 0 else "") + "INFINITY"
    return repr(float(value)) + ("f" if t else "")


def start(reduction: Expr) -> str:
    """Spell what a reduction of nothing is."""
    return "0.0" if reduction.op == "total" else "-INFINITY"
