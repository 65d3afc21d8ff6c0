"""The conformance kit: what PyTorch and its ecosystem expect of an optimizer, run against any optimizer class.

from slalom.testing import check_optimizer
print(check_optimizer(torch.optim.AdamW))
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch

from slalom.errors import UsageError, unknown

Factory: TypeAlias = Callable[..., torch.optim.Optimizer]
Check: TypeAlias = Callable[[Factory], None]
Verdict: TypeAlias = Literal["holds", "broken", "not promised"]


@dataclass(frozen=True)
class Contract:
    """One expectation.

    Attributes:
        name: short, for tables and for leaving it out.
        claim: the sentence that must be true.
        why: what goes wrong elsewhere without it.
        check: raises `AssertionError` where it is not; anything else it raises counts as broken too.
    """

    name: str
    claim: str
    why: str
    check: Check


@dataclass(frozen=True)
class Result:
    """How an optimizer did on one contract; ``why`` says what is broken, or why it is not promised."""

    contract: Contract
    verdict: Verdict
    why: str


@dataclass(frozen=True, repr=False)
class Report:
    """How an optimizer did on all contracts."""

    label: str
    results: tuple[Result, ...]

    @property
    def broken(self) -> tuple[Result, ...]:
        """The contracts that do not hold."""
        return tuple(result for result in self.results if result.verdict == "broken")

    def __bool__(self) -> bool:
        """Whether nothing is broken."""
        return not self.broken

    def __repr__(self) -> str:
        names = ", ".join(result.contract.name for result in self.broken)
        return f"<Report of {self.label}: {f'broken are {names}' if names else 'nothing is broken'}>"

    def __str__(self) -> str:
        marks = {"holds": "ok", "broken": "BROKEN", "not promised": "-"}
        width = max(len(result.contract.name) for result in self.results)
        rows = [f"{self.label}: {len(self.broken)} of {len(self.results)} contracts are broken"]
        for result in self.results:
            rows.append(f"  {result.contract.name:<{width}}  {marks[result.verdict]:<7} {result.contract.claim}")
            if result.why:
                rows.append(f"  {'':<{width}}          {result.why}")
        return "\n".join(rows)


CONTRACTS: dict[str, Contract] = {}


def contract(name: str, claim: str, *, why: str) -> Callable[[Check], Check]:
    """Enter a check into the kit."""

    def register(check: Check) -> Check:
        CONTRACTS[name] = Contract(name, claim, why, check)
        return check

    return register


def check_optimizer(
    factory: Factory,
    *,
    label: str | None = None,
    leave_out: Iterable[str] = (),
    only: Iterable[str] | None = None,
) -> Report:
    """Run the contracts against an optimizer.

    Args:
        factory: the class, or a function with the same arguments: ``factory(params, **settings)``.
        label: what the report calls it; its name by default.
        leave_out: contracts that it does not promise, such as ``"one-each"`` for methods that look at the whole model;
            with the reasons, if it is a dictionary.
        only: run these alone.

    Raises:
        ValueError: for a contract that does not exist, or if no optimizer can be built from parameters alone.
    """
    skipped = dict(leave_out) if isinstance(leave_out, Mapping) else dict.fromkeys(leave_out, "")
    chosen = list(CONTRACTS) if only is None else list(only)
    for name in [*skipped, *chosen]:
        if name not in CONTRACTS:
            raise unknown("contract", name, CONTRACTS, "`slalom check --list` shows all.")
    label = label or str(getattr(factory, "__name__", "the optimizer"))
    try:
        built(factory, label)
    except UsageError as error:
        raise UsageError(f"{error} Give a function that adds what it needs: `lambda params, **given: ...`.") from None
    results = tuple(_run(CONTRACTS[name], factory, skipped.get(name)) for name in chosen)
    return Report(label, results)


def assert_conforms(factory: Factory, *, leave_out: Iterable[str] = (), only: Iterable[str] | None = None) -> None:
    """Assert that an optimizer keeps the contracts; arguments as for `check_optimizer`.

        def test_my_optimizer_conforms():
            assert_conforms(MyOptimizer, leave_out={"one-each": "it clips by the norm of the whole model"})

    Raises:
        AssertionError: if it breaks one; the message names each, with what was seen.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test, and the message
    report = check_optimizer(factory, leave_out=leave_out, only=only)
    if not report:
        lines = (f"{result.contract.name}: {result.contract.claim}\n      {result.why}" for result in report.broken)
        count = f"{len(report.broken)} of {len(report.results)}"
        raise AssertionError("\n  ".join([f"{report.label} breaks {count} contracts", *lines]))


def built(factory: Factory, label: str) -> torch.optim.Optimizer:
    """Return what a factory builds from a few parameters, without settings.

    Raises:
        UsageError: if it fails, or that is no optimizer.
    """
    shapes = ((4, 3), (5,), (2, 3, 2, 2))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = factory([torch.nn.Parameter(torch.ones(shape)) for shape in shapes])
    except Exception as error:
        shown = ", ".join(map(str, shapes))
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise UsageError(f"{label} cannot be built from parameters of shapes {shown} alone ({reason}).") from None
    if not isinstance(made, torch.optim.Optimizer):
        raise UsageError(f"{label} builds a {type(made).__name__}, which is no torch.optim.Optimizer.")
    return made


def _run(one: Contract, factory: Factory, excuse: str | None) -> Result:
    if excuse is not None:
        return Result(one, "not promised", excuse)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            one.check(factory)
        except Exception as error:
            if isinstance(error, AssertionError):
                return Result(one, "broken", str(error).split("\n")[0])
            place = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} ({place.name})"
            return Result(one, "broken", why)
    return Result(one, "holds", "")


from slalom.testing import company, gradients, groups, hyperparameters, parameters, saving, steps  # noqa: E402

# Importing them filled the kit; this is the order in which it is shown.
TOPICS: Final = (steps, gradients, parameters, groups, hyperparameters, saving, company)
CONTRACTS = {name: one for topic in TOPICS for name, one in CONTRACTS.items() if one.check.__module__ == topic.__name__}
