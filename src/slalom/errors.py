"""How slalom refuses: one sentence that says what was given, what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Something a person typed cannot be used. The command line prints it as one sentence and exits with 2."""


def nearest(word: str, known: Iterable[str], most: int = 4) -> list[str]:
    """Return the names in ``known`` that ``word`` may have meant, best first."""
    names = {name.lower(): name for name in known}
    return [names[match] for match in difflib.get_close_matches(word.lower(), names, n=most, cutoff=0.55)]


def unknown(kind: str, word: str, known: Iterable[str], hint: str = "", *, owner: str = "") -> UsageError:
    """Build the error for a name that nobody knows, with the nearest names that exist.

    Args:
        kind: what was looked for, as a noun: "optimizer", "workload", "argument".
        word: what was given.
        known: every name that would have been right.
        hint: a closing remark, such as the command that lists the names.
        owner: who does not have it: "AdamW".
    """
    names = sorted(known)
    close = nearest(word, names)
    if close:
        advice = f"Did you mean {', '.join(close)}?"
    elif len(names) <= 12:
        advice = f"There are: {', '.join(names)}."
    else:
        advice = ""
    fact = f'{owner} has no {kind} "{word}".' if owner else f'no {kind} "{word}".'
    return UsageError(" ".join(part for part in (fact, advice, hint) if part))
