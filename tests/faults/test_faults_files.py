"""Checkpoints that rot, are cut, swapped, renamed or belong to somebody else: noticed, named, and passed over."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harm import equal, make, saved_at, train, weights
from torch import nn

import slalom
from slalom.checkpoint import checkpoint


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[int, list[torch.Tensor]]]:
    """A folder with checkpoints 1 and 2, at positions 2 and 4."""
    return tmp_path / "run", saved_at(tmp_path / "run", 2, 4)


def cut(at: int) -> Callable[[Path], None]:
    """Truncate the newest data at a place, from its end if negative."""

    def damage(folder: Path) -> None:
        file = folder / "checkpoint-000002.pt"
        os.truncate(file, at if at >= 0 else file.stat().st_size + at)

    return damage


def halve(folder: Path) -> None:
    cut((folder / "checkpoint-000002.pt").stat().st_size // 2)(folder)


def lengthen(folder: Path) -> None:
    with (folder / "checkpoint-000002.pt").open("ab") as file:
        file.write(b"\0")


def swap(folder: Path, kind: str) -> None:
    a, b, c = (folder / f"{name}.{kind}" for name in ("checkpoint-000001", "checkpoint-000002", "third"))
    a.rename(c)
    b.rename(a)
    c.rename(b)


def delete(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def directory(folder: Path) -> None:
    (folder / "checkpoint-000002.pt").unlink()
    (folder / "checkpoint-000002.pt").mkdir()


def write(text: bytes) -> Callable[[Path], int]:
    return lambda folder: (folder / "checkpoint-000002.json").write_bytes(text)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut(0), "checkpoint-000002.pt is damaged"),
        (cut(10), "checkpoint-000002.pt is damaged"),
        (halve, "checkpoint-000002.pt is damaged"),
        (cut(-5), "checkpoint-000002.pt is damaged"),
        (lengthen, "checkpoint-000002.pt is damaged"),
        (delete("checkpoint-000002.pt"), "checkpoint-000002.pt cannot be read .No such file"),
        (directory, "checkpoint-000002.pt cannot be read .Is a directory"),
        (delete("checkpoint-000002.json"), "checkpoint-000002.json is not there"),
        (write(b""), "checkpoint-000002.json is damaged: it is no manifest"),
        (write(b"\xff\xfe"), "checkpoint-000002.json is damaged: it is no manifest"),
        (write(b"[1, 2]"), "checkpoint-000002.json is damaged: it is no manifest"),
        (write(b"{}"), "checkpoint-000002.json is damaged: it is no manifest"),
        (write(b'{"seal": "0", "format": 1}'), "checkpoint-000002.json is damaged: it is not what was written"),
        (write(b"[" * 100_000), "checkpoint-000002.json is damaged: it is no manifest"),
    ],
)  # fmt: skip
def test_damage_is_named_and_the_one_before_is_used(
    damage: Callable[[Path], object], named: str, run: tuple[Path, dict[int, list[torch.Tensor]]]
) -> None:
    """Row "corrupted file": cut, lengthened, deleted, or not what it was."""
    folder, known = run
    damage(folder)
    fresh = make()
    with pytest.warns(UserWarning, match=f"{named}.*Going on from checkpoint-000001.pt, saved .* at 2"):
        loaded = slalom.load_checkpoint(folder, **fresh)
    assert loaded is not None
    assert loaded.position == 2
    train(fresh, 2, 9)
    assert equal(weights(fresh), known[9])
    with warnings.catch_warnings():  # the next save is the newest, whatever lies there
        warnings.simplefilter("error")
        slalom.save_checkpoint(folder, **fresh, position=9)
        newest = slalom.load_checkpoint(folder, **make())
    assert newest is not None
    assert newest.position == 9


@pytest.mark.parametrize("kind", ["pt", "json"])
def test_swapped_files_are_all_damaged_and_nothing_is_changed(
    kind: str, run: tuple[Path, dict[int, list[torch.Tensor]]]
) -> None:
    """Row "corrupted file": two of them swapped."""
    folder, _ = run
    swap(folder, kind)
    fresh = make()
    before = weights(fresh)
    with pytest.raises(ValueError, match=r'no checkpoint in ".*" is whole: checkpoint-000002.*; checkpoint-000001'):
        slalom.load_checkpoint(folder, **fresh)
    assert equal(before, weights(fresh))


def test_renamed_pairs_are_noticed(run: tuple[Path, dict[int, list[torch.Tensor]]]) -> None:
    """Row "corrupted file": each whole, under the name of the other."""
    folder, _ = run
    swap(folder, "pt")
    swap(folder, "json")
    with pytest.raises(ValueError, match="is the manifest of checkpoint 1: files were renamed"):
        slalom.load_checkpoint(folder, **make())


def test_every_flipped_bit_of_the_data_is_noticed(run: tuple[Path, dict[int, list[torch.Tensor]]]) -> None:
    """Row "corrupted file", flipped: torch.load alone reads most of these without a word."""
    folder, _ = run
    file = folder / "checkpoint-000002.pt"
    whole = file.read_bytes()
    places = random.Random(0).sample(range(len(whole)), 150)
    for place in (0, len(whole) - 1, *places):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << place % 8
        file.write_bytes(spoiled)
        with pytest.raises(checkpoint._Damaged, match="not what its manifest states"):
            checkpoint._read(folder, 2)


def test_every_flipped_bit_of_the_manifest_is_noticed_or_changes_nothing(
    run: tuple[Path, dict[int, list[torch.Tensor]]],
) -> None:
    """Row "corrupted file", flipped: of what says whether the data is whole."""
    folder, _ = run
    file = folder / "checkpoint-000002.json"
    whole, facts = file.read_bytes(), checkpoint._read_manifest(file, 2)
    noticed = 0
    for place in range(len(whole)):
        for bit in range(8):
            spoiled = bytearray(whole)
            spoiled[place] ^= 1 << bit
            file.write_bytes(spoiled)
            try:
                assert checkpoint._read_manifest(file, 2) == facts
            except checkpoint._Damaged:
                noticed += 1
    assert noticed > 0.9 * 8 * len(whole)


def test_the_checkpoint_of_another_model_is_refused_whole_and_not_passed_over(
    run: tuple[Path, dict[int, list[torch.Tensor]]], tmp_path: Path
) -> None:
    """Row "wrong checkpoint": tests/test_checkpoint.py has groups, optimizers and formats."""
    folder, known = run
    model = nn.Linear(3, 3)
    other = slalom.save_checkpoint(tmp_path / "other", model=model, optimizer=slalom.AdamW(model.parameters()))
    for path in (other, other.with_suffix(".json")):
        shutil.copy(path, folder / path.name.replace("000001", "000003"))
    manifest = folder / "checkpoint-000003.json"
    facts = json.loads(manifest.read_text())
    del facts["seal"]
    facts["serial"] = 3
    manifest.write_text(json.dumps({**facts, "seal": checkpoint._seal(facts)}))
    fresh = make()
    before = weights(fresh)
    with pytest.raises(ValueError, match="does not fit, and nothing was changed") as refused:
        slalom.load_checkpoint(folder, **fresh)
    assert 'model: the checkpoint has no "0.weight", "0.bias", "2.weight", "2.bias"' in str(refused.value)
    assert "the checkpoint has no scheduler" in str(refused.value)
    assert equal(before, weights(fresh))
    assert not equal(before, known[2])


def forge(folder: Path, content: object) -> None:
    """Write a checkpoint whose digests are right and whose content is not ours."""
    data, manifest = folder / "checkpoint-000002.pt", folder / "checkpoint-000002.json"
    torch.save(content, data)
    facts = json.loads(manifest.read_text())
    del facts["seal"]
    facts["sha256"] = hashlib.sha256(data.read_bytes()).hexdigest()
    manifest.write_text(json.dumps({**facts, "seal": checkpoint._seal(facts)}))


class Malicious:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, ("pwned", 0o700)


@pytest.mark.parametrize(
    "content",
    [{"format": 1, "pieces": Malicious()}, {"format": 1}, [1, 2], "text"],
    ids=["code", "lacking", "list", "text"],
)
def test_forged_files_run_nothing(
    content: object, run: tuple[Path, dict[int, list[torch.Tensor]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row "corrupted file", by somebody who means it."""
    folder, _ = run
    monkeypatch.chdir(tmp_path)
    forge(folder, content)
    with pytest.warns(UserWarning, match="checkpoint-000002.pt holds no checkpoint"):
        loaded = slalom.load_checkpoint(folder, **make())
    assert loaded is not None
    assert loaded.position == 2
    assert not (tmp_path / "pwned").exists()


def test_one_that_was_never_finished_does_not_stop_a_run_from_starting(tmp_path: Path) -> None:
    """Row "kill -9", while the first one is saved."""
    saved_at(tmp_path, 2)
    (tmp_path / "checkpoint-000001.json").unlink()
    with pytest.warns(UserWarning, match="There is no other: the run starts from its beginning"):
        assert slalom.load_checkpoint(tmp_path, **make()) is None


def test_other_files_in_the_folder_are_left_alone(run: tuple[Path, dict[int, list[torch.Tensor]]]) -> None:
    """Row "corrupted file": what is not ours is no corrupted checkpoint."""
    folder, _ = run
    for name in ("notes.txt", "checkpoint-best.pt", "model.part", ".hidden.part", "checkpoint-000001.pt.bak"):
        (folder / name).write_text("mine")
    for _ in range(3):
        slalom.save_checkpoint(folder, **make())
    kept = {path.name for path in folder.iterdir() if path.read_bytes() == b"mine"}
    assert kept == {"notes.txt", "checkpoint-best.pt", "model.part", ".hidden.part", "checkpoint-000001.pt.bak"}
