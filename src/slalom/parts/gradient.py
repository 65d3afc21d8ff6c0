"""What is done to the raw gradient, before anything remembers it."""

from __future__ import annotations

from slalom.algebra import Per, Value, maximum, norm
from slalom.parts.base import Gradient, Memory, NonNegative, Positive, Signals


class L2(Gradient):
    """Classic weight decay: the gradient of ``weight_decay / 2 * |w|^2`` joins the loss's own.

        g <- g + lambda w

    Whatever adapts to gradients adapts to this pull too; `Decoupled` does not (Loshchilov & Hutter 2017,
    arXiv:1711.05101).

    Args:
        weight_decay: lambda.
    """

    weight_decay: NonNegative = 1e-2

    def apply(self, x: Signals, s: Memory) -> Signals:
        return x.with_gradient(x.grad + self.weight_decay * x.w)


class ClipNorm(Gradient):
    """Clipping by norm (Pascanu et al. 2013, arXiv:1211.5063).

        g <- g / max(1, |g| / max_norm)

    torch's ``clip_grad_norm_`` divides by ``|g| + 1e-6`` instead, which differs in the seventh digit.

    Args:
        max_norm: the longest gradient that passes unchanged.
        per: what the norm is taken over: the whole ``model``, the parameter ``group``, or each ``tensor``.
    """

    max_norm: Positive = 1.0
    per: Per = "model"

    def apply(self, x: Signals, s: Memory) -> Signals:
        excess: Value = norm(x.grad, self.per) / self.max_norm
        return x.with_gradient(x.grad / maximum(1.0, excess))
