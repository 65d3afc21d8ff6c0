"""What each named optimizer is held to: golden vectors, independent implementations, a distinguishing property.

An entry here buys the tests in test_methods.py; the shared ones run for every optimizer of the catalogue anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import lion_pytorch
import prodigyopt
import pytorch_optimizer
import schedulefree
import torch
from torch import Tensor

import slalom


def start() -> torch.nn.Parameter:
    """The 3 x 2 parameter from which golden vectors start."""
    return torch.nn.Parameter(
        torch.tensor([[0.3 * (i + 1) - 0.4 * j for j in range(2)] for i in range(3)], dtype=torch.float64)
    )


def gradient(t: int) -> Tensor:
    """The prescribed gradient of golden step t, 1 to 6."""
    return torch.tensor(
        [[math.sin(1.3 * t + 0.7 * i + 1.9 * j) * (1 + 0.5 * i - 0.25 * j) for j in range(2)] for i in range(3)],
        dtype=torch.float64,
    )


@dataclass(frozen=True)
class Golden:
    """Where the parameter is after six prescribed gradients."""

    settings: dict[str, Any]
    values: tuple[float, ...]
    tolerance: float = 6e-11  # the vectors have ten digits


@dataclass(frozen=True)
class Oracle:
    """An independent implementation, run side by side on a small network in float64."""

    build: Callable[[Iterable[Tensor]], torch.optim.Optimizer]
    settings: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-12
    kernels: bool = True  # False where the other side sees no matrix in a kernel, or another one


@dataclass(frozen=True)
class Case:
    """Everything known about one method."""

    golden: tuple[Golden, ...] = ()
    oracles: tuple[Oracle, ...] = ()
    property: Callable[[], None] | None = None


def trajectory(
    optimizer_of: Callable[[list[Tensor]], torch.optim.Optimizer], gradients: Iterable[float]
) -> list[float]:
    """Steps (old minus new) of a single number under prescribed gradients."""
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = optimizer_of([w])
    moves = []
    for value in gradients:
        before = w.item()
        w.grad = torch.tensor([value], dtype=torch.float64)
        optimizer.step()
        moves.append(before - w.item())
    return moves


def moves(name: str, gradients: Iterable[float], **settings: Any) -> list[float]:
    """Steps of a named optimizer under prescribed gradients."""
    return trajectory(lambda params: slalom.create(name, params, **settings), gradients)


def close(a: float, b: float, tolerance: float = 1e-6) -> bool:
    """Whether two numbers agree relatively."""
    return math.isclose(a, b, rel_tol=tolerance)


# --- distinguishing properties -----------------------------------------------------------------------


def nesterov_first_step_is_one_plus_mu() -> None:
    assert close(moves("sgd", [2.0], lr=0.1, momentum=0.9, nesterov=True)[0], 0.1 * 1.9 * 2.0)


def every_step_has_the_same_length() -> None:
    assert all(close(abs(move), 0.01) for move in moves("signsgd", [3.0, -1e-5, 7e4], lr=0.01))
    assert moves("signsgd", [0.0], lr=0.01) == [0.0]


def lion_turns_at_once_where_signum_waits() -> None:
    gradients = [1.0] * 10 + [-1.0] * 6
    lion = moves("lion", gradients, lr=0.01)
    signum = moves("signum", gradients, lr=0.01)
    assert lion[10] < 0
    assert signum[10] > 0


def adagrad_follows_one_over_root_t() -> None:
    steps = moves("adagrad", [0.3] * 20, lr=0.1, eps=0.0)
    assert all(close(step, 0.1 / math.sqrt(t)) for t, step in enumerate(steps, 1))


def rmsprop_first_step_is_ten_rates() -> None:
    assert close(moves("rmsprop", [0.3], lr=0.01, alpha=0.99)[0], 0.1)


def bias_correction_makes_the_first_step_one_rate() -> None:
    assert close(moves("rmsprop-bc", [0.3], lr=0.01)[0], 0.01)
    noisy = [0.3, -1.0, 2.0, 0.1]
    assert moves("rmsprop-bc", noisy, lr=0.01, beta=0.99) == moves("adam", noisy, lr=0.01, betas=(0.0, 0.99))


def adam_first_step_is_one_rate_whatever_the_gradient() -> None:
    assert close(moves("adam", [1e-3], lr=0.01)[0], 0.01, 1e-4)
    assert close(moves("adam", [1e3], lr=0.01)[0], 0.01, 1e-4)


def decoupled_decay_shrinks_all_alike() -> None:
    for size in (1.0, 1e-3):
        plain = moves("adamw", [size, -size], lr=0.01, weight_decay=0.0)
        decayed = moves("adamw", [size, -size], lr=0.01, weight_decay=0.5)
        assert close(decayed[0] - plain[0], 0.01 * 0.5)


def amsgrad_never_recovers_from_a_spike() -> None:
    gradients = [100.0] + [1.0] * 60
    adam = moves("adam", gradients, lr=0.01, betas=(0.0, 0.5))
    ams = moves("amsgrad", gradients, lr=0.01, betas=(0.0, 0.5))
    assert close(adam[-1], 0.01, 1e-3)
    assert ams[-1] < 0.002


def adamax_tames_a_spike_at_once() -> None:
    gradients = [1.0] * 2000 + [100.0]
    assert moves("adamax", gradients, lr=1.0)[-1] < 0.12
    assert moves("adam", gradients, lr=1.0)[-1] > 2.0


def nadam_leans_on_the_newest_gradient() -> None:
    gradients = [1.0] * 200 + [100.0]
    assert moves("nadam", gradients, lr=1.0)[-1] > 2 * moves("adam", gradients, lr=1.0)[-1]


def radam_starts_without_adapting() -> None:
    assert close(moves("radam", [7.0], lr=0.01)[0], 0.07)


def adabelief_speeds_up_on_a_constant_gradient() -> None:
    steps = moves("adabelief", [1.0] * 400, lr=1e-3)
    assert steps[-1] > 4 * steps[0]
    assert close(moves("adam", [1.0] * 400, lr=1e-3)[-1], 1e-3)


def laprop_bounds_every_step() -> None:
    gradients = [1.0] * 50 + [1e6] + [1.0] * 5
    bound = 1 / math.sqrt(1 - 0.999) * (1 - 0.9) + 1.0
    assert max(moves("laprop", gradients, lr=1.0)) < bound
    steps = moves("laprop", [1.0, 1e-3, 1e-3], lr=1.0)
    assert steps[2] > 0.3  # the first quotient is remembered as 1, not as a gradient of 1 over a large metric


def adan_decays_by_division() -> None:
    assert close(1.0 - moves("adan", [0.0], lr=1.0, weight_decay=3.0)[0], 0.25)


def lamb_moves_tensors_by_equal_fractions() -> None:
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    optimizer = slalom.LAMB([w], lr=0.01)
    w.grad = torch.tensor([1e-4, 2.0], dtype=torch.float64)
    before = w.detach().clone()
    optimizer.step()
    assert close((w - before).norm().item(), 0.01 * 5.0)


def factored_equals_full_on_rank_one() -> None:
    a, b = torch.rand(4, 1, dtype=torch.float64), torch.rand(1, 5, dtype=torch.float64)
    full = slalom.Recipe(scale=slalom.parts.SecondMoment(0.5, eps=0.0, debias=False), step=0.1)
    factored = slalom.Recipe(scale=slalom.parts.Factored(eps=0.0), step=0.1)
    ends = []
    for recipe in (full, factored):
        w = torch.nn.Parameter(torch.zeros(4, 5, dtype=torch.float64))
        optimizer = recipe.build([w])
        w.grad = a @ b
        optimizer.step()
        ends.append(w.detach().clone())
    # beta_1 = 0 makes the first factored moment g^2; the full one is (1 - 0.5) g^2.
    torch.testing.assert_close(ends[1], ends[0] * math.sqrt(0.5), rtol=1e-12, atol=0)


def muon_ignores_the_size_of_gradients() -> None:
    grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    ends = []
    for scale in (1.0, 64.0):
        w = torch.nn.Parameter(torch.zeros(6, 4))
        optimizer = slalom.Muon([{"params": [w], "role": "matrix"}])
        w.grad = scale * grad
        optimizer.step()
        ends.append(w.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)  # a power of two changes no bit


def soap_turns_with_the_problem() -> None:
    generator = torch.Generator().manual_seed(3)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))
    gradients = [torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(6)]
    ends = []
    for turn in (torch.eye(4, dtype=torch.float64), rotation):
        w = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
        optimizer = slalom.SOAP([w], lr=0.1, frequency=100)
        for grad in gradients:
            w.grad = turn @ grad
            optimizer.step()
        ends.append(turn.T @ w.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)


def prodigy_ignores_the_size_of_the_loss() -> None:
    def end(size: float) -> float:
        w = torch.nn.Parameter(torch.tensor([5.0], dtype=torch.float64))
        optimizer = slalom.Prodigy([w], eps=0.0)
        for _ in range(60):
            w.grad = size * 2 * w.detach()
            optimizer.step()
        return w.item()

    assert close(end(1.0), end(1e4), 1e-6)
    assert abs(end(1.0)) < 4.0  # and it did move, from a first guess of 1e-6


def schedule_free_evaluates_the_average() -> None:
    w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = slalom.ScheduleFreeAdamW([w], lr=0.1)
    points = []
    for value in (1.0, -0.5, 0.25):
        w.grad = torch.tensor([value], dtype=torch.float64)
        optimizer.step()
        points.append(optimizer.state[w]["schedule_free.z"].item())
    training = w.item()
    with optimizer.averaged():
        assert close(w.item(), sum(points) / 3, 1e-12)
    assert w.item() == training


def lazy_equals_greedy_and_finds_zeros() -> None:
    noisy = [0.3, -1.0, 2.0, 0.1, -0.4]
    for lazy, greedy in zip(moves("ftrl-adam", noisy, lr=0.01), moves("adam", noisy, lr=0.01), strict=True):
        assert abs(lazy - greedy) < 1e-14
    w = torch.nn.Parameter(torch.tensor([0.5, 0.5], dtype=torch.float64))
    optimizer = slalom.FTRLAdam([w], lr=0.1, l1=20.0)
    for _ in range(50):
        w.grad = torch.tensor([w[0].item() * 1e-3, -1.0], dtype=torch.float64)
        optimizer.step()
    assert w[0].item() == 0.0


def nadamw_first_step_is_longer() -> None:
    assert close(moves("nadamw", [0.3], lr=0.01, weight_decay=0.0)[0], 0.01 * 1.9)


def atan2_ignores_the_size_of_gradients() -> None:
    noisy = [0.3, -1.0, 2.0, 0.1]
    small = moves("adam-atan2", [1e-12 * value for value in noisy], lr=0.01)
    assert all(close(a, b, 1e-9) for a, b in zip(moves("adam-atan2", noisy, lr=0.01), small, strict=True))
    assert moves("adam-atan2", [0.0], lr=0.01) == [0.0]


def softplus_follows_tiny_gradients_in_proportion() -> None:
    steady = moves("sadam", [1e-4] * 400, lr=1.0, betas=(0.9, 0.9))[-1]
    assert close(steady, 1e-4 / (math.log(2) / 50), 0.05)


def friction_halves_a_constant_gradients_step() -> None:
    slow, adam = moves("diffgrad", [0.3] * 20, lr=0.01), moves("adam", [0.3] * 20, lr=0.01)
    assert all(close(a, b / 2, 1e-4) for a, b in zip(slow[1:], adam[1:], strict=True))


def adamomentum_starts_ten_times_as_fast() -> None:
    assert close(moves("adamomentum", [3.0], lr=0.01)[0], 0.1, 0.01)
    alternating = [1.0, -1.0] * 400
    assert abs(moves("adamomentum", alternating, lr=0.01)[-1]) > 10 * abs(moves("adam", alternating, lr=0.01)[-1])


def adanorm_keeps_its_length_when_gradients_shrink() -> None:
    gradients = [1.0] * 100 + [0.1] * 3
    assert moves("adanorm", gradients, lr=0.01)[-1] > 1.05 * moves("adam", gradients, lr=0.01)[-1]


def ademamix_remembers_for_long() -> None:
    gradients = [1.0] * 300 + [0.0] * 300
    assert moves("ademamix", gradients, lr=0.01)[-1] > 10 * moves("adam", gradients, lr=0.01)[-1]


def mars_first_step_sees_a_stretched_gradient() -> None:
    w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = slalom.MARSAdamW([w])
    w.grad = torch.tensor([0.1], dtype=torch.float64)
    optimizer.step()
    assert close(optimizer.state[w]["ema.m"].item(), 0.05 * 1.475 * 0.1)


def cautious_stands_still_where_the_gradient_vanished() -> None:
    assert moves("c-adamw", [1.0, 0.0], lr=0.01, weight_decay=0.0)[1] == 0.0
    assert moves("adamw", [1.0, 0.0], lr=0.01, weight_decay=0.0)[1] > 0.0
    assert close(moves("c-adamw", [1.0], lr=0.01, weight_decay=0.0)[0], 0.005)  # n / (ones + 1) of a single number


def cautious_lion_waits_where_lion_goes_on() -> None:
    assert moves("c-lion", [1.0] * 5 + [-0.01], lr=0.01)[-1] == 0.0
    assert moves("lion", [1.0] * 5 + [-0.01], lr=0.01)[-1] > 0.0


def grams_always_descends() -> None:
    gradients = [1.0] * 10 + [-0.01]
    assert moves("grams", gradients, lr=0.01)[-1] < 0 < moves("adam", gradients, lr=0.01)[-1]


def cautious_decay_leaves_alone_what_grows() -> None:
    grown = moves("adamw-cwd", [-1.0], lr=0.01, weight_decay=0.5)[0]  # w = 1 is pushed up
    assert close(grown, -0.01)
    assert close(moves("adamw-cwd", [1.0], lr=0.01, weight_decay=0.5)[0], 0.01 + 0.01 * 0.5)


def pnm_amplifies_what_alternates() -> None:
    alternating = [1.0, -1.0] * 200
    assert abs(moves("pnm", alternating, lr=1.0)[-1]) > 1.3


def lars_ignores_the_size_of_gradients() -> None:
    ends = []
    for scale in (1.0, 1000.0):
        w = torch.nn.Parameter(torch.eye(3, dtype=torch.float64))
        optimizer = slalom.LARS([w], weight_decay=0.0)
        w.grad = scale * torch.arange(9, dtype=torch.float64).reshape(3, 3)
        optimizer.step()
        ends.append(w.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=0)


def _po(name: str, **settings: Any) -> Callable[[Iterable[Tensor]], torch.optim.Optimizer]:
    return lambda params: getattr(pytorch_optimizer, name)(params, **settings)


def _torch(name: str, **settings: Any) -> Callable[[Iterable[Tensor]], torch.optim.Optimizer]:
    return lambda params: getattr(torch.optim, name)(params, **settings)


def _same(name: str, tolerance: float = 1e-12, **settings: Any) -> Oracle:
    """The class of that name in torch, with the same arguments."""
    return Oracle(_torch(name, **settings), settings, tolerance)


CASES: dict[str, Case] = {
    "sgd": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1878497924, -0.0858475661, 0.4535791439, 0.3082856985, 0.8256634876, 0.6988777717)),
            Golden(
                {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
                (-0.1090113856, 0.0129468202, 0.1171753969, 0.5903231134, 0.7027692772, 1.0902004436),
            ),
            Golden(
                {"lr": 0.1, "momentum": 0.9, "nesterov": True},
                (-0.1067876761, 0.0860671299, 0.2523538856, 0.7150986219, 1.0045235801, 1.1689570021),
            ),
        ),
        oracles=(
            _same("SGD", lr=0.05),
            _same("SGD", lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1),
            _same("SGD", lr=1e-4, momentum=0.9, nesterov=True, maximize=True),
        ),
        property=nesterov_first_step_is_one_plus_mu,
    ),
    "signsgd": Case(
        golden=(Golden({"lr": 0.1}, (0.1, 0.1, 0.6, 0.2, 0.7, 0.7)),),
        oracles=(Oracle(_po("SignSGD", lr=0.01, momentum=0.0), {"lr": 0.01}),),
        property=every_step_has_the_same_length,
    ),
    "signum": Case(
        golden=(Golden({"lr": 0.1, "beta": 0.9}, (0.1, 0.1, 0.4, 0.6, 0.9, 0.7)),),
        oracles=(Oracle(_po("SignSGD", lr=0.01, momentum=0.9), {"lr": 0.01}),),
        property=lion_turns_at_once_where_signum_waits,
    ),
    "lion": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.0873253388, 0.0970304910, 0.5618885857, 0.1854147359, 0.6483126305, 0.6658587807),
            ),
        ),
        oracles=(
            Oracle(
                lambda params: lion_pytorch.Lion(params, lr=1e-3, weight_decay=0.1), {"lr": 1e-3, "weight_decay": 0.1}
            ),
        ),
        property=lion_turns_at_once_where_signum_waits,
    ),
    "adagrad": Case(
        oracles=(
            _same("Adagrad", lr=0.05),
            _same("Adagrad", lr=0.05, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.3),
        ),
        property=adagrad_follows_one_over_root_t,
    ),
    "rmsprop": Case(
        oracles=(
            _same("RMSprop", lr=1e-3),
            _same("RMSprop", lr=1e-3, momentum=0.9, weight_decay=0.1),
            _same("RMSprop", lr=1e-3, centered=True),
        ),
        property=rmsprop_first_step_is_ten_rates,
    ),
    "rmsprop-bc": Case(
        oracles=(Oracle(_torch("Adam", betas=(0.0, 0.95), lr=1e-3), {"beta": 0.95, "lr": 1e-3}),),
        property=bias_correction_makes_the_first_step_one_rate,
    ),
    "ftrl-adam": Case(
        oracles=(Oracle(_torch("Adam", lr=1e-3), {"lr": 1e-3}),), property=lazy_equals_greedy_and_finds_zeros
    ),
    "adam": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.0644160761, 0.1645166498, 0.4437468090, 0.4559903261, 0.8704567026, 0.6912841230),
            ),
        ),
        oracles=(_same("Adam", lr=1e-2), _same("Adam", lr=1e-2, weight_decay=0.1, amsgrad=True, maximize=True)),
        property=adam_first_step_is_one_rate_whatever_the_gradient,
    ),
    "adamw": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.0637909675, 0.1629043833, 0.4354105094, 0.4484663945, 0.8485633120, 0.6731976033),
            ),
        ),
        oracles=(_same("AdamW", lr=1e-2), _same("AdamW", lr=1e-2, weight_decay=0.3, amsgrad=True, betas=(0.8, 0.9))),
        property=decoupled_decay_shrinks_all_alike,
    ),
    "amsgrad": Case(
        golden=(
            Golden(
                {"lr": 0.1, "betas": (0.9, 0.5)},
                (0.0742119044, 0.1445219806, 0.4682834833, 0.4578901416, 0.8911137548, 0.7028722605),
            ),
        ),
        oracles=(Oracle(_torch("Adam", lr=1e-2, amsgrad=True), {"lr": 1e-2}),),
        property=amsgrad_never_recovers_from_a_spike,
    ),
    "adamax": Case(
        golden=(
            Golden({"lr": 0.1}, (0.0990395072, 0.1124361769, 0.4749259148, 0.4425167471, 0.8841211484, 0.6841655116)),
        ),
        oracles=(_same("Adamax", lr=1e-2, weight_decay=0.1),),
        property=adamax_tames_a_spike_at_once,
    ),
    "nadam": Case(
        golden=(
            # torch keeps the product of its mus in float32, and so does this vector
            Golden(
                {"lr": 0.1}, (0.1647721512, 0.0571228946, 0.4922553257, 0.3447258835, 0.8363835864, 0.6315997943), 3e-9
            ),
        ),
        oracles=(
            _same("NAdam", 1e-8, lr=1e-2, weight_decay=0.1),
            _same("NAdam", 1e-8, lr=1e-2, weight_decay=0.1, decoupled_weight_decay=True),
        ),
        property=nadam_leans_on_the_newest_gradient,
    ),
    "radam": Case(
        golden=(
            Golden(
                {"lr": 0.1, "betas": (0.9, 0.9)},
                (0.1183166249, -0.0126709021, 0.4538201115, 0.4333667931, 0.9621613726, 0.7920423895),
            ),
            Golden({"lr": 0.1}, (0.1239649728, -0.0121140611, 0.4599263044, 0.4295394280, 0.9660691792, 0.7861060975)),
        ),
        oracles=(_same("RAdam", lr=1e-2, weight_decay=0.1), _same("RAdam", lr=1e-2, betas=(0.9, 0.9))),
        property=radam_starts_without_adapting,
    ),
    "adabelief": Case(
        golden=(
            Golden({"lr": 0.1}, (0.0438851434, 0.2019148967, 0.4500570886, 0.5069825719, 0.8986619310, 0.7365463866)),
        ),
        oracles=(Oracle(_po("AdaBelief", lr=1e-2, rectify=False), {"lr": 1e-2, "eps": 1e-16}),),
        property=adabelief_speeds_up_on_a_constant_gradient,
    ),
    "laprop": Case(
        # the other side adds its eps before the bias correction, and decays after the step
        oracles=(Oracle(_po("LaProp", lr=1e-2, betas=(0.9, 0.99)), {"lr": 1e-2, "betas": (0.9, 0.99)}, 1e-7),),
        property=laprop_bounds_every_step,
    ),
    "adan": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.1662709167, 0.1104809568, 0.5500765201, 0.3620237926, 0.8638577136, 0.5592281132),
            ),
        ),
        oracles=(
            Oracle(_po("Adan", lr=1e-2, weight_decay=0.1, weight_decouple=False), {"lr": 1e-2, "weight_decay": 0.1}),
        ),
        property=adan_decays_by_division,
    ),
    "lamb": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1586094172, 0.0457943921, 0.5025016483, 0.3518799699, 0.8854653375, 0.6235326004)),
        ),
        property=lamb_moves_tensors_by_equal_fractions,
    ),
    "adafactor": Case(
        golden=(Golden({}, (0.2920296664, -0.0994577124, 0.5936285936, 0.2043999742, 0.8975640203, 0.5069170227)),),
        oracles=(
            Oracle(_torch("Adafactor", eps=(1e-30, 1e-3), weight_decay=0.0), {}, kernels=False),
            Oracle(
                _torch("Adafactor", eps=(1e-30, 1e-3), lr=0.02, d=2.0, weight_decay=0.0),
                {"lr": 0.02, "d": 2.0},
                kernels=False,
            ),
        ),
        property=factored_equals_full_on_rank_one,
    ),
    "muon": Case(property=muon_ignores_the_size_of_gradients),
    "soap": Case(
        golden=(
            # the vector's QR ran in float32
            Golden(
                {"lr": 0.1, "weight_decay": 0.0, "frequency": 2},
                (0.3095149397, -0.1889179581, 0.6274939494, 0.5675732298, 1.1531985056, 0.3638463023),
                1e-6,
            ),
        ),
        oracles=(
            # no refresh within the run: the float32 QR of the other side is left out
            Oracle(
                _po("SOAP", lr=1e-2, betas=(0.95, 0.9), weight_decay=0.0, precondition_frequency=1000),
                {"lr": 1e-2, "betas": (0.95, 0.9), "weight_decay": 0.0, "frequency": 1000},
                1e-9,
                kernels=False,
            ),
        ),
        property=soap_turns_with_the_problem,
    ),
    "prodigy": Case(
        golden=(
            Golden({"d0": 1e-2}, (0.2100795094, 0.0089473594, 0.5527622565, 0.3101897856, 0.9144978682, 0.5820959364)),
        ),
        oracles=(Oracle(lambda params: prodigyopt.Prodigy(params, d0=1e-3), {"d0": 1e-3}, 1e-9),),
        property=prodigy_ignores_the_size_of_the_loss,
    ),
    "schedule-free-adamw": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.2167510814, 0.0711759023, 0.5469365242, 0.2989277598, 0.8637840465, 0.5450312681),
            ),
        ),
        oracles=(
            Oracle(
                lambda params: schedulefree.AdamWScheduleFree(params, lr=1e-2, weight_decay=0.1),
                {"lr": 1e-2, "weight_decay": 0.1},
                1e-11,
            ),
        ),
        property=schedule_free_evaluates_the_average,
    ),
    "nadamw": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.0},
                (-0.0085866985, 0.2893255444, 0.4031879664, 0.5654787909, 0.8529904440, 0.7881163389),
            ),
        ),
        property=nadamw_first_step_is_longer,
    ),
    "adam-atan2": Case(
        golden=(
            Golden(
                {"lr": 0.1, "betas": (0.9, 0.999)},
                (0.0630176197, 0.1804344881, 0.4602222174, 0.4804709069, 0.9163467074, 0.7194007062),
            ),
        ),
        property=atan2_ignores_the_size_of_gradients,
    ),
    "sadam": Case(
        golden=(
            Golden({"lr": 0.1}, (0.0932412413, 0.0478995690, 0.4715089188, 0.4492214698, 0.9133581434, 0.7071522384)),
        ),
        property=softplus_follows_tiny_gradients_in_proportion,
    ),
    "diffgrad": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1431516965, 0.0598665842, 0.4951453009, 0.3839891509, 0.9005498014, 0.6745197766)),
        ),
        property=friction_halves_a_constant_gradients_step,
    ),
    "adamomentum": Case(
        golden=(
            Golden({"lr": 0.1}, (-1.5770242987, 1.9994833766, -0.6566516645, 2.3046644182, 0.9631343002, 2.2826194316)),
        ),
        property=adamomentum_starts_ten_times_as_fast,
    ),
    "adanorm": Case(
        golden=(
            Golden({"lr": 0.1}, (0.0722434367, 0.1678044584, 0.4646380587, 0.4708148608, 0.9000005341, 0.7109731937)),
        ),
        property=adanorm_keeps_its_length_when_gradients_shrink,
    ),
    "ademamix": Case(
        golden=(
            Golden(
                {"lr": 0.1, "alpha": 2.0},
                (0.0721334201, 0.1679293699, 0.4645872793, 0.4709504354, 0.9000365538, 0.7110724690),
            ),
            Golden(
                {"lr": 0.1, "alpha": 5.0, "warmup": 4},
                (0.0711272551, 0.1684629321, 0.4638674883, 0.4719296016, 0.8999666849, 0.7120444085),
            ),
        ),
        property=ademamix_remembers_for_long,
    ),
    "mars-adamw": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1032872686, 0.1362317309, 0.5013458413, 0.4420559627, 0.8919021391, 0.6767465446)),
        ),
        property=mars_first_step_sees_a_stretched_gradient,
    ),
    "c-adamw": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.0},
                (0.1167314059, 0.1709770409, 0.5558722561, 0.3897284107, 0.9084183145, 0.6732179499),
            ),
        ),
        property=cautious_stands_still_where_the_gradient_vanished,
    ),
    "c-lion": Case(property=cautious_lion_waits_where_lion_goes_on),
    "grams": Case(property=grams_always_descends),
    "adamw-cwd": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.0653555312, 0.1652643516, 0.4440940542, 0.4661690036, 0.8728183142, 0.6971123901),
            ),
        ),
        property=cautious_decay_leaves_alone_what_grows,
    ),
    "pnm": Case(
        golden=(
            Golden({"lr": 0.1}, (0.2775811238, -0.0884272971, 0.5826352932, 0.2295849098, 0.9094210583, 0.5363548306)),
        ),
        oracles=(Oracle(_po("PNM", lr=1e-2, betas=(0.9, 1.0)), {"lr": 1e-2}),),
        property=pnm_amplifies_what_alternates,
    ),
    "lars": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.01},
                (0.2998379914, -0.0998952952, 0.5999006017, 0.2002280657, 0.9001188266, 0.5002455442),
            ),
        ),
        property=lars_ignores_the_size_of_gradients,
    ),
}
