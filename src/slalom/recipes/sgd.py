"""Stochastic gradient descent and the methods that look at signs only."""

from __future__ import annotations

from slalom.parts import L2, Ema, HeavyBall, Interpolated, Sign
from slalom.recipes.common import decoupled
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe


@recipe(
    "sgd",
    class_name="SGD",
    title="stochastic gradient descent, with momentum",
    family="sgd",
    year=1951,
    source="Robbins & Monro 1951; momentum: Polyak 1964; Nesterov's form: Sutskever et al. 2013",
    use="convolutional networks with normalisation and a tuned schedule; the least memory",
    avoid="transformers and anything whose layers need different rates",
    lrs=(1e-2, 3e-2, 1e-1),
    also=("momentum", "Nesterov", "heavy ball"),
)
def sgd(
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Recipe:
    if nesterov and (not momentum or dampening):
        raise ValueError(
            f"nesterov=True with {momentum=:g}, {dampening=:g}: it needs momentum above 0 and dampening 0."
        )
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=HeavyBall(momentum, dampening or 0.0, nesterov) if momentum else None,
        step=lr,
    )


@recipe(
    "signsgd",
    class_name="SignSGD",
    title="the sign of the gradient",
    family="sign",
    year=2018,
    source="Bernstein et al. 2018, arXiv:1802.04434",
    use="no state at all; communication of one bit per value",
    avoid="small batches: the sign of noise is as long as the sign of a gradient",
    lrs=(1e-4, 3e-4, 1e-3),
)
def signsgd(lr: float = 1e-3, weight_decay: float = 0.0) -> Recipe:
    return Recipe(geometry=Sign(), regularize=decoupled(weight_decay), step=lr)


@recipe(
    "signum",
    class_name="Signum",
    title="the sign of momentum",
    family="sign",
    year=2018,
    source="Bernstein et al. 2018, arXiv:1802.04434",
    use="half of Adam's state at nearly its robustness",
    avoid="fine convergence at a constant rate: steps never shrink",
    lrs=(1e-4, 3e-4, 1e-3),
)
def signum(lr: float = 1e-3, beta: float = 0.9, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        momentum=Ema(beta, debias=False),
        geometry=Sign(),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "lion",
    class_name="Lion",
    title="evolved sign momentum",
    family="sign",
    year=2023,
    source="Chen et al. 2023, arXiv:2302.06675",
    use="large batches and low memory; a rate 3-10 times below AdamW's, a decay as much above",
    avoid="batches under about 64",
    lrs=(1e-4, 3e-4, 1e-3),
    others="Lion-V",
)
def lion(lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        momentum=Interpolated(*betas),
        geometry=Sign(),
        regularize=decoupled(weight_decay),
        step=lr,
    )
