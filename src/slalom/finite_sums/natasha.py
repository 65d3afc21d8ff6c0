"""Variance reduction for sums that are not convex: Natasha 1.5 finds points without slope, Natasha 2 leaves saddles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from slalom.finite_sums.base import FiniteSum, Loss, Prox, assign, check, dot


class Natasha15(FiniteSum):
    """Natasha 1.5: reduced gradients that are held back by the last sub-epoch (Allen-Zhu 2017, arXiv:1708.08694).

        an epoch:      x~ = x,   mu = gradient at x~ over B examples
        a sub-epoch:   x^ = x,   then 1 to B / p times, how often being drawn at random,
                       g = grad_i(x) - grad_i(x~) + mu + 2 sigma (x - x^)
                       x <- prox(x - alpha g, alpha)

    It asks for B examples, never for all: with ``anchor=examples``, the default, the first line is a full pass. sigma
    is how far the loss is from convex: no second derivative is below -sigma. The paper takes B / p steps and goes on
    from one of the points before them; here it is one of those after them, so that a sub-epoch can stop where it would
    go on from. Theory has p of order ``(sigma / (epsilon L))^(2/3)`` and B of order ``epsilon^-2`` for slopes of length
    epsilon. It is a vehicle of theory and has not spread.

    Written from public accounts of the paper and three implementations, which agree on the above but for the point that
    is handed on (random, or the mean of all). The paper's constants were not to be had, so the rate has no default.

    Args:
        params: what is trained.
        loss: the mean loss of the examples with these indices, smooth part only.
        examples: how many there are.
        lr: alpha.
        sigma: how far from convex the loss is.
        sub_epochs: p.
        anchor: B; all examples by default.
        prox: of the penalty, if there is one.
        batch, chunk, generator: as for `SVRG`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        loss: Loss,
        examples: int,
        *,
        lr: float,
        sigma: float,
        sub_epochs: int = 4,
        anchor: int | None = None,
        prox: Prox | None = None,
        batch: int = 1,
        chunk: int = 1024,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(params, loss, examples, batch, chunk, generator)
        check("lr", lr, low=0.0, low_open=True)
        check("sigma", sigma, low=0.0)
        check("sub_epochs", sub_epochs, low=1)
        self.anchor = examples if anchor is None else anchor
        check("anchor", self.anchor, low=1, high=examples)
        self.lr, self.sigma, self.sub_epochs = lr, sigma, sub_epochs
        self.prox: Prox = prox or (lambda w, step: w)

    @torch.no_grad()
    def epoch(self, pull: Callable[[], Sequence[Tensor]] | None = None) -> None:
        """Take the gradient of the anchor, and the steps of all sub-epochs.

        Args:
            pull: yields a gradient that is added at every step, of what is no part of the sum.
        """
        snapshot = [p.clone() for p in self.params]
        mean = self.mean_gradient(self.sample(self.anchor))
        inner = max(1, self.anchor // (self.sub_epochs * self.batch))
        for _ in range(self.sub_epochs):
            start = [p.clone() for p in self.params]
            # a random one of the points after 1 to B / p steps: whoever stops there need not take the others
            for _ in range(int(torch.randint(1, inner + 1, (), generator=self.generator))):
                g = self.reduced(snapshot, mean)
                g = [d + 2 * self.sigma * (p - s) for d, p, s in zip(g, self.params, start, strict=True)]
                if pull is not None:
                    g = [d + e for d, e in zip(g, pull(), strict=True)]
                assign(self.params, [self.prox(p - self.lr * d, self.lr) for p, d in zip(self.params, g, strict=True)])

    @torch.no_grad()
    def polish(self, steps: int) -> None:
        """Take plain stochastic steps on ``f + sigma |x - x^|^2``, x^ the point as it is: the paper's last act."""
        start = [p.clone() for p in self.params]
        for _ in range(steps):
            g = self.gradient(self.draw())
            pairs = zip(self.params, g, start, strict=True)
            assign(self.params, [self.prox(p - self.lr * (d + 2 * self.sigma * (p - s)), self.lr) for p, d, s in pairs])


class Natasha2(Natasha15):
    """Natasha 2: away from saddles along negative curvature, elsewhere Natasha 1.5 (Allen-Zhu 2017, arXiv:1708.08694).

        v = Oja's iteration for the lowest curvature at y:   v <- v + eta (v - H_i v / L) / 2,   v <- v / |v|
        where  v' H v <= -delta / 2:    y <- y +- (delta / L2) v                a coin decides
        else an epoch of Natasha 1.5 on  F(x) = f(x) + L max(0, |x - y| - delta / L2)^2   with sigma = 3 delta

    F keeps an epoch where the curvature that was looked for still holds. It finds points with slope below epsilon and
    curvature above -delta, in ``epsilon^-3.25`` gradients, SGD in ``epsilon^-4``; that is theory, see `Natasha15`. The
    paper takes a random one of Oja's vectors and the best of several tries; here it is the last of each try. A product
    with a second derivative counts as two gradients, and needs a loss that can be derived twice.

    Args:
        params, loss, examples, lr, sub_epochs, anchor, batch, chunk, generator: as for `Natasha15`.
        smoothness: L, of the gradient.
        hessian_smoothness: L2, of the second derivative.
        delta: the curvature that is too low.
        oja_steps: products per try.
        oja_rate: eta; the larger the quicker, and the noisier where H_i differ.
        tries: from how many random vectors.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        loss: Loss,
        examples: int,
        *,
        lr: float,
        smoothness: float,
        hessian_smoothness: float,
        delta: float,
        sub_epochs: int = 4,
        anchor: int | None = None,
        batch: int = 1,
        chunk: int = 1024,
        oja_steps: int = 30,
        oja_rate: float = 1.0,
        tries: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        for name, value in (("smoothness", smoothness), ("hessian_smoothness", hessian_smoothness), ("delta", delta)):
            check(name, value, low=0.0, low_open=True)
        check("oja_rate", oja_rate, low=0.0, low_open=True)
        check("oja_steps", oja_steps, low=1)
        check("tries", tries, low=1)
        shared = {"sub_epochs": sub_epochs, "anchor": anchor, "batch": batch, "chunk": chunk}
        super().__init__(params, loss, examples, lr=lr, sigma=3 * delta, generator=generator, **shared)  # type: ignore[arg-type]
        self.smoothness, self.hessian_smoothness, self.delta = smoothness, hessian_smoothness, delta
        self.oja_steps, self.oja_rate, self.tries = oja_steps, oja_rate, tries

    @torch.no_grad()
    def step(self) -> Literal["curvature", "gradient"]:
        """Leave along negative curvature if there is any, else take an epoch; return which it was."""
        curvature, v = min((self._lowest() for _ in range(self.tries)), key=lambda found: found[0])
        reach = self.delta / self.hessian_smoothness
        if curvature <= -self.delta / 2:
            sign = 1.0 if torch.rand((), generator=self.generator) < 0.5 else -1.0
            assign(self.params, [p + sign * reach * part for p, part in zip(self.params, v, strict=True)])
            return "curvature"
        center = [p.clone() for p in self.params]

        def pull() -> list[Tensor]:
            away = [p - c for p, c in zip(self.params, center, strict=True)]
            distance = dot(away, away) ** 0.5
            strength = 2 * self.smoothness * max(0.0, distance - reach) / max(distance, 1e-300)
            return [strength * part for part in away]

        self.epoch(pull)
        return "gradient"

    def _lowest(self) -> tuple[float, list[Tensor]]:
        """Return the curvature along what Oja's iteration finds, over the anchor, and the direction."""
        v = _unit([torch.randn(p.shape, generator=self.generator).to(p) for p in self.params])
        for _ in range(self.oja_steps):
            bent = self._product(self.draw(), v)
            v = _unit([a + self.oja_rate / 2 * (a - b / self.smoothness) for a, b in zip(v, bent, strict=True)])
        return dot(v, self._product(self.sample(self.anchor), v)), v

    def _product(self, indices: Tensor, v: Sequence[Tensor]) -> list[Tensor]:
        """Return the second derivative of some examples' loss times a direction."""
        self.evaluated += 2 * len(indices)
        with torch.enable_grad():
            slope = torch.autograd.grad(self.loss(indices), self.params, create_graph=True, allow_unused=True)
            along = [(g * a).sum() for g, a in zip(slope, v, strict=True) if g is not None and g.requires_grad]
            if not along:  # a linear loss
                return [torch.zeros_like(p) for p in self.params]
            found = torch.autograd.grad(torch.stack(along).sum(), self.params, allow_unused=True)
        return [torch.zeros_like(p) if h is None else h for p, h in zip(self.params, found, strict=True)]


def _unit(v: Sequence[Tensor]) -> list[Tensor]:
    length = max(dot(v, v) ** 0.5, 1e-300)
    return [part / length for part in v]
