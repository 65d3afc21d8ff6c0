"""How far a score can be trusted: bootstrap intervals, ranks that may be luck, and who beats whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slalom.race.scoring.scores import Score, over_workloads, scores
from slalom.race.scoring.table import Floats, Table, medians

LEVEL = 0.95


@dataclass(frozen=True)
class Doubt:
    """A score with its uncertainty, all by entrant.

    Attributes:
        title: the score's name.
        score: the score.
        low: lower end of the 95 % interval.
        high: upper end.
        ranks: probability of each rank, first to last; equals share theirs.
        wins: probability of a higher score than each other entrant, equality counting half.
        without_workload: the score without each workload.
        without_entrant: the others' scores without each entrant; a score that depends on the field moves.
    """

    title: str
    score: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    ranks: Mapping[str, tuple[float, ...]]
    wins: Mapping[str, Mapping[str, float]]
    without_workload: Mapping[str, Mapping[str, float]]
    without_entrant: Mapping[str, Mapping[str, float]]


def doubt(score: Score, table: Table, repetitions: int = 2000, seed: int = 0) -> Doubt:
    """Return a score and how sure it is, by resampling studies and workloads.

    Entrants share every resample, because in a study they shared weights and batches. With fewer than about five
    studies or workloads a bootstrap interval is too narrow; `compare`, which decides who beats whom, allows for that.
    """
    samples = bootstrap(score, table, repetitions, seed)
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    names = table.entrants
    others = samples[:, None, :]
    # [repetition, entrant]: how many are above, and how many level with it, itself included.
    above = np.greater(others, samples[:, :, None]).sum(axis=2)
    level = np.equal(others, samples[:, :, None]).sum(axis=2)
    places = np.arange(len(names))
    held = np.asarray((places >= above[..., None]) & (places < (above + level)[..., None]))
    ranks = (held / np.maximum(level, 1)[..., None]).mean(axis=0)  # who cannot be compared is level with nobody
    wins = ((samples[:, :, None] > others) + 0.5 * (samples[:, :, None] == others)).mean(axis=0)
    columns = score.columns(table)
    return Doubt(
        title=score.title,
        score=scores(score, table),
        low=dict(zip(names, low.tolist(), strict=True)),
        high=dict(zip(names, high.tolist(), strict=True)),
        ranks={name: tuple(row) for name, row in zip(names, ranks.tolist(), strict=True)},
        wins={
            name: {other: value for other, value in zip(names, row, strict=True) if other != name}
            for name, row in zip(names, wins.tolist(), strict=True)
        },
        without_workload={
            table.workloads[column]: scores(score, table.without(workload=table.workloads[column]))
            for column in columns
            if len(columns) > 1
        },
        without_entrant={
            name: scores(score, table.without(entrant=name))
            for name in names
            if len(names) > 1 and name != getattr(score, "reference", None)
        },
    )


def bootstrap(score: Score, table: Table, repetitions: int = 2000, seed: int = 0) -> Floats:
    """Return resampled scores by repetition and entrant; studies are drawn per workload, then workloads."""
    random = np.random.default_rng(seed)
    count = len(table.studies)
    drawn = random.integers(count, size=(repetitions, 1, len(table.workloads), count))
    times = np.take_along_axis(table.times[None], drawn, axis=3)
    known = np.asarray(table.ran.any(axis=2, keepdims=True))
    ran = np.broadcast_to(known[None], times.shape)
    values = score.values(medians(times, ran), table)
    workloads = random.integers(values.shape[-1], size=(repetitions, 1, values.shape[-1]))
    return score.total(over_workloads(np.take_along_axis(values, workloads, axis=2)))


@dataclass(frozen=True)
class Comparison:
    """Two entrants, study by study.

    Attributes:
        first: one.
        second: the other.
        ratio: how many times as long the second takes, geometric mean.
        low: lower end of the paired 95 % interval of the ratio.
        high: upper end.
        units: how many independent differences the interval comes from.
        over: what they are: "workloads" or "studies".
        censored: how many of the times behind it are budgets, because a target was not reached.
    """

    first: str
    second: str
    ratio: float
    low: float
    high: float
    units: int
    over: str
    censored: int

    @property
    def winner(self) -> str | None:
        """Who beats the other; None if the interval does not say."""
        return self.first if self.low > 1 else self.second if self.high < 1 else None

    @property
    def detectable(self) -> float:
        """The smallest ratio that this comparison could have told from 1."""
        return math.sqrt(self.high / self.low) if self.low > 0 else math.inf


def compare(
    table: Table, first: str, second: str, budgets: Mapping[str, float], workloads: Sequence[str] | None = None
) -> Comparison:
    """Compare two entrants by the logarithms of their time ratios, paired by study.

    Over several workloads the independent differences are the means of the workloads, so that winning means winning on
    more than the few that were looked at; on a single one they are its studies. Student's interval is taken, which is
    honest for few differences where a percentile bootstrap is too narrow. Times are censored at the budget.

    Args:
        table: the study scores.
        first: one entrant.
        second: the other.
        budgets: by workload, in the unit of the times; workloads without one take no part.
        workloads: those to look at; by default all.
    """
    a, b = table.entrants.index(first), table.entrants.index(second)
    chosen = [
        index
        for index, name in enumerate(table.workloads)
        if name in budgets and (workloads is None or name in workloads)
    ]
    differences: list[Floats] = []
    censored = 0
    for index in chosen:
        both = table.ran[a, index] & table.ran[b, index]
        budget = budgets[table.workloads[index]]
        times = table.times[:, index][:, both][[a, b]]
        censored += int((times > budget).sum())
        times = np.clip(times, 1e-3 * budget, budget)
        if both.any():
            differences.append(np.log(times[1] / times[0]))
    if len(differences) > 1:
        units, over = np.array([one.mean() for one in differences]), "workloads"
    else:
        units, over = (differences[0] if differences else np.empty(0)), "studies"
    mean, half = student(units)
    return Comparison(
        first,
        second,
        math.exp(mean),
        math.exp(mean - half),
        math.exp(mean + half) if mean + half < 700.0 else math.inf,
        len(units),
        over,
        censored,
    )


def student(differences: Sequence[float] | Floats) -> tuple[float, float]:
    """Return the mean and the half-width of Student's 95 % interval; the half-width is infinite for fewer than two."""
    values = np.asarray(differences, dtype=float)
    if len(values) == 0:
        return 0.0, math.inf
    if len(values) == 1:
        return float(values[0]), math.inf
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)
