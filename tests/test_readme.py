"""The README's code runs, and what it shows is what is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fresh import call, python

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_every_block_runs_by_itself(place: int, tmp_path: Path) -> None:
    done = python(BLOCKS[place], tmp_path)  # one writes a log
    assert done.returncode == 0, done.stderr


def test_the_watched_run_is_told_what_the_text_says(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "observe.watch" in block]
    said = python(block, tmp_path).stdout
    assert "the learning rate is too low" in said
    assert "the loss went back up" not in said


def test_as_many_methods_as_it_says() -> None:
    from slalom import list_optimizers

    assert f"all {len(list_optimizers())} methods" in README


def test_the_screen_is_the_one_that_is_printed() -> None:
    from slalom.describe import describe_method
    from slalom.recipes import method

    shown = re.search(r"\$ slalom explain lamb --plan\n(.*?)```", README, flags=re.DOTALL)
    assert shown is not None
    printed = describe_method(method("lamb"), width=100, plan=True)
    assert printed.startswith(shown.group(1).rstrip())


def test_the_part_of_ones_own_is_explained_as_the_readme_says(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "class RootMagnitude" in block]
    (tmp_path / "mine.py").write_text(block)
    done = call("explain", "half-adam", "--parts", "mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a ← 0.99 a + 0.01 |g|" in done.stdout
