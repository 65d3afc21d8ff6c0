"""From a plan to C: what is small, one tensor after the other, in double precision."""

from __future__ import annotations

from slalom.algebra import SCALAR, Expr
from slalom.engine.native.spelling import TEMPLATE, UNPACK, number, start
from slalom.engine.plan import Operand, Plan, array_name
from slalom.engine.tables import Layout


class Sections:
    """Emits the sections of a plan, whose values lie as the layout says."""

    def __init__(self, plan: Plan, at: Layout) -> None:
        self.plan = plan
        self.at = at

    def text(self, index: int) -> str:
        """Emit what lies before a stage, or after the last one."""
        nodes = self.plan.small[index]
        final = index == len(self.plan.small) - 1
        n = len(self.at.arrays)
        head = (
            f"void section{index}(const int64_t *T, const double *H, int64_t hs, double *S, double *V, "
            "int64_t tensors, int threads) {"
        )
        if not nodes and not (final and self._writes()):
            return "\n".join([head, "(void)T; (void)H; (void)hs; (void)S; (void)V; (void)tensors; (void)threads;", "}"])
        lines = [
            f"static void small{index}(const args_t *A, int64_t begin, int64_t end) {{",
            UNPACK,
            "for (int64_t tensor = begin; tensor < end; tensor++) {",
            f"  const int64_t *t = T + tensor * {self.at.width};",
            "  const double *h = H + tensor * hs;",
            f"  double *s = S + tensor * {len(self.at.scalars)};",
            f"  const int64_t rows = t[{n}], columns = t[{n + 1}];",
            "  (void)h; (void)s; (void)rows; (void)columns;",
        ]
        lines += [f"  double *v{p} = V + t[{n + 3 + p}]; (void)v{p};" for p, _ in self.at.vectors.values()]
        for node in nodes:
            lines += self._value(node)
        if final:
            for key, value in self._writes():
                lines += self._store(key, value)
        lines += ["}", "}", head, "const args_t args = {T, H, hs, S, V, 0, 0, 0, 0, tensors};"]
        lines += [f"sl_run(small{index}, &args, tensors, tensors > 64 ? threads : 1);", "}"]
        return "\n".join(lines)

    def _writes(self) -> list[tuple[str, Operand]]:
        return [(key, value) for key, value in self.plan.writes.items() if self.plan.states[key].scope == "tensor"]

    def _operand(self, node: Operand, k: str) -> str:
        """Spell a value in a section: everything is read from the tables, in double precision."""
        if not isinstance(node, Expr):
            return number(node, "")
        if id(node) in self.at.host:
            return f"h[{self.at.host[id(node)]}]"
        if id(node) in self.at.scalars:
            return f"s[{self.at.scalars[id(node)]}]"
        if id(node) in self.at.vectors:
            return f"v{self.at.vectors[id(node)][0]}[{k}]"
        assert node.op == "state", node
        place = "0" if node.dims == SCALAR else k
        return f"(double)((const float *){self._address(array_name(node))})[{place}]"

    def _value(self, node: Expr) -> list[str]:
        def spelled(k: str) -> str:
            args = [self._operand(arg, k) for arg in node.args]
            return TEMPLATE[node.op].format(*args, t="")

        if node.op in ("total", "largest"):
            arg = node.args[0]
            assert isinstance(arg, Expr)
            length = "rows" if arg.dims == ("m", "1") else "columns"
            value = self._operand(arg, "k")
            joined = f"a + {value}" if node.op == "total" else f"sl_max({value}, a)"
            slot = f"s[{self.at.scalars[id(node)]}]"
            return [
                f"  {{ double a = {start(node)}; for (int64_t k = 0; k < {length}; k++) a = {joined}; {slot} = a; }}"
            ]
        if node.op == "blockwise":
            v, blocks = f"v{self.at.vectors[id(node)][0]}", node.attrs["blocks"]
            return [
                f"  const int64_t length{v} = (rows + {blocks - 1}) / {blocks};",
                f"  for (int64_t first = 0; first < rows; first += length{v}) {{",
                f"    const int64_t last = first + length{v} < rows ? first + length{v} : rows; double a = 0.0;",
                f"    for (int64_t k = first; k < last; k++) a += {self._operand(node.args[0], 'k')};",
                f"    for (int64_t k = first; k < last; k++) {v}[k] = a / (double)(last - first); }}",
            ]
        if node.dims == SCALAR:
            return [f"  s[{self.at.scalars[id(node)]}] = {spelled('0')};"]
        length = "rows" if node.dims == ("m", "1") else "columns"
        place = self.at.vectors[id(node)][0]
        return [f"  for (int64_t k = 0; k < {length}; k++) v{place}[k] = {spelled('k')};"]

    def _store(self, key: str, value: Operand) -> list[str]:
        slot = self.plan.states[key]
        target = f"((float *){self._address(key)})"
        if slot.dims == SCALAR:
            return [f"  {target}[0] = (float){self._operand(value, '0')};"]
        length = "rows" if slot.per == "row" else "columns"
        return [f"  for (int64_t k = 0; k < {length}; k++) {target}[k] = (float){self._operand(value, 'k')};"]

    def _address(self, name: str) -> str:
        return f"t[{self.at.arrays.index(name)}]"
