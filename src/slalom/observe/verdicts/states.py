"""Do gradients and the optimizer's memory of them fit: tails, spikes, clipping, stale averages, epsilon."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch

from slalom.observe.rules import Evidence, Recent, Rule, median
from slalom.observe.tails import hill


def _recent_norms(run: Recent) -> torch.Tensor:
    """Return the gradient's norm at every step that the recent samples are about."""
    samples = run.run.samples[max(run.first, 0) :]
    norms = torch.tensor([norm for sample in samples for norm in sample.norms], dtype=torch.float64)
    return norms[norms.isfinite() & (norms > 0)]


def _spiky(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    norms = _recent_norms(run)
    if len(norms) < limits["steps"]:
        return None
    high = norms / norms.median()
    # where little gradient is left, an item that is not learnt yet is no spike: it is none beside the first gradients
    above = (high > limits["times"]) & (norms > run.early())
    many, index = int((above[1:] & ~above[:-1]).sum()), float(hill(norms, 0.05))  # times that it began
    if many < limits["many"] or index > limits["tail"] or float(above.double().mean()) > limits["share"]:
        return None
    seen = (
        f"{int(above.sum())} of {len(norms):,} gradients were over {limits['times']:.0f} times as long as the median, "
        f"one {float(high.max()):,.0f} times; the tail index of their lengths is {index:.2f}"
    )
    return Evidence(seen, values={"many": many, "tail": index, "most": float(high.max())})


def _heavy(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    tails, kurtosis, stale = run.medians("tail"), run.medians("kurtosis"), run.medians("stale")
    if not run.enough:
        return None
    found = [
        k
        for k, one in run.matrices()
        if tails[k] < limits["tail"] and kurtosis[k] > limits["kurtosis"] and stale[k].isnan()
    ]
    if not found:
        return None
    lowest = float(tails[found].min())
    most = float(kurtosis[found].max())
    seen = (
        f"the tail index of the coordinates is {lowest:.2f} (below 2: no variance), their kurtosis {most:,.0f}, "
        f"{run.steps}"
    )
    return Evidence(seen, run.named(tails, found, largest=False), {"tail": lowest, "kurtosis": most})


def _clipped(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    norms = _recent_norms(run)
    if len(norms) < limits["steps"]:
        return None
    middle = float(norms.median())
    share = float(((norms - middle).abs() < limits["near"] * middle).double().mean())
    # what only changes its sign has one length without clipping
    if share < limits["share"] or abs(run.cosine("agree")) > limits["agree"]:
        return None
    seen = f"{share:.0%} of the last {len(norms):,} gradients have the same length, {middle:.4g}"
    return Evidence(seen, values={"share": share, "norm": middle})


def _stale(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    energy = run["stale"] * run["gradient"].square()
    ratios = energy.nansum(1) / torch.where(energy.isnan(), 0.0, run["gradient"].square()).sum(1)
    ratio, progress = median(ratios), run.progress()
    alive = run.height() > limits["height"]
    if len(ratios) < limits["samples"] or not ratio > limits["ratio"] or not progress < limits["progress"] or not alive:
        return None
    seen = (
        f"the optimizer's mean square of gradients is {ratio:,.0f} times that of the gradients that come now, so steps "
        f"are {math.sqrt(ratio):,.0f} times shorter than they would be; the loss {run.went(1)} {run.steps}"
    )
    by_layer = run.medians("stale")
    where = run.named(by_layer, [place for place, _ in run.matrices() if by_layer[place] > limits["ratio"]])
    return Evidence(seen, where, {"ratio": ratio, "progress": progress})


def _epsilon(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    shares = run.medians("epsilon")
    known = [place for place in range(len(shares)) if not shares[place].isnan()]
    sizes = torch.tensor([run.parameters[place].elements for place in known], dtype=torch.float64)
    if not run.enough or not known:
        return None
    share = float((shares[known] * sizes).sum() / sizes.sum())
    if share < limits["share"]:
        return None
    eps = run.run.settings.get("eps")
    given = f" ({eps:.0e})" if isinstance(eps, float) else ""
    seen = f"in {share:.0%} of the coordinates the root of the mean square is below epsilon{given}, {run.steps}"
    found = [place for place in known if shares[place] > limits["share"]]
    return Evidence(seen, run.named(shares, found), {"share": share})


RULES: Final = (
    Rule(
        "spiky",
        "rare, huge gradients",
        "wrong",
        "The lengths of gradients have a heavy tail: now and then one undoes what many did. They may be bad data.",
        "Clip (torch's clip_grad_norm_, slalom's ClipNorm or adaptive clipping); look at the batches that make them; "
        "a loss that is less impressed by outliers.",
        {"steps": 30, "times": 10.0, "many": 2, "share": 0.1, "tail": 2.0},
        "Zhang et al. 2020, arXiv:1912.03194; the limits are ours",
        _spiky,
    ),
    Rule(
        "heavy-tails",
        "a few coordinates have all of the gradient",
        "note",
        "Within a layer some coordinates' gradients are out of all proportion to the others', as where classes or "
        "words are rare: a step in proportion to the gradient trains only those.",
        "A step that is the same for every coordinate: Adam, sign methods (Lion, signSGD); clip by value.",
        {"tail": 1.0, "kurtosis": 100.0},
        "Kunstner et al. 2024, arXiv:2402.19449; Hill 1975; the limit is ours",
        _heavy,
    ),
    Rule(
        "always-clipped",
        "every gradient is clipped",
        "note",
        "All gradients arrive with one and the same length, so the clipping threshold and not the gradient sets the "
        "step of a method like SGD; a method like Adam does not notice it at all.",
        "Raise the threshold to a little above the usual length, so that it catches spikes only; or leave it and know "
        "that lr times the threshold is the length of a step.",
        {"steps": 30, "near": 1e-3, "share": 0.95, "agree": 0.99},
        "ours",
        _clipped,
    ),
    Rule(
        "stale",
        "the optimizer remembers gradients that are long gone",
        "wrong",
        "Its running mean square was filled by far larger gradients, in a spike, and still divides every step by them, "
        "though gradients are again what they were.",
        "Clip, so that no spike enters it; a lower beta2 (0.99, 0.95); reset the state once.",
        {"ratio": 100.0, "samples": 4, "progress": 0.1, "height": 0.1},
        "ours",
        _stale,
    ),
    Rule(
        "epsilon",
        "epsilon sets the steps",
        "note",
        "Gradients are so small that the constant beside the root is most of the divisor: there the method is SGD with "
        "momentum, at the rate lr / eps.",
        "Lower eps, or a quotient without one (slalom's Atan2); or a loss that is not averaged over so much.",
        {"share": 0.5},
        "definition; the share is ours",
        _epsilon,
    ),
)  # fmt: skip
