"""Saving that is killed, that fails, or that loses power: what was there before is always still there."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harm import calls_to_the_system, equal, make, saved_at, train, weights

import slalom

HERE = Path(__file__).parent


def killed_at_every_call(stride: int, folder: Path) -> list[list[Any]]:
    """Kill a saving process at every call; return each call and the position at which the run went on."""
    path = os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), str(folder), str(stride)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed: list[list[Any]] = json.loads(done.stdout)
    return killed


@pytest.mark.parametrize("stride", [40, pytest.param(1, marks=pytest.mark.slow)], ids=["some writes", "every write"])
def test_a_kill_before_any_call_leaves_the_old_checkpoint_or_the_new(stride: int, tmp_path: Path) -> None:
    """Row "kill -9", in each phase of writing a checkpoint."""
    killed = killed_at_every_call(stride, tmp_path / "run")
    names, positions = [name for name, _ in killed], [position for _, position in killed]
    assert set(names) == {"mkdir", "listdir", "open", "write", "half", "fsync", "replace", "close", "unlink", ""}
    assert names.count("replace") == 2
    # There is one moment at which the new one counts: when its manifest is in place.
    moment = len(names) - 1 - names[::-1].index("replace")
    assert positions == [4] * (moment + 1) + [6] * (len(names) - moment - 1)


def test_a_loss_of_power_finds_data_before_names_and_data_before_the_manifest(tmp_path: Path) -> None:
    """Row "kill -9", of the machine: contents come before names, data before its manifest."""
    calls: list[str] = []
    run = make()
    with calls_to_the_system(calls.append, stride=1000):
        slalom.save_checkpoint(tmp_path, **run)
    file = ["open", "write", "half", "fsync", "replace", "open", "fsync", "close"]
    assert calls[2:] == [*file, *file, "listdir", "open", "fsync", "close"]


REASONS = {errno.ENOSPC: "No space left on device", errno.EIO: "Input/output error", errno.EACCES: "Permission denied"}


@pytest.mark.parametrize("number", REASONS)
def test_any_call_that_fails_is_one_sentence_and_nothing_is_lost(number: int, tmp_path: Path) -> None:
    """Row "full disk": full, broken or forbidden, at every call."""
    base = tmp_path / "base"
    known = saved_at(base, 2, 4)
    run = make()
    slalom.load_checkpoint(base, **run)
    train(run, 4, 6)
    known[6] = weights(run)
    failed: list[str] = []
    for at in range(1, 1000):
        folder = Path(shutil.copytree(base, tmp_path / f"run{at}"))
        count, name = 0, ""

        def before(call: str, at: int = at) -> None:
            nonlocal count, name
            count += 1
            if count == at:
                name = call
                raise OSError(number, os.strerror(number))

        refused = None
        with calls_to_the_system(before, stride=60):
            try:
                slalom.save_checkpoint(folder, **run, position=6)
            except OSError as error:
                refused = error
        if not name:
            break
        failed.append(name)
        fresh = make()
        loaded = slalom.load_checkpoint(folder, **fresh)  # without a warning: nothing that looks like damage is left
        assert loaded is not None
        assert equal(weights(fresh), known[loaded.position]), name
        if refused is None:  # only what comes after the new one is safe may fail unnoticed
            assert loaded.position == 6
        else:
            assert loaded.position == 4, name
            assert refused.errno == number
            assert str(refused).endswith(f"({REASONS[number]}); those that were there are untouched.")
            assert sorted(folder.iterdir()) == [folder / path.name for path in sorted(base.iterdir())], name
    assert set(failed) == {"mkdir", "listdir", "open", "write", "half", "fsync", "replace", "close", "unlink"}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system itself refuse to write longer files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
@pytest.mark.parametrize("size", [0, 1000, 9000])
def test_a_disk_that_is_really_full_is_survived(size: int, tmp_path: Path) -> None:
    """Row "full disk": the system itself refuses to write on."""
    known = saved_at(tmp_path, 2, 4)
    run = make()
    slalom.load_checkpoint(tmp_path, **run)
    names = sorted(path.name for path in tmp_path.iterdir())
    with files_of_at_most(size), pytest.raises(OSError, match=r"cannot save a checkpoint in .*those that were there"):
        slalom.save_checkpoint(tmp_path, **run, position=6)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    train(run, 4, 9)  # training goes on
    assert equal(weights(run), known[9])
    slalom.save_checkpoint(tmp_path, **run, position=9)  # and saving too, once there is room


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be nobody for a while, if this is root, whom no permission stops."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    """Row "read-only or vanished folder": not writable."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o555)
    try:
        with without_privileges(), pytest.raises(PermissionError, match="Permission denied"):
            slalom.save_checkpoint(folder, **make())
    finally:
        folder.chmod(0o755)


def test_a_file_where_the_folder_should_be_is_said(tmp_path: Path) -> None:
    """Row "read-only or vanished folder": no folder."""
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match=r"cannot save a checkpoint in .*File exists"):
        slalom.save_checkpoint(tmp_path / "run", **make())
    assert slalom.load_checkpoint(tmp_path / "run", **make()) is None


def test_a_folder_that_vanished_is_made_again(tmp_path: Path) -> None:
    """Row "read-only or vanished folder": gone between two checkpoints."""
    saved_at(tmp_path / "run", 2)
    shutil.rmtree(tmp_path / "run")
    run = make()
    slalom.save_checkpoint(tmp_path / "run", **run, position=3)
    loaded = slalom.load_checkpoint(tmp_path / "run", **make())
    assert loaded is not None
    assert loaded.position == 3


def test_a_folder_that_vanishes_while_saving_is_one_sentence(tmp_path: Path) -> None:
    """Row "read-only or vanished folder": gone in the middle of one."""

    def before(call: str) -> None:
        if call == "replace":
            shutil.rmtree(tmp_path / "run")

    with calls_to_the_system(before, 1000), pytest.raises(FileNotFoundError, match="cannot save a checkpoint"):
        slalom.save_checkpoint(tmp_path / "run", **make())


def test_an_interruption_by_hand_cleans_up_and_is_passed_on(tmp_path: Path) -> None:
    """Row "ctrl-C", while a checkpoint is written."""
    saved_at(tmp_path, 2)
    names = sorted(tmp_path.iterdir())
    raised: list[str] = []

    def before(call: str) -> None:
        if call == "half" and not raised:
            raised.append(call)
            raise KeyboardInterrupt

    with calls_to_the_system(before, 1000), pytest.raises(KeyboardInterrupt):
        slalom.save_checkpoint(tmp_path, **make())
    assert sorted(tmp_path.iterdir()) == names


def test_a_draft_that_somebody_planted_is_never_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row "read-only or vanished folder": writable for too many."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("slalom.checkpoint.durable.secrets.token_hex", lambda n: "known")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".checkpoint-000001.pt.known.part").symlink_to(victim)
    with pytest.raises(FileExistsError):
        slalom.save_checkpoint(folder, **make())
    assert victim.read_text() == "precious"


def test_a_value_on_the_disk_that_differs_from_what_was_written_is_noticed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row "corrupted file", from the beginning."""
    saved_at(tmp_path, 2)
    monkeypatch.setattr("slalom.checkpoint.durable.digest", lambda file: "something else")
    with pytest.raises(OSError, match="does not read back as it was written"):
        slalom.save_checkpoint(tmp_path, **make())
    assert len(list(tmp_path.iterdir())) == 2
