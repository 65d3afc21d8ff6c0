"""Methods that see matrices: orthogonalised momentum and other norms; AdamW where there is none."""

from __future__ import annotations

from typing import Any, Final, Literal

from slalom.parts import (
    Decoupled,
    Ema,
    FixedRms,
    HeavyBall,
    LowRankPolar,
    MaxRowSum,
    NewtonSchulz,
    OneHotToRms,
    PolarExpress,
    RmsToRms,
    RootMeanSquare,
    RowMoment,
    SameNorm,
    SecondMoment,
    Sign,
    Spectral,
    StandardizeRows,
    Steepest,
)
from slalom.recipes.adam import adamw
from slalom.recipes.common import SCALE_AFTER, Betas, decoupled
from slalom.recipes.recipe import ByRole, Recipe
from slalom.recipes.registry import recipe

Scaling = Literal["original", "rms", "rms-to-rms"]
Polar = Literal["newton-schulz", "polar-express"]

MATRIX_RATES = (1e-3, 3e-3, 1e-2)
BY_ROLE: Final = {
    "complex": "a vector of complex numbers and a matrix of pairs play different roles",
    "two-groups": "lr in a group is the rate of its role; lr as an argument is the matrices'",
    "numbers-in-groups": "lr in a group is the rate of its role; lr as an argument is the matrices'",
}


def _iteration(polar: Polar, steps: int) -> NewtonSchulz | PolarExpress:
    return PolarExpress(steps) if polar == "polar-express" else NewtonSchulz(steps)


def with_adam(matrices: Recipe, lr: float, betas: Betas, eps: float, weight_decay: float) -> ByRole:
    """Matrices and kernels by one recipe, everything else by AdamW."""
    return ByRole(matrix=matrices, convolution=matrices, rest=adamw(lr, betas, eps, weight_decay))


@recipe(
    "muon",
    class_name="Muon",
    title="orthogonalised momentum; AdamW where there is no matrix",
    family="matrix",
    year=2024,
    source="Jordan et al. 2024, kellerjordan.github.io/posts/muon; scaling: Liu et al. 2025, arXiv:2502.16982",
    use="hidden matrices of transformers and convolutional networks: fewer steps than AdamW at 4 bytes per parameter",
    avoid="embeddings, heads and vectors: those go to AdamW",
    lrs=MATRIX_RATES,
    exceptions=BY_ROLE,
)
def muon(
    lr: float = 1e-3,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.1,
    steps: int = 5,
    scaling: Scaling = "rms",
    polar: Polar = "newton-schulz",
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
) -> ByRole:
    hidden = Recipe(
        momentum=Ema(momentum, debias=False, nesterov=nesterov),
        geometry=Spectral(scaling, _iteration(polar, steps)),
        regularize=decoupled(weight_decay),
        step=lr,
    )
    return with_adam(hidden, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "muonclip",
    class_name="MuonClip",
    title="Muon for attention: with slalom.qk_clip after each step",
    family="matrix",
    year=2025,
    source="Kimi Team 2025, Kimi K2, arXiv:2507.20534",
    use="transformers whose attention logits explode under Muon",
    avoid="models with norms on queries and keys, which bound the logits already",
    lrs=MATRIX_RATES,
    exceptions=BY_ROLE,
)
def muonclip(
    lr: float = 1e-3,
    momentum: float = 0.95,
    weight_decay: float = 0.1,
    steps: int = 5,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
) -> ByRole:
    hidden = Recipe(
        momentum=HeavyBall(momentum),
        geometry=Spectral("rms", NewtonSchulz(steps)),
        regularize=decoupled(weight_decay),
        step=lr,
    )
    return with_adam(hidden, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "normuon",
    class_name="NorMuon",
    title="Muon with equal steps for all neurons",
    family="matrix",
    year=2025,
    source="Li et al. 2025, arXiv:2510.05491 (steps as in the paper; as in its code: scaling='original')",
    use="what Muon is for: rows that orthogonalisation leaves long or short are evened out, for a number per row",
    avoid="embeddings, heads and vectors: those go to AdamW",
    lrs=MATRIX_RATES,
    exceptions=BY_ROLE,
)
def normuon(
    lr: float = 1e-3,
    momentum: float = 0.95,
    beta2: float = 0.95,
    weight_decay: float = 0.1,
    steps: int = 5,
    scaling: Scaling = "rms",
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
) -> ByRole:
    hidden = Recipe(
        momentum=Ema(momentum, debias=False, nesterov=True),
        geometry=Spectral(scaling, NewtonSchulz(steps)),
        scale=RowMoment(beta2),
        guard=FixedRms(0.2) if scaling == "rms" else SameNorm(),
        regularize=decoupled(weight_decay),
        step=lr,
        order=SCALE_AFTER,
    )
    return with_adam(hidden, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "adamuon",
    class_name="AdaMuon",
    title="Adam's second moment on Muon's step",
    family="matrix",
    year=2025,
    source="Si, Zhang & Shen 2025, arXiv:2507.11005 (as in the authors' repository; the paper's later version: "
    "signs=True, nesterov=False, beta2 as momentum)",
    use="what Muon is for, where entries of the orthogonal step differ in noise",
    avoid="memory is short: 8 bytes per parameter, as AdamW",
    lrs=MATRIX_RATES,
    exceptions=BY_ROLE,
)
def adamuon(
    lr: float = 1e-3,
    momentum: float = 0.95,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    steps: int = 5,
    nesterov: bool = True,
    signs: bool = False,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
) -> ByRole:
    polar = Spectral("none", NewtonSchulz(steps))
    hidden = Recipe(
        momentum=Ema(momentum, debias=False, nesterov=nesterov),
        geometry=(Sign(), polar) if signs else polar,
        scale=SecondMoment(beta2, eps),
        guard=FixedRms(0.2),
        regularize=decoupled(weight_decay),
        step=lr,
        order=SCALE_AFTER,
    )
    return with_adam(hidden, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "dion",
    class_name="Dion",
    title="orthogonalised momentum, a few directions at a time",
    family="matrix",
    year=2025,
    source="Ahn et al. 2025, arXiv:2504.05295",
    use="matrices so large that Muon's products are dear: a step costs a few thin products and a thin QR",
    avoid="small matrices, where Muon is as fast and exact",
    lrs=MATRIX_RATES,
    exceptions={**BY_ROLE, "elements": "the directions that it begins with go by the numbers of columns"},
)
def dion(
    lr: float = 1e-2,
    momentum: float = 0.95,
    rank: int = 64,
    weight_decay: float = 0.01,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
) -> ByRole:
    hidden = Recipe(geometry=LowRankPolar(rank, momentum), regularize=decoupled(weight_decay), step=lr)
    return with_adam(hidden, adam_lr, adam_betas, adam_eps, weight_decay)


@recipe(
    "scion",
    class_name="Scion",
    title="every layer steepest in its own norm",
    family="matrix",
    year=2025,
    source="Pethick et al. 2025, arXiv:2502.07529",
    use="rates that keep from width to width; one state for the whole network, no AdamW beside it",
    avoid="constrained, weights that must grow beyond their radius: they are pulled into the ball",
    lrs=(3e-4, 1e-3, 3e-3),
    exceptions={
        "complex": BY_ROLE["complex"],
        "numbers-matter": "head_radius is the head's, and bare parameters do not say which of them is one",
    },
)
def scion(
    lr: float = 1e-3,
    momentum: float = 0.9,
    constrained: bool = False,
    radius: float = 50.0,
    head_radius: float = 3000.0,
    steps: int = 5,
) -> ByRole:
    def steepest(norm: Any, length: float) -> Recipe:
        return Recipe(
            momentum=Ema(momentum, debias=False) if momentum else None,
            geometry=Steepest(norm, radius=length),
            regularize=Decoupled(1.0) if constrained else None,
            step=lr,
        )

    hidden = steepest(RmsToRms(NewtonSchulz(steps)), radius)
    return ByRole(
        matrix=hidden,
        convolution=hidden,
        embedding=steepest(OneHotToRms(), radius),
        head=steepest(MaxRowSum(), head_radius),
        rest=steepest(RootMeanSquare(), 1.0),
    )


@recipe(
    "swan",
    class_name="SWAN",
    title="standardised, then whitened gradients, and no memory",
    family="matrix",
    year=2024,
    source="Ma et al. 2024, arXiv:2412.13148 (steps scaled as Muon's)",
    use="training at the edge of memory: matrices keep no state at all",
    avoid="small or noisy batches: there is no momentum",
    lrs=MATRIX_RATES,
    exceptions=BY_ROLE,
)
def swan(
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    steps: int = 5,
    adam_lr: float = 1e-3,
    adam_betas: Betas = (0.9, 0.95),
    adam_eps: float = 1e-8,
) -> ByRole:
    hidden = Recipe(
        gradient=StandardizeRows(),
        geometry=Spectral("rms", NewtonSchulz(steps)),
        regularize=decoupled(weight_decay),
        step=lr,
    )
    return with_adam(hidden, adam_lr, adam_betas, adam_eps, weight_decay)
