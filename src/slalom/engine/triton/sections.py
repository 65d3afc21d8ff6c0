"""From a plan to Triton: what is small, one program per tensor, in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from slalom.algebra import SCALAR, Expr
from slalom.engine.plan import Operand
from slalom.engine.triton.places import COLUMN, ROW, Speller, function, start, unless_overflow

_KIND: Final = "float64"
_Body = Callable[[list[str]], list[str]]


def section(speller: Speller, index: int) -> str:
    """Emit what lies before a stage, or after the last one."""
    return _Section(speller, index).text()


class _Section:
    def __init__(self, speller: Speller, index: int) -> None:
        plan = speller.plan
        self.spell = speller
        self.index = index
        self.nodes = [*(node for node in plan.host[index] if "label" not in node.attrs), *plan.small[index]]
        last = index == len(plan.small) - 1
        mine = ((key, value) for key, value in plan.writes.items() if plan.states[key].scope == "tensor")
        self.writes = list(mine) if last else []
        self.local: dict[int, str] = {}

    def text(self) -> str:
        direct: list[Operand] = [arg for node in self.nodes for arg in node.args] + [v for _, v in self.writes]
        made = {id(node) for node in self.nodes}
        used = [n for n in dict.fromkeys(n for n in direct if isinstance(n, Expr)) if id(n) not in made]
        lines = ["tensor = tl.program_id(0)", f"row = T + tensor * {self.spell.width}"]
        if self.index == 0:
            lines += [f"steps = {self.spell.steps()}", "t = tl.load(steps) + TICK"]
            self.local |= {id(n): f"t.to(tl.{_KIND})" for n in used if n.op == "input" and n.attrs["name"] == "t"}
        lines += self.spell.load_numbers(used, self.local, _KIND)
        # every thread has read what thread 0 is about to overwrite
        lines += ["tl.debug_barrier()", "tl.store(steps, t)"] if self.index == 0 else []
        for count, node in enumerate(self.nodes):
            lines += self._value(count, node)
        lines += ["tl.debug_barrier()"] if self.writes else []
        for key, value in self.writes:
            lines += self._store(key, value)
        arguments = "T, N, S, V, TICK: tl.constexpr, BLOCK: tl.constexpr"
        return function(f"section{self.index}", arguments, unless_overflow(self.spell, lines))

    def _value(self, count: int, node: Expr) -> list[str]:
        """Compute a value, keep it for later sections and stages."""
        if node.op == "blockwise":
            return self._blockwise(node)
        if node.op in ("total", "largest") and isinstance(node.args[0], Expr):
            lines = [f"a = tl.full([BLOCK], {start(node)}, tl.{_KIND})"]
            joined = f"sl_join_{node.op}(a, tl.where(inside, {{}}, {start(node)}))"
            lines += self._loop(node.args[0].dims, node.args, lambda args: [f"a = {joined.format(args[0])}"])
            lines.append(f"s{count} = sl_{node.op}(a, tl.arange(0, BLOCK) >= 0, None)")
        elif node.dims == SCALAR:
            lines = [f"s{count} = ({self.spell.operation(node, self.local, _KIND)}).to(tl.{_KIND})"]
        else:
            target = self.spell.vector(node)
            return self._loop(node.dims, node.args, lambda args: [_stored(target, self._applied(node, args))])
        self.local[id(node)] = f"s{count}"
        return [*lines, f"tl.store({self.spell.slot(node)}, s{count})"]

    def _applied(self, node: Expr, args: list[str]) -> str:
        local = self.local | {id(arg): text for arg, text in zip(node.args, args, strict=True) if isinstance(arg, Expr)}
        return self.spell.operation(node, local, _KIND)

    def _loop(self, dims: tuple[str, str], args: Iterable[Operand], body: _Body) -> list[str]:
        """Go over rows or columns, some at a time."""
        length = self.spell.size("rows" if dims == ROW else "columns")
        lines = ["tl.debug_barrier()", f"length = {length}", "for first in range(0, length, BLOCK):"]
        inner = ["k = first + tl.arange(0, BLOCK)", "inside = k < length"]
        spelled = []
        for count, arg in enumerate(args):
            if isinstance(arg, Expr) and arg.dims in (ROW, COLUMN):
                inner.append(f"v{count} = tl.load({self.spell.vector(arg)} + k, mask=inside, other=0.0).to(tl.{_KIND})")
                spelled.append(f"v{count}")
            else:
                spelled.append(self.spell.spell(arg, self.local, _KIND))
        return [*lines, *(f"    {line}" for line in (*inner, *body(spelled)))]

    def _blockwise(self, node: Expr) -> list[str]:
        """Give every row the mean of its block."""
        assert isinstance(node.args[0], Expr)
        source, target, blocks = self.spell.vector(node.args[0]), self.spell.vector(node), node.attrs["blocks"]
        return [
            "tl.debug_barrier()",
            f"length = {self.spell.size('rows')}",
            f"block = (length + {blocks - 1}) // {blocks}",
            "for begin in range(0, length, block):",
            "    end = tl.minimum(begin + block, length)",
            f"    a = tl.zeros([BLOCK], tl.{_KIND})",
            "    for first in range(begin, end, BLOCK):",
            "        k = first + tl.arange(0, BLOCK)",
            f"        a += tl.load({source} + k, mask=k < end, other=0.0).to(tl.{_KIND})",
            f"    mean = tl.sum(a) / (end - begin).to(tl.{_KIND})",
            "    for first in range(begin, end, BLOCK):",
            "        k = first + tl.arange(0, BLOCK)",
            f"        tl.store({target} + k, mean + tl.zeros([BLOCK], tl.{_KIND}), mask=k < end)",
        ]

    def _store(self, key: str, value: Operand) -> list[str]:
        slot, target = self.spell.plan.states[key], self.spell.address(key)
        if slot.dims == SCALAR:
            return [f"tl.store({target}, ({self.spell.spell(value, self.local, _KIND)}).to(tl.float32))"]
        return self._loop(ROW if slot.dims[0] != "1" else COLUMN, [value], lambda args: [_stored(target, args[0])])


def _stored(target: str, value: str) -> str:
    return f"tl.store({target} + k, {value} + tl.zeros([BLOCK], tl.{_KIND}), mask=inside)"
