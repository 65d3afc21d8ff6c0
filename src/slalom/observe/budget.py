"""How much of the time watching may take, and what it has taken."""

from __future__ import annotations

from typing import Final

# What is always given: a short run is watched closely, and rules have something to judge.
FREE: Final = 1.0  # seconds
FIRST: Final = 20  # samples


class Budget:
    """A share of the time and a first second, in equal parts for samples, of which the first 20 are always taken, and
    for the norms of single steps.

    Two accounts, because norms are cheap and come at every step: from one purse they would take all, and the sample,
    which needs much at once, would never be paid.

    Args:
        share: of the time, above 0 and at most 1.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.began, self.all, self.norms = 0.0, 0.0, 0.0
        self.sample, self.samples = 0.0, 0  # what the last one took; how many there were

    def begin(self, now: float) -> None:
        """Count the time from now on."""
        self.began = now

    def allows_norm(self, now: float) -> bool:
        """Whether there is time for the norm of one step."""
        return self.norms <= self._half(now)

    def allows_sample(self, now: float) -> bool:
        """Whether there is time for a sample that takes as long as the last one did."""
        return self.samples < FIRST or self.all - self.norms + self.sample <= self._half(now)

    def begin_sample(self) -> None:
        """Note that a sample is being taken; those after it are expected to take as long."""
        self.sample = 0.0
        self.samples += 1

    def take_norm(self, seconds: float) -> None:
        """Account for a norm; the hook in which it was taken is accounted for as a whole."""
        self.norms += seconds

    def take(self, seconds: float, *, samples: bool) -> None:
        """Account for a hook.

        Args:
            seconds: that it took.
            samples: whether something was done for a sample in it.
        """
        self.all += seconds
        if samples:
            self.sample += seconds

    def _half(self, now: float) -> float:
        return (FREE + self.share * (now - self.began)) / 2


__all__ = ["Budget"]
