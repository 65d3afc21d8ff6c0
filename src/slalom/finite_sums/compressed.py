"""Many workers that send compressed gradients, on one machine: Q-RR, DIANA, DIANA-RR and their local forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from slalom.compress import Compressor, Differences
from slalom.errors import UsageError
from slalom.finite_sums.base import FiniteSum, Loss, assign, check

Shifts = Literal["none", "worker", "batch"]


class CompressedSum(FiniteSum):
    """Workers with data of their own send compressed gradients; any optimizer follows their mean.

        q_m = Q(g_m - h_m),   g = mean of h_m + q_m,   h_m <- h_m + a q_m           (see `slalom.compress`)

    By what h belongs to and how batches are drawn it has these names, each a function of this module:

    ==================  ===========  =================  ==========================================================
    `q_rr`              no h         reshuffled         no gain over drawing: the compression's variance dominates
    `diana`             a worker     drawn              Mishchenko et al. 2019, arXiv:1901.09269
    `diana_rr`          every batch  reshuffled         the compression's variance vanishes; memory for all batches
    `q_nastya`          no h         reshuffled, local  an epoch of local steps, then one message
    `diana_nastya`      a worker     reshuffled, local  the same of differences
    ==================  ===========  =================  ==========================================================

    All but the second are from Sadiev et al. 2024 ("Don't Compress Gradients in Random Reshuffling: Compress Gradient
    Differences", NeurIPS, arXiv:2206.07021). Theory for `q_rr` and `diana_rr` has rates up to about
    ``1 / ((1 + 6 omega / M) L)`` with M workers. In the local forms g_m is ``(x - x_m) / (local_lr n)``, where x_m is
    what n local steps from x lead to, and the optimizer's rate is the server's.

    Args:
        optimizer: moves the parameters along the estimate; ``torch.optim.SGD`` or any of slalom's.
        loss: the mean loss of the examples with these indices.
        workers: the indices that each worker has; their batches must be equally many.
        compressor: what is sent instead of a gradient, of all parameters together.
        shifts: what has a memory h of its own: ``"none"``, each ``"worker"``, or each ``"batch"`` of each worker.
        reshuffled: batches in a new order every epoch, each once; otherwise drawn with replacement.
        local_lr: rate of the local steps; None to send every gradient.
        rate: a, see `slalom.compress.Differences`.
        batch: examples per batch.
        generator: for orders, draws and the compressor.

    Attributes:
        sent: bytes of all workers' messages so far.
        rounds: how often they were sent.

    Raises:
        UsageError: for workers with unequal numbers of batches, or settings that do not go together.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        workers: Sequence[Tensor],
        compressor: Compressor,
        *,
        shifts: Shifts = "batch",
        reshuffled: bool = True,
        local_lr: float | None = None,
        rate: float | None = None,
        batch: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        if shifts not in ("none", "worker", "batch"):
            raise UsageError(f'shifts={shifts!r}: it must be "none", "worker" or "batch".')
        if local_lr is not None:
            check("local_lr", local_lr, low=0.0, low_open=True)
            if shifts == "batch" or not reshuffled:
                raise UsageError(
                    f"local_lr={local_lr:g} with {shifts=}, {reshuffled=}: local steps pass over all batches and send "
                    'one message, so batches have no shifts and are reshuffled: take shifts="worker".'
                )
        params = [p for group in optimizer.param_groups for p in group["params"]]
        super().__init__(params, loss, sum(map(len, workers)), batch, 1024, generator)
        self.batches = [torch.split(indices, batch) for indices in workers]
        if len({len(own) for own in self.batches}) != 1 or not self.batches[0]:
            counts = ", ".join(str(len(own)) for own in self.batches) or "none"
            raise UsageError(f"workers with {counts} batches: they must have equally many, and one at least.")
        self.optimizer, self.compressor = optimizer, compressor
        self.shifts, self.reshuffled, self.local_lr = shifts, reshuffled, local_lr
        self._memories = [
            Differences(compressor, rate=rate, memory=shifts != "none", generator=generator) for _ in workers
        ]
        self.sent = self.rounds = 0

    @torch.no_grad()
    def epoch(self) -> None:
        """Let every worker pass once over as many batches as it has."""
        orders = [self._order(len(own)) for own in self.batches]
        if self.local_lr is not None:
            self._exchange([self._locally(own, order) for own, order in zip(self.batches, orders, strict=True)], None)
            return
        for places in zip(*orders, strict=True):
            chosen = [own[place] for own, place in zip(self.batches, places, strict=True)]
            self._exchange([self.gradient(indices) for indices in chosen], places)

    def _order(self, count: int) -> list[int]:
        if self.reshuffled:
            return torch.randperm(count, generator=self.generator).tolist()
        return torch.randint(count, (count,), generator=self.generator).tolist()

    def _locally(self, own: Sequence[Tensor], order: Sequence[int]) -> list[Tensor]:
        """Return the mean gradient along a worker's steps."""
        assert self.local_lr is not None
        start = [p.clone() for p in self.params]
        for place in order:
            steps = zip(self.params, self.gradient(own[place]), strict=True)
            assign(self.params, [p - self.local_lr * g for p, g in steps])
        length = self.local_lr * len(order)
        found = [(s - p) / length for s, p in zip(start, self.params, strict=True)]
        assign(self.params, start)
        return found

    def _exchange(self, gradients: Sequence[Sequence[Tensor]], places: Sequence[int] | None) -> None:
        """Send what every worker has found, and step along what that says of the mean."""
        flat = [torch.cat([g.flatten() for g in one]) for one in gradients]
        keys = places if places is not None and self.shifts == "batch" else [0] * len(flat)
        estimate = torch.zeros_like(flat[0])
        for memory, key, g in zip(self._memories, keys, flat, strict=True):
            message = memory.send(key, g)
            self.sent += len(message)
            estimate += memory.receive(key, [message], g) / len(flat)
        self.rounds += 1
        for p, part in zip(self.params, torch.split(estimate, [p.numel() for p in self.params]), strict=True):
            p.grad = part.reshape(p.shape).to(p.dtype)
        self.optimizer.step()


def q_rr(
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    workers: Sequence[Tensor],
    compressor: Compressor,
    *,
    batch: int = 1,
    generator: torch.Generator | None = None,
) -> CompressedSum:
    """Compressed gradients of reshuffled batches; see `CompressedSum`."""
    return CompressedSum(optimizer, loss, workers, compressor, shifts="none", batch=batch, generator=generator)


def diana(
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    workers: Sequence[Tensor],
    compressor: Compressor,
    *,
    rate: float | None = None,
    batch: int = 1,
    generator: torch.Generator | None = None,
) -> CompressedSum:
    """Compressed differences from one memory for each worker, batches drawn; see `CompressedSum`."""
    return CompressedSum(
        optimizer, loss, workers, compressor, shifts="worker", reshuffled=False, rate=rate, batch=batch,
        generator=generator,
    )  # fmt: skip


def diana_rr(
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    workers: Sequence[Tensor],
    compressor: Compressor,
    *,
    rate: float | None = None,
    batch: int = 1,
    generator: torch.Generator | None = None,
) -> CompressedSum:
    """Compressed differences from one memory for each batch, batches reshuffled; see `CompressedSum`."""
    return CompressedSum(
        optimizer, loss, workers, compressor, shifts="batch", rate=rate, batch=batch, generator=generator
    )


def q_nastya(
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    workers: Sequence[Tensor],
    compressor: Compressor,
    *,
    local_lr: float,
    batch: int = 1,
    generator: torch.Generator | None = None,
) -> CompressedSum:
    """One compressed message for an epoch of local steps; see `CompressedSum`."""
    return CompressedSum(
        optimizer, loss, workers, compressor, shifts="none", local_lr=local_lr, batch=batch, generator=generator
    )


def diana_nastya(
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    workers: Sequence[Tensor],
    compressor: Compressor,
    *,
    local_lr: float,
    rate: float | None = None,
    batch: int = 1,
    generator: torch.Generator | None = None,
) -> CompressedSum:
    """One compressed difference for an epoch of local steps; see `CompressedSum`."""
    return CompressedSum(
        optimizer, loss, workers, compressor, shifts="worker", local_lr=local_lr, rate=rate, batch=batch,
        generator=generator,
    )  # fmt: skip
