import hashlib

import pytest
import torch

from slalom.race.workload import stream
from slalom.race.workloads import built_in
from slalom.race.workloads.charlm import ALPHABET, BLOCKS, CHARACTERS, OTHER, standard_library, text
from slalom.race.workloads.digits import images
from slalom.race.workloads.schedules import warmup_cosine


def test_the_text_is_the_same_every_time_and_hashed():
    source = standard_library()
    assert len(source) == CHARACTERS
    assert text().sha256 == hashlib.sha256(source.encode()).hexdigest() == built_in()["charlm"].data_hash()


def test_the_text_is_split_in_contiguous_blocks_without_overlap():
    codes = [*ALPHABET]
    read = text()
    block = CHARACTERS // BLOCKS
    assert len(read.train) == 9 * len(read.validation) == CHARACTERS * 9 // 10
    decoded = "".join(codes[code] if code != OTHER else "?" for code in read.validation[:50].tolist())
    source = standard_library()[block * 9 // 10 : block * 9 // 10 + 50]
    assert decoded == "".join(character if character in ALPHABET else "?" for character in source)


def test_digits_are_split_without_overlap():
    data = images()
    assert (len(data.train[0]), len(data.validation[0])) == (1297, 500)
    assert data.train[0].aminmax() == (-1.0, 1.0)
    assert len(data.sha256) == 64


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", "charlm"])
def test_a_workload_starts_at_chance_and_gives_a_gradient_to_every_parameter(name):
    workload = built_in()[name]
    torch.manual_seed(0)
    model = workload.model()
    batch = next(iter(workload.batches(stream(name, 0, "batches"))))
    workload.loss(model, batch).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    classes = 10 if "digits" in name else OTHER + 1
    with torch.no_grad():
        assert float(workload.evaluate(model)["loss"]) == pytest.approx(torch.tensor(classes).log().item(), rel=0.1)


@pytest.mark.parametrize("name", ["digits_mlp", "charlm"])
def test_batches_follow_from_the_seed(name):
    def first(seed):
        batch = next(iter(built_in()[name].batches(stream(name, seed, "batches"))))
        return batch if isinstance(batch, torch.Tensor) else batch[0]

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def test_the_schedule_rises_and_falls_to_nothing():
    rates = [warmup_cosine(step / 100) for step in range(100)]
    assert 0 < rates[0] < rates[4] < 1
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[-1] < 0.001
    assert sorted(rates[6:], reverse=True) == rates[6:]
