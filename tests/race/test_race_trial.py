import dataclasses
import json
import re

import pytest
import torch

import slalom
from slalom.race import Workload
from slalom.race.contestant import enter
from slalom.race.files import choose
from slalom.race.plan import plan
from slalom.race.records import from_json, to_json
from slalom.race.rules import Ruleset
from slalom.race.trial import checkpoints, code_hash, run


@pytest.fixture
def attempt(toys):
    def attempt(name, contestant="adam", seed=0, lr=0.1):
        (entry,) = choose([str(toys)], [name])
        trial = plan([entry], enter([contestant]), seed + 1, Ruleset(lrs=(lr,))).trials[seed]
        return run(trial, entry.workload, lambda step: None)

    return attempt


def test_the_same_seed_gives_the_same_curve_to_the_bit(attempt):
    first, second = attempt("line"), attempt("line")
    assert first.curve.metrics == second.curve.metrics
    assert first.curve.train[1:] == second.curve.train[1:]


def test_seeds_differ_and_contestants_share_the_start(attempt):
    assert attempt("line").curve.loss[0] == attempt("line", "sgd").curve.loss[0]
    assert attempt("line").curve.loss[0] != attempt("line", seed=1).curve.loss[0]


def test_contestants_share_batches_and_chance_whatever_they_draw_themselves(toys, tmp_path, monkeypatch):
    (tmp_path / "drawing.py").write_text(
        "import torch\n"
        "class Draws(torch.optim.SGD):\n"
        "    def __init__(self, params, lr=0.1):\n"
        "        super().__init__(params, lr)\n"
        "        torch.rand(3)\n"
    )
    monkeypatch.chdir(tmp_path)
    text = toys.read_text().replace("        x, y = batch\n", "        x, y = batch\n        self.seen(x)\n")
    toys.write_text(text)
    seen = []
    for word in ("torch.optim.Adam:lr=0.1", "drawing.Draws"):
        (entry,) = choose([str(toys)], ["line"])
        found = []
        type(entry.workload).seen = lambda self, x, found=found: found.append((x.tolist(), float(torch.rand(()))))
        trial = plan([entry], enter([word]), 1, Ruleset("self-tuning")).trials[0]
        assert run(trial, entry.workload, lambda step: None).status == "finished"
        seen.append(found)
    assert len(seen[0]) == 30
    assert seen[0] == seen[1]


def test_a_run_is_measured_before_and_through_to_its_last_step(attempt):
    outcome = attempt("line")
    assert outcome.curve.step == (0, 4, 8, 12, 16, 20)
    assert outcome.curve.metrics["accuracy"] == (0.5,) * 6
    assert outcome.curve.loss[-1] < outcome.curve.loss[0]
    assert outcome.environment["torch"] == torch.__version__


def test_a_run_that_diverges_says_at_which_step(attempt):
    outcome = attempt("explodes")
    assert (outcome.status, outcome.stopped) == ("diverged", 6)
    assert "step 7" in outcome.reason
    assert outcome.curve.step == (0, 4)


def test_a_run_that_raises_says_what_and_where(attempt):
    outcome = attempt("breaks")
    assert outcome.status == "crashed"
    assert re.fullmatch(r"RuntimeError: .* \(toys\.py, line \d+\)", outcome.reason)


GRUMBLES = '''

class Grumbles(Line):
    """Every loss warns of the same."""

    def loss(self, model, batch):
        __import__("warnings").warn("the root is not\\nfinite", RuntimeWarning)
        return super().loss(model, batch)
'''


def test_what_a_trial_warns_of_is_kept_with_it_and_printed_nowhere(toys, attempt, capfd):
    toys.write_text(toys.read_text() + GRUMBLES)
    outcomes = [attempt("grumbles"), attempt("grumbles", seed=1), attempt("line")]
    # Python by itself would say it once a process.
    assert [outcome.warnings for outcome in outcomes] == [("the root is not finite",)] * 2 + [()]
    assert capfd.readouterr().err == ""
    assert [from_json(to_json(outcome)).warnings for outcome in outcomes] == [one.warnings for one in outcomes]
    # A store that was written before trials kept their warnings is read as before.
    before = {name: value for name, value in json.loads(to_json(outcomes[0])).items() if name != "warnings"}
    assert from_json(json.dumps(before)).warnings == ()


@pytest.mark.parametrize(("steps", "evaluations"), [(600, 25), (7, 25), (26, 25), (1, 1)])
def test_checkpoints_end_at_the_last_step(steps, evaluations):
    points = checkpoints(steps, evaluations)
    assert points[-1] == steps
    assert len(points) == min(steps, evaluations)


def test_the_key_follows_everything_that_matters(toys):
    def key(lr=0.1, contestant="adam", name="line", **settings):
        (entry,) = choose([str(toys)], [name])
        for attribute, value in settings.items():
            setattr(entry.workload, attribute, value)
        return plan([entry], enter([contestant]), 1, Ruleset(lrs=(lr,))).trials[0].key

    base = key()
    assert key() == base
    # A target judges and does not train.
    assert key(target=0.1) == base
    different = {key(lr=0.2), key(contestant="adam:eps=1e-7"), key(name="explodes"), key(steps=21), key(evaluations=4)}
    toys.write_text(toys.read_text() + "\n# edited\n")
    assert len({base, key(), *different}) == 7


def test_a_finite_stream_of_batches_is_repeated(attempt, toys):
    toys.write_text(toys.read_text().replace("while True:", "for _ in range(3):"))
    assert attempt("line").status == "finished"


def test_batches_that_never_come_are_a_crash(attempt, toys):
    toys.write_text(toys.read_text().replace("while True:", "for _ in range(0):"))
    assert "without a batch" in attempt("line").reason


def test_names_and_titles_come_from_the_class():
    class SmallThing(Workload):
        """Does something small.

        At length.
        """

    assert (SmallThing.name, SmallThing.title) == ("small_thing", "Does something small")


def test_a_quick_race_is_a_part_of_the_full_one(toys):
    entries = choose([str(toys)], ["line"])
    contestants = enter(["adam", "sgd"])
    full = {trial.key for trial in plan(entries, contestants).trials}
    quick = {trial.key for trial in plan(entries, contestants, rules=Ruleset(quick=True)).trials}
    assert quick < full
    assert (len(quick), len(full)) == (2, 12)


def test_averaged_weights_are_used_for_evaluation(toys, monkeypatch):
    from contextlib import contextmanager

    (entry,) = choose([str(toys)], ["line"])
    inside = []

    class Averaging(torch.optim.SGD):
        @contextmanager
        def averaged(self):
            inside.append(True)
            yield

    (trial,) = plan([entry], enter(["sgd"]), 1, Ruleset(lrs=(0.1,))).trials

    class StandIn:
        def build(self, model, settings):
            return Averaging(model.parameters(), **settings)

        def scheduler(self, optimizer, steps):
            return None

    run(dataclasses.replace(trial, contestant=StandIn()), entry.workload, lambda step: None)
    assert len(inside) == 6


@pytest.mark.parametrize(
    ("file", "trains"),
    [
        ("parts/scale.py", True),
        ("engine/native/emit.py", True),
        ("race/training.py", True),
        ("race/charts.py", False),
        ("lab/rank.py", False),
        ("observe/rules.py", False),
        ("pictures.py", False),
    ],
)
def test_results_outlive_a_change_of_what_only_looks_at_them(file, trains, tmp_path, monkeypatch):
    monkeypatch.setattr(slalom, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("before")
    before = code_hash.__wrapped__()
    (tmp_path / file).write_text("after")
    assert (code_hash.__wrapped__() != before) is trains
