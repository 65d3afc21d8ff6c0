"""A researcher's own part in a file of their own: composed, trained, explained and raced, without touching slalom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fresh import call as slalom
from networks import network, train
from slalom import Recipe
from slalom.describe import describe_roles
from slalom.errors import UsageError
from slalom.parts import base
from slalom.recipes import method, registry
from slalom.userfiles import build_model, import_file, read_recipe


@pytest.fixture(autouse=True)
def _own_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test enters into the catalogue is gone after it."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(base, "_PARTS", dict(base._PARTS))


PART = '''"""A part of one's own, and a method made of it."""

from slalom import Recipe, recipe
from slalom.algebra import State, lerp, sqrt
from slalom.parts import Decay, Ema, Memory, Positive, Scale, Signals


class {part}(Scale, name="{name}"):
    """The root of a running mean of magnitudes: between SGD and Adam.

        a <- beta a + (1 - beta) |e|
        D = sqrt(a) + eps
    """

    beta: Decay = 0.99
    eps: Positive = 1e-8
    a = State()

    def apply(self, x: Signals, s: Memory) -> Signals:
        s.a = lerp(s.a, abs(x.energy), 1 - self.beta)
        return x.replace(metric=sqrt(s.a / (1 - self.beta**x.t)) + self.eps * x.unit)


@recipe(
    "{name}", class_name="{part}", title="half of Adam", family="own", year=2026, source="nobody yet",
    use="tests", avoid="anything else", lrs=(1e-3, 3e-3, 1e-2),
)
def half(lr: float = 1e-3, beta: float = 0.9) -> Recipe:
    return Recipe(momentum=Ema(beta), scale={part}(), step=lr)
'''


def own(folder: Path, part: str, name: str) -> Path:
    """Write the file; every test has a part of another name, since a name belongs to one class for good."""
    file = folder / "mine.py"
    file.write_text(PART.format(part=part, name=name))
    return file


def test_it_composes_trains_and_has_a_class(tmp_path: Path) -> None:
    import slalom as package

    module = import_file(str(own(tmp_path, "HalfAdam", "half-adam")))
    model = network(torch.float32)
    losses = train(model, package.create("half-adam", model, lr=0.01), 30)
    assert losses[-1] < losses[0]
    part = module.HalfAdam(beta=0.9)
    assert Recipe.from_toml(Recipe(scale=part).to_toml()) == Recipe(scale=part)
    assert package.HalfAdam(model.parameters()).executors() == {"native": "compiled for this processor"}  # type: ignore[attr-defined]


def test_it_is_explained_from_a_recipe_file(tmp_path: Path) -> None:
    own(tmp_path, "Other", "other-half")
    (tmp_path / "mine.toml").write_text('[scale]\npart = "other-half"\nbeta = 0.5\n')
    done = slalom("explain", "mine.toml", "--parts", "mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a ← 0.5 a + 0.5 |g|" in done.stdout
    without = slalom("explain", "mine.toml", cwd=tmp_path)
    assert without.returncode == 2
    assert 'no part "other-half"' in without.stderr
    assert "Import the module" in without.stderr


def test_it_races_by_name_and_by_file(tmp_path: Path) -> None:
    own(tmp_path, "Third", "third-half")
    (tmp_path / "written.toml").write_text('[scale]\npart = "third-half"\n\n[step]\npart = "fixed"\nlr = 0.01\n')
    done = slalom(
        "race", "mine.py", "third-half", "written.toml", "-w", "digits_mlp", "--quick", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    shown = json.dumps(json.loads(done.stdout))
    assert "third-half" in shown
    assert "written" in shown
    assert "crashed" not in done.stderr


def test_a_failing_file_is_blamed_on_its_own_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("x = 1\ny = x / 0\n")
    with pytest.raises(UsageError, match=r"line 2: ZeroDivisionError: division by zero\n    y = x / 0"):
        import_file(str(bad))
    with pytest.raises(UsageError, match="no file"):
        import_file(str(tmp_path / "nowhere.py"))
    with pytest.raises(UsageError, match="cannot read recipe"):
        read_recipe(str(tmp_path / "nowhere.toml"))


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "clash.py"
    file.write_text("from slalom.parts import Momentum\n\nclass Ema(Momentum):\n    pass\n")
    with pytest.raises(UsageError, match='already a part named "ema"'):
        import_file(str(file))


MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 10))

def fails():
    return nn.Linear(4, -1)

def number():
    return 3
"""


def test_a_model_of_ones_own_is_sorted_before_the_eyes(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(MODEL)
    rows = describe_roles(build_model(f"{file}:build"), method("muon").recipe()).splitlines()
    assert [row.split()[-1] for row in rows[1:]] == ["else", "matrix", "else", "else", "else", "else", "else"]
    assert rows[2].split()[:5] == ["1.weight", "6", "x", "4", "matrix"]
    assert "an embedding's table" in rows[1]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("net.py:fails", "net.py, line 8: RuntimeError"),
        ("net.py:number", "number() returned a int, not a torch.nn.Module"),
        ("net.py:other", 'has no function "other"'),
        ("net.py", "write FILE.py:function"),
        ("nowhere.py:build", 'no file "nowhere.py"'),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_a_sentence(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refusal:
        build_model(name)
    assert sentence in str(refusal.value)
