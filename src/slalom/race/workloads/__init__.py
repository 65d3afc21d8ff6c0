"""The built-in workloads, by name, and nothing about how they are trained."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from slalom.race.targets import set_targets
from slalom.race.workload import Workload, variant
from slalom.race.workloads.charlm import CharLm, CharLstm, ladder
from slalom.race.workloads.clicks import Clicks
from slalom.race.workloads.digits import DigitsCnn, DigitsMlp, DigitsVit
from slalom.race.workloads.exact import DeepLinear, Quadratic, Zipf
from slalom.race.workloads.graphs import Graphs
from slalom.race.workloads.recon import Recon
from slalom.race.workloads.tables import Cancer, Diabetes, Wine

AnyWorkload = Workload[Any]
SMOKE = ("quadratic", "wine", "digits_mlp")
DEFAULT = ("digits_mlp", "digits_cnn", "charlm")
TIERS = ("smoke", "default", "laptop", "held-out", "ladder", "gpu")


@lru_cache(maxsize=1)
def built_in() -> dict[str, AnyWorkload]:
    """Return all built-in workloads: first those of a race by default, then the others, then variants and sizes."""
    bases: list[AnyWorkload] = [
        DigitsMlp(),
        DigitsCnn(),
        CharLm(),
        Quadratic(),
        DeepLinear(),
        Zipf(),
        Diabetes(),
        Cancer(),
        Wine(),
        DigitsVit(),
        CharLstm(),
        Graphs(),
        Recon(),
        Clicks(),
    ]
    found = {workload.name: workload for workload in [*bases, *held_out(), *ladder()]}
    set_targets(found.values())
    return found


def held_out() -> list[AnyWorkload]:
    """Return the variants: the same problem, something about the model changed that no tuning was for."""
    return [
        variant(DigitsMlp(), "tanh", "with tanh", activation="tanh"),
        variant(DigitsMlp(), "init", "initial weights twice as large", init=2.0),
        variant(DigitsCnn(), "silu", "with SiLU", activation="silu"),
        variant(DigitsCnn(), "group", "with group norm", norm="group"),
        variant(CharLm(), "post", "normalised after each layer", norm="post"),
        variant(CharLm(), "init", "initial weights a third as large", init=1 / 3),
        variant(Quadratic(), "axes", "not rotated", rotated=False),
        variant(DeepLinear(), "deep", "six factors", depth=6),
        variant(Zipf(), "flat", "frequencies 1/k^0.7", exponent=0.7),
        variant(Diabetes(), "wide", "width 256", width=256),
        variant(Cancer(), "tanh", "with tanh", activation="tanh"),
        variant(Wine(), "init", "initial weights twice as large", init=2.0),
        variant(DigitsVit(), "post", "normalised after each layer", norm="post"),
        variant(CharLstm(), "wide", "width 112", width=112),
        variant(Graphs(), "bare", "without norms", norm=False),
        variant(Recon(), "tanh", "with tanh", activation="tanh"),
    ]


def names(tier: str) -> list[str]:
    """Return the names of a tier.

    Args:
        tier: "smoke" takes seconds; "default" is the race without arguments; "laptop" is every base workload,
            "held-out" these and their variants; "ladder" is the character GPT at four sizes. "gpu" has none of these:
            it is what `local.from_path` finds in a person's own data.
    """
    workloads: Iterable[AnyWorkload] = built_in().values()
    if tier == "smoke":
        return list(SMOKE)
    if tier == "default":
        return list(DEFAULT)
    if tier in ("ladder", "gpu"):
        return [workload.name for workload in workloads if workload.tier == tier]
    laptop = [workload for workload in workloads if workload.tier == "laptop"]
    return [workload.name for workload in laptop if tier == "held-out" or workload.base is None]
