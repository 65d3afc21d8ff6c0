"""From a plan to Triton: one kernel per stage over all tensors, one per section over what is small.

A program of a stage takes one chunk: a run of elements or, where rows and columns matter, a tile of the matrix. What
chunks leave is combined per tensor, row and column in the order of chunks. `triton_places` says where values lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from slalom.algebra import ELEMENT, SCALAR, Expr
from slalom.engine.plan import Operand, Plan, Stage, array_name
from slalom.engine.program import walk
from slalom.engine.triton.places import COLUMN, ROW, TEMPLATE, Speller, function, start, unless_overflow
from slalom.engine.triton.prelude import PRELUDE
from slalom.engine.triton.sections import section

# A tensor's row of R: its first chunk, how many, tiles down and across, where its sums of rows and columns begin in Q.
RANGES: Final = 6
_ACROSS: Final = {"row": 3, "column": 2}
_BEGIN: Final = {"row": 4, "column": 5}
_TABLES: Final = "T, G, N, S, V, C, R, P, Q"


def emit_triton(plan: Plan, dtype: str) -> str:
    """Return Triton for a plan whose parameters have this dtype: "float32", "bfloat16" or "float16"."""
    speller = Speller(plan, dtype)
    parts = [PRELUDE]
    for stage in plan.stages:
        parts += _Stage(speller, stage).functions()
    parts += [section(speller, index) for index in range(len(plan.small))]
    return "\n\n\n".join(parts) + "\n"


def supports_triton(plan: Plan) -> str | None:
    """Return why a plan cannot run in Triton, None if it can."""
    if any(map(plan.holds_signs, plan.states)):
        return "signs of one bit"
    for node in [*plan.all_small(), *(value for stage in plan.stages for value in stage.values)]:
        if node.op not in TEMPLATE and node.op not in ("total", "largest", "blockwise"):
            return f"the operation {node.op}"
    return None


def by_extent(stage: Stage) -> dict[str, list[Expr]]:
    """Return what a stage reduces to one value per tensor, per row and per column."""
    names = {SCALAR: "tensor", ROW: "row", COLUMN: "column"}
    found: dict[str, list[Expr]] = {name: [] for name in names.values()}
    for node in stage.reductions:
        found[names[node.dims]].append(node)
    return found


class _Stage:
    def __init__(self, speller: Speller, stage: Stage) -> None:
        self.spell = speller
        self.stage = stage
        self.flat = not speller.plan.two_dimensional
        self.reduced = by_extent(stage)

    def functions(self) -> list[str]:
        """Emit the pass, and what combines what its chunks leave."""
        index, size = self.stage.index, "BLOCK" if self.flat else "ROWS, COLUMNS"
        sizes = ", ".join(f"{name}: tl.constexpr" for name in (*size.split(", "), "ALIGNED"))
        # Two bodies: a masked load is a narrow one, and nearly every chunk is whole.
        head = [
            "if full:",
            f"    body{index}({_TABLES}, {size}, ALIGNED, True)",
            "else:",
            f"    body{index}({_TABLES}, {size}, ALIGNED, False)",
        ]
        # loaded beside what says whether anything may change, not after it
        head = ["full = tl.load(C + 4 * tl.program_id(0) + 3) != 0", *unless_overflow(self.spell, head)]
        parts = [
            function(f"body{index}", f"{_TABLES}, {sizes}, FULL: tl.constexpr", [*self._where(), *self._body()]),
            function(f"stage{index}", f"{_TABLES}, {sizes}", head),
        ]
        if self.reduced["tensor"]:
            parts.append(self._combine_tensors())
        parts += [self._combine(extent) for extent in ("row", "column") if self.reduced[extent]]
        return parts

    # --- the pass --------------------------------------------------------------------------------

    def _where(self) -> list[str]:
        """Say which elements a chunk has."""
        whose = ["c = tl.program_id(0)", "tensor = tl.load(C + 4 * c)", f"row = T + tensor * {self.spell.width}"]
        if self.flat:
            return [
                *whose,
                "mask = tl.arange(0, BLOCK) < tl.load(C + 4 * c + 2)",
                "at = tl.multiple_of(tl.load(C + 4 * c + 1), 16) + tl.arange(0, BLOCK)",
            ]
        return [
            *whose,
            f"rows = {self.spell.size('rows')}",
            f"columns = sl_hinted({self.spell.size('columns')}, ALIGNED)",
            "i = tl.load(C + 4 * c + 1) + tl.arange(0, ROWS)",
            "j = tl.multiple_of(tl.load(C + 4 * c + 2), 16) + tl.arange(0, COLUMNS)",
            "mask = (i[:, None] < rows) & (j[None, :] < columns)",
            "at = i[:, None] * columns + j[None, :]",
        ]

    def _body(self) -> list[str]:
        stage, spell = self.stage, self.spell
        roots: list[Operand] = [*stage.values, *(r.args[0] for r in stage.reductions), *stage.stores.values()]
        direct = [arg for node in stage.values for arg in node.args] + roots
        used = list(dict.fromkeys(node for node in direct if isinstance(node, Expr)))
        local: dict[int, str] = {}
        lines = [*spell.load_numbers(used, local, "float32"), *self._vectors(used, local)]
        for name in dict.fromkeys([*stage.loads, *stage.stores]):
            lines.append(f"p{spell.array(name)} = {spell.address(name, 'ALIGNED')} + at")
        loaded = {name: f"x{spell.array(name)}" for name in stage.loads}
        for name, x in loaded.items():
            unscaled = f" * tl.load(N + {spell.at.unscale}).to(tl.float32)" if name == "g" else ""
            lines.append(f"{x} = sl_load(p{spell.array(name)}, mask, FULL).to(tl.float32){unscaled}")
        for node in walk(roots):
            if node.op in ("input", "state") and node.dims == ELEMENT and array_name(node) in loaded:
                local[id(node)] = loaded[array_name(node)]
            elif node.op == "input" and node.attrs["name"] == "position":
                local[id(node)] = "at"
        local |= {key: loaded[name] for key, name in stage.reread.items()}
        for count, node in enumerate(stage.values):
            lines.append(f"e{count} = {spell.operation(node, local)}")
            local[id(node)] = f"e{count}"
        for extent, reduced in self.reduced.items():
            for count, r in enumerate(reduced):
                lines.append(self._leave(extent, count, r, self._whole(r.args[0], local)))
        for name, stored in stage.stores.items():
            kind = spell.dtype if name == "w" else "float32"
            value = f"({self._whole(stored, local)}).to(tl.{kind})"
            lines.append(f"sl_store(p{spell.array(name)}, {value}, mask, FULL)")
        return lines

    def _vectors(self, used: Iterable[Expr], local: dict[int, str]) -> list[str]:
        """Load what the rows and columns of a tile share."""
        lines = []
        for count, node in enumerate(used):
            if node.dims in (ROW, COLUMN):
                index, length, axes = ("i", "rows", "[:, None]") if node.dims == ROW else ("j", "columns", "[None, :]")
                load = f"tl.load({self.spell.vector(node)} + {index}, mask={index} < {length}, other=0.0)"
                lines.append(f"v{count} = {load}.to(tl.float32){axes}")
                local[id(node)] = f"v{count}"
        return lines

    def _whole(self, node: Operand, local: dict[int, str]) -> str:
        """Spell a value with one entry per element, also where all of them are the same."""
        value = self.spell.spell(node, local)
        return value if isinstance(node, Expr) and node.dims == ELEMENT else f"{value} + tl.where(mask, 0.0, 0.0)"

    def _leave(self, extent: str, count: int, r: Expr, value: str) -> str:
        """Reduce a chunk, in single precision: sums over so few elements lose nothing."""
        if extent == "tensor":
            reduced = f"sl_{r.op}({value}, mask, None).to(tl.float64)"
            return f"tl.store(P + c * {len(self.reduced[extent])} + {count}, {reduced})"
        k, length, axis = ("i", "rows", 1) if extent == "row" else ("j", "columns", 0)
        # which of the tiles beside each other this is, or of those below each other
        tile = "tl.load(C + 4 * c + 2) // COLUMNS" if extent == "row" else "tl.load(C + 4 * c + 1) // ROWS"
        place = f"{count} * {self._range(_ACROSS[extent])} + {tile}"
        target = f"Q + {self._range(_BEGIN[extent])} + ({place}) * {length} + {k}"
        return f"tl.store({target}, sl_{r.op}({value}, mask, {axis}), mask={k} < {length})"

    @staticmethod
    def _range(column: int) -> str:
        return f"tl.load(R + {RANGES} * tensor + {column})"

    # --- what its chunks leave -------------------------------------------------------------------

    def _combine_tensors(self) -> str:
        reduced = self.reduced["tensor"]
        lines = [
            "tensor = tl.program_id(0)",
            f"first = {self._range(0)}",
            f"count = {self._range(1)}",
            "j = tl.arange(0, BLOCK)",
        ]
        for place, r in enumerate(reduced):
            source = f"P + (first + k + j) * {len(reduced)} + {place}"
            lines += [
                f"a = tl.full([BLOCK], {start(r)}, tl.float64)",
                "for k in range(0, count, BLOCK):",
                f"    a = sl_join_{r.op}(a, tl.load({source}, mask=k + j < count, other={start(r)}))",
                f"tl.store({self.spell.slot(r)}, sl_{r.op}(a, j >= 0, None))",
            ]
        return function(f"tensor{self.stage.index}", "T, R, L, P, Q, S, V, BLOCK: tl.constexpr", lines)

    def _combine(self, extent: str) -> str:
        """A program takes some rows, or columns, of a tensor, which L says, and several tiles at a time."""
        length = f"{extent}s"
        lines = [
            "tensor = tl.load(L + 2 * tl.program_id(0))",
            "k = tl.load(L + 2 * tl.program_id(0) + 1) + tl.arange(0, BLOCK)",
            f"row = T + tensor * {self.spell.width}",
            f"length = {self.spell.size(length)}",
            f"tiles = {self._range(_ACROSS[extent])}",
            f"q = Q + {self._range(_BEGIN[extent])} + k[None, :]",
            "way = tl.arange(0, WAYS)",
            "all = (way >= 0)[:, None] & (k >= 0)[None, :]",
        ]
        for place, r in enumerate(self.reduced[extent]):
            source = f"q + ({place} * tiles + tile) * length"
            lines += [
                f"a = tl.full([WAYS, BLOCK], {start(r)}, tl.float64)",
                "for first in range(0, tiles, WAYS):",
                "    tile = (first + way)[:, None]",
                "    inside = (tile < tiles) & (k < length)[None, :]",
                f"    a = sl_join_{r.op}(a, tl.load({source}, mask=inside, other={start(r)}).to(tl.float64))",
                f"tl.store({self.spell.vector(r)} + k, sl_{r.op}(a, all, 0), mask=k < length)",
            ]
        arguments = "T, R, L, P, Q, S, V, WAYS: tl.constexpr, BLOCK: tl.constexpr"
        return function(f"{extent}{self.stage.index}", arguments, lines)
