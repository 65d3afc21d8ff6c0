"""Rows "SIGTERM (preemption)", "ctrl-C twice", "clock jump": a run or a race that is asked to end, and goes on later.

Without a handler SIGTERM ends a process as SIGKILL does: row "kill -9", in test_faults_saving.py.
"""

from __future__ import annotations

import datetime
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from harm import calls_to_the_system, equal, make, saved_at, train, weights

import slalom
from slalom.cli.race import _asked_to_end_as_by_hand

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"}


def test_a_run_that_is_asked_to_end_at_any_moment_saves_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Row "SIGTERM", while training and while saving: the handler sets a flag, the loop saves after its step."""
    last, left, chance = 60, 0, random.Random(0)
    words = [sys.executable, str(HERE / "terminated.py"), str(tmp_path / "run"), str(last)]
    for _ in range(2):
        running = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        with running:
            assert running.stdout is not None
            assert running.stdout.readline() == f"at {left}\n"  # nothing of what was done is lost
            time.sleep(chance.uniform(0.0, 0.3))
            running.terminate()
            said = running.stdout.read()
        assert running.returncode == 128 + signal.SIGTERM
        left = int(said.split()[-1])
        assert f"left at {left}" in said
    assert 0 < left < last
    torch.manual_seed(0)
    alone = make()
    train(alone, 0, last)
    run = make()
    loaded = slalom.load_checkpoint(tmp_path / "run", **run)
    assert loaded is not None
    train(run, loaded.position, last)
    assert (loaded.position, equal(weights(run), weights(alone))) == (left, True)


@contextmanager
def ended_by_an_exception() -> Iterator[None]:
    """A handler that raises wherever it finds the process, as many have."""

    def leave(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_raises_while_saving_leaves_the_old_checkpoint_or_the_new(tmp_path: Path) -> None:
    """Row "SIGTERM", while saving: raised before each call that saving makes to the system; no half of anything."""
    known = saved_at(tmp_path / "base", 2, 4)
    run = make()
    slalom.load_checkpoint(tmp_path / "base", **run)
    train(run, 4, 6)
    known[6] = weights(run)
    positions = []
    for at in range(1, 1000):
        folder = Path(shutil.copytree(tmp_path / "base", tmp_path / f"run{at}"))
        count = 0

        def before(name: str, at: int = at) -> None:
            nonlocal count
            count += 1
            if count == at:
                signal.raise_signal(signal.SIGTERM)

        ended = False
        with ended_by_an_exception(), calls_to_the_system(before, stride=60):
            try:
                slalom.save_checkpoint(folder, **run, position=6)
            except SystemExit:
                ended = True
        fresh = make()
        loaded = slalom.load_checkpoint(folder, **fresh)  # without a warning: nothing that looks like damage is left
        assert loaded is not None
        assert equal(weights(fresh), known[loaded.position])
        assert not list(folder.glob(".*"))
        positions.append(loaded.position)
        if not ended:
            break
    assert positions == sorted(positions)
    assert {4, 6} == set(positions)


def test_a_clock_that_is_set_back_does_not_change_which_checkpoint_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row "clock jump"; a race's claims have it in tests/race/test_race_together.py."""
    known = saved_at(tmp_path, 2, 4)

    class Earlier(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime(1999, 1, 1, tzinfo=tz)

    run = make()
    slalom.load_checkpoint(tmp_path, **run)
    train(run, 4, 9)
    monkeypatch.setattr("slalom.checkpoint.checkpoint.datetime.datetime", Earlier)
    slalom.save_checkpoint(tmp_path, **run, position=9)
    fresh = make()
    loaded = slalom.load_checkpoint(tmp_path, **fresh)
    assert loaded is not None
    assert (loaded.position, loaded.saved[:4]) == (9, "1999")
    assert equal(weights(fresh), known[9])


# --- a race -----------------------------------------------------------------------------------------------------


def running_children(process: int) -> list[int]:
    """Return the processes that one has started and that still run."""
    everybody = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [one for one in everybody if _status(one)[1:] == [str(process)] and still_runs(one)]


def still_runs(process: int) -> bool:
    return _status(process)[:1] not in ([], ["Z"])


def _status(process: int) -> list[str]:
    """Return the state of a process, "Z" if only its end is left, and its parent; nothing of one that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return []


def test_sigterm_is_taken_for_ctrl_c_as_long_as_a_race_runs() -> None:
    """Row "SIGTERM", quickly: the slow test after this one has whole races."""
    with pytest.raises(KeyboardInterrupt), _asked_to_end_as_by_hand():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("how", ["terminated", "all terminated", "ctrl-C twice"])
def test_a_race_that_is_asked_to_end_leaves_a_whole_store_and_no_workers(how: str, tmp_path: Path) -> None:
    """Rows "SIGTERM" and "ctrl-C twice": what was recorded is there, and the same command does what is missing."""
    toys = Path(shutil.copy(HERE.parent / "race" / "toys.py", tmp_path))
    toys.write_text(toys.read_text().replace("x = torch.eye(3)", "__import__('time').sleep(0.03); x = torch.eye(3)"))
    words = [sys.executable, "-c", "from slalom.cli import main; main()", "race", "toys.py", "adam", "sgd"]
    words += ["-w", "line", "--lrs", "0.1,0.2", "--workers", "2", "--seeds", "3"]
    running = subprocess.Popen(
        words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    with running:
        assert running.stdout is not None
        next(line for line in running.stdout if line.startswith("[2/"))
        workers = running_children(running.pid)
        if how == "terminated":
            running.terminate()
        elif how == "all terminated":
            os.killpg(running.pid, signal.SIGTERM)
        else:
            os.killpg(running.pid, signal.SIGINT)
            time.sleep(0.05)
            os.killpg(running.pid, signal.SIGINT)
        rest = running.stdout.read()
    assert len(workers) >= 2
    patience = time.monotonic() + 10
    while any(map(still_runs, workers)) and time.monotonic() < patience:
        time.sleep(0.1)
    assert not any(map(still_runs, workers))
    if how != "ctrl-C twice":
        assert running.returncode == 130, rest
        assert "Interrupted with" in rest
        assert (tmp_path / "race-results" / "report.html").exists()
    with sqlite3.connect(tmp_path / "race-results" / "race.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        kept = dict(database.execute("select key, outcome from trials where status = 'finished'"))
    assert 2 <= len(kept) < 12
    again = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    with sqlite3.connect(tmp_path / "race-results" / "race.db") as database:
        now = dict(database.execute("select key, outcome from trials where status = 'finished'"))
    assert len(now) == 12
    assert kept.items() <= now.items()  # nothing that was known was trained again
