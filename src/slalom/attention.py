"""QK-clip: attention logits kept below a bound by scaling query and key weights after a step."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def largest_logits(queries: Tensor, keys: Tensor, scale: float | None = None) -> Tensor:
    """Return the largest attention logit of each head, before masks and softmax.

    Take the maximum of what this returns over micro-batches and ranks, and hand it to `qk_clip` after the step.

    Args:
        queries: of shape ``(batch, heads, tokens, width)``.
        keys: of shape ``(batch, key heads, tokens, width)``; key heads divide heads.
        scale: what products are multiplied by; ``1 / sqrt(width)`` if not given.
    """
    heads, width = queries.shape[1], queries.shape[-1]
    keys = keys.repeat_interleave(heads // keys.shape[1], dim=1)
    logits = queries @ keys.mT * (width**-0.5 if scale is None else scale)
    return logits.amax(dim=(0, 2, 3))


@torch.no_grad()
def qk_clip(
    queries: Tensor, keys: Tensor, logits: Tensor, threshold: float = 100.0, *, rotary: int = 0, values: int = 0
) -> Tensor:
    """Scale the weights of heads whose logits grew too large (Kimi Team 2025, Kimi K2, arXiv:2507.20534).

        gamma = min(1, threshold / S),   W_q <- sqrt(gamma) W_q,   W_k <- sqrt(gamma) W_k        per head

    Exact for plain attention: on the same batch the largest logit is the threshold afterwards. Biases must be scaled
    alike (pass them here as well); norms on queries and keys undo it, and rotary embeddings do not disturb it. Where
    several heads share a key head, all of them follow the largest of their logits.

    In multi-head latent attention (MLA) all heads share one rotary key, which must be left alone: a head's rotary
    queries then take all of gamma, and its other rows their root as ever. Give ``rotary``, and as keys the weight
    that makes each head's own keys, from which the shared one is apart.

    Args:
        queries: the query weight, ``(heads * (width + rotary), inputs)``, or its bias; changed in place. A slice of a
            fused weight will do. A head's rotary rows come after its others.
        keys: the key weight, ``(key heads * (width + values), inputs)``, or its bias; changed in place.
        logits: the largest logit of each head, from `largest_logits`, with rotary parts in it.
        threshold: what they should not exceed.
        rotary: rows of each query head that meet a rotary key which heads share.
        values: rows of each key head that make values, after those that make keys; they are left alone.

    Returns:
        gamma, one per key head.

    Raises:
        ValueError: if the weights cannot be cut into that many heads.
    """
    heads = logits.numel()
    width = queries.shape[0] // heads - rotary
    if queries.shape[0] % heads or width < 1 or min(rotary, values) < 0 or keys.shape[0] % (width + values):
        also = f", of which {rotary} rotary rows and {values} of values" if rotary or values else ""
        raise ValueError(
            f"queries of {queries.shape[0]} rows and keys of {keys.shape[0]} rows do not make {heads} heads of one "
            f"width{also}: pass the weights of one attention layer and one logit per query head."
        )
    groups = keys.shape[0] // (width + values)
    gamma = (threshold / logits.view(groups, -1).amax(dim=1)).clamp(max=1.0)
    # a head without positive logits has nothing to clip
    gamma = torch.where(gamma > 0, gamma, torch.ones_like(gamma)).to(queries.dtype)
    each = gamma.repeat_interleave(heads // groups).view(-1, 1, *[1] * (queries.ndim - 1))
    by_head = queries.view(heads, width + rotary, *queries.shape[1:])
    by_head[:, :width] *= each.sqrt()
    by_head[:, width:] *= each
    keys.view(groups, width + values, *keys.shape[1:])[:, :width] *= gamma.sqrt().view(-1, 1, *[1] * (keys.ndim - 1))
    return gamma
