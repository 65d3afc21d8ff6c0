"""Majority vote: workers say in which direction each coordinate should move, and most of them win."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from slalom.compress.annotated import communication_hook
from slalom.compress.bits import bools, packed


@communication_hook
def vote(group: dist.ProcessGroup | None, bucket: Any) -> torch.futures.Future[Tensor]:
    """Put in the place of a gradient the sign that most workers' gradients have, 0 where there is no majority.

        model.register_comm_hook(None, slalom.compress.vote)      # or the group of the workers
        optimizer = slalom.SignSGD(model.parameters(), lr=1e-4)

    Two bits for each value, a sixteenth of single precision (signSGD with majority vote: Bernstein et al. 2018,
    arXiv:1802.04434; 2019, arXiv:1810.05291). The authors send one: here a gradient of 0 abstains, so that rows of a
    table that nobody touched rest. The mean of signs is not the sign of the mean, so at the minimum of the whole
    problem workers may still outvote each other: it is for workers whose data is alike. A number that is none makes
    the whole bucket nan on every worker, so that a gradient scaler or ``on_nonfinite`` sees it.
    """
    g = bucket.buffer()
    message = torch.cat([packed(g > 0), packed(g < 0), (~g.isfinite()).any()[None].to(torch.uint8)])
    gathered = [torch.empty_like(message) for _ in range(dist.get_world_size(group))]
    work: Any = dist.all_gather(gathered, message, group=group, async_op=True)

    def count(_: Any) -> Tensor:
        size, length = g.numel(), (len(message) - 1) // 2
        votes = torch.zeros(size, dtype=torch.int32, device=g.device)
        for one in gathered:
            votes += bools(one[:length], size).int() - bools(one[length:-1], size).int()
        bad = torch.stack([one[-1] for one in gathered]).any()
        won: Tensor = g.copy_(torch.where(bad, torch.nan, votes.sign().to(g.dtype)))
        return won

    future: torch.futures.Future[Tensor] = work.get_future().then(count)
    return future
