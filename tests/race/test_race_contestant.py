import pytest
from toys import Line

from slalom.errors import UsageError
from slalom.race.contestant import DEFAULT, enter, parse_lrs
from slalom.race.training import Meter, Training


def test_the_default_contestants_can_be_built():
    assert [contestant.label for contestant in enter(DEFAULT)] == list(DEFAULT)
    assert all(len(contestant.lrs) == 3 for contestant in enter(DEFAULT))


def test_a_spec_is_read_with_pythons_grammar():
    (adam,) = enter(["adam:betas=(0.8,0.9),eps=1e-6,amsgrad=true"])
    assert adam.arguments == {"betas": (0.8, 0.9), "eps": 1e-6, "amsgrad": True}


def test_a_rate_in_the_spec_is_the_only_rate():
    (adam,) = enter(["adam:lr=0.02"])
    assert adam.lrs == (0.02,)


def test_the_identity_holds_defaults_too():
    (adam,) = enter(["adam"])
    assert adam.identity()["betas"] == (0.9, 0.999)


def test_a_toml_recipe_is_tried_around_its_own_rate(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "adam"\nlr = 0.03\n')
    (mine,) = enter([str(path)])
    assert mine.label == "mine"
    assert mine.lrs == pytest.approx((0.01, 0.03, 0.09))


@pytest.mark.parametrize("moved", ["lr", "momentum.momentum"])
def test_a_schedule_in_the_file_takes_the_place_of_the_workloads_where_it_moves_the_rate(tmp_path, moved):
    path = tmp_path / "mine.toml"
    path.write_text(f'recipe = "sgd"\nlr = 0.02\nmomentum = 0.5\n[schedule]\n"{moved}" = "linear 50%"\n')
    (mine,) = enter([str(path)])
    workload = Line()
    workload.schedule = lambda progress: 1 / (1 + progress)
    training = Training(workload, mine, {"lr": 0.02}, seed=0, steps=4)
    seen = []
    group = training.optimizer.param_groups[0]
    training.optimizer.register_step_pre_hook(lambda *_: seen.append((group["lr"], group["momentum.momentum"])))
    for step in range(1, 5):
        training.step(step, Meter())
    rates, momenta = zip(*seen, strict=True)
    halves = (1.0, 0.5, 0.0, 0.0)
    if moved == "lr":
        assert rates == pytest.approx([0.02 * factor for factor in halves])
        assert momenta == (0.5,) * 4
    else:
        assert rates == pytest.approx([0.02 / (1 + step / 4) for step in range(4)])
        assert momenta == pytest.approx([0.5 * factor for factor in halves])


def test_a_schedule_that_cannot_be_read_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('recipe = "adam"\n[schedule]\nlr = "cosin 100"\n')
    with pytest.raises(UsageError, match="Did you mean cosine"):
        enter([str(path)])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["adamm"], "Did you mean adam"),
        (["adam:betaz=1"], "betas"),
        (["adam:eps"], "key=value"),
        (["adam:betas=(0.9,"], "key=value"),
        (["adam", "adam"], "two contestants"),
        (["missing.toml"], "missing.toml"),
        (["adam:betas=(0.9,2.0)"], "adam:betas"),
    ],
)
def test_what_cannot_race_is_refused_in_a_sentence(words, sentence):
    with pytest.raises(UsageError, match=sentence.replace("(", r"\(")):
        enter(words)


def test_learning_rates_are_sorted_and_distinct():
    assert parse_lrs("3e-3, 1e-3,1e-3") == (1e-3, 3e-3)


@pytest.mark.parametrize("text", ["", "fast", "1e-3,,", "-1", "nan", "inf", "0"])
def test_malformed_learning_rates_are_refused(text):
    with pytest.raises(UsageError, match="learning rates"):
        parse_lrs(text)
