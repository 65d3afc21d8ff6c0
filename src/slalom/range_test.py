"""`find_lr`: the learning-rate range test, on a model that is left as it was to the bit."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from slalom import pictures
from slalom.errors import UsageError
from slalom.keeping import kept
from slalom.named import create
from slalom.optimizer import Optimizer
from slalom.recipes import ByRole, Recipe
from slalom.recipes.spec import parse_spec
from slalom.schedules.base import one_of, positive

Who: TypeAlias = "str | Recipe | ByRole | torch.optim.Optimizer | Callable[[Iterable[Tensor]], torch.optim.Optimizer]"
Rule: TypeAlias = Literal["third", "tenth", "steepest"]
RULES: dict[str, str] = {
    "third": "a third of the rate at which the smoothed loss is lowest",
    "tenth": "a tenth of the rate at which the smoothed loss is lowest",
    "steepest": "where the smoothed loss falls fastest against log lr",
}
_PARTS = {"third": 3, "tenth": 10}


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        lrs: the learning rates tried, ascending.
        losses: after the step at each, on the batch that follows.
        smooth: the same, averaged over neighbours on both sides.
        start: the loss before the first step.
        suggestion: a learning rate to begin with, or None if the test cannot tell.
        rule: the name of the rule behind it.
        why: the suggestion in a sentence, or why there is none.
        diverged: whether the test ended because the loss rose.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    start: float
    suggestion: float | None
    rule: str
    why: str
    diverged: bool

    def picture(self) -> pictures.Picture:
        """Return losses against learning rates; a rise far above the start is cut off."""
        shown = [loss for loss in self.smooth if math.isfinite(loss)]
        low, top = min([*shown, self.start]), max(shown[0], self.start)
        marks = () if self.suggestion is None else ((self.suggestion, f"{self.suggestion:.2g}, {self.rule}"),)
        return pictures.Picture(
            (pictures.Curve(self.lrs, self.smooth), pictures.Curve(self.lrs, self.losses, faint=True)),
            "learning rate", "loss", log_x=True, low=low, high=low + 1.3 * (top - low) or low + 1.0, marks=marks,
        )  # fmt: skip

    def svg(self, title: str = "learning-rate range test") -> str:
        """Return the picture as SVG: the smoothed losses, the raw ones faintly."""
        return pictures.svg(self.picture(), title)

    def as_json(self) -> dict[str, Any]:
        """Return everything as data; what is not finite as None."""
        return {
            "suggestion": self.suggestion,
            "rule": self.rule,
            "why": self.why,
            "diverged": self.diverged,
            "start": self.start,
            "lrs": list(self.lrs),
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses],
            "smooth": [loss if math.isfinite(loss) else None for loss in self.smooth],
        }

    def draw(self, width: int = 90) -> str:
        """Draw the picture for a terminal, with the suggestion beneath."""
        rows = [f"  {row}" for row in pictures.dots(self.picture(), max(24, min(width - 14, 84)))]
        end = "stopped there: the loss rose" if self.diverged else "the loss never rose"
        tried = f"{len(self.lrs)} rates from {self.lrs[0]:.3g} to {self.lrs[-1]:.3g}; {end}"
        return "\n".join([*rows, "", f"  {tried}", f"  {self.why}"])

    def __str__(self) -> str:
        return self.draw()


def find_lr(
    model: nn.Module,
    optimizer: Who,
    loss: Callable[[nn.Module, Any], Tensor],
    data: Iterable[Any],
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    rule: Rule = "third",
    stop: float = 4.0,
    progress: Callable[[int], None] | None = None,
) -> RangeTest:
    """Raise the learning rate from step to step until the loss explodes, and suggest one: the range test.

        test = slalom.find_lr(model, "adamw", lambda model, batch: model(batch).mean(), loader)
        print(test)                       # the picture
        test.suggestion

    The rate rises geometrically from ``low`` to ``high``; other groups keep their proportion to the first. The test
    ends early when the loss is no number or ``stop`` times the lowest. Afterwards parameters, gradients, buffers,
    training modes, the optimizer and the random states of torch, Python and NumPy are as they were, also if the
    loss raises; what a module keeps elsewhere is its own affair. An iterator that was handed over has been advanced.

    A suggestion is a place to begin: it knows neither schedule nor the length of the run.

    Source: Smith 2015, arXiv:1506.01186. The loss that counts for a rate is the one after its step, on the next batch.

    Args:
        model: what is trained.
        optimizer: a name ("sgd:momentum=0.9"), a recipe, a class or function that takes parameters, or an optimizer
            of this model, of which a copy runs, state included, hooks not.
        loss: called with model and batch.
        data: batches; begun again when they end.
        low: the first rate.
        high: the last.
        steps: how many rates.
        rule: "third" or "tenth" of the rate at which the smoothed loss is lowest, or "steepest": where it falls
            fastest against log lr. The last is the most cautious where a model learns the easiest part at once.
        stop: the test ends when the loss is this many times its lowest.
        progress: called with the number of steps taken.

    Raises:
        ValueError: for arguments that make no sense, or data without a batch.
    """
    positive("low", low)
    positive("high", high)
    one_of("rule", rule, tuple(RULES))
    if not (low < high and steps == int(steps) and steps >= 10 and stop > 1):
        raise UsageError(f"{low=:g}, {high=:g}, {steps=}, {stop=:g}: low < high, at least 10 steps, stop above 1.")
    with _kept(model, optimizer, loss, data):
        run = _twin(optimizer) if isinstance(optimizer, torch.optim.Optimizer) else _built(optimizer, model)
        lrs = [low * (high / low) ** (k / (steps - 1)) for k in range(steps)]
        losses = _losses(model, run, loss, data, lrs, stop, progress)
    return _judged(lrs, losses, rule)


def _losses(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Any], Tensor],
    data: Iterable[Any],
    lrs: Sequence[float],
    stop: float,
    progress: Callable[[int], None] | None,
) -> list[float]:
    """Return the loss before the first step and after each, as far as it goes well."""
    groups = optimizer.param_groups
    rates = [float(group["lr"]) for group in groups]
    if not rates[0] > 0:
        raise UsageError(f"the first group's learning rate is {rates[0]:g}: build the optimizer with one above 0.")
    batches = _endless(data)
    losses: list[float] = []
    average = best = math.inf
    for step in range(len(lrs) + 1):
        batch = next(batches)
        seen: list[float] = []

        def closure(batch: Any = batch, seen: list[float] = seen) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with torch.enable_grad():
                value = loss(model, batch)
                value.backward()  # type: ignore[no-untyped-call]
            seen.append(float(value.detach()))
            return value

        if step == len(lrs):
            closure()
        else:
            for group, rate in zip(groups, rates, strict=True):
                _set(group, lrs[step] * (rate / rates[0]))
            optimizer.step(closure)  # type: ignore[arg-type]
        losses.append(seen[0])
        average = seen[0] if step == 0 else 0.7 * average + 0.3 * seen[0]
        best = min(best, average)
        if progress is not None:
            progress(step)
        if not math.isfinite(average) or (step > 1 and average > best + (stop - 1) * abs(best)):
            break
    return losses


def _judged(lrs: Sequence[float], losses: Sequence[float], rule: Rule) -> RangeTest:
    """Smooth, and apply the rule."""
    start, after = losses[0], losses[1:]
    if not after or not math.isfinite(start):
        raise UsageError(f"the loss is {start:g} before the first step: there is nothing to test.")
    finite = [value for value in after if math.isfinite(value)]
    smooth = _smoothed(finite) + [math.nan] * (len(after) - len(finite))
    suggestion, why = _suggested(lrs, smooth[: len(finite)], rule)
    diverged = len(after) < len(lrs)
    return RangeTest(tuple(lrs[: len(after)]), tuple(after), tuple(smooth), start, suggestion, rule, why, diverged)


def _smoothed(losses: Sequence[float]) -> list[float]:
    """Average over neighbours on both sides, nearer ones more: unlike a running average, this does not lag."""
    reach = max(2, len(losses) // 16)
    found = []
    for place in range(len(losses)):
        near = min(reach, place, len(losses) - 1 - place)  # symmetric at the ends too, or a slope would be bent
        weights = {place + k: reach + 1 - abs(k) for k in range(-near, near + 1)}
        found.append(sum(w * losses[k] for k, w in weights.items()) / sum(weights.values()))
    return found


def _suggested(lrs: Sequence[float], smooth: Sequence[float], rule: Rule) -> tuple[float | None, str]:
    if len(smooth) < 5:
        return None, "no suggestion: the loss exploded at once; begin with a smaller rate (low)."
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    noise = _noise(smooth)
    if smooth[0] - smooth[lowest] <= max(3 * noise, 1e-3 * abs(smooth[0])):
        return None, "no suggestion: the loss never fell visibly; try more steps, or other rates (low, high)."
    if rule in _PARTS:
        rate = lrs[lowest] / _PARTS[rule]
        return rate, f"suggestion {rate:.2g}: a {rule} of {lrs[lowest]:.2g}, where the smoothed loss is lowest"
    # Slopes over a few steps: between neighbours there is little but noise.
    reach = max(1, len(smooth) // 25)
    slopes = {k: smooth[k + reach] - smooth[k - reach] for k in range(reach, min(lowest + 1, len(smooth) - reach))}
    if not slopes:
        return None, "no suggestion: the loss is lowest at the first rates; begin with a smaller one (low)."
    rate = lrs[min(slopes, key=slopes.__getitem__)]
    return rate, f"suggestion {rate:.2g}: {RULES['steepest']}"


def _noise(smooth: Sequence[float]) -> float:
    """Return how much the curve trembles from point to point, by the median of its second differences."""
    second = sorted(abs(a - 2 * b + c) for a, b, c in zip(smooth, smooth[1:], smooth[2:], strict=False))
    return second[len(second) // 2]


def _endless(data: Iterable[Any]) -> Iterator[Any]:
    taken = 0
    while True:
        before = taken
        for batch in data:
            taken += 1
            yield batch
        if taken == before:
            raise UsageError(
                f"data ended after {taken} batches and cannot be begun again: give a list or a loader, or fewer steps."
                if taken
                else "data holds no batch."
            )


# --- optimizers ---------------------------------------------------------------------------------------------------


def _built(who: Who, model: nn.Module) -> torch.optim.Optimizer:
    """Build an optimizer for the test."""
    if isinstance(who, str):
        entry, arguments = parse_spec(who)
        return create(entry.name, model, **arguments)
    if isinstance(who, (Recipe, ByRole)):
        return who.build(model)
    made = who(list(model.parameters())) if callable(who) else who
    if not isinstance(made, torch.optim.Optimizer):
        raise UsageError(f"{who!r} gives no optimizer: give a name, a recipe, a class, or an optimizer.")
    return made


def _twin(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return a copy that steps the same parameters, with state and numbers of its own and without hooks."""
    memo: dict[int, Any] = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    if isinstance(optimizer, Optimizer):
        return copy.deepcopy(optimizer, memo)
    # What torch copies of an optimizer leaves out the attributes that others add.
    twin: torch.optim.Optimizer = object.__new__(type(optimizer))
    for name, value in vars(optimizer).items():
        if name.endswith("_hooks"):
            twin.__dict__[name] = OrderedDict()
        elif name != "step":  # wrapped by a scheduler
            twin.__dict__[name] = copy.deepcopy(value, memo)
    return twin


def _set(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _kept(model: nn.Module, optimizer: Who, loss: Any, data: Iterable[Any]) -> contextlib.AbstractContextManager[None]:
    """Restore all that a test touches when the block is left."""
    modules = [model, *([loss] if isinstance(loss, nn.Module) else [])]
    own = optimizer.param_groups if isinstance(optimizer, torch.optim.Optimizer) else []
    owners = [data, *(getattr(data, name, None) for name in ("sampler", "batch_sampler"))]
    return kept(modules, (p for group in own for p in group["params"]), owners)


__all__ = ["RULES", "RangeTest", "find_lr"]
