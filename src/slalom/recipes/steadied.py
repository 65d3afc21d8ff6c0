"""Adam, steadied: what its metric may know, how far a step may go, and when it gives way to SGD."""

from __future__ import annotations

from slalom.parts import (
    L2,
    Clamped,
    ClipEach,
    ClipRate,
    Delayed,
    Early,
    Ema,
    Fixed,
    Hold,
    InState,
    PreviousMoment,
    SecondMoment,
    SpectralCap,
    Switch,
)
from slalom.recipes.common import CLIPPED_FIRST, DECAY_INSIDE, Betas, decoupled
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe


# ADOPT clips the quotient before momentum remembers it.
@recipe(
    "adopt",
    class_name="ADOPT",
    title="Adam whose metric does not know the newest gradient",
    family="adam",
    year=2024,
    source="Taniguchi et al. 2024, arXiv:2411.02853",
    use="Adam with a proof of convergence for every beta2",
    avoid="counting its first step: it only looks; clip=False, where the first gradients are far from the later ones",
    lrs=(3e-4, 1e-3, 3e-3),
)
def adopt(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.9999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    clip: bool = True,
) -> Recipe:
    return Recipe(
        scale=PreviousMoment(betas[1], Clamped(eps)),
        guard=ClipEach(1.0, 0.25) if clip else None,
        momentum=Delayed(Ema(betas[0], debias=False)),
        regularize=decoupled(weight_decay),
        step=Hold(Fixed(lr)),
        order=CLIPPED_FIRST,
    )


@recipe(
    "stable-adamw",
    class_name="StableAdamW",
    title="AdamW with Adafactor's clipping of steps",
    family="adam",
    year=2023,
    source="Wortsman et al. 2023, arXiv:2304.13013",
    use="loss spikes of large models whose second moment lags behind; instead of gradient clipping",
    avoid="nothing in particular; where nothing spikes it is AdamW",
    lrs=(3e-4, 1e-3, 3e-3),
)
def stable_adamw(lr: float = 1e-3, betas: Betas = (0.9, 0.99), eps: float = 1e-8, weight_decay: float = 1e-2) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        guard=ClipRate(),
        order=DECAY_INSIDE,
        step=lr,
    )


@recipe(
    "eadam",
    class_name="EAdam",
    title="Adam that adds its epsilon to the second moment at every step",
    family="adam",
    year=2020,
    source="Yuan & Gao 2020, arXiv:2011.02150",
    use="Adam with a floor that grows to a thousand epsilons",
    avoid="gradients under about 3e-3, which are below that floor",
    lrs=(3e-4, 1e-3, 3e-3),
)
def eadam(lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], InState(eps)),
        step=lr,
    )


@recipe(
    "swats",
    class_name="SWATS",
    title="Adam that turns into SGD",
    family="adam",
    year=2017,
    source="Keskar & Socher 2017, arXiv:1712.07628",
    use="Adam's fast start where SGD generalises better",
    avoid="short runs: the switch may never come; transformers, which SGD does not train",
    lrs=(3e-4, 1e-3, 3e-3),
    exceptions={
        "late-gradient": "the switch is one for the whole model: a late tensor meets what the others decided",
        "two-groups": "the switch is one for the whole model, by definition",
        "one-each": "the switch is one for the whole model, by definition",
        "mixed-dtypes": "the switch is one for the whole model, by definition",
    },
)
def swats(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-9,
    weight_decay: float = 0.0,
    tolerance: float = 1e-5,
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], Early(eps)),
        guard=Switch(betas[0], betas[1], tolerance),
        step=lr,
    )


@recipe(
    "adamw2",
    class_name="AdamW2",
    title="AdamW whose steps are capped in the spectral norm",
    family="adam",
    year=2025,
    source="Qi et al. 2025, arXiv:2505.21910; no official code, tau not confirmed",
    use="transformers without warm-up: the cap is one by itself",
    avoid="memory traffic matters: two more passes over every matrix per power iteration",
    lrs=(3e-4, 1e-3, 3e-3),
    also=("AdamW^2",),
)
def adamw2(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    tau: float = 1e-2,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    iterations: int = 1,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        guard=SpectralCap(tau, iterations=iterations),
        order=DECAY_INSIDE,
        step=lr,
    )
