"""An optimizer in one word, as people type it: ``adamw``, ``sgd:momentum=0.9,nesterov=true``."""

from __future__ import annotations

import ast
from typing import Any

from slalom.errors import UsageError, unknown
from slalom.recipes.blueprint import Blueprint
from slalom.recipes.registry import Method, method


def parse_spec(word: str) -> tuple[Method, dict[str, Any]]:
    """Read a name with arguments.

    Returns:
        The catalogue entry, and the arguments that were given.

    Raises:
        UsageError: for a name or an argument that does not exist, or arguments that cannot be read or used.
    """
    name, _, tail = word.partition(":")
    entry = method(name)
    given = parse_arguments(word, tail)
    for argument in given:
        if argument not in entry.defaults:
            raise unknown("argument", argument, entry.defaults, owner=name)
        if given[argument] is None and isinstance(entry.defaults[argument], str):
            given[argument] = "none"  # the word, where words are asked for
    try:
        entry.recipe(**Blueprint(entry).live({**entry.defaults, **given}))
    except (TypeError, ValueError) as error:
        raise UsageError(f'"{word}": {error}') from None
    return entry, given


def parse_arguments(word: str, text: str) -> dict[str, Any]:
    """Read "momentum=0.9,betas=(0.9,0.95),nesterov=true" with Python's own grammar for keyword arguments.

    Raises:
        UsageError: for a text that is none; the sentence quotes the whole word.
    """
    try:
        call = ast.parse(f"_({text})", mode="eval").body
        if isinstance(call, ast.Call) and not call.args:
            return {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        pass
    raise UsageError(f'"{word}": after the colon comes key=value,key=value as in sgd:momentum=0.9.')


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id, node.id)
    words = [part for part in ast.walk(node) if not isinstance(part, (ast.BinOp, ast.Sub, ast.Load))]
    if isinstance(node, ast.BinOp) and all(isinstance(word, ast.Name) for word in words):
        return ast.unparse(node).replace(" ", "")  # a word with hyphens, such as two-step
    return ast.literal_eval(node)
