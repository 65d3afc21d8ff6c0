"""Methods whose one idea is what they remember."""

from __future__ import annotations

import torch
from torch import Tensor

import slalom
from cases.tools import Case, Golden, Oracle, close, from_pytorch_optimizer, moves


def nsgda_steps_are_one_rate_long() -> None:
    nsgda_together_moves_the_network_by_one_rate()
    noisy = [0.3, -1.0, 2.0, 1e-4]
    ends = []
    for scale in (1.0, 1e6):
        w = torch.nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
        optimizer = slalom.NSGDA([w], lr=0.1, eps=0.0)
        for value in noisy:
            before = w.detach().clone()
            w.grad = scale * value * torch.arange(1.0, 7.0, dtype=torch.float64).reshape(3, 2)
            optimizer.step()
            assert close((w.detach() - before).norm().item(), 0.1, 1e-12)
        ends.append(w.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-12)


def nsgda_together_moves_the_network_by_one_rate() -> None:
    pair = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in ((2, 3), (4,))]
    optimizer = slalom.NSGDA(pair, lr=0.1, together=True)
    for p in pair:
        p.grad = torch.ones_like(p)
    optimizer.step()
    moved = torch.cat([p.detach().flatten() for p in pair])
    torch.testing.assert_close(moved, torch.full((10,), -0.1 / 10**0.5, dtype=torch.float64), rtol=1e-7, atol=0)


def nigt_averages_gradients_that_are_not_stale() -> None:
    # on a parabola an average of gradients taken ahead is the average of gradients here: 0.5 g_1 + 0.5 g(x_2) = g(x_2)
    w = torch.nn.Parameter(torch.tensor([4.0, 3.0], dtype=torch.float64))
    optimizer = slalom.NIGT([w], lr=0.1, beta=0.5, eps=0.0)
    x, curvature = w.detach().clone(), torch.tensor([1.0, 3.0], dtype=torch.float64)
    for _ in range(4):
        w.grad = curvature * w.detach()
        optimizer.step()
        step = -0.1 * curvature * x / (curvature * x).norm()
        x = x + step
        torch.testing.assert_close(w.detach(), x + step, rtol=1e-12, atol=0)
        with optimizer.averaged():
            torch.testing.assert_close(w.detach(), x, rtol=1e-12, atol=0)


class TransportedSGD(torch.optim.Optimizer):
    """NIGT as its paper writes it, with the iterates x apart from the points where gradients are taken."""

    def __init__(self, params: object, lr: float, beta: float) -> None:
        super().__init__(params, {"lr": lr, "beta": beta})  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                kept = self.state[w]
                m = kept["m"] = torch.lerp(w.grad, kept.get("m", w.grad), group["beta"])
                old = kept.get("x", w.clone())
                kept["x"] = old - group["lr"] * m / m.norm()
                w.copy_(kept["x"] + group["beta"] / (1 - group["beta"]) * (kept["x"] - old))


def aggmo_gains_the_mean_of_the_geometric_sums() -> None:
    steady = moves("aggmo", [1.0] * 3000, lr=1.0)[-1]
    assert close(steady, (1 + 10 + 100) / 3)


def adaptive_memory_forgets_what_alternates() -> None:
    alternating = [1.0, -1.0] * 50
    # memory of an opposite gradient is given up at once: beta = |g|^2 / |d - g|^2 = 1/4
    assert close(abs(moves("am-msgd", alternating, lr=1.0, lam=0.0)[1]), 0.5)
    assert abs(moves("am-msgd", alternating, lr=1.0)[-1]) < 0.048 < abs(moves("adamw", alternating, lr=1.0)[-1])
    assert all(close(move, 1.0) for move in moves("am-msgd", [1.0] * 10, lr=1.0))


class AdaptiveMemoryAdamW(torch.optim.Optimizer):
    """AM-AdamW tensor by tensor, as the sheet of formulas has it: written for these tests, with nothing of slalom's."""

    def __init__(self, params: object, lr: float, lam: float, decay: float, most: float = 0.89) -> None:
        super().__init__(params, {"lr": lr, "lam": lam, "mu": decay, "most": most})  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr, lam, mu, most = group["lr"], group["lam"], group["mu"], group["most"]
            for w in group["params"]:
                g: Tensor = w.grad
                kept = self.state[w]
                if not kept:
                    kept.update(t=0, v=torch.zeros_like(g), d=torch.zeros_like(g), product=1.0)
                kept["t"] += 1
                kept["v"] = 0.999 * kept["v"] + 0.001 * g.square()
                d = kept["d"]
                metric = (kept["v"] / (1 - 0.999 ** kept["t"])).sqrt() + 1e-8
                p = (1 - most * kept["product"]) * metric
                q = 1 + lam * p
                weight = 1 / (p * q)
                beta = most
                if kept["t"] > 1:
                    gap = lr * (g * (d / p + mu * w)).sum()
                    top = (
                        (1 + mu * lr) * gap / lr
                        - ((d - g) * (g + lam * p * d) * weight).sum()
                        - mu * (w * (d - g)).sum()
                    )
                    beta = float((top / ((d - g).square() * weight).sum()).clamp(0, most))
                kept["d"] = ((1 - beta) * g + (lam * p + beta) * d) / q
                kept["product"] *= beta
                w.mul_(1 - lr * mu).sub_(lr * kept["d"] / p)


def am_adamw_starts_as_adamw() -> None:
    settings = {"lr": 0.01, "weight_decay": 0.1}
    assert close(moves("am-adamw", [0.3], lam=0.0, **settings)[0], moves("adamw", [0.3], **settings)[0], 1e-12)
    # where the gradient turns, memory is dropped: AdamW, which keeps it, goes on uphill
    turning = [1.0] * 20 + [-3.0]
    assert moves("am-adamw", turning, lr=0.01)[-1] < 0.0 < moves("adamw", turning, lr=0.01)[-1]


def adapnm_ripples_with_period_two() -> None:
    first, second, *rest = moves("adapnm", [0.3] * 400, lr=0.01)
    assert close(first, 0.01 * 2 * 0.19 / 5**0.5 / 0.1)
    assert second < 0.3 * first
    assert close(rest[-1], 0.01 / 5**0.5, 1e-3)
    assert abs(moves("adapnm", [1.0, -1.0] * 200, lr=0.01)[-1]) > 0.013


def diffgradnorm_is_adanorm_at_half_speed_where_nothing_changes() -> None:
    slow, fast = moves("diffgradnorm", [0.3] * 20, lr=0.01), moves("adanorm", [0.3] * 20, lr=0.01)
    assert all(close(a, b / 2) for a, b in zip(slow[1:], fast[1:], strict=True))
    shrinking = [1.0] * 100 + [0.1] * 3
    assert moves("diffgradnorm", shrinking, lr=0.01)[-1] > 1.05 * moves("diffgrad", shrinking, lr=0.01)[-1]


def adagl_without_memory_is_adam_times_its_friction() -> None:
    noisy = [0.3, -1.0, 2.0, 0.1, -0.4]
    adam = moves("adam", noisy, lr=0.01)
    changes = [abs(b - a) for a, b in zip([0.0, *noisy], noisy, strict=False)]
    expected = [move * (1.1 - 0.5 / (1 + change)) for move, change in zip(adam, changes, strict=True)]
    ours = moves("adagl", noisy, lr=0.01, alpha=0.0)
    assert all(close(a, b, 1e-9) for a, b in zip(ours, expected, strict=True))
    assert close(moves("adagl", [1.0] * 40, lr=0.01, alpha=0.0)[-1], 0.006)


def mars_lion_turns_before_lion() -> None:
    # the correction sees the change of the gradient, so the sign turns while the average alone has not
    falling = [0.01] * 30 + [-0.1]
    assert moves("mars-lion", falling, lr=0.01)[-1] < 0.0 < moves("signum", falling, lr=0.01, beta=0.95)[-1]


def lion_k_bounds_each_tensor_by_the_inverse_of_decay() -> None:
    w = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))
    optimizer = slalom.LionK([w], lr=0.01, weight_decay=0.5)
    for _ in range(2000):
        w.grad = -torch.arange(1.0, 7.0, dtype=torch.float64).reshape(3, 2)
        optimizer.step()
    assert close(w.detach().norm().item(), 2.0, 1e-3)
    noisy = [0.3, -1.0, 2.0, 0.1]
    assert moves("lion-k", noisy, lr=0.01, weight_decay=0.1, k="l1") == moves("lion", noisy, lr=0.01, weight_decay=0.1)
    assert close(moves("lion-k", [2.0], lr=0.01, k="square")[0], 0.01 * 0.1 * 2.0)


CASES: dict[str, Case] = {
    "nsgda": Case(
        golden=(
            Golden(
                {"lr": 0.1, "weight_decay": 0.01},
                (0.2040225563, -0.0569069983, 0.5140216901, 0.3154767268, 0.9139028741, 0.6483252275),
            ),
        ),
        property=nsgda_steps_are_one_rate_long,
    ),
    "nigt": Case(
        oracles=(
            Oracle(lambda params: TransportedSGD(params, 1e-3, 0.8), {"lr": 1e-3, "beta": 0.8, "eps": 0.0}, 1e-11),
        ),
        property=nigt_averages_gradients_that_are_not_stale,
    ),
    "aggmo": Case(
        oracles=(
            Oracle(from_pytorch_optimizer("AggMo", lr=1e-3, betas=(0.0, 0.9, 0.99)), {"lr": 1e-3}),
            Oracle(
                from_pytorch_optimizer("AggMo", lr=1e-3, betas=(0.5, 0.9, 0.95), weight_decay=0.1),
                {"lr": 1e-3, "betas": (0.5, 0.9, 0.95), "weight_decay": 0.1},
            ),
        ),
        property=aggmo_gains_the_mean_of_the_geometric_sums,
    ),
    "am-msgd": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1733833907, -0.0606944334, 0.4664538211, 0.3434333022, 0.8808552144, 0.7154577650)),
        ),
        property=adaptive_memory_forgets_what_alternates,
    ),
    "am-adamw": Case(
        oracles=(
            Oracle(
                lambda params: AdaptiveMemoryAdamW(params, lr=1e-2, lam=0.1, decay=0.05),
                {"lr": 1e-2, "weight_decay": 0.05},
                1e-11,
            ),
        ),
        property=am_adamw_starts_as_adamw,
    ),
    "adapnm": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1190159690, 0.1825235996, 0.5015599106, 0.4290968171, 0.8595388190, 0.6644535928)),
        ),
        # The other side adds 1e-15 under the root and its eps before the bias correction: a thousandth of the first
        # step of a coordinate whose gradient is 1e-5.
        oracles=(
            Oracle(
                from_pytorch_optimizer("AdaPNM", lr=1e-3, weight_decay=0.1), {"lr": 1e-3, "weight_decay": 0.1}, 2e-6
            ),
            Oracle(from_pytorch_optimizer("AdaPNM", lr=1e-3, ams_bound=False), {"lr": 1e-3, "amsgrad": False}, 2e-6),
        ),
        property=adapnm_ripples_with_period_two,
    ),
    "diffgradnorm": Case(
        oracles=(  # see adapnm for the tolerance
            Oracle(from_pytorch_optimizer("DiffGrad", lr=1e-3, adanorm=True, adanorm_r=0.95), {"lr": 1e-3}, 1e-6),
        ),
        property=diffgradnorm_is_adanorm_at_half_speed_where_nothing_changes,
    ),
    "adagl": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1798988700, 0.0363199141, 0.5238647097, 0.3394005143, 0.8604286817, 0.6262875701)),
        ),
        property=adagl_without_memory_is_adam_times_its_friction,
    ),
    "mars-lion": Case(
        oracles=(
            Oracle(
                from_pytorch_optimizer("MARS", lr=1e-4, betas=(0.95, 0.99), mars_type="lion", optimize_1d=True),
                {"lr": 1e-4},
            ),
        ),
        property=mars_lion_turns_before_lion,
    ),
    "lion-k": Case(property=lion_k_bounds_each_tensor_by_the_inverse_of_decay),
}
