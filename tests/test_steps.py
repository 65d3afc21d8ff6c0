"""Steps that find their own length: the loss as a signal, and what makes any recipe tuning-free."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import slalom
from networks import largest_difference, quietly, train, twins
from slalom import Recipe, parts
from test_native import drive, lists

P = parts


def ascending(w: nn.Parameter) -> Any:
    def closure() -> torch.Tensor:
        w.grad = -w.detach()
        return -0.5 * (w.detach() ** 2).sum()

    return closure


# --- the loss ----------------------------------------------------------------------------------------------


def test_without_the_loss_a_step_that_reads_it_is_refused_and_counts_nothing() -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = slalom.SPS([w])
    w.grad = torch.ones(3)
    for closure, given in ((None, "none"), (lambda: None, "none"), (lambda: "0.5", "a str")):
        sentence = rf"reads the loss and was given {given}: call optimizer\.step\(closure\)"
        with pytest.raises(RuntimeError, match=sentence):
            optimizer.step(closure)
    with pytest.raises(RuntimeError, match="was given a Tensor"):
        optimizer.step(lambda: torch.ones(2))
    assert torch.equal(w, torch.ones(3))
    assert optimizer.state[w]["step"] == 0
    assert optimizer.step(lambda: 0.5) == 0.5


def test_only_recipes_that_read_the_loss_need_it() -> None:
    reading = {
        name
        for name in slalom.list_optimizers()
        if quietly(lambda name=name: slalom.create(name, [nn.Parameter(torch.ones(2, 2))])).needs_loss
    }
    assert reading == {"adalo", "alig", "momo", "momo-adam", "schedule-free-plus", "sps"}


@pytest.mark.parametrize("loss", [0.7, 1, torch.tensor(0.7), torch.tensor([0.7], dtype=torch.float64)], ids=repr)
def test_the_loss_may_be_a_number_or_a_tensor_with_one(loss: Any) -> None:
    w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = slalom.AdaLo([w], betas=(0.0, 0.0), kappa=1.0, form="paper", weight_decay=0.0)
    w.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step(lambda: loss)
    assert w.item() == -float(loss)


def test_maximize_ascends_by_the_negative_loss() -> None:
    w = nn.Parameter(torch.tensor([5.0], dtype=torch.float64))
    optimizer = slalom.SPS([w], lr=100.0, eps=0.0, maximize=True)
    optimizer.step(ascending(w))
    assert abs(w.item()) < 1e-12


def test_the_loss_changes_at_every_step_without_another_trace() -> None:
    w = nn.Parameter(torch.zeros(1))
    optimizer = slalom.AdaLo([w], betas=(0.0, 0.0), kappa=1.0, form="paper", weight_decay=0.0)
    moved = []
    for loss in (1.0, 0.25, 4.0):
        before = w.item()
        w.grad = torch.ones(1)
        optimizer.step(lambda loss=loss: loss)
        moved.append(before - w.item())
    assert moved == [1.0, 0.25, 4.0]
    (programs,) = optimizer._programs.values()
    assert len(programs) == 1


# --- any recipe --------------------------------------------------------------------------------------------

STEPS = [
    P.DoG(reps_rel=1e-2),
    P.DoG(reps_rel=1e-2, per="tensor"),
    P.DoG(reps_rel=1e-2, per="model"),
    P.DoWG(reps_rel=1e-2, per="tensor"),
    P.DAdaptationSGD(d0=1e-2),
    P.Polyak(lr=0.1),
    P.Polyak(lr=0.1, growth=1.1),
    P.MoMo(lr=0.1, estimate=True),
    P.LossDriven(kappa=30.0),
    P.NormalizedPolyak(lr=0.1, beta=0.5),
    P.Hypergradient(lr=0.1, hyper=0.3),
]


@pytest.mark.parametrize("executor", ["native", "foreach"])
@pytest.mark.parametrize("step", STEPS, ids=str)
def test_every_step_composes_with_clipping_momentum_scale_and_averages(step: P.Step, executor: str) -> None:
    recipe = Recipe(
        gradient=P.ClipNorm(1.0),
        momentum=P.Ema(0.9),
        scale=P.SecondMoment(0.99, eps=1e-2),
        regularize=P.Decoupled(0.01),
        average=P.Lookahead(2),
        step=step,
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    ends = []
    for chosen, dtype in ((executor, torch.float32), ("eager", torch.float64)):
        params = lists([(3, 4), (5,), (), (40, 50)], dtype)
        drive(slalom.Optimizer(params, recipe, executor=chosen), 5, missing=True)  # type: ignore[arg-type]
        ends.append(torch.cat([p.detach().flatten().double() for p in params]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        {"momentum": P.HeavyBall(0.9)},
        {"momentum": P.Interpolated(), "geometry": P.Sign(), "regularize": P.Decoupled(0.1)},
        {"scale": P.SecondMoment(0.9), "guard": P.TrustRatio(), "average": P.ScheduleFree(0.9)},
        {"momentum": P.Ema(0.9), "average": P.WeightEma(0.9), "gradient": P.ClipNorm(0.5)},
    ],
    ids=["heavy ball", "lion", "lamb schedule-free", "ema"],
)
def test_mechanic_tunes_any_recipe(inner: dict[str, Any]) -> None:
    ends = []
    for rate in (1e-3, 1e-1):
        torch.manual_seed(3)
        w = nn.Parameter(torch.full((4,), 3.0, dtype=torch.float64))
        optimizer = Recipe(**inner, step=rate, form=P.Mechanic(s_init=1e-4)).build([w])
        for _ in range(400):
            w.grad = w.detach().clone()
            optimizer.step()
        with optimizer.averaged():
            ends.append(w.abs().max().item())
    assert max(ends) < 2.0, ends


def test_mechanic_keeps_what_its_form_does_when_the_scale_is_one() -> None:
    # Scales that are held at a sum of 1 leave plain AdamW, up to summing steps instead of taking them.
    class One(P.Mechanic, name="one_for_a_test"):
        """Mechanic whose scales stay."""

        def _scale(self, s: P.Memory) -> Any:
            return super()._scale(s) * 0 + 1.0

    plain, scaled = twins()
    settings: dict[str, Any] = {"momentum": P.Ema(0.9), "scale": P.SecondMoment(0.99), "step": 1e-2}
    train(plain, Recipe(**settings).build(plain.parameters()), 30)
    train(scaled, Recipe(**settings, form=One()).build(scaled.parameters()), 30)
    assert largest_difference(plain, scaled) < 1e-13


def test_a_distance_over_the_model_is_shared_and_one_per_tensor_is_not() -> None:
    def together(per: Any) -> list[torch.Tensor]:
        params = lists([(3, 4), (5,)], torch.float64)
        groups = [{"params": [p]} for p in params]
        drive(slalom.Optimizer(groups, Recipe(step=P.DoG(reps_rel=1e-2, per=per))), 6)
        return [p.detach().clone() for p in params]

    model, group, tensor = together("model"), together("group"), together("tensor")
    for a, b, c in zip(model, group, tensor, strict=True):
        torch.testing.assert_close(b, c, rtol=1e-12, atol=0)  # one tensor in each group
        assert not torch.allclose(a, b, rtol=1e-3)


def test_a_hypergradient_is_the_cosine_of_two_gradients_in_a_row() -> None:
    """For plain SGD the last step is along the last gradient; a schedule does not disturb that."""
    params = [nn.Parameter(torch.zeros(3, dtype=torch.float64)), nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))]
    optimizer = Recipe(step=P.Hypergradient(0.1, hyper=0.2)).build(params)
    generator = torch.Generator().manual_seed(0)
    factor, last = 1.0, None
    for t in range(8):
        schedule = 1 / (1 + t)
        optimizer.param_groups[0]["lr"] = 0.1 * schedule
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64) + 0.5
        g = torch.cat([p.grad.flatten() for p in params])
        if last is not None:
            factor *= 1 + 0.2 * torch.cosine_similarity(g, last, dim=0).item()
        before = torch.cat([p.detach().flatten() for p in params])
        optimizer.step()
        moved = before - torch.cat([p.detach().flatten() for p in params])
        torch.testing.assert_close(moved, 0.1 * schedule * factor * g, rtol=1e-9, atol=1e-15)
        last = g
    assert factor != 1.0


def test_a_hypergradient_mends_a_rate_in_either_direction() -> None:
    for lr, better in ((1e-3, lambda a: a > 2), (0.39, lambda a: a < 1)):  # 0.4 is the edge of stability
        w = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
        optimizer = Recipe(step=P.Hypergradient(lr, hyper=0.03)).build([w])
        for _ in range(60):
            w.grad = torch.tensor([5.0, 0.5], dtype=torch.float64) * w.detach()
            optimizer.step()
        assert better(optimizer.state[w]["hypergradient.a"].item())


def test_d_adaptation_refuses_what_it_cannot_measure_by() -> None:
    for scale, sentence in (
        (None, r"add scale=SecondMoment"),
        (P.SecondMoment(), r"use SecondMoment\(debias=False\)"),
        (P.MaxNorm(), r"MaxNorm does not store the metric"),
    ):
        w = nn.Parameter(torch.ones(2))
        w.grad = torch.ones(2)
        with pytest.raises(ValueError, match=sentence):
            Recipe(scale=scale, step=P.DAdaptation()).build([w]).step()


# --- what a step measures, and what momentum keeps of it ------------------------------------------------------


@pytest.mark.parametrize("step", [P.DoG(reps_rel=1e-2), P.DoWG(reps_rel=1e-2), P.Hold(P.DoG(reps_rel=1e-2))], ids=str)
def test_steps_that_find_their_length_measure_what_a_geometry_made_of_the_gradient(step: P.Step) -> None:
    recipe = Recipe(
        geometry=P.Sign(), step=step
    )  # signs are long where gradients are short: divided by |g| it explodes
    w = nn.Parameter(torch.zeros(30, dtype=torch.float64))
    optimizer = recipe.build([w])
    for _ in range(200):
        w.grad = 1e-3 * (w.detach() - 1.0)
        optimizer.step()
    assert (w - 1.0).abs().max() < 1.0
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert "order" not in recipe.to_toml()


def test_a_polyak_step_is_the_loss_over_what_the_step_takes_off_it() -> None:
    """In its own metric a parabola is solved at once, whatever the metric; uphill nothing moves."""
    w = nn.Parameter(torch.tensor([5.0, -3.0], dtype=torch.float64))
    optimizer = Recipe(scale=P.SecondMoment(0.0, eps=0.0), step=P.Polyak(1e9, 1.0, eps=0.0)).build([w])
    w.grad = torch.tensor([4.0, -0.5], dtype=torch.float64)
    optimizer.step(lambda: 9.0)
    torch.testing.assert_close(w.detach(), torch.tensor([5.0 - 2.0, -3.0 + 2.0], dtype=torch.float64))
    optimizer = Recipe(momentum=P.HeavyBall(0.9), step=P.Polyak(1e9, 1.0, eps=0.0)).build([w])
    for sign in (1.0, -0.5):  # b is 0.4 g after the turn: against the gradient
        before = w.detach().clone()
        w.grad = sign * torch.tensor([4.0, -0.5], dtype=torch.float64)
        optimizer.step(lambda: 9.0)
    assert torch.equal(w.detach(), before)


def test_momentum_of_whole_steps_keeps_the_length_they_had() -> None:
    for nesterov in (False, True):
        ball = P.WholeSteps(P.HeavyBall(0.5, nesterov=nesterov))
        w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        optimizer = Recipe(momentum=ball, regularize=P.Decoupled(0.1), step=0.1).build([w])
        buffer, position = 0.0, 1.0
        for rate, g in ((0.1, 2.0), (0.4, -1.0), (0.0, 3.0), (0.2, 0.5)):
            optimizer.param_groups[0]["lr"] = rate
            w.grad = torch.tensor([g], dtype=torch.float64)
            optimizer.step()
            buffer = 0.5 * buffer + rate * g
            moved = rate * g + 0.5 * buffer if nesterov else buffer
            position -= (moved if rate else 0.0) + rate * 0.1 * position  # decay is by the rate, not by what is kept
            assert w.item() == pytest.approx(position, rel=1e-12)
    for momentum, scale in ((P.Ema(), P.Belief(0.9)), (P.Extrapolated(), P.SecondMoment(0.9))):
        ends = []
        for one in (momentum, P.WholeSteps(momentum)):
            params = lists([(3, 4)], torch.float64)
            drive(Recipe(momentum=one, scale=scale, step=0.01).build(params), 5)
            ends.append(params[0].detach())
        torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


def test_momentum_of_whole_steps_asks_for_the_rate_first() -> None:
    w = nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    with pytest.raises(ValueError, match="WholeSteps reads the rate, but the step comes after it"):
        Recipe(momentum=P.WholeSteps(P.HeavyBall()), step=P.DoG()).build([w]).step()


def test_decay_beside_d_adaptation_is_in_proportion_to_the_rate_it_found() -> None:
    w = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = slalom.DAdaptAdam([w], d0=1e-3, weight_decay=0.1, decoupled_weight_decay=True)
    w.grad = torch.zeros(2, dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full_like(w, 1 - 1e-4), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["dadapt-adam", "dadapt-sgd", "dog", "ldog", "dowg", "mechanic", "prodigy"])
def test_the_untuned_rate_comes_within_reach_of_the_distance(name: str) -> None:
    """From a guess a million times too small, a quadratic is solved to a twentieth without a rate being named."""
    torch.manual_seed(0)
    goal = torch.randn(20, dtype=torch.float64)
    w = nn.Parameter(torch.zeros(20, dtype=torch.float64))
    optimizer = slalom.create(name, [w])
    for _ in range(3000):
        w.grad = w.detach() - goal
        optimizer.step()
    with optimizer.averaged():
        assert ((w - goal) ** 2).sum() < 0.05 * (goal**2).sum()


def test_resuming_in_the_middle_of_learning_a_floor_gives_the_same_bits() -> None:
    recipe = Recipe(momentum=P.HeavyBall(0.9, dampening=0.9), step=P.MoMo(0.3, floor=-5.0, estimate=True))
    model, other = twins(torch.float32)
    whole = recipe.build(model.parameters())
    train(model, whole, 9)
    first = recipe.build(other.parameters())
    train(other, first, 4)
    second = recipe.build(other.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(other, second, 5, first=4)
    assert largest_difference(model, other) == 0.0
