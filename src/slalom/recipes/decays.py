"""Methods whose one idea is the pull towards small weights: where it is strong, weak, or out of place."""

from __future__ import annotations

from typing import Literal

from slalom.parts import (
    Constrained,
    Decoupled,
    Ema,
    HeavyBall,
    SecondMoment,
    StableDecay,
    Tangent,
)
from slalom.recipes.common import DECAY_INSIDE, Betas, decoupled
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe


@recipe(
    "adams",
    class_name="AdamS",
    title="Adam with stable weight decay",
    family="adam",
    year=2020,
    source="Xie et al. 2020, arXiv:2011.11152 (not the AdamS of arXiv:2505.16363)",
    use="weight decay of L2's size, such as 5e-4, that Adam does not weaken as gradients grow",
    avoid="layers that train at very different times: one number serves the whole model",
    lrs=(3e-4, 1e-3, 3e-3),
    exceptions={
        "late-gradient": "decay is scaled by the whole model's gradients: a late tensor meets what the others had",
        "two-groups": "decay is scaled by the whole model's gradients, by definition",
        "one-each": "decay is scaled by the whole model's gradients, by definition",
    },
    also=("SWD", "AdamSWD", "stable weight decay", "scheduled weight decay"),
    others="AdamS, whose momentum normalises itself (arXiv:2505.16363); SWD as a Wasserstein distance",
)
def adams(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    amsgrad: bool = False,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps, amsgrad="post" if amsgrad else "none"),
        regularize=StableDecay(weight_decay) if weight_decay else None,
        step=lr,
    )


@recipe(
    "sgds",
    class_name="SGDS",
    title="SGD with stable weight decay",
    family="sgd",
    year=2020,
    source="Xie et al. 2020, arXiv:2011.11152",
    use="SGD whose decay keeps its strength when momentum changes, as steps do",
    avoid="taking weight_decay over from SGD with decoupled decay: this one is 1 / (1 - momentum) as strong",
    lrs=(1e-2, 3e-2, 1e-1),
    also=("SGDSWD",),
)
def sgds(
    lr: float = 1e-1,
    momentum: float = 0.9,
    dampening: float = 0.0,
    weight_decay: float = 5e-4,
    nesterov: bool = False,
) -> Recipe:
    return Recipe(
        momentum=HeavyBall(momentum, dampening or 0.0, nesterov) if momentum else None,
        regularize=Decoupled(weight_decay * (1 - dampening) / (1 - momentum)) if weight_decay else None,
        step=lr,
    )


@recipe(
    "adamcpr",
    class_name="AdamCPR",
    title="Adam with a bound on each matrix's length",
    family="adam",
    year=2023,
    source="Franke et al. 2023, arXiv:2311.09058, as in the authors' package",
    use="weight decay without a strength to tune: set steps to about twice the warm-up",
    avoid='short runs with kappa_init="warm_start": before that step there is no decay; vectors are never decayed',
    lrs=(3e-4, 1e-3, 3e-3),
    exceptions={"numbers-matter": "kappa is for the other kinds of kappa_init: warm_start measures what stands for it"},
    also=("CPR", "constrained parameter regularization"),
)
def adamcpr(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    kappa: float = 1.0,
    kappa_init: str = "warm_start",
    steps: int = 1000,
    mu: float = 1.0,
    measure: Literal["square", "half", "l1", "huber", "deviation"] = "square",
    by_rate: bool = False,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=Constrained(kappa, kappa_init, steps, mu, measure, by_rate),  # type: ignore[arg-type]  # the part checks the word
        step=lr,
    )


@recipe(
    "adamp",
    class_name="AdamP",
    title="AdamW that does not lengthen weights whose length does not matter",
    family="adam",
    year=2020,
    source="Heo et al. 2020, arXiv:2006.08217",
    use="convolutional networks with normalisation layers, whose weights Adam makes ever longer",
    avoid="networks without normalisation: it is AdamW there",
    lrs=(3e-4, 1e-3, 3e-3),
)
def adamp(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    nesterov: bool = False,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0], nesterov=nesterov),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        guard=Tangent(delta, wd_ratio, eps),
        order=DECAY_INSIDE,
        step=lr,
    )


@recipe(
    "nadamp",
    class_name="NAdamP",
    title="AdamP whose momentum looks ahead",
    family="adam",
    year=2020,
    source="Heo et al. 2020, arXiv:2006.08217, with the authors' nesterov=True",
    use="what AdamP is for, a little faster",
    avoid="starting at the full rate: the first step is 1 + beta1 rates long",
    lrs=(3e-4, 1e-3, 3e-3),
)
def nadamp(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
) -> Recipe:
    return adamp(lr, betas, eps, weight_decay, delta, wd_ratio, nesterov=True)
