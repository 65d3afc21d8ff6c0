"""Training scripts of one's own: the example of the documentation, and scripts that go wrong."""

import runpy
import shutil
from pathlib import Path

import pytest

from slalom.errors import UsageError
from slalom.race.contestant import enter
from slalom.race.files import choose
from slalom.race.plan import plan
from slalom.race.rules import Ruleset
from slalom.race.trial import run

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

SCRIPT = """
import sys
import torch
from slalom.race.adapt import session

race = session()
weight = torch.nn.Linear(1, 1)
optimizer = race.optimizer(weight, lambda: torch.optim.SGD(weight.parameters(), lr=0.1))
for step in range(12):
    optimizer.zero_grad()
    loss = (weight(torch.randn(4, 1)) - 1).square().mean()
    loss.backward()
    optimizer.step()
    if step % 4 == 3:
        with race.evaluating():
            race.report({report})
{end}
"""


@pytest.fixture
def attempt(tmp_path):
    def attempt(steps=12, contestant="torch.optim.SGD:lr=0.1", seed=0, report="loss", end="", arguments=()):
        (tmp_path / "train.py").write_text(SCRIPT.format(report=report, end=end))
        file = tmp_path / f"race{len(list(tmp_path.iterdir()))}.py"
        call = f"Script('train.py', steps={steps}, arguments={tuple(arguments)})"
        file.write_text(f"from slalom.race.adapt import Script\nmine = {call}\n")
        (entry,) = choose([str(file)], [])
        trial = plan([entry], enter([contestant]), seed + 1, Ruleset(quick=True)).trials[seed]
        return run(trial, entry.workload, lambda step: None)

    return attempt


def test_the_example_runs_by_itself_and_in_a_race(tmp_path, capsys):
    for file in EXAMPLES.glob("*spiral.py"):
        shutil.copy(file, tmp_path)
    runpy.run_path(str(tmp_path / "train_spiral.py"), run_name="__main__")
    assert "step  300" in capsys.readouterr().out
    (entry,) = choose([str(tmp_path / "race_spiral.py")], [])
    assert (entry.workload.name, entry.workload.steps, entry.workload.target) == ("train_spiral", 300, 0.4)
    trials = plan(
        [entry], enter(["torch.optim.AdamW:lr=0.01", "torch.optim.SGD:lr=0.1"]), 1, Ruleset(quick=True)
    ).trials
    adamw, sgd = (run(trial, entry.workload, lambda step: None) for trial in trials)
    assert (adamw.status, adamw.stopped) == (sgd.status, sgd.stopped) == ("finished", 300), adamw.reason
    assert adamw.curve.step == tuple(range(20, 301, 20))
    assert set(adamw.curve.metrics) == {"loss", "accuracy"}
    # The contestant trains and not the script's own optimizer; its output stays out of the race's.
    assert adamw.curve.loss[-1] < 0.6 * sgd.curve.loss[-1]
    assert capsys.readouterr().out == ""


def test_steps_and_times_are_counted(attempt):
    outcome = attempt()
    assert (outcome.status, outcome.stopped) == ("finished", 12), outcome.reason
    assert outcome.curve.step == (4, 8, 12)
    assert outcome.curve.wall[-1] == pytest.approx(outcome.parts["train"], rel=0.2)
    assert 0 < outcome.optimizer_ms <= outcome.step_ms


def test_the_same_seed_gives_the_same_curve_and_another_one_another(attempt):
    assert attempt().curve.loss == attempt().curve.loss
    assert attempt().curve.loss != attempt(seed=1).curve.loss


def test_a_script_that_would_go_on_is_ended_at_the_budget(attempt):
    outcome = attempt(steps=8)
    assert (outcome.status, outcome.stopped, outcome.curve.step) == ("finished", 8, (4, 8)), outcome.reason


def test_a_method_that_averages_is_evaluated_at_its_average(attempt, monkeypatch):
    from slalom.race.adapt import RaceSession, session

    optimizers = []
    original = RaceSession.report

    def report(self, loss, **metrics):
        optimizers.append(self._optimizer)
        original(self, loss, **metrics)

    monkeypatch.setattr(RaceSession, "report", report)
    outcome = attempt(contestant="schedule-free-sgd:lr=0.1", report="weight.weight.sum()")
    assert outcome.status == "finished", outcome.reason
    assert not session().racing
    weight = optimizers[-1].param_groups[0]["params"][0]
    last = weight.sum().item()
    with optimizers[-1].averaged():
        assert outcome.curve.loss[-1] == pytest.approx(weight.sum().item())
        assert outcome.curve.loss[-1] != pytest.approx(last)


@pytest.mark.parametrize(
    ("given", "status", "sentence"),
    [
        ({"steps": 20}, "crashed", "ended after 12 of 20 steps"),
        ({"report": "float('nan')"}, "diverged", "validation loss nan"),
        ({"end": "raise ValueError('mine')"}, "crashed", "ValueError: mine (train.py, line"),
        ({"end": "sys.exit(3)"}, "crashed", "left with status 3"),
        ({"end": "sys.exit(0)"}, "finished", ""),
        ({"report": "loss); race.report(loss"}, "crashed", "two reports after step 4"),
        ({"end": "assert sys.argv[1:] == ['--x', '1']", "arguments": ["--x", "1"]}, "finished", ""),
    ],
)
def test_what_goes_wrong_in_a_script_is_an_outcome(attempt, given, status, sentence):
    outcome = attempt(**given)
    assert outcome.status == status, outcome.reason
    assert sentence in outcome.reason


def test_a_missing_script_is_named(tmp_path):
    (tmp_path / "race.py").write_text("from slalom.race.adapt import Script\nmine = Script('none.py', steps=3)\n")
    with pytest.raises(UsageError, match="no script"):
        choose([str(tmp_path / "race.py")], [])


def test_an_edited_script_is_another_workload(tmp_path):
    shutil.copy(EXAMPLES / "train_spiral.py", tmp_path)
    shutil.copy(EXAMPLES / "race_spiral.py", tmp_path)
    (entry,) = choose([str(tmp_path / "race_spiral.py")], [])
    before = entry.workload.data_hash()
    script = tmp_path / "train_spiral.py"
    script.write_text(script.read_text().replace("64", "32"))
    assert entry.workload.data_hash() != before
