"""docs/variants.md says what is so: its steps are measured again, its code runs, its names exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import slalom
from cases.tools import moves
from slalom import parts
from slalom.recipes.spec import parse_spec

PAGE = (Path(__file__).parent.parent / "docs" / "variants.md").read_text()
ROW = re.compile(r"^\| ([a-z0-9:=_.-]+) \|((?: [0-9.]+ \|){6})$", flags=re.MULTILINE)


def test_first_steps_are_as_long_as_the_page_says() -> None:
    rows = ROW.findall(PAGE)
    assert len(rows) == 18
    for word, cells in rows:
        entry, settings = parse_spec(word)
        settings |= {"weight_decay": 0.0} if "weight_decay" in entry.defaults else {}
        ones = moves(entry.name, [1.0] * 3000, lr=1e-3, **settings)
        small = moves(entry.name, [0.01], lr=1e-3, **settings)
        found = [ones[0], ones[1], ones[9], ones[99], ones[2999], small[0]]
        for said, step in zip(cells.replace("|", " ").split(), found, strict=True):
            assert abs(float(said) - step / 1e-3) < 0.0061, (word, said, step / 1e-3)


def test_every_name_on_the_page_exists() -> None:
    for call in set(re.findall(r"`([A-Z]\w+)\(", PAGE)) | set(re.findall(r"`([A-Z]\w+)`", PAGE)):
        assert hasattr(slalom, call) or hasattr(parts, call), call


def test_the_pages_code_runs_and_trains() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    ran: dict[str, Any] = {}
    exec(compile(block, "variants.md", "exec"), ran)
    losses = ran["losses"]
    assert losses[-1] < 0.5 * losses[0]
    assert slalom.Recipe.from_toml(ran["wished"].to_toml()) == ran["wished"]
