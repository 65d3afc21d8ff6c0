"""Scores: one number for each entrant, a mean over workloads of something that is computed from the medians.

Every score here is such a mean, so that the bootstrap and the leave-one-out tables need to know nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from slalom.race.scoring.table import Floats, Table

Integration = Literal["exact", "published"]


class Score(Protocol):
    """A score."""

    @property
    def title(self) -> str:
        """What it is called."""

    def columns(self, table: Table) -> list[int]:
        """Return the workloads that the mean is taken over."""

    def values(self, medians: Floats, table: Table) -> Floats:
        """Return each entrant's value on each of these workloads, from medians of shape (..., entrant, workload)."""

    def total(self, means: Floats) -> Floats:
        """Turn means over workloads into scores."""


@dataclass(frozen=True)
class AlgoPerf:
    """AlgoPerf's benchmark score, from performance profiles (Dahl et al. 2023, arXiv:2306.07179, section 4).

        r[s, w] = t[s, w] / min_s t[s, w]           rho_s(tau) = share of workloads with r[s, w] <= tau
        B_s = integral of rho_s from 1 to r_max / (r_max - 1) = mean over w of max(0, r_max - r[s, w]) / (r_max - 1)

    Before that, in the order of the published code: an entrant that misses a base workload does not count on its
    held-out variant; whoever needs more than r_max times the fastest entrant's time has not reached the target; and
    whoever has not reached it on the variant loses the base workload. The number of workloads is fixed: one that was
    not reached or not run counts 0. The score depends on the field, since it divides by the fastest of it.

    Attributes:
        held_out: the base workload of each held-out one. A variant that nobody was run on decides nothing.
        r_max: where the integral ends; 4 in AlgoPerf, and the same number disqualifies.
        integration: "exact", or "published": the trapezoidal rule at 100 points, which rounds every ratio to
            that grid.
    """

    held_out: Mapping[str, str] = field(default_factory=dict)
    r_max: float = 4.0
    integration: Integration = "exact"

    @property
    def title(self) -> str:
        """What it is called."""
        return "AlgoPerf score"

    def columns(self, table: Table) -> list[int]:
        """Return the base workloads."""
        return [index for index, name in enumerate(table.workloads) if name not in self.held_out]

    def ratios(self, medians: Floats, table: Table) -> Floats:
        """Return r on the base workloads; infinite where the target was not reached, too late or not run."""
        times = np.where(np.isnan(medians), math.inf, medians)
        pairs = self._pairs(table)
        for variant, base in pairs:
            times[..., variant] = np.where(np.isinf(times[..., base]), math.inf, times[..., variant])
        fastest = times.min(axis=-2, keepdims=True)
        times = np.where(times > self.r_max * fastest, math.inf, times)
        for variant, base in pairs:
            times[..., base] = np.where(np.isinf(times[..., variant]), math.inf, times[..., base])
        kept = times[..., self.columns(table)]
        # The fastest is looked for again: who was the fastest may just have lost the workload.
        fastest = kept.min(axis=-2, keepdims=True)
        quotient = np.divide(kept, fastest, out=np.full_like(kept, math.inf), where=np.isfinite(kept) & (fastest > 0))
        # A target that is met before the first step takes no time, and 0 / 0 is level.
        ratios: Floats = np.where((kept == fastest) & np.isfinite(kept), 1.0, quotient)
        return ratios

    def values(self, medians: Floats, table: Table) -> Floats:
        """Return what each base workload is worth: 1 for the fastest, 0 from r_max times its time on."""
        ratios = self.ratios(medians, table)
        if self.integration == "exact":
            return np.maximum(0.0, self.r_max - ratios) / (self.r_max - 1)
        taus = np.linspace(1.0, self.r_max, 100)
        reached = (ratios[..., None] <= taus).astype(float)
        areas: Floats = (reached[..., 1:] + reached[..., :-1]) / 2 * np.diff(taus)
        areas = areas.sum(axis=-1)
        return areas / (self.r_max - 1)

    def total(self, means: Floats) -> Floats:
        """Return the means."""
        return means

    def profiles(self, table: Table) -> dict[str, list[tuple[float, float]]]:
        """Return every performance profile as the corners of a step function: (tau, share of workloads from there on).

        The first corner is at 1; the last share holds to infinity.
        """
        found = {}
        count = len(self.columns(table))
        for name, row in zip(table.entrants, self.ratios(table.medians, table), strict=True):
            corners = {1.0: 0.0}
            for tau in sorted(row[np.isfinite(row)].tolist()):
                corners[tau] = float((row <= tau).sum()) / count
            found[name] = sorted(corners.items())
        return found

    def _pairs(self, table: Table) -> list[tuple[int, int]]:
        places = {name: index for index, name in enumerate(table.workloads)}
        return [
            (places[variant], places[base])
            for variant, base in sorted(self.held_out.items())
            if variant in places and base in places and table.ran[:, places[variant]].any()
        ]


@dataclass(frozen=True)
class Reference:
    """A score that no other entrant can move: speed against a frozen reference, on a logarithmic scale.

        B_s = mean over w of clip(log(r_max t_ref[w] / t[s, w]) / log(r_max^2), 0, 1)

    1/2 is level with the reference on every workload, 1 is r_max times as fast or faster, 0 is r_max times as slow,
    slower or never. A workload without a reference takes no part.

    Attributes:
        times: the reference's time to target by workload, measured once.
        r_max: the factor at which faster and slower stop to count.
    """

    times: Mapping[str, float]
    r_max: float = 4.0

    @property
    def title(self) -> str:
        """What it is called."""
        return "score against the reference"

    def columns(self, table: Table) -> list[int]:
        """Return the workloads with a reference."""
        return [index for index, name in enumerate(table.workloads) if name in self.times]

    def values(self, medians: Floats, table: Table) -> Floats:
        """Return the clipped logarithms."""
        columns = self.columns(table)
        reference = np.array([self.times[table.workloads[index]] for index in columns])
        times = np.where(np.isnan(medians), math.inf, medians)[..., columns]
        # A target that is met before the first step is met r_max times as fast, and its logarithm need not be taken.
        ratio = np.clip(np.maximum(times, 1e-300) / reference, 1 / self.r_max, self.r_max)
        values: Floats = 0.5 - np.log(ratio) / (2 * math.log(self.r_max))
        return values

    def total(self, means: Floats) -> Floats:
        """Return the means."""
        return means


@dataclass(frozen=True)
class SpeedUp:
    """Geometric mean over workloads of t_ref / t, times censored at the budget.

    A target that was not reached counts as reached at `penalty` times the budget, so a speed-up over a time that is
    censored is a lower bound and one with a time that is censored an upper bound; `censored` counts them. Where
    neither has reached the target the ratio is 1.

    Attributes:
        reference: the entrant that is compared with.
        budgets: the budget of each workload, in the unit of the times.
        penalty: AlgoPerf takes 1 for external tuning and 3 for self-tuning.
    """

    reference: str
    budgets: Mapping[str, float]
    penalty: float = 1.0

    @property
    def title(self) -> str:
        """What it is called."""
        return f"speed-up over {self.reference}"

    def columns(self, table: Table) -> list[int]:
        """Return the workloads with a budget, on which the reference was run."""
        row = table.entrants.index(self.reference)
        return [i for i, name in enumerate(table.workloads) if name in self.budgets and table.ran[row, i].any()]

    def values(self, medians: Floats, table: Table) -> Floats:
        """Return the logarithms of the ratios."""
        columns = self.columns(table)
        limit = np.array([self.penalty * self.budgets[table.workloads[index]] for index in columns])
        times = np.where(np.isnan(medians), math.inf, medians)[..., columns]
        times = np.clip(times, 1e-3 * limit, limit)
        reference = times[..., [table.entrants.index(self.reference)], :]
        logs: Floats = np.log(reference / times)
        return logs

    def total(self, means: Floats) -> Floats:
        """Return the geometric mean."""
        return np.exp(means)

    def censored(self, table: Table) -> dict[str, tuple[int, int]]:
        """Return by entrant on how many workloads its own time and the reference's are censored."""
        columns = self.columns(table)
        lost = ~np.isfinite(table.medians[:, columns])
        theirs = int(lost[table.entrants.index(self.reference)].sum())
        return {name: (int(row.sum()), theirs) for name, row in zip(table.entrants, lost, strict=True)}


def over_workloads(values: Floats) -> Floats:
    """Return means over the last axis; nan where there is no workload on which anybody can be compared."""
    means: Floats = values.mean(axis=-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)
    return means


def scores(score: Score, table: Table) -> dict[str, float]:
    """Return every entrant's score."""
    totals = score.total(over_workloads(score.values(table.medians, table)))
    return dict(zip(table.entrants, totals.tolist(), strict=True))
