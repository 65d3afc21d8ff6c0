"""Who wears which colour, dash and marker, the same in every chart, table and legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Okabe and Ito's colours, which colour-blind people can tell apart; their yellow is left out, it drowns in white.
# The second of each pair is for a dark page.
COLOURS = (
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#f07b2e"),
    ("#009e73", "#2fc399"),
    ("#b8548f", "#dd8fbc"),
    ("#c98600", "#f0b429"),
    ("#6b6f76", "#a6abb3"),
    ("#2f94cf", "#8fd0f7"),
)
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
