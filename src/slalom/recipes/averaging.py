"""Methods that hand back another point than the last one. Any recipe takes any of their averages."""

from __future__ import annotations

from typing import Literal

from slalom.parts import (
    L2,
    LAWA,
    SWA,
    ClipEach,
    Decoupled,
    DiscountedSquares,
    Ema,
    HeavyBall,
    Lookahead,
    PulledBack,
    Rectified,
    RectifiedRate,
    Restarted,
    ScheduleFree,
    SecondMoment,
    WeightEma,
)
from slalom.recipes.common import decoupled
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe


@recipe(
    "schedule-free-sgd",
    class_name="ScheduleFreeSGD",
    title="SGD without a schedule",
    family="averaging",
    year=2024,
    source="Defazio et al. 2024, arXiv:2405.15682",
    use="convolutional networks whose training has no end known in advance; evaluate inside opt.averaged()",
    avoid="code that reads the weights between steps: those are not the averaged ones",
    lrs=(1e-1, 3e-1, 1.0),
    also=("SGDScheduleFree",),
)
def schedule_free_sgd(lr: float = 1.0, beta: float = 0.9, weight_decay: float = 0.0) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        average=ScheduleFree(beta),
        step=lr,
    )


@recipe(
    "schedule-free-adamw",
    class_name="ScheduleFreeAdamW",
    title="AdamW without a schedule",
    family="averaging",
    year=2024,
    source="Defazio et al. 2024, arXiv:2405.15682; decoupling, its C: Song et al. 2025, arXiv:2507.09846",
    use="training whose end is not known in advance; evaluate inside opt.averaged()",
    avoid="code that reads the weights between steps: those are not the averaged ones",
    lrs=(1e-3, 3e-3, 1e-2),
    also=("AdamWScheduleFree", "SFAdamW"),
)
def schedule_free_adamw(
    lr: float = 2.5e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupling: float = 0.0,
    decay_at_z: bool = False,
) -> Recipe:
    return Recipe(
        scale=SecondMoment(betas[1], eps),
        regularize=Decoupled(weight_decay, base=decay_at_z) if weight_decay else None,
        average=ScheduleFree(betas[0], decoupling=decoupling),
        step=lr,
    )


@recipe(
    "schedule-free-radam",
    class_name="ScheduleFreeRAdam",
    title="Adam without a schedule or a warm-up",
    family="averaging",
    year=2024,
    source="Defazio et al. 2024, arXiv:2405.15682; warm-up: Liu et al. 2019, arXiv:1908.03265",
    use="schedule-free training where not even the warm-up's length is known; evaluate inside opt.averaged()",
    avoid="runs of a few steps: the first ones, four with betas[1] = 0.999, move nothing; silent=False: by plain SGD",
    lrs=(1e-3, 3e-3, 1e-2),
    also=("RAdamScheduleFree",),
)
def schedule_free_radam(
    lr: float = 2.5e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    silent: bool = True,
) -> Recipe:
    moment = SecondMoment(betas[1], eps)
    return Recipe(
        scale=moment if silent else Rectified(moment, 4.0, factor=False),
        regularize=decoupled(weight_decay),
        average=ScheduleFree(betas[0]),
        step=RectifiedRate(lr, betas[1], silent),
    )


@recipe(
    "lookahead",
    class_name="Lookahead",
    title="k steps of SGD forward, one step back",
    family="averaging",
    year=2019,
    source="Zhang et al. 2019, arXiv:1907.08610",
    use="momentum SGD that is a little too fast: lower variance at 4 bytes per parameter",
    avoid="evaluation between synchronisations without opt.averaged()",
    lrs=(1e-2, 3e-2, 1e-1),
)
def lookahead(
    lr: float = 1e-1,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    k: int = 5,
    alpha: float = 0.5,
    inner: Literal["keep", "reset", "pullback"] = "keep",
) -> Recipe:
    ball = HeavyBall(momentum)
    kept = {"keep": ball, "reset": Restarted(ball, k), "pullback": PulledBack(ball, k, alpha)}
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=kept[inner] if momentum else None,
        average=Lookahead(k, alpha),
        step=lr,
    )


@recipe(
    "swa",
    class_name="SWA",
    title="SGD, its last stretch averaged with equal weights",
    family="averaging",
    year=2018,
    source="Izmailov et al. 2018, arXiv:1803.05407",
    use="a wider optimum from the end of a run at a constant or cyclic rate: set start to three quarters of it",
    avoid="a schedule that ends at 0, which leaves nothing to average; batch norm without new statistics",
    lrs=(1e-2, 3e-2, 1e-1),
)
def swa(lr: float = 5e-2, momentum: float = 0.9, weight_decay: float = 0.0, start: int = 0, every: int = 1) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        momentum=HeavyBall(momentum) if momentum else None,
        average=SWA(start, every),
        step=lr,
    )


@recipe(
    "lawa",
    class_name="LAWA",
    title="NAdamW with the mean of its latest snapshots",
    family="averaging",
    year=2022,
    source="Kaddour 2022, arXiv:2209.14981; with NAdamW: AlgoPerf 2024",
    use="good weights in the middle of a long run, while the rate is still high: every at 0.2 % of it",
    avoid="tight memory: 4 bytes per parameter and snapshot",
    lrs=(3e-4, 1e-3, 3e-3),
)
def lawa(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    k: int = 5,
    every: int = 100,
    start: int = 0,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0], nesterov=True),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        average=LAWA(k, every, start),
        step=lr,
    )


@recipe(
    "adamw-ema",
    class_name="AdamWEMA",
    title="AdamW with a moving average of the weights",
    family="averaging",
    year=2019,
    source="AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101; averaging: Polyak & Juditsky 1992",
    use="diffusion models, and most things at a rate that is not decayed: evaluate inside opt.averaged()",
    avoid="runs shorter than a few times 1 / (1 - ema) steps with a schedule that decays anyway",
    lrs=(3e-4, 1e-3, 3e-3),
    also=("ModelEma", "Polyak averaging"),
)
def adamw_ema(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    ema: float = 0.999,
    every: int = 1,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=decoupled(weight_decay),
        average=WeightEma(ema, every=every),
        step=lr,
    )


@recipe(
    "clipped-adam",
    class_name="ClippedAdam",
    title="clipped Adam with a moving average of the weights",
    family="averaging",
    year=2024,
    source="Ahn & Cutkosky 2024, arXiv:2405.18199 (for each coordinate; per='model': for the whole gradient's length)",
    use="Adam with one decay for all it averages, and rates that are proven for nonconvex losses",
    avoid="reading the last iterate: the theorem and the method speak of the average",
    lrs=(1e-4, 3e-4, 1e-3),
)
def clipped_adam(
    lr: float = 3e-4, beta: float = 0.99, eps: float = 1e-8, per: Literal["element", "tensor", "model"] = "element"
) -> Recipe:
    return Recipe(
        momentum=HeavyBall(beta),
        scale=DiscountedSquares(beta * beta, eps, per),
        guard=ClipEach(1.0, per=per),
        average=WeightEma(beta),
        step=lr,
    )
