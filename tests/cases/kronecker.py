"""Preconditioners that are Kronecker products."""

from __future__ import annotations

import pytorch_optimizer
import torch

import slalom
from cases.matrix import randoms, step_of
from cases.tools import Case, Golden, Oracle, from_pytorch_optimizer


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


def splus_takes_signs_in_the_eigenbasis_of_its_first_gradient() -> None:
    first, second = randoms(2, 5, 3)
    w = torch.nn.Parameter(torch.zeros(5, 3, dtype=torch.float64))
    optimizer = slalom.SPlus([w], lr=1.0, weight_decay=0.0, betas=(0.5, 0.9))
    steps = []
    for gradient in (first, second):
        before, w.grad = w.detach().clone(), gradient
        optimizer.step()
        steps.append((before - w.detach()) * (5 + 3) / 2)
    torch.testing.assert_close(steps[0], first.sign())
    left, _, right = torch.linalg.svd(first, full_matrices=False)  # what is in no gradient's span has no sign
    momentum = 0.25 * first + 0.5 * second
    along = left.T @ steps[1] @ right.T
    torch.testing.assert_close(along, (left.T @ momentum @ right.T).sign(), rtol=1e-6, atol=1e-6)
    splus_is_pytorch_optimizers_where_gradients_have_full_rank()


def splus_is_pytorch_optimizers_where_gradients_have_full_rank() -> None:
    """Elsewhere eigenvectors are anybody's choice, and signs of what they say too: no network of the suite will do."""
    ours, theirs = (torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.float64)) for _ in range(2))
    one, other = slalom.SPlus([ours], weight_decay=0.0), pytorch_optimizer.SPlus([theirs], weight_decay=0.0)
    other.train()
    for gradient in randoms(20, 4, 4):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # whose eigenvectors are in float32
    other.eval()
    with one.averaged():
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def shampoo_begins_with_the_polar_factor() -> None:
    (gradient,) = randoms(1, 5, 5)
    left, _, right = torch.linalg.svd(gradient)
    torch.testing.assert_close(step_of("shampoo", [gradient], eps=1e-14), left @ right, rtol=0, atol=1e-4)


def grafting_takes_adams_length() -> None:
    other_methods_lengths_can_be_grafted()
    gradients = randoms(3, 5, 7)
    ours = step_of("distributed-shampoo", gradients, frequency=1)
    adam = step_of("adamw", gradients, betas=(0.9, 0.995))
    torch.testing.assert_close(ours.norm(), adam.norm(), rtol=1e-9, atol=0)
    assert (ours - adam).norm() > 0.1 * adam.norm()


def other_methods_lengths_can_be_grafted() -> None:
    gradients = randoms(3, 5, 7)
    settings = {"betas": (0.0, 0.995), "adam_eps": 0.0, "frequency": 1}
    lengths = {
        "sgd": step_of("sgd", gradients),
        "rmsprop": step_of("rmsprop", gradients, alpha=0.995, eps=0.0),
        "adagrad": step_of("adagrad", gradients, eps=0.0),
    }
    directions = set()
    for graft, expected in lengths.items():
        ours = step_of("distributed-shampoo", gradients, graft=graft, **settings)
        torch.testing.assert_close(ours.norm(), expected.norm(), rtol=1e-9, atol=0)
        directions.add(tuple((ours / ours.norm()).flatten().round(decimals=6).tolist()))
    assert len(directions) == 1


def caspr_adds_where_shampoo_multiplies() -> None:
    gradients = randoms(3, 5, 7)
    left = right = mean = 0
    for g in gradients:
        left, right = 0.995 * left + 0.005 * g @ g.T, 0.995 * right + 0.005 * g.T @ g
        mean = 0.9 * mean + 0.1 * g
    a, b = (_root(factor / (1 - 0.995**3), 1e-8) for factor in (left, right))
    direction = a @ a @ mean + 2 * a @ mean @ b + mean @ b @ b
    ours = step_of("caspr", gradients, frequency=1)
    torch.testing.assert_close(ours / ours.norm(), direction / direction.norm(), rtol=0, atol=1e-7)


def _root(factor: torch.Tensor, eps: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(factor)
    return vectors @ torch.diag((values - values.min().clamp(max=0) + eps) ** -0.25) @ vectors.T


def _kl_by_hand(gradients: list[torch.Tensor], *, soap: bool, frequency: int) -> torch.Tensor:
    """The last step of KL-Shampoo or KL-SOAP for a square matrix, from the paper's formulas, whitening by inverses."""
    beta1, beta2, eps = 0.9, 0.98, 1e-8
    first, *rest = gradients
    side = len(first)
    left, right = 0.02 * first @ first.T / side, 0.02 * first.T @ first / side
    bases = [torch.linalg.eigh(factor)[1].flip(-1) for factor in (left, right)]
    values = [torch.full((side,), 0.1, dtype=torch.float64) for _ in range(2)]
    mean = square = step = torch.zeros_like(first)
    for t, g in enumerate(rest, 1):
        mean = beta1 * mean + (1 - beta1) * g
        turned = bases[0].T @ g @ bases[1]
        square = beta2 * square + (1 - beta2) * turned**2
        scale = square.sqrt() if soap else torch.outer(*values).sqrt()
        step = bases[0] @ ((bases[0].T @ mean @ bases[1]) / (scale + eps)) @ bases[1].T
        inverses = [basis @ (1 / value).diag() @ basis.T for basis, value in zip(bases, values, strict=True)]
        left = beta2 * left + (1 - beta2) * g @ inverses[1] @ g.T / side
        right = beta2 * right + (1 - beta2) * g.T @ inverses[0] @ g / side
        seen = (turned**2 / values[1]).mean(1), (turned**2 / values[0][:, None]).mean(0)
        values = [(beta2 * old + (1 - beta2) * new).clamp(min=0.01) for old, new in zip(values, seen, strict=True)]
        if t % frequency == 0:
            bases = [_power_step(factor, basis) for factor, basis in ((left, bases[0]), (right, bases[1]))]
    return step


def _power_step(factor: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    power = factor @ basis
    order = (basis * power).sum(0).argsort(descending=True)
    q = torch.empty_like(basis)
    q[:, order] = torch.linalg.qr(power[:, order]).Q
    return q


def kl_shampoo_divides_by_eigenvalues_and_kl_soap_by_squares() -> None:
    gradients = randoms(8, 5, 5)
    for name, soap in (("kl-shampoo", False), ("kl-soap", True)):
        expected = _kl_by_hand(gradients, soap=soap, frequency=3)
        torch.testing.assert_close(step_of(name, gradients, frequency=3), expected, rtol=1e-8, atol=1e-8)
    # the same gradients in other units: Shampoo's own scale follows them once eigenvalues do
    assert step_of("kl-shampoo", gradients[:1]).abs().max() == 0  # the first step only looks


def mars_shampoo_is_muon_on_corrected_gradients() -> None:
    first, second = (0.01 * g for g in randoms(2, 6, 9))
    plain = step_of("mars-shampoo", [first, second], gamma=0.0)
    muon = step_of("muon", [first, second], nesterov=False, scaling="original")
    torch.testing.assert_close(plain, muon, rtol=0, atol=0.02)  # bfloat16
    factor = 0.025 * 0.95 / 0.05
    corrected = [(1 + factor) * first, second + factor * (second - first)]
    assert all(c.norm() < 1 for c in corrected)
    by_hand = step_of("muon", corrected, nesterov=False, scaling="original")
    torch.testing.assert_close(step_of("mars-shampoo", [first, second]), by_hand, rtol=0, atol=0.02)
    assert (by_hand - plain).norm() > 0.05 * plain.norm()


def the_winner_is_nadamw_until_its_first_roots_and_grafts_each_block() -> None:
    gradients = randoms(7, 4, 6)
    settings = {"betas": (0.9, 0.99), "frequency": 3, "block": 4}
    for count in (1, 2):
        nadamw = step_of("nadamw", gradients[:count], betas=(0.9, 0.99))
        torch.testing.assert_close(step_of("algoperf-shampoo", gradients[:count], **settings), nadamw)
    ours = step_of("algoperf-shampoo", gradients, **settings)
    nadamw = step_of("nadamw", gradients, betas=(0.9, 0.99))
    for block in (slice(0, 3), slice(3, 6)):
        torch.testing.assert_close(ours[:, block].norm(), nadamw[:, block].norm())
    assert (ours - nadamw).norm() > 0.1 * nadamw.norm()
    # the roots of step 6 were taken from what had been seen by then, block by block
    left = sum(0.01 * 0.99 ** (5 - t) * gradients[t][:, :3] @ gradients[t][:, :3].T for t in range(6)) / (1 - 0.99**6)
    right = sum(0.01 * 0.99 ** (5 - t) * gradients[t][:, :3].T @ gradients[t][:, :3] for t in range(6)) / (1 - 0.99**6)
    mean = sum(0.1 * 0.9 ** (6 - t) * gradients[t][:, :3] for t in range(7))
    direction = _root(left, 1e-8) @ (0.9 * mean + 0.1 * gradients[6][:, :3]) @ _root(right, 1e-8)
    found = ours[:, :3]
    torch.testing.assert_close(found / found.norm(), direction / direction.norm(), rtol=1e-6, atol=1e-6)


def caspr_as_submitted_is_a_chained_product() -> None:
    gradients = randoms(3, 5, 5)
    settings = {"betas": (0.9, 0.99), "frequency": 1, "start": 1, "ridge": 1e-3}
    whiteners: list[torch.Tensor] = []
    left = right = torch.zeros(5, 5, dtype=torch.float64)
    for t, g in enumerate(gradients, 1):
        left = 0.99 * left + 0.01 * g @ g.T
        a = _ridged_root(left / (1 - 0.99**t))
        right = 0.99 * right + 0.01 * (a @ g).T @ (a @ g) / 5
        whiteners = [a, _ridged_root(right / (1 - 0.99**t))]
    mean = sum(0.1 * 0.9 ** (2 - t) * gradients[t] for t in range(3))
    direction = whiteners[0] @ (0.9 * mean + 0.1 * gradients[2]) @ whiteners[1]
    ours = step_of("algoperf-caspr", gradients, **settings)
    torch.testing.assert_close(ours / ours.norm(), direction / direction.norm(), rtol=1e-5, atol=1e-5)
    nadamw = step_of("nadamw", gradients, betas=(0.9, 0.99))
    torch.testing.assert_close(ours.norm(), nadamw.norm())
    torch.testing.assert_close(step_of("algoperf-caspr", gradients, betas=(0.9, 0.99)), nadamw)  # before step 101


def _ridged_root(factor: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(factor + 1e-3 * factor.trace() / 5 * torch.eye(5, dtype=torch.float64))
    return vectors @ values.pow(-0.5).diag() @ vectors.T


CASES: dict[str, Case] = {
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
                from_pytorch_optimizer(
                    "SOAP", lr=1e-2, betas=(0.95, 0.9), weight_decay=0.0, precondition_frequency=1000
                ),
                {"lr": 1e-2, "betas": (0.95, 0.9), "weight_decay": 0.0, "frequency": 1000},
                1e-9,
                kernels=False,
            ),
        ),
        property=soap_turns_with_the_problem,
    ),
    "splus": Case(property=splus_takes_signs_in_the_eigenbasis_of_its_first_gradient),
    "shampoo": Case(property=shampoo_begins_with_the_polar_factor),
    "distributed-shampoo": Case(property=grafting_takes_adams_length),
    "caspr": Case(property=caspr_adds_where_shampoo_multiplies),
    "kl-shampoo": Case(property=kl_shampoo_divides_by_eigenvalues_and_kl_soap_by_squares),
    "kl-soap": Case(property=kl_shampoo_divides_by_eigenvalues_and_kl_soap_by_squares),
    "mars-shampoo": Case(property=mars_shampoo_is_muon_on_corrected_gradients),
    "algoperf-shampoo": Case(property=the_winner_is_nadamw_until_its_first_roots_and_grafts_each_block),
    "algoperf-caspr": Case(property=caspr_as_submitted_is_a_chained_product),
}
