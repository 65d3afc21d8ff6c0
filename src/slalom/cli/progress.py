"""A bar on a terminal's stderr that is gone afterwards; nothing elsewhere."""

from __future__ import annotations

from typing import Any


class Progress:
    """Shows how far a long command has come.

    Args:
        console: which writes to stderr.
        total: how many steps there are.
        what: what they are.
    """

    def __init__(self, console: Any, total: int, what: str = "steps") -> None:
        from rich.progress import Progress as Bar

        self.bar = Bar(console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task(what, total=total)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, step: int) -> None:
        """Show that so many steps are done."""
        self.bar.update(self.task, completed=step)
