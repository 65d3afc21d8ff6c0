"""The results on a terminal: readable at 80 columns, and without colour."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from slalom.race.results import Results, answer, caveat, question
from slalom.race.scoring import Board, Doubt, Place, Row
from slalom.race.standings import Standings

EDGE = {1: "^", 0: "", -1: "v"}


def show(results: Results, console: Console) -> None:
    """Print the answer, a table for each workload, and the rules."""
    console.print()
    console.print(Text(question(results), style="bold"))
    console.print(Text(answer(results)))
    console.print(Text(caveat(results), style="dim"))
    console.print(Text(results.plan.rules.explain(), style="dim"))
    if results.standings is not None:
        console.print()
        console.print(_standings(results.standings))
    for board in results.boards:
        console.print()
        console.print(_board(board))
    if len(results.boards) > 1:
        console.print()
        console.print(_overall(results.places))
    _failures(results, console)
    marks = "~ a paired interval cannot tell it from the leader   ^ v best lr at the end of its grid"
    console.print(Text(marks, style="dim"))
    _provenance(results, console)


def loss(value: float) -> str:
    """Write a loss with four digits that line up."""
    if not math.isfinite(value):
        return "failed"
    return f"{value:.4f}" if value < 100 else f"{value:.3g}"


def to_target(row: Row) -> str:
    """Write the steps to target."""
    if row.steps is None:
        return ""
    return f"{row.steps:.0f}" if math.isfinite(row.steps) else "never"


def rank(row: Row) -> str:
    """Write a rank, with a mark for those level with the leader; who did not finish has none."""
    if not math.isfinite(row.loss):
        return "–"
    return f"{row.rank:g}" + ("~" if row.level and row.rank > 1 else "")


def _board(board: Board) -> Table:
    course = board.course
    target = f", target {course.target:g}" if course.target is not None else ""
    title = Text.assemble((course.name, "bold"), f"  {course.title}  ", (f"{course.steps} steps{target}", "dim"))
    table = _table(title)
    table.add_column("")
    table.add_column("optimizer", overflow="fold", min_width=8)
    table.add_column("best lr", justify="right")
    table.add_column("loss", justify="right")
    seeds = max(len(row.best.finals) for row in board.rows)
    if seeds > 1:
        table.add_column("±", justify="right")
    metrics = list(dict.fromkeys(name for row in board.rows for name in row.metrics))[:1]
    for name in metrics:
        table.add_column(name, justify="right")
    if course.target is not None:
        table.add_column("to target", justify="right")
    table.add_column("ms/step", justify="right")
    failures = any(row.failed for row in board.rows)
    if failures:
        table.add_column("failed", justify="right")
    for row in board.rows:
        cells = [rank(row), row.contestant, f"{row.best.lr:.3g}{EDGE[row.edge] or ' '}", loss(row.loss)]
        if seeds > 1:
            cells.append(f"{row.best.spread:.4f}" if math.isfinite(row.best.spread) else "")
        cells += [f"{row.metrics[name]:.3f}" if name in row.metrics else "" for name in metrics]
        if course.target is not None:
            cells.append(to_target(row))
        cells.append(f"{row.step_ms:.2f}" if math.isfinite(row.step_ms) else "")
        if failures:
            cells.append(str(row.failed or ""))
        table.add_row(*(Text(cell) for cell in cells), style="bold" if row.rank == 1 else None)
    return table


def _standings(standing: Standings) -> Table:
    """Time to target over all workloads, in steps."""
    workloads = len(standing.table.workloads) - len(standing.held_out)
    held_out = f", {len(standing.held_out)} held out" if standing.held_out else ""
    title = Text.assemble(
        ("steps to target", "bold"),
        f"  over {workloads} workload{'s' if workloads > 1 else ''}{held_out}, 95 % intervals",
    )
    table = _table(title)
    table.add_column("optimizer", overflow="fold", min_width=8)
    columns = ("AlgoPerf score", *(("vs reference",) if standing.reference is not None else ()))
    for name in (*columns, "speed-up", "P(1st)", "by cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in standing.order:
        cells = [name, interval(standing.algoperf, name)]
        if standing.reference is not None:
            cells.append(interval(standing.reference, name))
        cells.append(speedup(standing, name))
        cells += [f"{standing.algoperf.ranks[name][0]:.2f}", f"{standing.by_clock['cost'][name]:.2f}"]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def interval(doubt: Doubt, name: str) -> str:
    """Write a score with its interval, briefly, so that two of them fit into 80 columns beside all else."""
    low, high = (
        f"{end:.2f}".removeprefix("0") if end < 0.995 else "1.0" for end in (doubt.low[name], doubt.high[name])
    )
    return f"{doubt.score[name]:.2f} [{low} {high}]"


def speedup(standing: Standings, name: str) -> str:
    """Write a speed-up; one that a censored time bounds from one side says so, one that is not known yet is a dash."""
    if name == standing.baseline:
        return "1"
    if math.isnan(standing.speedup.score[name]):
        return "–"
    own, theirs = standing.censored[name]
    bound = "~" if own and theirs else "<" if own else ">" if theirs else ""
    return f"{bound}{standing.speedup.score[name]:.2f}"


def _provenance(results: Results, console: Console) -> None:
    """Say what a reader has to know of how the numbers came about."""
    if results.standings is not None:
        missing = len(results.standings.table.missing)
        if missing:
            said = f"{missing} studies have not been run; where others of the same workload have, they count as missed."
            console.print(Text(said, style="dim"))
        baseline = results.standings.baseline
        said = f"speed-up is over {baseline}, > and < are bounds: a target was not reached within the budget"
        console.print(Text(said, style="dim"))
    if results.runs and (run := results.runs[-1]).ended is not None:
        took = run.ended - run.started
        console.print(Text(f"said to take {run.predicted:.0f} s, took {took:.0f} s", style="dim"))


def _overall(places: tuple[Place, ...]) -> Table:
    table = _table(Text.assemble(("overall", "bold"), "  mean over the workloads"))
    table.add_column("optimizer", overflow="fold")
    table.add_column("mean rank", justify="right")
    table.add_column("wins", justify="right")
    table.add_column("share of budget to target", justify="right")
    for place in places:
        share = f"{place.budget_share:.0%}" if place.budget_share is not None else ""
        cells = (place.contestant, f"{place.mean_rank:.2f}", str(place.wins or ""), share)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _table(title: Text) -> Table:
    return Table(
        title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )


def _failures(results: Results, console: Console) -> None:
    for status, what in (("crashed", "crashed"), ("timeout", "took too long")):
        found = [failure for failure in results.failures if failure.outcome.status == status]
        if not found:
            continue
        console.print()
        console.print(Text(f"{len(found)} trials {what}; the distinct reasons:", style="bold"))
        for reason in dict.fromkeys(failure.outcome.reason for failure in found):
            console.print(Padding(Text(reason), (0, 0, 0, 2)))
    if results.warnings:
        console.print()
        console.print(Text("Warnings from trials:", style="bold"))
        for one in results.warnings:
            where = f"{one.contestant} on {', '.join(one.workloads)}, {one.trials} trials: "
            console.print(Padding(Text.assemble((where, "dim"), one.text), (0, 0, 0, 2)))
