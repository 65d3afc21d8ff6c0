"""A race on real Ray clusters that are started on this machine: results, lost workers, resuming, a job for SLURM."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

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


@pytest.fixture
def surroundings(tmp_path):
    """What Ray finds in the environment: no cluster, and no token of somebody's that it would ask for."""
    found = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**found, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def race(surroundings):
    def race(*words, cwd):
        command = [sys.executable, "-c", "from slalom.cli import main; main()", "race", *map(str, words)]
        done = subprocess.run(
            command, cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=900, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return race


@pytest.fixture
def session(surroundings, tmp_path):
    """Run a command with everything that it starts in a session of its own, all of which ends with the test."""
    begun = []

    def session(*words, **environment):
        log = tmp_path / "session.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*map(str, words)],
                cwd=tmp_path,
                env={**surroundings, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        begun.append(process.pid)
        return process.wait(timeout=600), log.read_text()

    yield session
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(entry.name)) in begun:
                os.kill(int(entry.name), signal.SIGKILL)


def free():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(params=["joined here", "ray://"])
def where(request, session, tmp_path):
    """Where to race: on a cluster that the race starts, and on one that runs already, through its client server."""
    if request.param == "joined here":
        return "ray"
    port, client = free(), free()
    status, said = session(
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=2"),
        *(f"--ray-client-server-port={client}", "--include-dashboard=false", "--disable-usage-stats"),
        *("--min-worker-port=0", "--max-worker-port=0"),
    )
    assert status == 0, said
    return f"ray://127.0.0.1:{client}"


def rows(folder):
    with sqlite3.connect(folder / "race-results" / "race.db") as database:
        return database.execute(
            "select workload, status, attempts, outcome from trials order by workload, study"
        ).fetchall()


def test_a_race_on_ray_equals_one_in_processes_and_survives_a_lost_worker(toys, tmp_path, race, where):
    toys.write_text(toys.read_text() + FRAGILE)
    (tmp_path / "here").mkdir()
    # torch's own methods, because compiling ours takes long on a busy machine.
    words = (toys, "-c", "torch.optim.SGD:lr=0.1", "-w", "line", "-w", "fragile", "--seeds", 2)
    status, said = race(*words, "--on", where, "--workers", 2, cwd=tmp_path)
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
    status, said = race(*words, "--on", where, cwd=tmp_path)
    assert "nothing to train" in said


def test_a_trial_that_always_kills_its_worker_is_a_crash(toys, tmp_path, race):
    words = (toys, "-c", "torch.optim.SGD:lr=0.1", "-w", "dies", "-w", "line", "--seeds", 1)
    _, said = race(*words, "--on", "ray", "--workers", 1, cwd=tmp_path)
    assert {row[0]: row[1] for row in rows(tmp_path)} == {"dies": "crashed", "line": "finished"}, said
    assert re.search("3 workers were lost in it", said)


def test_where_no_cluster_answers_one_sentence_says_so(toys, tmp_path, race, surroundings):
    surroundings["RAY_CLIENT_MAX_CONNECTION_ATTEMPTS"] = "1"
    status, said = race(toys, "-c", "torch.optim.SGD:lr=0.1", "--on", f"ray://127.0.0.1:{free()}", cwd=tmp_path)
    assert status == 2
    assert re.fullmatch(r'slalom: no Ray cluster answers at "ray://127.0.0.1:\d+": .*; docs/cluster.md .*\.\n', said)


SHIMS = {
    # One machine plays all nodes, so where a task is to run does not matter; that it is asked for is noted.
    "srun": 'echo "$*" >> srun.log\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"',
    "scontrol": '[[ "$1 $2" == "show hostnames" ]] && tr , "\\n" <<< "$3"',
    "ray": 'exec "$PYTHON" -m ray.scripts.scripts "$@"',
    # The race of the page takes hours; this one is its smallest part.
    "slalom": 'set -- "${@/#--tier/-w}"\nset -- "${@/#laptop/quadratic}"\n'
    'exec "$PYTHON" -c "from slalom.cli import main; main()" "$@" --trials 1 --studies 1',
}


def test_the_job_for_slurm_on_the_page_races(tmp_path, session):
    with socket.socket() as one:
        if one.connect_ex(("localhost", 6379)) == 0:
            pytest.skip("something answers at the port that the page names")
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    job = tmp_path / "job.sh"
    job.write_text(re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)[1])
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in SHIMS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    status, said = session(
        *("bash", "-e", job),
        PATH=f"{folder}:{os.environ['PATH']}",
        PYTHON=sys.executable,
        SLURM_JOB_NODELIST="localhost,second",
        SLURM_NNODES="2",
        SLURM_CPUS_PER_TASK="1",
        SLURM_SUBMIT_DIR=str(tmp_path),
    )
    assert status == 0, said
    assert [line.partition(" ray ")[0] for line in (tmp_path / "srun.log").read_text().splitlines()] == [
        "--nodes=1 --ntasks=1 --nodelist=localhost",
        "--nodes=1 --ntasks=1 --exclude=localhost",
    ]
    with sqlite3.connect(tmp_path / "race" / "race.db") as database:
        found = database.execute("select contestant, status from trials order by contestant").fetchall()
    assert found == [("adamw", "finished"), ("muon", "finished"), ("soap", "finished")]
    assert (tmp_path / "race" / "report.html").exists()
    # Both nodes are up: the first before the race begins, the second perhaps during it.
    assert "Ray runtime started" in said
