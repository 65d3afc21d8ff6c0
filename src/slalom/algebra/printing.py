"""Formulas as a person reads them: Unicode for the terminal, LaTeX for documents, from the same graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from slalom.algebra.expr import Expr, Hyper, Number

# How tightly an operator binds; what binds more loosely than its surroundings gets parentheses.
_LOOSE, _COMPARE, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(7)

_LETTERS: Final = {
    "lr": ("lr", r"\eta"),
    "weight_decay": ("λ", r"\lambda"),
    "momentum": ("μ", r"\mu"),
    "dampening": ("τ", r"\tau"),
    "eps": ("ε", r"\varepsilon"),
    "alpha": ("α", r"\alpha"),
    "betas": ("β", r"\beta"),
    "beta": ("β", r"\beta"),
    "eta": ("η", r"\eta"),
}
_GREEK: Final = {
    "ρ": r"\rho",
    "ρ∞": r"\rho_{\infty}",
    "μₜ": r"\mu_t",
    "μₜ₊₁": r"\mu_{t+1}",
    "u′": "u'",
    "g′": "g'",
    "e′": "e'",
    "m′": "m'",
    "P′": "P'",
    "m̂": r"\hat{m}",
    "m̃": r"\tilde{m}",
    "ℓ": r"\ell",
}
# What each side must be for an operation to do nothing to the other.
_NEUTRAL: Final[dict[str, tuple[float | None, float | None]]] = {
    "add": (0, 0),
    "sub": (None, 0),
    "mul": (1, 1),
    "div": (None, 1),
    "pow": (None, 1),
    "minimum": (math.inf, math.inf),
}
_SUBSCRIPTS: Final = "₀₁₂₃₄₅₆₇₈₉"
_SUPERSCRIPTS: Final = str.maketrans("0123456789-+.t", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺·ᵗ")


@dataclass(frozen=True)
class _Dialect:
    """How one language writes the few things in which languages differ."""

    latex: bool
    values: bool

    def hyper(self, node: Expr) -> str:
        name, index = node.attrs["name"], node.attrs["index"]
        if self.values and isinstance(node, Hyper) and not _is_rate(name):
            return _number(node.value)
        letter = _LETTERS.get(name.rsplit(".", 1)[-1])
        symbol = letter[self.latex] if letter else (rf"\mathrm{{{name}}}" if self.latex else name)
        if index is None:
            return symbol
        return f"{symbol}_{{{index + 1}}}" if self.latex else symbol + _SUBSCRIPTS[index + 1]

    def leaf(self, node: Expr) -> str:
        name = str(node.attrs["name"])
        if not self.latex:
            return name
        return name if len(name) == 1 else rf"\mathit{{{name}}}".replace("_", r"\_")

    def symbol(self, letter: str) -> str:
        return _GREEK.get(letter, letter) if self.latex else letter

    def call(self, name: str, *args: str) -> str:
        if self.latex:
            return rf"\operatorname{{{name}}}\left({', '.join(args)}\right)"
        return f"{name}({', '.join(args)})"

    def root(self, inner: str, atom: bool) -> str:
        if self.latex:
            return rf"\sqrt{{{inner}}}"
        return f"√{inner}" if atom else f"√({inner})"

    def word(self, plain: str) -> str:
        return rf"\;\text{{{plain}}}\;" if self.latex else plain

    def parens(self, inner: str) -> str:
        return rf"\left({inner}\right)" if self.latex else f"({inner})"

    def power(self, base: str, exponent: str) -> str:
        if self.latex:
            return f"{base}^{{{exponent}}}"
        if all(char in "0123456789-+t" for char in exponent):
            return base + exponent.translate(_SUPERSCRIPTS)
        return f"{base}^{exponent}" if exponent.isalnum() else f"{base}^({exponent})"

    def quotient(self, a: str, b: str) -> str:
        return rf"\frac{{{a}}}{{{b}}}" if self.latex else f"{a} / {b}"

    def bars(self, inner: str, norm: bool, per: str) -> str:
        left, right = (
            ((r"\lVert ", r" \rVert") if norm else ("|", "|")) if self.latex else (("‖", "‖") if norm else ("|", "|"))
        )
        return f"{left}{inner}{right}" + self.index(per)

    def index(self, per: str) -> str:
        if per == "tensor":
            return ""
        return rf"_{{\mathrm{{{per}}}}}" if self.latex else f"[{per}]"


def _is_rate(name: str) -> bool:
    """Return whether a hyper-parameter is a learning rate: those are scheduled, so they stay letters."""
    return name == "lr" or name.endswith("_lr")


def _number(value: Number) -> str:
    return f"{value:.10g}"


def _is_one_minus(node: Expr | Number) -> Expr | Number | None:
    return node.args[1] if isinstance(node, Expr) and node.op == "sub" and node.args[0] == 1 else None


class _Printer:
    def __init__(self, dialect: _Dialect) -> None:
        self.d = dialect
        self.plain: dict[int, tuple[Expr, Expr | Number]] = {}

    def at(self, node: Expr | Number, level: int) -> str:
        """Write a node in surroundings that bind at ``level``."""
        written, binds = self.write(node)
        return self.d.parens(written) if binds < level else written

    def write(self, node: Expr | Number) -> tuple[str, int]:
        node = self._plain(node)
        if not isinstance(node, Expr):
            return _number(node), _ATOM if node >= 0 else _SIGN
        if node.op == "let":
            return self.d.symbol(node.attrs["letter"]), _ATOM
        number = self._constant(node)
        if number is not None:
            return _number(number), _ATOM if number >= 0 else _SIGN
        if node.op == "hyper":
            return self.d.hyper(node), _ATOM
        if "name" in node.attrs:
            return self.d.leaf(node), _ATOM
        rule = _RULES.get(node.op)
        return rule(self, *node.args, **node.attrs) if rule else (self._call(node), _ATOM)

    def _plain(self, node: Expr | Number) -> Expr | Number:
        """Leave out what a hyper-parameter's value makes neutral: 0 m + 1 g reads g, and no bound is no bound."""
        if not (self.d.values and isinstance(node, Expr) and node.op in _NEUTRAL):
            return node
        if id(node) not in self.plain:
            kept = [self._plain(arg) for arg in node.args]
            values = [self._constant(arg) if isinstance(arg, Expr) else arg for arg in kept]
            found: Expr | Number = node
            for place, value in enumerate(values):
                if value in (0, math.inf) and node.op == "mul":  # an endless multiple of a length
                    found = value
                elif value == 0 and node.op == "pow" and place == 1:
                    found = 1
                elif value is not None and value == _NEUTRAL[node.op][place]:
                    found = kept[1 - place]
            self.plain[id(node)] = node, found  # the node too, so that nothing else gets its id
        return self.plain[id(node)][1]

    def _constant(self, node: Expr) -> float | None:
        """Fold what depends on hyper-parameters alone, when numbers are wanted: 1 - 0.9 reads 0.1."""
        if not (self.d.values and node.host):
            return None
        if isinstance(node, Hyper):
            return None if _is_rate(node.name) else node.value
        values = []
        for arg in node.args:
            value = self._constant(arg) if isinstance(arg, Expr) else arg
            if value is None:
                return None
            values.append(value)
        from slalom.algebra.ops import OPS

        compute = OPS[node.op].numbers if node.op in OPS else None
        return float(compute(*values)) if compute and node.args else None

    def _call(self, node: Expr) -> str:
        return self.d.call(node.op, *(self.at(arg, _LOOSE) for arg in node.args))

    def add(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        right = self.at(b, _SUM)
        if right.startswith("-"):  # a negative number and what it multiplies
            return f"{self.at(a, _SUM)} {self._minus()} {right[1:]}", _SUM
        return f"{self.at(a, _SUM)} + {right}", _SUM

    def sub(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        return f"{self.at(a, _SUM)} {self._minus()} {self.at(b, _PRODUCT)}", _SUM

    def _minus(self) -> str:
        return "-" if self.d.latex else "−"

    def mul(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        if a is b:
            return self.d.power(self.at(a, _ATOM), "2"), _POWER
        if self._is_number(b) and not self._is_number(a):  # numbers first, as one writes them
            a, b = b, a
        space = r"\, " if self.d.latex else " "
        left = self.at(a, _PRODUCT)
        if not self.d.latex and self._ends_in_quotient(a):  # what follows would read as part of the divisor
            left = self.d.parens(left)
        return f"{left}{space}{self.at(b, _PRODUCT)}", _PRODUCT

    def _is_number(self, node: Expr | Number) -> bool:
        return not isinstance(node, Expr) or self._constant(node) is not None

    def _ends_in_quotient(self, node: Expr | Number) -> bool:
        node = self._plain(node)
        if not isinstance(node, Expr) or self._constant(node) is not None or "name" in node.attrs:
            return False
        return node.op == "div" or (node.op == "mul" and node.args[0] is not node.args[1] and self._last(node))

    def _last(self, product: Expr) -> bool:
        a, b = product.args
        return self._ends_in_quotient(a if self._is_number(b) and not self._is_number(a) else b)

    def div(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        if self.d.latex:
            return self.d.quotient(self.at(a, _LOOSE), self.at(b, _LOOSE)), _ATOM
        return self.d.quotient(self.at(a, _PRODUCT), self.at(b, _SIGN)), _PRODUCT

    def neg(self, a: Expr | Number) -> tuple[str, int]:
        return f"-{self.at(a, _PRODUCT)}" if self.d.latex else f"−{self.at(a, _PRODUCT)}", _SIGN

    def pow(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        return self.d.power(self.at(a, _ATOM), self.at(b, _LOOSE)), _POWER

    def sqrt(self, a: Expr | Number) -> tuple[str, int]:
        if isinstance(a, Expr) and a.op == "total":
            squares = a.args[0]
            if isinstance(squares, Expr) and squares.op == "mul" and squares.args[0] is squares.args[1]:
                return self.norm(squares.args[0], a.attrs["per"])
        written, binds = self.write(a)
        return self.d.root(written, binds == _ATOM), _ATOM

    def abs(self, a: Expr | Number) -> tuple[str, int]:
        return self.d.bars(self.at(a, _LOOSE), norm=False, per="tensor"), _ATOM

    def norm(self, a: Expr | Number, per: str) -> tuple[str, int]:
        return self.d.bars(self.at(a, _LOOSE), norm=True, per=per), _ATOM

    def reduction(self, name: str) -> Callable[..., tuple[str, int]]:
        def write(a: Expr | Number, per: str, **_: object) -> tuple[str, int]:
            return self.d.call(name, self.at(a, _LOOSE)) + self.d.index(per), _ATOM

        return write

    def lerp(self, a: Expr | Number, b: Expr | Number, weight: Expr | Number) -> tuple[str, int]:
        from slalom.algebra.ops import apply

        rest = _is_one_minus(weight)
        if rest is None:
            rest = apply("sub", 1, weight)
        return self.write(apply("add", apply("mul", rest, a), apply("mul", weight, b)))

    def where(self, condition: Expr | Number, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        otherwise = r"\;\text{else}\;" if self.d.latex else " else "
        when = r"\;\text{if}\;" if self.d.latex else " if "
        return f"{self.at(a, _SUM)}{when}{self.at(condition, _COMPARE)}{otherwise}{self.at(b, _SUM)}", _LOOSE

    def compare(self, plain: str, latex: str) -> Callable[..., tuple[str, int]]:
        def write(a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
            sign = latex if self.d.latex else plain
            return f"{self.at(a, _SUM)} {sign} {self.at(b, _SUM)}", _COMPARE

        return write

    def minimum(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        for bound, other in ((a, b), (b, a)):
            factors = bound.args if isinstance(bound, Expr) and bound.op == "mul" else (bound,)
            if math.inf in [self._constant(one) if isinstance(one, Expr) else one for one in factors]:
                return self.write(other)  # what is infinite bounds nothing
        return self.d.call("min", self.at(a, _LOOSE), self.at(b, _LOOSE)), _ATOM

    def mod(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        sign = r"\bmod" if self.d.latex else "mod"
        return f"{self.at(a, _PRODUCT)} {sign} {self.at(b, _POWER)}", _SUM

    def transpose(self, a: Expr | Number) -> tuple[str, int]:
        return (f"{self.at(a, _ATOM)}^{{\\top}}" if self.d.latex else f"{self.at(a, _ATOM)}ᵀ"), _POWER

    def matmul(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        # A quotient or an element-wise product inside a chain of matrices would read as part of the chain.
        sides = [
            self.d.parens(self.at(side, _LOOSE))
            if isinstance(side, Expr) and side.op in ("mul", "div")
            else self.at(side, _PRODUCT)
            for side in (a, b)
        ]
        return " ".join(sides), _PRODUCT

    def gram(self, a: Expr | Number) -> tuple[str, int]:
        from slalom.algebra.ops import apply

        turned = isinstance(a, Expr) and a.op == "transpose"
        other = a.args[0] if isinstance(a, Expr) and turned else apply("transpose", a)
        return self.matmul(a, other)

    def inverse_root(self, a: Expr | Number, eps: Expr | Number, root: int, relative: bool) -> tuple[str, int]:
        ridge = self.at(eps, _PRODUCT) + (r"\,\overline{\lambda}" if self.d.latex else " λ̄") * relative
        identity = r"\, I" if self.d.latex else " I"
        return self.d.power(self.d.parens(f"{self.at(a, _SUM)} + {ridge}{identity}"), f"-1/{root}"), _POWER

    def below(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        if b == math.inf and isinstance(a, Expr) and a.op == "total":  # of absolute values
            (size,) = a.args
            assert isinstance(size, Expr)
            return f"{self.at(size.args[0], _ATOM)} {self.d.word('finite')}", _COMPARE
        return self.compare("<", "<")(a, b)

    def at_most(self, a: Expr | Number, b: Expr | Number) -> tuple[str, int]:
        if b == 0 and isinstance(a, Expr) and a.op == "mod":  # no remainder
            number, divisor = a.args
            return f"{self.at(divisor, _ATOM)} {self.d.word('divides')} {self.at(number, _SUM)}", _COMPARE
        return self.compare("≤", r"\le")(a, b)

    def polar(self, a: Expr | Number, steps: int, **_: object) -> tuple[str, int]:
        return self.d.call("polar", self.at(a, _LOOSE)), _ATOM


def _right_vectors(rank: int) -> str:
    """Name so many singular vectors; nobody writes down a number that stands for all."""
    return "right singular vectors" if rank >= 1 << 30 else f"first {rank} right vectors"


_RULES: Final[dict[str, Callable[..., tuple[str, int]]]] = {
    **{name: getattr(_Printer, name) for name in ("add", "sub", "mul", "div", "neg", "pow", "sqrt", "abs", "norm")},
    **{name: getattr(_Printer, name) for name in ("lerp", "where", "mod", "transpose", "matmul", "polar")},
    "total": lambda p, *args, **attrs: p.reduction("sum")(*args, **attrs),
    "mean": lambda p, *args, **attrs: p.reduction("mean")(*args, **attrs),
    "largest": lambda p, *args, **attrs: p.reduction("max")(*args, **attrs),
    "maximum": lambda p, a, b: (p.d.call("max", p.at(a, _LOOSE), p.at(b, _LOOSE)), _ATOM),
    "minimum": lambda p, a, b: p.minimum(a, b),
    "exact_polar": lambda p, a: (p.d.call("polar", p.at(a, _LOOSE)), _ATOM),
    "leading": lambda p, a: (p.d.call("leading", p.at(a, _LOOSE)), _ATOM),
    "orthonormal": lambda p, a: (p.d.call("qr", p.at(a, _LOOSE)), _ATOM),
    "inverse_root": lambda p, a, eps, root, relative, **_: p.inverse_root(a, eps, root, relative),
    "gram": lambda p, a: p.gram(a),
    "blocks": lambda p, a, size: p.write(a),  # the formula is that of one block
    "in_double": lambda p, a: p.write(a),  # precision is no matter of the formula
    "as_precise_as": lambda p, a, like: p.write(a),
    "unblocks": lambda p, a, like: p.write(a),
    "fold": lambda p, a: (p.d.call("square", p.at(a, _LOOSE)), _ATOM),
    "unfold": lambda p, a, like: p.write(a),  # what follows sees elements again, whatever their shape
    "uniform": lambda p, index, stream, t, seed: (p.d.call("uniform", p.write(stream)[0], p.write(t)[0]), _ATOM),
    "quantile": lambda p, a: (p.d.call(r"\Phi^{-1}" if p.d.latex else "Φ⁻¹", p.at(a, _LOOSE)), _ATOM),
    "blockwise": lambda p, a, blocks: (p.d.call(f"mean of {blocks} blocks", p.at(a, _LOOSE)), _ATOM),
    "turned": lambda p, a, *_: p.write(a),  # which side is the longer one is no matter of the formula
    "strongest": lambda p, a, part: (p.d.call("top", p.at(part, _LOOSE), p.at(a, _LOOSE)), _ATOM),
    "pick": lambda p, a, which: (f"{p.at(a, _ATOM)}[{p.at(which, _LOOSE)}]", _ATOM),
    "placed": lambda p, a, which, _: (p.d.call("at", p.at(which, _LOOSE), p.at(a, _LOOSE)), _ATOM),
    "right_vectors": lambda p, a, rank: (p.d.call(_right_vectors(rank), p.at(a, _LOOSE)), _ATOM),
    "gaussian": lambda p, a, epoch, seed, rank: (p.d.call("N", p.at(0, _LOOSE), f"1 / {rank}"), _ATOM),
    "eigenvectors": lambda p, a: (p.d.call("eig", p.at(a, _LOOSE)), _ATOM),
    "refresh": lambda p, a, b: (p.d.call("qr", p.matmul(a, b)[0]), _ATOM),
    "positive": lambda p, a: (f"[{p.at(a, _SUM)} > 0]", _ATOM),
    "lt": lambda p, a, b: p.below(a, b),
    "le": lambda p, a, b: p.at_most(a, b),
    "gt": lambda p, a, b: p.compare(">", ">")(a, b),
    "ge": lambda p, a, b: p.compare("≥", r"\ge")(a, b),
    "and": lambda p, a, b: p.compare("and", r"\wedge")(a, b),
}


def text(node: Expr | Number, *, values: bool = True) -> str:
    """Write a formula in Unicode.

    Args:
        node: the formula.
        values: write hyper-parameters as the numbers they have now (the learning rate stays ``lr``), not as letters.
    """
    return _Printer(_Dialect(latex=False, values=values)).at(node, _LOOSE)


def latex(node: Expr | Number, *, values: bool = False) -> str:
    """Write a formula in LaTeX (math mode, without delimiters). Arguments as for `text`."""
    return _Printer(_Dialect(latex=True, values=values)).at(node, _LOOSE)
