"""The classics: SGD and signs, AdaGrad to Adam and its first relatives, the lazy form."""

from __future__ import annotations

import math

import lion_pytorch
import torch

import slalom
from cases.tools import Case, Golden, Oracle, close, from_pytorch_optimizer, from_torch, moves, same_as_torch


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


def as_in_tensorflow_v_begins_at_1_and_momentum_holds_steps() -> None:
    gradients, rates = [0.3, -1.0, 2.0, 0.1, 0.1], [0.1, 0.1, 0.01, 0.01, 0.1]
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = slalom.create("rmsprop-tf", [w], momentum=0.9, eps=1e-3)
    v, b, theirs = 1.0, 0.0, 0.0
    for g, lr in zip(gradients, rates, strict=True):
        v += 0.1 * (g * g - v)
        b = 0.9 * b + lr * g / math.sqrt(v + 1e-3)
        theirs -= b
        optimizer.param_groups[0]["lr"] = lr
        w.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        assert close(w.item(), theirs, 1e-12)
    # a first step: the rate times the gradient, where torch's is 1 / sqrt(1 - alpha) rates long
    assert close(moves("rmsprop-tf", [1e-3], lr=0.1)[0], 0.1 * 1e-3 / math.sqrt(0.9), 1e-6)
    assert close(moves("rmsprop", [1e-3], lr=0.1, alpha=0.9)[0], 0.1 / math.sqrt(0.1), 1e-4)


def bias_correction_makes_the_first_step_one_rate() -> None:
    assert close(moves("rmsprop-bc", [0.3], lr=0.01)[0], 0.01)
    noisy = [0.3, -1.0, 2.0, 0.1]
    assert moves("rmsprop-bc", noisy, lr=0.01, beta=0.99) == moves("adam", noisy, lr=0.01, betas=(0.0, 0.99))


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
    amsgrad_variants_differ_as_described()
    adam_goes_to_the_worst_point_and_amsgrad_to_the_best()


def adam_goes_to_the_worst_point_and_amsgrad_to_the_best() -> None:
    """Reddi et al. 2018, theorem 1: C x once in three steps, -x otherwise, on [-1, 1]; the best point is -1."""
    c, ends = 4.0, {}
    for name, variant in (("adam", {}), ("amsgrad", {"variant": "paper"}), ("amsgrad-lean", {})):
        w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = slalom.create(name, [w], betas=(0.0, 1 / (1 + c * c)), eps=1e-12, **variant)
        for t in range(1, 3001):
            optimizer.param_groups[0]["lr"] = 0.5 / math.sqrt(t)
            w.grad = torch.tensor([c if t % 3 == 1 else -1.0], dtype=torch.float64)
            optimizer.step()
            w.data.clamp_(-1.0, 1.0)
        ends[name] = w.item()
    assert ends["adam"] > 0.9
    assert ends["amsgrad"] < -0.9
    assert ends["amsgrad-lean"] < -0.9


def amsgrad_variants_differ_as_described() -> None:
    def last(variant: str, gradients: list[float], beta: float = 0.99) -> float:
        return moves("amsgrad", gradients, lr=1.0, betas=(0.0, beta), eps=0.0, variant=variant)[-1]

    # a first gradient of 10, then 1: corrected first, it is remembered as 10 for ever; corrected after, it fades
    early = [10.0] + [1.0] * 3000
    assert close(last("pre", early), 0.1)
    assert close(last("torch", early), 1.0, 1e-2)
    # nothing is corrected: the first step is 1 / sqrt(1 - beta) long
    assert close(last("paper", [3.0]), 10.0)
    # without a second buffer the metric never falls, and creeps to the largest square
    rare = ([1.0] + [0.0] * 20) * 400 + [1.0]
    assert last("memoryless", rare) < 1.05 < 2.0 < last("torch", rare)
    assert close(last("memoryless-corrected", [3.0]), 1.0)
    # a maximum over two steps forgets: after the spike it is Adam's again
    assert close(last("two-step", [100.0] + [1.0] * 3000), 1.0, 1e-2)


def adamax_tames_a_spike_at_once() -> None:
    gradients = [1.0] * 2000 + [100.0]
    assert moves("adamax", gradients, lr=1.0)[-1] < 0.12
    assert moves("adam", gradients, lr=1.0)[-1] > 2.0


def nadam_leans_on_the_newest_gradient() -> None:
    # without the schedule of momenta it is optax's nadamw: beta m / (1 - beta^(t+1)) + (1 - beta) g / (1 - beta^t)
    steps = moves("nadam", [2.0, -1.0], lr=1.0, betas=(0.9, 0.0), eps=0.0, momentum_decay=math.inf)
    assert close(steps[0], 0.09 / 0.19 + 1.0)
    assert close(steps[1], 0.9 * (0.9 * 0.2 - 0.1) / (1 - 0.9**3) - 0.1 / (1 - 0.9**2))
    gradients = [1.0] * 200 + [100.0]
    assert moves("nadam", gradients, lr=1.0)[-1] > 2 * moves("adam", gradients, lr=1.0)[-1]


def radam_starts_without_adapting() -> None:
    # rho_5 is 4.99: the paper adapts at the fifth step, torch at the sixth
    paper, torch_ = (moves("radam", [7.0] * 6, lr=0.01, variant=variant) for variant in ("paper", "torch"))
    assert all(close(move, 0.07) for move in [*paper[:4], *torch_[:5]])
    assert paper[4] < 0.01
    assert torch_[5] < 0.01
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
            same_as_torch("SGD", lr=0.05),
            same_as_torch("SGD", lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1),
            same_as_torch("SGD", lr=1e-4, momentum=0.9, nesterov=True, maximize=True),
        ),
        property=nesterov_first_step_is_one_plus_mu,
    ),
    "signsgd": Case(
        golden=(Golden({"lr": 0.1}, (0.1, 0.1, 0.6, 0.2, 0.7, 0.7)),),
        oracles=(Oracle(from_pytorch_optimizer("SignSGD", lr=0.01, momentum=0.0), {"lr": 0.01}),),
        property=every_step_has_the_same_length,
    ),
    "signum": Case(
        golden=(Golden({"lr": 0.1, "beta": 0.9}, (0.1, 0.1, 0.4, 0.6, 0.9, 0.7)),),
        oracles=(Oracle(from_pytorch_optimizer("SignSGD", lr=0.01, momentum=0.9), {"lr": 0.01}),),
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
            same_as_torch("Adagrad", lr=0.05),
            same_as_torch("Adagrad", lr=0.05, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.3),
        ),
        property=adagrad_follows_one_over_root_t,
    ),
    "rmsprop": Case(
        oracles=(
            same_as_torch("RMSprop", lr=1e-3),
            same_as_torch("RMSprop", lr=1e-3, momentum=0.9, weight_decay=0.1),
            same_as_torch("RMSprop", lr=1e-3, centered=True),
        ),
        property=rmsprop_first_step_is_ten_rates,
    ),
    "rmsprop-tf": Case(property=as_in_tensorflow_v_begins_at_1_and_momentum_holds_steps),
    "rmsprop-bc": Case(
        oracles=(Oracle(from_torch("Adam", betas=(0.0, 0.95), lr=1e-3), {"beta": 0.95, "lr": 1e-3}),),
        property=bias_correction_makes_the_first_step_one_rate,
    ),
    "ftrl-adam": Case(
        oracles=(Oracle(from_torch("Adam", lr=1e-3), {"lr": 1e-3}),), property=lazy_equals_greedy_and_finds_zeros
    ),
    "adam": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.0644160761, 0.1645166498, 0.4437468090, 0.4559903261, 0.8704567026, 0.6912841230),
            ),
        ),
        oracles=(
            same_as_torch("Adam", lr=1e-2),
            same_as_torch("Adam", lr=1e-2, weight_decay=0.1, amsgrad=True, maximize=True),
        ),
        property=adam_first_step_is_one_rate_whatever_the_gradient,
    ),
    "adamw": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.1},
                (0.0637909675, 0.1629043833, 0.4354105094, 0.4484663945, 0.8485633120, 0.6731976033),
            ),
        ),
        oracles=(
            same_as_torch("AdamW", lr=1e-2),
            same_as_torch("AdamW", lr=1e-2, weight_decay=0.3, amsgrad=True, betas=(0.8, 0.9)),
        ),
        property=decoupled_decay_shrinks_all_alike,
    ),
    "amsgrad": Case(
        golden=(
            Golden(
                {"lr": 0.1, "betas": (0.9, 0.5)},
                (0.0742119044, 0.1445219806, 0.4682834833, 0.4578901416, 0.8911137548, 0.7028722605),
            ),
            Golden(
                {"lr": 0.1, "betas": (0.9, 0.5), "variant": "pre"},
                (0.0984252615, 0.1375236054, 0.4762380690, 0.4535940940, 0.8902376076, 0.6841393937),
            ),
        ),
        oracles=(Oracle(from_torch("Adam", lr=1e-2, amsgrad=True), {"lr": 1e-2}),),
        property=amsgrad_never_recovers_from_a_spike,
    ),
    "adamax": Case(
        golden=(
            Golden({"lr": 0.1}, (0.0990395072, 0.1124361769, 0.4749259148, 0.4425167471, 0.8841211484, 0.6841655116)),
        ),
        oracles=(same_as_torch("Adamax", lr=1e-2, weight_decay=0.1),),
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
            same_as_torch("NAdam", 1e-8, lr=1e-2, weight_decay=0.1),
            same_as_torch("NAdam", 1e-8, lr=1e-2, weight_decay=0.1, decoupled_weight_decay=True),
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
        oracles=(
            same_as_torch("RAdam", lr=1e-2, weight_decay=0.1),
            same_as_torch("RAdam", lr=1e-2, betas=(0.9, 0.9)),
            Oracle(
                from_pytorch_optimizer("RAdam", lr=1e-2, betas=(0.9, 0.9)),
                {"lr": 1e-2, "betas": (0.9, 0.9), "degenerated_to_sgd": False},
            ),
        ),
        property=radam_starts_without_adapting,
    ),
    "adabelief": Case(
        golden=(
            Golden({"lr": 0.1}, (0.0438851434, 0.2019148967, 0.4500570886, 0.5069825719, 0.8986619310, 0.7365463866)),
        ),
        oracles=(
            Oracle(from_pytorch_optimizer("AdaBelief", lr=1e-2, rectify=False), {"lr": 1e-2, "eps": 1e-16}),
            Oracle(
                from_pytorch_optimizer("AdaBelief", lr=1e-2, betas=(0.9, 0.9), rectify=True),
                {"lr": 1e-2, "betas": (0.9, 0.9), "rectify": True},
            ),
            Oracle(from_pytorch_optimizer("AdaBelief", lr=1e-2, ams_bound=True), {"lr": 1e-2, "amsgrad": True}),
        ),
        property=adabelief_speeds_up_on_a_constant_gradient,
    ),
    "laprop": Case(
        # the other side adds its eps before the bias correction, and decays after the step
        oracles=(
            Oracle(
                from_pytorch_optimizer("LaProp", lr=1e-2, betas=(0.9, 0.99)), {"lr": 1e-2, "betas": (0.9, 0.99)}, 1e-7
            ),
        ),
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
            Oracle(
                from_pytorch_optimizer("Adan", lr=1e-2, weight_decay=0.1, weight_decouple=False),
                {"lr": 1e-2, "weight_decay": 0.1},
            ),
            Oracle(
                from_pytorch_optimizer("Adan", lr=1e-2, weight_decay=0.1, weight_decouple=True),
                {"lr": 1e-2, "weight_decay": 0.1, "no_prox": True},
            ),
        ),
        property=adan_decays_by_division,
    ),
}
