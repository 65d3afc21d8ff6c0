"""Files that people hand to the command line: recipes, and Python files with parts of their own."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slalom.errors import UsageError

if TYPE_CHECKING:
    from slalom.recipes import ByRole, Recipe


def read_recipe(path: str) -> Recipe | ByRole:
    """Read a recipe file.

    Raises:
        UsageError: if it cannot be read or is no recipe.

    """
    from slalom.recipes import Recipe

    try:
        return Recipe.from_toml(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: {error}") from None


def run_file(path: Path) -> dict[str, Any]:
    """Run a person's Python file and return its names.

    Raises:
        UsageError: if it fails, with the line of theirs that failed and nothing of ours.

    """
    if not path.is_file():
        raise UsageError(f"{path} is no file.")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # so that their file finds its neighbours, as when run by itself
    try:
        return runpy.run_path(str(path))
    except Exception as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == path.resolve()
        ]
        at = f", line {frames[-1].lineno}, in {frames[-1].name}\n    {frames[-1].line}" if frames else ""
        if isinstance(error, SyntaxError):
            at = f", line {error.lineno}\n    {(error.text or '').strip()}"
        raise UsageError(f"{path} fails{at}\n    {type(error).__name__}: {error}") from None


def load_parts(paths: Sequence[Path]) -> None:
    """Run files that define parts, so that recipe files may name those."""
    for path in paths:
        run_file(path)
