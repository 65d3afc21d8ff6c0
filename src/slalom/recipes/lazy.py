"""Methods of online learning and of sparse features: lazy forms, growing memories, penalties as proximal steps."""

from __future__ import annotations

from typing import Literal

from slalom.parts import (
    FTRL,
    L1,
    Decoupled,
    Ema,
    GroupL2,
    HeavyBall,
    OnlineMoment,
    ProximalDecay,
    ProximalL2,
    RowAccumulated,
    SecondMoment,
    Shrinkage,
    StronglyConvex,
    StronglyConvexMoment,
    Unrooted,
)
from slalom.parts.regularize import Growth
from slalom.parts.scale import Accumulated
from slalom.recipes.recipe import Recipe
from slalom.recipes.registry import recipe


@recipe(
    "ftrl-proximal",
    class_name="FTRLProximal",
    title="follow the regularised leader, proximally",
    family="lazy",
    year=2013,
    source='McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", KDD',
    use="click models and other sparse features: exact zeros at little cost in loss; sparse gradients, exactly. As in "
    "Keras: beta=0.0, initial=0.1, l2 and shrinkage twice theirs",
    avoid="deep networks without sparse features: it is AdaGrad there, with one buffer more",
    lrs=(3e-2, 1e-1, 3e-1),
)
def ftrl_proximal(
    lr: float = 0.1,
    beta: float = 1.0,
    l1: float = 0.0,
    l2: float = 0.0,
    growth: Growth = "fixed",
    initial: float = 0.0,
    shrinkage: float = 0.0,
) -> Recipe:
    penalties = (
        *([L1(l1, growth)] if l1 else []),
        *([ProximalL2(l2, growth)] if l2 else []),
        *([Shrinkage(shrinkage)] if shrinkage else []),
    )
    return Recipe(
        scale=Accumulated(initial, beta),
        regularize=penalties or None,
        form=FTRL(),
        step=lr,
    )


@recipe(
    "group-ftrl",
    class_name="GroupFTRL",
    title="FTRL that keeps or drops whole rows",
    family="lazy",
    year=2019,
    source="Ni et al. 2019, CIKM, doi 10.1145/3357384.3358114, in the lazy form of McMahan et al. 2013",
    use="choosing which features keep an embedding (rows), or how many dimensions it has (columns)",
    avoid="vectors and single weights: the group penalty does not apply to them",
    lrs=(3e-2, 1e-1, 3e-1),
)
def group_ftrl(
    lr: float = 0.1,
    beta: float = 1.0,
    group: float = 1e-3,
    per: Literal["row", "column"] = "row",
    l1: float = 0.0,
    l2: float = 0.0,
    growth: Growth = "fixed",
) -> Recipe:
    penalties = [*([L1(l1, growth)] if l1 else []), *([ProximalL2(l2, growth)] if l2 else [])]
    return Recipe(
        scale=Accumulated(eps=beta),
        regularize=(*penalties, GroupL2(group, per, growth)),
        form=FTRL(),
        step=lr,
    )


@recipe(
    "adagrad-rowwise",
    class_name="RowwiseAdagrad",
    title="adaptive gradients, one sum per row",
    family="adaptive",
    year=2019,
    source="Naumov et al. 2019, DLRM, arXiv:1906.00091",
    use="large embeddings: state is one number per row; sparse gradients, exactly",
    avoid="matrices whose columns see gradients of different size",
    lrs=(3e-3, 1e-2, 3e-2),
)
def adagrad_rowwise(lr: float = 1e-2, eps: float = 1e-10) -> Recipe:
    return Recipe(scale=RowAccumulated(eps), step=lr)


@recipe(
    "online-rmsprop",
    class_name="OnlineRMSprop",
    title="RMSProp whose memory grows",
    family="adaptive",
    year=2017,
    source="Mukkamala & Hein 2017, arXiv:1706.05507",
    use="convex problems where RMSProp circles: its steps shrink as 1 / sqrt(t) by themselves",
    avoid="non-stationary problems: like AdaGrad it slows down for good",
    lrs=(3e-3, 1e-2, 3e-2),
)
def online_rmsprop(lr: float = 1e-2, gamma: float = 0.9, eps: float = 1e-8) -> Recipe:
    return Recipe(scale=OnlineMoment(gamma, eps), step=lr)


@recipe(
    "sc-adagrad",
    class_name="SCAdagrad",
    title="AdaGrad for strongly convex losses",
    family="adaptive",
    year=2017,
    source="Mukkamala & Hein 2017, arXiv:1706.05507",
    use="strongly convex losses: regret log T with a rate near one over the convexity",
    avoid="losses whose scale is unknown: steps shrink as the loss is scaled up",
    lrs=(1e-2, 3e-2, 1e-1),
)
def sc_adagrad(lr: float = 1e-2, xi1: float = 0.1, xi2: float = 0.1) -> Recipe:
    return Recipe(scale=StronglyConvex(xi1, xi2), step=lr)


@recipe(
    "sc-rmsprop",
    class_name="SCRMSprop",
    title="Online RMSprop for strongly convex losses",
    family="adaptive",
    year=2017,
    source="Mukkamala & Hein 2017, arXiv:1706.05507",
    use="as sc-adagrad, with a memory that favours new gradients a little",
    avoid="losses whose scale is unknown: steps shrink as the loss is scaled up",
    lrs=(1e-2, 3e-2, 1e-1),
)
def sc_rmsprop(lr: float = 1e-2, gamma: float = 0.9, xi1: float = 0.1, xi2: float = 0.1) -> Recipe:
    return Recipe(scale=StronglyConvexMoment(gamma, xi1, xi2), step=lr)


@recipe(
    "kate",
    class_name="KATE",
    title="AdaGrad without the root, free of feature scales",
    family="adaptive",
    year=2024,
    source="Choudhury et al. 2024, arXiv:2403.02648",
    use="generalised linear models with features of very different scale",
    avoid="tiny first gradients: a first step is lr / g long",
    lrs=(1e-4, 1e-3, 1e-2),
)
def kate(lr: float = 1e-3, eta: float = 0.9, eps: float = 1e-8) -> Recipe:
    return Recipe(scale=Unrooted(eta, eps), step=lr)


@recipe(
    "sgdw",
    class_name="SGDW",
    title="momentum SGD with decoupled weight decay",
    family="sgd",
    year=2017,
    source="Loshchilov & Hutter 2017, arXiv:1711.05101",
    use="momentum SGD where decay and rate are tuned apart",
    avoid="no momentum: it is SGD's own weight decay then",
    lrs=(1e-2, 3e-2, 1e-1),
)
def sgdw(
    lr: float = 1e-2,
    momentum: float = 0.9,
    weight_decay: float = 1e-2,
    nesterov: bool = False,
    proximal: bool = False,
) -> Recipe:
    decay = ProximalDecay if proximal else Decoupled
    return Recipe(
        momentum=HeavyBall(momentum, 0.0, nesterov) if momentum else None,
        regularize=decay(weight_decay) if weight_decay else None,
        step=lr,
    )


@recipe(
    "adamw-proximal",
    class_name="ProximalAdamW",
    title="AdamW whose decay is a division",
    family="adam",
    year=2022,
    source="Zhuang et al. 2022, arXiv:2202.00089",
    use="large lr * weight_decay: it never flips a sign and is stable at any strength",
    avoid="copying AdamW's numbers: the two differ once lr * weight_decay is not small",
    lrs=(3e-4, 1e-3, 3e-3),
)
def adamw_proximal(
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Recipe:
    return Recipe(
        momentum=Ema(betas[0]),
        scale=SecondMoment(betas[1], eps),
        regularize=ProximalDecay(weight_decay) if weight_decay else None,
        step=lr,
    )


@recipe(
    "amsgrad-lean",
    class_name="LeanAMSGrad",
    title="AMSGrad without its extra buffer",
    family="adam",
    year=2018,
    source="after Reddi et al. 2018, arXiv:1904.09237; the one-buffer heuristic of practice",
    use="rows that get gradients rarely: rates never grow back while a feature is away",
    avoid="dense noisy weights: the buffer creeps to the largest square, several times AMSGrad's brake",
    lrs=(3e-4, 1e-3, 3e-3),
)
def amsgrad_lean(lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Recipe:
    return Recipe(momentum=Ema(betas[0]), scale=SecondMoment(betas[1], eps, amsgrad="memoryless"), step=lr)
