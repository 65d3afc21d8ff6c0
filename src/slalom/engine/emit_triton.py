"""From a plan to Triton: one kernel per stage over all tensors, one per section over what is small.

The tables are those of the C kernels (see `tables`): addresses, host values, values per tensor, chunks, partial sums.
A program of the stage kernel takes one chunk; partial sums are combined per tensor in the order of chunks. Plans
that need rows or columns are left to the list executor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from slalom.algebra import ELEMENT, SCALAR, Expr
from slalom.engine.plan import Operand, Plan, Stage, array_name
from slalom.engine.program import walk
from slalom.engine.tables import ARITHMETIC, lay_out

# Elements per program; combining reads this many partial sums at a time.
BLOCK: Final = 1024
COMBINE: Final = 256

_TEMPLATE: Final = {
    **ARITHMETIC,
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
    "mod": "({0} - {1} * tl.floor({0} / {1}))",
    "atan2": "sl_atan2({0}, {1})",
}

_HEAD: Final = '''"""Emitted by slalom from a plan."""

import triton
import triton.language as tl


@triton.jit
def sl_atan2(y, x):
    """Reduce to [0, tan(pi/8)], odd polynomial, unfold; error below 3e-7."""
    ax = tl.abs(x)
    ay = tl.abs(y)
    big = tl.where(ax > ay, ax, ay)
    small = tl.where(ax > ay, ay, ax)
    r = tl.where(big == 0.0, 0.0, tl.where(big == small, 1.0, small / tl.where(big == 0.0, 1.0, big)))
    upper = r > 0.41421356
    z = tl.where(upper, (r - 1.0) / (r + 1.0), r)
    q = z * z
    p = ((8.05374449538e-2 * q - 1.38776856032e-1) * q + 1.99777106478e-1) * q - 3.33329491539e-1
    angle = p * q * z + z + tl.where(upper, 0.785398163397, 0.0)
    angle = tl.where(ay > ax, 1.57079632679 - angle, angle)
    angle = tl.where(x < 0.0, 3.14159265359 - angle, angle)
    angle = tl.where(y < 0.0, -angle, angle)
    return tl.where((x != x) | (y != y), x + y, angle)

'''


class _Emitter:
    def __init__(self, plan: Plan, dtype: str) -> None:
        self.plan = plan
        self.at = lay_out(plan)
        self.dtype = dtype

    def source(self) -> str:
        parts = [_HEAD]
        for stage in self.plan.stages:
            parts.append(self.stage(stage))
            if self.scalars(stage):
                parts.append(self.combine(stage))
        parts += [self.section(index) for index in range(len(self.plan.small))]
        return "\n\n".join(parts) + "\n"

    def scalars(self, stage: Stage) -> list[Expr]:
        return [r for r in stage.reductions if r.dims == SCALAR]

    def pointer(self, name: str, row: str = "row") -> str:
        kind = self.dtype if name in ("w", "g") else "float32"
        return f"tl.load({row} + {self.at.arrays.index(name)}).to(tl.pointer_type(tl.{kind}))"

    def spell(self, node: Operand, local: dict[int, str]) -> str:
        if not isinstance(node, Expr):
            return f'float("{float(node)!r}")' if node != node or abs(node) == float("inf") else repr(float(node))
        if id(node) in local:
            return local[id(node)]
        if id(node) in self.at.host:
            return f"h{self.at.host[id(node)]}"
        return f"s{self.at.scalars[id(node)]}"

    def operation(self, node: Expr, local: dict[int, str]) -> str:
        return _TEMPLATE[node.op].format(*(self.spell(arg, local) for arg in node.args))

    def uniform(self, used: Iterable[Expr], local: dict[int, str], kind: str) -> list[str]:
        """Load what all elements of a tensor share."""
        lines = []
        for node in used:
            if id(node) in self.at.host:
                place = self.at.host[id(node)]
                lines.append(f"h{place} = tl.load(H + tensor * hs + {place}).to(tl.{kind})")
            elif id(node) in self.at.scalars:
                place = self.at.scalars[id(node)]
                lines.append(f"s{place} = tl.load(S + tensor * {len(self.at.scalars)} + {place}).to(tl.{kind})")
            elif node.op == "state" and node.dims == SCALAR:
                place = self.at.arrays.index(array_name(node))
                lines.append(f"x{place} = tl.load({self.pointer(array_name(node))}).to(tl.{kind})")
                local[id(node)] = f"x{place}"
        return lines

    def stage(self, stage: Stage) -> str:
        roots: list[Operand] = [*stage.values, *(r.args[0] for r in stage.reductions), *stage.stores.values()]
        direct = [arg for node in stage.values for arg in node.args] + roots
        used = list(dict.fromkeys(node for node in direct if isinstance(node, Expr)))
        local: dict[int, str] = {}
        lines = [
            "c = tl.program_id(0)",
            "tensor = tl.load(C + 4 * c)",
            "first = tl.load(C + 4 * c + 1)",
            "count = tl.load(C + 4 * c + 2)",
            f"row = T + tensor * {self.at.width}",
            *self.uniform(used, local, "float32"),
            "j = tl.arange(0, BLOCK)",
            "mask = j < count",
        ]
        for name in dict.fromkeys([*stage.loads, *stage.stores]):
            lines.append(f"p{self.at.arrays.index(name)} = {self.pointer(name)} + first + j")
        loaded: dict[str, str] = {}
        for name in stage.loads:
            place = self.at.arrays.index(name)
            lines.append(f"x{place} = tl.load(p{place}, mask=mask, other=0.0).to(tl.float32)")
            loaded[name] = f"x{place}"
        for node in walk(roots):
            if node.op in ("input", "state") and node.dims == ELEMENT and array_name(node) in loaded:
                local[id(node)] = loaded[array_name(node)]
        local |= {key: loaded[name] for key, name in stage.reread.items()}
        for place, node in enumerate(stage.values):
            lines.append(f"e{place} = {self.operation(node, local)}")
            local[id(node)] = f"e{place}"
        scalars = self.scalars(stage)
        for place, r in enumerate(scalars):
            value = self.spell(r.args[0], local)
            if r.op == "total":
                lines.append(f"a{place} = tl.sum(tl.where(mask, {value}, 0.0).to(tl.float64), axis=0)")
            else:
                lines += [
                    f'a{place} = tl.max(tl.where(mask, {value}, float("-inf")), axis=0).to(tl.float64)',
                    f"n{place} = tl.sum(tl.where(mask & ({value} != {value}), 1, 0), axis=0)",
                    f'a{place} = tl.where(n{place} > 0, float("nan"), a{place})',
                ]
            lines.append(f"tl.store(P + c * {len(scalars)} + {place}, a{place})")
        for name, stored in stage.stores.items():
            kind = self.dtype if name == "w" else "float32"
            place = self.at.arrays.index(name)
            value = self.spell(stored, local)
            whole = (
                value
                if isinstance(stored, Expr) and stored.dims == ELEMENT
                else f"({value} + tl.zeros([BLOCK], tl.float32))"
            )
            lines.append(f"tl.store(p{place}, {whole}.to(tl.{kind}), mask=mask)")
        return _function(f"stage{stage.index}", "T, H, hs, S, C, P, BLOCK: tl.constexpr", lines)

    def combine(self, stage: Stage) -> str:
        """Add up a tensor's partial sums, always in the same order."""
        scalars, width = self.scalars(stage), len(self.at.scalars)
        lines = ["tensor = tl.program_id(0)", "first = tl.load(R + 2 * tensor)", "count = tl.load(R + 2 * tensor + 1)"]
        lines.append("j = tl.arange(0, COMBINE)")
        for place, r in enumerate(scalars):
            start = "0.0" if r.op == "total" else 'float("-inf")'
            load = f"tl.load(P + (first + k + j) * {len(scalars)} + {place}, mask=k + j < count, other={start})"
            step = f"a + {load}" if r.op == "total" else "tl.where((b > a) | (b != b), b, a)"
            lines += [f"a = tl.full([COMBINE], {start}, tl.float64)", "for k in range(0, count, COMBINE):"]
            lines += [f"    b = {load}"] if r.op != "total" else []
            lines.append(f"    a = {step}")
            if r.op == "total":
                lines.append("whole = tl.sum(a, axis=0)")
            else:
                lines += ["whole = tl.max(a, axis=0)", "bad = tl.sum(tl.where(a != a, 1, 0), axis=0)"]
                lines.append('whole = tl.where(bad > 0, float("nan"), whole)')
            lines.append(f"tl.store(S + tensor * {width} + {self.at.scalars[id(r)]}, whole)")
        return _function(f"combine{stage.index}", "R, P, S, COMBINE: tl.constexpr", lines)

    def section(self, index: int) -> str:
        nodes = self.plan.small[index]
        final = index == len(self.plan.small) - 1
        writes = [
            (key, value) for key, value in self.plan.writes.items() if final and self.plan.states[key].scope == "tensor"
        ]
        direct = [arg for node in nodes for arg in node.args if isinstance(arg, Expr)]
        direct += [value for _, value in writes if isinstance(value, Expr)]
        computed = {id(node) for node in nodes}
        local: dict[int, str] = {}
        used = [node for node in dict.fromkeys(direct) if id(node) not in computed]
        lines = [
            "tensor = tl.program_id(0)",
            f"row = T + tensor * {self.at.width}",
            *self.uniform(used, local, "float64"),
        ]
        for node in nodes:
            place = self.at.scalars[id(node)]
            lines.append(f"s{place} = ({self.operation(node, local)}).to(tl.float64)")
            lines.append(f"tl.store(S + tensor * {len(self.at.scalars)} + {place}, s{place})")
        for key, value in writes:
            lines.append(f"tl.store({self.pointer(key)}, ({self.spell(value, local)}).to(tl.float32))")
        return _function(f"section{index}", "T, H, hs, S", lines)


def _function(name: str, arguments: str, lines: Iterable[str]) -> str:
    return "\n".join(["@triton.jit", f"def {name}({arguments}):", *(f"    {line}" for line in lines)])


def emit_triton(plan: Plan, dtype: str) -> str:
    """Return Triton for a plan whose parameters have this dtype: "float32", "bfloat16" or "float16"."""
    return _Emitter(plan, dtype).source()


def supports_triton(plan: Plan) -> str | None:
    """Return why a plan cannot run in Triton, None if it can."""
    if plan.two_dimensional:
        return "values per row or column"
    for node in [*plan.all_small(), *(value for stage in plan.stages for value in stage.values)]:
        if node.op not in _TEMPLATE:
            return f"the operation {node.op}"
    return None
