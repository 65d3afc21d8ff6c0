"""Methods that remember little: rows, columns, blocks and single bits instead of a number per element."""

from __future__ import annotations

from typing import Literal

from slalom.parts import (
    BlockMoment,
    ClipUpdate,
    Confidence,
    Cover,
    Ema,
    Factored,
    FactoredEma,
    FoldedEma,
    FoldedMoment,
    Greedy,
    Inertial,
    ModelOriented,
    Relative,
    RelativeSize,
    SecondMoment,
    Sinkhorn,
    WholeSteps,
)
from slalom.recipes.adam import adamw
from slalom.recipes.common import CLIPPED_FIRST, SCALE_FIRST, decoupled
from slalom.recipes.recipe import ByRole, Recipe
from slalom.recipes.registry import recipe


@recipe(
    "adafactor-torch",
    class_name="AdafactorTorch",
    title="Adafactor as torch.optim has it",
    family="memory",
    year=2018,
    source="torch.optim.Adafactor, after Shazeer & Stern 2018, arXiv:1804.04235",
    use="reproducing what was trained with torch's class",
    avoid="small gradients: eps bounds the estimate itself, the paper's `adafactor` has no such threshold",
    lrs=(3e-3, 1e-2, 3e-2),
)
def adafactor_torch(
    lr: float = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float, float] = (1.1920929e-07, 1e-3),
    d: float = 1.0,
    weight_decay: float = 0.0,
) -> Recipe:
    return Recipe(
        scale=Factored(beta2_decay, eps[0], floor="estimate"),
        guard=(ClipUpdate(d), RelativeSize(eps[1])),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "adafactor-hf",
    class_name="AdafactorHF",
    title="Adafactor with Hugging Face's switches",
    family="memory",
    year=2018,
    source="transformers.Adafactor, after Shazeer & Stern 2018, arXiv:1804.04235",
    use="fine-tuning T5 and its kin: relative_step=False, scale_parameter=False with lr=1e-3 is the usual choice",
    avoid="beta1 above 0 where memory is short: momentum costs 4 bytes per parameter",
    lrs=(3e-3, 1e-2, 3e-2),
)
def adafactor_hf(
    lr: float = 1e-2,
    eps: tuple[float, float] = (1e-30, 1e-3),
    clip_threshold: float = 1.0,
    decay_rate: float = -0.8,
    beta1: float = 0.0,
    weight_decay: float = 0.0,
    scale_parameter: bool = True,
    relative_step: bool = True,
    warmup_init: bool = False,
) -> Recipe:
    return Recipe(
        scale=Factored(decay_rate, eps[0]),
        guard=ClipUpdate(clip_threshold),
        momentum=WholeSteps(Ema(beta1, debias=False)) if beta1 else None,
        regularize=decoupled(weight_decay),
        step=Relative(lr, eps[1], 1e-6 if warmup_init else 0.0, scale_parameter, relative_step),
        order=CLIPPED_FIRST,
    )


@recipe(
    "came",
    class_name="CAME",
    title="Adafactor with a measure of its own confidence",
    family="memory",
    year=2023,
    source="Luo et al. 2023, arXiv:2307.02047",
    use="pre-training and fine-tuning large language models with momentum at half of Adam's memory",
    avoid="settings tuned for Adafactor: it has momentum (4 bytes per parameter) and no relative step",
    lrs=(1e-4, 2e-4, 1e-3),
)
def came(
    lr: float = 2e-4,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    eps: tuple[float, float] = (1e-30, 1e-16),
    clip_threshold: float = 1.0,
    weight_decay: float = 0.0,
) -> Recipe:
    return Recipe(
        scale=FactoredEma(betas[1], eps[0]),
        guard=ClipUpdate(clip_threshold),
        momentum=Confidence(betas[0], betas[2], eps[1]),
        regularize=decoupled(weight_decay),
        order=CLIPPED_FIRST,
        step=lr,
    )


@recipe(
    "sm3",
    class_name="SM3",
    title="AdaGrad from row and column maxima",
    family="memory",
    year=2019,
    source="Anil, Gupta, Koren & Singer 2019, arXiv:1901.11150",
    use="sparse activations such as embeddings, where AdaGrad works but its memory does not fit; warm it up",
    avoid="long runs on dense gradients: like AdaGrad it never forgets, and its bounds only grow looser",
    lrs=(1e-2, 3e-2, 1e-1),
)
def sm3(
    lr: float = 1e-1,
    momentum: float = 0.0,
    eps: float = 1e-30,
    weight_decay: float = 0.0,
    variant: Literal["I", "II"] = "II",
) -> Recipe:
    return Recipe(
        scale=Cover(variant, eps),
        momentum=Ema(momentum, debias=False) if momentum else None,
        regularize=decoupled(weight_decay),
        order=SCALE_FIRST,
        step=lr,
    )


@recipe(
    "smmf",
    class_name="SMMF",
    title="Adam in two factors and one bit per parameter",
    family="memory",
    year=2024,
    source="Park & Lee 2024, arXiv:2412.08894",
    use="momentum and adaptation where even 4 bytes per parameter are too many; tensors of any shape",
    avoid="very long runs that rely on momentum: it fades as growth < 1 says; tensors of prime size",
    lrs=(3e-4, 1e-3, 3e-3),
    exceptions={
        "elements": "it folds all elements of a tensor into a square, by definition, so that neighbours share a factor"
    },
)
def smmf(
    lr: float = 1e-3,
    beta: float = 0.9,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay_rate: float = -0.5,
    growth_rate: float = 0.999,
) -> Recipe:
    return Recipe(
        momentum=FoldedEma(beta, growth_rate),
        scale=FoldedMoment(decay_rate, eps),
        regularize=decoupled(weight_decay),
        step=lr,
    )


@recipe(
    "amos",
    class_name="Amos",
    title="steps and decay towards a known scale of the weights",
    family="memory",
    year=2022,
    source="Tian & Parikh 2022, arXiv:2210.11693",
    use="pre-training where the length of training is not known: no decay to tune, no schedule, two numbers per row",
    avoid="fine-tuning, and layers whose final size nobody can guess: a wrong eta is a wrong rate",
    lrs=(3e-3, 1e-2, 3e-2),
)
def amos(
    lr: float = 1e-2,
    beta: float = 0.999,
    eps: float = 1e-18,
    per: Literal["row", "tensor"] = "row",
    eta: float = 0.0,
    gain: float = 2**0.5,
    momentum: float = 0.0,
) -> Recipe:
    return Recipe(
        scale=ModelOriented(beta, eps, per, eta, gain),
        form=Inertial(beta=momentum) if momentum else Greedy(),
        step=lr,
    )


@recipe(
    "adam-mini",
    class_name="AdamMini",
    title="Adam with one second moment per row",
    family="memory",
    year=2024,
    source="Zhang et al. 2024, arXiv:2406.16793",
    use="transformers where AdamW is known to work: its settings carry over at half of its memory",
    avoid="kernels and unusual layers, whose whole tensor shares one step size here",
    lrs=(3e-4, 1e-3, 3e-3),
    exceptions={"complex": "a vector of complex numbers and a matrix of pairs play different roles"},
)
def adam_mini(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    heads: int = 0,
) -> ByRole:
    def blocks(scale: BlockMoment) -> Recipe:
        return Recipe(
            momentum=Ema(betas[0]),
            scale=scale,
            regularize=decoupled(weight_decay),
            step=lr,
        )

    rows = blocks(BlockMoment(betas[1], eps))
    return ByRole(
        # `heads` belongs into a parameter group of its own, that of the query and key projections
        matrix=blocks(BlockMoment(betas[1], eps, blocks=heads)),
        embedding=rows,
        head=rows,
        convolution=blocks(BlockMoment(betas[1], eps, per="tensor")),
        rest=Recipe(momentum=Ema(betas[0]), scale=SecondMoment(betas[1], eps), step=lr),
    )


@recipe(
    "sinkgd",
    class_name="SinkGD",
    title="gradients normalised along rows and columns; AdamW where there is no matrix",
    family="memory",
    year=2025,
    source="Scetbon et al. 2025, arXiv:2502.06742",
    use="hidden matrices of large language models without any optimizer state",
    avoid="small batches: without momentum the noise of one batch is the step",
    lrs=(1e-3, 3e-3, 1e-2),
    exceptions={
        "complex": "a vector of complex numbers and a matrix of pairs play different roles",
        "two-groups": "lr in a group is the rate of its role; lr as an argument is the matrices'",
        "numbers-in-groups": "lr in a group is the rate of its role; lr as an argument is the matrices'",
    },
)
def sinkgd(
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    iterations: int = 5,
    adam_lr: float = 1e-3,
    adam_betas: tuple[float, float] = (0.9, 0.95),
    adam_eps: float = 1e-8,
) -> ByRole:
    hidden = Recipe(
        geometry=Sinkhorn(iterations),
        regularize=decoupled(weight_decay),
        step=lr,
    )
    return ByRole(matrix=hidden, convolution=hidden, rest=adamw(adam_lr, adam_betas, adam_eps, weight_decay))
