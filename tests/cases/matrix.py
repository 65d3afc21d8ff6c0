"""Methods that see matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import slalom
from cases.tools import Case
from networks import quietly


def step_of(name: str, gradients: list[torch.Tensor], **settings: Any) -> torch.Tensor:
    """The last step (old minus new, over the rate) of a hidden matrix under these gradients."""
    w = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    settings = {"weight_decay": 0.0, "lr": 0.01, **settings}
    if name == "scion":
        settings.pop("weight_decay")
    optimizer = quietly(lambda: slalom.create(name, [{"params": [w], "role": "matrix"}], **settings))
    for gradient in gradients:
        before = w.detach().clone()
        w.grad = gradient
        optimizer.step()
    return (before - w.detach()) / settings["lr"]


def randoms(count: int, *shape: int) -> list[torch.Tensor]:
    """Gradients in double precision."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


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


def muonclip_is_muon_with_a_sum_for_an_average() -> None:
    gradients = randoms(4, 6, 8)
    sum_form = step_of("muonclip", gradients)
    average = step_of("muon", gradients, nesterov=False)
    assert (sum_form - average).norm() < 0.05 * average.norm()  # bfloat16: scaling the input alone makes 2 %
    assert (sum_form - step_of("muon", gradients)).norm() > 0.2 * average.norm()


def normuon_evens_out_rows() -> None:
    gradients = randoms(12, 6, 6)
    for gradient in gradients:
        gradient[0] *= 1e-3  # a neuron that hardly learns
    even, plain = step_of("normuon", gradients, beta2=0.5), step_of("muon", gradients)
    assert abs(even.square().mean().sqrt() - 0.2) < 1e-6
    assert even.norm(dim=1).std() < 0.5 * plain.norm(dim=1).std()


def adamuon_steps_have_one_length() -> None:
    adamuon_of_signs_sees_signs_alone()
    for count in (1, 5):
        assert abs(step_of("adamuon", randoms(count, 6, 9)).square().mean().sqrt() - 0.2) < 1e-6


def adamuon_of_signs_sees_signs_alone() -> None:
    (gradient,) = randoms(1, 6, 9)
    uneven = gradient * torch.logspace(-3, 3, 9, dtype=torch.float64)
    ends = [step_of("adamuon", [g], signs=True, nesterov=False) for g in (gradient, uneven)]
    assert torch.equal(*ends)
    plain = [step_of("adamuon", [g]) for g in (gradient, uneven)]
    assert (plain[0] - plain[1]).norm() > 0.1 * plain[0].norm()


def dion_tends_to_the_polar_factor() -> None:
    (gradient,) = randoms(1, 5, 8)
    exact = torch.linalg.svd(gradient, full_matrices=False)
    polar = (5 / 8) ** 0.5 * exact[0] @ exact[2]
    torch.testing.assert_close(step_of("dion", [gradient] * 40), polar, rtol=0, atol=1e-2)
    thin = step_of("dion", [gradient] * 40, rank=2)
    expected = (5 / 8) ** 0.5 * torch.linalg.svdvals(exact[0][:, :2] @ exact[2][:2])
    assert torch.linalg.matrix_rank(thin, atol=1e-6) == 2
    assert torch.linalg.svdvals(thin)[1] < 1.3 * expected[1]


def scion_stays_in_its_ball() -> None:
    scion_begins_on_its_boundary()
    scion_needs_no_state_where_the_gradient_remembers()
    gradients = randoms(1, 6, 8) * 60
    far = step_of("scion", gradients[:1], radius=2.0)
    gain = torch.linalg.matrix_norm(far, 2) * (8 / 6) ** 0.5
    assert 0.6 * 2 < gain < 1.2 * 2  # the length of a step, as far as five iterations go
    w = torch.nn.Parameter(torch.zeros(6, 8, dtype=torch.float64))
    ends = []
    for constrained in (True, False):
        w.data.zero_()
        optimizer = slalom.Scion([{"params": [w], "role": "matrix"}], lr=0.2, constrained=constrained, radius=2.0)
        for gradient in gradients:
            w.grad = gradient
            optimizer.step()
        ends.append(torch.linalg.matrix_norm(w.detach(), 2).item() * (8 / 6) ** 0.5)
    assert ends[0] < 1.2 * 2 < ends[1]


def scion_begins_on_its_boundary() -> None:
    net = torch.nn.Sequential(torch.nn.Embedding(9, 6), torch.nn.Linear(6, 8), torch.nn.Linear(8, 5, bias=False))
    optimizer = slalom.create("scion", net, constrained=True, radius=2.0, head_radius=30.0)
    bias = net[1].bias.detach().clone()
    assert slalom.start_on_ball(optimizer) == 4
    torch.testing.assert_close(net[0].weight.norm(dim=1), torch.full((9,), 2.0 * 6**0.5))
    gains = torch.linalg.svdvals(net[1].weight.detach()) * (6 / 8) ** 0.5
    assert gains.min() > 0.6 * 2
    assert gains.max() < 1.2 * 2
    torch.testing.assert_close(net[1].bias.detach(), bias / bias.square().mean().sqrt())
    torch.testing.assert_close(net[2].weight.detach().abs(), torch.full((5, 8), 30.0 / 8))
    other = slalom.SGD(net.parameters())
    for wrong, sentence in ((other, "no parameter"), (optimizer, "before training begins")):
        net(torch.arange(9)).sum().backward()
        if wrong is optimizer:
            wrong.step()
        with pytest.raises(ValueError, match=sentence):
            slalom.start_on_ball(wrong)


def scion_needs_no_state_where_the_gradient_remembers() -> None:
    """ScionLight: a gradient that is shrunk and added to, not zeroed, has the direction of the average."""
    ends = []
    for light in (True, False):
        generator = torch.Generator().manual_seed(0)
        shapes = {"matrix": (6, 8), "embedding": (9, 4), "head": (5, 6), "vector": (7,)}
        groups = [
            {"params": [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))], "role": role}
            for role, shape in shapes.items()
        ]
        parameters = [group["params"][0] for group in groups]  # type: ignore[index]
        optimizer = slalom.Scion(groups, lr=0.1, momentum=0.0 if light else 0.9)
        for p in parameters:
            p.grad = torch.zeros_like(p)
        for _ in range(8):
            for p in parameters:
                g = torch.randn(p.shape, generator=generator, dtype=torch.float64)
                p.grad = 0.9 * p.grad + g if light else g
            optimizer.step()
        assert all(set(state) <= {"step"} for state in optimizer.state.values()) == light
        ends.append([p.detach().clone() for p in parameters])
    for a, b in zip(*ends, strict=True):
        # the iteration is in bfloat16; the others are exact
        assert (a - b).norm() < (0.03 if a.shape == (6, 8) else 1e-9) * b.norm()


def swan_remembers_nothing() -> None:
    first, second = randoms(2, 6, 8)
    torch.testing.assert_close(step_of("swan", [second]), step_of("swan", [first, second]), rtol=0, atol=1e-12)
    scaled = second * torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).unsqueeze(1)
    torch.testing.assert_close(step_of("swan", [scaled]), step_of("swan", [second]))


CASES: dict[str, Case] = {
    "muon": Case(property=muon_ignores_the_size_of_gradients),
    "muonclip": Case(property=muonclip_is_muon_with_a_sum_for_an_average),
    "normuon": Case(property=normuon_evens_out_rows),
    "adamuon": Case(property=adamuon_steps_have_one_length),
    "dion": Case(property=dion_tends_to_the_polar_factor),
    "scion": Case(property=scion_stays_in_its_ball),
    "swan": Case(property=swan_remembers_nothing),
}
