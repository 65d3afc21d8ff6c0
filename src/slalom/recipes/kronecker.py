"""Shampoo and its kin: preconditioners that are Kronecker products, with roots or in their eigenbasis."""

from __future__ import annotations

from typing import Literal

from slalom.parts import (
    Accumulated,
    ByEigenvalues,
    CoupledNewton,
    Delayed,
    Early,
    Eigenbasis,
    Ema,
    Fixed,
    Graft,
    HeavyBall,
    Hold,
    InverseRoot,
    KLEigenbasis,
    Kronecker,
    NewtonSchulz,
    Scale,
    SecondMoment,
    ShapeRate,
    Sign,
    Spectral,
    VarianceReduced,
    WeightEma,
)
from slalom.recipes.adam import adamw
from slalom.recipes.common import DECAY_INSIDE, Betas, decoupled
from slalom.recipes.matrix import BY_ROLE
from slalom.recipes.recipe import ByRole, Recipe
from slalom.recipes.registry import recipe

Roots = Literal["eigh", "newton"]
Factors = Literal["same", "float64"]
Grafting = Literal["adam", "rmsprop", "adagrad", "sgd"]


def _roots(name: Roots) -> InverseRoot:
    return CoupledNewton() if name == "newton" else ByEigenvalues()


@recipe(
    "shampoo",
    class_name="Shampoo",
    title="a preconditioner for the rows and one for the columns",
    family="matrix",
    year=2018,
    source="Gupta, Koren & Singer 2018, arXiv:1802.09568",
    use="studying what second-order structure brings; see distributed-shampoo to train",
    avoid="long training: sums only grow, so steps only shrink; sides of many thousands",
    lrs=(3e-2, 1e-1, 3e-1),
)
def shampoo(
    lr: float = 0.1,
    momentum: float = 0.0,
    eps: float = 1e-4,
    weight_decay: float = 0.0,
    frequency: int = 1,
    factors: Factors = "same",
) -> Recipe:
    return Recipe(
        momentum=HeavyBall(momentum) if momentum else None,
        geometry=Kronecker(0.0, sums=True, eps=eps, frequency=frequency, factors=factors),
        regularize=decoupled(weight_decay),
        step=lr,
    )


def _grafted(kronecker: Kronecker, beta: float, eps: float, *, block: int = 0, graft: Grafting = "adam") -> Graft:
    """A Kronecker direction with the length of another method's step, which goes alone before the first roots."""
    scales: dict[str, Scale | None] = {
        "adam": SecondMoment(beta, eps),
        "rmsprop": SecondMoment(beta, eps, debias=False),
        "adagrad": Accumulated(eps=eps),
        "sgd": None,
    }
    length = Recipe(scale=scales[graft])
    return Graft(Recipe(geometry=kronecker), length, block, kronecker.start, kronecker.vectors)


@recipe(
    "distributed-shampoo",
    class_name="DistributedShampoo",
    title="Shampoo in blocks with Adam's step lengths, winner of AlgoPerf 2024",
    family="matrix",
    year=2023,
    source="Shi et al. 2023, arXiv:2309.06497 (the entry to AlgoPerf v0.5: algoperf-shampoo; graft: whose lengths)",
    use="matrices where steps are dear: sides of more than `block` cost no more than in proportion",
    avoid="memory is short: two square factors and two roots per block beside Adam's states",
    lrs=(3e-4, 1e-3, 3e-3),
)
def distributed_shampoo(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.995),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    frequency: int = 10,
    block: int = 1024,
    start: int = 1,
    nesterov: bool = False,
    adam_eps: float = 1e-8,
    roots: Roots = "eigh",
    factors: Factors = "same",
    graft: Grafting = "adam",
) -> Recipe:
    kronecker = Kronecker(
        betas[1],
        eps=eps,
        frequency=frequency,
        block=block,
        start=start,
        vectors=True,
        inverse=_roots(roots),
        factors=factors,
    )
    return Recipe(
        momentum=Ema(betas[0], nesterov=nesterov),
        geometry=_grafted(kronecker, betas[1], adam_eps, block=block, graft=graft),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "caspr",
    class_name="CASPR",
    title="Shampoo's factors combined as a Kronecker sum",
    family="matrix",
    year=2024,
    source="Duvvuri et al., ICLR 2024 (with Adam's step lengths)",
    use="as Shampoo; the sum bounds the full preconditioner more closely than the product",
    avoid="memory is short: two square factors and two roots per matrix beside Adam's states",
    lrs=(3e-4, 1e-3, 3e-3),
)
def caspr(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.995),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    frequency: int = 10,
    block: int = 0,
    adam_eps: float = 1e-8,
    factors: Factors = "same",
) -> Recipe:
    kronecker = Kronecker(betas[1], eps=eps, frequency=frequency, combine="sum", block=block, factors=factors)
    return Recipe(
        momentum=Ema(betas[0]),
        geometry=_grafted(kronecker, betas[1], adam_eps),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "soap",
    class_name="SOAP",
    title="Adam in Shampoo's eigenbasis",
    family="matrix",
    year=2024,
    source="Vyas et al. 2024, arXiv:2409.11321",
    use="matrices where steps are dear and matrix products cheap",
    avoid="dimensions of many thousands: it keeps two square factors and two bases per matrix",
    lrs=(1e-3, 3e-3, 1e-2),
)
def soap(
    lr: float = 3e-3,
    betas: Betas = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    frequency: int = 10,
    block: int = 0,
    factors: Factors = "same",
) -> Recipe:
    adam = Recipe(momentum=Delayed(Ema(betas[0])), scale=Delayed(SecondMoment(betas[1], Early(eps))))
    return Recipe(
        geometry=Eigenbasis(adam, betas[1], frequency, block, factors),
        regularize=decoupled(weight_decay),
        step=Hold(Fixed(lr)),
    )


@recipe(
    "splus",
    class_name="SPlus",
    title="signs in Shampoo's eigenbasis, with an average of the weights",
    family="matrix",
    year=2025,
    source="Frans, Levine & Abbeel 2025, arXiv:2506.07254 (bases after steps 1, 101, ...; its code: 1, 100, 200)",
    use="what Shampoo and SOAP are for, with eigenbases as rare as every 100 steps; evaluate inside opt.averaged()",
    avoid="dimensions of many thousands: it keeps two square factors and two bases per matrix",
    lrs=(3e-2, 1e-1, 3e-1),
    exceptions={"numbers-live": "betas[1] shows when bases are refreshed, every 100 steps"},
)
def splus(
    lr: float = 0.1,
    betas: Betas = (0.9, 0.999),
    weight_decay: float = 1e-2,
    ema: float = 0.999,
    frequency: int = 100,
    vectors: float = 1e-3,
    block: int = 0,
    factors: Factors = "same",
) -> Recipe:
    signs = Recipe(geometry=Sign())
    return Recipe(
        momentum=Ema(betas[0], debias=False),
        geometry=Eigenbasis(signs, betas[1], frequency, block, factors, refresh="exact"),
        regularize=decoupled(weight_decay),
        guard=ShapeRate(vectors),
        average=WeightEma(ema),
        order=DECAY_INSIDE,
        step=lr,
    )


@recipe(
    "kl-shampoo",
    class_name="KLShampoo",
    title="Shampoo with the factors that fit in Kullback-Leibler divergence, without Adam's lengths",
    family="matrix",
    year=2025,
    source="Lin et al. 2025, arXiv:2509.03378 (as in the authors' code, in single precision; vectors by AdamW)",
    use="what SOAP is for, without Adam's second moment: 20 bytes per parameter of a square matrix",
    avoid="dimensions of many thousands: it keeps two square factors and two bases per matrix",
    lrs=(1e-4, 3e-4, 1e-3),
    exceptions=BY_ROLE,
)
def kl_shampoo(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.98),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    frequency: int = 10,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
    factors: Factors = "same",
) -> ByRole:
    momentum = Recipe(momentum=Delayed(Ema(betas[0], debias=False)))
    matrices = Recipe(
        geometry=KLEigenbasis(momentum, betas[1], frequency, factors=factors, eps=eps),
        regularize=decoupled(weight_decay),
        step=Hold(Fixed(lr)),
    )
    vectors = adamw(adam_lr, adam_betas, adam_eps, weight_decay)
    return ByRole(matrix=matrices, convolution=matrices, embedding=matrices, head=matrices, rest=vectors)


@recipe(
    "kl-soap",
    class_name="KLSOAP",
    title="SOAP in the eigenbasis of the factors that fit in Kullback-Leibler divergence",
    family="matrix",
    year=2025,
    source="Lin et al. 2025, arXiv:2509.03378 (as in the authors' code, in single precision)",
    use="what SOAP is for; the authors find KL-Shampoo better still",
    avoid="dimensions of many thousands: it keeps two square factors and two bases per matrix",
    lrs=(1e-4, 3e-4, 1e-3),
)
def kl_soap(
    lr: float = 1e-3,
    betas: Betas = (0.9, 0.98),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    frequency: int = 10,
    factors: Factors = "same",
) -> Recipe:
    adam = Recipe(
        momentum=Delayed(Ema(betas[0], debias=False)), scale=Delayed(SecondMoment(betas[1], eps, debias=False))
    )
    return Recipe(
        geometry=KLEigenbasis(adam, betas[1], frequency, factors=factors, eigenvalues=False),
        regularize=decoupled(weight_decay),
        step=Hold(Fixed(lr)),
    )


@recipe(
    "mars-shampoo",
    class_name="MARSShampoo",
    title="orthogonalised momentum of variance-reduced gradients",
    family="matrix",
    year=2024,
    source="Yuan et al. 2024, arXiv:2411.10438 (the approximate form; as in the authors' code Shampoo without its "
    "memory: the polar factor)",
    use="what Muon is for, at 4 bytes more per parameter",
    avoid="embeddings, heads and vectors: those go to AdamW",
    lrs=(1e-3, 3e-3, 1e-2),
    exceptions=BY_ROLE,
    also=("MARS",),
    others="MARS-M",
)
def mars_shampoo(
    lr: float = 3e-3,
    beta: float = 0.95,
    gamma: float = 0.025,
    weight_decay: float = 0.0,
    steps: int = 5,
    adam_lr: float = 3e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
    adam_weight_decay: float = 0.1,
) -> ByRole:
    matrices = Recipe(
        gradient=VarianceReduced(gamma, beta),
        momentum=Ema(beta, debias=False),
        geometry=Spectral("original", NewtonSchulz(steps)),
        regularize=decoupled(weight_decay),
        step=lr,
    )
    rest = adamw(adam_lr, adam_betas, adam_eps, adam_weight_decay)
    return ByRole(matrix=matrices, convolution=matrices, rest=rest)
