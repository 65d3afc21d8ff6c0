"""`slalom race`: train every chosen recipe on every chosen workload, and say who is ahead."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slalom.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from slalom.race.plan import Plan
    from slalom.race.results import Results
    from slalom.race.runner import Called, Limits
    from slalom.race.work import Crew


def race(
    entrants: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE|FILE.toml|FILE.py",
            help="Who races: names such as adam or sgd:momentum=0.9, or recipes in TOML files. "
            "A Python file adds workloads, parts or methods of your own (see slalom.race.Workload, slalom.parts).",
            show_default="six well-known ones",
        ),
    ] = None,
    contestant: Annotated[
        list[str] | None,
        typer.Option("--contestant", "-c", help="Any torch optimizer races too: mypackage.MyOpt:lr=1e-3; repeatable."),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", "-w", help="Race on this workload; repeat for more.", show_default="three"),
    ] = None,
    tier: Annotated[
        str | None, typer.Option(help="Race on a set: smoke, default, laptop, held-out, ladder or gpu.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="PATH", help="Race on data on disk: CIFAR-10, IDX or a text; see docs/race.md."),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Also race on variants of the workloads; missing one loses its base.")
    ] = False,
    rules: Annotated[str, typer.Option(help="grid, external (tuning) or self-tuning.")] = "grid",
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            "--studies",
            min=1,
            help="Studies: seeds of weights, batches and drawn points.",
            show_default="grid 2, quick 1, external and self-tuning 3",
        ),
    ] = None,
    lrs: Annotated[
        str | None,
        typer.Option(help='Learning rates for everybody, as in "1e-3,3e-3".', show_default="each recipe's own three"),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Points per study, for --rules external.")] = 5,
    sampler: Annotated[str, typer.Option(help="halton, sobol or uniform, for --rules external.")] = "halton",
    points: Annotated[
        Path | None, typer.Option(help="JSON file with fixed lists of points by contestant, for --rules external.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One learning rate, one seed: a look, not a verdict.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of results; the same one continues a race.")] = Path("race-results"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, one thread each.", show_default="one per core")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="Where to train: ray, or ray://HOST:PORT; see docs/cluster.md.", show_default="processes here"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time steps, say what would be trained and how long it takes, and stop.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds after which a trial is stopped.", show_default="1800")
    ] = None,
    stop_after: Annotated[
        float | None, typer.Option(min=0, help="Minutes after which the race is stopped.", show_default="never")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the leaderboard, or what --dry-run found, as JSON.")
    ] = False,
    list_workloads: Annotated[bool, typer.Option("--list-workloads", help="Describe the workloads and stop.")] = False,
) -> None:
    """Race optimizers on real training runs; writes a report and can be interrupted and continued.

    Examples: `slalom race`, `slalom race --quick`, `slalom race adamw lion -w charlm --seeds 5`,
    `slalom race my_workload.py adam -c torch.optim.AdamW`, `slalom race adamw muon --rules external --tier laptop`.

    Afterwards: `slalom race status`, `report`, `export`, `merge`; `calibrate` sets targets. Each has its own --help.
    """
    needs_extra()
    # Imported here because it takes seconds, which `slalom --help` should not.
    from rich.console import Console

    words = [*(entrants or []), *(contestant or [])]
    if list_workloads:
        _list_workloads([word for word in words if word.endswith(".py")], as_json)
        return

    from slalom.race.request import Request
    from slalom.race.runner import TIMEOUT, Called, Limits

    request = Request(
        entrants=tuple(words),
        workloads=tuple(workload or ()),
        tier=tier,
        held_out=held_out,
        seeds=seeds,
        lrs=lrs,
        rules=rules,
        trials=trials,
        sampler=sampler,
        points=str(points) if points else None,
        quick=quick,
        data=tuple(data or ()),
    )
    # With --json the leaderboard alone is on stdout, so that it can be piped; a person still sees progress.
    status = Console(stderr=as_json)
    limits = Limits(timeout or TIMEOUT, 60 * stop_after if stop_after is not None else math.inf)
    called = Called(_command(), request.as_json())
    plan = request.plan()
    workers, hire = _crew(workers, on, gpu=any(entry.workload.device != "cpu" for entry in plan.entries))
    if dry_run:
        _dry_run(plan, out, workers, status, limits, hire, as_json=as_json)
        return
    results, report, end = _run(plan, out, workers, status, limits, called, hire)

    from slalom.race.leaderboard import show
    from slalom.race.results import as_json as to_json

    if as_json:
        typer.echo(json.dumps(to_json(results), allow_nan=False, indent=2))
    else:
        show(results, status)
    say(status, f"Report: {report}")
    if end != "complete":
        what = "Interrupted" if end == "interrupted" else "Stopped as told"
        say(status, f"{what} with {results.missing} trials to go. The same command continues: {_command()}")
    if end == "interrupted":
        raise typer.Exit(130)
    if results.outcomes and all(outcome.status == "crashed" for outcome in results.outcomes.values()):
        raise typer.Exit(1)


def needs_extra() -> None:
    """Refuse if what racing needs is not installed."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"racing needs {error.name}, which is not installed: pip install 'slalom[race]'.") from None


def other_code(trials: int) -> str:
    """Say what became of trials that were trained before slalom's own source changed."""
    return (
        f"{trials} recorded trials were trained by another state of slalom's code and are kept but not used: "
        "a changed line of code may change a result, so after an edit or an upgrade everything is trained again."
    )


def say(console: Console, text: str) -> None:
    """Print one line, exactly as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _crew(workers: int | None, on: str | None, *, gpu: bool) -> tuple[int, Callable[[int], Crew]]:
    """Return how many workers there may be, and who hires them."""
    from slalom.race.pool import Pool

    if on is None:
        # Two trials on one GPU would time each other.
        return workers or (1 if gpu else os.cpu_count() or 1), Pool
    if on != "ray" and not on.startswith("ray://"):
        raise UsageError(f'--on "{on}": give ray, for a cluster here, or ray://HOST:PORT.')
    from slalom.race.cluster import RayCrew

    # A cluster has as many as it has, and their number may grow.
    return workers or sys.maxsize, partial(RayCrew, address=on, gpu=gpu)


def _dry_run(
    plan: Plan,
    out: Path,
    workers: int,
    console: Console,
    limits: Limits,
    hire: Callable[[int], Crew],
    *,
    as_json: bool,
) -> None:
    """Say how long it would take and what takes the time. Nothing is trained; what steps cost is kept in the folder."""
    from slalom.race.runner import predict
    from slalom.race.screen import about, foresee, foreseen, watch
    from slalom.race.store import Store, prepare

    prepare(out)
    with closing(Store(out)) as store, watch(console) as watcher:
        trials, forecast = predict(plan, store, workers, watcher, limits, hire)
    if forecast is None:
        say(console, f"All {len(plan.trials)} trials are recorded already; nothing to train.")
    if as_json:
        typer.echo(json.dumps(foreseen(trials, forecast), indent=2))
    if forecast is None:
        return
    foresee(trials, forecast, console)
    left = forecast.rest(trials)
    say(console, f"{len(trials)} trials by {forecast.workers} workers take about {about(left)}.")


def _run(
    plan: Plan,
    out: Path,
    workers: int,
    console: Console,
    limits: Limits,
    called: Called,
    hire: Callable[[int], Crew],
) -> tuple[Results, Path, Literal["complete", "stopped", "interrupted"]]:
    """Train what is missing and write the report, also after Ctrl-C or SIGTERM."""
    from slalom.race.report import write
    from slalom.race.results import load
    from slalom.race.runner import run
    from slalom.race.screen import watch
    from slalom.race.store import Store, prepare

    prepare(out)
    with closing(Store(out)) as store:
        foreign = store.foreign()
        if foreign:
            say(console, other_code(foreign))
        end: Literal["complete", "stopped", "interrupted"]
        try:
            with _asked_to_end_as_by_hand(), watch(console) as watcher:
                end = "complete" if run(plan, store, workers, watcher, limits, called, hire) else "stopped"
        except KeyboardInterrupt:
            end = "interrupted"
        results = load(plan, store)
    report = out / "report.html"
    write(results, report, called.command)
    return results, report, end


@contextmanager
def _asked_to_end_as_by_hand() -> Iterator[None]:
    """Take SIGTERM, which a cluster sends before it takes a machine away, for Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal means
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _list_workloads(files: list[str], as_json: bool) -> None:
    from slalom.race.files import all_built_in, from_file

    workloads = [entry.workload for entry in (*all_built_in(), *(e for file in files for e in from_file(file)))]
    if as_json:
        rows = [{name: getattr(w, name) for name in ("name", "title", "steps", "target", "base")} for w in workloads]
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(len(workload.name) for workload in workloads)
    for workload in workloads:
        target = f", target loss {workload.target:g}" if workload.target is not None else ""
        typer.echo(f"{workload.name:<{width}}  {workload.title}: {workload.steps} steps{target}")


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
