"""Compressed gradients: what compressors promise, what memories make up for, and the hook in two processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

import slalom
from slalom.compress import QSGD, Compressor, Differences, Identity, Natural, RandK, TopK
from slalom.finite_sums import CompressedSum, diana, diana_nastya, diana_rr, q_nastya, q_rr

F64 = torch.float64
UNBIASED: list[Compressor] = [Identity(), RandK(0.25), RandK(1e-9), QSGD(1), QSGD(5), QSGD(300), Natural()]
BYTES = {Identity(): 4 * 37, RandK(0.25): 8 + 4 * 9, QSGD(5): 4 + 37, QSGD(300): 4 + 2 * 37, Natural(): 37 + 5,
         TopK(0.25): 12 * 9}  # fmt: skip


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("compressor", UNBIASED, ids=str)
def test_unbiased_compressors_are_right_on_average_and_vary_as_they_say(compressor: Compressor) -> None:
    x = torch.randn(12, generator=chance(1), dtype=F64) * torch.logspace(-3, 0, 12, dtype=F64)
    generator = chance(2)
    draws = torch.stack([compressor(x, generator) for _ in range(5_000)])
    error = draws - x
    omega = compressor.omega(12)
    assert error.mean(0).norm() <= 3 * (omega / 5_000) ** 0.5 * x.norm() + 1e-12
    squares = error.square().sum(1) / x.square().sum()
    variance, doubt = float(squares.mean()), 4 * float(squares.std()) / 5_000**0.5
    assert variance <= omega + doubt + 1e-20
    if isinstance(compressor, RandK):
        assert variance >= omega - doubt  # exactly d / k - 1
    if isinstance(compressor, Natural):
        assert variance > 0.03  # 1/8 is the worst case, halfway between 4/3 and 2


def test_omegas_are_the_published_ones() -> None:
    assert RandK(0.1).omega(1000) == pytest.approx(9.0)
    assert QSGD(4).omega(9) == pytest.approx(9 / 16)
    assert QSGD(4).omega(10_000) == pytest.approx(25.0)
    assert Natural().omega(7) == 0.125
    worst = torch.full((50_000,), 4 / 3, dtype=F64)  # of all numbers between 1 and 2 the least well rounded
    found = Natural()(worst, chance())
    assert float((found - worst).square().mean() / worst.square().mean()) == pytest.approx(0.125, rel=0.01)


def test_the_largest_coordinates_hold_the_most() -> None:
    x = torch.randn(40, generator=chance(), dtype=F64)
    lost = (TopK(0.25)(x) - x).square().sum() / x.square().sum()
    assert lost <= TopK(0.25).omega(40) == 0.75
    assert int((TopK(0.25)(x) != 0).sum()) == 10


@pytest.mark.parametrize("compressor", BYTES, ids=str)
def test_a_message_is_as_long_as_it_should_be_whatever_it_says(compressor: Compressor) -> None:
    for x in (torch.randn(37), torch.zeros(37), torch.full((37,), torch.nan)):
        assert len(compressor.encode(x, chance())) == BYTES[compressor]
        assert compressor.encode(x, chance()).dtype == torch.uint8


@pytest.mark.parametrize("compressor", [*UNBIASED, TopK(0.3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_zeros_tiny_numbers_and_what_is_none_arrive(compressor: Compressor, dtype: torch.dtype) -> None:
    assert not compressor(torch.zeros(9, dtype=dtype), chance()).any()
    assert compressor(torch.full((3, 3), torch.inf, dtype=dtype), chance()).isfinite().logical_not().any()
    assert compressor(torch.full((9,), torch.nan, dtype=dtype), chance()).isnan().any()
    tiny = torch.full((8,), 1e-40, dtype=dtype)
    assert (compressor(tiny, chance()).abs() <= 1.2e-38).all()
    assert compressor(torch.zeros(0, dtype=dtype), chance()).shape == (0,)
    assert compressor(torch.tensor(3.0, dtype=dtype), chance()).shape == ()


def test_powers_of_two_come_through_natural_compression_as_they_are() -> None:
    x = torch.tensor([1.0, -2.0, 0.5, 2.0**-126, -(2.0**127), 0.0, 1024.0])
    assert torch.equal(Natural()(x, chance()), x)


# --- memories ------------------------------------------------------------------------------------------------


def test_a_memory_learns_a_gradient_that_stays() -> None:
    g = torch.randn(30, generator=chance(), dtype=F64)
    for compressor in (RandK(0.2), QSGD(2), Natural(), TopK(0.2)):
        one = Differences(compressor, generator=chance(3))
        errors = []
        for _ in range(200):
            message = one.send("w", g)
            errors.append(float((one.receive("w", [message], g) - g).norm() / g.norm()))
        assert errors[-1] < 1e-7 < 1e-2 < errors[0], compressor


def test_memories_follow_the_formulas() -> None:
    """Two workers and a server, in numbers: a = 1 / (1 + omega) = k / d."""
    workers = [Differences(RandK(0.5), generator=chance(m)) for m in range(2)]
    server = Differences(RandK(0.5))
    h = torch.zeros(2, 4, dtype=F64)
    for step in range(5):
        g = torch.randn(2, 4, generator=chance(step), dtype=F64)
        messages = [one.send(0, row) for one, row in zip(workers, g, strict=True)]
        q = torch.stack([RandK(0.5).decode(message, 4, F64) for message in messages])
        for m in range(2):  # two of four coordinates of the difference, doubled
            sent = q[m] != 0
            torch.testing.assert_close(q[m][sent], 2 * (g[m] - h[m])[sent])
            assert int(sent.sum()) == 2
        torch.testing.assert_close(server.receive(0, messages, g[0]), (h + q).mean(0))
        h += 0.5 * q


def test_error_feedback_is_memory_at_full_rate() -> None:
    one = Differences(TopK(0.25))
    h = torch.zeros(8, dtype=F64)
    for step in range(6):
        g = torch.randn(8, generator=chance(step), dtype=F64)
        h = h + TopK(0.25)(g - h)
        torch.testing.assert_close(one.receive(0, [one.send(0, g)], g), h)


def test_what_is_no_number_shows_and_is_not_remembered() -> None:
    workers = [Differences(QSGD(3), generator=chance(m)) for m in range(2)]
    server = Differences(QSGD(3))
    g = torch.ones(5)
    for bad in (torch.inf, torch.nan):
        messages = [workers[0].send(0, g * bad), workers[1].send(0, g)]
        assert not server.receive(0, messages, g).isfinite().any()
    for _ in range(300):
        estimate = server.receive(0, [one.send(0, g) for one in workers], g)
    torch.testing.assert_close(estimate, g, rtol=0, atol=1e-4)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="it needs shifts"):
        Differences(TopK(), memory=False)
    with pytest.raises(ValueError, match=r"allows at most 0.1 for 100 values"):
        Differences(RandK(0.1), rate=0.5).send(0, torch.ones(100))
    with pytest.raises(ValueError, match="rate=0"):
        Differences(RandK(0.1), rate=0.0)
    with pytest.raises(ValueError, match="share=0"):
        RandK(0)
    with pytest.raises(ValueError, match="levels=0"):
        QSGD(0)


# --- methods for finite sums ---------------------------------------------------------------------------------


class Heterogeneous:
    """Ridge logistic regression in float64, split so that workers disagree; with its minimum."""

    def __init__(self, workers: int = 4, each: int = 8, dims: int = 10) -> None:
        x = torch.randn(workers * each, dims, generator=chance(0), dtype=F64)
        x[:, 0] += 4.0  # what all examples of a class have in common, and so the workers who see that class alone
        self.x = x / x.norm(dim=1, keepdim=True)
        y = torch.sign(torch.randn(workers * each, generator=chance(1), dtype=F64))
        order = y.argsort()  # some workers see one class alone
        self.x, self.y, self.ridge = self.x[order], y[order], 0.1
        self.workers = list(torch.arange(workers * each).split(each))
        self.w = torch.zeros(dims, dtype=F64, requires_grad=True)
        best = torch.zeros(dims, dtype=F64)
        for _ in range(50):
            p = torch.sigmoid(-self.y * (self.x @ best))
            gradient = -(self.x * (self.y * p)[:, None]).mean(0) + self.ridge * best
            hessian = (self.x * (p * (1 - p))[:, None]).T @ self.x / len(p) + self.ridge * torch.eye(dims, dtype=F64)
            best = best - torch.linalg.solve(hessian, gradient)
        self.best = best

    def loss(self, rows: Tensor) -> Tensor:
        margins = self.y[rows] * (self.x[rows] @ self.w)
        return functional.softplus(-margins).mean() + self.ridge / 2 * self.w.square().sum()

    def distance(self) -> float:
        return float((self.w.detach() - self.best).square().sum())


def plateau(make: Any, lr: float, epochs: int = 160, **settings: Any) -> float:
    """The mean squared distance to the minimum over the last quarter of a run."""
    problem = Heterogeneous()
    optimizer = torch.optim.SGD([problem.w], lr=lr)
    method = make(optimizer, problem.loss, problem.workers, RandK(0.2), batch=2, generator=chance(5), **settings)
    found = []
    for _ in range(epochs):
        method.epoch()
        found.append(problem.distance())
    return sum(found[-epochs // 4 :]) / (epochs // 4)


def test_memories_of_batches_take_the_compressions_variance_away() -> None:
    """The paper's signature: DIANA takes the disagreement of workers away, DIANA-RR that of batches as well."""
    lr = 0.3
    levels = {name: plateau(make, lr) for name, make in {"q-rr": q_rr, "diana": diana, "diana-rr": diana_rr}.items()}
    assert levels["diana-rr"] < 0.01 * levels["diana"]
    assert levels["diana"] < 0.9 * levels["q-rr"]
    # what is left falls with the square of the rate, the others' with the rate
    assert plateau(diana_rr, lr / 2) < 0.4 * levels["diana-rr"]
    assert 0.3 * levels["q-rr"] < plateau(q_rr, lr / 2) < 0.8 * levels["q-rr"]


def test_reshuffling_gains_nothing_under_bare_compression() -> None:
    drawn = plateau(CompressedSum, 0.3, shifts="none", reshuffled=False)
    assert plateau(q_rr, 0.3) > 0.5 * drawn

    def bare(optimizer: Any, loss: Any, workers: Any, _: Any, **settings: Any) -> CompressedSum:
        return CompressedSum(optimizer, loss, workers, Identity(), shifts="none", **settings)

    # and much where nothing is compressed
    assert plateau(bare, 0.3, reshuffled=True) < 0.1 * plateau(bare, 0.3, reshuffled=False)


def test_local_steps_need_memories_too() -> None:
    bare, shifted = (plateau(make, 0.8, local_lr=0.01) for make in (q_nastya, diana_nastya))
    assert shifted < 0.05 * bare


def test_an_epoch_of_one_local_step_is_a_plain_round() -> None:
    ends = []
    for make, settings in ((q_rr, {}), (q_nastya, {"local_lr": 0.3})):
        problem = Heterogeneous(workers=3, each=4)
        optimizer = torch.optim.SGD([problem.w], lr=0.1)
        method = make(optimizer, problem.loss, problem.workers, RandK(0.3), batch=4, generator=chance(2), **settings)
        for _ in range(10):
            method.epoch()
        ends.append(problem.w.detach().clone())
    torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)


def test_any_optimizer_follows_and_bytes_are_counted() -> None:
    problem = Heterogeneous()
    start = problem.distance()
    method = diana_rr(slalom.Adam([problem.w], lr=0.02), problem.loss, problem.workers, QSGD(4), batch=4)
    for _ in range(100):
        method.epoch()
    assert problem.distance() < 0.1 * start
    assert method.rounds == 200
    assert method.sent == 200 * 4 * (8 + 10)  # four workers: a length in double precision, and a byte a value
    assert method.passes == 100


def test_unequal_workers_and_contradictions_are_refused() -> None:
    problem = Heterogeneous()
    optimizer = torch.optim.SGD([problem.w], lr=0.1)
    with pytest.raises(ValueError, match="workers with 3, 2 batches"):
        CompressedSum(optimizer, problem.loss, [torch.arange(3), torch.arange(2)], Identity())
    with pytest.raises(ValueError, match='take shifts="worker"'):
        CompressedSum(optimizer, problem.loss, problem.workers, Identity(), local_lr=0.1)
    with pytest.raises(ValueError, match="shifts='all'"):
        CompressedSum(optimizer, problem.loss, problem.workers, Identity(), shifts="all")  # type: ignore[arg-type]


# --- two processes -------------------------------------------------------------------------------------------

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes with the hook found."""
    folder = tmp_path_factory.mktemp("compressed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"}
    results = [folder / f"rank{rank}.json" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "compressed_ranks.py"), str(rank), str(folder / "store"), str(results[rank])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(result.exists() for result in results), "\n".join(said)
    return [json.loads(result.read_text()) for result in results]


two_processes = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)


@two_processes
def test_without_compression_the_hook_is_the_plain_mean_to_the_bit(ranks: list[dict[str, Any]]) -> None:
    assert all(found["identity"] for found in ranks)


@two_processes
@pytest.mark.parametrize("name", ["randk", "topk", "qsgd", "natural", "none", "batch", "vote"])
def test_ranks_hold_the_same_bits_and_learn(ranks: list[dict[str, Any]], name: str) -> None:
    first, second = (found[name] for found in ranks)
    assert first["weights"] == second["weights"]
    assert first["loss"] < 0.5 * first["start"]
    assert math.isfinite(first["loss"])


@two_processes
def test_a_resumed_worker_goes_on_with_the_same_bits(ranks: list[dict[str, Any]]) -> None:
    assert all(found["resumed"] for found in ranks)


@two_processes
def test_a_loss_scale_does_not_reach_the_memories(ranks: list[dict[str, Any]]) -> None:
    assert all(found["scaled"] for found in ranks)


@two_processes
def test_batches_in_different_orders_are_refused(ranks: list[dict[str, Any]]) -> None:
    assert all("all take their batches in the same order" in found["disagree"] for found in ranks)


@two_processes
def test_most_workers_decide_and_zeros_abstain(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["vote"]["signs"] == [1.0, -1.0, 0.0, 1.0, 0.0, -1.0, 1.0, -1.0, 1.0]
        assert all(map(math.isnan, [*found["vote"]["nan"], *found["vote"]["inf"]]))
