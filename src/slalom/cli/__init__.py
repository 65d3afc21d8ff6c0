"""The command line: one command per file; this module only gathers them and turns refusals into one sentence."""

from __future__ import annotations

import sys
from typing import Annotated, Any

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
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a traceback is for a report of a defect: plain, whole, and to be copied
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        import slalom

        print(f"slalom {slalom.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Optimizers for PyTorch: listed, explained, accounted for, raced, watched, checked."""


# Short enough to stand in a line each where all commands are listed.
app.add_typer(race, name="race", short_help="Race optimizers against each other.")
app.command("list", short_help="List the optimizers, and what each is for.")(list_methods)
app.command("explain", short_help="Show a recipe: formula, state, traffic.")(explain)
app.command("explain schedule", short_help="Draw a schedule.")(explain_schedule)
app.command("find-lr", short_help="Look for a learning rate.")(find_lr)
app.command("landscape", short_help="Draw the loss surface, say how sharp it is.")(landscape)
app.command("memory", short_help="Say what training takes, beforehand.")(memory)
app.command("observe", short_help="Say why a run does not train.")(observe)
app.command("lab", short_help="Reproduce a published phenomenon.")(lab)
app.command("check", short_help="Check any optimizer against contracts.")(check)


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
