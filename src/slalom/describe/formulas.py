"""A recipe's formula as lines that a person reads from top to bottom: every letter means what it was last set to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from slalom.algebra import Expr, Number, State, Value, latex, leaf, text
from slalom.algebra.expr import ELEMENT, SCALAR
from slalom.engine.program import Leaves, leaves, walk
from slalom.parts import Memory, Signals
from slalom.recipes import Recipe

# Signals that get a letter once they are more than one: what the next slot reads is the letter.
_LETTERS: Final = {"grad": "g", "direction": "u", "energy": "e", "metric": "D", "rate": "rate"}
_TAKEN: Final = frozenset({*_LETTERS.values(), "w", "t"})  # a state of that name gets a prime


@dataclass(frozen=True)
class Line:
    """One formula of a slot, ``left <- right`` or ``left = right``, in Unicode and in LaTeX."""

    slot: str
    text: str
    latex: str


@dataclass(frozen=True)
class _Said:
    """A line before its place is known: which value of which letter it sets, and which it reads."""

    line: Line
    letter: str
    sets: int
    reads: Mapping[str, int]


class _Words:
    """A store that writes down what a formula does to its state, and answers every read with a letter.

    After a write the same letter is another value, so that what was read before is not taken for what is read after.
    """

    def __init__(self) -> None:
        self.symbols: dict[str, Expr] = {}
        self.writes: list[tuple[Expr, Value]] = []

    def read(self, key: str, slot: State) -> Value:
        return self.symbols.setdefault(key, self._letter(slot))

    def write(self, key: str, slot: State, value: Value) -> None:
        self.symbols[key] = self._letter(slot)
        self.writes.append((self.symbols[key], value))

    @staticmethod
    def _letter(slot: State) -> Expr:
        name = f"{slot.name}′" if slot.name in _TAKEN else slot.name
        return leaf("state", name, slot.dims, slot.scope)


def symbols(ndim: int, given: Leaves) -> Signals:
    """Return the signals as a recipe finds them, for a parameter of so many dimensions."""
    return Signals.start(**given._asdict(), ndim=ndim)


def formula_lines(recipe: Recipe, ndim: int) -> list[Line]:
    """Return the formula, slot by slot, for a parameter of so many dimensions."""
    return list(_Writer().lines(recipe, ndim))


class _Writer:
    """What has been said so far of a recipe."""

    def __init__(self) -> None:
        self.store = _Words()
        self.spoken: list[Value] = []  # keeps alive what is known by its id
        self.told: set[int] = set()  # letters that have been explained
        self.known: set[str] = set()  # what has been said of letters that depend on numbers alone, and means the same
        self.held: dict[int, Expr] = {}  # values that a state was set to, by that state's letter
        self.said: list[_Said] = []  # of the part at hand

    def lines(self, recipe: Recipe, ndim: int) -> Iterator[Line]:
        """Yield the lines, part by part."""
        x = recipe.begin(symbols(ndim, leaves()), self.store)
        sequence = list(recipe.sequence())
        waits = False  # whether the new parameter has a letter of its own yet, since an average still reads the old one
        for place, (slot, part) in enumerate(sequence):
            scaled_later = any(other == "scale" for other, _ in sequence[place + 1 :])
            y = part.apply(x, Memory(self.store, part))
            for symbol, value in self.store.writes:
                self._say(slot, symbol, "←", value)
            self.store.writes.clear()
            for signal, letter in _LETTERS.items():
                before, value = getattr(x, signal), getattr(y, signal)
                if value is before or _is_plain(value) or (signal != "grad" and value is y.grad):
                    continue
                if signal == "energy" and not scaled_later:
                    continue  # nobody reads it
                symbol = leaf("input", letter, SCALAR if signal == "rate" else ELEMENT)
                again = isinstance(before, Expr) and before.attrs.get("name") == letter
                self._say(slot, symbol, "←" if again else "=", value)
                y = y.with_gradient(symbol) if signal == "grad" else y.replace(**{signal: symbol})
            averaged = any(other == "average" for other, _ in sequence[place + 1 :])
            if y.result is not x.result:
                waits = averaged
                new = leaf("input", "w⁺", ELEMENT)
                self._say(slot, new if waits else leaf("input", "w", ELEMENT), "=" if waits else "←", y.result)
                y = y.replace(result=new)
            elif waits and not averaged:
                self._say(slot, leaf("input", "w", ELEMENT), "←", y.result)
            x = y
            yield from _in_reading_order(self.said)
            self.said = []

    def _say(self, slot: str, left: Expr, sign: str, right: Value) -> None:
        self.spoken += [left, right]
        for node in walk([right]):
            if node.op == "let" and id(node) not in self.told:
                self.told.add(id(node))
                again = f"{node.attrs['letter']} = {text(node.args[0])}"
                if not (node.host and again in self.known):
                    self._add(slot, leaf("input", node.attrs["letter"]), "=", node.args[0], id(node))
                if node.host:
                    self.known.add(again)
        self._add(slot, left, sign, right, id(left))
        if sign == "←" and isinstance(right, Expr) and right.args and right.op != "let":
            self.held[id(right)] = left

    def _add(self, slot: str, left: Expr, sign: str, right: Value | Number, sets: int) -> None:
        written = _by_letter(right, self.held)
        self.spoken.append(written)  # type: ignore[arg-type]
        line = Line(slot, f"{text(left)} {sign} {text(written)}", f"{latex(left)} {_ARROWS[sign]} {latex(written)}")
        self.said.append(_Said(line, text(left), sets, _read(written)))


_ARROWS: Final = {"←": r"\leftarrow", "=": "="}


def _read(formula: Expr | Number) -> dict[str, int]:
    """Return the values that a formula reads, by the letters that it is written with."""
    found: dict[str, int] = {}
    stack = [formula]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if not isinstance(node, Expr) or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op == "let":
            found[node.attrs["letter"]] = id(node)
        elif node.op in ("state", "input"):
            found[text(node)] = id(node)
        else:
            stack.extend(node.args)
    return found


def _in_reading_order(said: list[_Said]) -> Iterator[Line]:
    """Yield lines so that each finds the letters that it reads as it means them, else in the order they were said."""
    left = list(range(len(said)))
    while left:
        ready = (one for one in left if not any(_goes_first(said, other, one) for other in left if other != one))
        first = next(ready, left[0])
        left.remove(first)
        yield said[first].line


def _goes_first(said: list[_Said], one: int, other: int) -> bool:
    """Whether one line must stand before another: it sets what that reads, or reads what that will replace."""
    a, b = said[one], said[other]
    if a.letter == b.letter and one < other:
        return True
    if b.reads.get(a.letter) == a.sets:
        return True
    if b.letter not in a.reads or a.reads[b.letter] == b.sets:
        return False
    setting = [place for place, line in enumerate(said) if line.sets == a.reads[b.letter]]
    return not setting or setting[0] < other


def _by_letter(formula: Expr | Number, held: Mapping[int, Expr]) -> Expr | Number:
    """Write a state's letter for the value that it was just set to, where its letter means nothing else."""
    made: dict[int, Expr] = {}
    bare: set[str] = set()
    letters = {id(letter) for letter in held.values()}

    def rewritten(node: Expr | Number) -> Expr | Number:
        if not isinstance(node, Expr) or id(node) in made:
            return made.get(id(node), node)
        new = held.get(id(node), node)
        if new is node:
            if node.op == "state" and id(node) not in letters:
                bare.add(node.attrs["name"])
            if node.op != "let":  # which is written as a letter itself
                args = tuple(map(rewritten, node.args))
                if any(one is not other for one, other in zip(args, node.args, strict=True)):
                    new = Expr(node.op, args, attrs=node.attrs, dims=node.dims, scope=node.scope, host=node.host)
        made[id(node)] = new
        return new

    result = rewritten(formula)
    unclear = {value for value, letter in held.items() if value in made and letter.attrs["name"] in bare}
    return _by_letter(formula, {k: v for k, v in held.items() if k not in unclear}) if unclear else result


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Expr) or not value.args


__all__ = ["Line", "formula_lines", "symbols"]
