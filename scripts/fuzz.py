"""Random lives of optimizers by the hundred thousand: the operations of tests/lives.py, drawn by a plain generator.

python scripts/fuzz.py --operations 1000000 --file fuzz.json      # again with the same file: it goes on
python scripts/fuzz.py --life 1234                                # one life alone, to look at

A life is a number, so every difference can be met again. A difference is written down and the next life begins.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from lives import EXECUTORS, KINDS, RATES, SIZES, Life
from slalom import list_optimizers

STEEP = "differences that the formula excuses"
LENGTH = 200  # operations of a life
SAVE_EVERY = 20.0  # seconds

Draw = random.Random
# Each operation: how often among all, and how its arguments are drawn.
OPERATIONS: dict[str, tuple[float, Callable[[Draw], dict[str, Any]]]] = {
    "step": (
        70,
        lambda draw: {
            "missing": draw.choice([0, 0, draw.getrandbits(8)]),
            "size": draw.choice(SIZES),
            "seed": draw.getrandbits(32),
            "stays": draw.random() < 0.5,
            "sparse": draw.random() < 0.1,
        },
    ),
    "change": (
        6,
        lambda draw: {
            "place": draw.randrange(4),
            "lr": draw.choice([None, *RATES]),
            "decay": draw.choice([None, 0.0, 0.1]),
            "first": draw.choice([None, None, None, 0.0, 0.5, 0.9]),
            "up": draw.choice([None, None, True, False]),
            "tensor": draw.random() < 0.3,
        },
    ),
    "schedule": (3, lambda draw: {}),
    "freeze_or_thaw": (3, lambda draw: {"place": draw.randrange(8)}),
    "save_and_load": (3, lambda draw: {"into_itself": draw.random() < 0.5}),
    "move_in_memory": (3, lambda draw: {"state_too": draw.random() < 0.5}),
    "meet_a_bad_gradient": (
        4,
        lambda draw: {"bad": draw.choice([float("nan"), float("inf"), -float("inf")]), "place": draw.randrange(8)},
    ),
    "overflow": (2, lambda draw: {}),
    "become_a_copy": (1, lambda draw: {"by_pickle": draw.random() < 0.5}),
    "add_group": (
        1,
        lambda draw: {
            "kind": draw.choice(KINDS),
            "transposed": draw.random() < 0.5,
            "seed": draw.getrandbits(32),
            "lr": draw.choice(RATES),
        },
    ),
    "switch_executor": (1, lambda draw: {"executor": draw.choice(EXECUTORS)}),
    "make_all_state": (1, lambda draw: {}),
    "read_the_average": (1, lambda draw: {}),
    "begin_anew": (0.5, lambda draw: {}),
    "be_printed": (0.2, lambda draw: {}),
}
NAMES = list(OPERATIONS)
WEIGHTS = [weight for weight, _ in OPERATIONS.values()]


def live(seed: int, number: int, done: Counter[str], *, tell: bool = False) -> dict[str, Any] | None:
    """Live one life; return what went wrong and where, None if nothing did."""
    draw = random.Random(f"{seed}/{number}")
    torch.manual_seed(number)
    life = Life()
    name = draw.choice(list_optimizers())
    born = {
        "name": name,
        "executor": draw.choice(["auto", *EXECUTORS]),
        "kinds": [(draw.choice(KINDS), draw.random() < 0.3) for _ in range(draw.randint(1, 3))],
        "rows": draw.choice(["exact", "lazy"]),
        "seed": draw.getrandbits(32),
    }
    life.born(**born)
    if tell:
        print(born)
    for place in range(LENGTH):
        operation = draw.choices(NAMES, WEIGHTS)[0]
        arguments = OPERATIONS[operation][1](draw)
        if operation == "add_group" and not life.has_room():
            continue
        if tell:
            print(place, operation, arguments, flush=True)
        try:
            getattr(life, operation)(**arguments)
            life.both_are_equal()
        except Exception as error:  # whatever it is, it is a find
            if tell:
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            sentence = f"{type(error).__name__} in {where.name}: {str(error)[:600]}"
            return {"life": number, "operation": place, "what": operation, "born": repr(born), "error": sentence}
        done[operation] += 1
        if life.has_exploded():  # from here on single precision overflows where the reference does not
            break
    done[STEEP] += life.steep
    return None


def counted(done: Counter[str]) -> int:
    """Return how many operations were survived."""
    return done.total() - done[STEEP]


def main() -> None:
    """Live until the operations are done; keep the count in a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", type=Path, help="where the count is kept; a run with the same file goes on")
    parser.add_argument("--life", type=int, help="live this one alone and tell what happens")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if asked.life is not None:
        live(asked.seed, asked.life, Counter(), tell=True)
        return
    kept: dict[str, Any] = {"seed": asked.seed, "lives": 0, "operations": 0, "seconds": 0.0, "of": {}, "found": []}
    if asked.file and asked.file.exists():
        kept = json.loads(asked.file.read_text())
        if kept["seed"] != asked.seed:
            sys.exit(f"{asked.file} belongs to --seed {kept['seed']}.")
    done = Counter(kept["of"])
    begun = saved = time.monotonic()
    before = kept["seconds"]
    while counted(done) < asked.operations:
        found = live(asked.seed, kept["lives"], done)
        kept["lives"] += 1
        now = time.monotonic()
        kept |= {"operations": counted(done), "seconds": round(before + now - begun, 1), "of": dict(done)}
        if found:
            kept["found"].append(found)
            print(found, flush=True)
        if asked.file and (found or now - saved > SAVE_EVERY or counted(done) >= asked.operations):
            saved = now
            partial = asked.file.with_suffix(".partial")
            partial.write_text(json.dumps(kept, indent=1))
            os.replace(partial, asked.file)
    print(f"{counted(done)} operations in {kept['lives']} lives, {len(kept['found'])} differences: {dict(done)}")
    if kept["found"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
