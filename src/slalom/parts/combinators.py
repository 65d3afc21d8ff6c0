"""Parts made of parts: what a straight pipe cannot say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from slalom.algebra import State, blocks, maximum, norm, unblocks, where
from slalom.parts.base import Geometry, Inner, Part, Step
from slalom.parts.memory import Memory
from slalom.parts.ranges import Fraction, Positive, check_count
from slalom.parts.signals import NO_RATE, Signals


class Delayed(Part):
    """Run a part as if the first steps had not been: its clock starts late and until then it remembers nothing.

    Args:
        inner: any part.
        steps: how many steps are left out.
    """

    inner: Part
    steps: int = 1

    def question(self) -> str:
        """Return the slot of the part that is delayed."""
        return self.inner.question()

    def apply(self, x: Signals, s: Memory) -> Signals:
        late = x.replace(t=maximum(x.t - self.steps, 1))
        return self.inner.apply(late, s.of(self.inner).only_if(x.t > self.steps)).replace(t=x.t)


class Restarted(Part):
    """Run a part that forgets everything at regular intervals: its clock and its memory begin anew.

    Around a momentum it is Lookahead's "reset" (Zhang et al. 2019, arXiv:1907.08610), with `every` equal to its k.

    Args:
        inner: any part.
        every: steps from one beginning to the next.
    """

    inner: Part
    every: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Restarted", "every", self.every)

    def question(self) -> str:
        """Return the slot of the part that is restarted."""
        return self.inner.question()

    def apply(self, x: Signals, s: Memory) -> Signals:
        t = (x.t - 1) % self.every + 1
        return self.inner.apply(x.replace(t=t), s.of(self.inner).afresh_if(t <= 1)).replace(t=x.t)


class WholeSteps(Part):
    """Run a momentum on whole steps, their length included: what it remembers keeps the length that it had.

        u -> rate u,   the inner momentum,   u <- what it says / rate                   nothing at a rate of 0

    A rate that changes is felt late. Around `HeavyBall` it is momentum as Sutskever et al. 2013, Caffe and the paper of
    LARS (arXiv:1708.03888) write it, and ALI-G's; around `Ema` D-Adaptation's, and Hugging Face's Adafactor's. While
    rates stay as they are it changes nothing. Decay is not in what is remembered.

    Args:
        inner: the momentum.
    """

    inner: Part

    def question(self) -> str:
        """Return the slot of the part that remembers steps."""
        return self.inner.question()

    def apply(self, x: Signals, s: Memory) -> Signals:
        if x.rate is NO_RATE:
            raise ValueError(
                "WholeSteps reads the rate, but the step comes after it: "
                "state an order with step before momentum, such as slalom.recipes.ORDER."
            )
        x = x.divided()
        back = where(x.rate > 0, 1 / x.rate, 0.0)
        y = self.inner.apply(x.replace(direction=x.rate * x.direction), s.of(self.inner))
        # a momentum may set the energy from what it was fed with
        energy = x.energy if y.energy is x.energy else back * y.energy
        return y.replace(direction=back * y.direction, trend=back * y.trend, energy=energy)


class Alternating(Part):
    """Take turns: some long steps along the plain gradient, then some with a momentum that begins anew.

        plain times:  u = boost g
        then inner times:  u of the inner momentum, which remembers nothing of what was before its turn

    Babkin's way to have both: stochastic steps find the valley, momentum on gradients of the whole loss goes along it;
    whoever trains changes the batch with the turns. He goes on with momentum until its speed drops; here its turn has
    a length, for no formula may ask how long it runs.

    Args:
        inner: any momentum, such as `Arrested`.
        plain: steps along the gradient.
        turns: steps with momentum.
        boost: how much longer the plain ones are.
    """

    inner: Part
    plain: int = 100
    turns: int = 100
    boost: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Alternating", "plain", self.plain)
        check_count("Alternating", "turns", self.turns)

    def question(self) -> str:
        """Return the slot of the part that takes turns."""
        return self.inner.question()

    def apply(self, x: Signals, s: Memory) -> Signals:
        t = (x.t - 1) % (self.plain + self.turns) + 1 - self.plain  # of the inner part's turn; 0 or less before it
        memory = s.of(self.inner).afresh_if(t <= 1).only_if(t > 0)
        y = self.inner.apply(x.replace(t=maximum(t, 1)), memory)
        return y.replace(t=x.t, direction=where(t > 0, y.direction, self.boost * x.divided().direction))


class PulledBack(Part):
    """Lookahead's "pullback": what a part remembers is pulled back as the weights are (arXiv:1907.08610, section 3).

        every k steps:  slow <- slow + alpha (m - slow),  m <- slow        for each of its states m

    Args:
        inner: any part, usually a momentum.
        every: Lookahead's k.
        alpha: Lookahead's alpha.
    """

    inner: Part
    every: int = 5
    alpha: Fraction = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("PulledBack", "every", self.every)

    def question(self) -> str:
        """Return the slot of the part that is pulled back."""
        return self.inner.question()

    def slots(self) -> Mapping[str, State]:
        """Return a slow copy of each state of the inner part."""
        inner = self.inner.slots()
        return {name: dataclasses.replace(slot, torch=(), name=f"slow_{name}") for name, slot in inner.items()}

    def apply(self, x: Signals, s: Memory) -> Signals:
        inner = s.of(self.inner)
        y = self.inner.apply(x, inner)
        together = x.t % self.every <= 0
        for name in self.slots():
            slow, fast = getattr(s, name), getattr(inner, name)
            met = fast + (1 - self.alpha) * (slow - fast)
            setattr(s, name, where(together, met, slow))
            setattr(inner, name, where(together, met, fast))
        return y


class Hold(Step):
    """Stand still during the first steps.

    Args:
        step: the length of the steps after that.
        steps: how many.
    """

    step: Step
    steps: int = 1

    def measures(self) -> bool:
        """Return what the step that is held back says."""
        return self.step.measures()

    def apply(self, x: Signals, s: Memory) -> Signals:
        y = self.step.apply(x, s.of(self.step))
        return y.replace(rate=where(x.t > self.steps, y.rate, 0.0))


class Graft(Geometry):
    """The direction of one recipe with the length of another, tensor by tensor (Agarwal et al. 2020, arXiv:2002.11803).

        u <- a |b| / |a|           0 where a is 0

    Distributed Shampoo grafts block by block, and goes b's way before its first roots.

    Args:
        direction: gives a.
        magnitude: gives b.
        block: lengths are those of blocks of at most that side (see `Kronecker`); 0 measures the whole tensor.
        start: before that step u is b.
        vectors: graft vectors too; otherwise u is b for them.
    """

    direction: Inner
    magnitude: Inner
    block: int = 0
    start: int = 1
    vectors: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("Graft", "block", self.block, 0)
        check_count("Graft", "start", self.start)

    def apply(self, x: Signals, s: Memory) -> Signals:
        a = self.direction.direct(x, s.inside("direction")).quotient()
        b = self.magnitude.direct(x, s.inside("magnitude")).quotient()
        if x.ndim < 2 and not self.vectors:
            return x.divided().replace(direction=b)
        cut = blocks(a, self.block)
        length = norm(cut, "block")
        ratio = where(length > 0, norm(blocks(b, self.block), "block") / length, 0.0)
        u = unblocks(ratio * cut, b)
        return x.divided().replace(direction=where(x.t < self.start, b, u) if self.start > 1 else u)


class Sum(Geometry):
    """The sum of what two recipes suggest.

        u <- first + weight second

    Args:
        first: gives the first summand.
        second: gives the second.
        weight: of the second.
    """

    first: Inner
    second: Inner
    weight: float = 1.0

    def apply(self, x: Signals, s: Memory) -> Signals:
        a = self.first.direct(x, s.inside("first")).quotient()
        b = self.second.direct(x, s.inside("second")).quotient()
        return x.divided().replace(direction=a + self.weight * b)
