"""`slalom landscape`: the loss surface around a model, or under the ways that recipes take, and how sharp it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from slalom.cli.find_lr import find_workload, write_file
from slalom.cli.progress import Progress
from slalom.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor, nn

    from slalom.landscape import Density, Plane, Sharpness

Loss = Any  # a function of a model
_POINTS: Final = 40  # of a trail


@dataclass
class _Way:
    """What one recipe did.

    Attributes:
        label: whose way it is.
        lr: the learning rate it ran with, "" if it has none.
        model: as it ended.
        points: where it passed.
        end: why it ended early, if it did.
    """

    label: str
    lr: str
    model: nn.Module
    points: list[dict[str, Tensor]]
    end: str = ""


def landscape(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE.py:function] [RECIPE...]",
            help="A function that returns a model and a function loss(model); and recipes whose ways are drawn, as "
            "adamw or sgd:momentum=0.9,lr=0.1, or TOML files.",
        ),
    ] = None,
    workload: Annotated[
        str | None, typer.Option("--workload", "-w", help="Train on this workload of the race.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of training; by default the workload's own, or 300.")] = None,
    plane: Annotated[
        str, typer.Option(help="Through the start and both ends (ends), or nearest to all points (nearest).")
    ] = "auto",
    size: Annotated[int, typer.Option(help="Points of the map each way.")] = 25,
    batches: Annotated[int, typer.Option(help="Batches of a workload on which the loss is measured.")] = 8,
    seed: Annotated[int, typer.Option(help="Of weights, batches and directions.")] = 0,
    sharpness: Annotated[bool, typer.Option(help="Measure how sharp each end is.")] = True,
    spectrum: Annotated[
        bool, typer.Option("--spectrum", help="Measure how all eigenvalues of the Hessian are spread at each end.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the map as SVG into this file, and a spectrum into FILE-spectrum.svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print data instead of a map.")] = False,
) -> None:
    """Draw the loss surface: around a model, or on the plane that training crossed; and say how sharp its ends are.

    Examples: `slalom landscape -w digits_mlp adamw sgd:momentum=0.9`, `slalom landscape mine.py:build --out map.svg`.
    """
    from rich.console import Console

    from slalom import landscape as surface
    from slalom import pictures
    from slalom.landscape.density import together

    functions = [word for word in words or [] if ".py:" in word]
    recipes = [word for word in words or [] if ".py:" not in word]
    if len(functions) + (workload is not None) != 1:
        raise UsageError("of which loss? Name one workload with -w, or one FILE.py:function.")
    if plane not in ("auto", "ends", "nearest"):
        raise UsageError(f'--plane "{plane}": it must be ends or nearest.')
    for name, value in (("--batches", batches), ("--steps", 1 if steps is None else steps)):
        if value < 1:
            raise UsageError(f"{name} {value}: give at least 1.")
    stderr = Console(stderr=True)
    if functions:
        model, loss, blamed = _own(functions[0])
        ways = [_full_batch(word, model, blamed, steps or 300, seed, stderr) for word in recipes]
        title = Path(functions[0].rpartition(":")[0]).stem
    else:
        model, loss, ways = _raced(str(workload), recipes, steps, batches, seed, stderr)
        blamed, title = loss, str(workload)
    drawn = {way.label: way.points for way in ways if not way.end}
    if ways and not drawn:
        raise UsageError("; ".join(f"{way.label} {way.end}" for way in ways) + ": there is no way to draw.")
    count = size * size + 2 * sum(map(len, drawn.values()))
    with Progress(stderr, count, "losses") as progress:
        through = _corners(plane, list(drawn.values()))
        map_ = surface.plane(
            model, blamed, trails=drawn, through=through, size=size, seed=seed, progress=progress.advance
        )
    ends = ways or [_Way("", "", model, [])]
    measured = _ends(ends, blamed, seed, stderr, norm=bool(ways)) if sharpness else {}
    spectra = _spectra(ends, blamed, seed, stderr, norm=bool(ways)) if spectrum else {}
    if out is not None:
        write_file(out, map_.svg(f"loss surface of {title}"))
        if spectra:
            drawn_too = pictures.svg(together(spectra), f"eigenvalues of the Hessian, {title}")
            write_file(out.with_name(f"{out.stem}-spectrum.svg"), drawn_too)
    if as_json:
        facts = {"of": title, "plane": map_.as_json(), "ends": _facts(ways, measured, spectra)}
        print(json.dumps(facts, indent=2))
        return
    console = Console(highlight=False)
    _show(console, title, map_, ways, measured)
    if spectra:
        _show_spectra(console, spectra)


def _own(word: str) -> tuple[nn.Module, Loss, Loss]:
    """Return a person's model and loss, and the loss with what goes wrong in it told as theirs."""
    from slalom.userfiles import blame, build_task

    model, loss = build_task(word)
    if loss is None:
        raise UsageError(f'"{word}": return the model and a function loss(model) that evaluates it on data of its own.')
    file = word.rpartition(":")[0]

    def blamed(model: nn.Module) -> Tensor:
        try:
            value: Tensor = loss(model)
        except Exception as error:
            raise UsageError(blame(error, file)) from None
        return value

    return model, loss, blamed


def _full_batch(word: str, start: nn.Module, loss: Loss, steps: int, seed: int, stderr: Console) -> _Way:
    """Train a copy of a person's model on its loss, with the recipe's own rate."""
    import copy
    import math

    import torch

    from slalom.landscape import snapshot
    from slalom.race.contestant import enter

    (contestant,) = enter([word])
    model = copy.deepcopy(start)
    optimizer = contestant.build(model, contestant.plain())
    torch.manual_seed(seed)
    model.train()
    way = _Way(contestant.label, _rate(contestant.plain()), model, [snapshot(model)])
    keep = _kept_steps(steps)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value: Tensor = loss(model)
            value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    with Progress(stderr, steps, contestant.label) as progress:
        for step in range(1, steps + 1):
            value = float(optimizer.step(closure))  # type: ignore[arg-type]
            if not math.isfinite(value):
                way.end = f"diverged at step {step}"
                break
            if step in keep:
                way.points.append(_evaluated(optimizer, model))
            progress.advance(step)
    return way


def _raced(
    name: str, recipes: Sequence[str], steps: int | None, batches: int, seed: int, stderr: Console
) -> tuple[nn.Module, Loss, list[_Way]]:
    """Train on a workload as a race does, and return a model, the loss on fixed batches, and the ways."""
    import torch

    from slalom.landscape import snapshot
    from slalom.race.contestant import enter
    from slalom.race.training import Diverged, Meter, Training
    from slalom.race.workload import reseed, stream

    files = [word for word in recipes if word.endswith(".py")]
    course = find_workload(files, name)
    torch.set_num_threads(1)  # as in a race: these models are too small to share
    generator = stream(course.name, seed, "landscape")
    data: list[Any] = []
    while len(data) < batches:
        before = len(data)
        for batch in course.batches(generator):
            data.append(batch)
            if len(data) == batches:
                break
        if len(data) == before:
            raise UsageError(f'the workload "{name}" yields no batch.')

    def loss(model: nn.Module) -> Any:
        return sum(course.loss(model, batch) for batch in data) / len(data)

    total = steps or course.steps
    keep = _kept_steps(total)
    ways = []
    for contestant in enter([word for word in recipes if word not in files], files):
        settings = dict(contestant.plain())
        if settings:
            middle = contestant.lrs[len(contestant.lrs) // 2]
            settings["lr"] = middle if contestant.pinned else middle * course.lr_scale
        training = Training(course, contestant, settings, seed, total)
        way = _Way(contestant.label, _rate(settings), training.model, [snapshot(training.model)])
        meter = Meter()
        with Progress(stderr, total, contestant.label) as progress:
            try:
                for step in range(1, total + 1):
                    training.step(step, meter)
                    if step in keep:
                        way.points.append(_evaluated(training.optimizer, training.model))
                    progress.advance(step)
            except Diverged:
                way.end = f"diverged at step {step}"
        ways.append(way)
    if ways:
        return ways[0].model, loss, ways
    reseed(course.name, seed, "model")
    return course.model(), loss, []


def _kept_steps(steps: int) -> set[int]:
    """Return which steps are points of a trail, more of them in the beginning, where the way is long."""
    return {max(1, round(steps * (k / _POINTS) ** 1.5)) for k in range(1, _POINTS + 1)}


def _evaluated(optimizer: Any, model: nn.Module) -> dict[str, Tensor]:
    """Return the point that the method would hand back now."""
    from slalom.landscape import snapshot

    averaged: Callable[[], AbstractContextManager[object]] = getattr(optimizer, "averaged", nullcontext)
    with averaged():
        return snapshot(model)


def _rate(settings: Mapping[str, Any]) -> str:
    return f"{settings['lr']:.4g}" if "lr" in settings else ""


def _corners(plane: str, ways: Sequence[Sequence[Mapping[str, Tensor]]]) -> list[Mapping[str, Tensor]] | None:
    """Return three points for the plane to go through: the start and both ends, where there are two ways."""
    if plane == "ends" and len(ways) != 2:
        raise UsageError(f"--plane ends goes through the start and two ends; {len(ways)} ways are drawn.")
    if len(ways) == 2 and plane != "nearest":
        return [ways[0][0], ways[0][-1], ways[1][-1]]
    return None


Measured = dict[str, dict[Literal["plain", "relative"], "Sharpness"]]


def _ends(ways: Iterable[_Way], loss: Loss, seed: int, stderr: Console, *, norm: bool) -> Measured:
    """Measure how sharp each end is, by the Hessian and relative to the weights."""
    from slalom.landscape import sharpness

    found: Measured = {}
    with Progress(stderr, 0, "sharpness") as progress:
        how: Any = {"seed": seed, "batch_norm": "batch" if norm else "running", "progress": progress.advance}
        for way in _at_their_ends(ways):
            found[way.label] = {
                "plain": sharpness(way.model, loss, **how),
                "relative": sharpness(way.model, loss, measure="relative", samples=0, **how),
            }
    return found


def _spectra(ways: Iterable[_Way], loss: Loss, seed: int, stderr: Console, *, norm: bool) -> dict[str, Density]:
    """Measure how the eigenvalues of the Hessian are spread at each end."""
    from slalom.landscape import density

    with Progress(stderr, 0, "spectrum") as progress:
        how: Any = {"seed": seed, "batch_norm": "batch" if norm else "running", "progress": progress.advance}
        return {way.label: density(way.model, loss, **how) for way in _at_their_ends(ways)}


def _at_their_ends(ways: Iterable[_Way]) -> Iterator[_Way]:
    """Yield each way that has an end, with its model there."""
    import torch

    for way in ways:
        if way.end:
            continue
        if way.points:
            with torch.no_grad():
                for name, parameter in way.model.named_parameters():
                    parameter.copy_(way.points[-1][name])
        yield way


def _facts(ways: Sequence[_Way], measured: Measured, spectra: Mapping[str, Density]) -> dict[str, Any]:
    ends: dict[str, dict[str, Any]] = {way.label: {"lr": way.lr, "end": way.end} for way in ways}
    for label, both in measured.items():
        ends.setdefault(label, {}).update({kind: one.as_json() for kind, one in both.items()})
    for label, spectrum in spectra.items():
        ends.setdefault(label, {})["spectrum"] = spectrum.as_json()
    return ends


def _show(console: Console, title: str, map_: Plane, ways: Sequence[_Way], measured: Measured) -> None:
    from rich.table import Table

    console.print(f"loss surface of {title}\n", style="bold", markup=False)
    for row in map_.draw(console.width).splitlines():
        drawn = "│" in row or "└" in row
        console.print(row, style="cyan" if drawn else None, markup=False, soft_wrap=True)
    for way in ways:
        if way.end:
            console.print(f"  {way.label} {way.end} and is left out", markup=False)
    if not measured:
        return
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("  sharpness" if ways else "", no_wrap=True)
    for name in ("lr", "largest", "smallest", "trace", "relative"):
        if ways or name != "lr":
            table.add_column(name, justify="right", no_wrap=True)
    for label, both in measured.items():
        one = both["plain"]
        lr = next(([way.lr] for way in ways if way.label == label), [])
        trace = f"{one.trace:.3g} ± {one.trace_error:.2g}"
        largest = f"{one.largest:.3g}" + ("" if one.converged else "?")
        relative = f"{both['relative'].largest:.3g}"
        table.add_row(f"  {label or 'sharpness'}", *lr, largest, f"{one.smallest:.2g}", trace, relative)
    console.print(table)
    methods = " and ".join(dict.fromkeys(both["plain"].method for both in measured.values()))
    console.print(f"  eigenvalues of the Hessian, by {methods}", style="dim", markup=False)
    console.print("  relative: per relative change of each weight", style="dim")


def _show_spectra(console: Console, spectra: Mapping[str, Density]) -> None:
    from slalom import pictures
    from slalom.landscape.density import together

    picture = together(spectra)
    console.print("\neigenvalues of the Hessian: how many, against how large\n", style="bold", markup=False)
    for row in pictures.dots(picture, max(24, min(console.width - 14, 84)), 10):
        console.print(f"  {row}", style="cyan", markup=False, soft_wrap=True)
    keys = [key for key, _ in pictures.legend(picture)]
    if keys:
        console.print("  " + "   ".join(keys), markup=False)
    for label, spectrum in spectra.items():
        console.print(f"\n  {label}" if label else "", markup=False)
        for row in spectrum.facts():
            console.print(row, markup=False, soft_wrap=True)
    vectors = len(next(iter(spectra.values())).nodes)
    console.print(
        f"  by stochastic Lanczos quadrature; ± is the standard error over {vectors} vectors", style="dim", markup=False
    )
