"""`slalom memory`: what training a model takes, recipe by recipe, before anything is allocated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from slalom.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from slalom.memory import Account

_DEFAULT: Final = ("adamw", "muon", "lion", "sgd:momentum=0.9", "adafactor", "smmf")
# What a bar is made of, each with what fills it.
_KINDS: Final = {
    "weights": ("█", "blue"),
    "gradients": ("▓", "cyan"),
    "copies": ("▒", "magenta"),
    "state": ("▚", "yellow"),
    "activations or scratch": ("░", "green"),
}
_UNITS: Final = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def memory(
    model: Annotated[
        str,
        typer.Argument(
            help="gpt2-small to gpt2-xl, llama-7b, llama3-8b; a count as 1.5b; or FILE.py:function that returns a "
            "model, or a model and a function loss(model)."
        ),
    ],
    recipes: Annotated[
        list[str] | None, typer.Argument(help="Names as adamw or sgd:momentum=0.9, or recipe files (.toml).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or mixed; a model of yours is taken as it is built.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="SEQUENCESxTOKENS on each rank, as 8x1024: count a known model's activations.")
    ] = None,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="With --batch: layers are computed anew in the backward pass.")
    ] = False,
    ranks: Annotated[int, typer.Option(help="Shard everything over so many ranks, as FSDP2 does.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print data, in bytes.")] = False,
) -> None:
    """Say what training takes: weights, gradients, optimizer state, activations; for several recipes side by side.

    Examples: `slalom memory gpt2-xl adamw muon smmf --precision mixed --batch 8x1024`, `slalom memory mine.py:build`.
    """
    from rich.console import Console

    from slalom.memory import account

    words = list(dict.fromkeys(recipes or _DEFAULT))
    network, activations = _model(model, precision, batch, checkpoint=checkpoint)
    accounts = {
        word: account(network, _recipe(word), precision=precision, ranks=ranks, activations=activations)
        for word in words
    }
    if as_json:
        facts = {word: {**asdict(one), "peak": one.peak} for word, one in accounts.items()}
        print(json.dumps({"model": model, "precision": precision, "ranks": ranks, "recipes": facts}, indent=2))
        return
    _show(Console(highlight=False), _head(model, precision, ranks, batch, network, accounts), accounts)


def _model(word: str, precision: str | None, batch: str | None, *, checkpoint: bool) -> tuple[nn.Module, int | None]:
    """Return a model, and its activations if they can be counted."""
    from slalom.errors import unknown
    from slalom.memory import PRECISIONS, SHAPES, Transformer, matrices, saved_bytes
    from slalom.userfiles import blame, build_task

    if precision is not None and precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if word in SHAPES:
        known = Transformer(SHAPES[word], PRECISIONS[precision or "float32"].dtype, checkpointed=checkpoint)
        if batch is None and checkpoint:
            raise UsageError("--checkpoint is about activations, which a batch decides: add --batch, as 8x1024.")
        if batch is None:
            return known, None
        sequences, length = _batch(batch, SHAPES[word].context)
        kept = saved_bytes(known.loss(sequences, length), known.parameters())
        again = saved_bytes(known.layer(sequences, length), known.parameters()) if checkpoint else 0
        return known, kept + again
    if batch is not None or checkpoint:
        raise UsageError(
            f'--batch and --checkpoint are for known models, not for "{word}": {", ".join(SHAPES)}. The function of a '
            "file of yours may return a model and a function loss(model), which runs it on a batch."
        )
    count = re.fullmatch(r"([\d.]+(?:e\d+)?)([kmbt]?)", word.lower())
    if count:
        return matrices(_count(word, *count.groups())), None
    if ":" not in word and not word.endswith(".py"):
        raise unknown("model", word, SHAPES, "Or give a count as 1.5b, or FILE.py:function.")
    network, loss = build_task(word)
    if loss is None:
        return network, None
    own = [*network.parameters(), *network.buffers()]
    try:
        return network, saved_bytes(lambda: loss(network), own)
    except Exception as error:
        raise UsageError(blame(error, word.rpartition(":")[0])) from None


def _count(word: str, digits: str, unit: str) -> int:
    try:
        count = round(float(digits) * _UNITS[unit])
    except ValueError:
        count = 0
    if not 0 < count < 10**13:
        raise UsageError(f'"{word}" is no number of parameters: write 124m, 1.5b or 1e9.')
    return count


def _batch(text: str, context: int) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or not all(map(int, found.groups())):
        raise UsageError(f'--batch "{text}": write SEQUENCESxTOKENS, as 8x1024.')
    sequences, length = map(int, found.groups())
    if length > context:
        raise UsageError(f"--batch {text}: this model's sequences have at most {context} tokens.")
    return sequences, length


def _recipe(word: str) -> Any:
    from slalom.userfiles import read_recipe

    return read_recipe(word)[0] if word.endswith(".toml") else word


def _head(
    model: str,
    precision: str | None,
    ranks: int,
    batch: str | None,
    network: nn.Module,
    accounts: Mapping[str, Account],
) -> list[str]:
    from slalom.memory import PRECISIONS

    count = next(iter(accounts.values())).parameters
    known = precision or (None if ":" in model else "float32")
    if known:
        words = PRECISIONS[known].words
    else:
        dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in network.parameters()})
        words = f"as it is built, in {', '.join(dtypes)}"
    rows = [f"{model}   {count:,} parameters", f"  {words}"]
    if batch:
        rows.append(f"  activations of {batch} tokens on each rank: attention fused, no dropout")
    if ranks > 1:
        rows.append(f"  one of {ranks} ranks, everything sharded")
    return rows


def _show(console: Console, head: Iterable[str], accounts: Mapping[str, Account]) -> None:
    from rich.table import Table

    for place, row in enumerate(head):
        console.print(row, style="bold" if place == 0 else "dim", markup=False)
    console.print()
    columns = {
        "weights": [one.weights for one in accounts.values()],
        "gradients": [one.gradients for one in accounts.values()],
        "copies": [one.copies for one in accounts.values()],
        "state": [one.state for one in accounts.values()],
        "scratch": [one.scratch for one in accounts.values()],
        "gathered": [one.gathered for one in accounts.values()],
        "activations": [one.activations or 0 for one in accounts.values()],
    }
    shown = {name: values for name, values in columns.items() if any(values) or name == "state"}
    unit, size = _unit(max(one.peak for one in accounts.values()))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(f"in {unit}", no_wrap=True)
    for name in (*shown, "peak"):
        # the shorter word makes the widest table fit 80 columns
        table.add_column("grads" if name == "gradients" else name, justify="right", no_wrap=True)
    for place, (word, one) in enumerate(accounts.items()):
        cells = [f"{values[place] / size:.3g}" for values in shown.values()]
        table.add_row(word, *cells, f"[bold]{one.peak / size:.3g}")
    console.print(table)
    console.print()
    _bars(console, accounts)


def _bars(console: Console, accounts: Mapping[str, Account]) -> None:
    """Draw what makes the peak, all on one scale."""
    from rich.text import Text

    margin = max(map(len, accounts)) + 2
    width = max(20, min(console.width - margin - 30, 72))
    scale = width / max(one.peak for one in accounts.values())
    for word, one in accounts.items():
        row = Text(f"{word:<{margin}}")
        parts = {
            **{name: getattr(one, name) for name in list(_KINDS)[:4]},
            "activations or scratch": one.peak - one.resident,
        }
        drawn, total = 0, 0.0
        for name, size in parts.items():
            total += size * scale
            fill, colour = _KINDS[name]
            row.append(fill * (round(total) - drawn), colour)
            drawn = max(drawn, round(total))
        each = one.state / one.parameters
        row.append(f"  state {each:.3g} B per parameter", "dim")
        console.print(row, soft_wrap=True)
    legend = "  ".join(f"{fill} {name}" for name, (fill, _) in _KINDS.items())
    console.print(f"  {legend}", style="dim", markup=False, soft_wrap=True)


def _unit(most: float) -> tuple[str, float]:
    """Return one decimal unit for all, in which memory is sold."""
    units = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
    return next((unit for unit in units if most >= unit[1]), ("bytes", 1.0))
