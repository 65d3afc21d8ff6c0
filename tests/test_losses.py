"""Robust means and weights: what they are at their limits, and what each is there for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slalom.losses import GradNorm, GradTail, median_of_means, published_soft_median, soft_median, trimmed_mean


def of(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- robust means ------------------------------------------------------------------------------------------------


def test_the_published_soft_median_has_its_published_defects() -> None:
    """The figures of its docstring; the sound version has none of them."""
    assert round(published_soft_median(of(1, 2, 3, 4, 100)).item(), 1) == 21.3
    assert round(published_soft_median(of(4, 6)).item(), 2) == 3.67
    assert published_soft_median(10 * of(1, 2, 9)) != 10 * published_soft_median(of(1, 2, 9))
    losses = of(1.0, 2.0, 9.0).requires_grad_()
    published_soft_median(losses).backward()
    assert losses.grad is not None
    assert losses.grad[0] != losses.grad[2]  # equal weights, and yet: gradients flow through the temperature
    assert published_soft_median(of(7.0)) == 7.0  # no warning, no nan


def test_the_soft_median_goes_from_the_median_to_the_mean() -> None:
    for values in (of(3, 1, 2), of(4, 1, 3, 2), of(1, 2, 3, 4, 100), of(5)):
        middle = values.quantile(0.5)
        torch.testing.assert_close(soft_median(values, 1e-4), middle)
        torch.testing.assert_close(soft_median(values, 1e9), values.mean())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), st.floats(0.02, 2.0), st.floats(-5, 5), st.floats(0.1, 9)
)
def test_the_soft_median_lies_in_the_data_and_moves_with_it(x: list[float], width: float, a: float, b: float) -> None:
    values = of(*x)
    result = soft_median(values, width)
    assert values.min() - 1e-9 <= result <= values.max() + 1e-9
    torch.testing.assert_close(soft_median(a + b * values, width), a + b * result, rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(soft_median(values.flip(0), width), result)
    values.requires_grad_()
    soft_median(values, width).backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad.sum(), of(1.0)[0])
    assert (values.grad >= 0).all()


def test_an_outlier_hardly_moves_robust_means() -> None:
    losses = torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for robust, bound in ((soft_median, 0.03), (trimmed_mean, 0.02)):
        before = robust(losses)
        spoiled = losses.clone()
        spoiled[0] = 1e3
        assert abs(robust(spoiled) - before) < bound
    assert spoiled.mean() - losses.mean() > 10


def test_the_trimmed_mean_cuts_both_ends() -> None:
    values = of(100, 1, 2, 3, 4, 5, 6, 7, 8, -50).requires_grad_()
    result = trimmed_mean(values.reshape(2, 5), 0.1)
    assert result == 4.5
    result.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, *[0.125] * 8, 0.0]
    assert trimmed_mean(of(1, 2, 6), 0.0) == 3.0
    assert trimmed_mean(of(1, 2, 6), 0.49) == 2.0


def test_the_median_of_means_is_the_mean_the_median_and_what_lies_between() -> None:
    values = of(1, 2, 6, 100, 3, 4).requires_grad_()
    assert median_of_means(values, 1) == values.mean()
    assert median_of_means(values, 6) == 3.5  # of an even number, the mean of the middle two
    result = median_of_means(values.reshape(2, 3), 3)  # 1.5, 53, 3.5
    assert result == 3.5
    result.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]
    assert median_of_means(of(1, 2, 3, 10, 20), 2) == 8.5  # blocks of three and two


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: median_of_means(of(1, 2), 3), "blocks must be from 1 to 2"),
        (lambda: soft_median(of()), "no losses"),
        (lambda: soft_median(of(1), 0.0), "width must be above 0"),
        (lambda: trimmed_mean(of(1), 0.5), r"trim must be in \[0, 0.5\)"),
        (lambda: GradTail(reach=0.0), "reach must be"),
        (lambda: GradTail(strength=-1.0), "strength must be"),
        (lambda: GradTail(decay=1.0), "decay must be"),
        (lambda: GradTail()(torch.ones(0, 2)), "no samples"),
        (lambda: GradNorm(1), "2 or more"),
        (lambda: GradNorm(2, lr=0.0), "lr above 0"),
        (lambda: GradNorm(2)(of(1, 2, 3), of(1)), "there are 2 tasks"),
    ],
)
def test_refusals(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


# --- GradTail ----------------------------------------------------------------------------------------------------


def _samples(labels_flipped: bool = False) -> Tensor:
    """99 samples of one task and one of a task at right angles; or one with a flipped label instead."""
    g = torch.zeros(100, 4, dtype=torch.float64)
    g[:, 0] = 1 + 0.1 * torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    g[99] = of(-1, 0, 0, 0) if labels_flipped else of(0, 0, 1, 0)
    return g


def test_the_long_tail_weighs_more_and_wrong_labels_do_not() -> None:
    for flipped in (False, True):
        tail = GradTail(strength=2.0)
        assert torch.equal(tail(_samples(flipped)), torch.ones(100, dtype=torch.float64))  # no mean yet
        weights = tail(_samples(flipped))
        torch.testing.assert_close(weights.mean(), of(1.0)[0])
        if flipped:
            assert weights[99] <= 1.0
        else:
            assert weights[99] > 2.5
            assert (weights[:99] < 1.0).all()


def test_a_sample_without_gradient_gains_nothing() -> None:
    tail = GradTail()
    tail(_samples())
    g = _samples()
    g[5] = 0
    assert tail(g)[5] < 1


def test_the_last_layers_gradients_are_autograds() -> None:
    layer = nn.Linear(5, 3, bias=False, dtype=torch.float64)
    features, targets = torch.randn(6, 5, dtype=torch.float64), torch.randint(3, (6,))
    closed = GradTail.last_layer(layer(features), targets, features)
    for place in range(6):
        loss = nn.functional.cross_entropy(layer(features[place : place + 1]), targets[place : place + 1])
        (expected,) = torch.autograd.grad(loss, layer.weight)
        torch.testing.assert_close(closed[place], expected)


def test_gradtail_resumes_and_refuses_another_layer() -> None:
    tail, again = GradTail(), GradTail()
    tail(_samples())
    again.load_state_dict(tail.state_dict())
    assert torch.equal(tail(_samples()), again(_samples()))
    assert torch.equal(tail.mean, again.mean)
    with pytest.raises(ValueError, match="gradients of 3 values, 4 before"):
        tail(torch.ones(2, 3))


# --- GradNorm ----------------------------------------------------------------------------------------------------


def _task_norms(weights: Tensor, losses: Tensor, shared: Tensor) -> Tensor:
    grads = [torch.autograd.grad(loss, shared, retain_graph=True)[0].norm() for loss in losses]
    return weights * torch.stack(grads)


def _two_tasks(shared: Tensor) -> Tensor:
    """The second is the first in other directions, a thousand times louder."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, dtype=torch.float64, generator=generator)
    y, z = torch.randn(2, 20, dtype=torch.float64, generator=generator)
    return torch.stack([(x @ shared - y).square().mean(), 1000 * (x @ shared - z).square().mean()])


def test_gradnorm_equalises_tasks_of_different_loudness() -> None:
    shared = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    balance = GradNorm(2, alpha=0.0, lr=0.025, floor=1e-5).double()
    before = _task_norms(torch.ones(2, dtype=torch.float64), _two_tasks(shared), shared)
    for _ in range(400):
        weights = balance(_two_tasks(shared), shared)
        balance.lr *= 0.98  # a sign descent settles only as its rate goes to 0
    after = _task_norms(weights, _two_tasks(shared), shared)
    assert before.max() / before.min() > 100
    assert after.max() / after.min() < 1.5
    torch.testing.assert_close(weights.sum(), of(2.0)[0])
    # What surveys take GradNorm for: normalising the summed gradient leaves the loud task its share.
    quiet, loud = (torch.autograd.grad(loss, shared, retain_graph=True)[0] for loss in _two_tasks(shared))
    whole = (quiet + loud) / (quiet + loud).norm()
    assert torch.nn.functional.cosine_similarity(whole, loud, dim=0) > 0.999


def test_gradnorm_follows_autograd_through_the_weights() -> None:
    """The closed form of the gradient by the weights, against autograd and torch's Adam on the published loss."""
    shared = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    balance = GradNorm(2, alpha=1.5, floor=0.0).double()
    weights = nn.Parameter(torch.ones(2, dtype=torch.float64))
    adam = torch.optim.Adam([weights], lr=0.025)
    first = _two_tasks(shared).detach()
    for _ in range(8):
        losses = _two_tasks(shared)
        ours = balance(losses, shared)
        norms = torch.stack(
            [torch.autograd.grad(weights[k] * losses[k], shared, create_graph=True)[0].norm() for k in range(2)]
        )
        ratio = losses.detach() / first
        target = norms.mean().detach() * (ratio / ratio.mean()) ** 1.5
        (weights.grad,) = torch.autograd.grad((norms - target).abs().sum(), weights)
        adam.step()
        with torch.no_grad():
            weights *= 2 / weights.sum()
        torch.testing.assert_close(ours, weights.detach(), rtol=1e-10, atol=0)
        (gradient,) = torch.autograd.grad((ours * _two_tasks(shared)).sum(), shared)
        with torch.no_grad():
            shared -= 1e-4 * gradient


def test_a_task_that_is_behind_gains_weight() -> None:
    shared = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def losses(first: float) -> Tensor:
        return torch.stack([(shared[0] - first).square(), (shared[1] - 1.0).square()])

    even, behind = (GradNorm(2, alpha=1.0).double() for _ in range(2))
    behind.first.copy_(of(0.5, 1.0))  # the first task's loss was half of what it is now
    behind.t += 1
    even(losses(1.0), shared)
    assert behind(losses(1.0), shared)[0] > 1.0
    assert even.weights.tolist() == [1.0, 1.0]


def test_gradnorm_leaves_the_graph_for_backward_and_resumes() -> None:
    shared = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    balance = GradNorm(2).double()
    losses = _two_tasks(shared)
    (balance(losses, [shared]) * losses).sum().backward()
    assert shared.grad is not None
    again = GradNorm(2).double()
    again.load_state_dict(copy.deepcopy(balance.state_dict()))
    assert torch.equal(again(_two_tasks(shared), shared), balance(_two_tasks(shared), shared))
