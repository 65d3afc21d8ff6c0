"""Methods that remember a few directions of a matrix, or move in them; AdamW where there is no matrix."""

from __future__ import annotations

from typing import Final, Literal

from slalom.parts import (
    Early,
    Ema,
    GrowthLimit,
    InSubspace,
    LateCorrection,
    Random,
    ScaledAsInSubspace,
    SecondMoment,
    Singular,
    StrongestPolar,
    TrackedSubspace,
)
from slalom.recipes.common import Betas, decoupled
from slalom.recipes.matrix import BY_ROLE, MATRIX_RATES, with_adam
from slalom.recipes.recipe import ByRole, Recipe
from slalom.recipes.registry import recipe

_ALL: Final = 1 << 30  # more directions than a matrix has
_RANDOM: Final = {**BY_ROLE, "elements": "its random directions go by the numbers of rows and columns"}


@recipe(
    "galore",
    class_name="GaLore",
    title="Adam on the gradient's first singular directions; AdamW where there is no matrix",
    family="matrix",
    year=2024,
    source="Zhao et al. 2024, arXiv:2403.03507 (epsilon as in its code, decay as in AdamW)",
    use="pre-training and fine-tuning of large matrices where Adam's states do not fit",
    avoid="small matrices; a step has the rank of the subspace, so many steps are needed to move all directions",
    lrs=(3e-3, 1e-2, 3e-2),
    exceptions=BY_ROLE,
)
def galore(
    lr: float = 1e-2,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    rank: int = 128,
    frequency: int = 200,
    scale: float = 0.25,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.999),
    adam_eps: float = 1e-8,
) -> ByRole:
    adam = Recipe(momentum=Ema(betas[0]), scale=SecondMoment(betas[1], Early(eps)))
    thin = Recipe(
        geometry=InSubspace(adam, Singular(rank, frequency), scale), regularize=decoupled(weight_decay), step=lr
    )
    return with_adam(thin, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "conda",
    class_name="Conda",
    title="Adam on the singular directions of its own momentum; AdamW where there is no matrix",
    family="matrix",
    year=2025,
    source="Wang et al. 2025, arXiv:2509.24218 (decay as in AdamW)",
    use="what SOAP is for, with one basis on the shorter side, from one decomposition in thousands of steps",
    avoid="memory is short: a square of the shorter side beside Adam's states; gradients that fill a few rows at a "
    "time: squares are not turned with the basis, and a direction that was empty before gets a huge step",
    lrs=(3e-4, 1e-3, 3e-3),
    exceptions=BY_ROLE,
)
def conda(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    frequency: int = 2000,
    scale: float = 1.0,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.999),
    adam_eps: float = 1e-8,
) -> ByRole:
    sized = Recipe(scale=SecondMoment(betas[1], Early(eps)))
    matrices = Recipe(
        momentum=Ema(betas[0]),
        geometry=InSubspace(sized, Singular(_ALL, frequency), scale, of="direction"),
        regularize=decoupled(weight_decay),
        step=lr,
    )
    return with_adam(matrices, adam_lr, adam_betas, adam_eps, weight_decay)


def _apollo(
    lr: float,
    betas: Betas,
    eps: float,
    weight_decay: float,
    subspace: Random,
    per: Literal["channel", "tensor"],
    scale: float,
    growth: float,
) -> Recipe:
    adam = Recipe(momentum=Ema(betas[0], debias=False), scale=SecondMoment(betas[1], eps, debias=False))
    return Recipe(
        geometry=ScaledAsInSubspace(adam, subspace, per, scale),
        guard=(GrowthLimit(growth), LateCorrection(betas[0], betas[1])),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "apollo",
    class_name="APOLLO",
    title="the gradient, each channel sized as Adam sizes its random shadow",
    family="matrix",
    year=2024,
    source="Zhu et al. 2024, arXiv:2412.05270 (order of corrections as in its code, decay as in AdamW)",
    use="pre-training of large matrices where Adam's states do not fit; no decompositions",
    avoid="small matrices, where the shadow is as large as the matrix",
    lrs=(3e-3, 1e-2, 3e-2),
    exceptions=_RANDOM,
    others="Apollo, a quasi-Newton method (arXiv:2009.13586), ApolloDQN in pytorch_optimizer",
)
def apollo(
    lr: float = 1e-2,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    rank: int = 256,
    frequency: int = 200,
    scale: float = 1.0,
    growth: float = 1.01,
    seed: int = 0,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.999),
    adam_eps: float = 1e-8,
) -> ByRole:
    thin = _apollo(lr, betas, eps, weight_decay, Random(rank, frequency, seed), "channel", scale, growth)
    return with_adam(thin, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "apollo-mini",
    class_name="APOLLOMini",
    title="the gradient, sized as a whole by Adam on one random direction",
    family="matrix",
    year=2024,
    source="Zhu et al. 2024, arXiv:2412.05270 (order of corrections as in its code, decay as in AdamW)",
    use="the memory of SGD with lengths like Adam's: two numbers per channel of the longer side",
    avoid="layers whose channels need steps of different size: all of a matrix share one",
    lrs=(3e-3, 1e-2, 3e-2),
    exceptions=_RANDOM,
)
def apollo_mini(
    lr: float = 1e-2,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    rank: int = 1,
    frequency: int = 200,
    scale: float = 128.0,
    growth: float = 1.01,
    seed: int = 0,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.999),
    adam_eps: float = 1e-8,
) -> ByRole:
    thin = _apollo(lr, betas, eps, weight_decay, Random(rank, frequency, seed), "tensor", scale, growth)
    return with_adam(thin, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "ldadam",
    class_name="LDAdam",
    title="Adam in a subspace that follows the gradient, with nothing lost",
    family="matrix",
    year=2024,
    source="Robert et al. 2024, arXiv:2410.16103",
    use="as GaLore, with ranks as small as 16: what the subspace cannot hold comes back with the next gradient",
    avoid="the last bytes count: the feedback takes 4 per parameter (in the authors' code the gradient's own memory)",
    lrs=(3e-4, 1e-3, 3e-3),
    exceptions=BY_ROLE,
)
def ldadam(
    lr: float = 1e-3,
    betas: Betas = (0.908, 0.99),
    rho: float = 0.908,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    rank: int = 16,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.908, 0.99),
    adam_eps: float = 1e-8,
) -> ByRole:
    thin = Recipe(
        geometry=TrackedSubspace(rank, betas[0], betas[1], rho, eps), regularize=decoupled(weight_decay), step=lr
    )
    return with_adam(thin, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "dion2",
    class_name="Dion2",
    title="orthogonalised momentum, where it has grown most",
    family="matrix",
    year=2025,
    source="Ahn et al. 2025, arXiv:2512.16928",
    use="what Muon is for, at a fraction of its products: a quarter of the rows or columns at a time",
    avoid="matrices so small that products cost nothing, where Muon moves all of them",
    lrs=MATRIX_RATES,
    exceptions=BY_ROLE,
)
def dion2(
    lr: float = 1e-2,
    momentum: float = 0.95,
    fraction: float = 0.25,
    weight_decay: float = 0.01,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
) -> ByRole:
    strongest = Recipe(geometry=StrongestPolar(fraction, momentum), regularize=decoupled(weight_decay), step=lr)
    return with_adam(strongest, adam_lr, adam_betas, adam_eps, weight_decay)
