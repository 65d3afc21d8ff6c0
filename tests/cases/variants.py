"""Adam, Lion or SGD with one thing changed."""

from __future__ import annotations

import math

import torch

import slalom
from cases.tools import Case, Golden, Oracle, close, from_pytorch_optimizer, moves


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
    # SAMSGrad: the softplus of a maximum, which a spike raises for good
    spiked = {"lr": 1.0, "betas": (0.0, 0.5)}
    assert moves("sadam", [100.0] + [1.0] * 60, amsgrad=True, **spiked)[-1] < 0.05
    assert moves("sadam", [100.0] + [1.0] * 60, **spiked)[-1] > 0.9


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


CASES: dict[str, Case] = {
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
        # the other side adds 1e-15 under the root as well
        oracles=(Oracle(from_pytorch_optimizer("DiffGrad", lr=1e-3), {"lr": 1e-3}, 1e-6),),
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
        # the other side adds its eps before the bias correction
        oracles=(
            Oracle(
                from_pytorch_optimizer("AdaNorm", lr=1e-3, betas=(0.9, 0.99), eps=1e-15),
                {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-15},
                1e-6,
            ),
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
        oracles=(Oracle(from_pytorch_optimizer("AdEMAMix", lr=1e-2, t_alpha_beta3=10), {"lr": 1e-2, "warmup": 10}),),
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
            Golden(
                {"lr": 0.1, "weight_decay": 0.0, "normalize": "mean"},
                (0.0857782337, 0.2379214893, 0.5594564804, 0.4241891435, 0.9246698282, 0.7013546770),
            ),
            Golden(
                {"lr": 0.1, "weight_decay": 0.0, "normalize": "none"},
                (0.0953371824, 0.1469177818, 0.5179312827, 0.4061068133, 0.8654273314, 0.6966279642),
            ),
        ),
        property=cautious_stands_still_where_the_gradient_vanished,
    ),
    "c-lion": Case(
        oracles=(Oracle(from_pytorch_optimizer("Lion", lr=1e-3, betas=(0.9, 0.99), cautious=True), {"lr": 1e-3}),),
        property=cautious_lion_waits_where_lion_goes_on,
    ),
    "grams": Case(
        oracles=(
            Oracle(
                from_pytorch_optimizer("Grams", lr=1e-2, eps=1e-8, weight_decay=0.1), {"lr": 1e-2, "weight_decay": 0.1}
            ),
        ),
        property=grams_always_descends,
    ),
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
        oracles=(Oracle(from_pytorch_optimizer("PNM", lr=1e-2, betas=(0.9, 1.0)), {"lr": 1e-2}),),
        property=pnm_amplifies_what_alternates,
    ),
    "lars": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.01},
                (0.2998379914, -0.0998952952, 0.5999006017, 0.2002280657, 0.9001188266, 0.5002455442),
            ),
        ),
        oracles=(
            Oracle(
                from_pytorch_optimizer("LARS", lr=1.0, weight_decay=0.01, momentum=0.9),
                {"lr": 1.0, "weight_decay": 0.01},
            ),
        ),
        property=lars_ignores_the_size_of_gradients,
    ),
}
