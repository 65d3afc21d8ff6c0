"""Files that people hand to slalom: recipes in TOML, and Python with parts, methods or workloads of their own."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from slalom.errors import UsageError, reason

if TYPE_CHECKING:
    from torch import nn

    from slalom.recipes import ByRole, Recipe


def read_recipe(file: str) -> tuple[Recipe | ByRole, str]:
    """Read a recipe file; return the recipe and the text.

    Raises:
        UsageError: if it cannot be read or is no recipe.
    """
    from slalom.recipes import Recipe

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'cannot read recipe "{file}": {reason(error)}.') from None
    try:
        return Recipe.from_toml(text), text
    except (TypeError, ValueError) as error:
        raise UsageError(f'recipe "{file}": {error}') from None


def import_file(file: str) -> ModuleType:
    """Import a person's Python file, once.

    Raises:
        UsageError: if it is not there or fails, with the line of theirs that failed and nothing of ours.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise UsageError(f'no file "{file}".')
    name = f"slalom_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    # As `python file.py` does it, so that the file can import its neighbours.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(blame(error, file)) from None
    return module


def build_model(word: str) -> nn.Module:
    """Build the model that a person names as ``FILE.py:function``, a function without arguments.

    Raises:
        UsageError: if there is no such file or function, it fails, or what it returns is no module.
    """
    model, name = _built(word, "--model ")
    return _checked_model(model, word, name, "--model ")


def build_task(word: str) -> tuple[nn.Module, Callable[[nn.Module], Any] | None]:
    """Build what a person names as ``FILE.py:function``: a model, or a model and what evaluates its loss.

    Returns:
        The model, and a function of it that returns the loss on data of its own; None if there is none.

    Raises:
        UsageError: if there is no such file or function, it fails, or what it returns is neither.
    """
    made, name = _built(word, "")
    if not isinstance(made, tuple):
        return _checked_model(made, word, name, ""), None
    if len(made) != 2 or not callable(made[1]):
        raise UsageError(f'"{word}": {name}() returned {len(made)} things: return a model, or a model and loss(model).')
    return _checked_model(made[0], word, name, ""), made[1]


def _built(word: str, option: str) -> tuple[Any, str]:
    """Call the function that a word names."""
    file, colon, name = word.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise UsageError(f'{option}"{word}": write FILE.py:function, a function that returns the model.')
    build = getattr(import_file(file), name, None)
    if not callable(build):
        raise UsageError(f'{option}"{word}": {file} has no function "{name}".')
    try:
        return build(), name
    except Exception as error:
        raise UsageError(blame(error, file)) from None


def _checked_model(model: Any, word: str, name: str, option: str) -> nn.Module:
    from torch import nn

    if not isinstance(model, nn.Module):
        raise UsageError(f'{option}"{word}": {name}() returned a {type(model).__name__}, not a torch.nn.Module.')
    return model


def blame(error: BaseException, file: str) -> str:
    """Describe an error by the line of the person's own file that led to it."""
    path = str(Path(file).resolve())
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename == path:
        line, text = error.lineno, error.text
        message = f"{type(error).__name__}: {error.msg}"
    else:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line, text = (own[-1].lineno, own[-1].line) if own else (None, None)
    place = f"{file}, line {line}" if line else file
    return f"{place}: {message}" + (f"\n    {text.strip()}" if text else "")


def digest(file: str) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def defines_methods(module: ModuleType) -> bool:
    """Whether a file defines parts, or enters optimizers into the catalogue."""
    from slalom.parts import Part
    from slalom.recipes import list_optimizers, method

    own = module.__name__
    parts = any(isinstance(v, type) and issubclass(v, Part) and v.__module__ == own for v in vars(module).values())
    return parts or any(method(name).factory.__module__ == own for name in list_optimizers())
