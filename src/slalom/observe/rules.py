"""What a verdict is, and what rules look at: the last part of a run. The rules themselves are in `verdicts`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor

from slalom.observe.record import Parameter, Run

Weight = Literal["broken", "wrong", "note"]
# In the order in which verdicts are shown.
WEIGHTS: Final[tuple[Weight, ...]] = ("broken", "wrong", "note")

# The last third of a run is what a verdict is about, and one needs as many samples to be given.
RECENT: Final = 1 / 3
FEWEST: Final = 3
MOST: Final = 20


@dataclass(frozen=True)
class Evidence:
    """What a rule saw.

    Attributes:
        seen: a sentence with the numbers.
        where: which parameters, with the number of each; worst first. Empty where it is about all of them.
        values: the numbers by name.
    """

    seen: str
    where: tuple[tuple[str, float], ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong with a run.

    Attributes:
        name: in words with hyphens, for JSON.
        title: what is wrong, in a few words.
        weight: "broken" where nothing good can follow, "wrong" where much is lost, "note" where it is good to know.
        means: what it means, in a sentence or two.
        remedy: what to do.
        limits: the thresholds, by name.
        source: where they come from.
        judge: looks at a run; None if it is well, or if what the rule needs was not measured.
        alone: whether nothing else means anything where it holds.
    """

    name: str
    title: str
    weight: Weight
    means: str
    remedy: str
    limits: Mapping[str, float]
    source: str
    judge: Callable[[Recent, Mapping[str, float]], Evidence | None]
    alone: bool = False


@dataclass(frozen=True)
class Verdict:
    """A rule that a run breaks, and what shows it."""

    rule: Rule
    evidence: Evidence


class Recent:
    """The last part of a run, as rules look at it.

    Attributes:
        run: the whole run.
        parameters: those of the run.
        first: the first sample of the part.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.parameters = run.parameters
        count = len(run.samples)
        self.first = count - min(MOST, max(FEWEST, math.ceil(RECENT * count)))
        self.enough = count >= FEWEST

    def __getitem__(self, quantity: str) -> Tensor:
        """Return a quantity, recent samples x parameters."""
        return self.run[quantity][max(self.first, 0) :]

    def cosine(self, quantity: str) -> float:
        """Return a cosine over all parameters, the median of the recent samples."""
        return median(self.run.cosine(quantity)[max(self.first, 0) :])

    def norm(self, quantity: str) -> float:
        """Return a norm over all parameters, the median of the recent samples."""
        return median(self.run.norm(quantity)[max(self.first, 0) :])

    def medians(self, quantity: str) -> Tensor:
        """Return a quantity of each parameter, the median of the recent samples; nan where none was measured."""
        return self[quantity].nanmedian(0).values if len(self[quantity]) else torch.zeros(0)

    def reach(self) -> float:
        """Return where along steps their batch's loss was lowest, the median of the recent samples; see `Sample`."""
        return median(torch.tensor([sample.reach for sample in self.run.samples[max(self.first, 0) :]]))

    @property
    def losses(self) -> list[float]:
        """The mean losses of the recent samples that have one."""
        return [loss for loss in self.run.losses[max(self.first, 0) :] if math.isfinite(loss)]

    @property
    def steps(self) -> str:
        """Which steps the recent samples are of, in words."""
        steps = self.run.steps[max(self.first, 0) :]
        return f"at steps {steps[0]:,} to {steps[-1]:,}" if len(steps) > 1 else f"at step {steps[0]:,}"

    def least(self, quantity: str) -> Tensor:
        """Return a quantity of each parameter, the least of the recent samples; nan where none was measured."""
        values = self[quantity]
        return values.nan_to_num(math.inf).amin(0).where(~values.isnan().all(0), math.nan)

    def always(self, holds: Tensor) -> Tensor:
        """Return for which parameters something held at each recent sample that measured them, and at one at least.

        Args:
            holds: samples x parameters.
        """
        measured = ~self["update"].isnan()
        return (holds | ~measured).all(0) & measured.any(0)

    def progress(self) -> float:
        """Return the share of the loss that went from the first half of the recent samples to the second.

        nan if there are fewer than 4 of them.
        """
        return self._fall()[0]

    def went(self, digits: int = 1) -> str:
        """Return in words how far the loss fell or rose meanwhile."""
        progress = self.progress()
        return f"{'rose' if progress < 0 else 'fell'} by {abs(progress):.{digits}%}"

    def stands(self, limit: float) -> bool:
        """Whether the loss stands still: it moved by less than so much, or by less than its own noise hides."""
        fall, error = self._fall()
        return abs(fall) < limit or abs(fall) < 2 * error < 5 * limit

    def rises(self, limit: float) -> bool:
        """Whether the loss rose, by more than so much and by more than its own noise can have made it."""
        fall, error = self._fall()
        return -fall > max(limit, 2 * error)

    def falls(self, limit: float) -> bool:
        """Whether the loss fell, by more than so much and by more than its own noise can have made it."""
        fall, error = self._fall()
        return fall > max(limit, 2 * error)

    def _fall(self) -> tuple[float, float]:
        """Return the share by which the loss fell, and the standard error of that."""
        losses = torch.tensor(self.losses, dtype=torch.float64)
        if len(losses) < 4:
            return math.nan, math.nan
        middle = len(losses) // 2
        before, now = losses[:middle], losses[-middle:]
        level = abs(float(before.mean())) or 1.0
        error = math.sqrt((float(before.var()) + float(now.var())) / middle)
        return float(before.mean() - now.mean()) / level, error / level

    def early(self) -> float:
        """Return the norm of the gradient in the first samples, their median."""
        return median(self.run.norm("gradient")[:FEWEST])

    def height(self) -> float:
        """Return how long the gradient is, over how long it was in the first samples."""
        early = self.early()
        return self.norm("gradient") / early if early else math.nan

    def matrices(self) -> Iterator[tuple[int, Parameter]]:
        """Yield the places of layers' matrices and kernels, in the model's order."""
        for place, parameter in enumerate(self.parameters):
            if parameter.matrix and parameter.held and parameter.trained:
                yield place, parameter

    def named(self, values: Tensor, chosen: Sequence[int], *, largest: bool = True) -> tuple[tuple[str, float], ...]:
        """Return parameters with a value each, the most striking first."""
        pairs = [(self.parameters[place].name, float(values[place])) for place in chosen]
        return tuple(sorted(pairs, key=lambda pair: pair[1], reverse=largest))


def median(values: Tensor) -> float:
    """Return the median of what was measured; nan if nothing was."""
    known = values[~values.isnan()]
    return float(known.quantile(0.5)) if len(known) else math.nan


def many(count: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def diagnose(run: Run, rules: Sequence[Rule]) -> list[Verdict]:
    """Return which rules a run breaks at its end, the worst first."""
    if not run.samples:
        return []
    recent = Recent(run)
    found = []
    for rule in rules:
        evidence = rule.judge(recent, rule.limits)
        if evidence is not None:
            found.append(Verdict(rule, evidence))
    found = [one for one in found if one.rule.alone] or found
    return sorted(found, key=lambda verdict: WEIGHTS.index(verdict.rule.weight))


__all__ = ["WEIGHTS", "Evidence", "Recent", "Rule", "Verdict", "diagnose", "many", "median"]
