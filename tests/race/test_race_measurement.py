"""What is measured: timers that add up, limits that hold, machines that were disturbed."""

import io
import math
import time

import pytest
from rich.console import Console

from slalom.race.calibration import disturbed, kernel
from slalom.race.contestant import enter
from slalom.race.files import choose
from slalom.race.forecast import Forecast
from slalom.race.plan import plan
from slalom.race.pool import Pool
from slalom.race.records import Curve, Outcome
from slalom.race.results import gather
from slalom.race.rules import Ruleset
from slalom.race.trial import run
from slalom.race.work import Cost, Finished, Measure, Measured


def one(toys, name="line", contestant="adam"):
    (entry,) = choose([str(toys)], [name])
    return entry.workload, plan([entry], enter([contestant]), 1, Ruleset(lrs=(0.1,))).trials[0]


def test_the_timers_add_up_to_the_clock_on_the_wall(toys):
    slow = "__import__('time').sleep(0.02); return (model(x) - y).square().mean()"
    toys.write_text(toys.read_text().replace("return (model(x) - y).square().mean()", slow))
    workload, trial = one(toys)
    began = time.perf_counter()
    outcome = run(trial, workload, lambda step: None)
    wall = time.perf_counter() - began
    assert set(outcome.parts) == {"setup", "train", "evaluate", "calibrate"}
    assert sum(outcome.parts.values()) == pytest.approx(outcome.seconds, rel=0.05)
    assert outcome.seconds == pytest.approx(wall, rel=0.05)
    # Sleeping is wall time and no CPU time; the curve's clocks run in training only.
    assert outcome.curve.wall[-1] == pytest.approx(outcome.parts["train"])
    assert outcome.curve.wall[-1] > 20 * 0.02
    assert outcome.curve.cpu[-1] < 0.5 * outcome.curve.wall[-1]


def test_evaluating_is_not_training(toys):
    slow = 'x = torch.eye(3)\n        __import__("time").sleep(0.05)'
    toys.write_text(toys.read_text().replace("x = torch.eye(3)", slow))
    workload, trial = one(toys, contestant="torch.optim.SGD:lr=0.1")
    outcome = run(trial, workload, lambda step: None)
    assert outcome.parts["evaluate"] >= 6 * 0.05
    assert outcome.parts["train"] == outcome.curve.wall[-1] < outcome.parts["evaluate"]
    assert outcome.curve.wall[0] == 0.0


def test_there_are_as_many_evaluations_as_declared_and_one_before(toys):
    workload, trial = one(toys)
    assert len(run(trial, workload, lambda step: None).curve.step) == workload.evaluations + 1


def test_a_trial_stops_when_its_time_is_over_and_keeps_its_curve(toys):
    text = toys.read_text().replace("x = torch.randn(8", "__import__('time').sleep(0.05); x = torch.randn(8")
    toys.write_text(text)
    workload, trial = one(toys)
    outcome = run(trial, workload, lambda step: None, timeout=0.6)
    assert outcome.status == "timeout"
    assert "stopped after 0.6 s" in outcome.reason
    assert 4 <= outcome.stopped < 20
    assert outcome.curve.step[:2] == (0, 4)


def test_a_step_that_never_ends_is_killed(toys):
    text = toys.read_text().replace("class Breaks(Line):", "class Hangs(Line):\n    def loss(self, model, batch):\n"
                                    "        __import__('time').sleep(600)\n\n\nclass Breaks(Line):")  # fmt: skip
    toys.write_text(text)
    # torch's own, because compiling takes long on a busy machine.
    _, hangs = one(toys, "hangs", "torch.optim.SGD:lr=0.1")
    _, line = one(toys, "line", "torch.optim.SGD:lr=0.1")
    with Pool(1) as pool:
        done = [event for event in pool.run([hangs, line], timeout=5.0) if isinstance(event, Finished)]
    assert [event.outcome.status for event in done] == ["timeout", "finished"]
    assert "did not come to its end" in done[0].outcome.reason


def test_the_cost_of_a_step_is_measured_for_each_contestant(toys):
    (adam,) = enter(["adam"])
    with Pool(1) as pool:
        jobs = [Measure("line", str(toys), adam), Measure("breaks", str(toys), adam)]
        costs = [event.cost for event in pool.run(jobs, at_once=1) if isinstance(event, Measured)]
    assert 0 < costs[0].step_ms < 50
    assert costs[0].step > 0
    assert costs[1] is None


def test_what_a_method_does_now_and_then_is_part_of_what_its_step_costs():
    from slalom.race.work import ROUND, _time

    spent = []

    def step():
        spent.append(None)
        # Two that warm up come first; every tenth step is dear.
        until = time.process_time() + (0.02 if len(spent) % 10 == 2 else 0.0)
        while time.process_time() < until:
            pass

    cpu, _ = _time(step, ROUND)
    assert 0.002 <= cpu < 0.003  # a median of steps would say 0


def test_a_dear_step_now_and_then_is_waited_for_and_one_that_is_always_dear_is_timed_once(monkeypatch):
    from slalom.race import work

    clock, steps = [0.0], []

    def passing(cost):
        def step():
            steps.append(None)
            clock[0] += cost(len(steps))

        return step

    monkeypatch.setattr(work.time, "process_time", lambda: clock[0])
    monkeypatch.setattr(work.time, "perf_counter", lambda: clock[0])
    # The first step and every tenth after it take seven seconds, as the roots of large factors do.
    assert work._time(passing(lambda step: 7.0 if step % 10 == 1 else 0.1), 10) == pytest.approx((0.79, 0.79))
    steps.clear()
    assert work._time(passing(lambda step: 12.0), 10) == (12.0, 12.0)
    assert len(steps) == 1
    # Waiting without working: as many as there is patience for.
    steps.clear()
    monkeypatch.setattr(work.time, "process_time", lambda: 0.0)
    assert work._time(passing(lambda step: 3.0), 10, patience=16.0)[1] == pytest.approx(3.0)
    assert len(steps) == 6


def test_a_step_that_is_not_waited_for_is_known_to_be_long(toys):
    text = toys.read_text().replace("class Breaks(Line):", "class Hangs(Line):\n    def loss(self, model, batch):\n"
                                    "        __import__('time').sleep(600)\n\n\nclass Breaks(Line):")  # fmt: skip
    toys.write_text(text)
    (sgd,) = enter(["torch.optim.SGD:lr=0.1"])
    with Pool(1) as pool:
        jobs = [Measure("hangs", str(toys), sgd), Measure("line", str(toys), sgd)]
        hangs, line = (event.cost for event in pool.run(jobs, timeout=5.0) if isinstance(event, Measured))
    assert hangs == Cost(5000.0, 5.0, 0.0)
    assert line.step < 1.0


def test_a_trial_that_would_end_near_its_beginning_is_not_begun(toys, tmp_path):
    from slalom.race.runner import Limits
    from slalom.race.runner import run as race
    from slalom.race.screen import Lines
    from slalom.race.store import Store
    from slalom.race.survey import fingerprint

    entries = choose([str(toys)], ["line"])
    both = plan(entries, enter(["torch.optim.SGD:lr=0.1", "torch.optim.Adam:lr=0.1"]), 1, Ruleset())
    store = Store(tmp_path)
    # Of the first it is known that a step takes twenty seconds.
    slow, quick = both.contestants
    store.keep_cost("line", slow.label, fingerprint(slow), 20_000.0, 20.0, 0.0)
    store.keep_cost("line", quick.label, fingerprint(quick), 1.0, 0.001, 0.0)
    said = Console(file=io.StringIO())
    assert race(both, store, 1, Lines(said), Limits(timeout=60.0))
    found = store.outcomes(trial.key for trial in both.trials)
    outcomes = {trial.contestant.label: found[trial.key] for trial in both.trials}
    assert outcomes[quick.label].status == "finished"
    assert (outcomes[slow.label].status, outcomes[slow.label].stopped) == ("timeout", 0)
    assert "after 3 of 20 steps" in outcomes[slow.label].reason
    assert "after 3 of 20 steps" in said.file.getvalue()
    # Nobody tries it again with no more time.
    assert race(both, store, 1, Lines(said), Limits(timeout=60.0))
    assert "nothing to train" in said.file.getvalue()
    assert store.attempts()[both.trials[0].key] == 1


def test_a_forecast_counts_steps_and_evaluations_and_learns(toys):
    (entry,) = choose([str(toys)], ["line"])
    race = plan([entry], enter(["adam"]), 2, Ruleset(lrs=(0.1,)))
    forecast = Forecast(race, {("line", "adam"): Cost(10.0, 0.01, 0.1)}, workers=2)
    assert forecast.trial(race.trials[0]) == pytest.approx(20 * 0.01 + 6 * 0.1)
    assert forecast.rest(race.trials).seconds == pytest.approx(0.8)
    forecast.learn(race.trials[0], Outcome("finished", 20, seconds=2.0))
    forecast.learn(race.trials[0], Outcome("timeout", 20, seconds=900.0))
    assert forecast.rest(race.trials).seconds == pytest.approx(2.0)


def test_the_kernel_takes_about_the_same_time_twice():
    fastest = min(kernel() for _ in range(5))
    assert 0 < fastest < 100


def test_a_trial_is_disturbed_if_the_machine_was_slower_before_or_after():
    assert not disturbed((1.0, 1.05), 1.0)
    assert disturbed((1.0, 1.2), 1.0)
    assert disturbed((1.2, 1.0), 1.0)
    assert not disturbed((), 1.0)


def test_disturbed_trials_are_counted_in_the_caveat(toys):
    from slalom.race.results import caveat

    (entry,) = choose([str(toys)], ["line"])
    race = plan([entry], enter(["adam"]), 3, Ruleset(lrs=(0.1,)))
    curve = Curve((0, 20), (math.nan, 1.0), {"loss": (2.0, 1.0)}, (0.0, 1.0), (0.0, 1.0))
    outcomes = {
        trial.key: Outcome("finished", 20, curve=curve, calibration=(1.0, 1.0 if trial.seed else 1.5))
        for trial in race.trials
    }
    assert "disturbed" not in caveat(gather(race, {}))
    found = gather(race, outcomes)
    assert found.disturbed == {race.trials[0].key}
    assert "disturbed around 1 of 3 trials" in caveat(found)


def test_an_optimizer_without_a_learning_rate_races(toys, tmp_path, monkeypatch):
    (tmp_path / "rateless.py").write_text(
        "import torch\n"
        "class Halve(torch.optim.Optimizer):\n"
        "    def __init__(self, params): super().__init__(params, {})\n"
        "    def step(self, closure):\n"
        "        loss = closure()\n"
        "        for group in self.param_groups:\n"
        "            for p in group['params']: p.data.sub_(p.grad, alpha=0.1)\n"
        "        return loss\n"
    )
    monkeypatch.chdir(tmp_path)
    (entry,) = choose([str(toys)], ["line"])
    (halve,) = enter(["rateless.Halve"])
    trials = plan([entry], [halve], 1, Ruleset("self-tuning")).trials
    assert [dict(trial.settings) for trial in trials] == [{}]
    outcome = run(trials[0], entry.workload, lambda step: None)
    assert outcome.status == "finished"
    assert outcome.curve.loss[-1] < outcome.curve.loss[0]
    assert math.isnan(trials[0].lr)


def test_a_forecast_judges_unseen_kinds_by_the_pace_of_those_seen(toys):
    entries = choose([str(toys)], ["line", "explodes"])
    race = plan(entries, enter(["adam"]), 1, Ruleset(lrs=(0.1,)))
    costs = {("line", "adam"): Cost(10.0, 0.01, 0.0), ("explodes", "adam"): Cost(10.0, 0.02, 0.0)}
    line, explodes = race.trials
    forecast = Forecast(race, costs, workers=1)
    assert forecast.trial(explodes) == pytest.approx(20 * 0.02)
    assert Forecast(race, costs, workers=1, crowding=1.5).trial(explodes) == pytest.approx(1.5 * 20 * 0.02)
    # The machine turns out to be three times as slow as it was when steps were timed.
    forecast.learn(line, Outcome("finished", 20, seconds=3 * 20 * 0.01))
    assert forecast.trial(explodes) == pytest.approx(3 * 20 * 0.02)


def test_the_range_of_a_forecast_narrows_as_trials_come_in_as_expected_and_widens_if_they_do_not(toys):
    (entry,) = choose([str(toys)], ["line"])
    race = plan([entry], enter(["adam"]), 1, Ruleset(lrs=(0.1,)))
    (trial,) = race.trials

    def width(*seconds):
        forecast = Forecast(race, {("line", "adam"): Cost(10.0, 0.01, 0.0)}, workers=1)
        for one in seconds:
            forecast.learn(trial, Outcome("finished", 20, seconds=one))
        left = forecast.rest(race.trials)
        assert left.low < left.seconds < left.high
        return left.high / left.low

    # Before anything is seen a third either way.
    assert width() == pytest.approx(1.35**2, rel=0.01)
    assert width(0.2, 0.2, 0.2) < width(0.2) < width()
    assert width(0.2, 0.5, 0.2) > width(0.2, 0.2, 0.2)


def test_the_wall_time_of_a_step_counts_the_waiting_and_its_cpu_time_does_not():
    import time

    from slalom.race.work import _time

    calls = iter([0.0] * 2 + [0.0, 0.0, 0.1] * 500)
    cpu, wall = _time(lambda: time.sleep(next(calls)), 30)
    # Most calls do not wait; a median of wall times would not notice those that do.
    assert wall > 0.02
    assert cpu < 0.01
