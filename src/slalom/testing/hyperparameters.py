"""Contracts on numbers: each one does something, is live, and means in a group what it means as an argument.

What a number does may show nowhere in a plain run: an epsilon beside large gradients, a clip that nothing reaches, an
average that nobody reads. So each is looked for in several short runs, with several values, and with the other numbers
at values that were seen to matter. What shows nowhere is reported.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from slalom.testing.conformance import Factory, contract
from slalom.testing.driving import _go

# They choose an implementation, or have a contract of their own.
_NO_NUMBERS: Final = frozenset({"maximize", "foreach", "fused", "capturable", "differentiable"})
# Numbers that switch off what others belong to, and what switches it on.
_ON: Final[Mapping[str, float]] = {"weight_decay": 0.1, "momentum": 0.9, "beta1": 0.9, "lr": 1.0}


@dataclass(frozen=True)
class Probe:
    """A run in which a number may show.

    Attributes:
        gradients: how large they are.
        parameters: how large they begin.
        across: whether gradients are at right angles to the rows of their parameters, as behind a normalisation.
        steps: how many are taken.
        dtype: of the parameters.
    """

    gradients: float = 1.0
    parameters: float = 1.0
    across: bool = False
    steps: int = 12
    dtype: torch.dtype = torch.float32


_PLAIN: Final = Probe()
_PROBES: Final = (
    _PLAIN,
    Probe(gradients=1e-8),
    Probe(gradients=1e3),
    Probe(parameters=1e-6),
    Probe(across=True),
    Probe(dtype=torch.float64),
    Probe(dtype=torch.bfloat16),
    Probe(steps=40),
)
_SHAPES: Final = ((4, 3), (5,), (2, 3, 2, 2))
_SPIKE: Final = 7  # the step whose gradients are far larger, which clips and maxima answer to


@dataclass(frozen=True)
class Number:
    """A hyper-parameter that is a number or a switch, or one place of a tuple."""

    name: str
    place: int | None
    whole: Any

    def __str__(self) -> str:
        return self.name if self.place is None else f"{self.name}[{self.place}]"

    @property
    def value(self) -> Any:
        """Its default."""
        return self.whole if self.place is None else self.whole[self.place]

    def others(self) -> Iterator[Any]:
        """Return values that it might have instead, as the argument takes them; some may be out of range."""
        value = self.value
        if isinstance(value, bool):
            found: list[Any] = [not value]
        elif isinstance(value, int):
            found = [value + 1, value * 2, value // 2, 1, 2, 3]
        elif value == 0:
            found = [0.1, 1e-3, 1.0]
        elif math.isinf(value):
            found = [1.0, 1e-2, 100.0]
        else:
            found = [value / 2, value * 2, value * 10, 0.0, 0.5, 1e-2]
        for other in found:
            if other == value:
                continue
            if self.place is None:
                yield other
            else:
                yield tuple(other if at == self.place else entry for at, entry in enumerate(self.whole))


@dataclass(frozen=True)
class Sight:
    """Where a number was seen to do something: beside which settings, in which run, with which value."""

    settings: Mapping[str, Any]
    probe: Probe
    value: Any


def numbers(make: Factory) -> list[Number]:
    """Return the hyper-parameters of an optimizer that are numbers, by its signature.

    A function that only passes settings on has none; then by the optimizer's ``defaults``, where some keep more.
    """
    signature = inspect.signature(make).parameters.values()
    found = {spec.name: spec.default for spec in signature if spec.default is not spec.empty}
    if not found and any(spec.kind is spec.VAR_KEYWORD for spec in signature):
        found = make(_begin(_PLAIN)).defaults
    listed: list[Number] = []
    for name, value in found.items():
        if name in _NO_NUMBERS:
            continue
        if isinstance(value, (int, float)):
            listed.append(Number(name, None, value))
        elif isinstance(value, (tuple, list)):
            places = (at for at, entry in enumerate(value) if isinstance(entry, (int, float)))
            listed += [Number(name, at, tuple(value)) for at in places]
    return listed


def _begin(probe: Probe) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [
        nn.Parameter((probe.parameters * torch.randn(s, generator=generator, dtype=torch.float64)).to(probe.dtype))
        for s in _SHAPES
    ]


@functools.cache
def _gradients(probe: Probe) -> list[list[Tensor]]:
    """Return the gradients of a run: noise around a direction that stays, with one spike."""
    found = []
    for step in range(probe.steps):
        row = []
        for place, parameter in enumerate(_begin(probe)):
            steady, noise = (torch.Generator().manual_seed(seed) for seed in (place, 97 * step + place))
            shape = parameter.shape
            g = torch.randn(shape, generator=steady) + torch.randn(shape, generator=noise)
            if probe.across:
                rows, along = g.reshape(shape[0], -1), parameter.detach().reshape(shape[0], -1)
                if g.ndim == 1:
                    rows, along = g[None], parameter.detach()[None]
                g = (rows - (rows * along).sum(1, True) / (along * along).sum(1, True) * along).reshape(shape)
            row.append((probe.gradients * (30 if step == _SPIKE else 1) * g).to(probe.dtype))
        found.append(row)
    return found


def _run(
    make: Factory, probe: Probe, settings: Mapping[str, Any], *, own: Mapping[str, Any] | None = None
) -> tuple[torch.optim.Optimizer, Iterator[int]]:
    """Return an optimizer, and an iterator that takes a step each time; ``own`` is set in the group itself."""
    torch.manual_seed(0)
    parameters = _begin(probe)
    optimizer = make([{"params": parameters, **own}] if own else parameters, **settings)

    def steps() -> Iterator[int]:
        for number, gradients in enumerate(_gradients(probe)):
            yield number
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            _go(optimizer, 0.1 + 1 / (number + 1))

    return optimizer, steps()


def _end(make: Factory, probe: Probe, settings: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Tensor:
    """Return where a run ends, as one vector."""
    optimizer, steps = _run(make, probe, settings, own=own)
    for _ in steps:
        pass
    return _where(optimizer)


def _where(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return all parameters, and what they are for evaluation if that is something else."""
    points = [_flat(optimizer)]
    evaluate = getattr(optimizer, "eval", None)
    if callable(evaluate):
        evaluate()
        points.append(_flat(optimizer))
    return torch.cat(points)


def _flat(optimizer: torch.optim.Optimizer) -> Tensor:
    held = [p.detach().flatten().double() for group in optimizer.param_groups for p in group["params"]]
    return torch.cat(held)


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether two runs end elsewhere; one that ends at nan shows nothing."""
    return bool(torch.isfinite(a).all() and torch.isfinite(b).all()) and not torch.equal(a, b)


class _Search:
    """Looks for what the numbers of an optimizer do."""

    def __init__(self, make: Factory) -> None:
        self.make = make
        self.plain: dict[tuple[tuple[tuple[str, Any], ...], Probe], Tensor | None] = {}

    def end(self, settings: Mapping[str, Any], probe: Probe) -> Tensor | None:
        """Return where a run ends, None if there is no such run."""
        key = (tuple(sorted(settings.items())), probe)
        if key not in self.plain:
            try:
                self.plain[key] = _end(self.make, probe, settings)
            except Exception:  # such settings may be refused, in whatever way
                self.plain[key] = None
        return self.plain[key]

    def look(self, number: Number, places: Iterator[tuple[Mapping[str, Any], Probe]]) -> Sight | None:
        """Return the first place where a number does something."""
        for settings, probe in places:
            before = None if number.name in settings else self.end(settings, probe)
            if before is None:
                continue
            for value in number.others():
                after = self.end({**settings, number.name: value}, probe)
                if after is not None and _differ(before, after):
                    return Sight(settings, probe, value)
        return None


@functools.lru_cache(maxsize=2)  # three contracts ask for the same optimizer's
def sights(make: Factory) -> Mapping[Number, Sight | None]:
    """Return for each number of an optimizer where it was seen to do something; None for those that were not."""
    search, known = _Search(make), numbers(make)
    off = {name: on for name, on in _ON.items() if any(n.name == name and n.value == 0 for n in known)}
    if any(number.name == "lr" for number in known):
        off["lr"] = _ON["lr"]

    def first() -> Iterator[tuple[Mapping[str, Any], Probe]]:
        yield {}, _PLAIN
        yield from (({name: on}, _PLAIN) for name, on in off.items())
        yield from (({}, probe) for probe in _PROBES[1:])
        everything = {name: on for name, on in off.items() if name != "lr"}
        yield from ((everything, probe) for probe in _PROBES if everything)

    found = {number: search.look(number, first()) for number in known}

    def second() -> Iterator[tuple[Mapping[str, Any], Probe]]:
        for number, sight in list(found.items()):
            if sight is not None and number.name != "lr":
                yield {**sight.settings, number.name: sight.value}, sight.probe

    for number, sight in found.items():
        if sight is None:
            found[number] = search.look(number, second())
    return found


@contract(
    "numbers-matter",
    "every number and switch that it takes can change what it does",
    why="AdaNorm and diffGrad of one library ran for years without what they are named for",
)
def numbers_matter(make: Factory) -> None:
    idle = [str(number) for number, sight in sights(make).items() if sight is None]
    assert not idle, f"no value of {', '.join(idle)} changes where parameters go, in {len(_PROBES)} kinds of runs"


@contract(
    "numbers-live",
    "a number that is assigned in a group during a run holds from the next step, or is refused",
    why="schedules of weight decay and momentum, and hands in a notebook, write there",
)
def numbers_live(make: Factory) -> None:
    deaf = []
    for number, sight in sights(make).items():
        if sight is None or isinstance(number.value, bool):
            continue  # a switch decides what state there is
        places = [(sight.settings, sight.probe), *((sight.settings, probe) for probe in _PROBES)]
        values = [sight.value, *number.others()]
        if isinstance(number.value, int):
            values.append(_PLAIN.steps)  # of what counts steps, small values lie in the past by then
        if not any(_heard(make, number.name, value, *place) for place in places for value in values):
            deaf.append(str(number))
    assert not deaf, f"{', '.join(deaf)}: what is assigned changes nothing"


def _heard(make: Factory, name: str, value: Any, settings: Mapping[str, Any], probe: Probe) -> bool:
    """Whether a value that the groups are given halfway changes the end of a run, or is refused."""
    ends = []
    for assigned in (False, True):
        try:
            optimizer, steps = _run(make, probe, settings)
            keys = _kept(make, name, value, settings, probe) if assigned else []
        except Exception:
            return False  # no such run
        try:
            for step in steps:
                for group, key, kept in keys if step == probe.steps // 2 else ():
                    optimizer.param_groups[group][key] = kept
            ends.append(_where(optimizer))
        except Exception:
            return bool(keys)
    return _differ(*ends)


def _kept(
    make: Factory, name: str, value: Any, settings: Mapping[str, Any], probe: Probe
) -> list[tuple[int, str, Any]]:
    """Return where an argument lies in the groups: mostly under its name, a role's rate under ``lr``."""
    plain, other = (make(_begin(probe), **given) for given in (settings, {**settings, name: value}))
    return [
        (place, key, new[key])
        for place, (old, new) in enumerate(zip(plain.param_groups, other.param_groups, strict=True))
        for key in new
        if key != "params" and new[key] != old.get(key)
    ]


@contract(
    "numbers-in-groups",
    "a number in a group means what it means as an argument",
    why="what is read from the optimizer itself is the same for all groups",
)
def numbers_in_groups(make: Factory) -> None:
    for number, sight in sights(make).items():
        if sight is None or number.name not in make(_begin(_PLAIN), **sight.settings).param_groups[0]:
            continue
        argued = _end(make, sight.probe, {**sight.settings, number.name: sight.value})
        grouped = _end(make, sight.probe, sight.settings, {number.name: sight.value})
        off = (argued - grouped).abs().max().item()
        assert torch.allclose(argued, grouped, rtol=1e-4, atol=1e-6), (
            f"{number.name}={sight.value} in a group ends elsewhere, by up to {off:.2g}"
        )
