"""Random numbers as functions: as good as a generator's, equal everywhere, and remembered by nobody."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import slalom
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.algebra import quantile, uniform
from test_native import compare, lists

MANY = 1 << 20
SHAPES = [(3, 4), (130, 300), (130, 300), (5,), (), (2, 3, 2, 2), (40000,)]


def numbers(stream: int = 0, t: int = 1, seed: int = 0, count: int = MANY, first: int = 0) -> Tensor:
    index: Any = torch.arange(first, first + count)
    drawn: Any = quantile(uniform(index, torch.tensor(stream, dtype=torch.float64), float(t), seed))  # type: ignore[arg-type]
    return drawn  # type: ignore[no-any-return]


@pytest.mark.parametrize("key", [(0, 1, 0), (0, 2, 0), (1, 1, 0), (77, 12345, 2**32 - 1)], ids=str)
def test_the_numbers_are_standard_normal(key: tuple[int, int, int]) -> None:
    x = numbers(*key)
    error = MANY**-0.5  # of the mean; that of the k-th moment is the root of its variance as often
    assert abs(x.mean()) < 4 * error
    assert abs(x.var() - 1) < 4 * 2**0.5 * error
    assert abs((x**3).mean()) < 4 * 15**0.5 * error
    assert abs((x**4).mean() - 3) < 4 * 96**0.5 * error
    ordered = torch.special.ndtr(x.sort().values)
    places = (torch.arange(MANY, dtype=torch.float64) + 0.5) / MANY
    assert (ordered - places).abs().max() * MANY**0.5 < 1.95  # Kolmogorov and Smirnov: one in a thousand is above
    assert 4.2 < x.abs().max() < 5.3


def test_neighbours_steps_parameters_and_seeds_have_nothing_to_do_with_each_other() -> None:
    keys = [(s, t, seed) for s in (0, 1, 2, 300) for t in (1, 2, 3, 1000) for seed in (0, 1)]
    draws = torch.stack([numbers(*key, count=1 << 17) for key in keys])
    for values in (draws, draws.square(), draws.sign()):
        correlation = torch.corrcoef(values) - torch.eye(len(keys))
        assert correlation.abs().max() < 5 * 2**-8.5
    x = numbers()
    for lag in (1, 2, 3, 4, 8, 16, 64, 100, 256, 1000, 1024, 4096, 65536):
        assert abs(torch.corrcoef(torch.stack([x[lag:], x[:-lag]]))[0, 1]) < 4.5 * MANY**-0.5


def test_every_bit_of_a_key_turns_half_of_the_bits_of_its_numbers() -> None:
    def bits(stream: int, t: int, seed: int, index: Tensor) -> Tensor:
        u: Any = uniform(index, torch.tensor(stream, dtype=torch.float64), float(t), seed)  # type: ignore[arg-type]
        whole = (u * 2**23).long()
        return (whole[:, None] >> torch.arange(23)) & 1

    index = torch.arange(4096)
    before = bits(5, 9, 3, index)
    changed = [bits(5 ^ (1 << k), 9, 3, index) for k in range(16)]
    changed += [bits(5, 9 ^ (1 << k), 3, index) for k in range(16)]
    changed += [bits(5, 9, 3 ^ (1 << k), index) for k in range(32)]
    changed += [bits(5, 9, 3, index ^ (1 << k)) for k in range(40)]
    for after in changed:
        turned = (after != before).double()
        assert abs(turned.mean() - 0.5) < 5 * 0.5 * (4096 * 23) ** -0.5
        assert (turned.mean(0) - 0.5).abs().max() < 5 * 0.5 * 4096**-0.5


def test_an_element_beyond_32_bits_has_numbers_of_its_own() -> None:
    assert not torch.equal(numbers(count=100), numbers(count=100, first=1 << 32))


def test_the_quantile_is_the_inverse_of_the_normal_distribution() -> None:
    u = (torch.arange(0, 1 << 23, 97, dtype=torch.float64) + 0.5) / (1 << 23)
    found: Any = quantile(u)  # type: ignore[arg-type]
    assert (found - torch.special.ndtri(u)).abs().max() < 1e-5
    tail: Any = quantile(torch.tensor([2.0**-24], dtype=torch.float64))  # type: ignore[arg-type]
    assert abs(tail - torch.special.ndtri(torch.tensor([2.0**-24], dtype=torch.float64))) < 1e-5


# --- the part that adds them -------------------------------------------------------------------------------

LOUD = Recipe(gradient=P.Noise(1.0, 0.0), step=1.0)


def noise_of(executor: Any, shapes: list[tuple[int, ...]] = SHAPES, steps: int = 3, **kw: Any) -> list[list[Tensor]]:
    """The noise of every step, parameter by parameter."""
    params = [torch.nn.Parameter(torch.zeros(shape, **kw)) for shape in shapes]
    optimizer = slalom.Optimizer(params, LOUD, executor=executor)
    return [drawn(optimizer) for _ in range(steps)]


def drawn(optimizer: slalom.Optimizer) -> list[Tensor]:
    params = list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))
    for p in params:
        p.data.zero_()
        p.grad = torch.zeros_like(p)
    optimizer.step()
    return [-p.detach().double() for p in params]


@pytest.mark.parametrize("executor", ["eager", "foreach", "native"])
def test_every_executor_draws_the_same(executor: str) -> None:
    exact = noise_of("eager", dtype=torch.float64)
    for ours, theirs in zip(noise_of(executor), exact, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_tensors_of_one_shape_and_steps_of_one_tensor_differ() -> None:
    steps = noise_of("auto")
    equal_shapes = [step[place].flatten() for step in steps for place in (1, 2)]
    assert (torch.corrcoef(torch.stack(equal_shapes)) - torch.eye(6)).abs().max() < 5 * 39000**-0.5


def test_the_bits_do_not_depend_on_threads_or_on_who_else_is_there() -> None:
    ends = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            ends.append(noise_of("native")[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for end in ends[1:] for a, b in zip(ends[0], end, strict=True))
    torch.randn(100)  # what else draws random numbers does not matter
    alone = noise_of("native", SHAPES[:2])[0]
    assert torch.equal(alone[1], ends[0][1])


def test_a_resumed_run_and_a_copy_go_on_with_the_same_numbers() -> None:
    shapes = [(4, 3), (4, 3)]

    def made() -> slalom.Optimizer:
        return slalom.Optimizer([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes], LOUD)

    whole = made()
    drawn(whole)
    resumed = made()
    resumed.load_state_dict(whole.state_dict())
    copied = copy.deepcopy(whole)
    expected = drawn(whole)
    for other in (resumed, copied):
        assert all(torch.equal(a, b) for a, b in zip(expected, drawn(other), strict=True))


def test_the_number_of_a_parameter_is_its_place_among_all_groups() -> None:
    params = lists([(2, 2), (3,), (2, 2)], torch.float32)
    optimizer = slalom.Optimizer([{"params": params[:1]}, {"params": params[1:]}], LOUD)
    params[2].grad = torch.zeros(2, 2)  # who comes first does not matter
    optimizer.step()
    optimizer.init_state()
    assert [optimizer.state[p]["noise.stream"].item() for p in params] == [0, 1, 2]


def test_blocks_of_one_parameter_have_numbers_of_their_own() -> None:
    fused = torch.nn.Parameter(torch.zeros(3 * 40, 50))
    optimizer = slalom.Optimizer([{"params": [fused], "blocks": 3}], LOUD)
    (noise,) = drawn(optimizer)
    parts = torch.corrcoef(noise.reshape(3, -1)) - torch.eye(3)
    assert parts.abs().max() < 5 * 2000**-0.5
    assert optimizer.state[fused]["noise.stream"].unique().numel() == 3


def test_elements_are_counted_in_the_order_of_the_shape_not_of_memory() -> None:
    images = torch.nn.Parameter(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last))
    assert not images.is_contiguous()
    optimizer = slalom.Optimizer([images], LOUD)
    torch.testing.assert_close(drawn(optimizer)[0], noise_of("eager", [(2, 3, 4, 5)])[0][0], rtol=1e-6, atol=1e-6)


def test_touched_rows_get_the_noise_of_their_place_in_the_table() -> None:
    table = torch.nn.Parameter(torch.zeros(50, 4))
    optimizer = slalom.Optimizer([table], LOUD, sparse="lazy")
    rows = torch.tensor([[31, 7, 31, 2]])
    table.grad = torch.sparse_coo_tensor(rows, torch.zeros(4, 4), (50, 4), check_invariants=True)
    optimizer.step()
    whole = noise_of("eager", [(50, 4)])[0][0]
    expected = torch.zeros(50, 4, dtype=torch.float64)
    for row in (31, 7, 2):
        expected[row] = whole[row]
    torch.testing.assert_close(-table.detach().double(), expected, rtol=1e-6, atol=1e-6)
    strict = slalom.Optimizer([table], LOUD)
    table.grad = torch.sparse_coo_tensor(rows, torch.zeros(4, 4), (50, 4), check_invariants=True)
    with pytest.raises(RuntimeError, match="rows without one move"):
        strict.step()


def test_noise_fades_as_the_paper_has_it() -> None:
    w = torch.nn.Parameter(torch.zeros(100_000))
    optimizer = Recipe(gradient=P.Noise(0.3, 0.55), step=1.0).build([w])
    for t in range(4):
        (noise,) = drawn(optimizer)
        assert noise.var() == pytest.approx(0.3 / (1 + t) ** 0.55, rel=0.02)


def test_noise_before_a_matrix_geometry() -> None:
    geometry = P.Spectral(iteration=P.NewtonSchulz(dtype="float32"))
    recipe = Recipe(gradient=P.Noise(0.01), momentum=P.Ema(0.9), geometry=geometry, step=0.01)
    compare(recipe, [(6, 6), (40, 50), (6, 6), (4, 2, 3, 3)])


def test_seeds_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        P.Noise(seed=-1)
    with pytest.raises(ValueError, match="below 2"):
        P.Noise(seed=2**32)
