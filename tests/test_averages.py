"""Averages around any recipe: what they must not disturb, what they must give back, what they cost."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import schedulefree
import torch
from torch import nn

import slalom
from networks import largest_difference, network, train, twins, values
from slalom import Recipe, parts
from slalom.describe import sheet

P = parts

# Short intervals, so that a few steps meet every state they can be in.
WATCHING = [
    P.WeightEma(0.9),
    P.WeightEma(0.2, weights="plain", every=3, start=2),
    P.WeightEma(0.99, weights="ramp"),
    P.SWA(),
    P.SWA(start=4, every=2),
    P.LAWA(3, every=2),
    P.LAWA(2, every=2, start=3),
    P.PolynomialAverage(),
]
LEADING = [
    P.Lookahead(3),
    P.PrimalAverage(0.9),
    P.ScheduleFree(0.9),
    P.ScheduleFree(1.0),
    P.ScheduleFree(0.8, decoupling=20.0),
    P.ScheduleFree(0.8, warm=3, last_beta=0.95, anneal=5),
]
EVERY = WATCHING + LEADING


def adamw(average: P.Average | None, momentum: Any = None) -> Recipe:
    return Recipe(
        momentum=momentum or P.Ema(0.9),
        scale=P.SecondMoment(0.99),
        regularize=P.Decoupled(0.1),
        average=average,
        step=1e-2,
    )


def saved(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("average", [*WATCHING, P.Lookahead(3, alpha=1.0)], ids=str)
def test_what_only_watches_changes_no_bit_of_training(average: P.Average, dtype: torch.dtype) -> None:
    plain, watched = twins(dtype)
    train(plain, adamw(None).build(plain.parameters()), 11)
    train(watched, adamw(average).build(watched.parameters()), 11)
    assert largest_difference(plain, watched) == 0.0


def test_restarting_or_pulling_back_at_neutral_settings_changes_no_bit() -> None:
    for wrapper in (P.Restarted(P.Ema(0.9), every=1000), P.PulledBack(P.Ema(0.9), every=3, alpha=1.0)):
        plain, wrapped = twins(torch.float32)
        train(plain, adamw(None).build(plain.parameters()), 11)
        train(wrapped, adamw(None, wrapper).build(wrapped.parameters()), 11)
        assert largest_difference(plain, wrapped) == 0.0


@pytest.mark.parametrize("average", EVERY, ids=str)
def test_every_interruption_resumes_to_the_same_bits(average: P.Average) -> None:
    for momentum in (P.Ema(0.9), P.Restarted(P.Ema(0.9), 3), P.PulledBack(P.HeavyBall(0.9), 3)):
        model, _ = twins(torch.float32)
        start = copy.deepcopy(model)
        whole = adamw(average, momentum).build(model.parameters())
        train(model, whole, 13)
        for cut in (1, 4, 5, 6, 9):
            again = copy.deepcopy(start)
            first = adamw(average, momentum).build(again.parameters())
            train(again, first, cut)
            second = adamw(average, momentum).build(again.parameters())
            second.load_state_dict(saved(first.state_dict()))
            train(again, second, 13 - cut, first=cut)
            assert largest_difference(model, again) == 0.0
            with whole.averaged(), second.averaged():
                assert largest_difference(model, again) == 0.0


@pytest.mark.parametrize("average", EVERY, ids=str)
def test_eval_and_train_swap_exactly_and_twice_is_once(average: P.Average) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = network(dtype)
        optimizer = adamw(average).build(model.parameters())
        train(model, optimizer, 8)
        training = values(list(model.parameters()))
        optimizer.eval()
        averaged = values(list(model.parameters()))
        optimizer.eval()
        with optimizer.averaged(), optimizer.averaged():
            assert all(map(torch.equal, model.parameters(), averaged))
        assert all(map(torch.equal, model.parameters(), averaged)), "a block inside eval mode ended it"
        optimizer.train()
        assert all(map(torch.equal, model.parameters(), training))
        optimizer.train()
        assert all(map(torch.equal, model.parameters(), training))
        with optimizer.averaged():
            with optimizer.averaged():
                pass
            assert all(map(torch.equal, model.parameters(), averaged)), "the inner block put the parameters back"
        assert all(map(torch.equal, model.parameters(), training))


@pytest.mark.parametrize("average", [None, P.SWA(), P.ScheduleFree()], ids=str)
def test_a_step_in_eval_mode_is_refused_and_counts_nothing(average: P.Average | None) -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = adamw(average).build([w])
    w.grad = torch.ones(3)
    optimizer.step()
    optimizer.eval()
    now = w.detach().clone()
    with pytest.raises(RuntimeError, match=r"call optimizer\.train\(\) before"):
        optimizer.step()
    assert torch.equal(w, now)
    optimizer.train()
    assert optimizer.state[w]["step"] == 1
    optimizer.step()


@pytest.mark.parametrize("average", [one for one in EVERY if not isinstance(one, P.PrimalAverage)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_checkpoint_of_either_mode_is_whole(average: P.Average, dtype: torch.dtype) -> None:
    model, _ = twins(dtype)
    optimizer = adamw(average).build(model.parameters())
    train(model, optimizer, 7)
    optimizer.eval()
    weights, state = saved(model.state_dict()), saved(optimizer.state_dict())
    optimizer.train()
    train(model, optimizer, 5, first=7)

    fresh = network(dtype)
    fresh.load_state_dict(weights)
    again = adamw(average).build(fresh.parameters())
    again.load_state_dict(state)
    copied_model, copied = copy.deepcopy((fresh, again))
    for one_model, one in ((fresh, again), (copied_model, copied)):
        with pytest.raises(RuntimeError, match="eval mode"):
            one.step()
        one.train()
        assert not any("kept" in entry for entry in one.state.values())
        train(one_model, one, 5, first=7)
        assert largest_difference(model, one_model) == 0.0


def test_a_checkpoint_of_train_mode_ends_eval_mode() -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = adamw(P.SWA()).build([w])
    w.grad = torch.ones(3)
    optimizer.step()
    state = saved(optimizer.state_dict())
    optimizer.eval()
    optimizer.load_state_dict(state)
    optimizer.step()


def test_a_kept_point_of_another_shape_is_refused() -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = adamw(P.SWA()).build([w])
    w.grad = torch.ones(3)
    optimizer.step()
    optimizer.eval()
    state = optimizer.state_dict()
    state["state"][0]["kept"] = torch.ones(4)
    with pytest.raises(ValueError, match=r"kept has shape \(4,\), here it is \(3,\)"):
        optimizer.load_state_dict(state)


def test_complex_parameters_are_averaged_and_come_back() -> None:
    w = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    optimizer = adamw(P.SWA()).build([w])
    seen = []
    for _ in range(3):
        w.grad = torch.randn(3, dtype=torch.complex64)
        optimizer.step()
        seen.append(w.detach().clone())
    with optimizer.averaged():
        torch.testing.assert_close(w.detach(), torch.stack(seen).mean(0))
        state = saved(optimizer.state_dict())
    assert torch.equal(w, seen[-1])
    optimizer.load_state_dict(state)
    optimizer.train()
    assert torch.equal(w, seen[-1])


def test_bfloat16_parameters_are_averaged_in_float32() -> None:
    w = nn.Parameter(torch.full((1,), 1.0, dtype=torch.bfloat16))
    optimizer = Recipe(average=P.SWA(), step=1.0).build([w])
    for _ in range(4):
        w.grad = torch.full((1,), -(2.0**-7), dtype=torch.bfloat16)  # one place of bfloat16 above 1
        optimizer.step()
    (average,) = [value for key, value in optimizer.state[w].items() if key == "swa.a"]
    assert average.dtype == torch.float32
    assert average.item() == 1 + 2.5 * 2.0**-7  # lies between two bfloat16 numbers


def held(optimizer: torch.optim.Optimizer, w: nn.Parameter) -> int:
    """Bytes of the storages behind a parameter's state, whole ones, each once; without the count of steps."""
    storages = [value.untyped_storage() for key, value in optimizer.state[w].items() if key != "step"]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("average", EVERY, ids=str)
def test_the_state_is_as_large_as_explain_says(average: P.Average) -> None:
    w = nn.Parameter(torch.randn(1024, 1024))
    recipe = adamw(average)
    optimizer = recipe.build([w])
    w.grad = torch.randn(1024, 1024)
    optimizer.step()
    kept = held(optimizer, w)
    assert kept / w.numel() == sheet(recipe).state
    assert "eval mode" not in str(optimizer)
    optimizer.eval()
    more = 0 if isinstance(average, P.PrimalAverage) else 4 * w.numel()
    assert (f"eval mode: {more:,} bytes more" in str(optimizer)) == (more > 0)
    assert held(optimizer, w) == kept + more
    optimizer.train()
    assert held(optimizer, w) == kept


def test_the_queue_is_one_flat_state_of_copies() -> None:
    w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Recipe(average=P.LAWA(3, every=1), step=1.0).build([w])
    for _ in range(5):
        w.grad = -torch.ones(1, dtype=torch.float64)
        optimizer.step()
    assert {key: value.item() for key, value in optimizer.state[w].items()} == {
        "step": 5.0,
        "lawa.w0": 4.0,
        "lawa.w1": 5.0,
        "lawa.w2": 3.0,
    }


def test_polynomial_averaging_forgets_the_beginning() -> None:
    w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = Recipe(average=P.PolynomialAverage(2.0), step=1.0).build([w])
    expected = 0.0
    for t in range(1, 8):
        w.grad = torch.tensor([0.1 * t * t - 1], dtype=torch.float64)
        optimizer.step()
        weight = 3.0 / (t + 2.0)
        expected = (1 - weight) * expected + weight * w.item()
        with optimizer.averaged():
            assert w.item() == pytest.approx(expected, rel=1e-12)


def test_primal_averaging_is_momentum_under_a_constant_rate() -> None:
    one, other = twins()
    train(one, Recipe(average=P.PrimalAverage(0.8), step=0.1).build(one.parameters()), 30)
    momentum = P.Ema(0.8, debias=False)
    train(other, Recipe(momentum=momentum, step=0.1).build(other.parameters()), 30)
    assert largest_difference(one, other) < 1e-14


# --- Schedule-Free at both ends of beta, against the form that keeps all three sequences --------------------


def _reference(model: nn.Module, beta: float, steps: int) -> Any:
    theirs = schedulefree.SGDScheduleFreeReference(model.parameters(), lr=0.1, momentum=0.5)
    theirs.param_groups[0]["momentum"] = beta  # which its constructor refuses to be 0 or 1, its formula does not
    theirs.train()
    train(model, theirs, steps)
    return theirs


@pytest.mark.parametrize("beta", [1e-3, 0.5, 0.999, 1.0])
def test_schedule_free_equals_its_reference_form_up_to_both_ends(beta: float) -> None:
    ours, theirs = twins()
    optimizer = Recipe(average=P.ScheduleFree(beta), step=0.1).build(ours.parameters())
    train(ours, optimizer, 40)
    reference = _reference(theirs, beta, 40)
    assert largest_difference(ours, theirs) < 1e-12
    optimizer.eval()
    reference.eval()
    assert largest_difference(ours, theirs) < 1e-11 / min(beta, 0.1)


def test_schedule_free_at_zero_is_plain_averaging_which_swa_is() -> None:
    ours, theirs = twins()
    optimizer = Recipe(average=P.SWA(), step=0.1).build(ours.parameters())
    train(ours, optimizer, 40)
    reference = _reference(theirs, 0.0, 40)
    assert largest_difference(ours, theirs) < 1e-12
    optimizer.eval()
    reference.eval()
    assert largest_difference(ours, theirs) < 1e-12
    with pytest.raises(ValueError, match=r"beta must be in \(0, 1\]"):
        P.ScheduleFree(0.0)


def test_a_beta_that_changes_keeps_the_average_an_average() -> None:
    """With x, y and z kept apart, and beta written out."""
    w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    average = P.ScheduleFree(0.5, warm=2, last_beta=0.9, anneal=4)
    optimizer = Recipe(step=0.1, average=average).build([w])
    z = x = 1.0
    snapshots = []
    for t in range(1, 9):
        gradient = 0.3 * t - 1
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        z -= 0.1 * gradient
        if t > 2:
            snapshots.append(z)
        x = sum(snapshots) / len(snapshots) if snapshots else z
        beta = 1 - 0.5 * (0.1 / 0.5) ** min((t - 1) / 4, 1)
        assert w.item() == pytest.approx((1 - beta) * z + beta * x, rel=1e-12)
        with optimizer.averaged():
            assert w.item() == pytest.approx(x, rel=1e-12)


def test_decoupling_at_its_neutral_value_is_the_first_papers_average() -> None:
    plain, refined = twins(torch.float64)
    train(plain, adamw(P.ScheduleFree(0.75)).build(plain.parameters()), 11)
    train(refined, adamw(P.ScheduleFree(0.75, decoupling=4.0)).build(refined.parameters()), 11)
    assert largest_difference(plain, refined) < 1e-14


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: P.SWA(every=0), r"SWA\(every=0\): every must be a whole number of 1 or more"),
        (lambda: P.SWA(start=-1), r"start=-1\): start must be a whole number of 0 or more"),
        (lambda: P.LAWA(k=0), r"LAWA\(k=0\)"),
        (lambda: P.Lookahead(k=2.5), r"Lookahead\(k=2\.5\)"),
        (lambda: P.Restarted(P.Ema(), every=0), r"Restarted\(every=0\)"),
        (lambda: slalom.create("lookahead", [nn.Parameter(torch.ones(1))], inner="resett"), 'no inner "resett". Did'),
    ],
)
def test_intervals_that_make_no_sense_are_refused(wrong: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        wrong()


def test_a_restarted_part_begins_as_if_nothing_had_been() -> None:
    for momentum in (P.Ema(0.9), P.Ema(0.9, debias=False), P.PositiveNegative(0.9), P.NesterovEma()):
        gradients = [torch.tensor([float(3 * t - 10), 1.0], dtype=torch.float64) for t in range(8)]
        ends = []
        for seen in (gradients, gradients[6:]):  # steps 7 and 8 are the first two after the second restart
            w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
            optimizer = Recipe(momentum=P.Restarted(momentum, 3), step=1.0).build([w])
            for place, grad in enumerate(seen):
                if len(seen) - place == 2:
                    w.data.zero_()
                w.grad = grad.clone()
                optimizer.step()
            ends.append(w.detach().clone())
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-14, atol=0)


def test_what_begins_as_a_copy_of_the_parameter_cannot_begin_anew() -> None:
    w = nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"prodigy\.start begins as more than a number"):
        Recipe(step=P.Restarted(P.Prodigy(), 3)).build([w]).step()


def test_what_a_model_has_in_common_does_not_depend_on_which_tensor_came_first() -> None:
    """Found by fuzzing: made for a float32 tensor, a shared state was coarser than made for a float64 one."""
    ends = []
    for early in (True, False):
        params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
        optimizer = slalom.MoMoAdam(params, lr=10.0)  # so that the loss decides the rate
        if early:
            optimizer.init_state()
        for number in range(3):
            params[1].grad = torch.full((2,), 0.3 + number, dtype=torch.float64)
            optimizer.step(lambda: 0.7)
        ends.append(params[1].detach().clone())
    assert torch.equal(*ends)
