"""Adam and its relatives: momentum over a running second moment."""

from __future__ import annotations

from typing import Final, Literal

from slalom.errors import unknown
from slalom.parts import (
    L2,
    Belief,
    Decoupled,
    Early,
    Ema,
    Extrapolated,
    MaxNorm,
    NesterovEma,
    ProximalDecay,
    Rectified,
    SecondMoment,
)
from slalom.recipes.common import SCALE_FIRST, Betas, decoupled
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe

Maximum = Literal["none", "post", "pre", "memoryless", "two-step"]

# How the metric is kept from shrinking, whether momentum is corrected, whether the metric is. "torch" is what almost
# everybody has run; "paper" corrects nothing; the others are described at `slalom.parts.SecondMoment`.
AMSGRAD_VARIANTS: Final[dict[str, tuple[Maximum, bool, bool]]] = {
    "torch": ("post", True, True),
    "paper": ("post", False, False),
    "pre": ("pre", True, True),
    "memoryless": ("memoryless", True, False),
    "memoryless-corrected": ("memoryless", True, True),
    "two-step": ("two-step", True, True),
}


@recipe(
    "adam",
    class_name="Adam",
    title="adaptive moments",
    family="adam",
    year=2014,
    source="Kingma & Ba 2014, arXiv:1412.6980; AMSGrad: Reddi et al. 2018, arXiv:1904.09237",
    use="the default for most things; forgiving of the learning rate",
    avoid="weight decay: as L2 it is divided by the metric; take adamw",
    lrs=(3e-4, 1e-3, 3e-3),
)
def adam(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps, amsgrad="post" if amsgrad else "none"),
        step=lr,
    )


@recipe(
    "adamw",
    class_name="AdamW",
    title="Adam with decoupled weight decay",
    family="adam",
    year=2017,
    source="Loshchilov & Hutter 2017, arXiv:1711.05101",
    use="transformers, and whenever weight decay matters",
    avoid="memory is short: 8 bytes per parameter",
    lrs=(3e-4, 1e-3, 3e-3),
)
def adamw(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps, amsgrad="post" if amsgrad else "none"),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "amsgrad",
    class_name="AMSGrad",
    title="Adam whose metric never shrinks, torch's variant by default",
    family="adam",
    year=2018,
    source="Reddi, Kale & Kumar 2018, arXiv:1904.09237",
    use="rare large gradients that Adam forgets too soon",
    avoid="non-stationary problems: one early spike slows a coordinate for good",
    lrs=(3e-4, 1e-3, 3e-3),
)
def amsgrad(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    variant: str = "torch",
) -> Recipe:
    if variant not in AMSGRAD_VARIANTS:
        raise unknown("variant", variant, AMSGRAD_VARIANTS, owner="AMSGrad")
    maximum, momentum_debias, scale_debias = AMSGRAD_VARIANTS[variant]
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=Ema(betas[0], debias=momentum_debias),
        scale=SecondMoment(betas[1], eps, debias=scale_debias, amsgrad=maximum),
        step=lr,
    )


@recipe(
    "adamax",
    class_name="Adamax",
    title="Adam in the max norm",
    family="adam",
    year=2014,
    source="Kingma & Ba 2014, arXiv:1412.6980, section 7.1",
    use="embeddings and gradients with rare spikes: a spike is tamed at once",
    avoid="nothing in particular; rarely better than Adam",
    lrs=(3e-4, 1e-3, 3e-3),
)
def adamax(lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=Ema(betas[0]),
        scale=MaxNorm(betas[1], eps),
        step=lr,
    )


@recipe(
    "nadam",
    class_name="NAdam",
    title="Adam with Nesterov's look-ahead",
    family="adam",
    year=2016,
    source='Dozat 2016, "Incorporating Nesterov Momentum into Adam"',
    use="where Adam works and a little more speed is welcome",
    avoid="very noisy gradients: the look-ahead gives the newest one more weight",
    lrs=(3e-4, 1e-3, 3e-3),
)
def nadam(
    lr: float = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
) -> Recipe:
    coupled = weight_decay and not decoupled_weight_decay
    decoupled = weight_decay and decoupled_weight_decay
    return Recipe(
        gradient=L2(weight_decay) if coupled else None,
        momentum=NesterovEma(betas[0], momentum_decay),
        scale=SecondMoment(betas[1], eps),
        regularize=Decoupled(weight_decay) if decoupled else None,
        step=lr,
    )


@recipe(
    "radam",
    class_name="RAdam",
    title="rectified Adam",
    family="adam",
    year=2019,
    source="Liu et al. 2019, arXiv:1908.03265",
    use="Adam without a warm-up schedule",
    avoid="gradients far from unit size: the first steps are plain momentum, not scale-free",
    lrs=(3e-4, 1e-3, 3e-3),
)
def radam(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    variant: str = "torch",
    degenerated_to_sgd: bool = True,
) -> Recipe:
    if variant not in ("torch", "paper"):
        raise unknown("variant", variant, ("torch", "paper"), owner="RAdam")
    coupled = weight_decay and not decoupled_weight_decay
    decoupled = weight_decay and decoupled_weight_decay
    as_torch = variant == "torch"
    return Recipe(
        gradient=L2(weight_decay) if coupled else None,
        momentum=Ema(betas[0]),
        # The paper adapts from rho > 4 on, the authors' code and torch from rho > 5 (beta2 = 0.999: one step later).
        scale=Rectified(
            SecondMoment(betas[1], Early(eps) if as_torch else eps),
            5.0 if as_torch else 4.0,
            "momentum" if degenerated_to_sgd else "nothing",
        ),
        regularize=Decoupled(weight_decay) if decoupled else None,
        step=lr,
    )


@recipe(
    "adabelief",
    class_name="AdaBelief",
    title="belief in the observed gradient",
    family="adam",
    year=2020,
    source="Zhuang et al. 2020, arXiv:2010.07468 (rectify=True is the default of the authors' package)",
    use="small convolutional networks and GANs where Adam generalises badly",
    avoid="noise-free gradients: steps grow without bound",
    lrs=(3e-4, 1e-3, 3e-3),
)
def adabelief(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-16,
    weight_decay: float = 0.0,
    rectify: bool = False,
    amsgrad: bool = False,
) -> Recipe:
    belief = Belief(betas[1], eps, "post" if amsgrad else "none")
    return Recipe(
        momentum=Ema(betas[0]),
        scale=Rectified(belief) if rectify else belief,
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "laprop",
    class_name="LaProp",
    title="Adam that normalises first and averages then",
    family="adam",
    year=2020,
    source="Ziyin, Wang & Ueda 2020, arXiv:2002.04839",
    use="beta2 far below beta1 and noisy gradients, where Adam diverges",
    avoid="nothing in particular; at default betas it behaves like Adam",
    lrs=(3e-4, 1e-3, 3e-3),
)
def laprop(lr: float = 4e-4, betas: Betas = (0.9, 0.999), eps: float = 1e-15, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        scale=SecondMoment(betas[1], eps),
        momentum=Ema(betas[0]),
        order=SCALE_FIRST,
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "adan",
    class_name="Adan",
    title="adaptive Nesterov momentum",
    family="adam",
    year=2022,
    source="Xie et al. 2022, arXiv:2208.06677 (betas are decays, as in its code; the paper's are their complements)",
    use="vision transformers and large batches",
    avoid="memory is short: 16 bytes per parameter",
    lrs=(3e-4, 1e-3, 3e-3),
    others="betas as the paper counts them: its (0.02, 0.08, 0.01) are the complements of these decays",
)
def adan(
    lr: float = 1e-3,
    betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    no_prox: bool = False,
) -> Recipe:
    proximal = None if no_prox or not weight_decay else ProximalDecay(weight_decay)
    return Recipe(
        momentum=Extrapolated(betas[0], betas[1]),
        scale=SecondMoment(betas[2], eps),
        regularize=decoupled(weight_decay) if no_prox else proximal,
        step=lr,
    )
