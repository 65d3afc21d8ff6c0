"""P12: a trained network as a sum of its steps, each made linear where it was taken."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.functional import jvp
from torch.func import functional_call

from slalom.lab.methods import build
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.landscape import sharpness
from slalom.pictures import Curve, Picture

Weights: TypeAlias = tuple[Tensor, ...]
_SMALL, _LARGE, _ADAM = "sgd:lr=0.03", "sgd:lr=0.3", "adam:lr=0.001"


@phenomenon
@dataclass(frozen=True)
class Telescope(Phenomenon):
    """A network fits 64 points; the function after every step is predicted by adding up linearised steps.

    Args:
        recipes: who trains.
        lr: the rate of those that do not name their own.
        steps: of training, with all points in each.
        width: units of each of two hidden layers.
        points: samples.
    """

    recipes: tuple[str, ...] = (_SMALL, "sgd:lr=0.01,momentum=0.9", _ADAM, "adam:lr=0.01", _LARGE)
    lr: float = 0.01
    steps: int = 400
    width: int = 64
    points: int = 64

    name: ClassVar = "telescope"
    title: ClassVar = "a network is the sum of its steps, until steps are too long"
    source: ClassVar = "Jeffares, Curth, van der Schaar 2024 (NeurIPS), arXiv:2411.00247"
    claim: ClassVar = (
        "Linearise the network once, at its start, and the prediction of where training leads is off by as much as "
        "training does. Linearise it anew at every step and add up the changes, and the sum follows the real "
        "network closely, so that its predictions can be taken apart by step, by sample, by layer. It holds for any"
        " optimizer, as long as steps are short: beyond the rate at which gradient descent is stable it breaks."
    )
    here: ClassVar = (
        "5-64-64-1 units with rectifiers, 64 points, float64; errors are mean distances on 200 fresh points, over "
        "how far training moved the function. The model, the rates and the bounds, round numbers, follow an earlier"
        " check."
    )
    signs: ClassVar = (
        Sign("small", "SGD at 0.03: error of the sum of steps", "measured before: 0.003", high=0.03),
        Sign("adam", "Adam at 0.001: the same", "measured before: 0.006", high=0.03),
        Sign("once", "SGD at 0.03: error when linearised once, over that of the sum",
             "measured before: 0.37 to 2.9, over 0.003", low=10.0),
        Sign("large", "SGD at 0.3: error of the sum of steps", "measured before: 8; theory: unstable", low=0.5),
        Sign("edge", "SGD at 0.3: 2 over the curvature in the end, over the rate",
             "Cohen 2021, arXiv:2103.00065: training hovers at 1", low=0.8, high=1.2),
    )  # fmt: skip
    seeds: ClassVar = 3
    seconds: ClassVar = (20.0, 4.0)
    quick: ClassVar = {"steps": 150}
    variants: ClassVar = {
        "telescope sgd:lr=0.1 sgd:lr=0.15 sgd:lr=0.2": "where it breaks: look at the rate beside `stable below`",
        "telescope muon:lr=0.01 lion:lr=0.001": "other methods: the sum asks for short steps, not for gradients",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train with every recipe from the same start, and add up."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            model = nn.Sequential(
                nn.Linear(5, self.width),
                nn.ReLU(),
                nn.Linear(self.width, self.width),
                nn.ReLU(),
                nn.Linear(self.width, 1),
            ).double()
        start = copy.deepcopy(model.state_dict())
        x, fresh = normal(self.points, 5), normal(200, 5)
        y = (x[:, 0] * x[:, 1] + torch.sin(2 * x[:, 2]))[:, None]

        def loss_of(model: nn.Module) -> Tensor:
            result: Tensor = (model(x) - y).square().mean() / 2
            return result

        names = [name for name, _ in model.named_parameters()]

        def at(*weights: Tensor) -> Tensor:
            result: Tensor = functional_call(model, dict(zip(names, weights, strict=True)), (fresh,))
            return result

        def linear(weights: Weights, change: Weights) -> Tensor:
            slope: Tensor = jvp(at, weights, change)[1]  # type: ignore[no-untyped-call]
            return slope

        values: dict[str, float] = {}
        rows: dict[str, tuple[float | None, ...]] = {}
        curves = []
        for place, word in enumerate(self.recipes):
            model.load_state_dict(start)
            optimizer = build(word, list(model.parameters()), lr=self.lr)
            begin = _weights(model)
            first = at(*begin)
            summed, errors = first, []
            for step in range(self.steps):
                before = _weights(model)
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                change = tuple(now - then for now, then in zip(_weights(model), before, strict=True))
                summed = summed + linear(before, change)
                errors.append(float((summed - at(*_weights(model))).abs().mean()))
                progress((place + (step + 1) / self.steps) / len(self.recipes))
            last = at(*_weights(model))
            moved = float((last - first).abs().mean())
            whole = tuple(now - then for now, then in zip(_weights(model), begin, strict=True))
            once = float((first + linear(begin, whole) - last).abs().mean()) / moved
            curvature = sharpness(model, loss_of, samples=0).largest
            rows[word] = (errors[-1] / moved, once, moved, loss.item(), 2 / curvature)
            curves.append(Curve(range(1, self.steps + 1), [max(e / moved, 1e-8) for e in errors], word))
        for key, word in (("small", _SMALL), ("adam", _ADAM), ("large", _LARGE)):
            if word in rows:
                values[key] = rows[word][0] or 0.0
        if _LARGE in rows:
            values["edge"] = (rows[_LARGE][4] or 0.0) / 0.3
        if _SMALL in rows:
            values["once"] = (rows[_SMALL][1] or 0.0) / (rows[_SMALL][0] or 1.0)
        picture = Picture(tuple(curves), "steps", "error", log_y=True)
        head = ("", "sum of steps", "linear once", "moved", "loss", "stable below")
        return Run(
            values, {"Error of the sum of linearised steps, over how far training moved": picture}, Table(head, rows)
        )


def _weights(model: nn.Module) -> Weights:
    return tuple(tensor.detach().clone() for tensor in model.parameters())
