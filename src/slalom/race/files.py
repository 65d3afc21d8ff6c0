"""Finding workloads: the built-in ones and those in a person's own Python file, whose mistakes are shown as theirs."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from slalom.errors import UsageError, unknown
from slalom.race.workload import Workload
from slalom.race.workloads import DEFAULT, TIERS, built_in, local
from slalom.race.workloads import names as of_tier
from slalom.userfiles import blame, defines_methods, digest, import_file


@dataclass(frozen=True)
class Entry:
    """A workload and where it was found.

    Attributes:
        workload: the workload itself.
        file: the person's file or data, or None for a built-in workload.
        source: digest of the source file, under which results are filed.
    """

    workload: Workload[Any]
    file: str | None
    source: str


def choose(
    files: Iterable[str],
    names: Iterable[str],
    tier: str | None = None,
    *,
    held_out: bool = False,
    data: Iterable[str] = (),
) -> tuple[Entry, ...]:
    """Return the workloads to race on.

    Names choose among the built-in workloads and those of the files and data, and a tier stands for the names in it.
    Without either, files and data stand for all that they define, and without these the three of the default tier run.
    With `held_out` the variants of all these run too.
    """
    on_data = [entry for path in dict.fromkeys(data) for entry in from_data(path)]
    own = [*(entry for file in dict.fromkeys(files) for entry in from_file(file)), *on_data]
    known = {entry.workload.name: entry for entry in all_built_in()}
    for entry in own:
        if entry.workload.name in known:
            raise UsageError(
                f'{entry.file}: there is already a workload "{entry.workload.name}"; give it another name.'
            )
        known[entry.workload.name] = entry
    if tier is not None and tier not in TIERS:
        raise unknown("tier", tier, TIERS)
    if tier == "gpu" and not on_data:
        raise UsageError("--tier gpu races on data of yours: --data names a CIFAR-10 or IDX folder or a text file.")
    gpu = [entry.workload.name for entry in on_data if tier == "gpu"]
    named = (*names, *(of_tier(tier) if tier else ()), *gpu)
    chosen = tuple(dict.fromkeys(named)) or tuple(entry.workload.name for entry in own) or tuple(DEFAULT)
    for name in chosen:
        if name not in known:
            raise unknown("workload", name, known, "`slalom race --list-workloads` describes them.")
    if held_out:
        chosen += tuple(name for name, entry in known.items() if entry.workload.base in chosen and name not in chosen)
    return tuple(known[name] for name in chosen)


def all_built_in() -> tuple[Entry, ...]:
    """Return the built-in workloads."""
    return tuple(Entry(workload, None, _source(type(workload).__module__)) for workload in built_in().values())


@lru_cache(maxsize=64)
def _source(module: str) -> str:
    """Return a digest of the module that defines a workload and of those beside it that it takes something from."""
    found, todo = set[str](), {module}
    while todo:
        name = todo.pop()
        found.add(name)
        values = vars(sys.modules[name]).values()
        origins = {str(getattr(value, "__module__", None) or getattr(value, "__name__", "")) for value in values}
        todo |= {origin for origin in origins if origin.startswith("slalom.race.workloads.")} - found
    digests = [digest(inspect.getfile(sys.modules[name])) for name in sorted(found)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@lru_cache(maxsize=32)
def load(name: str, file: str | None) -> Workload[Any]:
    """Load one workload by name; a worker does this once, so its data are read once."""
    if file is None:
        return built_in()[name]
    found = from_file(file) if file.endswith(".py") else from_data(file)
    return next(entry.workload for entry in found if entry.workload.name == name)


def from_data(path: str) -> tuple[Entry, ...]:
    """Return the workloads on a data set on disk; the path takes the place of a source file."""
    full = Path(path).expanduser().resolve()
    return tuple(Entry(workload, str(full), _source(type(workload).__module__)) for workload in local.from_path(full))


def from_file(file: str) -> tuple[Entry, ...]:
    """Import a person's file and return the workloads that it defines: none, if it brings parts or methods instead."""
    module = import_file(file)
    path = Path(file).resolve()
    source = digest(file)
    workloads: dict[str, Workload[Any]] = {}
    for workload in _instances(module, file):
        _check(workload, file)
        if workload.name in workloads:
            raise UsageError(f'{file}: two workloads are called "{workload.name}"; set another name.')
        workloads[workload.name] = workload
    return tuple(Entry(workload, str(path), source) for workload in workloads.values())


def _instances(module: ModuleType, file: str) -> list[Workload[Any]]:
    values = list(vars(module).values())
    instances = [value for value in values if isinstance(value, Workload)]
    used = {type(instance) for instance in instances}
    classes = [
        value
        for value in values
        if isinstance(value, type)
        and issubclass(value, Workload)
        and value.__module__ == module.__name__
        and value not in used
    ]
    for cls in classes:
        if inspect.isabstract(cls):
            continue
        try:
            instances.append(cls())
        except Exception as error:
            raise UsageError(blame(error, file)) from None
    if not instances and not defines_methods(module):
        unfinished = [cls for cls in classes if inspect.isabstract(cls)]
        if unfinished:
            missing = ", ".join(sorted(unfinished[0].__abstractmethods__))
            raise UsageError(f"{file}: the workload {unfinished[0].__name__} does not define {missing}.")
        raise UsageError(
            f"{file} defines no workload: subclass slalom.race.Workload and define model, batches, loss and evaluate."
        )
    return list(dict.fromkeys(instances))


def _check(workload: Workload[Any], file: str) -> None:
    for attribute in ("steps", "evaluations"):
        value = getattr(workload, attribute)
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{file}: {workload.name}.{attribute} is {value!r}; give a whole number of at least 1.")
