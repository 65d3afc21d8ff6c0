"""Parts made of parts: what a straight pipe cannot say."""

from __future__ import annotations

from slalom.algebra import maximum, norm, where
from slalom.parts.base import Geometry, Inner, Memory, Part, Signals, Step


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


class Hold(Step):
    """Stand still during the first steps.

    Args:
        step: the length of the steps after that.
        steps: how many.
    """

    step: Step
    steps: int = 1

    def apply(self, x: Signals, s: Memory) -> Signals:
        y = self.step.apply(x, s.of(self.step))
        return y.replace(rate=where(x.t > self.steps, y.rate, 0.0))


class Graft(Geometry):
    """The direction of one recipe with the length of another, tensor by tensor (Agarwal et al. 2020, arXiv:2002.11803).

        u <- a |b| / |a|           0 where a is 0

    Args:
        direction: gives a.
        magnitude: gives b.
    """

    direction: Inner
    magnitude: Inner

    def apply(self, x: Signals, s: Memory) -> Signals:
        a = self.direction.direct(x, s.inside("direction")).quotient()
        b = self.magnitude.direct(x, s.inside("magnitude")).quotient()
        length = norm(a)
        return x.divided().replace(direction=where(length > 0, norm(b) / length, 0.0) * a)


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
