"""Methods that find the length of their steps themselves; their parts make any recipe tuning-free."""

from __future__ import annotations

from typing import Final, Literal

from slalom.parts import (
    L2,
    DAdaptation,
    DAdaptationSGD,
    DoG,
    DoWG,
    Ema,
    Golden,
    HeavyBall,
    LossDriven,
    Mechanic,
    MoMo,
    NormalizedPolyak,
    Polyak,
    PolynomialAverage,
    PrimalAverage,
    Prodigy,
    Relative,
    ScheduleFree,
    SecondMoment,
    SquaredDecay,
    WholeSteps,
)
from slalom.recipes.common import decoupled
from slalom.recipes.recipe import ORDER, Recipe
from slalom.recipes.registry import recipe

_ONE_DISTANCE: Final = {
    "late-gradient": "its distance is one number for the whole model: a late tensor meets what the others found",
    "two-groups": "one distance for the whole model, by definition",
    "one-each": "one distance for the whole model, by definition",
}
_ONE_DISTANCE_EACH: Final = {
    "late-gradient": "its distance is one number per group: a late tensor meets what the others found",
    "one-each": "one distance per group, by definition",
    "nan-stays": "a norm over the group is nan where anything in it is",
}
# What the first step reads is over when the first step is.
_FIRST_GUESS: Final = {"numbers-live": "the first guess of a distance matters at the first step alone, by definition"}
_ONE_LOSS: Final = {
    "late-gradient": "the loss belongs to the whole model, and so do the norms it is divided by",
    "added-group": "the loss belongs to the whole model, and so do the norms it is divided by",
    "two-groups": "the loss belongs to the whole model, and so do the norms it is divided by",
    "one-each": "the loss belongs to the whole model, and so do the norms it is divided by",
    "mixed-dtypes": "the loss belongs to the whole model, and so do the norms it is divided by",
    "scaler": "it reads the loss, so there is no step without a closure, which GradScaler.step does not hand on",
    "distributed-checkpoint": "torch takes a step without a loss to make state; call init_state() first",
}


@recipe(
    "prodigy",
    class_name="Prodigy",
    title="Adam that finds its own learning rate",
    family="tuning-free",
    year=2023,
    source="Mishchenko & Defazio 2023, arXiv:2306.06101",
    use="no learning rate to tune: leave lr at 1",
    avoid="several parameter groups with different rates; strong weight decay",
    lrs=(0.5, 1.0, 2.0),
    exceptions=_ONE_DISTANCE,
)
def prodigy(
    lr: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    d0: float = 1e-6,
    d_coef: float = 1.0,
    growth: float = 0.0,
    safeguard_warmup: bool = False,
    use_bias_correction: bool = False,
    beta3: float = 0.0,
    decouple: bool = True,
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay and not decouple else None,
        momentum=Ema(betas[0], debias=False),
        scale=SecondMoment(betas[1], eps, debias=False),
        regularize=decoupled(weight_decay if decouple else 0.0),
        step=Prodigy(lr, betas[1], d0, d_coef, growth, safeguard_warmup, use_bias_correction, betas[0], beta3),
    )


@recipe(
    "adamg",
    class_name="AdamG",
    title="Adam with gradients weighed by a power of their second moment",
    family="tuning-free",
    year=2024,
    source="Pan & Xu 2024, arXiv:2405.04376",
    use="no learning rate to tune: leave lr at 1; it falls as 1 / sqrt(t) by itself",
    avoid="losses on an unusual scale: steps grow with its root; memory is short: 12 bytes per parameter",
    lrs=(0.3, 1.0, 3.0),
)
def adamg(
    lr: float = 1.0,
    betas: tuple[float, float, float] = (0.95, 0.999, 0.95),
    p: float = 0.2,
    q: float = 0.24,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=Golden(betas[0], betas[1], betas[2], p, q, eps),
        step=Relative(lr, by_size=False),
    )


@recipe(
    "dadapt-adam",
    class_name="DAdaptAdam",
    title="Adam with D-Adaptation",
    family="tuning-free",
    year=2023,
    source="Defazio & Mishchenko 2023, arXiv:2301.07733",
    use="no learning rate to tune: leave lr at 1; Prodigy's predecessor, slower to find d and harder to upset",
    avoid="several parameter groups with different rates",
    lrs=(0.5, 1.0, 2.0),
    exceptions={**_ONE_DISTANCE, "added-group": _ONE_DISTANCE["late-gradient"], **_FIRST_GUESS},
    also=("D-Adaptation", "DAdaptation"),
)
def dadapt_adam(
    lr: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    d0: float = 1e-6,
    growth: float = float("inf"),
    decoupled_weight_decay: bool = False,
    use_bias_correction: bool = False,
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay and not decoupled_weight_decay else None,
        regularize=decoupled(weight_decay if decoupled_weight_decay else 0.0),
        momentum=WholeSteps(Ema(betas[0], debias=False)),
        scale=SecondMoment(betas[1], eps, debias=False),
        step=DAdaptation(lr, betas[1], d0, growth, use_bias_correction, betas[0]),
    )


@recipe(
    "dadapt-sgd",
    class_name="DAdaptSGD",
    title="SGD with D-Adaptation",
    family="tuning-free",
    year=2023,
    source="Defazio & Mishchenko 2023, arXiv:2301.07733",
    use="SGD without a learning rate to tune: leave lr at 1",
    avoid="several parameter groups with different rates; noise that hides the first gradient's norm",
    lrs=(0.5, 1.0, 2.0),
    exceptions={**_ONE_DISTANCE, **_FIRST_GUESS},
    also=("D-Adaptation", "DAdaptation"),
)
def dadapt_sgd(
    lr: float = 1.0,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    d0: float = 1e-6,
    growth: float = float("inf"),
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        average=PrimalAverage(momentum) if momentum else None,
        step=DAdaptationSGD(lr, d0, growth),
    )


@recipe(
    "dog",
    class_name="DoG",
    title="SGD by distance over gradients, averaged",
    family="tuning-free",
    year=2023,
    source="Ivgi, Hinder & Carmon 2023, arXiv:2302.12022",
    use="fine-tuning with SGD and nothing to tune; evaluate inside opt.averaged()",
    avoid="reading the last iterate, whose rate never decays; training transformers from nothing",
    lrs=(0.5, 1.0, 2.0),
    exceptions={**_ONE_DISTANCE_EACH, **_FIRST_GUESS},
)
def dog(
    lr: float = 1.0, reps_rel: float = 1e-6, eps: float = 1e-8, weight_decay: float = 0.0, gamma: float = 8.0
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        step=DoG(lr, reps_rel, "group", eps),
        average=PolynomialAverage(gamma),
    )


@recipe(
    "ldog",
    class_name="LDoG",
    title="distance over gradients, layer by layer, averaged",
    family="tuning-free",
    year=2023,
    source="Ivgi, Hinder & Carmon 2023, arXiv:2302.12022",
    use="DoG where layers differ in scale: transformers; evaluate inside opt.averaged()",
    avoid="reading the last iterate, whose rate never decays",
    lrs=(0.5, 1.0, 2.0),
    exceptions=_FIRST_GUESS,
)
def ldog(
    lr: float = 1.0, reps_rel: float = 1e-6, eps: float = 1e-8, weight_decay: float = 0.0, gamma: float = 8.0
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        step=DoG(lr, reps_rel, "tensor", eps),
        average=PolynomialAverage(gamma),
    )


@recipe(
    "dowg",
    class_name="DoWG",
    title="SGD by distance over weighted gradients",
    family="tuning-free",
    year=2023,
    source="Khaled, Mishchenko & Jin 2023, arXiv:2305.16284",
    use="DoG for smooth losses: longer steps once it has moved",
    avoid="noisy gradients late in training: the rate does not decay",
    lrs=(0.5, 1.0, 2.0),
    exceptions={**_ONE_DISTANCE_EACH, **_FIRST_GUESS},
)
def dowg(lr: float = 1.0, reps_rel: float = 1e-4, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        step=DoWG(lr, reps_rel, "group"),
    )


@recipe(
    "mechanic",
    class_name="Mechanic",
    title="AdamW whose scale is learned while it trains",
    family="tuning-free",
    year=2023,
    source="Cutkosky, Defazio & Mehta 2023, arXiv:2306.00144",
    use="a schedule whose shape is known and whose height is not; form=Mechanic() does it for any recipe",
    avoid="tight memory: 8 bytes per parameter on top of AdamW",
    lrs=(1e-3, 1e-2, 1e-1),
    exceptions={**_ONE_DISTANCE, "nan-stays": "a sum over the model is nan where anything in it is"},
)
def mechanic(
    lr: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay: float = 1e-2,
    s_init: float = 1e-8,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        form=Mechanic(decay=decay, s_init=s_init),
        step=lr,
    )


@recipe(
    "sps",
    class_name="SPS",
    title="SGD with stochastic Polyak steps",
    family="tuning-free",
    year=2020,
    source="Loizou et al. 2020, arXiv:2002.10542",
    use="losses that can reach their floor, 0 or one that is known; pass step a closure",
    avoid="regularised or noisy losses whose floor is not known",
    lrs=(0.3, 1.0, 3.0),
    exceptions=_ONE_LOSS,
)
def sps(lr: float = 1.0, c: float = 0.5, floor: float = 0.0, growth: float = float("inf"), eps: float = 1e-8) -> Recipe:
    return Recipe(step=Polyak(lr, c, floor, eps, growth))


@recipe(
    "alig",
    class_name="ALIG",
    title="SGD with Polyak steps for networks that interpolate, Nesterov's momentum",
    family="tuning-free",
    year=2019,
    source="Berrada, Zisserman & Kumar 2019, arXiv:1906.05661",
    use="networks that fit their training data: lr is only an upper bound; pass step a closure",
    avoid="losses that stay far from 0",
    lrs=(3e-2, 1e-1, 3e-1),
    exceptions=_ONE_LOSS,
)
def alig(lr: float = 1e-1, momentum: float = 0.9, eps: float = 1e-5) -> Recipe:
    return Recipe(
        momentum=WholeSteps(HeavyBall(momentum, nesterov=True)) if momentum else None,
        step=Polyak(lr, 1.0, 0.0, eps),
        order=ORDER,  # rates are of the gradient alone: momentum comes after them
    )


@recipe(
    "momo",
    class_name="MoMo",
    title="SGD with momentum and model-based Polyak steps",
    family="tuning-free",
    year=2023,
    source="Schaipp et al. 2023, arXiv:2305.07583",
    use="momentum SGD whose lr may be far too large; estimate=True where the floor is not known; pass step a closure",
    avoid="losses below the floor that was given",
    lrs=(0.3, 1.0, 3.0),
    exceptions=_ONE_LOSS,
)
def momo(lr: float = 1.0, beta: float = 0.9, floor: float = 0.0, estimate: bool = False) -> Recipe:
    return Recipe(
        momentum=HeavyBall(beta, dampening=beta),
        step=MoMo(lr, beta, False, floor, estimate),
    )


@recipe(
    "momo-adam",
    class_name="MoMoAdam",
    title="Adam with model-based Polyak steps",
    family="tuning-free",
    year=2023,
    source="Schaipp et al. 2023, arXiv:2305.07583",
    use="Adam whose lr may be far too large; estimate=True where the floor is not known; pass step a closure",
    avoid="losses below the floor that was given",
    lrs=(3e-3, 1e-2, 3e-2),
    exceptions=_ONE_LOSS,
)
def momo_adam(
    lr: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    floor: float = 0.0,
    estimate: bool = False,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        step=MoMo(lr, betas[0], True, floor, estimate),
    )


@recipe(
    "adalo",
    class_name="AdaLo",
    title="momentum whose rate is an average of the loss",
    family="tuning-free",
    year=2025,
    source="Jeong & Koo 2025, Information Sciences 690, 121607",
    use="looking at loss-driven rates; pass step a closure",
    avoid="anything else: rates depend on the scale of the loss",
    lrs=(0.3, 1.0, 3.0),
    exceptions={
        "late-gradient": "its average of the loss is one for the whole model: a late tensor meets it as it is",
        "scaler": _ONE_LOSS["scaler"],
        "distributed-checkpoint": _ONE_LOSS["distributed-checkpoint"],
    },
    others="words of the paper: adversarial and compliant are the implementer's",
)
def adalo(
    lr: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    kappa: float = 3.0,
    weight_decay: float = 1e-2,
    form: Literal["paper", "adversarial", "compliant"] = "adversarial",
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0], debias=False),
        regularize=decoupled(weight_decay),
        step=LossDriven(lr, kappa, betas[1], form),
    )


@recipe(
    "schedule-free-plus",
    class_name="ScheduleFreePlus",
    title="Schedule-Free Adam that reads its rate off the loss",
    family="tuning-free",
    year=2026,
    source="Defazio 2026, arXiv:2605.19095; decay by the squared rate: Defazio 2025, arXiv:2506.02285",
    use="pretraining with no end to choose, lr and a warm-up of it at most; step(closure), opt.averaged()",
    avoid="full batches and losses far from 0: where gradients vanish and the loss does not, rates explode",
    lrs=(0.1, 0.3, 1.0),
    exceptions=_ONE_LOSS,
)
def schedule_free_plus(
    lr: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    beta: float = 0.9,
    last_beta: float = 0.965,
    anneal: int = 0,
    warm: int = 0,
    r: float = 0.0,
    norm_beta: float = 0.0,
) -> Recipe:
    return Recipe(
        step=NormalizedPolyak(lr, norm_beta),
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=SquaredDecay(weight_decay) if weight_decay else None,
        average=ScheduleFree(beta, r, warm=warm, last_beta=last_beta, anneal=anneal),
    )
