"""How slalom refuses: one sentence that says what was given, what is wrong and what to do."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable


class UsageError(ValueError):
    """Something a person typed cannot be used. The command line prints it as one sentence and exits with 2."""


def reason(error: Exception) -> str:
    """Return why a file could not be read or written, in words alone: the sentence around it names the file."""
    return getattr(error, "strerror", None) or str(error)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short; torch has a class for that on GPUs alone, on a CPU only words."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def nearest(word: str, known: Iterable[str], most: int = 4) -> list[str]:
    """Return the names in ``known`` that ``word`` may have meant, best first."""
    names = {name.lower(): name for name in known}
    asked = word.lower()
    close = difflib.get_close_matches(asked, names, n=4 * most, cutoff=0.55)
    # Among equally close ones a slip at the end of a word is likelier than one at its beginning.
    close.sort(key=lambda name: (-difflib.SequenceMatcher(None, name, asked).ratio(), -_shared_start(name, asked)))
    return [names[name] for name in close[:most]]


def _shared_start(a: str, b: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


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
