"""The GPU tier: workloads on data on disk, here tiny files, narrow models and the CPU."""

import gzip
import struct
from dataclasses import replace

import pytest
import torch

from slalom.errors import UsageError
from slalom.race.contestant import enter
from slalom.race.files import choose, load
from slalom.race.plan import plan
from slalom.race.rules import Ruleset
from slalom.race.trial import run

NARROW = {"width": 24, "layers": 1, "heads": 2, "batch": 4, "context": 16, "windows": 4, "steps": 4, "evaluations": 2}


@pytest.fixture
def cifar(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for index, name in enumerate(["test_batch", *(f"data_batch_{i}" for i in range(1, 6))]):
        pixels = torch.randint(256, (20, 3072), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        records = torch.cat([torch.arange(20, dtype=torch.uint8)[:, None] % 10, pixels], 1)
        (folder / f"{name}.bin").write_bytes(records.numpy().tobytes())
    return folder


@pytest.fixture
def mnist(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for kind, count in (("train", 30), ("t10k", 10)):
        images = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28) + bytes(range(256))[:196] * 4 * count
        labels = struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(i % 10 for i in range(count))
        (folder / f"{kind}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{kind}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "Moby Dick.txt"
    file.write_text("Call me Ishmael. " * 300)
    return file


def few_steps(entry):
    """Train a narrow copy of the workload for four steps."""
    workload = entry.workload
    for name, value in NARROW.items():
        if hasattr(workload, name):
            setattr(workload, name, value)
    (trial,) = plan([entry], enter(["torch.optim.SGD:lr=0.01"]), 1, Ruleset("self-tuning")).trials
    return run(replace(trial, steps=4), workload, lambda step: None)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("cifar", ["cifar10_resnet", "cifar10_vit"]),
        ("mnist", ["mnist_resnet", "mnist_vit"]),
        ("text", ["moby_dick_gpt"]),
    ],
)
def test_data_on_disk_are_trained_on(data, names, request):
    path = str(request.getfixturevalue(data))
    entries = choose([], [], data=[path])
    assert [entry.workload.name for entry in entries] == names
    for entry in entries:
        outcome = few_steps(entry)
        assert (outcome.status, outcome.stopped) == ("finished", 4), outcome.reason
        # Nothing is learnt in four steps, but the loss is that of guessing and not of a broken reading.
        assert outcome.curve.loss[-1] < 8


def test_the_tier_names_the_same_workloads_and_asks_for_data(cifar, text):
    names = [entry.workload.name for entry in choose([], [], "gpu", data=[str(cifar), str(text)])]
    assert names == ["cifar10_resnet", "cifar10_vit", "moby_dick_gpt"]
    with pytest.raises(UsageError, match="--data names"):
        choose([], [], "gpu")


def test_a_worker_finds_the_workload_by_the_path(text):
    (entry,) = choose([], [], data=[str(text)])
    assert load("moby_dick_gpt", entry.file).data_hash() == entry.workload.data_hash()


def test_results_are_filed_by_the_data_and_not_by_where_they_lie(text, tmp_path):
    def key(path):
        return plan(choose([], [], data=[str(path)]), enter(["torch.optim.SGD:lr=0.01"]), 1).trials[0].key

    first = key(text)
    assert key(text) == first
    moved = tmp_path / "elsewhere" / text.name
    moved.parent.mkdir()
    moved.write_text(text.read_text())
    assert key(moved) == first
    moved.write_text(text.read_text().replace("me", "us"))
    load.cache_clear()
    from slalom.race.workloads import local

    local._text.cache_clear()
    assert key(moved) != first


def test_crops_are_windows_of_the_padded_image(mnist):
    resnet, _ = choose([], [], data=[str(mnist)])
    workload = resnet.workload
    workload.batch = 8
    x, y = next(iter(workload.batches(torch.Generator().manual_seed(0))))
    assert x.shape == (8, 1, 28, 28)
    images, labels = workload.data.train
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    windows = padded.unfold(2, 28, 1).unfold(3, 28, 1).reshape(-1, 28, 28)
    pixels = ((x + 2) * 64).round().to(torch.uint8)
    assert all((windows == one).all(2).all(1).any() for one in pixels[:, 0])
    assert set(y.tolist()) <= set(labels.tolist())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "none", "no such file or folder"),
        (lambda folder: folder, "neither data_batch_1.bin"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path, make, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose([], [], data=[str(make(tmp_path))])


def test_a_text_that_is_too_short_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("short")
    (entry,) = choose([], [], data=[str(tmp_path / "short.txt")])
    with pytest.raises(UsageError, match="needs at least"):
        entry.workload.data_hash()


def test_a_folder_without_its_second_half_is_refused(mnist):
    (mnist / "t10k-images-idx3-ubyte").unlink()
    resnet, _ = choose([], [], data=[str(mnist)])
    with pytest.raises(UsageError, match="t10k-images-idx3-ubyte or"):
        resnet.workload.data_hash()
