"""What a person sees while the race runs: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from slalom.race.forecast import Estimate, Forecast
from slalom.race.records import Outcome
from slalom.race.trial import Trial
from slalom.race.work import Advanced, Event, Finished, Measure, Started, Ticked


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
    """Print how long each contestant would train on each workload, one worker working."""
    seconds: dict[str, dict[str, float]] = {}
    for trial in trials:
        row = seconds.setdefault(trial.workload, {})
        row[trial.contestant.label] = row.get(trial.contestant.label, 0.0) + forecast.trial(trial)
    labels = list(dict.fromkeys(trial.contestant.label for trial in trials))
    width = max(len(label) for label in [*labels, *seconds])
    for workload, row in seconds.items():
        console.print(Text(f"{workload:<{width}}  {duration(sum(row.values())):>9}", style="bold"))
        for label in labels:
            if label in row:
                console.print(Text(f"  {label:<{width}}{duration(row[label]):>9}", style="dim"))


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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing to clean up."""

    def say(self, text: str) -> None:
        """Print one line, exactly as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def measuring(self) -> None:
        """Say why nothing is training yet."""
        self.say("Starting the workers and timing a few steps of everybody on each workload.")

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
        self.workers: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        self.progress.stop()

    def begin(self, trials: int, known: int, left: Estimate) -> None:
        """Show the bar of the race."""
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
            self.progress.update(self.race, completed=self.done, description=f"{self.done}/{self.total} trials")
        if self.race is not None:
            self.progress.update(self.race, note=f"about {about(left)} left")


def watch(console: Console) -> Lines:
    """Return bars for a terminal and lines for anything else."""
    return Bars(console) if console.is_terminal else Lines(console)
