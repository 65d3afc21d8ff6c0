"""Published phenomena, reproduced: each is an experiment that says by which signs it is known and whether it shows.

Nothing in slalom imports this package but the command line; it uses what every user can.
"""

from slalom.lab import (
    broken_regulariser,
    double_descent,
    grokking,
    grokking_transformer,
    growing_rate,
    heavy_tail,
    heavy_tail_text,
    initialisation,
    large_rates,
    noise_ball,
    painted,
    rank,
    rosenbrock,
    separable,
    telescope,
)
from slalom.lab.finding import Finding, Judged, study
from slalom.lab.phenomenon import Phenomenon, Run, Sign, Table, phenomena, phenomenon, set_up

__all__ = [
    "Finding",
    "Judged",
    "Phenomenon",
    "Run",
    "Sign",
    "Table",
    "broken_regulariser",
    "double_descent",
    "grokking",
    "grokking_transformer",
    "growing_rate",
    "heavy_tail",
    "heavy_tail_text",
    "initialisation",
    "large_rates",
    "noise_ball",
    "painted",
    "phenomena",
    "phenomenon",
    "rank",
    "rosenbrock",
    "separable",
    "set_up",
    "study",
    "telescope",
]
