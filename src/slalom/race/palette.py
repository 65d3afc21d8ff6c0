"""Who wears which colour, dash and marker, the same in every chart, table and legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slalom.pictures import COLOURS as COLOURS

DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (7, 2, 2, 2), (4, 1.5, 1.5, 1.5, 1.5, 1.5))
MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Style:
    """How one contestant is drawn.

    Attributes:
        index: its place among the contestants, which names it in the page's classes.
        label: its label.
        colour: for a light page; the charts' text is searched for it to find what the page may recolour.
        dash: on and off lengths in points; empty for a solid line.
        marker: matplotlib's letter.
    """

    index: int
    label: str
    colour: str
    dash: tuple[float, ...]
    marker: str

    @property
    def variable(self) -> str:
        """The page's variable that holds the colour."""
        return f"--colour-{self.index % len(COLOURS)}"

    @property
    def dashes(self) -> str:
        """The dash as SVG wants it."""
        return " ".join(f"{length * 1.4:g}" for length in self.dash)


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """Give every contestant a style; from the eighth on colours return with other dashes."""
    return {
        label: Style(
            index=index,
            label=label,
            colour=COLOURS[index % len(COLOURS)][0],
            dash=DASHES[(index + index // len(COLOURS)) % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
        )
        for index, label in enumerate(labels)
    }
