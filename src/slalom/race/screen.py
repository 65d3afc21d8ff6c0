"""What a person sees while the race runs: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from slalom.race.forecast import Estimate, Forecast
from slalom.race.records import Outcome
from slalom.race.trial import Trial
from slalom.race.work import Advanced, Event, Finished, Measure, Started, Ticked

# A log is told at most every so many seconds how far the timing of steps is.
PAUSE = 10.0


def duration(seconds: float) -> str:
    """Write seconds as a person would say them."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def about(time: Estimate) -> str:
    """Write an estimate with its range, the unit once if it is the same."""
    middle, low, high = (duration(seconds) for seconds in (time.seconds, time.low, time.high))
    unit = middle.partition(" ")[2]
    low = low.removesuffix(f" {unit}") if high.endswith(f" {unit}") else low
    return f"{middle} ({low} to {high})"


def foresee(trials: Sequence[Trial], forecast: Forecast, console: Console) -> None:
    """Print how long the workloads and the contestants would train, one worker working, and what would go wrong."""
    parts = _parts(trials, forecast)
    everybody = list(dict.fromkeys(label for _, label in parts))
    width = max(len(name) for who in parts for name in who)
    for workload in dict.fromkeys(name for name, _ in parts):
        row = {label: parts[workload, label] for label in everybody if (workload, label) in parts}
        dearest = sorted(row, key=lambda label: -row[label])[:3]
        line = Text(f"{workload:<{width}}  {duration(sum(row.values())):>9}", style="bold")
        if len(row) > 1:
            most = ", ".join(f"{label} {duration(row[label])}" for label in dearest)
            line.append(f"   {'most of it ' if len(row) > 3 else ''}{most}", style="not bold dim")
        console.print(line, soft_wrap=True)
    console.print()
    for label in everybody:
        total = sum(seconds for (_, one), seconds in parts.items() if one == label)
        console.print(Text(f"{label:<{width}}  {duration(total):>9}"))
    console.print()
    kinds = {(trial.workload, trial.contestant.label): trial for trial in reversed(trials)}
    for (workload, label), trial in kinds.items():
        if not forecast.known(trial):
            console.print(f"{label} on {workload} could not be timed and is not counted.", highlight=False)
        elif reason := forecast.hopeless(trial):
            console.print(f"{label} on {workload}: {reason}.", highlight=False)
        elif forecast.trial(trial) >= forecast.timeout:
            said = (
                f"{label} on {workload} would be stopped after {duration(forecast.timeout)} in each trial (--timeout)."
            )
            console.print(said, highlight=False)


def foreseen(trials: Sequence[Trial], forecast: Forecast | None) -> dict[str, Any]:
    """Return the same as plain data: seconds with all workers working, and of one worker by workload and contestant."""
    parts = _parts(trials, forecast) if forecast else {}
    left = forecast.rest(trials) if forecast else Estimate(0.0, 0.0, 0.0)
    rows = [{"workload": workload, "contestant": label, "seconds": parts[workload, label]} for workload, label in parts]
    return {"trials": len(trials), "workers": forecast.workers if forecast else 0, **asdict(left), "parts": rows}


def _parts(trials: Sequence[Trial], forecast: Forecast) -> dict[tuple[str, str], float]:
    """Return the seconds by workload and contestant."""
    parts: dict[tuple[str, str], float] = {}
    for trial in trials:
        who = (trial.workload, trial.contestant.label)
        parts[who] = parts.get(who, 0.0) + forecast.trial(trial)
    return parts


def describe(trial: Trial) -> str:
    """Name a trial in a few words."""
    point = "  ".join(f"{name} {_short(value)}" for name, value in trial.settings.items())
    return f"{trial.workload}  {trial.contestant.label}  {point}  seed {trial.seed}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def verdict(outcome: Outcome) -> str:
    """Say how a trial ended."""
    if outcome.status == "finished":
        return f"loss {outcome.curve.loss[-1]:.4g} in {outcome.seconds:.1f} s"
    return f"{outcome.status}: {outcome.reason}"


class Lines:
    """One line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = self.done = 0
        self._spoke = 0.0
        self._warned: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing to clean up."""

    def say(self, text: str) -> None:
        """Print one line, exactly as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def measuring(self, done: int, total: int, job: Measure | None) -> None:
        """Say why nothing is training yet, and now and then how far it is."""
        now = time.monotonic()
        if job is None:
            self.say(f"Starting the workers and timing steps: of everybody on each workload, {total} kinds.")
        elif now > self._spoke + PAUSE:
            self.say(f"timed {done} of {total}, now {job.contestant.label} on {job.workload}")
        else:
            return
        self._spoke = now

    def begin(self, trials: int, known: int, left: Estimate) -> None:
        """Say how long it will take."""
        self.total, self.done = trials, known
        recorded = f"{known} of {trials} trials are recorded already" if known else f"{trials} trials"
        if known == trials:
            self.say(f"All {trials} trials are recorded already; nothing to train.")
        else:
            self.say(f"{recorded}; about {about(left)} to go. Ctrl-C keeps what is done.")

    def elsewhere(self) -> None:
        """Count a trial that another process has trained."""
        self.done += 1

    def saw(self, event: Event, left: Estimate) -> None:
        """Report finished trials."""
        if isinstance(event, Finished):
            self.done += 1
            rest = f"about {duration(left.seconds)} left" if self.done < self.total else "done"
            self.say(f"[{self.done}/{self.total}] {describe(event.job)}  {verdict(event.outcome)}  ({rest})")
            self._warn(event)

    def _warn(self, event: Finished) -> None:
        """Say what a trial warned of, the first time that its contestant does."""
        for text in event.outcome.warnings:
            if (event.job.contestant.label, text) not in self._warned:
                self._warned.add((event.job.contestant.label, text))
                self.say(f"{event.job.contestant.label} on {event.job.workload} warns: {text}")


class Bars(Lines):
    """A bar for the race and one for each worker; only failures leave a line behind."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        columns = (
            BarColumn(bar_width=16),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        self.progress = Progress(*columns, console=console, transient=True)
        self.race: TaskID | None = None
        self.timing: TaskID | None = None
        self.workers: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        self.progress.stop()

    def measuring(self, done: int, total: int, job: Measure | None) -> None:
        """Show a bar for the timing of steps."""
        if self.timing is None:
            self.timing = self.progress.add_task("", total=total, note="")
        now = f"{job.contestant.label} on {job.workload}" if job else "starting the workers"
        self.progress.update(self.timing, completed=done, description=f"{done}/{total} kinds of step timed", note=now)

    def begin(self, trials: int, known: int, left: Estimate) -> None:
        """Show the bar of the race."""
        if self.timing is not None:
            self.progress.remove_task(self.timing)
            self.timing = None
        super().begin(trials, known, left)
        self.race = self.progress.add_task(f"{known}/{trials} trials", total=trials, completed=known, note="")

    def saw(self, event: Event, left: Estimate) -> None:
        """Move the bars."""
        if isinstance(event, Ticked) or isinstance(event.job, Measure):
            return
        if event.worker not in self.workers:
            self.workers[event.worker] = self.progress.add_task("", note="")
        bar = self.workers[event.worker]
        if isinstance(event, Started):
            self.progress.reset(bar, total=event.job.steps, description=describe(event.job))
        elif isinstance(event, Advanced):
            self.progress.update(bar, completed=event.step)
        elif isinstance(event, Finished) and self.race is not None:
            self.done += 1
            if event.outcome.status != "finished":
                self.say(f"{describe(event.job)}  {verdict(event.outcome)}")
            self._warn(event)
            self.progress.update(self.race, completed=self.done, description=f"{self.done}/{self.total} trials")
        if self.race is not None:
            self.progress.update(self.race, note=f"about {about(left)} left")


def watch(console: Console) -> Lines:
    """Return bars for a terminal and lines for anything else."""
    return Bars(console) if console.is_terminal else Lines(console)
