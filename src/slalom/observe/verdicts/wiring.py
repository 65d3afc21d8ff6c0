"""Is everything connected: parameters that nobody trains, and trained ones that nobody has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from slalom.observe.rules import Evidence, Recent, Rule, many

_HALVES: Final = ("float16", "bfloat16")


def _strangers(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    absent = run["gradient"].isnan().all(0)
    found = [place for place, one in enumerate(run.parameters) if not one.in_model]
    own = sum(one.trained and not one.held for one in run.parameters)
    # a loss may have parameters of its own: they get gradients, and the model's are held too
    if not found or not (own or bool(absent[found].any())):
        return None
    count = sum(run.parameters[place].elements for place in found)
    also = f", while {many(own, 'trainable parameter')} of the model are in no group" if own else ""
    seen = f"{many(len(found), 'parameter')} with {count:,} values that the model does not have{also}"
    return Evidence(seen, values={"parameters": len(found)})


def _unheld(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    found = [place for place, one in enumerate(run.parameters) if one.trained and not one.held]
    if not found:
        return None
    sizes = torch.tensor([float(one.elements) for one in run.parameters])
    share = float(sizes[found].sum() / sizes.sum())
    seen = f"{many(len(found), 'parameter')}, {share:.1%} of the values that could be trained"
    return Evidence(seen, run.named(sizes, found), {"share": share})


def _without_gradient(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    # a gradient of nan has a share of zeros, one that is not there has none; of sparse ones only the norm is measured
    absent = (run["gradient"].isnan() & run["zeros"].isnan()).all(0)
    found = [place for place, one in enumerate(run.parameters) if one.held and one.trained and absent[place]]
    if not run.enough or not found:
        return None
    seen = f"{many(len(found), 'parameter')} had no gradient {run.steps}"
    return Evidence(seen, tuple((run.parameters[place].name, float("nan")) for place in found))


def _zero_gradient(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    if not run.enough:
        return None
    zeros = run.least("zeros")
    found = [place for place, one in enumerate(run.parameters) if one.held and zeros[place] >= limits["share"]]
    if not found:
        return None
    seen = f"{many(len(found), 'parameter')} had gradients of exact zeros {run.steps}"
    return Evidence(seen, run.named(zeros, found))


def _frozen(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    found = [one for one in run.parameters if one.held and not one.trained and one.in_model]
    if not found:
        return None
    return Evidence(
        f"{many(len(found), 'parameter')} that the optimizer holds cannot get a gradient",
        tuple((one.name, float("nan")) for one in found),
    )


def _unmoved(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    if not run.enough:
        return None
    still = run.always((run["update"] == 0) & (run["gradient"] > 0))
    rates = sorted(set(run.run.samples[-1].rates))
    found = [k for k, one in enumerate(run.parameters) if still[k] and one.dtype not in _HALVES]
    moving = bool((run["update"] > 0).any())
    # with a rate and beside others that move, steps are there and too short for the weights' type: said elsewhere
    if not found or (moving and 0.0 not in rates):
        return None
    seen = f"{many(len(found), 'parameter')} with gradients did not move {run.steps}; lr {_listed(rates)}"
    return Evidence(seen, run.named(run.medians("gradient"), found), {"lr": rates[0] if rates else float("nan")})


def _rounded_away(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    if not run.enough:
        return None
    stuck = run.least("stuck")
    rated = 0.0 not in run.run.samples[-1].rates
    found = [
        place
        for place, one in enumerate(run.parameters)
        if rated and stuck[place] > limits["halves" if one.dtype in _HALVES else "singles"]
    ]
    if not found or not (bool((run["update"] > 0).any()) or run.parameters[found[0]].dtype in _HALVES):
        return None
    dtypes = " and ".join(sorted({run.parameters[place].dtype for place in found}))
    worst = float(stuck[found].max())
    seen = f"up to {worst:.0%} of the weights of {many(len(found), 'parameter')} in {dtypes} did not move {run.steps}"
    return Evidence(seen, run.named(stuck, found), {"stuck": worst})


def _never_cleared(run: Recent, limits: Mapping[str, float]) -> Evidence | None:
    norms = run.run.norm("gradient")
    agree, progress = run.cosine("agree"), run.progress()
    if not run.enough or not norms[0] > 0:
        return None
    growth = run.norm("gradient") / float(norms[0])
    if agree > limits["agree"] and growth > limits["growth"] and progress < limits["progress"]:
        seen = (
            f"successive gradients have a cosine of {agree:.3f} and are {growth:,.0f} times as long as at step "
            f"{run.run.steps[0]}, while the loss does not fall"
        )
        return Evidence(seen, values={"agree": agree, "growth": growth, "progress": progress})
    return None


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


RULES: Final = (
    Rule(
        "strangers",
        "the optimizer steps parameters that the model does not have",
        "broken",
        "The optimizer was given tensors that are no parameters of this model: it was built before the model was "
        "rebuilt, moved or wrapped, or for another one.",
        "Build the optimizer after the model is complete and where it stays: optimizer = ...(model.parameters()).",
        {},
        "definition",
        _strangers,
        alone=True,
    ),
    Rule(
        "unheld",
        "trainable parameters are in no group",
        "wrong",
        "They get gradients and stay as they were drawn, unless another optimizer has them.",
        "Add them, optimizer.add_param_group({...}), or say that they are not trained: requires_grad_(False).",
        {},
        "definition",
        _unheld,
    ),
    Rule(
        "no-gradient",
        "parameters without a gradient",
        "wrong",
        "The loss does not depend on them, or something on the way cuts the graph: detach, no_grad, item, argmax.",
        "Find out where the way from them to the loss ends; if they are not used, leave them out.",
        {},
        "definition",
        _without_gradient,
    ),
    Rule(
        "zero-gradient",
        "parameters whose gradient is exactly zero",
        "wrong",
        "They are connected and the loss does not feel them: units behind them are dead, a gate or a factor after them "
        "is zero, half precision swallows the gradient, or the loss is saturated.",
        "Look at what follows them: initial values that are zero, dead rectifiers; with float16 use a GradScaler.",
        {"share": 1.0},
        "definition",
        _zero_gradient,
    ),
    Rule(
        "frozen",
        "frozen parameters in the optimizer",
        "note",
        "requires_grad is off, so they never move, though the optimizer was given them.",
        "If that was not meant: parameter.requires_grad_(). If it was, leave them out of the groups.",
        {},
        "definition",
        _frozen,
    ),
    Rule(
        "unmoved",
        "parameters with gradients that do not move",
        "broken",
        "The step leaves them exactly where they were: the rate is 0, a scheduler has ended, every step is skipped, or "
        "something writes them back.",
        'Look at optimizer.param_groups[...]["lr"] and at the scheduler; under a GradScaler at its scale.',
        {},
        "definition",
        _unmoved,
    ),
    Rule(
        "rounded-away",
        "updates are lost to rounding",
        "wrong",
        "Steps are shorter than half the distance to the next number that the weight's type can hold, so adding them "
        "changes nothing.",
        "Keep the weights in float32 (autocast does), round stochastically, or raise the rate.",
        {"halves": 0.5, "singles": 0.9},
        "half a unit in the last place; the shares are ours",
        _rounded_away,
    ),
    Rule(
        "never-cleared",
        "gradients pile up: they are never cleared",
        "broken",
        "Every gradient contains all those before it, as it does without zero_grad.",
        "Call optimizer.zero_grad() once per step, before backward.",
        {"agree": 0.95, "growth": 5.0, "progress": 0.01},
        "ours",
        _never_cleared,
        alone=True,
    ),
)  # fmt: skip
