"""Finding workloads: the built-in ones and those in a person's own Python file, whose mistakes are shown as theirs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from slalom.errors import UsageError, unknown
from slalom.race.workload import Workload
from slalom.race.workloads import built_in
from slalom.userfiles import blame, defines_methods, digest, import_file


@dataclass(frozen=True)
class Entry:
    """A workload and where it was found.

    Attributes:
        workload: the workload itself.
        file: the person's file, or None for a built-in workload.
        source: digest of the source file, under which results are filed.
    """

    workload: Workload[Any]
    file: str | None
    source: str


def choose(files: Iterable[str], names: Iterable[str]) -> tuple[Entry, ...]:
    """Return the workloads to race on.

    Names choose among the built-in workloads and those of the files. Without names, files stand for all that they
    define, and without files all built-in workloads run.
    """
    own = [entry for file in dict.fromkeys(files) for entry in from_file(file)]
    known = {entry.workload.name: entry for entry in all_built_in()}
    for entry in own:
        if entry.workload.name in known:
            raise UsageError(f'{entry.file}: there is already a workload "{entry.workload.name}"; set another name.')
        known[entry.workload.name] = entry
    chosen = tuple(dict.fromkeys(names)) or tuple(entry.workload.name for entry in own) or tuple(built_in())
    for name in chosen:
        if name not in known:
            raise unknown("workload", name, known, "`slalom race --list-workloads` describes them.")
    return tuple(known[name] for name in chosen)


def all_built_in() -> tuple[Entry, ...]:
    """Return the built-in workloads."""
    return tuple(Entry(workload, None, digest(inspect.getfile(type(workload)))) for workload in built_in().values())


@lru_cache(maxsize=32)
def load(name: str, file: str | None) -> Workload[Any]:
    """Load one workload by name; a worker does this once, so its data are read once."""
    if file is None:
        return built_in()[name]
    return next(entry.workload for entry in from_file(file) if entry.workload.name == name)


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
