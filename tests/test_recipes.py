"""Recipes as data: written down, read back, refused; parts combined in ways nobody named."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slalom
import slalom.describe
from networks import network, train
from slalom import Recipe, parts
from slalom.describe import describe_recipe
from slalom.named import stub
from slalom.recipes.files import to_toml

P = parts


def test_the_type_stub_is_up_to_date() -> None:
    assert Path(slalom.__file__).with_suffix(".pyi").read_text() == stub(), "run: python -m slalom.named"


def test_toml_reads_like_the_recipe() -> None:
    recipe = Recipe(
        momentum=P.Ema(0.9), scale=P.SecondMoment(0.99, eps=P.Atan2()), regularize=P.Decoupled(0.1), step=3e-4
    )
    written = recipe.to_toml()
    assert '[momentum]\npart = "ema"\nbeta = 0.9' in written
    assert '[scale.eps]\npart = "atan2"' in written
    assert Recipe.from_toml(written) == recipe


def test_toml_may_name_an_optimizer() -> None:
    assert Recipe.from_toml('recipe = "adamw"\nlr = 0.01\nbetas = [0.8, 0.9]') == slalom.recipes.method("adamw").recipe(
        lr=0.01, betas=(0.8, 0.9)
    )


def test_a_recipe_carries_its_schedule_through_toml() -> None:
    moves = {"lr": "warmup 5%, cosine", "momentum.beta": {"values": "linear 300 start=0.85 end=0.95"}}
    recipe = Recipe(momentum=P.Ema(0.9), scale=P.SecondMoment(0.99), step=3e-4, schedule=moves)
    written = recipe.to_toml()
    assert '[schedule]\nlr = "warmup 5%, cosine"\n' in written
    assert Recipe.from_toml(written) == recipe != Recipe.from_toml(written.partition("[schedule]")[0])
    assert set(slalom.schedules.from_toml(written, 200)) == {"lr", "momentum.beta"}  # the same table
    named = Recipe.from_toml('recipe = "muon"\nlr = 0.02\n[schedule]\nlr = "cosine 100"')
    assert Recipe.from_toml(to_toml(named)) == named
    assert named.schedule == {"lr": "cosine 100"}
    with pytest.raises(ValueError, match=r"has no hyper-parameter .momentum.bta.*momentum.beta"):
        Recipe(momentum=P.Ema(0.9), schedule={"momentum.bta": "cosine 10"})
    with pytest.raises(ValueError, match="make it a table"):
        Recipe.from_toml('recipe = "adamw"\nschedule = "cosine"')
    with pytest.raises(ValueError, match="give it to ByRole"):
        slalom.recipes.ByRole(rest=recipe)


def test_a_recipes_scheduler_moves_what_its_schedule_names() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    recipe = Recipe.from_toml("""
        recipe = "sgd"
        lr = 0.5
        momentum = 0.5
        [schedule]
        lr = "warmup 50%, cosine"
        "momentum.momentum" = "linear 4 end=0.5"
    """)
    optimizer = recipe.build([w])
    scheduler = recipe.scheduler(optimizer, steps=4)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    seen = []
    for _ in range(5):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum.momentum"]))
        w.grad = torch.ones(2)
        optimizer.step()
        scheduler.step()
    lrs, momenta = zip(*seen, strict=True)
    assert lrs == pytest.approx((0.25, 0.5, 0.5, 0.25, 0.0))
    assert momenta == pytest.approx((0.5, 0.4375, 0.375, 0.3125, 0.25))
    with pytest.raises(ValueError, match="no schedule"):
        Recipe(step=0.1).scheduler(Recipe(step=0.1).build([w]))
    with pytest.raises(ValueError, match="of how many steps"):
        recipe.scheduler(optimizer)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lr = ", "no valid TOML"),
        ('recipe = "adamv"', "Did you mean"),
        ('recipe = "adamw"\nlearning = 1', "has no argument"),
        ('[momentun]\npart = "ema"', "Did you mean momentum"),
        ('[momentum]\npart = "emma"', "Did you mean ema"),
        ('[momentum]\npart = "ema"\nbta = 0.9', "Did you mean beta"),
        ('[momentum]\npart = "ema"\nbeta = 1.5', r"beta must be in \[0, 1\)"),
        ('[momentum]\npart = "sign"', "answers geometry"),
    ],
)
def test_bad_recipe_files_are_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        Recipe.from_toml(text)


# Everything below is drawn at random: any combination that makes sense must run.
GRADIENTS = st.sampled_from(
    [
        None,
        P.L2(0.01),
        P.ClipNorm(1.0),
        (P.L2(0.01), P.ClipNorm(0.5, "tensor")),
        P.Centralize(),
        P.AdaptiveClip(0.1),
        P.LayerRate(0.1),
        P.VarianceReduced(),
        P.KeepLength(),
        P.ClipValue(0.5),
        P.Noise(0.1),
        P.Normalize(),
        P.SoftClip(),
    ]
)
MOMENTA = st.sampled_from(
    [
        None,
        P.HeavyBall(0.9, nesterov=True),
        P.Ema(0.9),
        P.NesterovEma(),
        P.Interpolated(),
        P.Extrapolated(),
        P.TwoSpeeds(),
        P.TwoSpeeds(warmup=3),
        P.PositiveNegative(),
        P.Aggregated(),
        P.AdaptiveMemory(),
        P.AdaptiveMetricMemory(),
        (P.FractionalMemory(0.5, terms=2), P.Ema(0.9)),
    ]
)
EPSILONS = st.sampled_from(
    [1e-8, P.Inside(1e-12), P.Early(1e-8), P.Atan2(), P.Softplus(), P.InState(1e-6), P.Clamped(1e-4)]
)
SCALES = st.one_of(
    st.sampled_from([None, P.MaxNorm(), P.Belief(eps=1e-8), P.TrendMoment(), P.Factored(), P.Rectified()]),
    EPSILONS.map(lambda eps: P.SecondMoment(0.99, eps)),
    EPSILONS.map(lambda eps: P.SecondMoment(0.99, eps, amsgrad="post")),
    EPSILONS.map(lambda eps: P.SecondMoment(0.99, eps, amsgrad="two-step")),
    EPSILONS.map(lambda eps: P.PreviousMoment(0.99, eps)),
    EPSILONS.map(lambda eps: P.Accumulated(eps=eps)),
    EPSILONS.map(lambda eps: P.CenteredMoment(0.9, eps)),
)
GUARDS = st.sampled_from(
    [
        None,
        P.TrustRatio(),
        P.ClipUpdate(),
        P.Cautious(),
        (P.Cautious(), P.TrustRatio()),
        P.Friction(),
        P.Cautious("mean"),
        P.ClipRate(),
        P.ClipEach(0.5),
        P.SpectralCap(),
        P.Switch(),
    ]
)
DECAYS = st.sampled_from(
    [
        None,
        P.Decoupled(0.1),
        P.ProximalDecay(0.1),
        P.L1(1e-3),
        P.L1(1e-3, "adaptive"),
        P.GroupL2(1e-3, "column", "adaptive"),
        (P.Decoupled(0.1), P.L1(1e-3)),
        P.NormLoss(0.1),
        P.FixedDecay(1e-3),
        P.SquaredDecay(2.0),
        P.StableDecay(0.01),
        P.Constrained(0.5),
    ]
)
STEPS = st.sampled_from([1e-3, P.Decaying(1e-3, 0.1), P.Relative(), P.Prodigy(d0=1e-2)])
ORDERS = st.sampled_from(
    [
        slalom.recipes.ORDER,
        slalom.recipes.common.SCALE_FIRST,
        slalom.recipes.common.DECAY_INSIDE,
    ]
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(GRADIENTS, MOMENTA, SCALES, GUARDS, DECAYS, STEPS, ORDERS, st.booleans(), st.booleans())
def test_any_sensible_combination_runs_prints_and_survives_toml(
    gradient: object, momentum: object, scale: object, guard: object, decay: object, step: object,
    order: tuple[str, ...], lazy: bool, averaged: bool,
) -> None:  # fmt: skip
    lazy = lazy and not isinstance(getattr(scale, "eps", None), P.Atan2)  # refused, see the next test
    recipe = Recipe(
        gradient=gradient, momentum=momentum, scale=scale, guard=guard, regularize=decay, step=step,  # type: ignore[arg-type]
        form=P.FTRL() if lazy else P.Greedy(), average=P.ScheduleFree() if averaged else None, order=order,  # type: ignore[arg-type]
    )  # fmt: skip
    torch.manual_seed(0)
    model = network()
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    losses = train(model, recipe.build(model), 4)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert len(set(losses)) == 4
    assert "w ←" in describe_recipe(recipe)


@pytest.mark.parametrize("guard", [None, P.TrustRatio(), P.Cautious()], ids=str)
def test_the_lazy_form_refuses_a_metric_that_is_an_angle(guard: object) -> None:
    recipe = Recipe(momentum=P.Ema(), scale=P.SecondMoment(eps=P.Atan2()), guard=guard, form=P.FTRL())  # type: ignore[arg-type]
    model = network()
    with pytest.raises(ValueError, match="FTRL needs the metric itself"):
        train(model, recipe.build(model), 1)


PENALTY_FREE_SCALES = [P.SecondMoment(0.9), P.Accumulated(), P.MaxNorm(), P.SecondMoment(0.9, amsgrad="post"), None]


@pytest.mark.parametrize(
    ("scale", "momentum"), list(itertools.product(PENALTY_FREE_SCALES, [None, P.Ema(0.9), P.HeavyBall(0.5)])), ids=str
)
def test_lazy_equals_greedy_without_penalties(scale: object, momentum: object) -> None:
    ends = []
    for form in (P.Greedy(), P.FTRL()):
        torch.manual_seed(0)
        model = network()
        recipe = Recipe(momentum=momentum, scale=scale, form=form, step=1e-2)  # type: ignore[arg-type]
        train(model, recipe.build(model), 50)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-10)


def test_a_neutral_setting_gives_the_same_bits() -> None:
    ends = []
    for recipe in (
        Recipe(momentum=P.Ema(0.9), scale=P.SecondMoment()),
        Recipe(momentum=P.Ema(0.9), scale=P.SecondMoment(), gradient=P.ClipNorm(1e30)),
        Recipe(momentum=P.Delayed(P.Ema(0.9), 0), scale=P.SecondMoment(), step=P.Hold(P.Fixed(1e-3), 0)),
        Recipe(geometry=P.Sum(Recipe(momentum=P.Ema(0.9), scale=P.SecondMoment()), Recipe(), weight=0.0)),
    ):
        torch.manual_seed(0)
        model = network()
        train(model, recipe.build(model), 5)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    for end in ends[1:]:
        assert torch.equal(ends[0], end)


def test_a_graft_has_one_recipes_direction_and_the_others_length() -> None:
    adam = Recipe(momentum=P.Ema(0.9), scale=P.SecondMoment())
    w = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))
    optimizer = Recipe(geometry=P.Graft(direction=adam, magnitude=Recipe()), step=1.0).build([w])
    for _ in range(3):
        before = w.detach().clone()
        w.grad = torch.randn(3, 2, dtype=torch.float64)
        optimizer.step()
        moved = w.detach() - before
        torch.testing.assert_close(moved.norm(), w.grad.norm())
    assert set(optimizer.state[w]) == {"step", "direction.ema.m", "direction.second_moment.v"}


def test_a_guard_never_renames_state() -> None:
    plain = Recipe(momentum=P.Ema(), scale=P.SecondMoment())
    guarded = Recipe(momentum=P.Delayed(P.Ema()), scale=P.Rectified(P.SecondMoment()), guard=P.Cautious())
    keys = []
    for recipe in (plain, guarded):
        w = torch.nn.Parameter(torch.ones(2))
        optimizer = recipe.build([w])
        optimizer.init_state()
        keys.append(set(optimizer.state[w]))
    assert keys[0] == keys[1]


def test_gradient_and_decay_parts_equal_their_golden_vectors() -> None:
    from cases import gradient, start

    vectors = {
        P.Centralize(): (0.2368486793, -0.0368486793, 0.4726467227, 0.3273532773, 0.7633928580, 0.6366071420),
        P.AdaptiveClip(0.01): (0.2996421714, -0.0999873078, 0.5994003996, 0.2004779789, 0.8996260679, 0.5010427298),
        P.NormLoss(0.01): (0.1964030795, -0.0877684366, 0.4573036032, 0.3101621440, 0.8243575062, 0.6981053422),
    }
    for part, expected in vectors.items():
        recipe = Recipe(**{part.question(): part}, step=0.1)  # type: ignore[arg-type]
        w = start()
        optimizer = recipe.build([w])
        for t in range(1, 7):
            w.grad = gradient(t)
            optimizer.step()
        torch.testing.assert_close(
            w.detach().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-11
        )


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        ("mean", (0.0857782337, 0.2379214893, 0.5594564804, 0.4241891435, 0.9246698282, 0.7013546770)),
        ("none", (0.0953371824, 0.1469177818, 0.5179312827, 0.4061068133, 0.8654273314, 0.6966279642)),
    ],
)
def test_cautious_normalizations_equal_their_golden_vectors(normalize: str, expected: tuple[float, ...]) -> None:
    from cases import gradient, start

    guard = P.Cautious(normalize)  # type: ignore[arg-type]
    w = start()
    optimizer = Recipe(momentum=P.Ema(), scale=P.SecondMoment(), guard=guard, step=0.1).build([w])
    for t in range(1, 7):
        w.grad = gradient(t)
        optimizer.step()
    torch.testing.assert_close(w.detach().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-11)
