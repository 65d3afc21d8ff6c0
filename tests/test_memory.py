"""`slalom memory`: what is told beforehand is what is allocated, and what others published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import slalom
from fresh import call
from networks import go, quietly
from slalom.cli.memory import memory as command
from slalom.errors import UsageError
from slalom.memory import SHAPES, Account, Transformer, account, matrices, saved_bytes, state_bytes

METHODS = [
    "sgd:momentum=0.9", "adamw", "lion", "adafactor", "muon", "soap", "distributed-shampoo", "smmf", "galore", "dion",
    "prodigy", "schedule-free-adamw", "adan", "lamb", "sm3",
]  # fmt: skip


def network() -> nn.Module:
    return nn.Sequential(
        nn.Embedding(11, 8), nn.Flatten(1), nn.Linear(24, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)
    )


def held(tensors: Any) -> int:
    """Bytes of the storages behind tensors, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}
    return sum(storages.values())


@pytest.mark.parametrize("spec", METHODS)
def test_state_is_what_an_optimizer_allocates(spec: str) -> None:
    model = network()
    name, _, momentum = spec.partition(":momentum=")
    settings = {"momentum": float(momentum)} if momentum else {}
    optimizer = quietly(lambda: slalom.create(name, model, **settings))
    told = account(model, spec).state
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    go(optimizer)
    assert told == state_bytes(optimizer)
    assert told == held(value for state in optimizer.state.values() for value in state.values())


def test_weights_and_gradients_are_what_is_held_and_frozen_ones_have_no_gradients() -> None:
    model = network()
    told = account(model, "adamw")
    assert told.weights == held([*model.parameters(), *model.buffers()])
    assert told.gradients == held(model.parameters())
    assert told.copies == told.scratch == told.gathered == 0
    model[0].requires_grad_(False)
    frozen = account(model, "adamw")
    assert frozen.weights == told.weights
    assert told.gradients - frozen.gradients == 4 * 11 * 8
    assert told.state - frozen.state == 8 * 11 * 8 + 4


@pytest.fixture(scope="module")
def ranks() -> Iterator[int]:
    """Four ranks of which only the first exists."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield 4
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "adafactor", "smmf", "lamb"])
def test_a_shard_is_what_fsdp_holds(ranks: int, name: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3))
    told = quietly(lambda: account(model, name, ranks=ranks))
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    own = [parameter.to_local() for parameter in model.parameters()]
    optimizer = quietly(lambda: slalom.create(name, model))
    optimizer.init_state()
    states = [value for state in optimizer.state.values() for value in state.values()]
    whole = 4 * sum(p.numel() for p, _ in zip(model.parameters(), own, strict=True))
    assert told.weights == told.gradients == 4 * sum(part.numel() for part in own)
    assert told.state == sum(_local(s).numel() * s.element_size() for s in states)
    # whoever looks at whole matrices keeps a copy of the whole: muon of its matrices, the others of all
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    copies = sum(4 * shard.work.numel() for shard in optimizer._shards.values() if shard._gathers)
    assert told.copies == copies
    assert told.scratch >= copies
    assert (copies == 0) == (name in ("adamw", "lion"))
    assert copies <= whole


def _local(value: Tensor) -> Tensor:
    return value.to_local() if hasattr(value, "to_local") else value


# Parameters as their authors' checkpoints have them.
COUNTS = {
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
}


@pytest.mark.parametrize("name", SHAPES)
def test_known_models_have_their_parameters(name: str) -> None:
    assert sum(p.numel() for p in Transformer(SHAPES[name]).parameters()) == COUNTS[name]


@pytest.mark.parametrize("count", [1, 5000, 123_456_789, 7_000_000_000])
def test_a_count_is_met_exactly(count: int) -> None:
    assert sum(p.numel() for p in matrices(count).parameters()) == count


def test_the_figures_of_the_zero_paper() -> None:
    """Rajbhandari et al. 2019: 16 bytes per parameter; 24 GB for 1.5 billion; 7.5 billion on 64 ranks take 1.9 GB."""
    xl = account(matrices(1_500_000_000), "adamw", precision="mixed")
    assert xl.resident == pytest.approx(24e9, rel=1e-6)
    assert xl.weights == 3_000_000_000
    large = matrices(7_500_000_000)
    assert account(large, "adamw", precision="mixed").resident == pytest.approx(120e9, rel=1e-6)
    assert account(large, "adamw", precision="mixed", ranks=64).resident == pytest.approx(1.9e9, rel=0.02)
    # In float32 Adam takes 16 bytes as well, and Muon's single moment 4 fewer on the matrices.
    assert account(large, "adamw").resident == pytest.approx(120e9, rel=1e-6)
    assert account(large, "muon").state == pytest.approx(30e9, rel=1e-6)


def test_activations_of_a_perceptron_are_counted_by_hand() -> None:
    model = nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 3))
    x, y = torch.randn(10, 7), torch.randn(10, 3)

    def run() -> Tensor:
        return (model(x) - y).square().mean()

    # the input, what the ReLU returns (for it and for the layer behind: one storage), what is squared
    assert saved_bytes(run, model.parameters()) == 4 * (10 * 7 + 10 * 20 + 10 * 3)
    assert saved_bytes(run) > saved_bytes(run, model.parameters())  # weights are kept too, and are counted elsewhere
    large = torch.zeros(1000, 7)
    views = saved_bytes(lambda: model(large[:10]).sum(), model.parameters())
    assert views == 4 * (1000 * 7 + 10 * 20)  # a view keeps the whole


def test_the_meta_device_counts_what_real_memory_holds() -> None:
    def kept(device: str) -> int:
        with torch.device(device):
            model = nn.Sequential(
                nn.Embedding(30, 16), nn.Linear(16, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 30)
            )
            tokens = torch.zeros(4, 9, dtype=torch.long)
        return saved_bytes(
            lambda: nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()), model.parameters()
        )

    assert kept("meta") == kept("cpu")


def test_a_checkpointed_model_keeps_one_tensor_per_layer() -> None:
    layers, width, rows = 12, 16, 40
    block = lambda: nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, width), nn.Tanh())  # noqa: E731
    model = nn.ModuleList(block() for _ in range(layers))
    x = torch.randn(rows, width, requires_grad=True)

    def run(*, again: bool) -> Tensor:
        y = x
        for layer in model:
            y = checkpoint(layer, y, use_reentrant=False) if again else layer(y)
        return y.sum()

    one = 4 * rows * width
    whole = saved_bytes(lambda: run(again=False), model.parameters())
    assert whole == one + layers * 5 * one  # per layer: tanh's 64 = 4 widths, and the second tanh's
    # The last layer's output is only summed, so nobody needs it.
    assert saved_bytes(lambda: run(again=True), model.parameters()) == layers * one


def test_activations_of_gpt2_xl() -> None:
    """A layer of GPT-2 keeps 16 numbers per token and width; ZeRO counts 12, so 60 GB for 32 x 1024 tokens."""
    unit = 1600 * 32 * 1024 * 2  # bytes of one tensor of width by tokens, in halves
    assert 12 * 48 * unit == pytest.approx(60e9, rel=0.01)
    model = Transformer(SHAPES["gpt2-xl"], torch.bfloat16)
    layer = saved_bytes(model.layer(32, 1024), model.parameters())
    assert layer / unit == pytest.approx(16, abs=0.05)
    again = Transformer(SHAPES["gpt2-xl"], torch.bfloat16, checkpointed=True)
    kept = saved_bytes(again.loss(32, 1024), again.parameters())
    logits = 50257 * 32 * 1024 * 2
    # 48 inputs (5.03 GB), the last norm's input and output, logits as they are normalised, and next to nothing
    assert kept == pytest.approx(48 * unit + 2 * unit + logits, rel=0.01)


def test_what_makes_no_sense_is_refused_in_one_sentence() -> None:
    model = network()
    for given, words in [
        ({"precision": "float16"}, "no precision"),
        ({"ranks": 0}, "ranks=0"),
        ({"ranks": 1.5}, "ranks=1.5"),
    ]:
        with pytest.raises(UsageError, match=words):
            account(model, "adamw", **given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no optimizer"):
        account(model, "adamww")


TASK = """
import torch
from torch import nn

def build():
    model = nn.Linear(8, 3)
    x = torch.randn(5, 8)
    return model, lambda model: model(x).square().mean()

def alone():
    return build()[0]

def number():
    return 3

def pair():
    return alone(), 3

def unlucky():
    return alone(), lambda model: model(torch.randn(5, 9))
"""


@pytest.fixture
def task(tmp_path: Path) -> str:
    file = tmp_path / "task.py"
    file.write_text(TASK)
    return str(file)


def asked(capsys: pytest.CaptureFixture[str], *args: Any, **options: Any) -> Any:
    command(*args, **{"precision": None, "batch": None, "checkpoint": False, "ranks": 1, "as_json": True, **options})
    return json.loads(capsys.readouterr().out)


def test_the_command_on_a_file_of_ones_own(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, f"{task}:build", ["adamw", "sgd"])["recipes"]
    assert found["adamw"]["activations"] == 4 * (5 * 8 + 5 * 3)
    assert found["adamw"]["state"] == 8 * 27 + 2 * 4
    assert found["sgd"]["state"] == 2 * 4
    assert asked(capsys, f"{task}:alone", ["adamw"])["recipes"]["adamw"]["activations"] is None
    for function, words in [
        ("number", "returned a int"),
        ("pair", "returned 2 things"),
        ("nobody", "no function"),
        ("unlucky", "line 20: RuntimeError: mat1 and mat2"),
    ]:
        with pytest.raises(UsageError, match=words):
            asked(capsys, f"{task}:{function}", ["adamw"])


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("gpt2-xxl", {}, "Did you mean gpt2-xl"),
        ("0", {}, "no number of parameters"),
        ("1..5b", {}, "no number of parameters"),
        ("gpt2-xl", {"batch": "8"}, "SEQUENCESxTOKENS"),
        ("gpt2-xl", {"batch": "8x2048"}, "at most 1024"),
        ("gpt2-xl", {"checkpoint": True}, "add --batch"),
        ("7b", {"batch": "8x8"}, "known models"),
        ("gpt2-xl", {"precision": "half"}, "no precision"),
    ],
)
def test_what_cannot_be_read_is_refused(
    model: str, options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=words):
        asked(capsys, model, ["adamw"], **options)


def test_the_screen() -> None:
    words = ["memory", "gpt2-small", "adamw", "sgd:momentum=0.9", "muon", "--precision", "mixed"]
    words += ["--ranks", "2", "--batch", "2x64"]
    said = call(*words, COLUMNS="80")
    assert said.returncode == 0, said.stderr
    assert "124,439,808 parameters" in said.stdout
    row = next(row for row in said.stdout.splitlines() if row.startswith("adamw"))
    assert row.split()[:5] == ["adamw", "0.124", "0.124", "0.249", "0.498"]
    assert "peak" in said.stdout
    assert "…" not in said.stdout
    assert "in GB" in said.stdout
    assert max(map(len, said.stdout.splitlines())) <= 80


def test_the_peak_is_what_is_always_there_and_the_larger_of_what_comes_and_goes() -> None:
    one = Account(1, weights=1, gradients=2, copies=4, state=8, scratch=16, gathered=5, activations=10)
    assert (one.resident, one.peak) == (15, 31)
    assert Account(1, 1, 2, 4, 8, scratch=16, gathered=5, activations=12).peak == 32
