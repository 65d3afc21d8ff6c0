"""How numbers are spread: against distributions whose moments and tails are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from slalom.observe import distribution, gradients, sample_norms


def test_normal_numbers_have_no_tail_and_no_shape() -> None:
    found = distribution(
        3.0 + 2.0 * torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    assert found.mean == pytest.approx(3.0, abs=0.02)
    assert found.deviation == pytest.approx(2.0, abs=0.02)
    assert abs(found.skewness) < 0.03
    assert abs(found.kurtosis) < 0.06
    assert found.outside == pytest.approx(0.0027, abs=0.0004)
    assert found.quantiles[2] == pytest.approx(3.0, abs=0.05)
    assert found.quantiles[4] == pytest.approx(3.0 + 2.0 * 3.09, abs=0.3)


@pytest.mark.parametrize(("degrees", "within"), [(1.5, 0.3), (3.0, 0.6)])
def test_heavy_tails_are_seen_by_their_index(degrees: float, within: float) -> None:
    torch.manual_seed(0)
    found = distribution(torch.distributions.StudentT(degrees).sample((60_000,)).double())
    assert found.tail == pytest.approx(degrees, abs=within)
    assert found.kurtosis > 10
    assert found.spread > 30


def test_a_longer_tail_on_the_left_is_a_negative_skewness() -> None:
    found = distribution(
        -torch.rand(200_000, generator=torch.Generator().manual_seed(0)).log().neg()
    )  # minus an exponential variable: -2
    assert found.skewness == pytest.approx(-2.0, abs=0.1)


def test_small_sets_are_described_exactly() -> None:
    found = distribution(torch.tensor([0.0, 0.0, 1.0, 1.5, -3.0, 4.0, math.nan, math.inf]))
    assert (found.count, found.bad, found.zeros) == (6, 2, 2)
    assert (found.smallest, found.largest) == (-3.0, 4.0)
    assert found.mean == pytest.approx(3.5 / 6)
    assert dict(found.positive) == {0: 2, 2: 1}
    assert dict(found.negative) == {1: 1}
    nothing = distribution(torch.tensor([math.nan]))
    assert (nothing.count, nothing.bad) == (0, 1)
    assert "1 more are nan" in str(nothing)
    with pytest.raises(ValueError, match="complex numbers are in no order"):
        distribution(torch.ones(2, dtype=torch.complex64))


def test_what_a_half_would_lose_is_read_off_the_histogram() -> None:
    found = distribution(torch.tensor([2.0**-13, 2.0**-14, -(2.0**-15), 2.0**-30, 0.0]))
    assert found.lost(torch.float16) == 0.5
    assert found.lost(torch.bfloat16) == 0.0


def test_the_screen_has_a_bar_for_every_power_of_two() -> None:
    rows = str(distribution(torch.tensor([1.0, 1.0, 1.0, 1.0, -0.25]))).splitlines()
    assert rows[0] == "5 numbers, 0.0% of them 0"
    (one,) = (row for row in rows if " 2^0 " in row)
    (between,) = (row for row in rows if row.rstrip().endswith("2^-1"))
    (low,) = (row for row in rows if "2^-2" in row)
    assert one.count("▇") == 20
    assert "▇" not in between
    assert low.count("▇") == 5
    assert max(map(len, rows)) <= 100


def test_a_models_gradients_are_described_one_by_one_and_together() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Embedding(5, 2, sparse=True))
    model[0](torch.randn(8, 4)).sum().backward()
    model[1](torch.tensor([1, 1, 3])).sum().backward()
    found = gradients(model)
    assert set(found) == {"0.weight", "0.bias", "1.weight", "all"}
    assert found["1.weight"].count == 4  # two rows of two
    assert found["all"].count == 12 + 3 + 4
    assert gradients(nn.Linear(2, 2)) == {}


def test_norms_per_sample_are_those_of_batches_of_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    inputs, targets = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    found = sample_norms(model, nn.functional.cross_entropy, inputs, targets)
    for place in range(5):
        model.zero_grad()
        nn.functional.cross_entropy(model(inputs[place : place + 1]), targets[place : place + 1]).backward()
        norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
        assert found[place].item() == pytest.approx(norm.item(), rel=1e-10)
