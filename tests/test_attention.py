"""QK-clip, by what it promises: the same batch has exactly the threshold as its largest logit afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import slalom

HEADS, WIDTH, INPUTS = 4, 8, 16


def heads_of(x: Tensor, weight: Tensor) -> Tensor:
    """Return (batch, heads, tokens, width)."""
    return (x @ weight.T).unflatten(-1, (-1, WIDTH)).transpose(1, 2)


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(2, 10, INPUTS, dtype=torch.float64)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_the_largest_logit_becomes_the_threshold(batch: Tensor, key_heads: int) -> None:
    queries = torch.randn(HEADS * WIDTH, INPUTS, dtype=torch.float64)
    keys = torch.randn(key_heads * WIDTH, INPUTS, dtype=torch.float64)
    before = slalom.largest_logits(heads_of(batch, queries), heads_of(batch, keys))
    slalom.qk_clip(queries, keys, before, threshold=before.max().item() / 2)
    after = slalom.largest_logits(heads_of(batch, queries), heads_of(batch, keys))
    torch.testing.assert_close(after.max(), before.max() / 2)


def test_heads_are_clipped_each_for_itself(batch: Tensor) -> None:
    queries, keys = torch.randn(2, HEADS * WIDTH, INPUTS, dtype=torch.float64)
    old = queries.clone()
    logits = torch.tensor([50.0, 200.0, 100.0, 400.0], dtype=torch.float64)
    gamma = slalom.qk_clip(queries, keys, logits)
    torch.testing.assert_close(gamma, torch.tensor([1.0, 0.5, 1.0, 0.25], dtype=torch.float64))
    ratio = (queries / old).view(HEADS, -1)
    torch.testing.assert_close(ratio, gamma.sqrt().unsqueeze(1).expand_as(ratio))


def test_logits_below_the_threshold_change_nothing(batch: Tensor) -> None:
    queries, keys = torch.randn(2, HEADS * WIDTH, INPUTS)
    old = queries.clone(), keys.clone()
    slalom.qk_clip(queries, keys, torch.tensor([99.0, -5.0, 0.0, 100.0]))
    assert torch.equal(queries, old[0])
    assert torch.equal(keys, old[1])


def test_slices_of_a_fused_weight_and_biases_will_do() -> None:
    fused, bias = torch.randn(3 * HEADS * WIDTH, INPUTS), torch.randn(3 * HEADS * WIDTH)
    values, whole = fused[2 * HEADS * WIDTH :].clone(), fused.clone()
    for weight in (fused, bias):
        queries, keys, _ = weight.chunk(3)
        slalom.qk_clip(queries, keys, torch.full((HEADS,), 400.0))
    assert torch.equal(fused[2 * HEADS * WIDTH :], values)
    torch.testing.assert_close(fused[: 2 * HEADS * WIDTH], 0.5 * whole[: 2 * HEADS * WIDTH])


def test_weights_of_other_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="do not make 3 heads of one width"):
        slalom.qk_clip(torch.zeros(32, 4), torch.zeros(32, 4), torch.zeros(3))


@pytest.mark.parametrize("together", [0, 3], ids=["keys apart", "keys with values"])
def test_in_latent_attention_the_shared_rotary_key_is_left_alone(batch: Tensor, together: int) -> None:
    rotary = 2
    queries = torch.randn(HEADS * (WIDTH + rotary), INPUTS, dtype=torch.float64)
    keys = torch.randn(HEADS * (WIDTH + together), INPUTS, dtype=torch.float64)
    shared = (batch @ torch.randn(INPUTS, rotary, dtype=torch.float64)).unsqueeze(1).expand(-1, HEADS, -1, -1)

    def logits() -> Tensor:
        own = (batch @ keys.T).unflatten(-1, (HEADS, -1)).transpose(1, 2)[..., :WIDTH]
        whole = (batch @ queries.T).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        return slalom.largest_logits(whole, torch.cat([own, shared], dim=-1))

    before, old = logits(), (queries.clone(), keys.clone())
    threshold = before.sort().values[1:3].mean().item()  # two heads are above it
    gamma = slalom.qk_clip(queries, keys, before, threshold, rotary=rotary, values=together)
    torch.testing.assert_close(logits(), before.clamp(max=threshold))
    assert (gamma < 1).sum() == 2
    by_head = (queries / old[0]).view(HEADS, WIDTH + rotary, -1)[:, :, 0]
    torch.testing.assert_close(by_head[:, WIDTH:], gamma.unsqueeze(1).expand(-1, rotary))
    torch.testing.assert_close(by_head[:, :WIDTH], gamma.sqrt().unsqueeze(1).expand(-1, WIDTH))
    made_values = keys.view(HEADS, -1, INPUTS)[:, WIDTH:]
    assert torch.equal(made_values, old[1].view(HEADS, -1, INPUTS)[:, WIDTH:])


def test_rows_that_leave_no_head_are_refused() -> None:
    with pytest.raises(ValueError, match="of which 8 rotary rows and 0 of values"):
        slalom.qk_clip(torch.zeros(32, 4), torch.zeros(32, 4), torch.zeros(4), rotary=8)
