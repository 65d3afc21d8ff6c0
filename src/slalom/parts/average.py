"""Which point is handed back.

An average sees the step that the rest of the recipe took, from ``w`` to ``result``. Some only watch (`WeightEma`,
`SWA`, `LAWA`, `PolynomialAverage`): with them training is the same to the bit. The others decide where it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from slalom.algebra import State, Value, exp, lerp, let, log, maximum, minimum, when, where
from slalom.parts.base import Average
from slalom.parts.memory import Memory
from slalom.parts.ranges import Decay, Fraction, NonNegative, Within, check_count
from slalom.parts.signals import Signals


class _Snapshots(Average, abstract=True):
    """Averages of the parameter as it was after the steps start + every, start + 2 every, ..."""

    def taken(self, t: Value, every: int, start: int) -> tuple[Value | bool, Value]:
        """Return whether a snapshot is taken after step t, and how many there are with it."""
        if every == 1 and start == 0:
            return True, t
        passed: Value = t - start if start else t
        return (passed > 0) & (passed % every <= 0), (passed - passed % every) / every

    def after(self, t: Value, every: int, start: int, least: int, average: Value, parameter: Value) -> Value:
        """Return the average once there are enough snapshots, the parameter itself before."""
        return where(self.taken(t, every, start)[1] >= least, average, parameter)


class WeightEma(_Snapshots):
    """Exponential moving average of the parameters (Polyak & Juditsky 1992; its use: Ahn & Cutkosky 2024, 2405.18199).

        a <- w + b_n (a - w)                            n = 1, 2, ... counts the points that were averaged

    ``weights`` says how the first points count:
    ``"debias"`` b_n = beta (1 - beta^(n-1)) / (1 - beta^n), as if divided by ``1 - beta^n``: no trace of the start;
    ``"ramp"`` b_n = min(beta, (n - 1) / (n + 8)), the warm-up of TensorFlow's ``num_updates``;
    ``"plain"`` b_n = beta, the first a copy, as `torch.optim.swa_utils` does.

    ``every`` above 1 makes it LAWA's form for long intervals: AlgoPerf's "LAWA EMA" is beta 0.2 at 0.5 % of the run
    (its code truncated 0.2 to 0, so its published score does not measure it). The average is kept in float32.

    Args:
        beta: decay, per point.
        weights: how the first points count.
        every: steps between points.
        start: steps before the first interval begins.
    """

    beta: Decay = 0.999
    weights: Literal["debias", "ramp", "plain"] = "debias"
    every: int = 1
    start: int = 0
    a = State(init="parameter")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("WeightEma", "every", self.every)
        check_count("WeightEma", "start", self.start, 0)

    def apply(self, x: Signals, s: Memory) -> Signals:
        taken, n = self.taken(x.t, self.every, self.start)
        decay = let("βₙ", self._decay(n))
        s.a = when(taken, x.result + decay * (s.a - x.result), s.a)
        return x

    def _decay(self, n: Value) -> Value:
        if self.weights == "debias":
            return self.beta * (1 - self.beta ** (n - 1)) / (1 - self.beta**n)
        return minimum(self.beta, (n - 1) / (n + 8)) if self.weights == "ramp" else where(n > 1, self.beta, 0.0)

    def readout(self, x: Signals, s: Memory) -> Value:
        return self.after(x.t, self.every, self.start, 1, s.a, x.w)


class SWA(_Snapshots, name="swa"):
    """Stochastic weight averaging: all points count alike (Izmailov et al. 2018, arXiv:1803.05407).

        a <- w + (1 - 1 / n) (a - w)                    n = 1, 2, ... counts the points

    From the first step on, at every step, it is the Polyak-Ruppert average. Batch-norm statistics belong to the
    parameters that were trained: compute them again for the average.

    Args:
        start: steps before the first interval begins: three quarters of the run in the paper.
        every: steps between points: an epoch in the paper.
    """

    start: int = 0
    every: int = 1
    a = State(init="parameter")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("SWA", "every", self.every)
        check_count("SWA", "start", self.start, 0)

    def apply(self, x: Signals, s: Memory) -> Signals:
        taken, n = self.taken(x.t, self.every, self.start)
        s.a = when(taken, x.result + (1 - 1 / maximum(n, 1)) * (s.a - x.result), s.a)
        return x

    def readout(self, x: Signals, s: Memory) -> Value:
        return self.after(x.t, self.every, self.start, 1, s.a, x.w)


class PolynomialAverage(Average):
    """Polynomial-decay averaging: an average that forgets the beginning (Shamir & Zhang 2013, arXiv:1212.1824).

        a <- w + (1 - (1 + gamma) / (t + gamma)) (a - w)

    Args:
        gamma: how fast: 0 weighs all points alike; DoG's authors take 8.
    """

    gamma: NonNegative = 8.0
    a = State(init="parameter")

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.a = x.result + (1 - (1 + self.gamma) / (x.t + self.gamma)) * (s.a - x.result)
        return x

    def readout(self, x: Signals, s: Memory) -> Value:
        return where(x.t >= 1, s.a, x.w)


class LAWA(_Snapshots, name="lawa"):
    """Latest weight averaging: the mean of the last k snapshots (Kaddour 2022, arXiv:2209.14981).

    Until there are k it hands back the parameter itself, as AlgoPerf's submission does (k = 10, every 0.2 % of the
    run, after 2 %). Each snapshot is a copy: 4 k bytes per parameter, all of them read and written in compiled steps.

    Args:
        k: how many snapshots.
        every: steps between them.
        start: steps before the first interval begins.
    """

    k: int = 5
    every: int = 100
    start: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("LAWA", "k", self.k)
        check_count("LAWA", "every", self.every)
        check_count("LAWA", "start", self.start, 0)

    def slots(self) -> Mapping[str, State]:
        """Return one state per snapshot."""
        return {name: State(init="parameter", name=name) for name in self._names()}

    def _names(self) -> list[str]:
        return [f"w{place}" for place in range(self.k)]

    def apply(self, x: Signals, s: Memory) -> Signals:
        passed = x.t - self.start
        for place, name in enumerate(self._names(), 1):
            mine = (passed - place * self.every) % (self.k * self.every) <= 0
            turn = mine & (passed > 0) if self.start else mine
            setattr(s, name, where(turn, x.result, getattr(s, name)))
        return x

    def readout(self, x: Signals, s: Memory) -> Value:
        first, *rest = (getattr(s, name) for name in self._names())
        return self.after(x.t, self.every, self.start, self.k, sum(rest, first) / self.k, x.w)


class Lookahead(Average):
    """Lookahead: k steps forward, one step back (Zhang et al. 2019, arXiv:1907.08610).

        every k steps:  slow <- slow + alpha (w - slow),  w <- slow

    `readout` gives the slow weights. The momentum inside goes on as it is; to begin it anew after each synchronisation
    wrap it into `Restarted`, to pull it back like the weights into `PulledBack`.

    Args:
        k: steps between synchronisations.
        alpha: how far the slow weights go; 1 changes nothing.
    """

    k: int = 5
    alpha: Fraction = 0.5
    slow = State(init="parameter")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Lookahead", "k", self.k)

    def apply(self, x: Signals, s: Memory) -> Signals:
        together = x.t % self.k <= 0
        met = let("w′", x.result + (1 - self.alpha) * (s.slow - x.result))
        s.slow = where(together, met, s.slow)
        return x.replace(result=where(together, met, x.result))

    def readout(self, x: Signals, s: Memory) -> Value:
        return s.slow


class PrimalAverage(Average):
    """Momentum by averaging the iterates (Defazio 2020, arXiv:2010.00406): how D-Adaptation's SGD has it.

        z <- z + step                                   (the recipe's own step, taken at w)
        w <- beta w + (1 - beta) z

    The parameter itself is the average. Under a constant rate it equals momentum with decay beta; at a rate of 0 it
    stands still.

    Args:
        beta: decay.
    """

    beta: Decay = 0.9
    z = State(init="parameter")

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.z = s.z + (x.result - x.w)
        return x.replace(result=when(x.rate > 0, s.z + self.beta * (x.w - s.z), x.w))

    def readout(self, x: Signals, s: Memory) -> Value:
        return x.w


class Transport(Average):
    """Implicit gradient transport: gradients are taken ahead of the iterate (Arnold et al. 2019, arXiv:1906.03532).

        x <- x + step                                         (the recipe's own step, taken at w)
        w <- x + beta / (1 - beta) step

    An average of gradients with decay beta then is, for a quadratic loss, an average of gradients at x: none of them is
    stale. With momentum of that decay and steps of one length it is NIGT (Cutkosky & Mehta 2020, arXiv:2002.03305).
    The parameter holds the point ahead while training; `readout` gives x.

    Args:
        beta: decay of the momentum.
    """

    beta: Decay = 0.9
    x = State(init="parameter")

    def apply(self, x: Signals, s: Memory) -> Signals:
        step = let("step", x.result - x.w)
        s.x = s.x + step
        return x.replace(result=when(x.rate > 0, s.x + self.beta / (1 - self.beta) * step, x.w))

    def readout(self, x: Signals, s: Memory) -> Value:
        return s.x


class ScheduleFree(Average):
    """Schedule-Free averaging around any recipe (Defazio et al. 2024, "The Road Less Scheduled", arXiv:2405.15682).

        z <- z + step                                        (the recipe's own step, taken at y)
        c = weight / sum of weights,   weight = t^r (largest rate so far)^power
        y <- (1 - c) y + c z + (1 - beta (1 - c)) step
    so that  x <- (1 - c) x + c z  and  y = (1 - beta) z + beta x

    The parameter holds y while training; `readout` gives x, which is what to evaluate and to keep. With beta = 1 it is
    primal averaging. beta = 0 would be Polyak-Ruppert averaging, whose x cannot be had back from y: that is `SWA()`.

    ``decoupling`` is C of Song et al. 2025 (arXiv:2507.09846): ``c <- min(1, c (1 - beta) C)``, so that beta no longer
    decides how far back the average reaches; ``1 / (1 - beta)`` is the first paper's average again.

    ``warm`` and ``anneal`` are ScheduleFree+'s (Defazio 2026, arXiv:2605.19095): during the first ``warm`` steps x is
    z, and ``1 - beta`` goes geometrically to ``1 - last_beta`` in ``anneal`` steps. Do not move beta by a schedule
    instead: x is had back from y by the beta that made y.

    Args:
        beta: how close to the average gradients are taken, in (0, 1].
        r: power of the step count in the weights.
        power: power of the rate in the weights.
        decoupling: C; 0 for the first paper's average.
        warm: steps before averaging begins.
        last_beta: where beta goes, in (0, 1).
        anneal: steps that it takes to get there; 0 to keep beta.
    """

    beta: Annotated[float, Within(0, 1, low_open=True)] = 0.9
    r: NonNegative = 0.0
    power: NonNegative = 2.0
    decoupling: NonNegative = 0.0
    warm: int = 0
    last_beta: Annotated[float, Within(0, 1, low_open=True, high_open=True)] = 0.965
    anneal: int = 0
    z = State(init="parameter")
    weights = State(per="tensor")
    rate = State(per="tensor")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("ScheduleFree", "warm", self.warm, 0)
        check_count("ScheduleFree", "anneal", self.anneal, 0)

    def apply(self, x: Signals, s: Memory) -> Signals:
        step = let("step", x.result - x.w)
        s.rate = maximum(s.rate, x.rate)
        beta = let("β", self._beta(x.t)) if self.anneal else self._beta(x.t)
        c = let("c", self._share(x, s))
        to_z: Value = c
        if self.anneal:  # y was made with another beta
            to_z = c + (1 - self._ratio(x.t)) * (1 - c)
        y = lerp(x.w, s.z, to_z) + (1 - beta * (1 - c)) * step
        s.z = s.z + step
        return x.replace(result=y)

    def ahead(self, x: Signals, s: Memory) -> Value:
        ahead = s.z - x.w
        return self._ratio(x.t) * ahead if self.anneal else ahead

    def readout(self, x: Signals, s: Memory) -> Value:
        return lerp(x.w, s.z, 1 - 1 / self._beta(x.t))

    def _share(self, x: Signals, s: Memory) -> Value:
        """Count the new point and return its share in the average."""
        weight = x.t**self.r * s.rate**self.power
        warm = x.t <= self.warm
        s.weights = s.weights + (where(warm, 0.0, weight) if self.warm else weight)
        c = weight / maximum(s.weights, 1e-38)
        if self.decoupling:
            c = minimum(1.0, c * ((1 - self.beta) * self.decoupling))
        return where(warm, 1.0, c) if self.warm else c

    def _beta(self, t: Value) -> Value:
        """Return the beta that y is made with at step t."""
        if not self.anneal:
            return self.beta  # type: ignore[return-value]
        progress = minimum(maximum(t - 1, 0) / self.anneal, 1.0)
        return 1 - exp(lerp(log(1 - self.beta), log(1 - self.last_beta), progress))

    def _ratio(self, t: Value) -> Value:
        """Return the beta of step t over the one before."""
        return let("β", self._beta(t)) / let("β₋₁", self._beta(t - 1))
