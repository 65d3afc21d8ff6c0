"""The scripts in docs/examples for other people's trainers run and learn, where those are installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "needs", "most"),
    [
        ("train_with_trainer.py", ("transformers", "accelerate"), 3.0),  # guessing has 3.466
        ("train_with_lightning.py", ("lightning",), 0.3),  # guessing has 0.693
        ("train_with_accelerate.py", ("accelerate",), 0.3),  # saying 0 has about 1
    ],
)
def test_an_example_runs_and_learns(script: str, needs: tuple[str, ...], most: float, tmp_path: Path) -> None:
    for name in needs:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    said = re.search(r"(?:loss|validation) ([\d.]+)", done.stdout.splitlines()[-1])
    assert said is not None
    assert float(said.group(1)) < most
    assert "guessed" not in done.stderr
