"""Methods whose one idea is what they remember: lengths that are forgotten, several memories, a memory that adapts."""

from __future__ import annotations

from typing import Final, Literal

from slalom.errors import unknown
from slalom.parts import (
    L2,
    AdaptiveMemory,
    AdaptiveMetricMemory,
    Aggregated,
    Ema,
    FractionalMemory,
    Friction,
    Geometry,
    HeavyBall,
    Interpolated,
    KeepLength,
    PositiveNegative,
    SecondMoment,
    Sign,
    Spectral,
    Transport,
    UnitLength,
    VarianceReduced,
)
from slalom.recipes.common import SCALE_FIRST, Betas, decoupled
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe

_ONE_BETA = {
    "two-groups": "one beta is chosen for the whole model by definition",
    "one-each": "one beta is chosen for the whole model by definition",
}


@recipe(
    "nsgda",
    class_name="NSGDA",
    title="momentum normalised to steps of one length, layer by layer",
    family="sgd",
    year=2022,
    source="Jelassi et al. 2022, arXiv:2210.04319; with momentum: Cutkosky & Mehta 2020, arXiv:2002.03305",
    use="GANs, whose two players then move equally far: together=True gives one length per network",
    avoid="fine convergence at a constant rate: steps never shrink; rates that fit Adam: a step is lr long per tensor",
    lrs=(3e-3, 1e-2, 3e-2),
    also=("nSGD", "normalized SGD", "NSGDM"),
    others="GradNorm, which balances several losses (slalom.losses.GradNorm)",
)
def nsgda(
    lr: float = 1e-2, beta: float = 0.9, eps: float = 1e-8, weight_decay: float = 0.0, together: bool = False
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=Ema(beta),
        geometry=UnitLength("model" if together else "tensor", eps),
        step=lr,
    )


@recipe(
    "nigt",
    class_name="NIGT",
    title="momentum normalised, with gradients taken ahead so that none in it is stale",
    family="sgd",
    year=2020,
    source="Cutkosky & Mehta 2020, arXiv:2002.03305; transport: Arnold et al. 2019, arXiv:1906.03532",
    use="smooth losses with noisy gradients, and long momentum: beta 0.99; evaluate inside opt.averaged()",
    avoid="code that reads the weights between steps: those are ahead; rates that fit Adam, as with nsgda",
    lrs=(3e-3, 1e-2, 3e-2),
)
def nigt(lr: float = 1e-2, beta: float = 0.9, eps: float = 1e-8, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=HeavyBall(beta, dampening=beta),
        geometry=UnitLength("tensor", eps),
        average=Transport(beta),
        step=lr,
    )


@recipe(
    "aggmo",
    class_name="AggMo",
    title="aggregated momentum: three heavy balls, averaged",
    family="sgd",
    year=2018,
    source="Lucas et al. 2018, arXiv:1804.00325",
    use="SGD with more momentum than one ball bears without oscillating",
    avoid="memory is short: a buffer for each beta above 0; at equal rates steps are some 37 times SGD's",
    lrs=(1e-3, 3e-3, 1e-2),
)
def aggmo(lr: float = 1e-3, betas: tuple[float, float, float] = (0.0, 0.9, 0.99), weight_decay: float = 0.0) -> Recipe:
    return Recipe(gradient=L2(weight_decay) if weight_decay else None, momentum=Aggregated(*betas), step=lr)


@recipe(
    "am-msgd",
    class_name="AMMSGD",
    title="SGD with adaptive memory",
    family="sgd",
    year=2025,
    source="Topollai & Choromanska 2025, arXiv:2510.04988",
    use="SGD with momentum that is not to be tuned",
    avoid="layers of very different gradient scales: one beta serves them all",
    lrs=(1e-2, 3e-2, 1e-1),
    exceptions=_ONE_BETA,
)
def am_msgd(lr: float = 0.1, beta_max: float = 0.9, lam: float = 0.1, weight_decay: float = 0.0) -> Recipe:
    return Recipe(gradient=L2(weight_decay) if weight_decay else None, momentum=AdaptiveMemory(beta_max, lam), step=lr)


@recipe(
    "am-adamw",
    class_name="AMAdamW",
    title="AdamW with adaptive memory",
    family="adam",
    year=2025,
    source="Topollai & Choromanska 2025, arXiv:2510.04988",
    use="AdamW without tuning beta1; its authors claim stability without warm-up",
    avoid="relying on others' experience: there is hardly any yet",
    lrs=(3e-4, 1e-3, 3e-3),
)
def am_adamw(
    lr: float = 1e-3,
    betas: Betas = (0.89, 0.999),
    lam: float = 0.1,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Recipe:
    return Recipe(
        scale=SecondMoment(betas[1], eps),
        momentum=AdaptiveMetricMemory(betas[0], lam, weight_decay),
        regularize=decoupled(weight_decay),
        order=SCALE_FIRST,
        step=lr,
    )


@recipe(
    "adapnm",
    class_name="AdaPNM",
    title="Adam with positive-negative momentum",
    family="adam",
    year=2021,
    source="Xie et al. 2021, arXiv:2103.17182",
    use="where Adam generalises badly and more gradient noise helps",
    avoid="gradients that alternate: they are amplified; memory is short: 16 bytes per parameter",
    lrs=(3e-4, 1e-3, 3e-3),
    others="pytorch_optimizer's betas=(0.9, 0.999, 1.0), whose third is amplify here",
)
def adapnm(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    amplify: float = 1.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = True,
) -> Recipe:
    return Recipe(
        momentum=PositiveNegative(betas[0], amplify, debias=True),
        scale=SecondMoment(betas[1], eps, amsgrad="post" if amsgrad else "none"),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "diffgradnorm",
    class_name="DiffGradNorm",
    title="diffGrad on gradients that are kept at their usual length",
    family="adam",
    year=2022,
    source="Dubey et al. 2022, arXiv:2210.06364; diffGrad: arXiv:1909.11015",
    use="what AdaNorm is for, with diffGrad's friction",
    avoid="late training: noise is stretched as well; memory is short: 12 bytes per parameter",
    lrs=(3e-4, 1e-3, 3e-3),
)
def diffgradnorm(
    lr: float = 1e-3, betas: Betas = (0.9, 0.999), r: float = 0.95, eps: float = 1e-8, weight_decay: float = 0.0
) -> Recipe:
    return Recipe(
        gradient=KeepLength(r),
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        guard=Friction(),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "adagl",
    class_name="AdaGL",
    title="Adam on a fractional derivative of the gradient's history",
    family="adam",
    year=2024,
    source="Chen, Zhang & Mu 2024, Neural Processing Letters, doi 10.1007/s11063-024-11571-7",
    use="experiments with long memory; alpha=0 is Adam with friction",
    avoid="anything large: 52 bytes per parameter; alpha=1 (community files have it, the paper's is not known), which "
    "forgets the mean gradient",
    lrs=(3e-4, 1e-3, 3e-3),
)
def adagl(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    alpha: float = 0.5,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    convention: Literal["difference", "memory"] = "difference",
    terms: int = 10,
) -> Recipe:
    return Recipe(
        momentum=(FractionalMemory(alpha, convention, terms), Ema(betas[0])),
        scale=SecondMoment(betas[1], eps),
        guard=Friction("rational"),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "mars-lion",
    class_name="MARSLion",
    title="the sign of momentum on variance-reduced gradients",
    family="sign",
    year=2024,
    source="Yuan et al. 2024, arXiv:2411.10438 (the approximate form)",
    use="what Lion is for, where gradients change slowly between steps",
    avoid="batches under about 64; it keeps one more gradient than Lion, 8 bytes per parameter",
    lrs=(1e-4, 3e-4, 1e-3),
    also=("MARS",),
)
def mars_lion(lr: float = 3e-4, beta: float = 0.95, gamma: float = 0.025, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        gradient=VarianceReduced(gamma, beta),
        momentum=Ema(beta, debias=False),
        geometry=Sign(),
        regularize=decoupled(weight_decay),
        step=lr,
    )


# Lion's sign is the gradient of the 1-norm; these are the gradients of other convex functions K.
LION_K: Final[dict[str, Geometry | None]] = {
    "l1": Sign(),
    "l2": UnitLength(),
    "square": None,
    "nuclear": Spectral(scaling="none"),
}


@recipe(
    "lion-k",
    class_name="LionK",
    title="Lion with another convex function in the place of the 1-norm",
    family="sign",
    year=2023,
    source="Chen et al. 2023, arXiv:2310.05898",
    use='a bound on weights in the norm of your choice: k="l2" bounds each tensor\'s length by 1 / weight_decay',
    avoid='rates that fit Lion: only k="l1" is Lion; k="nuclear" takes matrices alone',
    lrs=(3e-3, 1e-2, 3e-2),
    also=("Lion-K",),
    others="Lion-V",
)
def lion_k(lr: float = 1e-2, betas: Betas = (0.9, 0.99), weight_decay: float = 0.0, k: str = "l2") -> Recipe:
    if k not in LION_K:
        raise unknown("k", k, LION_K, owner="LionK")
    return Recipe(
        momentum=Interpolated(*betas),
        geometry=LION_K[k],
        regularize=decoupled(weight_decay),
        step=lr,
    )
