"""Compressed gradients in `DistributedDataParallel`, as a communication hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from slalom.compress.annotated import communication_hook
from slalom.compress.compressors import Compressor
from slalom.compress.differences import Differences
from slalom.errors import UsageError

_PRIME = 1_000_003


class Compressed:
    """The state of `hook`: what every worker remembers, and of which batch the next gradients are.

        model = DistributedDataParallel(net)
        compressed = slalom.compress.Compressed(slalom.compress.RandK(0.05), net.parameters())
        model.register_comm_hook(compressed, slalom.compress.hook)

    Every parameter is compressed by itself; messages of a bucket travel together, each to all workers, and are added up
    in the same order everywhere. Workers draw at random each for itself. Under ``no_sync`` the hook is not called, so
    accumulated gradients are compressed once. A step costs more arithmetic than a plain all-reduce: it pays where the
    network is slow.

    ``shifts="batch"`` is DIANA-RR's memory (Sadiev et al. 2024, arXiv:2206.07021): one for each batch of a *fixed*
    division of each worker's data, of which only the order is shuffled, alike for all workers. Say which one comes,
    before ``backward``: ``compressed.batch = number``. It keeps as many copies of the gradient as there are batches,
    twice.

    Args:
        compressor: what is sent.
        params: of the model that is not yet wrapped, in an order that all workers share.
        shifts: ``"none"``: gradients themselves are compressed; ``"worker"``: their differences from one memory
            (DIANA; EF21 with `TopK`); ``"batch"``: from the batch's own (DIANA-RR).
        rate: how fast memories follow, see `Differences`.
        seed: for chance; each worker adds its rank.
        scale: by how much gradients are magnified now, ``scaler.get_scale``, in mixed precision: memories are kept
            without.
        group: the workers; all by default.

    Attributes:
        batch: which batch the next gradients are of.
        sent: bytes of this worker's messages so far.
    """

    def __init__(
        self,
        compressor: Compressor,
        params: Iterable[Tensor],
        *,
        shifts: Literal["none", "worker", "batch"] = "worker",
        rate: float | None = None,
        seed: int = 0,
        scale: Callable[[], float] | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        if shifts not in ("none", "worker", "batch"):
            raise UsageError(f'shifts={shifts!r}: it must be "none", "worker" or "batch".')
        self.batch = 0
        self.sent = 0
        self.group = group
        self._shifts, self._scale = shifts, scale or (lambda: 1.0)
        self._memories: dict[Tensor, Differences] = {}
        for place, p in enumerate(params):  # chance of its own for each: buckets may change their order
            chance = torch.Generator().manual_seed(((seed * _PRIME + dist.get_rank(group)) * _PRIME + place) % 2**63)
            self._memories[p] = Differences(compressor, rate=rate, memory=shifts != "none", generator=chance)

    def memories(self, params: Iterable[Tensor]) -> list[Differences]:
        """Return what is remembered of these parameters' gradients.

        Raises:
            UsageError: for a parameter that was not among those given at first.
        """
        try:
            return [self._memories[p] for p in params]
        except KeyError as missing:
            raise UsageError(
                f"a parameter of shape {tuple(missing.args[0].shape)} is not among those that Compressed(...) was "
                "given: give it all of the model, before DistributedDataParallel wraps it."
            ) from None

    @property
    def key(self) -> int:
        """Under which key gradients are remembered now."""
        return self.batch if self._shifts == "batch" else 0

    def agree(self, numbers: Iterable[Tensor]) -> None:
        """Raise `UsageError` if the workers' batches have different numbers, so that their memories are of others."""
        if self._shifts == "batch":
            found = sorted({int(number.clone().view(torch.int64)) for number in numbers})
            if len(found) > 1:
                raise UsageError(
                    f"the workers say that these are gradients of the batches {', '.join(map(str, found))}: "
                    'with shifts="batch" all take their batches in the same order.'
                )

    def magnified(self) -> float:
        """Return by how much gradients are magnified now."""
        return float(self._scale())

    def state_dict(self) -> dict[str, Any]:
        """Return this worker's memories; every worker saves its own."""
        return {"memories": [one.state_dict() for one in self._memories.values()], "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, on the same worker.

        Raises:
            UsageError: for the state of another number of parameters; nothing is changed then.
        """
        if len(state["memories"]) != len(self._memories):
            raise UsageError(f"this is of {len(state['memories'])} parameters, and there are {len(self._memories)}.")
        for one, saved in zip(self._memories.values(), state["memories"], strict=True):
            one.load_state_dict(saved)
        self.batch = int(state["batch"])


@communication_hook
def hook(state: Compressed, bucket: Any) -> torch.futures.Future[Tensor]:
    """Compress a bucket's gradients, exchange the messages, and leave the mean of what they say.

    For ``DistributedDataParallel.register_comm_hook``. Buckets may be rebuilt at any time: memories belong to
    parameters.
    """
    gradients, memories = bucket.gradients(), state.memories(bucket.parameters())
    key, scale = state.key, state.magnified()
    messages = [one.send(key, g / scale) for one, g in zip(memories, gradients, strict=True)]
    number = torch.tensor([state.batch]).view(torch.uint8).to(messages[0].device)
    packed = torch.cat([number, *messages])
    state.sent += packed.numel()
    gathered = [torch.empty_like(packed) for _ in range(dist.get_world_size(state.group))]
    work: Any = dist.all_gather(gathered, packed, group=state.group, async_op=True)

    def put_together(_: Any) -> Tensor:
        split = [torch.split(one, [len(part) for part in (number, *messages)]) for one in gathered]
        state.agree([first for first, *_ in split])
        for one, g, *parts in zip(memories, gradients, *[rest for _, *rest in split], strict=True):
            g.copy_(one.receive(key, parts, g).mul_(scale))
        mean: Tensor = bucket.buffer()
        return mean

    future: torch.futures.Future[Tensor] = work.get_future().then(put_together)
    return future
