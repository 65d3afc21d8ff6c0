import base64
import copy
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest

from slalom.race.contestant import Named
from slalom.race.files import Entry
from slalom.race.leaderboard import show
from slalom.race.plan import Plan
from slalom.race.records import Curve, Outcome
from slalom.race.report import render, write
from slalom.race.results import answer, as_json, gather
from slalom.race.trial import Trial
from slalom.race.workloads.digits import DigitsMlp

HOSTILE = '<script>alert("x")</script>'


def results(title="A hill", labels=("adam", "sgd:momentum=0.9"), target=1.0, missing=0):
    workload = DigitsMlp()
    workload.title, workload.target, workload.steps = title, target, 20
    contestants = tuple(Named(label, (0.1, 0.2), False, name=label, arguments={"x": title}) for label in labels)
    trials, outcomes = [], {}
    for place, contestant in enumerate(contestants):
        for index, lr in enumerate(contestant.lrs):
            for seed in (0, 1):
                key = f"{contestant.label}/{lr}/{seed}"
                trials.append(Trial(workload.name, None, contestant, {"lr": lr}, index, seed, 20, key))
                losses = (3.0, 1.5 + place, 0.5 + place + lr + seed / 10)
                axis = (0.0, 0.1, 0.2)
                curve = Curve((0, 10, 20), (math.nan, 2.0, 1.0), {"loss": losses, "accuracy": (0.1,) * 3}, axis, axis)
                outcomes[key] = Outcome("finished", 20, curve=curve, step_ms=1.0, environment={"python": "3"})
    outcomes["adam/0.2/1"] = Outcome("diverged", 3, "training loss nan at step 4 " + title)
    for trial in trials[:missing]:
        del outcomes[trial.key]
    plan = Plan((Entry(workload, None, "0" * 64),), contestants, (0, 1), tuple(trials))
    return gather(plan, outcomes)


class Page(HTMLParser):
    """What a browser would load, run and find by id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.loads, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in {"src", "href", "xlink:href", "action", "data"} and not value.startswith("#"):
                self.loads.append(value)

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_loads_nothing_and_runs_its_own_script_alone():
    text = render(results(), "slalom race")
    page = Page(text)
    assert page.loads == []
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The policy names that script by its hash, so that a browser refuses every other.
    assert f"script-src 'sha256-{digest}'" in text
    assert not re.search(r"\son\w+=", text)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_hostile_text_stays_text():
    page = Page(render(results(title=HOSTILE), f"slalom race '{HOSTILE}'"))
    assert page.tags.count("script") == 1
    assert HOSTILE in page.text


def test_a_hostile_label_stays_text_in_the_charts_too():
    page = Page(render(results(labels=("adam", f"b{HOSTILE}$x^2$")), "slalom race"))
    assert page.tags.count("script") == 1


def test_ids_are_unique_and_every_reference_is_defined():
    text = render(results(), "slalom race")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= set(page.ids)


def test_charts_take_their_colours_from_the_page():
    text = render(results(), "slalom race")
    svg = "".join(re.findall(r"<figure.*?</figure>", text, re.DOTALL))
    assert "currentColor" in svg
    assert "var(--colour-0)" in svg
    assert 'data-entrant="1"' in svg
    assert not re.search(r"#[0-9a-f]{6}", svg)


def test_without_a_target_there_is_no_chart_of_it():
    text = render(results(target=None), "slalom race")
    assert text.count("<figure") == 3
    assert "Time to" not in text
    assert "AlgoPerf score" not in text


def test_a_report_of_a_part_says_so():
    assert "3 of 8 trials have not been run" in render(results(missing=3), "slalom race")
    assert "nothing to compare" in render(results(missing=8), "slalom race")


def test_every_table_can_be_sorted_by_keyboard():
    text = render(results(), "slalom race")
    headers = re.findall(r"<th[^e].*?</th>", text, re.DOTALL)
    assert len(headers) > 20
    assert all('<button type="button">' in header and 'scope="col"' in header for header in headers)
    assert text.count('class="sortable"') == text.count("<table")


def test_the_leaderboard_has_scores_with_intervals_and_profiles():
    text = render(results(), "slalom race")
    assert 'id="standings"' in text
    assert "Performance profiles" in text
    assert "Every pair" in text
    assert "undecided" in text


def test_the_terminal_says_the_same_without_the_page(capsys):
    from rich.console import Console

    show(results(), Console(width=100))
    said = capsys.readouterr().out
    assert "AlgoPerf score" in said
    assert "no two can be told apart" in " ".join(said.split())
    assert "speed-up is over" in said


def test_who_beats_whom_is_said_where_an_interval_says_it():
    (verdict,) = [s for s in answer(decided(0.001)).split(". ") if "beats" in s]
    assert verdict.startswith("By steps to target adam beats sgd")
    assert "95 % interval" in verdict
    assert "no two can be told apart" in answer(decided(0.6))


def decided(noise):
    """Five studies in which sgd takes half again as long, up to noise."""
    found = results(labels=("adam", "sgd"))
    trials, outcomes = [], {}
    for place, contestant in enumerate(found.plan.contestants):
        for seed in range(5):
            late = 10 * (1 + 0.5 * place) * (1 + noise * (-1) ** seed * (1 - 2 * place))
            curve = Curve((0, 5, late, 20), (1.0,) * 4, {"loss": (3.0, 2.0, 1.0, 0.5)}, (0.0,) * 4, (0.0,) * 4)
            key = f"{contestant.label}/{seed}"
            trials.append(Trial(DigitsMlp.name, None, contestant, {"lr": 0.1}, 0, seed, 20, key))
            outcomes[key] = Outcome("finished", 20, curve=curve, step_ms=1.0)
    plan = Plan(found.plan.entries, found.plan.contestants, tuple(range(5)), tuple(trials))
    return gather(plan, outcomes)


def test_a_ladder_shows_advantage_against_size():
    from slalom.race.workloads import built_in

    entries, trials, outcomes = [], [], {}
    base = results(labels=("adamw", "muon"))
    for name in ("charlm_xs", "charlm_s"):
        workload = copy.copy(built_in()[name])
        workload.target = 1.0
        entries.append(Entry(workload, None, "0" * 64))
        for place, contestant in enumerate(base.plan.contestants):
            for seed in range(3):
                late = (10 + seed) * (1 + place)
                curve = Curve((0, late), (1.0,) * 2, {"loss": (2.0, 1.0)}, (0.0,) * 2, (0.0,) * 2)
                key = f"{name}/{contestant.label}/{seed}"
                trials.append(Trial(name, None, contestant, {"lr": 0.1}, 0, seed, workload.steps, key))
                outcomes[key] = Outcome("finished", late, curve=curve, step_ms=1.0)
    found = gather(Plan(tuple(entries), base.plan.contestants, (0, 1, 2), tuple(trials)), outcomes)
    rungs = found.standings.ladder["muon"]
    assert [rung.workload for rung in rungs] == ["charlm_xs", "charlm_s"]
    assert rungs[0].size < rungs[1].size
    assert rungs[0].advantage.ratio == pytest.approx(0.5)
    assert "Advantage against size" in render(found, "slalom race")


def test_published_speed_ups_stand_beside_ours_with_their_scale():
    text = render(results(labels=("adamw", "muon")), "slalom race")
    assert "Published elsewhere, at another scale" in text
    assert "arXiv:2509.02046" in text
    assert "Published elsewhere" not in render(results(), "slalom race")


def test_a_report_is_written_whole(tmp_path):
    write(results(), tmp_path / "report.html", "slalom race")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_json_holds_the_ranking_without_infinities():
    import json

    plain = json.loads(json.dumps(as_json(results()), allow_nan=False))
    (one,) = plain["workloads"]
    assert [row["contestant"] for row in one["ranking"]] == ["adam", "sgd:momentum=0.9"]
    assert one["ranking"][0]["loss"] == pytest.approx(0.65)
    assert one["ranking"][1]["steps_to_target"] is None
    assert plain["failures"][0]["status"] == "diverged"


def test_who_has_not_run_yet_leaves_dashes_and_no_chart_of_nothing():
    found = results(missing=4)  # the baseline, with which everybody is compared
    text = render(found, "slalom race")
    cells = [cell.strip() for cell in re.findall(r"<td[^>]*>([^<]*)", text)]
    assert "nan" not in cells
    # An interval without an end was once written with 305 digits.
    assert max(len(cell) for cell in cells if re.fullmatch(r"[<>~]?[\d.]+", cell)) <= 9
    assert "Performance profiles" in text
    assert "Speed-up over" not in text.partition("</thead>")[2]
    assert json.loads(json.dumps(as_json(found), allow_nan=False))["standings"]["pairs"][0]["ratio"] is None
