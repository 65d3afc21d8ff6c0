"""Products with the Hessian of a loss, by a second backward pass or by differences of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from slalom.errors import UsageError

Method: TypeAlias = Literal["auto", "double backward", "finite differences"]
# How far to go for a difference of gradients, relative to the weights: where truncation and rounding balance.
_REACH: Final = {torch.float64: 6e-6, torch.float32: 5e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class Hessian:
    """The Hessian of a loss in some of a model's parameters, as a matrix that can only be multiplied with.

    Products run a second backward pass, with attention in its plain form, since fused kernels have no second
    derivative. Where an operation has none even so, "auto" falls back on central differences of gradients: two
    backward passes, about three digits in single precision. Reverse mode over forward mode, which would be a third
    way, is not used: torch gets it wrong through layer and batch norms.

    The method is decided at the first product, and stands in ``method`` from then on.

    Args:
        model: the network, at the point where the Hessian is taken.
        loss: called with the model.
        parameters: in which to differentiate.
        method: how.
        scales: S of the matrix S H S, if not 1: one tensor per parameter.

    Raises:
        UsageError: if the loss does not depend on the parameters, or is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module], Tensor],
        parameters: Sequence[Tensor],
        method: Method = "auto",
        scales: Sequence[Tensor] | None = None,
    ) -> None:
        self.model, self.loss, self.parameters = model, loss, list(parameters)
        self.method: Method = method
        self.scales = None if scales is None else _flat(scales)
        self.products = 0
        self.size = sum(p.numel() for p in self.parameters)
        first = self.parameters[0]
        self.device = first.device
        self.dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        self._gradients: list[Tensor | None] = []

    def gradient(self) -> Tensor:
        """Return the gradient, scaled by S, as one vector."""
        return self._scaled(self._flat(self._plain_gradients()))

    def times(self, vector: Tensor) -> Tensor:
        """Return the product with a vector."""
        self.products += 1
        pieces = self.pieces(self._scaled(vector))
        if self.method == "auto":
            try:
                product = self._twice(pieces)
                self.method = "double backward"
            except (RuntimeError, NotImplementedError) as error:
                if not _has_no_derivative(error):
                    raise
                self._gradients = []
                self.method = "finite differences"
                product = self._difference(pieces)
        else:
            product = self._twice(pieces) if self.method == "double backward" else self._difference(pieces)
        if not bool(product.isfinite().all()):
            raise UsageError("the loss has no finite second derivative here: has training diverged?")
        return self._scaled(product)

    def _twice(self, pieces: Sequence[Tensor]) -> Tensor:
        """Differentiate the gradient along a direction; the graph of the gradient is made once."""
        if not self._gradients:
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                self._gradients = list(
                    torch.autograd.grad(self._loss(), self.parameters, create_graph=True, allow_unused=True)
                )
        known = [(g, piece) for g, piece in zip(self._gradients, pieces, strict=True) if g is not None and g.grad_fn]
        if not known:  # a loss that is linear in the parameters
            return torch.zeros(self.size, dtype=self.dtype, device=self.device)
        found = torch.autograd.grad(
            [g for g, _ in known],
            self.parameters,
            [piece.to(g) for g, piece in known],
            retain_graph=True,
            allow_unused=True,
        )
        return self._flat(found)

    @torch.no_grad()
    def _difference(self, pieces: Sequence[Tensor]) -> Tensor:
        """Take the gradients on both sides, a step along the direction away."""
        start = [parameter.detach().clone() for parameter in self.parameters]
        length = float(torch.linalg.vector_norm(_flat(pieces).double()))
        weights = float(torch.linalg.vector_norm(_flat(start).double()))
        if not length:
            return torch.zeros(self.size, dtype=self.dtype, device=self.device)
        step = _REACH[self.parameters[0].dtype] * (1 + weights) / length
        sides = []
        try:
            for side in (step, -step):
                for parameter, value, piece in zip(self.parameters, start, pieces, strict=True):
                    parameter.copy_(value).add_(piece.to(value), alpha=side)
                sides.append(self._flat(self._plain_gradients()).double())
        finally:
            for parameter, value in zip(self.parameters, start, strict=True):
                parameter.copy_(value)
        return ((sides[0] - sides[1]) / (2 * step)).to(self.dtype)

    def _plain_gradients(self) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            return torch.autograd.grad(self._loss(), self.parameters, allow_unused=True)

    def _loss(self) -> Tensor:
        value = self.loss(self.model)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise UsageError("the loss has no gradient: return the tensor that depends on the model, one number.")
        return value.reshape(())

    def _flat(self, pieces: Sequence[Tensor | None]) -> Tensor:
        whole = [
            torch.zeros_like(p) if piece is None else piece.detach()
            for piece, p in zip(pieces, self.parameters, strict=True)
        ]
        return _flat(whole).to(self.device, self.dtype)

    def pieces(self, vector: Tensor) -> list[Tensor]:
        """Return a vector cut into the shapes of the parameters."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def _scaled(self, vector: Tensor) -> Tensor:
        return vector if self.scales is None else vector * self.scales.to(vector)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1).to(tensors[0].device) for tensor in tensors])


def _has_no_derivative(error: Exception) -> bool:
    """Whether an error says that an operation has no second derivative, as each kernel words it."""
    words = ("derivative", "double backward", "backward twice", "not implemented", "does not require grad")
    return isinstance(error, NotImplementedError) or any(word in str(error) for word in words)
