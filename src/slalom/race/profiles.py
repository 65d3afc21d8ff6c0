"""The report's charts of the race as a whole: performance profiles, speed-ups, and advantages against size."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from slalom.race.charts import INK, Chart, Styles, chart
from slalom.race.standings import Standings

R_MAX = 4.0


def race_charts(standing: Standings, styles: Styles) -> list[Chart]:
    """Draw what there is."""
    drawn = [profiles(standing, styles)]
    # Before the baseline has been trained there is nothing to put beside it.
    if any(one.units for one in standing.comparisons if standing.baseline in (one.first, one.second)):
        drawn.append(speedups(standing, styles))
    return [*drawn, *([ladder(standing, styles)] if standing.ladder else [])]


def profiles(standing: Standings, styles: Styles) -> Chart:
    """Draw the share of workloads that are reached within a factor of the fastest, as the step functions they are."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name in reversed(standing.order):
            style = styles[name]
            corners = [corner for corner in standing.profiles[name] if corner[0] <= R_MAX]
            x = [*(tau for tau, _ in corners), R_MAX]
            y = [*(share for _, share in corners), corners[-1][1]]
            (line,) = axes.step(x, y, where="post", color=style.colour, gid=f"entrant-{style.index}-profile")
            if style.dash:
                line.set_dashes(style.dash)
        axes.set_xlim(1, R_MAX)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("steps to target, as a multiple of the fastest")
        axes.set_ylabel("share of workloads")

    names = ", ".join(standing.order)
    note = "Up and to the left is better; the area is the AlgoPerf score. Medians over studies."
    return chart("race", "Performance profiles", note, f"Performance profiles, highest score first: {names}.", draw)


def speedups(standing: Standings, styles: Styles) -> Chart:
    """Draw how many times as fast as the baseline everybody reaches the targets, with paired intervals."""
    against = {
        name: one
        for one in standing.comparisons
        for name, other in ((one.first, one.second), (one.second, one.first))
        if other == standing.baseline
    }
    names = [name for name in reversed(standing.order) if name in against and against[name].units]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, name in enumerate(names):
            one, style = against[name], styles[name]
            ends = (one.ratio, one.low, one.high)
            if one.second == name:
                ends = (1 / one.ratio, 1 / one.high, 1 / one.low if one.low > 0 else math.inf)
            ratio, low, high = (min(max(end, 1 / R_MAX), R_MAX) for end in ends)
            if one.units > 1:
                axes.hlines(place, low, high, color=style.colour, linewidth=2.0, gid=f"entrant-{style.index}-range")
            axes.plot(
                [ratio], [place], color=style.colour, marker=style.marker, markersize=6, markeredgewidth=0,
                gid=f"entrant-{style.index}-ratio",
            )  # fmt: skip
        axes.axvline(1.0, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), alpha=0.7)
        axes.set_xscale("log")
        axes.set_xlim(1 / R_MAX * 0.97, R_MAX * 1.03)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xticks([0.25, 0.5, 1, 2, 4])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"speed-up over {standing.baseline}, in steps to target")

    note = (
        "To the right of 1 is faster. Paired 95 % intervals, cut off at the chart's edge; one that does not touch 1 "
        "says that one beats the other. None is drawn where there is a single study or workload to pair."
    )
    described = ", ".join(reversed(names))
    return chart("race-speedups", f"Speed-up over {standing.baseline}", note, f"Speed-ups: {described}.", draw)


def ladder(standing: Standings, styles: Styles) -> Chart:
    """Draw the advantage over the baseline against the size of the model."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (name, rungs) in enumerate(standing.ladder.items()):
            style = styles[name]
            # Side by side, or the intervals would hide one another.
            sizes = [rung.size * 1.04 ** (place - len(standing.ladder) / 2) for rung in rungs]
            ratios = [rung.advantage.ratio for rung in rungs]
            low = [max(rung.advantage.low, 0.05) if rung.advantage.units > 1 else math.nan for rung in rungs]
            high = [min(rung.advantage.high, 20.0) if rung.advantage.units > 1 else math.nan for rung in rungs]
            axes.vlines(sizes, low, high, color=style.colour, linewidth=1.2, gid=f"entrant-{style.index}-interval")
            axes.plot(
                sizes, ratios, color=style.colour, marker=style.marker, markersize=4.2, markeredgewidth=0,
                gid=f"entrant-{style.index}-ladder",
            )  # fmt: skip
        axes.axhline(1.0, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), alpha=0.7)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("parameters")
        axes.set_ylabel(f"speed-up over {standing.baseline}")

    note = "Ratio of steps to target with paired 95 % intervals, where there is more than one study."
    description = f"Speed-up over {standing.baseline} against the number of parameters."
    return chart("race-ladder", "Advantage against size", note, description, draw)
