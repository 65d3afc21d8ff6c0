"""What compiled kernels have in common, C or Triton: the tables they read, and how arithmetic is spelled.

T[tensors][width]   per tensor: addresses of w, g and every state, then rows, columns, elements, ...
H[tensors or 1][]   values known on the host; one row if all tensors share them
S[tensors][]        values per tensor, and reductions once they are complete
V[...]              values per row and column, at offsets that the table gives
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from slalom.algebra import ELEMENT, SCALAR, Expr
from slalom.engine.plan import Operand, Plan, on_host
from slalom.engine.program import walk

# How operations are spelled in C and in Triton alike.
ARITHMETIC: Final = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "neg": "(-{0})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
    "and": "(({0} != 0) & ({1} != 0))",
}


@dataclass(frozen=True)
class Layout:
    """Where everything lies in the tables that a kernel is called with.

    Attributes:
        arrays: addresses in a tensor's row of the table, in order: "w", "g", then state keys.
        host: columns of the host table, by identity of the node.
        scalars: columns of the scalar table, by identity of the node.
        vectors: values per row or column, by identity of the node, with their dims, in order.
        partials: for each stage, how many partial sums per chunk are per tensor.
    """

    arrays: tuple[str, ...]
    host: dict[int, int]
    scalars: dict[int, int]
    vectors: dict[int, tuple[int, Expr]]
    partials: tuple[int, ...]

    @property
    def width(self) -> int:
        """Length of a tensor's row: addresses, rows, columns, elements, offsets of vectors, its step count."""
        return len(self.arrays) + 4 + len(self.vectors)


def lay_out(plan: Plan) -> Layout:
    """Give every value of a plan its place."""
    every = [node for stage in plan.stages for node in (*stage.values, *stage.reductions)]
    roots: list[Operand] = [*plan.all_small(), *every, *plan.writes.values(), plan.result]
    nodes = list(walk([node for node in roots if isinstance(node, Expr)]))
    device_users = [node for node in nodes if not on_host(node)] + [
        node
        for node in nodes
        if "label" in node.attrs  # what crosses is computed from device values
    ]
    used = [arg for node in device_users for arg in node.args if isinstance(arg, Expr) and on_host(arg)]
    used += [value for value in (*plan.writes.values(), plan.result) if isinstance(value, Expr) and on_host(value)]
    used += [v for stage in plan.stages for v in stage.stores.values() if isinstance(v, Expr) and on_host(v)]
    host = {key: place for place, key in enumerate(dict.fromkeys(id(node) for node in used))}
    reductions = [node for stage in plan.stages for node in stage.reductions]
    kept = [*plan.all_small(), *reductions]
    scalars = [node for node in kept if node.dims == SCALAR]
    vectors = [node for node in kept if node.dims not in (SCALAR, ELEMENT)]
    arrays = ["w", "g", *(key for key, slot in plan.states.items() if slot.scope == "tensor")]
    return Layout(
        arrays=tuple(arrays),
        host=host,
        scalars={id(node): place for place, node in enumerate(scalars)},
        vectors={id(node): (place, node) for place, node in enumerate(vectors)},
        partials=tuple(sum(r.dims == SCALAR for r in stage.reductions) for stage in plan.stages),
    )
