"""Surroundings that do not help: no compiler, no home, no terminal, no locale, a store that somebody else holds."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from slalom.errors import UsageError
from slalom.race.contestant import Named
from slalom.race.records import Outcome
from slalom.race.store import NAME, Store
from slalom.race.trial import Trial

HERE = Path(__file__).parent


def poor(*words: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python without a compiler, a home, a terminal, or letters beyond ASCII."""
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/nowhere", "HOME": os.devnull, "XDG_CACHE_HOME": os.devnull,
        "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii",
        "TERM": "dumb", "OMP_NUM_THREADS": "1", "TMPDIR": str(cwd), **settings,
    }  # fmt: skip
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, check=False)


STEPS = """
import torch, slalom
w = torch.nn.Parameter(torch.ones(3, 4))
optimizer = slalom.AdamW([w], lr=0.1)
for _ in range(3):
    w.grad = torch.ones(3, 4)
    optimizer.step()
assert w.max() < 1
print(*optimizer.executors())
"""


def test_without_a_compiler_steps_run_and_one_warning_says_what_to_install(tmp_path: Path) -> None:
    """Row "poor surroundings": no compiler."""
    done = poor("-c", STEPS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [b"foreach"]
    assert done.stderr.count(b"RuntimeWarning") == 1
    assert b"install gcc or clang, or `pip install ziglang`" in done.stderr


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a compiler that works")
def test_without_a_home_kernels_are_built_in_a_folder_of_their_own(tmp_path: Path) -> None:
    """Row "poor surroundings": no home that can be written."""
    done = poor("-W", "error", "-c", STEPS, cwd=tmp_path, PATH=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [b"native"]
    (folder,) = tmp_path.glob("slalom-*")
    assert folder.stat().st_mode & 0o777 == 0o700


def slalom_words(*words: str) -> list[str]:
    return ["-c", "from slalom.cli import main; main()", *words]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("explain", "lamb"), b"u = m / (1 - 0.9^t)"),
        (("explain", "adabelief", "--plan"), b"s <- 0.999 s"),
        (("list", "ada*"), b"adabelief"),
        (("check", "sgd"), b"closure-once"),
    ],
)
def test_screens_are_readable_where_only_ascii_can_be_written(
    words: tuple[str, ...], shown: bytes, tmp_path: Path
) -> None:
    """Row "poor surroundings": no terminal, LANG=C."""
    done = poor(*slalom_words(*words), cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert shown in done.stdout
    assert b"?" not in done.stdout
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["adamv\u03b2", "\udcff\udcfe"])
def test_names_that_cannot_be_written_are_still_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    """Row "poor surroundings": LANG=C, and letters that it has not."""
    done = poor(*slalom_words("explain", name), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(b"slalom: no optimizer")
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_race_runs_in_poor_surroundings(tmp_path: Path) -> None:
    """Row "poor surroundings": all of them at once."""
    shutil.copy(HERE.parent / "race" / "toys.py", tmp_path)
    words = ("race", "toys.py", "sgd", "-w", "line", "--seeds", "1", "--lrs", "0.1", "--workers", "1")
    done = poor(*slalom_words(*words), cwd=tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert (tmp_path / "race-results" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


# --- the store of a race ----------------------------------------------------------------------------------------


def trial(key: str) -> Trial:
    return Trial("hill", None, Named("adam", (0.1,), True, name="adam"), {"lr": 0.1}, 0, 0, 10, key)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait half a second for a lock, not half a minute."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout, **rest: connect(path, min(timeout, 0.5), **rest))


@pytest.mark.usefixtures("impatient")
def test_a_store_that_somebody_holds_is_one_sentence_and_what_was_recorded_is_safe(tmp_path: Path) -> None:
    """Row "locked database": for good."""
    store = Store(tmp_path)
    store.record(trial("a"), Outcome("finished", 10))
    other = sqlite3.connect(tmp_path / NAME, timeout=1)
    other.execute("begin immediate")
    with pytest.raises(UsageError, match=r"locked.*what was recorded before is safe"):
        store.record(trial("b"), Outcome("finished", 10))
    assert set(store.outcomes(["a", "b"])) == {"a"}  # reading goes on all the while
    other.rollback()
    store.record(trial("b"), Outcome("finished", 10))
    assert set(store.outcomes(["a", "b"])) == {"a", "b"}


def test_a_store_that_is_let_go_in_time_is_waited_for(tmp_path: Path) -> None:
    """Row "locked database": for a while."""
    store = Store(tmp_path)
    other = sqlite3.connect(tmp_path / NAME, timeout=1, check_same_thread=False)
    other.execute("begin immediate")
    release = threading.Timer(0.5, other.rollback)
    release.start()
    start = time.monotonic()
    store.record(trial("a"), Outcome("finished", 10))
    assert time.monotonic() - start > 0.3
    release.join()
    assert set(store.outcomes(["a"])) == {"a"}


def test_a_store_that_was_cut_or_overwritten_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Row "locked database", or with a bad tail; half of a record SQLite itself takes back."""
    store = Store(tmp_path)
    for key in map(str, range(50)):
        store.record(trial(key), Outcome("finished", 10))
    store.close()
    file = tmp_path / NAME
    file.write_bytes(b"\0" * 100 + file.read_bytes()[100:])
    spoiled = file.read_bytes()
    with pytest.raises(UsageError, match="cannot be used as a store of results"):
        Store(tmp_path)
    assert file.read_bytes() == spoiled
