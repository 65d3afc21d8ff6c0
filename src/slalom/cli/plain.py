"""Screens on terminals that know only some letters: formulas stay readable, and nothing ends in a traceback."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from typing import Final

_SPELLED: Final = {
    "←": "<-", "→": "->", "√": "sqrt", "−": "-", "–": "-", "—": "-", "‖": "||", "·": "*", "×": "x", "≤": "<=",
    "∞": "inf", "∑": "sum", "…": "...", "✓": "ok", "✗": "x", "⊙": "*", "⊤": "^T", "ᵀ": "^T", "±": "+-", "≥": ">=",
    "█": "#", "▚": "x", "▓": "%", "▒": "=", "░": ".",
}  # fmt: skip


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for letters that cannot be written: their meaning, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(map(_spelled, letters)), error.end


def _spelled(letter: str) -> str:
    if letter in _SPELLED:
        return _SPELLED[letter]
    kind, _, meaning = unicodedata.decomposition(letter).partition(" ")
    if kind in ("<super>", "<sub>"):
        return ("^" if kind == "<super>" else "_") + chr(int(meaning, 16))
    name = unicodedata.name(letter, "")
    if name.startswith("GREEK SMALL LETTER "):
        return name.removeprefix("GREEK SMALL LETTER ").lower()
    simple = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return simple or ("-" if name.startswith("BOX DRAWINGS") else "?")


def spell_what_cannot_be_written() -> None:
    """Make the standard streams spell out what their encoding lacks."""
    codecs.register_error("slalom.spell", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="slalom.spell")
