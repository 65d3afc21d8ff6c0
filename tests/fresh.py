"""Processes that know nothing of the tests, without waiting for imports: forked off one that has imported, and no more.

A new interpreter needs seconds before its first line of ours, and most tests of the command line need one each. What
an interpreter does as it starts, threads, signals and kills are for `subprocess` all the same.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ways = multiprocessing.get_all_start_methods()
_server = multiprocessing.get_context("forkserver" if "forkserver" in _ways else "spawn")
# The first optimizer of a process makes torch import its compiler.
_server.set_forkserver_preload(["torch", "torch._dynamo", "slalom", "slalom.cli", "slalom.describe", "rich.console"])


def call(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person does."""
    return _run(_command, words, cwd, environment)


def python(code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program, in which any warning is an error."""
    return _run(_program, code, cwd, {})


def _run(
    target: Callable[[Any], None], given: Any, cwd: Path | None, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        out, err = (os.path.join(folder, name) for name in ("out", "err"))
        process = _server.Process(target=_begin, args=(target, given, cwd or Path.cwd(), environment, out, err))
        process.start()
        process.join()
        said = (Path(file).read_text(encoding="utf-8") for file in (out, err))
        return subprocess.CompletedProcess(given, process.exitcode or 0, *said)


def _begin(
    target: Callable[[Any], None], given: Any, cwd: Path, environment: dict[str, str], out: str, err: str
) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.update(environment)
    target(given)


def _command(words: tuple[str, ...]) -> None:
    from slalom.cli import main

    sys.argv = ["slalom", *words]
    main()


def _program(code: str) -> None:
    warnings.simplefilter("error")
    exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
