"""Schedules as people type them, ``warmup 500, cosine 9500``, and in TOML. What is written reads back equal.

    schedule = product, then product, ...
    product  = one * one * ...
    one      = 0.5 | name number ... key=value ... | (schedule) | cut N (schedule) | repeat N (schedule)

A comma is `Schedule.then`. Numbers after a name are its fields in order. With the number of all steps known, lengths
may be percentages and the last one may be left out: ``warmup 5%, cosine``.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from slalom.errors import UsageError, unknown
from slalom.schedules.base import Cut, Factor, Product, Repeat, Schedule, Then, fields_of, named
from slalom.schedules.scheduler import Values

# Fields that are counted in steps, for which a percentage makes sense.
_STEPS = frozenset({"steps", "warmup", "cooldown", "every", "up", "down", "timescale", "first", "milestones"})
_TOKEN = re.compile(r"\s*(?:([(),*])|([^\s(),*]+))")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def parse(text: str, steps: float | None = None) -> Schedule:
    """Read a schedule.

    Args:
        text: such as "warmup 500, cosine 9500" or "0.5 * wsd 10000 cooldown=2000 shape=1-sqrt".
        steps: the length of the whole run: what percentages are of, and what fills a last length that is left out.

    Raises:
        UsageError: for anything that is not exactly understood; the sentence says where.
    """
    reader = _Reader(text, steps)
    schedule = reader.sequence()
    if reader.peek() is not None:
        raise reader.wrong(f'"{reader.peek()}" was not expected')
    return schedule


class _Reader:
    def __init__(self, text: str, steps: float | None) -> None:
        self.text, self.total = text, steps
        self.words = [match[1] or match[2] for match in _TOKEN.finditer(text)]
        self.place = 0
        self.used = 0.0  # steps before the phase that is being read

    def wrong(self, what: str) -> UsageError:
        return UsageError(f'schedule "{self.text}": {what}.')

    def peek(self) -> str | None:
        return self.words[self.place] if self.place < len(self.words) else None

    def take(self, expected: str | None = None) -> str:
        word = self.peek()
        if word is None or (expected is not None and word != expected):
            raise self.wrong(
                f"{expected or 'a name'} was expected {'at the end' if word is None else f'before {word}'}"
            )
        self.place += 1
        return word

    def sequence(self) -> Schedule:
        before = self.used
        phases = [self.product()]
        while self.peek() == ",":
            self.take()
            self.used += phases[-1].length
            phases.append(self.product())
        self.used = before
        return phases[0] if len(phases) == 1 else Then(tuple(phases))

    def product(self) -> Schedule:
        factors = [self.one()]
        while self.peek() == "*":
            self.take()
            factors.append(self.one())
        if len(factors) > 1:
            return Product(tuple(factors))
        if isinstance(factors[0], Factor):
            number = f"{factors[0].factor:g}"
            raise self.wrong(f'{number} is a number, not a schedule; multiply one, as in "{number} * cosine 1000"')
        return factors[0]

    def one(self) -> Schedule:
        word = self.take()
        if word == "(":
            return self._closed()
        if _NUMBER.fullmatch(word):
            return Factor(float(word))
        if word in ("cut", "repeat"):
            return self._wrapper(word)
        known = {name: cls for name, cls in named().items() if name not in ("cut", "repeat")}
        if word not in known:
            hint = "" if not word[0].isdigit() else f'a schedule begins with its name, as in "cosine {word}"'
            raise (
                self.wrong(hint) if hint else UsageError(f'schedule "{self.text}": {unknown("schedule", word, known)}')
            )
        return self._named(known[word])

    def _closed(self) -> Schedule:
        inner = self.sequence()
        self.take(")")
        return inner

    def _wrapper(self, word: str) -> Schedule:
        count = None if self.peek() == "(" else self._value("steps" if word == "cut" else "times", self.take())
        self.take("(")
        inner = self._closed()
        if word == "repeat":
            return Repeat(inner, count)
        if count is None:
            raise self.wrong('cut needs a number of steps, as in "cut 100 (constant)"')
        return Cut(inner, count)

    def _named(self, cls: type[Schedule]) -> Schedule:
        fields = {field.name: field for field in fields_of(cls)}
        order = list(fields)
        given: dict[str, Any] = {}
        listed: list[float] = []
        while (word := self.peek()) is not None and word not in "(),*":
            self.take()
            key, equals, value = word.partition("=")
            if equals:
                name = key.replace("-", "_")
                if name not in fields:
                    raise UsageError(f'schedule "{self.text}": {unknown("argument", key, order, owner=cls.text_name)}')
                if name in given:
                    raise self.wrong(f"{cls.text_name} is given {name} twice")
                given[name] = self._value(name, value)
            elif order and order[0] == "milestones":
                listed.append(self._value("milestones", word))
            elif any(name not in given for name in order):
                name = next(name for name in order if name not in given)
                given[name] = self._value(name, word)
            else:
                raise self.wrong(f"{cls.text_name} takes {len(order)} numbers at most, {word} is too many")
        if listed:
            given["milestones"] = tuple(listed)
        missing = [name for name, field in fields.items() if _is_required(field) and name not in given]
        if missing == ["steps"] and self.total is not None and self.peek() != ",":
            given["steps"] = _whole(self.total - self.used)
            missing = []
        if missing:
            raise self.wrong(f'{cls.text_name} needs {" and ".join(missing)}, as in "{_example(cls)}"')
        try:
            return cls(**given)
        except UsageError as error:
            raise UsageError(f'schedule "{self.text}": {cls.text_name}: {error}') from None

    def _value(self, name: str, word: str) -> Any:
        if word.endswith("%") and _NUMBER.fullmatch(word[:-1]):
            if name not in _STEPS:
                raise self.wrong(f"{name} is not counted in steps and cannot be {word}")
            if self.total is None:
                raise self.wrong(f"{word} of how many steps? Say the length of the run, or give numbers of steps")
            return _whole(float(word[:-1]) / 100 * self.total)
        if _NUMBER.fullmatch(word):
            return _whole(float(word))
        if word in ("true", "false"):
            return word == "true"
        if re.fullmatch(r"[a-z0-9-]+", word) and name not in _STEPS:
            return word
        raise self.wrong(f'{name} cannot be "{word}"')


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _is_required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _example(cls: type[Schedule]) -> str:
    numbers = {"steps": "1000", "cooldown": "200", "warmup": "100", "gamma": "0.999", "milestones": "300 600"}
    required = [numbers.get(field.name, "100") for field in fields_of(cls) if _is_required(field)]
    return " ".join([cls.text_name, *required])


def written(schedule: Schedule) -> str:
    """Write a schedule as text that `parse` reads."""
    if isinstance(schedule, Then):
        return ", ".join(_inner(phase, Then) for phase in schedule.phases)
    if isinstance(schedule, Product):
        return " * ".join(_inner(factor, Then, Product) for factor in schedule.factors)
    if isinstance(schedule, Factor):
        return _number(schedule.factor)
    if isinstance(schedule, Cut):
        return f"cut {_number(schedule.steps)} ({schedule.schedule})"
    if isinstance(schedule, Repeat):
        times = "" if schedule.times is None else f"{schedule.times} "
        return f"repeat {times}({schedule.schedule})"
    words = [schedule.text_name]
    for field in fields_of(schedule):
        value = getattr(schedule, field.name)
        if isinstance(value, tuple):
            words += [_number(one) for one in value]
        elif _is_required(field):
            words.append(_number(value))
        elif value != field.default:
            words.append(f"{field.name}={_number(value)}")
    return " ".join(words)


def _inner(schedule: Schedule, *kinds: type[Schedule]) -> str:
    return f"({schedule})" if isinstance(schedule, kinds) else str(schedule)


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return str(_whole(value)) if abs(value) < 1e15 else repr(value)


def from_toml(text: str, steps: float | None = None) -> dict[str, Schedule | Values]:
    """Read schedules by hyper-parameter from TOML, from a table ``[schedule]`` if there is one.

        lr = "warmup 500, cosine 9500"
        weight_decay = "linear 10000"
        "betas.0" = { values = "linear 300 start=0.85 end=0.95" }

    Args:
        text: the TOML.
        steps: the length of the whole run, for percentages.

    Raises:
        UsageError: if it is no TOML, or an entry is neither text nor ``{ values = text }``.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not a schedule: the text is no valid TOML ({error}).") from None
    found = from_entries(table.get("schedule", table), steps)
    if not found:
        raise UsageError('there is no schedule in the text: give one by name, as lr = "cosine 1000".')
    return found


def from_entries(table: Mapping[str, Any], steps: float | None = None) -> dict[str, Schedule | Values]:
    """Read schedules by hyper-parameter from what a TOML table holds.

    Raises:
        UsageError: if an entry is neither text nor ``{ values = text }``, or its text is not understood.
    """
    found: dict[str, Schedule | Values] = {}
    for name, entry in table.items():
        if isinstance(entry, str):
            found[name] = parse(entry, steps)
        elif isinstance(entry, Mapping) and list(entry) == ["values"] and isinstance(entry["values"], str):
            found[name] = Values(parse(entry["values"], steps))
        else:
            raise UsageError(f'schedule of "{name}": give text, as "cosine 1000", or {{ values = "linear 300 ..." }}.')
    return found


def to_toml(schedules: Mapping[str, Schedule | Values]) -> str:
    """Write schedules by hyper-parameter as TOML."""
    rows = []
    for name, entry in schedules.items():
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
        rows.append(f'{key} = {{ values = "{entry.schedule}" }}' if isinstance(entry, Values) else f'{key} = "{entry}"')
    return "\n".join(rows) + "\n"


__all__ = ["from_entries", "from_toml", "parse", "to_toml", "written"]
