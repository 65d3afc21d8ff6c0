"""Methods that size each coordinate's step by the history of its squares, without Adam's momentum."""

from __future__ import annotations

from slalom.parts import (
    FTRL,
    L1,
    L2,
    Accumulated,
    CenteredMoment,
    Decaying,
    Ema,
    HeavyBall,
    Inside,
    SecondMoment,
    WholeSteps,
)
from slalom.recipes.common import SCALE_FIRST
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe


# torch's RMSprop sums quotients: its momentum comes after its scale.
@recipe(
    "adagrad",
    class_name="Adagrad",
    title="adaptive gradients",
    family="adaptive",
    year=2011,
    source="Duchi, Hazan & Singer 2011, JMLR 12",
    use="sparse features, convex problems; its rate decays by itself",
    avoid="long training of deep networks: it never forgets, so steps die out",
    lrs=(3e-3, 1e-2, 3e-2),
)
def adagrad(
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        scale=Accumulated(initial_accumulator_value, eps),
        step=Decaying(lr, lr_decay) if lr_decay else lr,
    )


@recipe(
    "rmsprop",
    class_name="RMSprop",
    title="root mean square propagation",
    family="adaptive",
    year=2012,
    source="Tieleman & Hinton 2012, lecture 6.5; centred: Graves 2013, arXiv:1308.0850",
    use="recurrent networks and reinforcement learning",
    avoid="starting without warm-up: the first step is 1 / sqrt(1 - alpha) rates long (see rmsprop-bc)",
    lrs=(3e-4, 1e-3, 3e-3),
)
def rmsprop(
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        scale=CenteredMoment(alpha, eps) if centered else SecondMoment(alpha, eps, debias=False),
        momentum=HeavyBall(momentum) if momentum else None,
        step=lr,
        order=SCALE_FIRST,
    )


@recipe(
    "rmsprop-tf",
    class_name="RMSpropTF",
    title="RMSProp as TensorFlow has it",
    family="adaptive",
    year=2015,
    source="TensorFlow 2015; in torch: timm's RMSpropTF",
    use="reproducing what was trained with TensorFlow, as EfficientNet was: no large first steps, since v begins at 1",
    avoid="gradients far below 1: steps are short until v has forgotten where it began",
    lrs=(3e-4, 1e-3, 3e-3),
)
def rmsprop_tf(
    lr: float = 1e-2, alpha: float = 0.9, eps: float = 1e-10, weight_decay: float = 0.0, momentum: float = 0.0
) -> Recipe:
    return Recipe(
        gradient=L2(weight_decay) if weight_decay else None,
        scale=SecondMoment(alpha, Inside(eps), debias=False, initial=1.0),
        momentum=WholeSteps(HeavyBall(momentum)) if momentum else None,
        step=lr,
        order=SCALE_FIRST,
    )


@recipe(
    "rmsprop-bc",
    class_name="RMSpropBC",
    title="RMSProp with bias correction",
    family="adaptive",
    year=2014,
    source="Adam (Kingma & Ba 2014, arXiv:1412.6980) with beta1 = 0",
    use="where RMSProp is wanted and the first steps must not explode",
    avoid="noise-free end games: like RMSProp it circles at a constant rate",
    lrs=(3e-4, 1e-3, 3e-3),
)
def rmsprop_bc(lr: float = 1e-3, beta: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0) -> Recipe:
    return Recipe(gradient=L2(weight_decay) if weight_decay else None, scale=SecondMoment(beta, eps), step=lr)


@recipe(
    "ftrl-adam",
    class_name="FTRLAdam",
    title="Adam in the lazy form",
    family="lazy",
    year=2013,
    source="FTRL-Proximal (McMahan et al. 2013, KDD) with Adam's scale (arXiv:1412.6980)",
    use="exact zeros: a fixed L1 penalty selects weights while Adam trains the rest",
    avoid="no penalty: it then equals Adam and needs twice the state",
    lrs=(3e-4, 1e-3, 3e-3),
)
def ftrl_adam(
    lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, l1: float = 0.0
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=L1(l1) if l1 else None,
        form=FTRL(),
        step=lr,
    )
