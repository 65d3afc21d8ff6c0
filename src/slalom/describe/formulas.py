"""What a recipe does in one step, written slot by slot: its parts are run on symbols, and what they do is put down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slalom.algebra import Expr, Number, State, Value, latex, leaf, text
from slalom.algebra.expr import ELEMENT, SCALAR
from slalom.engine.program import Leaves, leaves, walk
from slalom.parts import Memory, Signals
from slalom.recipes import Recipe

# Signals that get a letter once they are more than one: what the next slot reads is the letter.
_LETTERS = {"grad": "g", "direction": "u", "energy": "e", "metric": "D", "rate": "rate"}

_TAKEN = frozenset({*_LETTERS.values(), "w", "t"})  # a state of that name gets a prime


@dataclass(frozen=True)
class Line:
    """One formula of a slot, ``left <- right`` or ``left = right``, in Unicode and in LaTeX."""

    slot: str
    text: str
    latex: str


class _Words:
    """A store that writes down what a formula does to its state, and answers every read with a letter."""

    def __init__(self) -> None:
        self.symbols: dict[str, Expr] = {}
        self.writes: list[tuple[Expr, Value]] = []

    def read(self, key: str, slot: State) -> Value:
        name = f"{slot.name}′" if slot.name in _TAKEN else slot.name
        return self.symbols.setdefault(key, leaf("state", name, slot.dims, slot.scope))

    def write(self, key: str, slot: State, value: Value) -> None:
        symbol = self.read(key, slot)
        self.writes.append((symbol, value))


def symbols(ndim: int, given: Leaves) -> Signals:
    """Return the signals that a recipe begins with, as symbols, for a parameter of so many dimensions."""
    return Signals.start(**given._asdict(), ndim=ndim)


def formula_lines(recipe: Recipe, ndim: int) -> list[Line]:
    """Return what a recipe does to a parameter of so many dimensions, in the order of its parts."""
    store, lines = _Words(), []
    spoken: list[Value] = []  # keeps alive what is known by its id
    told: set[int] = set()  # letters that have been explained
    held: dict[int, Expr] = {}  # values that a state was set to, by that state's letter

    def say(slot: str, left: Expr, sign: str, right: Value) -> None:
        spoken.append(right)
        for node in walk([right]):
            if node.op == "let" and id(node) not in told:
                told.add(id(node))
                lines.append(_line(slot, leaf("input", node.attrs["letter"]), "=", _by_letter(node.args[0], held)))
        lines.append(_line(slot, left, sign, _by_letter(right, held)))
        if sign == "←" and isinstance(right, Expr) and right.args and right.op != "let":
            held[id(right)] = left

    x = recipe.begin(symbols(ndim, leaves()), store)
    sequence = list(recipe.sequence())
    for place, (slot, part) in enumerate(sequence):
        scaled_later = any(other == "scale" for other, _ in sequence[place + 1 :])
        y = part.apply(x, Memory(store, part))
        for symbol, value in store.writes:
            say(slot, symbol, "←", value)
        store.writes.clear()
        for signal, letter in _LETTERS.items():
            before, value = getattr(x, signal), getattr(y, signal)
            if value is before or _is_plain(value) or (signal != "grad" and value is y.grad):
                continue
            if signal == "energy" and not scaled_later:
                continue  # nobody reads it
            symbol = leaf("input", letter, SCALAR if signal == "rate" else ELEMENT)
            again = isinstance(before, Expr) and before.attrs.get("name") == letter
            say(slot, symbol, "←" if again else "=", value)
            y = y.with_gradient(symbol) if signal == "grad" else y.replace(**{signal: symbol})
        if y.result is not x.result:
            say(slot, leaf("input", "w", ELEMENT), "←", y.result)
            y = y.replace(result=leaf("input", "w⁺", ELEMENT))
        x = y
    return lines


def _by_letter(formula: Expr | Number, held: Mapping[int, Expr]) -> Expr | Number:
    """Write a state's letter for the value that it was just set to, where its letter means nothing else."""
    made: dict[int, Expr] = {}
    bare: set[int] = set()

    def rewritten(node: Expr | Number) -> Expr | Number:
        if not isinstance(node, Expr) or id(node) in made:
            return made.get(id(node), node)
        new = held.get(id(node), node)
        if new is node:
            bare.add(id(node))
            if node.op != "let":  # which is written as a letter itself
                args = tuple(map(rewritten, node.args))
                if any(one is not other for one, other in zip(args, node.args, strict=True)):
                    new = Expr(node.op, args, attrs=node.attrs, dims=node.dims, scope=node.scope, host=node.host)
        made[id(node)] = new
        return new

    result = rewritten(formula)
    unclear = {value for value, letter in held.items() if value in made and id(letter) in bare}
    return _by_letter(formula, {k: v for k, v in held.items() if k not in unclear}) if unclear else result


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Expr) or not value.args


def _line(slot: str, left: Expr, sign: str, right: Expr | Number) -> Line:
    arrow = r"\leftarrow" if sign == "←" else "="
    return Line(slot, f"{text(left)} {sign} {text(right)}", f"{latex(left)} {arrow} {latex(right)}")
