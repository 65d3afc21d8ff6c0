"""A race on a real Ray cluster that is started on this machine: results, lost workers, resuming."""

import json
import os
import re
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip("ray", reason="ray is an optional extra")
pytestmark = pytest.mark.slow

# The first worker that trains it is killed; whoever comes next finds the mark and goes on.
FRAGILE = '''

class Fragile(Line):
    """Kills the first worker that trains it."""

    def evaluate(self, model):
        mark = __file__ + ".killed"
        # A trial evaluates before its first step; a measurement of what steps cost does not, and is to be spared.
        if model.weight.grad is None:
            model.in_trial = True
        elif getattr(model, "in_trial", False) and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(model)
'''


def race(*words, cwd):
    command = [sys.executable, "-c", "from slalom.cli import main; main()", "race", *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)
    return done.returncode, done.stdout + done.stderr


def rows(folder):
    with sqlite3.connect(folder / "race-results" / "race.db") as database:
        return database.execute(
            "select workload, status, attempts, outcome from trials order by workload, study"
        ).fetchall()


def test_a_race_on_ray_equals_one_in_processes_and_survives_a_lost_worker(toys, tmp_path):
    toys.write_text(toys.read_text() + FRAGILE)
    (tmp_path / "here").mkdir()
    # torch's own methods, because compiling ours takes long on a busy machine.
    words = (toys, "-c", "torch.optim.SGD:lr=0.1", "-w", "line", "-w", "fragile", "--seeds", 2)
    status, said = race(*words, "--on", "ray", "--workers", 2, cwd=tmp_path)
    assert status == 0, said
    found = rows(tmp_path)
    assert [(name, state, attempts) for name, state, attempts, _ in found if name == "line"] == [
        ("line", "finished", 1)
    ] * 2
    assert [row[1:3] for row in found if row[0] == "fragile"] == [("finished", 1)] * 2
    assert (tmp_path / "toys.py.killed").exists()
    # The same trials in processes: the same curves to the bit, under the same keys.
    status, said = race(*words, "--workers", 1, cwd=tmp_path / "here")
    assert status == 0, said
    curves = [
        [json.loads(row[3])["curve"]["metrics"] for row in rows(folder)] for folder in (tmp_path, tmp_path / "here")
    ]
    assert curves[0] == curves[1]
    # And there is nothing left to do, wherever.
    status, said = race(*words, "--on", "ray", cwd=tmp_path)
    assert "nothing to train" in said


def test_a_trial_that_always_kills_its_worker_is_a_crash(toys, tmp_path):
    words = (toys, "-c", "torch.optim.SGD:lr=0.1", "-w", "dies", "-w", "line", "--seeds", 1)
    _, said = race(*words, "--on", "ray", "--workers", 1, cwd=tmp_path)
    assert {row[0]: row[1] for row in rows(tmp_path)} == {"dies": "crashed", "line": "finished"}, said
    assert re.search("3 workers were lost in it", said)
