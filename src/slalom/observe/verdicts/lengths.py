"""Are steps of the right length, and why does the loss not fall. Rules about the run as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch

from slalom.observe.noise import noise_to_batch
from slalom.observe.rules import Evidence, Recent, Rule, median


def _non_finite(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    whole = run.run
    weights, gradients = whole["weight_bad"].nan_to_num(0.0), whole["bad"].nan_to_num(0.0)
    updates = whole["update_bad"].nan_to_num(0.0)
    losses = [sample.bad_losses for sample in whole.samples]
    broken = bool(weights[-1].any()) or bool(updates[-1].any()) or losses[-1] > 0
    if not broken:
        return None
    first = next(
        place
        for place in range(len(losses))
        if weights[place].any() or updates[place].any() or gradients[place].any() or losses[place]
    )
    bad = (gradients[first] + weights[first] + updates[first]) > 0
    found = [place for place in range(len(run.parameters)) if bad[place]]
    kinds = [
        (len(whole.parameters) and int((weights[-1] > 0).sum()), "parameters hold nan or infinity"),
        (int((gradients[-1] > 0).sum()), "gradients do"),
        (losses[-1], "losses since the last sample did"),
    ]
    now = ", ".join(f"{count} {what}" for count, what in kinds if count)
    seen = f"at step {whole.steps[-1]:,} {now}; first seen at step {whole.steps[first]:,}"
    if first:
        seen += f" (`slalom observe --at {whole.steps[first - 1]}` shows the run before that)"
    return Evidence(
        seen, tuple((whole.parameters[place].name, math.nan) for place in found), {"first": whole.steps[first]}
    )


def _diverging(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    losses = [loss for loss in run.run.losses if math.isfinite(loss)]
    if len(losses) < 4:
        return None
    best, now = min(losses), min(losses[-2:])
    fallen = losses[0] - best
    # of many losses that are noise alone the lowest lies far below the last ones
    noise = median(torch.tensor(losses, dtype=torch.float64).diff().abs())
    if now - best <= max(limits["back"] * fallen, limits["rise"] * abs(best), limits["noise"] * noise):
        return None
    at = run.run.steps[run.run.losses.index(best)]
    start = f" and {losses[0]:.4g} at the start" if best < losses[0] else ""
    seen = f"the loss is {losses[-1]:.4g}, after {best:.4g} at step {at:,}{start}"
    return Evidence(seen, values={"loss": losses[-1], "best": best, "start": losses[0]})


def _uphill(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    descent, progress = run.cosine("descent"), run.progress()
    known = not math.isnan(progress)
    if not run.enough or not descent < limits["descent"] or (known and progress > 0):
        return None
    if run.run.settings.get("maximize") and not known:
        return None
    seen = f"the cosine between update and descent is {descent:.2f} {run.steps}"
    return Evidence(seen, values={"descent": descent, "progress": progress})


def _overshooting(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    probes = [sample.probe for sample in run.run.samples[max(run.first, 0) :] if sample.probe is not None]
    rises = [after > before for before, after in probes if math.isfinite(before)]
    share = sum(rises) / len(rises) if rises else math.nan
    past, progress = run.cosine("past"), run.progress()
    if not run.enough:
        return None
    if share > limits["rises"]:
        seen = (
            f"{share:.0%} of the steps raised the loss of the very batch that they were taken for, {run.steps}: it is "
            f"lowest at {run.reach():.2g} of a step"
        )
        return Evidence(seen, values={"rises": share, "past": past})
    if past > limits["past"] and run.rises(limits["rising"]):
        seen = (
            f"the gradient after a step has a cosine of {past:.2f} with it: uphill again; and the loss rose by "
            f"{-progress:.1%} {run.steps}"
        )
        return Evidence(seen, values={"past": past, "progress": progress})
    return None


# Batches drawn without return have a cosine of -1 / (batches per epoch - 1) near a minimum, which is no bouncing.
def _bouncing(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    agree, progress = run.cosine("agree"), run.progress()
    height = run.height()
    if (
        not run.enough
        or not run.stands(limits["progress"])
        or not (agree < limits["agree"] and height > limits["height"])
    ):
        return None
    seen = (
        f"the loss {run.went(1)} {run.steps}, while gradients are {height:.2g} times as long as at the start "
        f"and turn round at every step (cosine {agree:.2f})"
    )
    places = [place for place, _ in run.matrices()]
    by_layer = run.medians("agree")
    found = [place for place in places if by_layer[place] < limits["agree"]]
    where = run.named(by_layer, found, largest=False)
    return Evidence(seen, where, {"agree": agree, "height": height, "progress": progress})


def _creeping(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    agree, progress = run.cosine("agree"), run.progress()
    ratios = _updates_over_weights(run)
    if not run.enough or _gone(run) or _warming(run):
        return None
    longest, now = float(ratios.nan_to_num(0.0).max()), median(ratios[max(run.first, 0) :])
    tiny = longest < limits["ratio"] and agree > limits["agree"]
    straight = agree > limits["straight"] and run.cosine("turn") > limits["straight"] and longest < limits["short"]
    stands = run.stands(limits["progress"])
    # noise may hide whether the loss stands; such steps are too short all the same, unless it clearly falls
    if not (tiny and (stands or not run.falls(limits["progress"]))) and not (straight and stands):
        return None
    seen = (
        f"a step changes the weights by {now:.1e} of their length, at most {longest:.1e} so far; gradients keep their "
        f"direction (cosine {agree:.2f}), and the loss {run.went(2)} {run.steps}"
    )
    return Evidence(seen, values={"ratio": now, "longest": longest, "agree": agree, "progress": progress})


def _noisy(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    agree, progress = run.cosine("agree"), run.progress()
    ratio = median(_updates_over_weights(run)[max(run.first, 0) :])
    if not run.enough or not run.stands(limits["progress"]) or ratio < limits["ratio"] or _gone(run):
        return None
    noise = noise_to_batch(run.run, run.first)
    if not abs(agree) < limits["agree"] or not noise > limits["noise"] or _ended(run, limits["decayed"]):
        return None
    times = f"{noise:,.0f} times" if noise < 1e4 else "over 10,000 times"
    seen = (
        f"successive gradients have a cosine of {agree:.2f}: noise is {times} the signal; the loss {run.went()} "
        f"{run.steps}"
    )
    return Evidence(seen, values={"agree": agree, "noise": noise, "progress": progress})


def _flat(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    progress = run.progress()
    height = run.height()
    if not run.enough or not run.stands(limits["progress"]) or not height < limits["height"]:
        return None
    seen = f"the gradient is {height:.1e} times as long as at the start, and the loss {run.went(2)} {run.steps}"
    return Evidence(seen, values={"height": height, "progress": progress})


def _updates_over_weights(run: Recent) -> torch.Tensor:
    """Return the length of an update over that of the weights, over all matrices, one value per sample of the run."""
    places = [place for place, _ in run.matrices()] or list(range(len(run.parameters)))
    update, weight = (run.run[name][:, places].square().nansum(1).sqrt() for name in ("update", "weight"))
    return update / weight


def _warming(run: Recent) -> bool:
    """Whether the rate is still going up."""
    rates = [max(sample.rates) for sample in run.run.samples if sample.rates]
    return len(rates) > 1 and rates[-1] == max(rates) > rates[max(run.first, 0)]


def _ended(run: Recent, decayed: float) -> bool:
    """Whether the rate has come down, as at the end of a schedule: short steps are meant to be."""
    rates = [max(sample.rates) for sample in run.run.samples if sample.rates]
    return bool(rates) and rates[-1] < decayed * max(rates)


def _gone(run: Recent) -> bool:
    """Whether there is next to no gradient left."""
    return run.height() < _FLAT["height"]


_FLAT: Final = {"progress": 0.01, "height": 1e-3}

RULES: Final = (
    Rule(
        "non-finite",
        "nan or infinity",
        "broken",
        "Once a weight is not finite nothing that is computed from it is.",
        'Lower the rate or warm up; clip; let bad steps pass with slalom\'s on_nonfinite="skip"; look at what the '
        "first parameter named computes: logarithms, divisions, half precision.",
        {},
        "definition",
        _non_finite,
        alone=True,
    ),
    Rule(
        "diverging",
        "the loss went back up",
        "broken",
        "What had been learnt is being lost. A rate that is too high, or a spike that the method has not got over.",
        "Go back to a checkpoint before the rise; lower the rate to a third, clip the gradient, warm up longer.",
        {"back": 0.5, "rise": 0.1, "noise": 7.0},
        "ours: half of what the loss had fallen, a tenth of its lowest, and 7 times what samples differ by",
        _diverging,
    ),
    Rule(
        "uphill",
        "steps go uphill",
        "broken",
        "Updates point along the gradient instead of against it.",
        "Look for a wrong sign: maximize=True, a loss that should be negated, a gradient that a hook turned.",
        {"descent": -0.2},
        "definition; the limit is ours",
        _uphill,
    ),
    Rule(
        "overshooting",
        "the learning rate is too high",
        "wrong",
        "Steps go past the lowest point along their own direction and up the other side.",
        "Lower lr to a third and look again; `slalom find-lr` finds where it begins.",
        {"rises": 0.67, "past": 0.2, "rising": 0.02},
        "a step along which the gradient changes sign; the shares are ours",
        _overshooting,
    ),
    Rule(
        "bouncing",
        "stuck between the walls of a valley",
        "wrong",
        "The loss stands still though gradients are large: steps bounce across a valley whose walls are too steep for "
        "the rate, and hardly move along its floor. Stuck is not the same as a small gradient.",
        "Lower the rate, or decay it; give steep and shallow directions steps of their own (Adam, Muon, SOAP) or "
        "average the bouncing out (momentum, Schedule-Free).",
        {"progress": 0.01, "agree": -0.4, "height": 0.1},
        'lecture notes, "training stuck is not small gradient"; the limits are ours',
        _bouncing,
    ),
    Rule(
        "creeping",
        "the learning rate is too low",
        "wrong",
        "Gradients say the same thing step after step, and steps are too short to get anywhere.",
        "Raise lr tenfold and look again; `slalom find-lr` finds where it ends.",
        {"progress": 0.02, "ratio": 1e-5, "agree": 0.05, "straight": 0.95, "short": 1e-3},
        "updates of about 1e-3 of the weights are usual (CS231n notes); the limits are ours",
        _creeping,
    ),
    Rule(
        "noisy",
        "noise holds the loss up",
        "note",
        "Successive gradients have nothing in common: steps go wherever the batch points, and the loss stands where "
        "noise and rate balance. Or it has reached the floor that noise in the data sets.",
        "Lower or decay the rate (the height of the ball of noise is in proportion to it), take a larger batch, "
        "or average weights (EMA, Schedule-Free).",
        {"progress": 0.01, "agree": 0.1, "noise": 10.0, "ratio": 1e-5, "decayed": 0.1},
        "McCandlish et al. 2018, arXiv:1812.06162; Karimi et al. 2016, arXiv:1608.04636; the limits are ours",
        _noisy,
    ),
    Rule(
        "flat",
        "no gradient is left",
        "note",
        "The loss stands still and so does its slope: a minimum, a saddle, or saturated units.",
        "If the loss is good, stop. If not: other initial values, norms, units that do not saturate, noise.",
        _FLAT,
        "ours",
        _flat,
    ),
)  # fmt: skip
