"""The command line: one command per file; this module only gathers them and turns refusals into one sentence."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from slalom.cli.check import check
from slalom.cli.explain import explain
from slalom.cli.explain_schedule import explain_schedule
from slalom.cli.find_lr import find_lr
from slalom.cli.lab import lab
from slalom.cli.landscape import landscape
from slalom.cli.list import list_methods
from slalom.cli.memory import memory
from slalom.cli.observe import observe
from slalom.cli.plain import spell_what_cannot_be_written
from slalom.cli.race_group import app as race
from slalom.errors import UsageError


class _Commands(TyperGroup):
    """Commands of one word, and of two such as `explain schedule`, which win over the argument of the shorter one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if " ".join(args[:2]) in self.commands:
            args = [" ".join(args[:2]), *args[2:]]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="slalom",
    cls=_Commands,
    help="Optimizers for PyTorch: listed, explained, accounted for, raced, watched, checked.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(race, name="race")
app.command("list")(list_methods)
app.command("explain")(explain)
app.command("explain schedule")(explain_schedule)
app.command("find-lr")(find_lr)
app.command("landscape")(landscape)
app.command("memory")(memory)
app.command("observe")(observe)
app.command("lab")(lab)
app.command("check")(check)


def main() -> None:
    """Run the command line."""
    spell_what_cannot_be_written()
    try:
        app()
    except UsageError as error:
        print(f"slalom: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `slalom list | head`
        sys.stderr.close()
        sys.exit(0)
