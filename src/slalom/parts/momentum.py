"""Which direction history suggests.

Where a recipe puts its scale first (LaProp, RMSProp with momentum), momentum works on the quotient: every part here
begins by carrying the division out, which changes nothing when there is none.
"""

from __future__ import annotations

from typing import Literal

from slalom.algebra import Per, State, Value, exp, lerp, let, log, maximum, minimum, sqrt, total, where
from slalom.parts.base import Momentum
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, Fraction, NonNegative
from slalom.parts.signals import Signals


class HeavyBall(Momentum):
    """Momentum as a decaying sum (Polyak 1964), with Nesterov's look-ahead in the form of Sutskever et al. 2013.

        b <- mu b + (1 - tau) g        (b = g at the first step)
        u = b,  or  g + mu b  with Nesterov

    Under a constant gradient it gains ``1 / (1 - mu)``; `Ema` has gain 1, so the same mu asks for another rate.
    Like torch, dampening is not applied at the first step. Where a scale comes first, it sums the quotients.

    Args:
        momentum: mu.
        dampening: tau.
        nesterov: look one step ahead.
    """

    momentum: NonNegative = 0.9
    dampening: Fraction = 0.0
    nesterov: bool = False
    b = State(turns=True, torch=("momentum_buffer",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        u = x.direction
        s.b = where(x.t > 1, self.momentum * s.b + (1 - self.dampening) * u, u)
        return x.replace(direction=u + self.momentum * s.b if self.nesterov else s.b, trend=s.b)


class Arrested(Momentum):
    """Momentum that stops dead, coordinate by coordinate, where the gradient turns its sign ("arrested bouncing").

        b <- nu b + g,   b = 0 where g g_prev < 0         nu = 0 during the first two steps
        u = g + nu b                                       the gradient is taken where momentum has led already

    A coordinate that overshoots is caught in one step instead of two, so nu can be 1. That needs gradients of the whole
    loss: the sign of a noisy one says little. It pays where curvature lies along the axes, and is not invariant to
    rotations; docs/tricks.md has the counts.

    Source: Babkin, FloatNeuralNet of the Triceps project, whose network code has nu = 1; its FISTA code lets nu grow
    as FISTA does, nearly as ``rising`` does here.

    Args:
        momentum: nu.
        rising: nu in pass k, counted from 0, is ``momentum (k - 1) / (k + 2)``.
    """

    momentum: NonNegative = 1.0
    rising: bool = False
    b = State()
    previous = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        g = x.direction
        moved = self._nu(x.t - 1) * s.b + g
        s.b = where(g * s.previous < 0, 0.0, moved)
        s.previous = g
        return x.replace(direction=g + self._nu(x.t) * s.b, trend=s.b)

    def _nu(self, k: Value) -> Value:
        """Return nu in pass k."""
        return where(k > 1, self.momentum * ((k - 1) / (k + 2)) if self.rising else self.momentum, 0.0)


class Ema(Momentum):
    """Exponential moving average, bias-corrected by default (Kingma & Ba 2014, arXiv:1412.6980).

        m <- beta m + (1 - beta) g
        u = m / (1 - beta^t)

    With ``nesterov`` the average looks one step ahead, ``beta m + (1 - beta) g`` with the new m, before correction
    (the NAdamW of timm and MLCommons; Muon's momentum without correction).

    Args:
        beta: decay of the average.
        debias: divide by ``1 - beta^t``.
        nesterov: look one step ahead.
    """

    beta: Decay = 0.9
    debias: bool = True
    nesterov: bool = False
    m = State(turns=True, torch=("exp_avg",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        g = x.direction
        s.m = lerp(s.m, g, 1 - self.beta)
        u = lerp(s.m, g, 1 - self.beta) if self.nesterov else s.m
        return x.replace(direction=u / (1 - self.beta**x.t) if self.debias else u, trend=s.m)


class NesterovEma(Momentum):
    """NAdam's momentum: a look-ahead whose strength warms up (Dozat 2016, "Incorporating Nesterov Momentum into Adam").

        mu_t = beta (1 - 0.96^(t psi) / 2)
        m <- beta m + (1 - beta) g
        u = mu_{t+1} m / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) g / (1 - mu_1 ... mu_t)

    With psi = inf every mu is beta, which is the look-ahead of optax's nadamw: ``beta m / (1 - beta^(t+1)) +
    (1 - beta) g / (1 - beta^t)``. `Ema` with ``nesterov`` corrects both by ``1 - beta^t``, as timm's.

    Args:
        beta: decay of the average.
        momentum_decay: psi, how fast the look-ahead reaches its strength.
    """

    beta: Decay = 0.9
    momentum_decay: NonNegative = 4e-3
    m = State(turns=True, torch=("exp_avg",))
    product = State(per="tensor", init=1.0, torch=("mu_product",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        now, ahead = let("μₜ", self._mu(x.t)), let("μₜ₊₁", self._mu(x.t + 1))
        s.product = s.product * now
        s.m = lerp(s.m, x.direction, 1 - self.beta)
        u = (ahead / (1 - s.product * ahead)) * s.m + ((1 - now) / (1 - s.product)) * x.direction
        return x.replace(direction=u, trend=s.m)

    def _mu(self, t: Value) -> Value:
        return self.beta * (1 - 0.5 * 0.96 ** (t * self.momentum_decay))


class Interpolated(Momentum):
    """Lion's momentum: one buffer, remembered slowly and read quickly (Chen et al. 2023, arXiv:2302.06675).

        u = beta_read m + (1 - beta_read) g        (m as it was)
        m <- beta_keep m + (1 - beta_keep) g

    Args:
        beta_read: weight of the buffer in the direction.
        beta_keep: decay of the buffer.
    """

    beta_read: Decay = 0.9
    beta_keep: Decay = 0.99
    m = State(turns=True, torch=("exp_avg",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        u = lerp(s.m, x.direction, 1 - self.beta_read)
        s.m = lerp(s.m, x.direction, 1 - self.beta_keep)
        return x.replace(direction=u, trend=s.m)


class Extrapolated(Momentum):
    """Adan's momentum: averages of the gradient and of its change (Xie et al. 2022, arXiv:2208.06677).

        d = g - g_prev                               (0 at the first step)
        m <- beta_1 m + (1 - beta_1) g
        c <- beta_2 c + (1 - beta_2) d
        u = m / (1 - beta_1^t) + beta_2 c / (1 - beta_2^t)
        energy e = g + beta_2 d

    The paper's betas are the complements (0.02, 0.08); these are decays, as in the authors' code.

    Args:
        beta: beta_1, decay of the gradient's average.
        beta_change: beta_2, decay of the change's average.
    """

    beta: Decay = 0.98
    beta_change: Decay = 0.92
    m = State(turns=True, torch=("exp_avg",))
    c = State(turns=True, torch=("exp_avg_diff",))
    previous = State(turns=True, torch=("previous_grad",))

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        g = x.direction
        d = let("d", where(x.t > 1, g - s.previous, 0.0))
        s.m = lerp(s.m, g, 1 - self.beta)
        s.c = lerp(s.c, d, 1 - self.beta_change)
        s.previous = g
        u = s.m / (1 - self.beta**x.t) + self.beta_change * (s.c / (1 - self.beta_change**x.t))
        return x.replace(direction=u, trend=s.m, energy=g + self.beta_change * d)


class TwoSpeeds(Momentum):
    """AdEMAMix: a fast average and a very slow one (Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137).

        m <- beta m + (1 - beta) g,   l <- beta_slow l + (1 - beta_slow) g
        u = m / (1 - beta^t) + alpha l                          the slow one is not corrected

    With ``warmup`` steps T, alpha grows linearly and the half-life of the slow average too; without, a large alpha can
    diverge at first. With beta = 0 the gradient stands for the fast average, which is not kept.

    Args:
        beta: decay of the fast average.
        beta_slow: decay of the slow one.
        alpha: weight of the slow one; the paper recommends 5 to 10, its code has 2.
        warmup: T, 0 for none.
        alpha_warmup: T of alpha alone, if it is another; 0 for the same.
    """

    beta: Decay = 0.9
    beta_slow: Decay = 0.9999
    alpha: NonNegative = 5.0
    warmup: int = 0
    alpha_warmup: int = 0
    m = State(turns=True)
    slow = State(turns=True)

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        alpha: Value | float = self.alpha
        decay: Value | float = self.beta_slow
        if self.alpha_warmup or self.warmup:
            alpha = let("α", self.alpha * minimum(x.t / (self.alpha_warmup or self.warmup), 1.0))
        if self.warmup:
            done = let("done", minimum(x.t / self.warmup, 1.0))
            fast, slow = -log(maximum(self.beta, 1e-8)), -log(self.beta_slow)
            decay = let("β′", minimum(exp(-fast * slow / (done * fast + (1 - done) * slow)), self.beta_slow))
        quick: Value = x.direction
        if self.beta:
            s.m = lerp(s.m, x.direction, 1 - self.beta)
            quick = s.m / (1 - self.beta**x.t)
        s.slow = lerp(s.slow, x.direction, 1 - decay)
        return x.replace(direction=quick + alpha * s.slow, trend=s.m if self.beta else x.direction)


class PositiveNegative(Momentum):
    """Positive-negative momentum: noise is amplified on purpose (Xie et al. 2021, arXiv:2103.17182).

        m_t = beta^2 m_{t-2} + (1 - beta^2) g
        u = ((1 + b) m_t - b m_{t-1}) / sqrt((1 + b)^2 + b^2)

    AdaPNM divides by ``1 - beta^t`` as well. That is not this average's own bias, which falls every second step: its
    first step is 1.7 rates long, the second 0.4.

    Args:
        beta: decay, per step.
        amplify: b.
        debias: divide by ``1 - beta^t``.
    """

    beta: Decay = 0.9
    amplify: NonNegative = 1.0
    debias: bool = False
    newest = State(turns=True)
    older = State(turns=True)

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        before = s.newest
        m = let("m", lerp(s.older, x.direction, 1 - self.beta * self.beta))
        s.older = before
        s.newest = m
        b = self.amplify
        u = ((1 + b) * m - b * before) / sqrt((1 + b) * (1 + b) + b * b)
        return x.replace(direction=u / (1 - self.beta**x.t) if self.debias else u, trend=m)


class Aggregated(Momentum):
    """Aggregated momentum: heavy balls of different weight, averaged (Lucas et al. 2018, AggMo, arXiv:1804.00325).

        b_i <- beta_i b_i + g
        u = (b_1 + b_2 + b_3) / 3

    The light ones damp the oscillations of the heavy one. Three, as the paper recommends; nest `Sum` for other numbers.

    Args:
        light, middle, heavy: the betas; one of 0 keeps no state.
    """

    light: Decay = 0.0
    middle: Decay = 0.9
    heavy: Decay = 0.99
    b_light = State(turns=True)
    b_middle = State(turns=True)
    b_heavy = State(turns=True)

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        summed = x.direction
        if self.light:
            summed = s.b_light = self.light * s.b_light + x.direction
        s.b_middle = self.middle * s.b_middle + x.direction
        s.b_heavy = self.heavy * s.b_heavy + x.direction
        u = (summed + s.b_middle + s.b_heavy) / 3
        return x.replace(direction=u, trend=u)


class Golden(Momentum):
    """AdamG: gradients weighed by a power of their own second moment, so that no rate is asked for (arXiv:2405.04376).

        v <- beta2 v + (1 - beta2) g^2
        r <- beta3 r + (1 - beta3) p v^q                    the "golden step size" of what v has seen so far
        m <- beta m + (1 - beta) r g
        u / D = m / (1 - beta^t) / (sqrt(v / (1 - beta2^t)) + eps)

    Scaling the loss by c scales steps by c^(2 q), about its root at the paper's q = 0.24, where Adam's do not change.
    It brings its own metric; the recipe that the paper tests has a rate of ``min(lr, 1 / sqrt(t))``, which is
    `Relative` ``(by_size=False)``. Pan & Xu 2024.

    Args:
        beta: decay of the momentum.
        beta2: decay of the second moment.
        beta3: decay of the weights.
        p, q: factor and power.
        eps: added to the root.
    """

    beta: Decay = 0.95
    beta2: Decay = 0.999
    beta3: Decay = 0.95
    p: NonNegative = 0.2
    q: NonNegative = 0.24
    eps: NonNegative = 1e-8
    m = State(turns=True)
    v = State()
    r = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        g = x.direction
        s.v = lerp(s.v, g * g, 1 - self.beta2)
        s.r = lerp(s.r, let("size", self.p * s.v**self.q), 1 - self.beta3)
        s.m = lerp(s.m, s.r * g, 1 - self.beta)
        metric = sqrt(s.v / (1 - self.beta2**x.t)) + self.eps * x.unit
        return x.replace(direction=s.m / (1 - self.beta**x.t), trend=s.m, metric=metric)


class AdaptiveMemory(Momentum):
    """Momentum whose beta is chosen at every step (Topollai & Choromanska 2025, AM-MSGD, arXiv:2510.04988).

        d = g at the first step
        beta = (|g|^2 + 2 lam <g, d> - lam |d|^2) / |d - g|^2,  clipped to [0, most];  0 where d = g
        d <- ((beta + lam) d + (1 - beta) g) / (1 + lam)

    It minimises a model of the loss made of two planes, one through the newest gradient and one through the memory,
    plus a proximal term. Gradients that alternate lower beta; under a constant gradient it does not matter.

    Args:
        most: the largest beta.
        lam: weight of the proximal term.
        per: what shares one beta: the whole ``model`` as in the paper, or each ``tensor``.
    """

    most: Decay = 0.9
    lam: NonNegative = 0.1
    per: Per = "model"
    d = State(turns=True)

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        g = x.direction
        d = let("d", where(x.t > 1, s.d, g))
        gap = let("gap", total((d - g) * (d - g), self.per))
        gain = let("gain", total(g * g + 2 * self.lam * g * d - self.lam * d * d, self.per))
        beta = let("β", minimum(maximum(where(gap > 0, gain / gap, 0.0), 0.0), self.most))
        s.d = ((beta + self.lam) * d + (1 - beta) * g) / (1 + self.lam)
        return x.replace(direction=s.d, trend=s.d)


class AdaptiveMetricMemory(Momentum):
    """`AdaptiveMemory` in the metric of a scale that stands before it: AM-AdamW's (arXiv:2510.04988).

        P = (1 - most * product of the earlier betas) D,   Q = 1 + lam P
        a = (rate_prev / rate) (1 + rate mu) <g, d / P + mu w>
            - <d - g, (g + lam P d) / (P Q)> - mu <w, d - g>
        beta = a / <d - g, (d - g) / (P Q)>,  clipped to [0, most];  most at the first step
        d <- ((1 - beta) g + (lam P + beta) d) / Q
        u / D = d / P                                               per tensor

    With lam = 0 the first step is AdamW's. The product takes the place of the bias correction of momentum.

    Args:
        most: the largest beta; the paper's default is ``0.9 - 0.1 lam``.
        lam: weight of the proximal term.
        weight_decay: mu, the decoupled decay that the recipe has besides.
    """

    most: Decay = 0.89
    lam: NonNegative = 0.1
    weight_decay: NonNegative = 0.0
    d = State(turns=True)
    product = State(per="tensor", init=1.0)
    rate = State(per="tensor")

    def apply(self, x: Signals, s: Memory) -> Signals:
        g, d, mu = x.direction, s.d, self.weight_decay
        p = let("P", maximum((1 - self.most * s.product) * x.metric, 1e-30))
        q = let("Q", 1 + self.lam * p)
        ahead = let("ahead", total(g * (d / p + mu * x.w)) * where(x.rate > 0, s.rate / x.rate, 1.0))
        cross = let("cross", total((d - g) * (g + self.lam * p * d) / p / q))
        gain = let("gain", (1 + mu * x.rate) * ahead - cross - mu * total(x.w * (d - g)))
        spread = let("spread", total((d - g) * (d - g) / p / q))
        best = minimum(maximum(where(spread > 0, gain / spread, 0.0), 0.0), self.most)
        beta = let("β", where(x.t > 1, best, self.most))
        s.rate = x.rate
        s.product = s.product * beta
        s.d = ((1 - beta) * g + (self.lam * p + beta) * d) / q
        return x.replace(direction=s.d, trend=s.d, metric=p)


class FractionalMemory(Momentum):
    """A fractional derivative of the gradient's history, Gruenwald-Letnikov's sum cut off.

        f = g_t + c_1 g_{t-1} + ... + c_n g_{t-n}                 gradients before the first step are 0
        c_j = c_{j-1} (j - 1 - alpha) / j        in the convention ``"difference"``
        c_j = c_{j-1} (j - alpha) / (j + 1)      in the convention ``"memory"``
        u = e = f

    ``"difference"`` is AdaGL's (Chen et al. 2024, Neural Processing Letters, doi 10.1007/s11063-024-11571-7),
    ``"memory"`` that of Zhou et al. 2023 (Mathematics 11(2) 316), who also drop one term at random. They pull in
    opposite ways. ``"difference"``: alpha = 0 is the gradient, alpha = 1 its change, which forgets every constant.
    ``"memory"``: alpha = 1 is the gradient, smaller ones add the past as momentum does. Put it before the momentum
    that it feeds.

    Args:
        alpha: the order.
        convention: which coefficients.
        terms: n, up to 10: each is one more copy of the gradient.
    """

    alpha: NonNegative = 0.5
    convention: Literal["difference", "memory"] = "difference"
    terms: int = 10
    g1 = State(turns=True)
    g2 = State(turns=True)
    g3 = State(turns=True)
    g4 = State(turns=True)
    g5 = State(turns=True)
    g6 = State(turns=True)
    g7 = State(turns=True)
    g8 = State(turns=True)
    g9 = State(turns=True)
    g10 = State(turns=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.terms <= len(self.slots()):
            raise ValueError(f"FractionalMemory(terms={self.terms!r}): terms must be from 1 to {len(self.slots())}.")

    def apply(self, x: Signals, s: Memory) -> Signals:
        x = x.divided()
        names = [f"g{place}" for place in range(1, self.terms + 1)]
        past = [getattr(s, name) for name in names]
        f, c = x.direction, 1.0
        for j, g in enumerate(past, 1):
            c = c * ((j - 1 - self.alpha) / j if self.convention == "difference" else (j - self.alpha) / (j + 1))
            f = f + c * g
        for name, g in zip(names[::-1], [x.direction, *past][-2::-1], strict=True):
            setattr(s, name, g)
        f = let("f", f)
        return x.replace(direction=f, energy=f, trend=f)
