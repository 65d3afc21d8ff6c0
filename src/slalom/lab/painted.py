"""P4: three vectors are trained until the loss over their plane is a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor
from torch.nn import functional

from slalom.errors import UsageError
from slalom.lab.methods import build
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.landscape import Plane
from slalom.pictures import Curve, Picture

_PATTERNS: Final = {
    "smiley": "ooXXXXoo_oXooooXo_XoXooXoX_XooooooX_XoXooXoX_XooXXooX_oXooooXo_ooXXXXoo",
    "heart": "oooooooo_oXXooXXo_XXXXXXXX_XXXXXXXX_oXXXXXXo_ooXXXXoo_oooXXooo_oooooooo",
    "steps": "Xooooooo_XXoooooo_XXXooooo_XXXXoooo_XXXXXooo_XXXXXXoo_XXXXXXXo_XXXXXXXX",
}
_CLASSES, _INPUTS = 4, 20
_APART: Final = 2.0  # how far the classes are apart, in their own widths
_SIDE: Final = 1.0  # above it a pixel counts as high
_FINE: Final = 31  # points of the map each way
_LOOKS: Final = 15


@phenomenon
@dataclass(frozen=True)
class Painted(Phenomenon):
    """A point and two directions in the weights of a small network learn to have a given picture as their loss.

    Args:
        recipes: who trains them; the picture is that of the first.
        lr: the rate of those that do not name their own.
        steps: of training, with all pixels in each.
        pattern: "smiley", "heart", "steps", or rows of your own: "Xoo_oXo_ooX", high where an X is.
        samples: of the training set.
        width: units of each of two hidden layers.
        batch: samples per step.
    """

    recipes: tuple[str, ...] = ("adam",)
    lr: float = 3e-3
    steps: int = 1000
    pattern: str = "smiley"
    samples: int = 512
    width: int = 64
    batch: int = 16

    name: ClassVar = "painted"
    title: ClassVar = "a loss surface can look like anything"
    source: ClassVar = "Skorokhodov, Burtsev 2019, Loss Landscape Sightseeing, arXiv:1910.03867"
    claim: ClassVar = (
        "A plane in thousands of dimensions is chosen by a point and two directions, and these are weights like any "
        "others: train them so that the loss is low on some pixels of the plane and high on the rest, and the surface "
        "shows whatever picture one likes, also on data that were not trained on. There is so much room that every "
        "landscape is somewhere in it. Who is shown a picture of a loss surface should ask how its plane was chosen."
    )
    here: ClassVar = (
        "20-64-64-4 units with rectifiers on a mixture of four Gaussians; the paper has FashionMNIST, CIFAR10 and a "
        "convolutional network. The directions are orthogonal and of one length by construction. The paper raises the "
        "loss of high pixels, up to a limit, one pixel at a time; here every step sees all of them on 16 samples, and "
        "high ones lower -log(1 - p): the gradient of the loss is gone where an answer is surely right, and with it "
        "ten of the 64 pixels stayed low. The rate is the better of two."
    )
    signs: ClassVar = (
        Sign("right", "share of the pixels on the right side of a loss of 1", "measured before: 64 of 64", low=0.95),
        Sign("high", "mean loss on the pattern", "measured before: 4.06", low=2.0),
        Sign("low", "mean loss elsewhere", "measured before: 0.028", high=0.3),
        Sign("fresh", "on data that were not trained on: share of the pixels on the right side",
             "paper: the same picture", low=0.9),
        Sign("square", "cosine of the two directions", "by construction: 0", low=-1e-4, high=1e-4),
    )  # fmt: skip
    seconds: ClassVar = (20.0, 5.0)
    seeds: ClassVar = 3
    quick: ClassVar = {"steps": 700}
    variants: ClassVar = {
        "painted:pattern=heart": "another picture",
        "painted:pattern=XXooXX_ooXXoo_XXooXX": "one of your own",
        "painted:width=8": "a smaller network has less room",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train the plane with every recipe, from the same start on the same batches."""
        mask = read(self.pattern)
        generator = torch.Generator().manual_seed(seed)
        means = _APART * torch.randn(_CLASSES, _INPUTS, generator=generator)
        data, fresh = (_drawn(means, count, generator) for count in (self.samples, 1000))
        shapes = [(self.width, _INPUTS), (self.width, self.width), (_CLASSES, self.width)]
        start = [_initial(shapes, generator) for _ in range(3)]
        surfaces: list[Surface] = []
        rows: dict[str, tuple[float | None, ...]] = {}
        curves = []
        for number, word in enumerate(self.recipes):

            def tell(done: float, number: int = number) -> None:
                progress((number + done) / len(self.recipes))

            surfaces.append(Surface([vector.clone().requires_grad_() for vector in start], shapes))
            looks = self._train(word, surfaces[-1], mask, data, seed, tell)
            curves.append(Curve([step for step, _ in looks], [share for _, share in looks], word))
            values = _judged(surfaces[-1], mask, data, fresh)
            rows[word] = (values["right"], values["high"], values["low"], values["fresh"])
        pictures: dict[str, Picture | Plane] = {
            f"The loss over the plane that {self.recipes[0]} trained": _map(surfaces[0], data),
            "Pixels on the right side": Picture(tuple(curves), "steps", "share", low=0.0, high=1.0),
        }
        head = ("", "right side", "loss on pattern", "elsewhere", "right, fresh data")
        return Run(_judged(surfaces[0], mask, data, fresh), pictures, Table(head, rows))

    def _train(
        self, word: str, surface: Surface, mask: Tensor, data: tuple[Tensor, Tensor], seed: int, progress: Progress
    ) -> list[tuple[float, float]]:
        generator = torch.Generator().manual_seed(seed)
        optimizer = build(word, surface.three, lr=self.lr)
        where, high = places(mask), mask.flatten()
        looks = []
        for step in range(self.steps + 1):
            if step % max(1, self.steps // _LOOKS) == 0:
                looks.append((float(step), _right(surface, mask, data)))
                progress(step / self.steps)
            rows = torch.randint(0, self.samples, (self.batch,), generator=generator)
            logits, y = surface.logits(where, data[0][rows]), data[1][rows]
            low = _losses(logits[~high], y).mean()
            optimizer.zero_grad()
            (low + _wrongness(logits[high], y).mean()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return looks


class Surface:
    """The loss of a network over the plane of three vectors, at many places at once.

    Args:
        three: the origin, and what the directions are made of.
        shapes: of the layers' matrices.
    """

    def __init__(self, three: list[Tensor], shapes: list[tuple[int, int]]) -> None:
        self.three, self.shapes = three, shapes

    def directions(self) -> tuple[Tensor, Tensor]:
        """Return the second vector, and what the third has beside it, as long as the second."""
        _, across, up = self.three
        beside = up - (up @ across) / (across @ across) * across
        return across, beside * (across.norm() / beside.norm())

    def losses(self, places: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss at each place, of which there is one per row."""
        return _losses(self.logits(places, x), y).mean(1)

    def logits(self, places: Tensor, x: Tensor) -> Tensor:
        """Return what the network says of each sample at each place: places x samples x classes."""
        points = self.three[0] + places @ torch.stack(self.directions())
        pieces = iter(torch.split(points, [n for rows, columns in self.shapes for n in (rows * columns, rows)], 1))
        h = x.expand(len(places), *x.shape)
        for number, (rows, columns) in enumerate(self.shapes):
            matrix, shift = next(pieces).view(-1, rows, columns), next(pieces)
            h = torch.baddbmm(shift[:, None], functional.relu(h) if number else h, matrix.transpose(1, 2))
        return h


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log p of the right class."""
    return functional.cross_entropy(logits.transpose(1, 2), y.expand(len(logits), -1), reduction="none")


def _wrongness(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log(1 - p) of the right class, whose gradient is whole where the answer is right and none where wrong."""
    right = functional.one_hot(y, logits.shape[2]).bool()
    return logits.logsumexp(2) - logits.masked_fill(right, -torch.inf).logsumexp(2)


def read(pattern: str) -> Tensor:
    """Return which pixels are high, the top row first.

    Raises:
        UsageError: if it is neither the name of a pattern nor rows of equal length, with both kinds of pixels.
    """
    rows = _PATTERNS.get(pattern, pattern).split("_")
    if len(rows) < 2 or len({*map(len, rows)}) > 1 or {*"".join(rows)} != {"X", "o"} or len(rows[0]) < 2:
        names = ", ".join(_PATTERNS)
        raise UsageError(f"pattern={pattern}: give {names}, or rows of X and o of one length, as Xoo_oXo_ooX.")
    return torch.tensor([[letter == "X" for letter in row] for row in rows])


def places(mask: Tensor) -> Tensor:
    """Return where in the plane the pixels lie, between -1 and 1 each way, row by row from the top."""
    up, across = (torch.linspace(-1, 1, count) for count in mask.shape)
    return torch.cartesian_prod(-up, across).flip(1)


@torch.no_grad()
def _right(surface: Surface, mask: Tensor, data: tuple[Tensor, Tensor]) -> float:
    return float(((surface.losses(places(mask), *data) > _SIDE) == mask.flatten()).float().mean())


@torch.no_grad()
def _judged(
    surface: Surface, mask: Tensor, data: tuple[Tensor, Tensor], fresh: tuple[Tensor, Tensor]
) -> dict[str, float]:
    losses, high = surface.losses(places(mask), *data), mask.flatten()
    return {
        "right": float(((losses > _SIDE) == high).float().mean()),
        "high": float(losses[high].mean()),
        "low": float(losses[~high].mean()),
        "fresh": _right(surface, mask, fresh),
        "square": float(functional.cosine_similarity(*surface.directions(), dim=0)),
    }


@torch.no_grad()
def _map(surface: Surface, data: tuple[Tensor, Tensor]) -> Plane:
    """Measure the loss on a grid that is finer than the pixels."""
    at = torch.linspace(-1, 1, _FINE)
    losses = [surface.losses(torch.stack([at, b.expand(_FINE)], 1), *data).tolist() for b in at]
    axis = tuple(at.tolist())
    kind = f"the plane of the three vectors; one unit is {float(surface.directions()[0].norm()):.3g} long"
    return Plane(axis, axis, tuple(map(tuple, losses)), kind, None)


def _drawn(means: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw points of a mixture of Gaussians with their classes."""
    y = torch.randint(0, len(means), (count,), generator=generator)
    return means[y] + torch.randn(count, means.shape[1], generator=generator), y


def _initial(shapes: list[tuple[int, int]], generator: torch.Generator) -> Tensor:
    """Return the weights of a network as He initialises them, as one vector; biases are 0."""
    pieces = []
    for rows, columns in shapes:
        pieces += [torch.randn(rows * columns, generator=generator) * (2 / columns) ** 0.5, torch.zeros(rows)]
    return torch.cat(pieces)
