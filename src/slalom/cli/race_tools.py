"""What can be done with a race besides running it: look, report, export, merge; and setting new targets."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slalom.cli.race import needs_extra, other_code, say
from slalom.errors import UsageError

if TYPE_CHECKING:
    from slalom.race.plan import Plan
    from slalom.race.results import Results
    from slalom.race.store import Run, Store

Out = Annotated[Path, typer.Option(help="Folder of the race.")]
HERE = Path("race-results")


def status(
    out: Out = HERE, as_json: Annotated[bool, typer.Option("--json", help="Print data instead of words.")] = False
) -> None:
    """Say how far a race is, who is at work on it, and how long it was said to take."""
    needs_extra()
    import time

    from rich.console import Console

    from slalom.race.screen import duration
    from slalom.race.store import Store

    with closing(Store(out, create=False)) as store:
        run, plan = _last(store, out)
        known = store.outcomes(trial.key for trial in plan.trials)
        claimed, foreign = store.claimed(), store.foreign()
    total = len({trial.key for trial in plan.trials})
    counts = Counter(outcome.status for outcome in known.values())
    facts = {
        "command": run.command,
        "trials": total,
        "recorded": len(known),
        **{name: counts.get(name, 0) for name in ("finished", "diverged", "crashed", "timeout")},
        "not_run": total - len(known),
        "running": claimed,
        "other_code": foreign,
        "predicted_seconds": round(run.predicted, 3),
        "seconds": round((run.ended or time.time()) - run.started, 1),
        "ended": run.ended is not None,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    console = Console()
    say(console, run.command)
    kinds = ", ".join(
        f"{counts[name]} {name}" for name in ("finished", "diverged", "crashed", "timeout") if counts[name]
    )
    say(console, f"{len(known)} of {total} trials are recorded{f' ({kinds})' if kinds else ''}, {claimed} are running.")
    said = f"The last run was said to take {duration(run.predicted)}"
    took = duration((run.ended or 0.0) - run.started)
    say(console, f"{said} and took {took}." if run.ended else f"{said}; it has not ended.")
    if foreign:
        say(console, other_code(foreign))


def report(out: Out = HERE) -> None:
    """Write the report of what is recorded, and print it."""
    needs_extra()
    from rich.console import Console

    from slalom.race.leaderboard import show
    from slalom.race.report import write

    run, results = _results(out)
    path = out / "report.html"
    write(results, path, run.command)
    console = Console()
    show(results, console)
    say(console, f"Report: {path}")


def export(
    out: Out = HERE,
    csv: Annotated[bool, typer.Option("--csv", help="Write trials.csv and curves.csv.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write race.json: the leaderboard and every trial.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write Parquet files; needs pyarrow.")] = False,
) -> None:
    """Write the trials and their curves as tables for other tools, into the race's folder."""
    needs_extra()
    from rich.console import Console

    from slalom.race import tables

    if not (csv or as_json or parquet):
        raise UsageError("slalom race export: say what to write, --csv, --json or --parquet.")
    _, results = _results(out)
    written = []
    if csv:
        written += tables.write_csv(results, out)
    if as_json:
        written.append(tables.write_json(results, out))
    if parquet:
        written += tables.write_parquet(results, out)
    for path in written:
        say(Console(), str(path))


def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of other races.")],
    out: Out = HERE,
) -> None:
    """Take over the trials of other races, from other machines say; what is recorded here already stays."""
    needs_extra()
    from rich.console import Console

    from slalom.race.store import Store, prepare

    for source in sources:
        if not source.exists():
            raise UsageError(f'no folder "{source}".')
    prepare(out)
    with closing(Store(out)) as store:
        for source in sources:
            say(Console(), f"{store.merge(source)} trials from {source}")


def calibrate(
    workload: Annotated[list[str], typer.Option("--workload", "-w", help="Which workload; repeat for more.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds.")] = 3,
    out: Out = Path("race-calibration"),
    into: Annotated[
        Path | None, typer.Option(help="The file of targets to change.", show_default="the package's own")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, one thread each.", show_default="one per core")
    ] = None,
) -> None:
    """Set the targets of workloads anew: train torch's AdamW and SGD on them and write what they reach."""
    needs_extra()
    import os

    from rich.console import Console

    from slalom.race import targets
    from slalom.race.runner import run
    from slalom.race.screen import watch
    from slalom.race.store import Store, prepare

    plan = targets.plan_for(workload, seeds)
    console = Console()
    prepare(out)
    with closing(Store(out)) as store:
        with watch(console) as watcher:
            run(plan, store, workers or os.cpu_count() or 1, watcher)
        outcomes = store.outcomes(trial.key for trial in plan.trials)
    found = targets.from_trials(plan, outcomes)
    for name in workload:
        target = found.get(name)
        say(console, f"{name}: {target.target:g} ({target.judge}, lr {target.lr:g})" if target else f"{name}: none")
    path = into or Path(targets.__file__).parent / "workloads" / "targets.json"
    targets.write(found, path)
    say(console, f"Written to {path}")


def _last(store: Store, out: Path) -> tuple[Run, Plan]:
    """Return the last run and its plan."""
    from slalom.race.request import Request

    runs = store.runs()
    if not runs:
        raise UsageError(f'the race in "{out}" has not begun; run `slalom race --out {out}` first.')
    return runs[-1], Request.from_json(runs[-1].arguments).plan()


def _results(out: Path) -> tuple[Run, Results]:
    from slalom.race.results import load
    from slalom.race.store import Store

    with closing(Store(out, create=False)) as store:
        run, plan = _last(store, out)
        return run, load(plan, store)
