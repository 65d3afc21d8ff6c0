"""A race that is killed, shared, looked at, exported and merged."""

import csv
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slalom.cli import main
from slalom.race.contestant import Named
from slalom.race.records import Outcome
from slalom.race.scoring import AlgoPerf, Table, scores
from slalom.race.store import LEASE, Store
from slalom.race.trial import Trial

SLOW = "__import__('time').sleep(0.03); x = torch.eye(3)"


def trial(key):
    return Trial("hill", None, Named("adam", (0.1,), True, name="adam"), {"lr": 0.1}, 0, 0, 10, key)


def start(*words, cwd):
    command = [sys.executable, "-c", "from slalom.cli import main; main()", "race", *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, timeout=180):
    said, _ = process.communicate(timeout=timeout)
    return said


def rows(folder):
    with sqlite3.connect(folder / "race-results" / "race.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        return database.execute("select key, status, attempts from trials").fetchall()


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_instant_no_trial_is_lost_or_repeated(toys, tmp_path, kills):
    toys.write_text(toys.read_text().replace("x = torch.eye(3)", SLOW))
    words = (toys, "adam", "sgd", "-w", "line", "--lrs", "0.1,0.2", "--seeds", 4, "--workers", 2)
    chance = random.Random(kills)
    seen = {}
    for _ in range(kills):
        process = start(*words, cwd=tmp_path)
        # From before the first import to the middle of the race.
        time.sleep(chance.uniform(0.5, 12.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (tmp_path / "race-results" / "race.db").exists():
            now = {key: attempts for key, _, attempts in rows(tmp_path)}
            assert seen.items() <= now.items()
            seen = now
    said = finish(start(*words, cwd=tmp_path))
    found = rows(tmp_path)
    assert len(found) == 16, said
    assert {(status, attempts) for _, status, attempts in found} == {("finished", 1)}


def test_the_same_race_twice_is_the_same_to_the_bit(toys, tmp_path):
    words = (toys, "adam", "muon", "-w", "line", "-w", "explodes", "--lrs", "0.1", "--seeds", 2)
    found = []
    # Another number of workers deals the trials out differently, which must not matter either.
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        said = finish(start(*words, "--workers", workers, cwd=folder))
        with sqlite3.connect(folder / "race-results" / "race.db") as database:
            outcomes = dict(database.execute("select key, outcome from trials").fetchall())
        assert len(outcomes) == 8, said
        curves = {key: json.loads(text)["curve"] for key, text in outcomes.items()}
        found.append({key: (curve["step"], curve["train"], curve["metrics"]) for key, curve in curves.items()})
    assert found[0] == found[1]


def test_a_dry_run_predicts_and_trains_nothing(toys, tmp_path):
    words = (toys, "adam", "sgd", "-w", "line", "-w", "breaks", "--seeds", 3, "--dry-run", "--json")
    said = finish(start(*words, cwd=tmp_path))
    assert "timing steps: of everybody on each workload, 4 kinds" in said
    assert re.search(r"36 trials by \d+ workers take about \d+", said), said
    assert "adam on breaks could not be timed" in said
    facts = json.loads(re.search(r"^\{.*^\}", said, re.DOTALL | re.MULTILINE)[0])
    assert facts["trials"] == 36
    assert facts["low"] < facts["seconds"] < facts["high"]
    assert {(one["workload"], one["contestant"]) for one in facts["parts"] if one["seconds"]} == {
        ("line", "adam"),
        ("line", "sgd"),
    }
    assert rows(tmp_path) == []


def test_two_processes_share_a_race(toys, tmp_path):
    toys.write_text(toys.read_text().replace("x = torch.eye(3)", SLOW))
    words = (toys, "adam", "sgd", "-w", "line", "--lrs", "0.1,0.2", "--seeds", 3, "--workers", 1)
    both = [start(*words, cwd=tmp_path) for _ in range(2)]
    said = [finish(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = rows(tmp_path)
    assert len(found) == 12
    assert {attempts for *_, attempts in found} == {1}
    done = [len(re.findall(r"^\[", text, re.MULTILINE)) for text in said]
    assert sum(done) == 12
    assert all("to target" in text for text in said)


def test_a_claim_keeps_others_away_until_it_ends(tmp_path, monkeypatch):
    first, second = Store(tmp_path), Store(tmp_path)
    assert first.claim("k") == "mine"
    assert first.claim("k") == "mine"
    assert second.claim("k") == "taken"
    assert second.claimed() == 1
    first.release()
    assert second.claim("k") == "mine"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LEASE - 1)
    assert first.claim("k") == "taken"
    second.renew()
    monkeypatch.setattr(time, "time", lambda: now + LEASE + 1)
    assert first.claim("k") == "taken"
    monkeypatch.setattr(time, "time", lambda: now + 3 * LEASE)
    assert first.claim("k") == "mine"


def test_a_claim_of_a_process_that_died_is_free_at_once(tmp_path):
    script = "from slalom.race.store import Store; from pathlib import Path; print(Store(Path('.')).claim('k'))"
    said = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "mine"
    assert Store(tmp_path).claim("k") == "mine"


def test_a_recorded_trial_is_not_claimed_unless_it_is_tried_again(tmp_path):
    store = Store(tmp_path)
    store.claim("k")
    store.record(trial("k"), Outcome("crashed", 0))
    assert store.claimed() == 0
    assert store.claim("k") == "recorded"
    assert store.claim("k", tried=1) == "mine"
    store.record(trial("k"), Outcome("crashed", 0))
    # Somebody else has tried it again in the meantime: twice is enough.
    assert store.claim("k", tried=1) == "recorded"


def test_merging_takes_what_is_unknown_and_what_finished_elsewhere(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    here, there = (Store(folder) for folder in folders)
    here.record(trial("both"), Outcome("finished", 10, reason="here"))
    here.record(trial("failed"), Outcome("crashed", 0))
    there.record(trial("both"), Outcome("finished", 10, reason="there"))
    there.record(trial("failed"), Outcome("finished", 10))
    there.record(trial("new"), Outcome("diverged", 3))
    there.close()
    assert here.merge(folders[1]) == 2
    assert here.merge(folders[1]) == 0
    found = here.outcomes(["both", "failed", "new"])
    assert {key: outcome.status for key, outcome in found.items()} == {
        "both": "finished",
        "failed": "finished",
        "new": "diverged",
    }
    assert found["both"].reason == "here"


def test_trials_of_other_code_are_counted_and_not_used(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.record(trial("k"), Outcome("finished", 10))
    assert store.foreign() == 0
    import slalom.race.store

    monkeypatch.setattr(slalom.race.store, "code_hash", lambda: "other")
    assert store.foreign() == 1
    from slalom.cli.race import other_code

    # A person who edits a part and sees everything trained again is told why.
    assert "after an edit or an upgrade everything is trained again" in other_code(store.foreign())


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """A small race that is done."""
    folder = tmp_path_factory.mktemp("raced")
    toys = Path(shutil.copy(Path(__file__).with_name("toys.py"), folder))
    words = (toys, "adam", "-c", "torch.optim.SGD:lr=0.1", "-w", "line", "--lrs", "0.1", "--seeds", 2)
    said = finish(start(*words, cwd=folder))
    assert "Report:" in said, said
    return folder


@pytest.fixture
def ask(monkeypatch, capsys):
    """Ask about a race in this process, which trains nothing."""

    def ask(*words, cwd, status=0):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["slalom", "race", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert (left.value.code or 0) == status
        return "".join(capsys.readouterr())

    return ask


def test_status_says_how_far_it_is(raced, ask):
    said = ask("status", cwd=raced)
    assert "4 of 4 trials are recorded (4 finished), 0 are running." in said
    assert "was said to take" in said
    facts = json.loads(ask("status", "--json", cwd=raced))
    assert (facts["trials"], facts["not_run"], facts["ended"]) == (4, 0, True)
    assert facts["predicted_seconds"] > 0


def test_the_report_can_be_written_again(raced, ask):
    (raced / "race-results" / "report.html").unlink()
    assert "Report:" in ask("report", cwd=raced)
    assert "torch.optim.SGD:lr=0.1" in (raced / "race-results" / "report.html").read_text()


def test_exports_are_tables_that_scoring_reads(raced, ask):
    ask("export", "--csv", "--json", cwd=raced)
    with (raced / "race-results" / "trials.csv").open() as file:
        found = list(csv.DictReader(file))
    assert len(found) == 4
    assert set(scores(AlgoPerf(), Table.of(found))) == {"adam", "torch.optim.SGD:lr=0.1"}
    with (raced / "race-results" / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4 * 3 * 6
    plain = json.loads((raced / "race-results" / "race.json").read_text(), parse_constant=pytest.fail)
    assert len(plain["trials"]) == 4
    assert plain["standings"]["pairs"]


def test_parquet_is_refused_in_a_sentence_where_pyarrow_is_missing(raced, ask):
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        assert "needs pyarrow" in ask("export", "--parquet", cwd=raced, status=2)


@pytest.mark.parametrize("words", [["status"], ["report"], ["export", "--csv"]])
def test_where_there_is_no_race_it_says_so(tmp_path, words, ask):
    assert 'there is no race in "race-results"' in ask(*words, cwd=tmp_path, status=2)
    assert os.listdir(tmp_path) == []


def test_a_race_stops_when_told_and_goes_on_later(toys, tmp_path):
    toys.write_text(toys.read_text().replace("x = torch.eye(3)", SLOW.replace("0.03", "0.5")))
    # torch's own, because compiling takes long on a busy machine.
    words = (toys, "-c", "torch.optim.SGD:lr=0.1", "-w", "line", "--seeds", 40, "--workers", 1)
    said = finish(start(*words, "--stop-after", "0.4", cwd=tmp_path))
    assert re.search(r"Stopped as told with \d+ trials to go", said), said
    assert 0 < len(rows(tmp_path)) < 40
    assert "have not been run yet" in (tmp_path / "race-results" / "report.html").read_text()


def test_targets_can_be_calibrated_anew(tmp_path, ask):
    said = ask("calibrate", "-w", "quadratic", "--seeds", "1", "--into", "targets.json", "--workers", "1", cwd=tmp_path)
    assert "quadratic: " in said
    found = json.loads((tmp_path / "targets.json").read_text())
    assert list(found) == ["quadratic"]
    assert found["quadratic"]["judge"] == "torch.optim.AdamW"
    assert len(found["quadratic"]["rates"]) == 5
    assert 0 < found["quadratic"]["reference"] <= 400
