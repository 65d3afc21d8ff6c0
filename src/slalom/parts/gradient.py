"""What is done to the raw gradient, before anything remembers it."""

from __future__ import annotations

from slalom.algebra import (
    Per,
    State,
    Value,
    lerp,
    let,
    maximum,
    mean,
    minimum,
    norm,
    quantile,
    sqrt,
    uniform,
    where,
)
from slalom.parts.base import Gradient
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, Fraction, NonNegative, Positive, check_count
from slalom.parts.signals import NO_RATE, Signals


class L2(Gradient):
    """Classic weight decay: the gradient of ``weight_decay / 2 * |w|^2`` joins the loss's own.

        g <- g + lambda w

    Whatever adapts to gradients adapts to this pull too; `Decoupled` does not (Loshchilov & Hutter 2017,
    arXiv:1711.05101).

    Args:
        weight_decay: lambda.
    """

    weight_decay: NonNegative = 1e-2

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.with_gradient(x.grad + self.weight_decay * x.w)


class StandardizeRows(Gradient):
    """Each row with mean 0 and deviation 1: SWAN's first half (Ma et al. 2024, arXiv:2412.13148).

    g <- (g - mean of the row) / deviation of the row,   0 where a row is constant; vectors are one row
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        centred = x.grad - mean(x.grad, "row")
        deviation = sqrt(mean(centred * centred, "row"))
        return x.with_gradient(centred / where(deviation > 0, deviation, 1.0))


class ClipNorm(Gradient):
    """Clipping by norm (Pascanu et al. 2013, arXiv:1211.5063).

        g <- g / max(1, |g| / max_norm)

    torch's ``clip_grad_norm_`` divides by ``|g| + 1e-6`` instead, which differs in the seventh digit.

    Args:
        max_norm: the longest gradient that passes unchanged.
        per: what the norm is taken over: the whole ``model``, the parameter ``group``, or each ``tensor``.
    """

    max_norm: Positive = 1.0
    per: Per = "model"

    def apply(self, x: Signals, s: Memory) -> Signals:
        excess: Value = norm(x.grad, self.per) / self.max_norm
        return x.with_gradient(x.grad / maximum(1.0, excess))


class ClipValue(Gradient):
    """Clipping element by element (Mikolov 2012), which turns the gradient as well as shortening it.

        g <- min(max(g, -limit), limit)

    Args:
        limit: the largest element that passes unchanged.
    """

    limit: Positive = 1.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.with_gradient(minimum(maximum(x.grad, -self.limit), self.limit))


class Normalize(Gradient):
    """Every gradient at the same length: only its direction is used.

        g <- g / (|g| + eps)

    Often called gradient normalisation; GradNorm (arXiv:1711.02257) is something else, a balance of several losses.
    Nothing shrinks near a minimum, so the rate must.

    Args:
        per: what the norm is taken over: each ``row``, ``tensor``, the parameter ``group`` or the whole ``model``.
        eps: added to the length.
    """

    per: Per = "tensor"
    eps: NonNegative = 1e-8

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.with_gradient(x.grad / (norm(x.grad, self.per) + self.eps * x.unit))


class Centralize(Gradient):
    """Gradient centralisation: every output unit's gradient sums to zero (Yong et al. 2020, arXiv:2004.01461).

        g <- g - mean of each row            matrices and kernels only

    The sum of each row of weights then never changes, without decay. A row of one element, which would get no gradient
    at all, is left alone (the authors' code freezes it). Rows are output units in linear and convolutional layers; in a
    transposed convolution they are inputs and in an embedding words: give those a recipe without it (`ByRole`).
    """

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2:
            return x
        return x.with_gradient(x.grad - where(x.columns > 1, mean(x.grad, "row"), 0.0))


class AdaptiveClip(Gradient):
    """Adaptive gradient clipping: row by row, relative to the weights (Brock et al. 2021, arXiv:2102.06171).

        g_i <- g_i min(1, clip max(|w_i|, floor) / |g_i|)        for each row; a vector is one row

    Scaling weights and gradients together changes nothing. The authors leave out the last layer.

    Args:
        clip: the longest gradient, in lengths of the weights.
        floor: the length that a shorter row of weights counts as, so that zeros can move.
    """

    clip: Positive = 1e-2
    floor: Positive = 1e-3

    def apply(self, x: Signals, s: Memory) -> Signals:
        most = self.clip * maximum(norm(x.w, "row"), self.floor)
        return x.with_gradient(x.grad * minimum(most / maximum(norm(x.grad, "row"), 1e-6), 1.0))


class SoftClip(Gradient):
    """No row of gradients may be larger than its row of weights, in root mean square.

        g_i <- g_i min(1, max(RMS(w_i), floor) / RMS(g_i))           for each row; a vector is one row

    `AdaptiveClip` with a clip of 1, measured per element. It circulates with a floor of 1e-12, with which whatever
    starts at zero stays there for good; the floor here is `AdaptiveClip`'s.

    Args:
        floor: the size that a smaller row of weights counts as, so that zeros can move.
    """

    floor: Positive = 1e-3

    def apply(self, x: Signals, s: Memory) -> Signals:
        most = maximum(sqrt(mean(x.w * x.w, "row")), self.floor)
        size = maximum(sqrt(mean(x.grad * x.grad, "row")), 1e-12)
        return x.with_gradient(x.grad * minimum(most / size, 1.0))


class LayerRate(Gradient):
    """LARS: every matrix learns at a rate in proportion to its length (You et al. 2017, arXiv:1708.03888).

        g <- r (g + lambda w),   r = trust |w| / (|g| + lambda |w|)         1 where either norm is 0

    Vectors and scalars are left alone, without decay, as in the implementations that are used. With ``clip`` the ratio
    only ever slows: r is min(r, rate) / rate (LARC; timm's ``trust_clip``), which needs the step before the gradient in
    the recipe's order.

    Args:
        trust: the trust coefficient.
        weight_decay: lambda.
        vectors: take vectors in, as the paper does.
        clip: no tensor learns faster than by the recipe's rate.
    """

    trust: Positive = 1e-3
    weight_decay: NonNegative = 5e-4
    vectors: bool = False
    clip: bool = False

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.ndim < 2 and not self.vectors:
            return x
        length, steepness = norm(x.w), norm(x.grad)
        ratio = self.trust * length / (steepness + self.weight_decay * length)
        if self.clip:
            if x.rate is NO_RATE:
                raise ValueError("LayerRate(clip=True) reads the rate: state an order with step before gradient.")
            ratio = minimum(ratio / x.rate, 1.0)
        r = let("r", where((length > 0) & (steepness > 0), ratio, 1.0))
        return x.with_gradient(r * (x.grad + self.weight_decay * x.w))


class VarianceReduced(Gradient):
    """MARS: the gradient, corrected by its change (Yuan et al. 2024, arXiv:2411.10438).

        c = g + gamma beta / (1 - beta) (g - g_prev)            g_prev = 0 at the first step
        g <- c / max(1, |c|)                                     per tensor

    The approximate form, as by default in the authors' code: g_prev is the last step's gradient, on its own batch.

    Args:
        gamma: strength.
        beta: decay of the momentum that follows.
    """

    gamma: NonNegative = 0.025
    beta: Decay = 0.95
    previous = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        c = let("c", x.grad + self.gamma * self.beta / (1 - self.beta) * (x.grad - s.previous))
        s.previous = x.grad
        return x.with_gradient(c / maximum(1.0, norm(c)))


class KeepLength(Gradient):
    """AdaNorm: a gradient shorter than usual is stretched to the usual length (Dubey et al. 2022, arXiv:2210.06364).

        e <- r e + (1 - r) |g|                   per tensor, not corrected
        momentum sees  g max(1, e / |g|),  the scale sees g

    The authors' code also adds eps to the second moment at every step; this does not.

    Args:
        beta: r.
    """

    beta: Decay = 0.95
    e = State(per="tensor")

    def apply(self, x: Signals, s: Memory) -> Signals:
        length = norm(x.grad)
        s.e = lerp(s.e, length, 1 - self.beta)
        return x.replace(direction=where(s.e > length, s.e / maximum(length, 1e-30), 1.0) * x.grad)


class Tweak(Gradient):
    """Gradients a little smaller from element to element, so that neurons which began alike do not stay alike.

        g_k <- g_k (1 - rate j / n),   j = k mod n,   n = neurons times the number of inputs; k counts the elements

    No chance is in it: as many rows as ``neurons`` get factors of their own, then these begin again. A neuron's last
    input learns up to ``rate`` more slowly than it would.

    Source: Babkin, FloatNeuralNet of the Triceps project ("tweakRate").

    Args:
        rate: how much smaller at the most.
        neurons: how many rows differ.
    """

    rate: Fraction = 0.01
    neurons: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Tweak", "neurons", self.neurons)

    def apply(self, x: Signals, s: Memory) -> Signals:
        n = self.neurons * x.columns
        return x.with_gradient(x.grad * (1 - self.rate * ((x.position % n) / n)))


class Noise(Gradient):
    """Gaussian noise that fades (Neelakantan et al. 2015, arXiv:1511.06807).

        g <- g + sqrt(eta / (1 + t)^gamma) xi        xi standard normal for every element; t counts from 0

    The numbers are a function of seed, parameter, step and element, so every executor draws the same, and a resumed
    run goes on as if it had not stopped. Two optimizers that train together need two seeds. None is farther from 0
    than 5.3. With sparse gradients only rows that have one get noise, so ``sparse="lazy"`` has to be chosen.

    Args:
        eta: variance at the first step, in squared units of the gradient; the paper tries 0.01, 0.3 and 1.
        gamma: how fast it fades, 0.55 in the paper; 0 for noise that stays.
        seed: which random numbers.
    """

    eta: NonNegative = 0.01
    gamma: NonNegative = 0.55
    seed: int = 0
    stream = State(per="tensor", init="number")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Noise", "seed", self.seed, least=0)
        if self.seed >= 2**32:
            raise ValueError(f"Noise(seed={self.seed!r}): seed must be below 2^32.")

    def apply(self, x: Signals, s: Memory) -> Signals:
        xi = let("ξ", quantile(uniform(x.position, s.stream, x.t, self.seed)))
        return x.with_gradient(x.grad + sqrt(self.eta / x.t**self.gamma) * xi)
