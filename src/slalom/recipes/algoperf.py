"""The entries to AlgoPerf v0.5 (external tuning, 2024), with the settings that are published.

Each entry tried five fixed points. Not all of them are known here, but their ranges; defaults are the point of the
benchmark's own NAdamW, which lies inside those. Rates were scheduled: 2 % warm-up and a cosine to 0, or what is said.
Another entry, Schedule-Free AdamW, is "schedule-free-adamw", and Amos is "amos".
"""

from __future__ import annotations

import math
from typing import Final

from slalom.parts import (
    LAWA,
    CoupledNewton,
    Ema,
    Graft,
    Kronecker,
    Power,
    SecondMoment,
    WeightEma,
)
from slalom.recipes.common import Betas, decoupled
from slalom.recipes.kronecker import distributed_shampoo
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe
from slalom.recipes.variants import nadamw

BASELINE_RATE: Final = 0.0017486387539278373
BASELINE_BETAS: Final = (1 - 0.06733926164, 0.9955159689799007)
BASELINE_DECAY: Final = 0.08121616522670176
RATES: Final = (5e-4, 1e-3, BASELINE_RATE)


@recipe(
    "algoperf-shampoo",
    class_name="AlgoPerfShampoo",
    title="the winner: distributed Shampoo with NAdam's momentum and roots every 100 steps",
    family="matrix",
    year=2024,
    source="Shi et al. 2023, arXiv:2309.06497; AlgoPerf v0.5, external tuning, score 0.78",
    use="long runs, with 2 to 10 % warm-up and a cosine to 0; betas[1] 0.9955 to 0.9981, decay up to 0.164",
    avoid="runs of a few hundred steps: it is NAdamW for the first 100",
    lrs=RATES,
)
def algoperf_shampoo(
    lr: float = BASELINE_RATE,
    betas: Betas = BASELINE_BETAS,
    eps: float = 1e-8,
    weight_decay: float = BASELINE_DECAY,
    frequency: int = 100,
    block: int = 1024,
) -> Recipe:
    return distributed_shampoo(lr, betas, eps, weight_decay, frequency, block, start=frequency, nesterov=True)


@recipe(
    "algoperf-caspr",
    class_name="AlgoPerfCASPR",
    title="CASPR Adaptive as it was submitted, which is not the paper's sum but a product",
    family="matrix",
    year=2024,
    source="Duvvuri et al., AlgoPerf v0.5, external tuning, score 0.47",
    use="comparing with the entry; it ran three cosines, which end at 0.536, 0.75 and all of the run",
    avoid="what the paper proposes: that is caspr",
    lrs=RATES,
)
def algoperf_caspr(
    lr: float = BASELINE_RATE,
    betas: Betas = BASELINE_BETAS,
    eps: float = 1e-8,
    weight_decay: float = BASELINE_DECAY,
    frequency: int = 20,
    start: int = 101,
    block: int = 1024,
    ridge: float = 1e-6,
) -> Recipe:
    whitened = Kronecker(
        betas[1],
        eps=ridge,
        root=2,
        frequency=frequency,
        start=start,
        block=block,
        chained=True,
        inverse=CoupledNewton(),
    )
    adam = Recipe(scale=SecondMoment(betas[1], eps))
    return Recipe(
        momentum=Ema(betas[0], nesterov=True),
        geometry=Graft(Recipe(geometry=whitened), adam, start=start, vectors=False),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "algoperf-generalized-adam",
    class_name="AlgoPerfGeneralizedAdam",
    title="NAdamW with any root, or Nesterov's momentum alone",
    family="adam",
    year=2024,
    source='"Generalized Adam", AlgoPerf v0.5, external tuning, score 0.64',
    use="comparing with the entry; one point is scale=False, lr=1.949, betas=(0.9722, 0.999), weight_decay=2.4e-4",
    avoid="nesterov=False without thinking of the code's trap, kept here: its momentum is then not bias-corrected",
    lrs=RATES,
)
def algoperf_generalized_adam(
    lr: float = BASELINE_RATE,
    betas: Betas = BASELINE_BETAS,
    eps: float = 1e-8,
    weight_decay: float = BASELINE_DECAY,
    power: float = 2.0,
    nesterov: bool = True,
    scale: bool = True,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0], debias=nesterov, nesterov=nesterov),
        scale=SecondMoment(betas[1], Power(power, eps)) if scale else None,
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "algoperf-nadamp",
    class_name="AlgoPerfNadamP",
    title="NAdamW with another root of the second moment; no kin of NAdamP",
    family="adam",
    year=2024,
    source='"NadamP", AlgoPerf v0.5, external tuning, score 0.59',
    use="comparing with the entry, one of whose five points has a power other than 2",
    avoid="powers other than 2 where the scale of gradients may change: steps then depend on it",
    lrs=RATES,
)
def algoperf_nadamp(
    lr: float = BASELINE_RATE,
    betas: Betas = BASELINE_BETAS,
    eps: float = 1e-8,
    weight_decay: float = BASELINE_DECAY,
    power: float = 2.0,
) -> Recipe:
    return algoperf_generalized_adam(lr, betas, eps, weight_decay, power)


@recipe(
    "algoperf-cyclic",
    class_name="AlgoPerfCyclic",
    title="NAdamW for one or two equal cycles of warm-up and cosine",
    family="adam",
    year=2024,
    source='"Cyclic LR", AlgoPerf v0.5, external tuning, score 0.63',
    use="with slalom.schedules.AlgoperfCyclic; five points: lr 8.4e-4 to 1.75e-3, betas[0] 0.89 to 0.973",
    avoid="without that schedule: it is nadamw with other defaults",
    lrs=RATES,
)
def algoperf_cyclic(
    lr: float = BASELINE_RATE,
    betas: Betas = BASELINE_BETAS,
    eps: float = 1e-8,
    weight_decay: float = BASELINE_DECAY,
) -> Recipe:
    return nadamw(lr, betas, eps, weight_decay)


@recipe(
    "algoperf-lawa-queue",
    class_name="AlgoPerfLAWAQueue",
    title="NAdamW with the mean of its ten latest snapshots",
    family="averaging",
    year=2024,
    source="Kaddour 2022, arXiv:2209.14981; AlgoPerf v0.5, external tuning, score 0.37",
    use="comparing with the entry: snapshots every 0.2 % of the run from 2 % on; evaluate inside opt.averaged()",
    avoid="tight memory: 40 bytes per parameter for the snapshots",
    lrs=RATES,
)
def algoperf_lawa_queue(
    lr: float = BASELINE_RATE,
    betas: Betas = BASELINE_BETAS,
    eps: float = 1e-8,
    weight_decay: float = BASELINE_DECAY,
    steps: int = 10000,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0], nesterov=True),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        average=LAWA(10, *_snapshots(steps, 0.002)),
        step=lr,
    )


@recipe(
    "algoperf-lawa-ema",
    class_name="AlgoPerfLAWAEMA",
    title="NAdamW with a moving average of snapshots",
    family="averaging",
    year=2024,
    source="Kaddour 2022, arXiv:2209.14981; AlgoPerf v0.5, external tuning, score 0.34 (of ema=0, see there)",
    use="comparing with the entry as intended: ema 0.2 at 0.5 % of the run; evaluate inside opt.averaged()",
    avoid="judging it by the published score: the entry's code cut 0.2 to 0, so it handed back its latest snapshot. "
    "ema=0.0 is the entry as submitted",
    lrs=RATES,
)
def algoperf_lawa_ema(
    lr: float = BASELINE_RATE,
    betas: Betas = BASELINE_BETAS,
    eps: float = 1e-8,
    weight_decay: float = BASELINE_DECAY,
    ema: float = 0.2,
    steps: int = 10000,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0], nesterov=True),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        average=WeightEma(ema, "plain", *_snapshots(steps, 0.005)),
        step=lr,
    )


def _snapshots(steps: int, share: float) -> tuple[int, int]:
    """The steps between snapshots, a share of the run, and those before the first interval, which ends at 2 %."""
    every, first = (max(1, math.ceil(round(steps * part, 6))) for part in (share, 0.02))
    return every, max(0, first - every)
