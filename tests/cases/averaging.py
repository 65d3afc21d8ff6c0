"""Methods that hand back another point than the last one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import schedulefree
import torch
from pytorch_optimizer import Lookahead, ScheduleFreeAdamW
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import slalom
from cases.tools import Case, Golden, Oracle, close, moves
from networks import build, network, train


def over_sgd(**settings: Any) -> Any:
    """Lookahead around torch's SGD; what it does to momentum it does under torch's key."""

    def made(params: Iterable[Tensor]) -> torch.optim.Optimizer:
        inner = torch.optim.SGD(params, lr=0.1, momentum=0.9)
        return Lookahead(inner, k=3, **settings)  # type: ignore[return-value]

    return made


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


def schedule_free_sgd_steps_where_momentum_would_be() -> None:
    # the first step reaches y = z, later ones stay (1 - beta) of the way between the average and z
    w = torch.nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
    optimizer = slalom.create("schedule-free-sgd", [w], lr=0.5, beta=0.75)
    for _ in range(4):
        w.grad = torch.tensor([1.0], dtype=torch.float64)
        optimizer.step()
    z = [-0.5, -1.0, -1.5, -2.0]
    assert close(w.item(), 0.25 * z[-1] + 0.75 * sum(z) / 4, 1e-12)


def radam_waits_until_the_variance_can_be_trusted() -> None:
    steps = moves("schedule-free-radam", [1.0] * 8, lr=0.1)
    assert steps[:4] == [0.0] * 4
    assert all(step > 0 for step in steps[5:])


def lookahead_goes_half_way_back() -> None:
    w = torch.nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
    optimizer = slalom.create("lookahead", [w], lr=1.0, momentum=0.0, k=3)
    path = []
    for _ in range(6):
        w.grad = torch.tensor([-1.0], dtype=torch.float64)
        optimizer.step()
        path.append(w.item())
    assert path == [1.0, 2.0, 1.5, 2.5, 3.5, 3.0]


def swa_is_the_mean_of_its_snapshots() -> None:
    w = torch.nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
    optimizer = slalom.create("swa", [w], lr=1.0, momentum=0.0, start=2, every=3)
    seen = []
    for t in range(1, 13):
        w.grad = torch.tensor([float(t)], dtype=torch.float64)
        optimizer.step()
        seen.append(w.item())
        with optimizer.averaged():
            taken = [seen[k - 1] for k in (5, 8, 11) if k <= t]
            assert close(w.item(), sum(taken) / len(taken) if taken else seen[-1], 1e-12)


def lawa_is_the_mean_of_the_latest_snapshots_and_training_does_not_notice() -> None:
    settings: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1}
    w, plain = (torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64)) for _ in range(2))
    optimizer = slalom.create("lawa", [w], k=3, every=2, **settings)
    other = slalom.create("nadamw", [plain], **settings)
    seen = []
    for t in range(1, 14):
        for parameter, one in ((w, optimizer), (plain, other)):
            parameter.grad = torch.tensor([0.3 * t - 1], dtype=torch.float64)
            one.step()
        assert w.item() == plain.item()
        seen.append(w.item())
        with optimizer.averaged():
            queue = seen[1::2][-3:]
            assert close(w.item(), sum(queue) / 3 if len(queue) == 3 else seen[-1], 1e-12)
        assert w.item() == seen[-1]


def weight_ema_is_torchs_but_for_the_start() -> None:
    model = network()
    optimizer = build("adamw-ema", model.parameters(), ema=0.9)
    parts = slalom.parts
    plain = parts.WeightEma(0.9, weights="plain")
    twin = network()
    twin.load_state_dict(model.state_dict())
    recipe = slalom.Recipe(momentum=parts.Ema(0.9), scale=parts.SecondMoment(0.999), average=plain, step=1e-3)
    other = recipe.build(twin.parameters())
    theirs = AveragedModel(twin, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    first = [torch.zeros_like(p) for p in model.parameters()]
    for step in range(20):
        train(model, optimizer, 1, first=step)
        train(twin, other, 1, first=step)
        theirs.update_parameters(twin)
        if step == 0:
            first = [p.detach().clone() for p in model.parameters()]
        with other.averaged():
            for p, q in zip(twin.parameters(), theirs.module.parameters(), strict=True):
                torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
    assert len(first) == len(list(model.parameters()))
    sums = [0.0, 0.0]
    w = torch.nn.Parameter(torch.tensor([5.0], dtype=torch.float64))
    optimizer = slalom.create("adamw-ema", [w], lr=0.1, ema=0.9)
    for t in range(1, 6):
        w.grad = torch.tensor([1.0 if t % 2 else -3.0], dtype=torch.float64)
        optimizer.step()
        sums = [0.9 * sums[0] + 0.1 * w.item(), 0.9 * sums[1] + 0.1]
        with optimizer.averaged():  # as if from zero, divided by 1 - beta^t: no trace of the 5 it began with
            assert close(w.item(), sums[0] / sums[1], 1e-12)


def clipped_adam_never_moves_by_more_than_its_rate() -> None:
    clipped_adam_of_the_whole_gradient_turns_nothing()
    steps = moves("clipped-adam", [1e-3, 1.0, -1e3, 1e3, 1e3, 0.5], lr=0.1, beta=0.9)
    assert max(map(abs, steps)) <= 0.1 * (1 + 1e-12)
    assert close(steps[0], 0.1, 1e-4)
    gradients = [0.7, -1.1, 0.4, 0.9]
    moved = moves("clipped-adam", gradients, lr=0.1, beta=0.8, eps=0.0)
    for t, step in enumerate(moved):
        above = sum(0.8 ** (t - s) * g for s, g in enumerate(gradients[: t + 1]))
        below = sum(0.8 ** (2 * (t - s)) * g * g for s, g in enumerate(gradients[: t + 1])) ** 0.5
        assert close(step, 0.1 * max(-1.0, min(1.0, above / below)), 1e-9)


def clipped_adam_of_the_whole_gradient_turns_nothing() -> None:
    """Written out for two tensors as one vector: |step| never exceeds the rate, and its direction is momentum's."""
    w = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in ((3,), (2, 2))]
    optimizer = slalom.create("clipped-adam", w, lr=0.1, beta=0.8, eps=0.0, per="model")
    b, v, at, clipped = torch.zeros(7, dtype=torch.float64), 0.0, torch.zeros(7, dtype=torch.float64), 0
    for t in range(8):
        g = (10.0 ** (t % 3)) * torch.sin(torch.arange(7, dtype=torch.float64) + (t if t < 4 else 4))
        b, v = 0.8 * b + g, 0.64 * v + float(g.square().sum())
        q = b / v**0.5
        clipped += bool(q.norm() > 1)
        at = at - 0.1 * q / max(1.0, float(q.norm()))
        w[0].grad, w[1].grad = g[:3].clone(), g[3:].reshape(2, 2).clone()
        optimizer.step()
        torch.testing.assert_close(torch.cat([p.detach().flatten() for p in w]), at, rtol=1e-9, atol=1e-12)
    assert 0 < clipped < 8


CASES: dict[str, Case] = {
    "adamw-ema": Case(property=weight_ema_is_torchs_but_for_the_start),
    "clipped-adam": Case(property=clipped_adam_never_moves_by_more_than_its_rate),
    "lawa": Case(property=lawa_is_the_mean_of_the_latest_snapshots_and_training_does_not_notice),
    "lookahead": Case(
        golden=(
            Golden(
                {"lr": 0.1, "momentum": 0.0, "k": 3},
                (0.2439248962, -0.0929237830, 0.5267895719, 0.2541428493, 0.8628317438, 0.5994388858),
            ),
        ),
        oracles=(
            Oracle(over_sgd(), {"lr": 0.1, "k": 3}),
            Oracle(over_sgd(pullback_momentum="reset"), {"lr": 0.1, "k": 3, "inner": "reset"}),
            Oracle(over_sgd(pullback_momentum="pullback", alpha=0.8), {"k": 3, "alpha": 0.8, "inner": "pullback"}),
        ),
        property=lookahead_goes_half_way_back,
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
            Oracle(
                lambda params: schedulefree.AdamWScheduleFreeReference(
                    params, lr=1e-2, weight_decay=0.3, decay_at_z=True
                ),
                {"lr": 1e-2, "weight_decay": 0.3, "decay_at_z": True},
                1e-11,
            ),
            Oracle(
                lambda params: ScheduleFreeAdamW(params, decoupling_c=50),
                {"decoupling": 50.0},
                1e-11,
            ),
        ),
        property=schedule_free_evaluates_the_average,
    ),
    "schedule-free-radam": Case(
        oracles=(
            Oracle(
                lambda params: schedulefree.RAdamScheduleFree(params, lr=1e-2, weight_decay=0.1),
                {"lr": 1e-2, "weight_decay": 0.1},
                1e-11,
            ),
            Oracle(
                lambda params: schedulefree.RAdamScheduleFree(params, lr=1e-2, betas=(0.8, 0.9)),
                {"lr": 1e-2, "betas": (0.8, 0.9)},
                1e-11,
            ),
            Oracle(
                lambda params: schedulefree.RAdamScheduleFree(params, lr=1e-2, silent_sgd_phase=False),
                {"lr": 1e-2, "silent": False},
                1e-11,
            ),
        ),
        property=radam_waits_until_the_variance_can_be_trusted,
    ),
    "schedule-free-sgd": Case(
        oracles=(
            Oracle(lambda params: schedulefree.SGDScheduleFree(params, lr=0.1), {"lr": 0.1}, 1e-11),
            Oracle(
                lambda params: schedulefree.SGDScheduleFree(params, lr=0.1, momentum=0.5, weight_decay=0.1),
                {"lr": 0.1, "beta": 0.5, "weight_decay": 0.1},
                1e-11,
            ),
        ),
        property=schedule_free_sgd_steps_where_momentum_would_be,
    ),
    "swa": Case(property=swa_is_the_mean_of_its_snapshots),
}
