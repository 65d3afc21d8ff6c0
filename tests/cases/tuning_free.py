"""Methods that find the length of their steps themselves. Golden vectors without a package in the environment come from
the authors' own: dog-optimizer 1.0.3, dadaptation 3.2, momo-opt 0.1.0, mechanic-pytorch 0.0.1 (which keeps its scalars
in float32)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import prodigyopt
import torch

import slalom
from cases.tools import Case, Golden, Oracle, close, from_pytorch_optimizer, gradient, moves, start

LOSSES = (2.0, 1.5, 1.2, 1.6, 0.9, 0.7)


def ignores_the_size_of_the_loss(name: str, **settings: float) -> Callable[[], None]:
    def check() -> None:
        def end(size: float) -> float:
            w = torch.nn.Parameter(torch.tensor([5.0, -3.0], dtype=torch.float64))
            optimizer = slalom.create(name, [w], **settings)
            for _ in range(60):
                w.grad = size * torch.tensor([2.0, 6.0], dtype=torch.float64) * w.detach()
                optimizer.step()
            return w.detach()[0].item()

        assert close(end(1.0), end(1e4), 1e-6)
        assert abs(end(1.0)) < 4.0  # and it did move, from a first guess of 1e-6

    return check


def parabola(optimizer: slalom.Optimizer, w: torch.nn.Parameter, curvature: float, steps: int) -> list[float]:
    """Minimise a parabola by closures; return where it was after each step."""

    def closure() -> torch.Tensor:
        w.grad = curvature * w.detach()
        return 0.5 * curvature * w.detach() ** 2

    path = []
    for _ in range(steps):
        optimizer.step(closure)
        path.append(w.item())
    return path


def one(value: float = 1.0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))


def dog_first_moves_by_its_guess() -> None:
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    v = torch.nn.Parameter(torch.tensor([0.0, 12.0], dtype=torch.float64))
    optimizer = slalom.DoG([w, v], reps_rel=1e-3, eps=1e-30)
    w.grad, v.grad = torch.randn(2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    before = torch.cat([w, v]).detach().clone()
    optimizer.step()
    assert close((torch.cat([w, v]).detach() - before).norm().item(), 1e-3 * (1 + 13.0), 1e-9)


def ldog_finds_a_rate_for_each_tensor() -> None:
    params = [torch.nn.Parameter(torch.full((4,), size, dtype=torch.float64)) for size in (0.5, 50.0)]
    optimizer = slalom.LDoG(params, reps_rel=1e-3, eps=1e-30)
    for p, size in zip(params, (1e3, 1e-3), strict=True):
        p.grad = torch.full((4,), size, dtype=torch.float64)
    before = [p.detach().clone() for p in params]
    optimizer.step()
    for p, old in zip(params, before, strict=True):
        assert close((p.detach() - old).norm().item(), 1e-3 * (1 + old.norm().item()), 1e-9)


def dowg_is_dog_until_it_has_moved() -> None:
    ends = []
    for recipe in (slalom.parts.DoG(reps_rel=1e-2, eps=1e-300), slalom.parts.DoWG(reps_rel=1e-2)):
        w = one(0.0)
        optimizer = slalom.Recipe(step=recipe).build([w])
        path = []
        for t in range(20):
            w.grad = torch.tensor([(-1.0) ** t if t < 4 else -1.0], dtype=torch.float64)
            optimizer.step()
            path.append(w.item())
        ends.append(path)
    dog, dowg = ends
    for a, b in zip(dog[:4], dowg[:4], strict=True):  # back and forth, never farther than the guess
        assert close(a, b, 1e-9)
    assert dowg[-1] - dowg[-2] > 1.05 * (dog[-1] - dog[-2])


def mechanic_scales_sgd_as_the_sheet_says() -> None:
    w = start()
    form = slalom.parts.Mechanic(s_init=1e-2)
    optimizer = slalom.Recipe(step=0.1, form=form).build([w])
    before = w.detach().clone()
    for t in range(1, 7):
        w.grad = gradient(t)
        optimizer.step()
        if t == 1:  # nothing is known yet: s_i = s_init b_i 1e-6 / (6 eps)
            scale = sum(1 - 10.0**-i for i in range(1, 7)) * 1e-2 * 1e-6 / 6 / 1e-8
            torch.testing.assert_close(w.detach(), before - scale * 0.1 * gradient(1), rtol=1e-9, atol=0)
    expected = (0.2992212323, -0.0999017259, 0.5989832580, 0.2007519326, 0.8994838095, 0.5013810013)
    torch.testing.assert_close(w.detach().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


def polyak_solves_a_parabola_in_one_step() -> None:
    w = one(5.0)
    path = parabola(slalom.SPS([w], lr=100.0, eps=0.0), w, 0.25, 1)
    assert abs(path[0]) < 1e-12
    w = one(5.0)  # the floor: half of the loss is not to be had, so half the step
    path = parabola(slalom.SPS([w], lr=100.0, eps=0.0, floor=0.5 * 0.5 * 0.25 * 25.0), w, 0.25, 1)
    assert close(path[0], 2.5, 1e-12)
    w = one(5.0)  # rates 4 are too fast a growth after one of 0.1
    optimizer = slalom.SPS([w], lr=0.1, eps=0.0, growth=2.0)
    parabola(optimizer, w, 0.25, 1)
    optimizer.param_groups[0]["lr"] = 100.0
    before = w.item()
    path = parabola(optimizer, w, 0.25, 2)
    assert close(path[0], before * (1 - 0.2 * 0.25), 1e-12)
    assert close(path[1], path[0] * (1 - 0.4 * 0.25), 1e-12)


def alig_halves_the_way_and_keeps_to_its_bound() -> None:
    w = one(8.0)
    assert parabola(slalom.ALIG([w], lr=100.0, momentum=0.0, eps=0.0), w, 0.25, 3) == [4.0, 2.0, 1.0]
    w = one(8.0)
    assert close(parabola(slalom.ALIG([w], lr=0.4, momentum=0.0), w, 0.25, 1)[0], 8.0 * 0.9, 1e-12)


def momo_without_memory_is_polyak() -> None:
    ends = []
    for name, settings in (("momo", {"beta": 0.0, "floor": 0.1}), ("sps", {"c": 1.0, "eps": 0.0, "floor": 0.1})):
        w = start()
        optimizer = slalom.create(name, [w], **settings)
        for t, loss in enumerate(LOSSES, 1):
            w.grad = gradient(t)
            optimizer.step(lambda loss=loss: loss)
        ends.append(w.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)


def momo_adam_bears_a_rate_that_is_a_thousand_times_too_large() -> None:
    w = one(5.0)
    path = parabola(slalom.MoMoAdam([w], lr=1e3), w, 2.0, 200)
    assert max(map(abs, path)) < 5.0
    assert abs(path[-1]) < 1e-2
    v = one(5.0)
    assert max(map(abs, parabola(slalom.Adam([v], lr=1e3), v, 2.0, 200))) > 500.0


def the_learned_floor_comes_close_to_the_loss_that_is_left() -> None:
    w = one(3.0)
    optimizer = slalom.MoMo([w], floor=-100.0, estimate=True, beta=0.5)

    def closure() -> torch.Tensor:
        w.grad = w.detach().clone()
        return 0.5 * w.detach() ** 2 + 7.0

    for _ in range(200):
        optimizer.step(closure)
    assert close(optimizer.state[w]["momo.bound"].item(), 7.0, 1e-2)
    assert abs(w.item()) < 0.1


def momo_properties() -> None:
    momo_without_memory_is_polyak()
    the_learned_floor_comes_close_to_the_loss_that_is_left()


def adalo_follows_an_average_of_the_loss() -> None:
    w = one(0.0)
    optimizer = slalom.AdaLo([w], betas=(0.0, 0.9), kappa=2.0, weight_decay=0.0, form="paper")
    average, position = 0.0, 0.0
    for loss in LOSSES:
        w.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step(lambda loss=loss: loss)
        average = 0.9 * average + 0.1 * loss / 2.0
        position -= average
        assert close(w.item(), position, 1e-12)


def schedule_free_plus_needs_no_rate_and_no_decay_of_it() -> None:
    # the first step of a normalised update is the loss over the size of the gradient, whatever the loss's unit
    for unit in (1.0, 1e3):
        w = start()
        optimizer = slalom.ScheduleFreePlus([w], eps=1e-30)
        before = w.detach().clone()
        w.grad = unit * gradient(1)
        optimizer.step(lambda unit=unit: 2.0 * unit)
        rate = 2.0 / (math.sqrt(math.pi / 2) * gradient(1).abs().sum().item())
        torch.testing.assert_close(w.detach(), before - rate * gradient(1).sign(), rtol=1e-12, atol=0)
    # on a parabola the rate, 2 at first, falls with the loss
    w = one(5.0)
    optimizer = slalom.ScheduleFreePlus([w], betas=(0.0, 0.95))
    parabola(optimizer, w, 0.25, 300)
    with optimizer.averaged():
        assert abs(w.item()) < 0.3
    # z is where the loss is looked at: with the gradient against the way to z nothing is left to gain, so z stays
    w = one(0.0)
    optimizer = slalom.ScheduleFreePlus([w])
    for value in (1.0, 1.0, 1e3):
        before = optimizer.state[w]["schedule_free.z"].item() if optimizer.state else 0.0
        w.grad = torch.tensor([value], dtype=torch.float64)
        optimizer.step(lambda: 1.0)
    assert optimizer.state[w]["schedule_free.z"].item() == before


def alig_of(**settings: float) -> Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]:
    return from_pytorch_optimizer("AliG", **settings)


def adamg_steps_grow_with_a_power_of_the_gradient() -> None:
    small, large = (moves("adamg", [size] * 40, eps=0.0)[-1] for size in (1e-3, 1e-1))
    assert close(large / small, 100 ** (2 * 0.24), 1e-9)
    late = moves("adamg", [1.0] * 4000, betas=(0.0, 0.0, 0.0))
    assert close(late[-1], 0.2 / 4000**0.5, 1e-6)


CASES: dict[str, Case] = {
    "adamg": Case(
        oracles=(
            Oracle(from_pytorch_optimizer("AdamG"), {}),
            Oracle(
                from_pytorch_optimizer("AdamG", lr=0.1, betas=(0.9, 0.99, 0.8), p=0.4, q=0.3, weight_decay=0.1),
                {"lr": 0.1, "betas": (0.9, 0.99, 0.8), "p": 0.4, "q": 0.3, "weight_decay": 0.1},
            ),
        ),
        property=adamg_steps_grow_with_a_power_of_the_gradient,
    ),
    "adalo": Case(
        golden=(
            Golden(
                {},
                (0.2999121265, -0.0999570664, 0.5999227129, 0.2001027232, 0.9000125315, 0.5001230757),
                losses=LOSSES,
            ),
            Golden(
                {"form": "compliant"},
                (0.1862395104, -0.0351534972, 0.5144183521, 0.3448621811, 0.9474967113, 0.6621251397),
                losses=LOSSES,
            ),
            Golden(
                {"form": "paper", "weight_decay": 0.0},
                (0.2995668665, -0.0997446468, 0.5997077672, 0.2006004246, 0.9002702350, 0.5006900201),
                losses=LOSSES,
            ),
        ),
        property=adalo_follows_an_average_of_the_loss,
    ),
    "alig": Case(
        golden=(
            Golden(
                {"lr": 10.0, "eps": 1e-6},
                (-0.7491224508, 0.4911175357, -0.1451314449, 1.6294608026, 1.4784903304, 2.1819991453),
                1e-6,  # the package's norm is in float32
                losses=LOSSES,
            ),
        ),
        oracles=(
            Oracle(alig_of(max_lr=0.1, momentum=0.9), {"eps": 1e-6}),
            Oracle(alig_of(max_lr=0.01, momentum=0.0), {"lr": 0.01, "momentum": 0.0, "eps": 1e-6}),
        ),
        property=alig_halves_the_way_and_keeps_to_its_bound,
    ),
    "dadapt-adam": Case(
        golden=(
            Golden({"d0": 1e-2}, (0.4731729092, -0.1102999992, 0.7394385594, 0.0601117143, 0.9365757067, 0.3281186150)),
        ),
        oracles=(
            # the other side keeps its sums in float32
            Oracle(from_pytorch_optimizer("DAdaptAdam", d0=1e-3, betas=(0.9, 0.999)), {"d0": 1e-3}, 1e-5),
            Oracle(
                from_pytorch_optimizer(
                    "DAdaptAdam", d0=1e-3, betas=(0.9, 0.999), weight_decay=0.1, weight_decouple=True, growth_rate=1.05
                ),
                {"d0": 1e-3, "weight_decay": 0.1, "decoupled_weight_decay": True, "growth": 1.05},
                1e-5,
            ),
            Oracle(
                from_pytorch_optimizer("DAdaptAdam", d0=1e-3, betas=(0.9, 0.999), bias_correction=True),
                {"d0": 1e-3, "use_bias_correction": True},
                1e-5,
            ),
        ),
        property=ignores_the_size_of_the_loss("dadapt-adam", eps=1e-30),
    ),
    "dadapt-sgd": Case(
        golden=(
            Golden({"d0": 1e-2}, (0.2987870342, -0.0992922603, 0.5991715943, 0.2016747705, 0.9007363326, 0.5019352257)),
        ),
        oracles=(Oracle(from_pytorch_optimizer("DAdaptSGD", d0=1e-3), {"d0": 1e-3}, 1e-5),),
        property=ignores_the_size_of_the_loss("dadapt-sgd"),
    ),
    "dog": Case(
        golden=(
            Golden(
                {"reps_rel": 1e-2},
                (0.2923991258, -0.0980950982, 0.5913641296, 0.2081976157, 0.8975882071, 0.5131108997),
            ),
        ),
        property=dog_first_moves_by_its_guess,
    ),
    "dowg": Case(
        golden=(
            Golden(
                {"reps_rel": 1e-2},
                (0.2931699254, -0.0983159800, 0.5922021630, 0.2073411452, 0.8977558435, 0.5117921090),
            ),
        ),
        property=dowg_is_dog_until_it_has_moved,
    ),
    "ldog": Case(
        golden=(
            Golden(
                {"reps_rel": 1e-2},
                (0.2923991258, -0.0980950982, 0.5913641296, 0.2081976157, 0.8975882071, 0.5131108997),
            ),
        ),
        property=ldog_finds_a_rate_for_each_tensor,
    ),
    "mechanic": Case(
        golden=(
            Golden(
                {"lr": 0.1, "s_init": 1e-2},
                (0.2973581768, -0.0968936481, 0.5984298924, 0.2031412705, 0.9000000062, 0.5024471474),
                1e-7,
            ),
        ),
        property=mechanic_scales_sgd_as_the_sheet_says,
    ),
    "momo": Case(
        golden=(
            Golden(
                {},
                (-0.0808492499, -0.0765601532, 0.0692499146, 0.5453725425, 0.5791916832, 1.1849423986),
                losses=LOSSES,
            ),
            Golden(
                {"floor": 0.5},
                (0.0350900776, -0.0837689069, 0.2307229674, 0.4401667570, 0.6766501025, 0.9764585190),
                losses=LOSSES,
            ),
            Golden(
                {"floor": 0.5, "estimate": True},
                (0.0363856972, -0.0859397082, 0.2296814531, 0.4370933013, 0.6719346125, 0.9749417381),
                losses=LOSSES,
            ),
        ),
        property=momo_properties,
    ),
    "momo-adam": Case(
        golden=(
            # the package keeps <g, w> in float32
            Golden(
                {"lr": 1.0},
                (-0.4125042548, 0.7733888023, 0.1883680955, 1.0587498720, 0.8993385033, 1.1569368165),
                1e-6,
                losses=LOSSES,
            ),
            Golden(
                {"lr": 1.0, "floor": 0.5, "estimate": True},
                (-0.1767671259, 0.4222751784, 0.2664814389, 0.7357196724, 0.7934182926, 0.9524709717),
                1e-6,
                losses=LOSSES,
            ),
        ),
        property=momo_adam_bears_a_rate_that_is_a_thousand_times_too_large,
    ),
    "prodigy": Case(
        golden=(
            Golden({"d0": 1e-2}, (0.2100795094, 0.0089473594, 0.5527622565, 0.3101897856, 0.9144978682, 0.5820959364)),
        ),
        oracles=tuple(
            Oracle(
                lambda params, theirs=theirs: prodigyopt.Prodigy(params, d0=1e-3, **theirs),  # type: ignore[misc]
                {"d0": 1e-3, **ours},
                1e-9,
            )
            for theirs, ours in (
                ({}, {}),
                ({"growth_rate": 1.05}, {"growth": 1.05}),
                ({"decouple": False, "weight_decay": 0.1},) * 2,
                ({"beta3": 0.9, "weight_decay": 0.1},) * 2,
                ({"use_bias_correction": True, "safeguard_warmup": True},) * 2,
            )
        ),
        property=ignores_the_size_of_the_loss("prodigy", eps=0.0),
    ),
    "schedule-free-plus": Case(
        # from the recurrence of the authors' reference, which no package holds yet, with x, y and z kept apart
        golden=(
            Golden(
                {},
                (-0.1968789011, 0.5003244780, 0.2869022744, 0.7851427832, 0.8434711191, 0.9634028345),
                losses=LOSSES,
            ),
            Golden(
                {"weight_decay": 2.0, "warm": 2, "anneal": 4, "r": 2.0, "norm_beta": 0.5},
                (-0.2133316912, 0.4359845206, 0.1394916159, 0.6028451909, 0.5545698786, 0.6709063669),
                losses=LOSSES,
            ),
        ),
        property=schedule_free_plus_needs_no_rate_and_no_decay_of_it,
    ),
    "sps": Case(property=polyak_solves_a_parabola_in_one_step),
}
