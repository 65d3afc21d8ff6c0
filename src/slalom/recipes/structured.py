"""Methods that look at a whole tensor: layer-wise ratios, factored statistics, matrix geometry, averages."""

from __future__ import annotations

from slalom.parts import (
    ClipNorm,
    ClipUpdate,
    Ema,
    Factored,
    Relative,
    SecondMoment,
    TrustRatio,
)
from slalom.recipes.common import DECAY_INSIDE, decoupled
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe


@recipe(
    "lamb",
    class_name="LAMB",
    title="layer-wise adaptive moments",
    family="layerwise",
    year=2019,
    source="You et al. 2019, arXiv:1904.00962",
    use="large batches with many layers of different scale",
    avoid="single layers and tiny batches: the ratio only adds noise",
    lrs=(1e-3, 3e-3, 1e-2),
)
def lamb(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 1e-2,
    bias_correction: bool = True,
    max_grad_norm: float = 0.0,
    trust_clip: float = 0.0,
    longest: float = 0.0,
) -> Recipe:
    return Recipe(
        gradient=ClipNorm(max_grad_norm) if max_grad_norm else None,
        momentum=Ema(betas[0], debias=bias_correction),
        scale=SecondMoment(betas[1], eps, debias=bias_correction),
        regularize=decoupled(weight_decay),
        guard=TrustRatio(high=longest, most=trust_clip),
        order=DECAY_INSIDE,
        step=lr,
    )


@recipe(
    "adafactor",
    class_name="Adafactor",
    title="factored second moments, relative steps",
    family="memory",
    year=2018,
    source="Shazeer & Stern 2018, arXiv:1804.04235",
    use="training at the edge of memory: a few bytes per row and column",
    avoid="small networks, where Adam's memory does not hurt",
    lrs=(3e-3, 1e-2, 3e-2),
)
def adafactor(
    lr: float = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float, float] = (1e-30, 1e-3),
    d: float = 1.0,
    weight_decay: float = 0.0,
) -> Recipe:
    return Recipe(
        scale=Factored(beta2_decay, eps[0]),
        guard=ClipUpdate(d),
        step=Relative(lr, eps[1]),
        regularize=decoupled(weight_decay),
    )
