"""Where a plan's values lie on a GPU, and how emitted Triton spells them.

Everything that a step needs is on the device, so that nothing waits for it and a captured step can be replayed. Beside
the addresses of `tables` there are

N[]             numbers that all tensors share and only the host or another launch knows: hyper-parameters, the loss,
                the clock, what the model has in common, completed reductions over several tensors; at its end what
                gradients are multiplied by, and a number that is not 0 if the step must change nothing
S[tensors][]    what is one number per tensor: all that is computed from those, and reductions
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from slalom.algebra import SCALAR, Expr
from slalom.engine.plan import Operand, Plan, array_name
from slalom.engine.program import walk
from slalom.engine.tables import ARITHMETIC, Layout, lay_out

ROW: Final = ("m", "1")
COLUMN: Final = ("1", "n")

TEMPLATE: Final = {
    **ARITHMETIC,
    "lerp": "sl_lerp({0}, {1}, {2})",
    "where": "tl.where(({0}) != 0, {1}, {2})",
    # nan wins, as in torch
    "maximum": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "minimum": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "sign": "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, 0.0))",
    "positive": "tl.where({0} > 0, 1.0, 0.0)",
    "sqrt": "tl.sqrt({0})",
    "abs": "tl.abs({0})",
    "exp": "tl.exp({0})",
    "log": "tl.log({0})",
    "tanh": "(2.0 / (1.0 + tl.exp(-2.0 * {0})) - 1.0)",
    "pow": "sl_pow({0}, {1})",
    "mod": "({0} - {1} * tl.floor({0} / {1}))",
    "atan2": "sl_atan2({0}, {1})",
    "uniform": "sl_uniform({0}, {1}, {2}, {seed})",
}

# What stands behind the addresses in a tensor's row of the table, in order.
_SIZES: Final = ("rows", "columns", "size")


@dataclass(frozen=True)
class Places:
    """Where everything lies in the tables.

    Attributes:
        base: addresses and vectors, as for every kernel.
        leaves: for each column of N, what it holds; equal leaves share a column.
        numbers: columns of N, by identity.
        scalars: columns of S, by identity.
    """

    base: Layout
    leaves: tuple[Expr, ...]
    numbers: dict[int, int]
    scalars: dict[int, int]

    @property
    def unscale(self) -> int:
        """The column of N with what gradients are multiplied by."""
        return len(self.leaves)

    @property
    def overflow(self) -> int:
        """The column of N that says whether the step must change nothing."""
        return len(self.leaves) + 1


def find_places(plan: Plan) -> Places:
    """Give every value of a plan its place on the device."""
    hosts = [node for section in plan.host for node in section]
    reductions = [node for stage in plan.stages for node in stage.reductions]
    roots: list[Operand] = [*plan.all_small(), *hosts, *reductions, *plan.writes.values(), plan.result]
    roots += [node for stage in plan.stages for node in (*stage.values, *stage.stores.values())]
    columns: dict[tuple[str, str], int] = {}
    leaves: list[Expr] = []
    numbers: dict[int, int] = {}
    for node in walk([root for root in roots if isinstance(root, Expr)]):
        if _is_number(node):
            key = (node.op, str(node.attrs.get("label") or sorted(node.attrs.items(), key=str)))
            if key not in columns:
                columns[key] = len(leaves)
                leaves.append(node)
            numbers[id(node)] = columns[key]
    own = [*(node for node in hosts if "label" not in node.attrs), *plan.all_small(), *reductions]
    scalars = {id(node): column for column, node in enumerate(node for node in own if node.dims == SCALAR)}
    return Places(lay_out(plan), tuple(leaves), numbers, scalars)


def _is_number(node: Expr) -> bool:
    if "label" in node.attrs or node.op == "hyper":
        return True
    if node.op == "input":
        return node.attrs["name"] in ("loss", "clock")
    return node.op == "state" and node.scope != "tensor"


class Speller:
    """Spells values of a plan.

    Args:
        plan: the plan.
        dtype: of parameters and gradients.
    """

    def __init__(self, plan: Plan, dtype: str) -> None:
        self.plan = plan
        self.dtype = dtype
        self.at = find_places(plan)
        self.width = self.at.base.width
        self._sizes = len(self.at.base.arrays)

    def array(self, name: str) -> int:
        """Return the number of an array."""
        return self.at.base.arrays.index(name)

    def address(self, name: str, aligned: str = "False") -> str:
        """Spell where an array begins."""
        kind = self.dtype if name in ("w", "g") else "float32"
        source = "G + tensor" if name == "g" else f"row + {self.array(name)}"
        return f"sl_hinted(tl.load({source}), {aligned}).to(tl.pointer_type(tl.{kind}))"

    def size(self, name: str) -> str:
        """Spell "rows", "columns" or "size" of the tensor."""
        return f"tl.load(row + {self._sizes + _SIZES.index(name)})"

    def vector(self, node: Expr) -> str:
        """Spell where a value per row or column begins."""
        if node.op == "state":
            return self.address(array_name(node))
        return f"V + tl.load(row + {self._sizes + len(_SIZES) + self.at.base.vectors[id(node)][0]})"

    def slot(self, node: Expr) -> str:
        """Spell where a number of a tensor is kept."""
        return f"S + tensor * {max(1, len(self.at.scalars))} + {self.at.scalars[id(node)]}"

    def steps(self) -> str:
        """Spell where a tensor's step count is."""
        return f"tl.load(row + {self.width - 1}).to(tl.pointer_type(tl.float32))"

    def spell(self, node: Operand, local: dict[int, str], kind: str = "float32") -> str:
        """Spell an operand; a number in double precision says so, for Triton takes it for a single one."""
        if isinstance(node, Expr):
            return local[id(node)]
        special = node != node or abs(node) == float("inf")
        text = f'float("{float(node)!r}")' if special else repr(float(node))
        return text if kind == "float32" else f"tl.full([], {text}, tl.{kind})"

    def operation(self, node: Expr, local: dict[int, str], kind: str = "float32") -> str:
        """Spell an operation."""
        spelled = [self.spell(arg, local, kind) for arg in node.args]
        return TEMPLATE[node.op].format(*spelled, seed=node.attrs.get("seed"))

    def load_numbers(self, used: Iterable[Expr], local: dict[int, str], kind: str) -> list[str]:
        """Load what is one number per tensor and not computed here."""
        lines = []
        for count, node in enumerate(used):
            source = None if id(node) in local else self._source(node)
            if source is not None:
                lines.append(f"u{count} = tl.load({source}).to(tl.{kind})")
                local[id(node)] = f"u{count}"
        return lines

    def _source(self, node: Expr) -> str | None:
        if id(node) in self.at.numbers:
            return f"N + {self.at.numbers[id(node)]}"
        if id(node) in self.at.scalars:
            return self.slot(node)
        if node.op == "input" and node.attrs["name"] == "t":
            return self.steps()
        if node.op == "input" and node.attrs["name"] in _SIZES:
            return f"row + {self._sizes + _SIZES.index(node.attrs['name'])}"
        if node.op == "state" and node.dims == SCALAR:
            return self.address(array_name(node))
        return None


def unless_overflow(speller: Speller, lines: Iterable[str]) -> list[str]:
    """Spell what is done only if the step may change anything."""
    return [f"if tl.load(N + {speller.at.overflow}) == 0.0:", *(f"    {line}" for line in lines)]


def function(name: str, arguments: str, lines: Iterable[str]) -> str:
    """Spell a function."""
    return "\n".join(["@triton.jit", f"def {name}({arguments}):", *(f"    {line}" for line in lines)])


def start(reduction: Expr) -> str:
    """Spell what a reduction of nothing is."""
    return "0.0" if reduction.op == "total" else 'float("-inf")'
