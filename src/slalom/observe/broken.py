"""When adaptive methods break: the sign of sigma_t, coordinate by coordinate.

Every diagonal adaptive method is FTRL with quadratic regularisers of weight

    sigma_t = 1 / eta_t - 1 / eta_{t-1},      1 / eta_t = D_t / rate_t

with D the metric of its scale. Where sigma is negative the method takes back trust that it had gained: the metric fell
or the rate rose faster than the metric. Regret bounds need sigma >= 0. For Adam or RMSProp under stationary noise 68 %
of the coordinates are in that state at any step, AdaGrad never is at a rate that does not rise; 1 / eta itself, the sum
of all sigma, is never negative.

D is no state, but a function of it: the traced metric, with every state that the step writes read back instead. So
nothing is kept but the highest 1 / eta of each coordinate, for the drawdown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from slalom.algebra import Expr, Value
from slalom.engine import STEP, Program, Work, pieces, read, real_view, shares
from slalom.engine.program import Recorder, walk
from slalom.engine.storage import matrix_shape
from slalom.errors import UsageError
from slalom.optimizer import Optimizer
from slalom.parts import Memory, Signals
from slalom.recipes import Recipe
from slalom.recipes.blueprint import numbers
from slalom.roles import blocks_of


@dataclass(frozen=True)
class Broken:
    """The signs of sigma at one step, of one parameter or of all.

    Attributes:
        fraction: share of the coordinates whose sigma is negative.
        weight: ``sum |min(sigma, 0)| / sum |sigma|``; 0 where nothing changed.
        drawdown: the largest fall of a coordinate's ``1 / eta`` below its highest so far, as a share of that.
    """

    fraction: float
    weight: float
    drawdown: float


class InverseRates:
    """1 / eta of every coordinate, D over the rate, read from the state of an optimizer.

    Args:
        optimizer: any of slalom's.

    Raises:
        ValueError: if 1 / eta depends on more than state and hyper-parameters.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._programs: dict[Any, Program] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                self._program(group, parameter)  # refuses now what it would refuse in the middle of training

    def _program(self, group: Mapping[str, Any], parameter: Tensor) -> Program:
        known = self._optimizer.program(group, parameter)
        if id(known) not in self._programs:
            ndim = min(pieces(real_view(parameter), blocks_of(group, parameter))[0].ndim, 2)
            self._programs[id(known)] = _of_state(self._optimizer.traced(group, ndim, _inverse_rate))
        return self._programs[id(known)]

    def of(self, place: int, group: Mapping[str, Any], parameter: Tensor, values: Any) -> Tensor:
        """Return 1 / eta of every coordinate, from the state as it is now."""
        whole, state = real_view(parameter.detach()), self._optimizer.state[parameter]
        dtype = torch.float64 if whole.dtype == torch.float64 else torch.float32
        program, blocks, t = self._program(group, parameter), blocks_of(group, parameter), float(state[STEP])
        cut = {key: shares(state[key], slot, whole, blocks) for key, slot in program.states.items()}
        rates = []
        for at, piece in enumerate(pieces(whole, blocks)):
            # the parameter and its gradient do not matter: the program reads state alone
            like = torch.empty(matrix_shape(piece), dtype=dtype, device=whole.device)
            mine = {key: views[at] for key, views in cut.items()}
            rates.append(read(Work(program, like, like, mine, values, t, 0.0, place)).flatten())
        return torch.cat(rates).reshape(matrix_shape(whole))


class SigmaWatch:
    """Watches an optimizer; made by `sigma`.

    Attributes:
        last: what the last step did, by parameter.
        history: what each step since the start did to all parameters together.
    """

    def __init__(self, optimizer: Optimizer, *, keep_peak: bool) -> None:
        self.last: dict[str, Broken] = {}
        self.history: list[Broken] = []
        self._optimizer = optimizer
        self._keep_peak = keep_peak
        self._peaks: dict[Tensor, Tensor] = {}
        self._before: dict[Tensor, Tensor] = {}
        self._numbers: list[Mapping[tuple[str, int | None], float]] = []
        self._rates = InverseRates(optimizer)
        self._names = _names(optimizer)
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(self._look_before),
            optimizer.register_step_post_hook(self._look_after),
        ]

    def remove(self) -> None:
        """Stop watching and free the buffer; what was seen stays."""
        for handle in self._handles:
            handle.remove()
        self._peaks.clear()

    def _look_before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._before = {}
        for place, group in enumerate(optimizer.param_groups):
            values = self._numbers[place] if place < len(self._numbers) else None  # the rate of the last step
            for parameter in group["params"]:
                if values is not None and STEP in optimizer.state.get(parameter, {}):
                    self._before[parameter] = self._rates.of(place, group, parameter, values)

    @torch.no_grad()
    def _look_after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._numbers = [numbers(group) for group in optimizer.param_groups]
        totals = [0.0, 0.0, 0.0, 0.0, 0.0]
        for place, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                if parameter.grad is None or STEP not in optimizer.state.get(parameter, {}) or not parameter.numel():
                    continue
                now = self._rates.of(place, group, parameter, self._numbers[place])
                counts = self._compare(parameter, now)
                self.last[self._names[parameter]] = _broken(*counts)
                totals = [a + b for a, b in zip(totals[:4], counts[:4], strict=True)] + [max(totals[4], counts[4])]
        self._before = {}
        self.history.append(_broken(*totals))

    def _compare(self, parameter: Tensor, now: Tensor) -> tuple[float, float, float, float, float]:
        """Return coordinates, negative ones, their weight, the whole weight, and the drawdown."""
        before = self._before.pop(parameter, None)
        change = now if before is None else now - before
        # Rounding of a metric that did not move is no sign of anything.
        noise = 4 * torch.finfo(now.dtype).eps * now.abs()
        # At a rate of 0 eta says nothing: 1 / eta is infinite then, and such steps are passed over.
        change = torch.where((change.abs() > noise) & change.isfinite(), change, 0.0)
        drawdown = 0.0
        if self._keep_peak:
            peak = self._peaks.get(parameter)
            known = torch.where(now.isfinite(), now, 0.0)
            peak = self._peaks[parameter] = known if peak is None else torch.maximum(peak, known, out=peak)
            drawdown = float(torch.where(now < peak, (peak - now) / peak, 0.0).amax())
        negative = change < 0
        return (
            float(now.numel()),
            float(negative.sum()),
            float(change[negative].double().sum().abs()),
            float(change.abs().double().sum()),
            drawdown,
        )

    def __str__(self) -> str:
        rows = [f"{'parameter':<28} {'sigma < 0':>10} {'weight':>8} {'drawdown':>9}"]
        if self.history:
            rows += [_row("all", self.history[-1]), *(_row(name, one) for name, one in self.last.items())]
        return "\n".join(rows)


@torch.no_grad()
def inverse_rates(optimizer: Optimizer) -> dict[Tensor, Tensor]:
    """Return 1 / eta of every coordinate as the last step had it: by how much a step divides a direction.

    Plain SGD's is one over the learning rate; Adam's is its metric over that.

    Raises:
        ValueError: if 1 / eta depends on more than state and hyper-parameters, or no step was taken yet.
    """
    rates, found = InverseRates(optimizer), {}
    for place, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            if STEP not in optimizer.state.get(parameter, {}):
                raise UsageError("the optimizer has taken no step with some parameters, so their rates are not known.")
            found[parameter] = rates.of(place, group, parameter, numbers(group)).reshape(real_view(parameter).shape)
    return found


def sigma(optimizer: Optimizer, *, drawdown: bool = True) -> SigmaWatch:
    """Watch the sign of sigma at every step from now on.

        watch = slalom.observe.sigma(opt)
        ...                                    train
        print(watch)                           the last step, by parameter
        watch.history[-1].fraction             share of coordinates whose regulariser was negative

    Args:
        optimizer: any of slalom's whose metric is a function of its state.
        drawdown: keep the highest 1 / eta of each coordinate: one buffer. Without it nothing is kept, and every
            drawdown reads 0.

    Raises:
        ValueError: if 1 / eta depends on more than state and hyper-parameters, as in methods that rotate gradients or
            take their rate from the weights.
    """
    return SigmaWatch(optimizer, keep_peak=drawdown)


def _row(name: str, one: Broken) -> str:
    return f"{name:<28} {one.fraction:>10.1%} {one.weight:>8.3f} {one.drawdown:>9.3f}"


def _broken(count: float, negative: float, below: float, whole: float, drawdown: float) -> Broken:
    return Broken(negative / count if count else 0.0, below / whole if whole else 0.0, drawdown)


def _names(optimizer: Optimizer) -> dict[Tensor, str]:
    found: dict[Tensor, str] = {}
    for place, group in enumerate(optimizer.param_groups):
        given = group.get("param_names") or [f"group {place} number {k}" for k in range(len(group["params"]))]
        found.update(zip(group["params"], given, strict=True))
    return found


def _inverse_rate(recipe: Recipe, x: Signals, store: Recorder) -> Value:
    """The formula of 1 / eta: the metric as the scale yields it, over the rate, one value per element."""
    metric: Value | None = None
    x = recipe.begin(x, store)
    for slot, part in recipe.sequence():
        if slot in ("form", "average"):
            break
        x = part.apply(x, Memory(store, part))
        if slot == "scale":
            metric = x.metric  # parts behind it may have divided by it already
    return (x.metric if metric is None else metric) / x.rate


def _of_state(traced: Program) -> Program:
    """Return the program that computes the same result after the step, from the states as it left them.

    Raises:
        ValueError: if anything else is needed.
    """
    left = {id(value): key for key, value in traced.writes.items() if isinstance(value, Expr)}
    made: dict[int, Expr] = {}
    fresh: set[int] = set()
    for node in walk([traced.result]):
        key = left.get(id(node))
        if key is not None:
            slot = traced.states[key]
            symbol = Expr("state", attrs={"name": slot.name, "key": key}, dims=slot.dims, scope=slot.scope)
            fresh.add(id(symbol))
            made[id(node)] = symbol
        elif node.args:
            args = tuple(made[id(arg)] if isinstance(arg, Expr) else arg for arg in node.args)
            made[id(node)] = Expr(node.op, args, attrs=node.attrs, dims=node.dims, scope=node.scope, host=node.host)
        else:
            made[id(node)] = node
    result = made[id(traced.result)] if isinstance(traced.result, Expr) else traced.result
    used = list(walk([result]))
    for node in used:
        moved_on = node.op == "state" and node.attrs["key"] in traced.writes and id(node) not in fresh
        given = node.op == "input" and node.attrs["name"] in ("w", "g")
        if moved_on or given or "label" in node.attrs:
            raise ValueError(
                "1 / eta of this recipe depends on more than its state (on weights, gradients or the whole model), "
                "so the sign of sigma cannot be told from it; watch a recipe with a per-coordinate scale."
            )
    states = {node.attrs["key"]: traced.states[node.attrs["key"]] for node in used if node.op == "state"}
    return Program(result, {}, states, traced.asked)
