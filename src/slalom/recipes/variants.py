"""Adam with one thing changed: each of these is a part that every other recipe can use too."""

from __future__ import annotations

from typing import Literal

from slalom.parts import (
    Atan2,
    Cautious,
    CautiousDecay,
    Early,
    Ema,
    Friction,
    GradientSign,
    HeavyBall,
    Interpolated,
    KeepLength,
    LayerRate,
    PositiveNegative,
    SecondMoment,
    Sign,
    Softplus,
    TrendMoment,
    TwoSpeeds,
    VarianceReduced,
    WholeSteps,
)
from slalom.recipes.common import Betas, decoupled, moved
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe

ADAM_RATES = (3e-4, 1e-3, 3e-3)


@recipe(
    "nadamw",
    class_name="NAdamW",
    title="AdamW whose momentum looks ahead",
    family="adam",
    year=2016,
    source="Dozat 2016, in the form of timm and MLCommons, without the schedule of momenta",
    use="AlgoPerf's baseline: a little faster than AdamW at the same rates",
    avoid="starting at the full rate: the first step is 1 + beta1 rates long",
    lrs=ADAM_RATES,
)
def nadamw(lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0], nesterov=True),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "adam-atan2",
    class_name="AdamAtan2",
    title="Adam with an angle for a quotient",
    family="adam",
    year=2024,
    source="Everett et al. 2024, arXiv:2407.05872; constants of the package adam-atan2-pytorch",
    use="no epsilon to choose, steps of bounded length, any scale of gradients",
    avoid="comparing rates with Adam's exactly: small steps are 1.27 times as long",
    lrs=ADAM_RATES,
    also=("AdamAtan2",),
)
def adam_atan2(
    lr: float = 1e-4, betas: Betas = (0.9, 0.99), a: float = 1.27, b: float = 1.0, weight_decay: float = 0.0
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]), scale=SecondMoment(betas[1], Atan2(a, b)), regularize=decoupled(weight_decay), step=lr
    )


@recipe(
    "sadam",
    class_name="SAdam",
    title="Adam with a softplus for a floor",
    family="adam",
    year=2019,
    source="Tong, Liang & Bi 2019, arXiv:1908.00700; amsgrad=True is its SAMSGrad, the default of the authors' code",
    use="taming the steps of coordinates whose gradients are tiny",
    avoid="gradients under about 0.02 everywhere: it is SGD there",
    lrs=(1e-3, 1e-2, 1e-1),
    also=("SAMSGrad",),
    others="SAdam for strongly convex losses; SAdam that knows singularities (arXiv:2605.29547)",
)
def sadam(
    lr: float = 1e-2,
    betas: Betas = (0.9, 0.999),
    sharpness: float = 50.0,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], Softplus(sharpness), amsgrad="post" if amsgrad else "none"),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "diffgrad",
    class_name="DiffGrad",
    title="Adam with friction where the gradient hardly changes",
    family="adam",
    year=2019,
    source="Dubey et al. 2019, arXiv:1909.11015 (the formula; its published results came from a bug)",
    use="convolutional networks that overshoot near the end",
    avoid="memory is short: 12 bytes per parameter; friction depends on the scale of gradients",
    lrs=ADAM_RATES,
)
def diffgrad(lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], Early(eps)),
        guard=Friction(),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "adamomentum",
    class_name="AdaMomentum",
    title="Adam scaled by the momentum's own second moment",
    family="adam",
    year=2021,
    source="Wang et al. 2021, arXiv:2106.11514",
    use="gradients that alternate, which Adam hardly follows",
    avoid="starting without warm-up: the first step is ten rates long",
    lrs=(1e-4, 3e-4, 1e-3),
    also=("AdaM3",),
)
def adamomentum(lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Recipe:
    return Recipe(momentum=Ema(betas[0]), scale=TrendMoment(betas[1], eps), regularize=decoupled(weight_decay), step=lr)


@recipe(
    "adanorm",
    class_name="AdaNorm",
    title="Adam that stretches short gradients to the usual length",
    family="adam",
    year=2022,
    source="Dubey et al. 2022, arXiv:2210.06364",
    use="keeping steps up when gradients shrink",
    avoid="late training: noise is stretched as well",
    lrs=ADAM_RATES,
    also=("AdamNorm",),
    others="AdaNorm, a kind of layer normalisation",
)
def adanorm(
    lr: float = 1e-3, betas: Betas = (0.9, 0.999), r: float = 0.95, eps: float = 1e-8, weight_decay: float = 0.0
) -> Recipe:
    return Recipe(
        gradient=KeepLength(r),
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "ademamix",
    class_name="AdEMAMix",
    title="AdamW with a second, very slow momentum",
    family="adam",
    year=2024,
    source="Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137",
    use="long training, where gradients of ten thousand steps ago still help; set warmup to the number of steps",
    avoid="short runs; memory is short: 12 bytes per parameter",
    lrs=ADAM_RATES,
)
def ademamix(
    lr: float = 1e-3,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    alpha: float = 5.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    warmup: int = 0,
) -> Recipe:
    return Recipe(
        momentum=TwoSpeeds(betas[0], betas[2], alpha, warmup),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "mars-adamw",
    class_name="MARSAdamW",
    title="AdamW on variance-reduced gradients",
    family="adam",
    year=2024,
    source="Yuan et al. 2024, arXiv:2411.10438 (the approximate form)",
    use="language models at high rates",
    avoid="memory is short: 12 bytes per parameter",
    lrs=(1e-3, 3e-3, 1e-2),
    also=("MARS",),
    others="MARS-M",
)
def mars_adamw(
    lr: float = 3e-3, betas: Betas = (0.95, 0.99), gamma: float = 0.025, eps: float = 1e-8, weight_decay: float = 0.0
) -> Recipe:
    return Recipe(
        gradient=VarianceReduced(gamma, betas[0]),
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "c-adamw",
    class_name="CautiousAdamW",
    title="AdamW that moves only where the gradient agrees",
    family="adam",
    year=2024,
    source='Liang et al. 2024, arXiv:2411.16085; normalize="mean": the authors\' code and timm',
    use="a little speed for no memory",
    avoid="tiny tensors: the paper's count halves the step of a single number",
    lrs=ADAM_RATES,
    also=("CAdamW",),
)
def c_adamw(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    normalize: Literal["count", "mean", "none"] = "count",
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        guard=Cautious(normalize),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "c-lion",
    class_name="CautiousLion",
    title="Lion that moves only where the gradient agrees",
    family="sign",
    year=2024,
    source="Liang et al. 2024, arXiv:2411.16085",
    use="what Lion is for, with less overshooting",
    avoid="batches under about 64",
    lrs=(1e-4, 3e-4, 1e-3),
    also=("CLion",),
)
def c_lion(
    lr: float = 1e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: float = 0.0,
    normalize: Literal["count", "mean", "none"] = "count",
) -> Recipe:
    return Recipe(
        momentum=Interpolated(*betas),
        geometry=Sign(),
        guard=Cautious(normalize),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "grams",
    class_name="Grams",
    title="Adam's lengths with the gradient's signs",
    family="adam",
    year=2024,
    source="Cao, Li & Song 2024, arXiv:2412.17107",
    use="descent in every coordinate at every step",
    avoid="very noisy gradients: the newest one alone decides the direction",
    lrs=ADAM_RATES,
)
def grams(lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        guard=GradientSign(),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "adamw-cwd",
    class_name="AdamWCWD",
    title="AdamW with cautious weight decay",
    family="adam",
    year=2025,
    source="Chen et al. 2025, arXiv:2510.12402",
    use="weight decay that does not move the minimum of the loss",
    avoid="relying on decay to keep weights small where steps push them up",
    lrs=ADAM_RATES,
    also=("CWD", "cautious weight decay"),
)
def adamw_cwd(lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=CautiousDecay(weight_decay) if weight_decay else None,
        step=lr,
    )


@recipe(
    "pnm",
    class_name="PNM",
    title="positive-negative momentum",
    family="sgd",
    year=2021,
    source="Xie et al. 2021, arXiv:2103.17182",
    use="where SGD generalises well and more gradient noise helps",
    avoid="gradients that alternate: they are amplified",
    lrs=(1e-2, 3e-2, 1e-1),
    others="pytorch_optimizer's betas=(0.9, 1.0), which are beta and amplify here",
)
def pnm(lr: float = 1e-2, beta: float = 0.9, amplify: float = 1.0, weight_decay: float = 0.0) -> Recipe:
    return Recipe(momentum=PositiveNegative(beta, amplify), regularize=decoupled(weight_decay), step=lr)


@recipe(
    "lars",
    class_name="LARS",
    title="layer-wise adaptive rates for SGD",
    family="layerwise",
    year=2017,
    source="You et al. 2017, arXiv:1708.03888; whole_steps=True puts rates into momentum, as its formula does",
    use="convolutional networks at batches of many thousands",
    avoid="transformers (see lamb)",
    lrs=(3e-2, 1e-1, 3e-1),
)
def lars(
    lr: float = 0.1,
    momentum: float = 0.9,
    trust: float = 1e-3,
    weight_decay: float = 5e-4,
    nesterov: bool = False,
    vectors: bool = False,
    trust_clip: bool = False,
    whole_steps: bool = False,
) -> Recipe:
    ball = HeavyBall(momentum, nesterov=nesterov)
    return Recipe(
        gradient=LayerRate(trust, weight_decay, vectors, trust_clip),
        momentum=(WholeSteps(ball) if whole_steps else ball) if momentum else None,
        step=lr,
        order=moved("step", before="gradient") if trust_clip else (),
    )
