"""The comparison of two builds of the wheel sees what differs: it was broken on purpose, here without building."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "wheel_twice.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheel_twice", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(path: Path, content: str, year: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("slalom/__init__.py", (year, 1, 1, 0, 0, 0)), content)
        archive.writestr(zipfile.ZipInfo("slalom/py.typed", (2020, 1, 1, 0, 0, 0)), "")
    return path


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (("one", 2020), None),
        (("two", 2020), "the two wheels differ: slalom/__init__.py."),
        (("one", 2021), "the two wheels differ: only the archive itself."),
    ],
)
def test_other_content_and_another_timestamp_are_told(
    script: ModuleType, second: tuple[str, int], said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter([wheel(tmp_path / "a" / "s.whl", "one", 2020), wheel(tmp_path / "b" / "s.whl", *second)])
    monkeypatch.setattr(script, "build", lambda *_: next(made))
    monkeypatch.setattr("sys.argv", ["wheel_twice.py"])
    if said is None:
        script.main()
        return
    with pytest.raises(SystemExit) as stopped:
        script.main()
    sentence: Any = stopped.value.code
    assert sentence == said
