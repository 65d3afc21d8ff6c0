"""From a plan to C: one function per stage over all tensors, one per section over what is small.

All functions of a kernel share one signature and the tables that `tables` describes.

A tensor is cut into chunks whose borders depend on its shape alone. Each chunk leaves partial sums, which are added
up in the order of chunks: the result does not depend on how many threads there were.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from slalom.algebra import ELEMENT, SCALAR, Expr
from slalom.engine.native.prelude import PREAMBLE
from slalom.engine.native.sections import Sections
from slalom.engine.native.spelling import TEMPLATE, UNPACK, number, start
from slalom.engine.plan import Operand, Plan, Stage, array_name
from slalom.engine.program import walk
from slalom.engine.tables import lay_out

# Elements per chunk: small enough to balance two threads on one layer, large enough to forget the bookkeeping.
CHUNK: Final = 16384
# Most chunks that a matrix is cut into where columns are reduced: each leaves a row of partial sums.
MOST_CHUNKS: Final = 64
# Chunks of at most so many elements (or rows) fetch what the one so far ahead will read.
_ROW: Final = 64
_AHEAD: Final = 12

# Elements at a time where sums are kept: sums over so few lose nothing in single precision, whose adders are twice as
# many, and the sums of blocks are added up in double precision.
BLOCK: Final = 1024
# Columns at a time where rows and columns matter, a multiple of eight for signs: few enough that their sums stay in the
# first cache, enough that a processor foresees what a row will read.
STRIP: Final = 2048
# Rows at a time whose sums along columns are kept in single precision.
ROWS: Final = 16

_STORAGE: Final = {
    "float32": ("float", "{0}", "{0}"),
    "bfloat16": ("uint16_t", "sl_from_bf16({0})", "sl_to_bf16({0})"),
    "float16": ("_Float16", "(float){0}", "(_Float16){0}"),
}


class _Emitter:
    def __init__(self, plan: Plan, dtype: str) -> None:
        self.plan = plan
        self.at = lay_out(plan)
        self.dtype = dtype
        self.flat = not plan.two_dimensional

    def source(self) -> str:
        parts = [PREAMBLE]
        parts += [self.stage(stage) for stage in self.plan.stages]
        sections = Sections(self.plan, self.at)
        parts += [sections.text(index) for index in range(len(self.plan.small))]
        parts.append(self.tick())
        return "\n".join(parts)

    # --- how a value is spelled ------------------------------------------------------------------

    def spell(self, node: Operand, local: dict[int, str], t: str) -> str:
        """Spell an operand: a number, a local variable, a host value, a value per tensor, row or column."""
        if not isinstance(node, Expr):
            return number(node, t)
        if id(node) in local:
            return local[id(node)]
        if id(node) in self.at.host:
            return f"h{self.at.host[id(node)]}"
        if id(node) in self.at.scalars:
            return f"s{self.at.scalars[id(node)]}"
        raise AssertionError(f"{node} has no place")

    def operation(self, node: Expr, local: dict[int, str], t: str) -> str:
        spelled = [self.spell(arg, local, t) for arg in node.args]
        return TEMPLATE[node.op].format(*spelled, t=t, seed=node.attrs.get("seed"))

    def address(self, name: str) -> str:
        return f"t[{self.at.arrays.index(name)}]"

    # --- a stage ---------------------------------------------------------------------------------

    def stage(self, stage: Stage) -> str:
        scalars = [r for r in stage.reductions if r.dims == SCALAR]
        rows = [r for r in stage.reductions if r.dims == ("m", "1")]
        columns = [r for r in stage.reductions if r.dims == ("1", "n")]
        used = self._used(stage)
        lines = [
            f"static void range{stage.index}(const args_t *A, int64_t begin, int64_t end) {{",
            UNPACK,
            "for (int64_t c = begin; c < end; c++) {",
            "  const int64_t tensor = C[4 * c], first = C[4 * c + 1], count = C[4 * c + 2];",
            f"  const int64_t *t = T + tensor * {self.at.width};",
            *self._ahead(stage),
        ]
        local: dict[int, str] = {}
        lines += self._uniform(used, local)
        lines += [f"  {line}" for line in self._opened("a", scalars)]
        if self.flat:
            lines += self._run(stage, used, local, scalars)
        else:
            lines += self._strips(stage, used, local, scalars, rows, columns)
        lines += [f"  P[c * {len(scalars)} + {k}] = {self._closed('a', k, r)};" for k, r in enumerate(scalars)]
        lines += ["}", "}"]
        lines += [
            f"void stage{stage.index}(const int64_t *T, const double *H, int64_t hs, double *S, double *V, "
            "const int64_t *C, int64_t chunks, double *P, double *Q, int threads) {",
            "const args_t args = {T, H, hs, S, V, C, chunks, P, Q, 0};",
            f"sl_run(range{stage.index}, &args, chunks, threads);",
            *self._combine(stage, scalars, columns),
            "}",
        ]
        return "\n".join(lines)

    def _run(self, stage: Stage, used: list[Expr], local: dict[int, str], scalars: list[Expr]) -> list[str]:
        """Go over a chunk's elements; block by block where sums are kept."""
        lines = [f"  {line}" for line in self._arrays(stage, "first")]
        sums = [f"a{k}" for k, r in enumerate(scalars) if r.op == "total"]
        body = self._body(stage, used, local)
        if not sums:
            return [*lines, self._simd("a", scalars), "  for (int64_t j = 0; j < count; j++) {", *body, "  }"]
        return [
            *lines,
            *self._blocks("count", BLOCK),
            *(f"  float f{name} = 0.0f;" for name in sums),
            self._simd("a", scalars),
            "  for (int64_t j = j0; j < end; j++) {",
            *body,
            "  }",
            *(f"  {name} += f{name};" for name in sums),
            "  }",
        ]

    def _strips(
        self,
        stage: Stage,
        used: list[Expr],
        local: dict[int, str],
        scalars: list[Expr],
        rows: list[Expr],
        columns: list[Expr],
    ) -> list[str]:
        """Go over a chunk's rows in strips so narrow that what their columns share or reduce to stays in the cache."""
        n = len(self.at.arrays)
        loaded = [self.at.arrays.index(name) for name in stage.loads if self.plan.holds_signs(name)]
        stored = [self.at.arrays.index(name) for name in stage.stores if self.plan.holds_signs(name)]
        shared = {id(node): self.at.vectors[id(node)][0] for node in used if id(node) in self.at.vectors}
        of_columns = [place for key, place in shared.items() if self.at.vectors[key][1].dims == ("1", "n")]
        of_rows = [place for place in shared.values() if place not in of_columns]
        local |= {key: f"c{place}[j - j0]" if place in of_columns else f"r{place}" for key, place in shared.items()}
        lines = [f"  const int64_t columns = t[{n + 1}];"]
        lines += [f"  double *q{k} = Q + C[4 * c + 3] + {k} * columns;" for k in range(len(columns))]
        lines += [f"  double *v{p} = V + t[{n + 3 + p}]; (void)v{p};" for p, _ in self.at.vectors.values()]
        lines += self._blocks("columns", STRIP)
        for p in of_columns:
            lines.append(f"  float c{p}[{STRIP}]; for (int64_t j = j0; j < end; j++) c{p}[j - j0] = (float)v{p}[j];")
        for k, r in enumerate(columns):
            both = f"m{k}[j - j0] = {start(r)}; q{k}[j] = {start(r)};"
            lines.append(f"  float m{k}[{STRIP}]; for (int64_t j = j0; j < end; j++) {{ {both} }}")
        lines += [
            "  for (int64_t i = first; i < first + count; i++) {",
            *(f"    const float r{p} = (float)v{p}[i];" for p in of_rows),
        ]
        for node in used:
            if node.op == "state" and node.dims == ("m", "1"):
                place = self.at.arrays.index(array_name(node))
                lines.append(f"    const float x{place} = ((const float *)t[{place}])[i];")
                local[id(node)] = f"x{place}"
        lines += [f"    {line}" for line in self._arrays(stage, "i * columns")]
        lines += [f"    {line}" for line in self._opened("b", rows)]
        lines += [f"    float fa{k} = 0.0f;" for k, r in enumerate(scalars) if r.op == "total"]
        lines += [f"    uint8_t u{p}[{STRIP}]; sl_unpack(p{p} + j0 / 8, u{p}, end - j0);" for p in loaded]
        lines += [f"    uint8_t z{p}[{STRIP}];" for p in stored]
        lines += [self._simd("a", scalars, "b", rows), "    for (int64_t j = j0; j < end; j++) {"]
        lines += [*self._body(stage, used, local), "    }"]
        lines += [f"    a{k} += fa{k};" for k, r in enumerate(scalars) if r.op == "total"]
        for k, r in enumerate(rows):
            whole, part = f"v{self.at.vectors[id(r)][0]}[i]", self._closed("b", k, r)
            joined = f"{whole} + {part}" if r.op == "total" else f"sl_max({whole}, {part})"
            lines.append(f"    {whole} = j0 ? {joined} : {part};")
        lines += [f"    sl_pack(z{p}, p{p} + j0 / 8, end - j0);" for p in stored]
        if columns:
            lines.append(f"    if ((i - first) % {ROWS} == {ROWS - 1} || i + 1 == first + count)")
            lines.append("    for (int64_t j = j0; j < end; j++) {")
            for k, r in enumerate(columns):
                total = f"q{k}[j] += m{k}[j - j0]; m{k}[j - j0] = 0.0f;"
                lines.append(f"    {total if r.op == 'total' else f'q{k}[j] = sl_max(m{k}[j - j0], q{k}[j]);'}")
            lines.append("    }")
        return [*lines, "  }", "  }"]

    @staticmethod
    def _blocks(length: str, size: int) -> list[str]:
        return [
            f"  for (int64_t j0 = 0; j0 < {length}; j0 += {size}) {{",
            f"  const int64_t end = {length} - j0 < {size} ? {length} : j0 + {size};",
        ]

    @staticmethod
    def _simd(*reduced: str | list[Expr]) -> str:
        """Say what a loop reduces, as letters with their reductions."""
        sums, maxima = [], []
        for letter, reductions in zip(reduced[::2], reduced[1::2], strict=True):
            for k, r in enumerate(reductions):
                assert isinstance(r, Expr)
                # a maximum itself forgets nan, so that it vectorises; a count beside it remembers
                sums.append(f"f{letter}{k}" if r.op == "total" else f"n{letter}{k}")
                maxima += [f"{letter}{k}"] if r.op != "total" else []
        pragma = "#pragma omp simd"
        pragma += f" reduction(+:{', '.join(sums)})" if sums else ""
        return pragma + (f" reduction(max:{', '.join(maxima)})" if maxima else "")

    def _ahead(self, stage: Stage) -> list[str]:
        """Fetch what a later chunk reads where chunks are single rows of a table, which lie anywhere in memory."""
        places = [self.at.arrays.index(name) for name in dict.fromkeys([*stage.loads, *stage.stores])]
        fetch = " ".join(f"__builtin_prefetch((const void *)a[{place}]);" for place in places)
        return [
            f"  if (count <= {_ROW} && c + {_AHEAD} < end) {{",
            f"    const int64_t *a = T + C[4 * (c + {_AHEAD})] * {self.at.width}; {fetch} }}",
        ]

    def _used(self, stage: Stage) -> list[Expr]:
        roots: list[Operand] = [*stage.values, *(r.args[0] for r in stage.reductions), *stage.stores.values()]
        direct = [arg for node in stage.values for arg in node.args] + roots
        return list(dict.fromkeys(node for node in direct if isinstance(node, Expr)))

    def _uniform(self, used: Iterable[Expr], local: dict[int, str]) -> list[str]:
        """Load once per chunk what all its elements share."""
        lines = ["  const double *h = H + tensor * hs;", f"  const double *s = S + tensor * {len(self.at.scalars)};"]
        for node in used:
            if id(node) in self.at.host:
                place = self.at.host[id(node)]
                lines.append(f"  const float h{place} = (float)h[{place}];")
            elif id(node) in self.at.scalars:
                place = self.at.scalars[id(node)]
                lines.append(f"  const float s{place} = (float)s[{place}];")
            elif node.op == "state" and node.dims == SCALAR:
                place = self.at.arrays.index(array_name(node))
                lines.append(f"  const float x{place} = ((const float *)t[{place}])[0];")
                local[id(node)] = f"x{place}"
        return [*lines, "  (void)h; (void)s;"]

    def _arrays(self, stage: Stage, offset: str) -> list[str]:
        ctype = _STORAGE[self.dtype][0]
        lines = []
        for name in dict.fromkeys([*stage.loads, *stage.stores]):
            kind = ctype if name in ("w", "g") else "float"
            const = "" if name in stage.stores else "const "
            place = self.at.arrays.index(name)
            if self.plan.holds_signs(name):
                start = f"({const}uint8_t *){self.address(name)} + i * ((columns + 7) / 8)"
                lines.append(f"{const}uint8_t *restrict p{place} = {start};")
                continue
            lines.append(f"{const}{kind} *restrict p{place} = ({const}{kind} *){self.address(name)} + {offset};")
        return lines

    @staticmethod
    def _opened(letter: str, reductions: list[Expr]) -> list[str]:
        """Declare what a strip of a row or a chunk reduces into."""
        lines = []
        for place, r in enumerate(reductions):
            if r.op == "total":
                lines.append(f"double {letter}{place} = 0.0;" if letter == "a" else f"float f{letter}{place} = 0.0f;")
            else:
                lines.append(f"float {letter}{place} = -INFINITY; int n{letter}{place} = 0;")
        return lines

    @staticmethod
    def _closed(letter: str, place: int, r: Expr) -> str:
        """Spell what was reduced; a maximum is nan if anything was."""
        if r.op == "total":
            return f"{'f' if letter == 'b' else ''}{letter}{place}"
        return f"(n{letter}{place} ? NAN : {letter}{place})"

    def _body(self, stage: Stage, used: Iterable[Expr], outer: dict[int, str]) -> list[str]:
        load, store = _STORAGE[self.dtype][1:]
        local = dict(outer)
        lines = []
        loaded: dict[str, str] = {}
        for name in stage.loads:
            place = self.at.arrays.index(name)
            loaded[name] = f"x{place}"
            if self.plan.holds_signs(name):
                lines.append(f"      const float x{place} = 2.0f * (float)u{place}[j - j0] - 1.0f;")
                continue
            element = f"p{place}[j]"
            lines.append(f"      const float x{place} = {load.format(element) if name in ('w', 'g') else element};")
        for node in walk([*stage.values, *(r.args[0] for r in stage.reductions), *stage.stores.values()]):
            if node.op in ("input", "state") and node.dims == ELEMENT and array_name(node) in loaded:
                local[id(node)] = loaded[array_name(node)]
            elif node.op == "input" and node.attrs["name"] == "position":
                local[id(node)] = "(uint64_t)(first + j)" if self.flat else "(uint64_t)(i * columns + j)"
        for key, name in stage.reread.items():
            local[key] = loaded[name]
        for node in used:
            if node.dims == ("1", "n") and node.op == "state":
                local[id(node)] = f"((const float *){self.address(array_name(node))})[j]"
        for place, node in enumerate(stage.values):
            boolean = node.op in ("lt", "le", "gt", "ge", "and")
            lines.append(f"      const {'int' if boolean else 'float'} e{place} = {self.operation(node, local, 'f')};")
            local[id(node)] = f"e{place}"
        counts = {"a": 0, "b": 0, "q": 0}
        for r in stage.reductions:
            letter = {SCALAR: "a", ("m", "1"): "b"}.get(r.dims, "q")
            target = f"{letter}{counts[letter]}"
            value = self.spell(r.args[0], local, "f")
            if letter == "q":
                target = f"m{counts[letter]}[j - j0]"
                lines.append(f"      {target} {f'+= {value}' if r.op == 'total' else f'= sl_maxf({value}, {target})'};")
            elif r.op == "total":
                lines.append(f"      f{target} += {value};")
            else:
                lines.append(
                    f"      {target} = {value} > {target} ? {value} : {target}; n{target} += {value} != {value};"
                )
            counts[letter] += 1
        for name, stored in stage.stores.items():
            spelled = self.spell(stored, local, "f")
            place = self.at.arrays.index(name)
            if self.plan.holds_signs(name):
                lines.append(f"      z{place}[j - j0] = {spelled} > 0;")
                continue
            lines.append(f"      p{place}[j] = {store.format(spelled) if name in ('w', 'g') else spelled};")
        return lines

    def _combine(self, stage: Stage, scalars: list[Expr], columns: list[Expr]) -> list[str]:
        """Add up the partial results in the order of chunks; one after the other, so that the order is fixed."""
        if not scalars and not columns:
            return ["(void)P; (void)Q; (void)V;"]
        width, count = len(self.at.scalars), len(scalars)
        n = len(self.at.arrays)
        lines = [
            "int64_t previous = -1;",
            "for (int64_t c = 0; c < chunks; c++) {",
            "  const int64_t tensor = C[4 * c];",
        ]
        lines += [f"  const int64_t *t = T + tensor * {self.at.width};", "  const int fresh = tensor != previous;"]
        for k, r in enumerate(scalars):
            slot = f"S[tensor * {width} + {self.at.scalars[id(r)]}]"
            joined = f"{slot} + P[c * {count} + {k}]" if r.op == "total" else f"sl_max({slot}, P[c * {count} + {k}])"
            lines.append(f"  {slot} = fresh ? P[c * {count} + {k}] : {joined};")
        for k, r in enumerate(columns):
            place = self.at.vectors[id(r)][0]
            lines += [
                f"  {{ double *v = V + t[{n + 3 + place}]; const int64_t columns = t[{n + 1}];",
                f"    const double *q = Q + C[4 * c + 3] + {k} * columns;",
                f"    for (int64_t j = 0; j < columns; j++) v[j] = fresh ? q[j] : "
                f"{'v[j] + q[j]' if r.op == 'total' else 'sl_max(v[j], q[j])'}; }}",
            ]
        return [*lines, "  previous = tensor; (void)t;", "}", "(void)Q; (void)P; (void)V;"]

    def tick(self) -> str:
        """Count a step, or none, for every tensor; read the counts, and say whether all are equal."""
        return f"""int tick(const int64_t *T, int64_t tensors, double *out, int by) {{
  int equal = 1;
  for (int64_t k = 0; k < tensors; k++) {{
    float *step = (float *)T[k * {self.at.width} + {self.at.width - 1}];
    out[k] = (*step += (float)by);
    equal &= out[k] == out[0];
  }}
  return equal;
}}"""


def emit(plan: Plan, dtype: str) -> str:
    """Return C for a plan whose parameters have this dtype: "float32", "bfloat16" or "float16"."""
    return _Emitter(plan, dtype).source()


def supports(plan: Plan) -> str | None:
    """Return why a plan cannot be emitted, None if it can."""
    nodes = [*plan.all_small(), *(value for stage in plan.stages for value in stage.values)]
    for node in nodes:
        if node.op not in TEMPLATE and node.op not in ("total", "largest", "blockwise"):
            return f"the operation {node.op}"
    return None
