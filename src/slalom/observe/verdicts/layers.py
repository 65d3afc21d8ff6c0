"""Does every layer learn: gradients by depth, dead units, layers that race or fall asleep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch

from slalom.observe.rules import Evidence, Recent, Rule, many, median


def _depth(run: Recent) -> tuple[float, list[int]]:
    """Return the gradients of the first layers over those of the last, relative to their weights; and who they are."""
    places = [place for place, _ in run.matrices()]
    relative = (run["gradient"] / run["weight"])[:, places]
    known = [k for k in range(len(places)) if bool((relative[:, k] > 0).any())]
    third = len(known) // 3
    if not third:
        return math.nan, []
    logs = relative.log10()
    first, last = (median(logs[:, part].flatten()) for part in (known[:third], known[-third:]))
    return 10 ** (first - last), [places[k] for k in known]


def _vanishing(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    ratio, places = _depth(run)
    if not run.enough or not ratio < limits["ratio"]:
        return None
    seen = f"relative to its weights the gradient of the first layers is {ratio:.1e} of that of the last, {run.steps}"
    return Evidence(seen, run.named(run.medians("gradient"), places, largest=False), {"ratio": ratio})


def _exploding(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    ratio, places = _depth(run)
    if not run.enough or not ratio > limits["ratio"]:
        return None
    seen = (
        f"relative to its weights the gradient of the first layers is {ratio:,.0f} times that of the last, {run.steps}"
    )
    return Evidence(seen, run.named(run.medians("gradient"), places), {"ratio": ratio})


def _dead(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    if not run.enough:
        return None
    dead, whole = run.least("dead"), run.least("zeros") == 1  # that is said elsewhere
    found = [k for k, one in run.matrices() if one.role != "head" and dead[k] > limits["share"] and not whole[k]]
    if not found:
        return None
    seen = f"up to {float(dead[found].max()):.0%} of a layer's units had no gradient at all {run.steps}"
    return Evidence(seen, run.named(dead, found), {"dead": float(dead[found].max())})


def _lopsided(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    ratios = (run["update"] / run["weight"]).nanmedian(0).values if run.enough else torch.zeros(0)
    places = [k for k, _ in run.matrices() if len(ratios) and 0 < ratios[k] < math.inf]
    if len(places) < 2:
        return None
    most, least = float(ratios[places].max()), float(ratios[places].min())
    if most / least <= limits["times"]:
        return None
    ranked = run.named(ratios, places)
    seen = (
        f"per step {ranked[0][0]} changes by {most:.1e} of its length and {ranked[-1][0]} by {least:.1e}, {run.steps}"
    )
    return Evidence(seen, (ranked[0], ranked[-1]), {"times": most / least})


def _falling_asleep(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    if not run.enough:
        return None
    growth = run.medians("weight") / run.run["weight"][0]
    radial = run["radial"].nan_to_num(0.0).abs().amax(0)
    found = [
        place
        for place, one in run.matrices()
        if radial[place] < limits["radial"]
        and radial[place] * math.sqrt(one.elements) < limits["chance"]
        and growth[place] > limits["growth"]
        and float(run.medians("gradient")[place]) > 0
    ]
    if not found:
        return None
    most = float(growth[found].max())
    seen = (
        f"{many(len(found), 'layer')} whose scale does not matter grew up to {most:.2g} times since step "
        f"{run.run.steps[0]}, so a step along the gradient turns them {most**2:,.3g} times less, one of fixed "
        f"length {most:.2g} times"
    )
    return Evidence(seen, run.named(growth, found), {"growth": most})


RULES: Final = (
    Rule(
        "vanishing",
        "the gradient vanishes on its way down",
        "wrong",
        "The first layers hear next to nothing of the loss.",
        "Residual connections, norms, rectifiers instead of sigmoids, initial weights by He or Glorot; a method that "
        "scales every layer or coordinate by itself (Adam, LAMB, Muon) hides it in part.",
        {"ratio": 1e-3},
        "Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852; the limit is ours",
        _vanishing,
    ),
    Rule(
        "exploding",
        "the gradient explodes on its way down",
        "wrong",
        "Each layer multiplies it: the first layers' steps are out of all proportion to the last ones'.",
        "Smaller initial weights, norms, residual branches that begin at 0; clip the gradient.",
        {"ratio": 1e3},
        "Pascanu et al. 2013, arXiv:1211.5063; the limit is ours",
        _exploding,
    ),
    Rule(
        "dead-units",
        "dead units",
        "wrong",
        "Rows of a layer get no gradient from any item of the batch, at every sample: those units are off for all "
        "inputs and cannot come back.",
        "Lower the rate or warm up (a large step killed them), smaller initial biases, a leaky or smooth rectifier.",
        {"share": 0.5},
        "ours",
        _dead,
    ),
    Rule(
        "lopsided",
        "one layer moves a thousand times as fast as another",
        "wrong",
        "No one rate fits both: what is right for one leaves the other asleep or blows it up.",
        "Rates by layer (LARS, LAMB, slalom.param_groups), a method that scales by itself (Adam, Muon), or other "
        "initial values.",
        {"times": 1e3},
        "You et al. 2017, arXiv:1708.03888; the limit is ours",
        _lopsided,
    ),
    Rule(
        "falling-asleep",
        "weights grow and their rate dies",
        "note",
        "The loss does not depend on these layers' length (a norm follows), so gradients cannot shrink them: every "
        "step makes them longer, and turns them less. Often that is a useful decay of the rate, at times too early.",
        "Weight decay on them, or projection to a fixed length; more of it, where there is some already.",
        {"radial": 0.01, "chance": 0.1, "growth": 4.0},
        "van Laarhoven 2017, arXiv:1706.05350; Li & Arora 2019, arXiv:1910.07454; the limits are ours",
        _falling_asleep,
    ),
)  # fmt: skip
