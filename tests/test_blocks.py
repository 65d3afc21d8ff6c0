"""Fused and stacked matrices: a block is a parameter of its own, whatever runs, however it is saved."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import slalom
from networks import go, quietly
from slalom.engine.blocks import in_words, pieces
from slalom.errors import UsageError
from test_cli import run

# row statistics, square factors, thin factors, bits, a number per tensor, a norm of the model, an average, a rank
METHODS = (
    "muon", "normuon", "soap", "shampoo", "dion", "dion2", "galore", "apollo", "ldadam", "adafactor", "smmf", "lamb",
    "adamw", "prodigy", "schedule-free-adamw", "scion",
)  # fmt: skip
DECLARED: dict[tuple[int, ...], Any] = {(12, 5): 3, (10, 4): (6, 2, 2), (3, 4, 5): "batch", (9,): 3, (2, 6): "batch"}


def _values(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _fused(dtype: torch.dtype) -> list[nn.Parameter]:
    return [nn.Parameter(_values(shape, seed, dtype)) for seed, shape in enumerate(DECLARED)]


def _split(dtype: torch.dtype) -> list[list[nn.Parameter]]:
    return [
        [nn.Parameter(piece.clone()) for piece in pieces(_values(shape, seed, dtype), blocks)]
        for seed, (shape, blocks) in enumerate(DECLARED.items())
    ]


def _declared_groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """One group per role, in which the places of blocks are those in the group."""
    groups = []
    for role in ("vector", "matrix"):
        members = [(p, b) for p, b in zip(parameters, DECLARED.values(), strict=True) if _role(p, b) == role]
        groups.append(
            {"params": [p for p, _ in members], "role": role, "blocks": {at: b for at, (_, b) in enumerate(members)}}
        )
    return groups


def _role(parameter: Tensor, blocks: Any) -> str:
    return "vector" if parameter.ndim - (blocks == "batch") < 2 else "matrix"


def _separate_groups(parts: list[list[nn.Parameter]]) -> list[dict[str, Any]]:
    flat = [part for many in parts for part in many]
    return [
        {"params": [p for p in flat if (p.ndim < 2) == (role == "vector")], "role": role}
        for role in ("vector", "matrix")
    ]


def _step(optimizer: slalom.Optimizer, fused: list[nn.Parameter], t: int, parts: Any = None) -> None:
    for place, parameter in enumerate(fused):
        gradient = _values(tuple(parameter.shape), 100 * t + place, parameter.dtype)
        if parts is None:
            parameter.grad = gradient
        else:
            for part, piece in zip(parts[place], pieces(gradient, list(DECLARED.values())[place]), strict=True):
                part.grad = piece.clone()
    go(optimizer, 1.0 + t)


def _settings(name: str) -> dict[str, Any]:
    return {"rank": 2} if name in ("dion", "galore", "apollo", "ldadam") else {}


def _moves_alike(name: str, executor: Any) -> None:
    fused, parts = _fused(torch.float32), _split(torch.float32)
    declared = slalom.create(name, _declared_groups(fused), executor=executor, **_settings(name))
    separate = slalom.create(name, _separate_groups(parts), executor=executor, **_settings(name))
    for t in range(4):
        _step(declared, fused, t)
        _step(separate, fused, t, parts)
    with declared.averaged(), separate.averaged():
        for whole, blocks, many in zip(fused, DECLARED.values(), parts, strict=True):
            for piece, part in zip(pieces(whole, blocks), many, strict=True):
                assert torch.equal(piece, part)
    assert _bytes(declared) == _bytes(separate)


@pytest.mark.parametrize("name", slalom.list_optimizers())
def test_blocks_move_as_parameters_of_their_own_whatever_the_method(name: str) -> None:
    _moves_alike(name, "auto")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("executor", ["eager", "foreach"])
def test_blocks_move_as_parameters_of_their_own_in_other_executors(name: str, executor: str) -> None:
    _moves_alike(name, executor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64], ids=str)
def test_blocks_of_other_dtypes(dtype: torch.dtype) -> None:
    fused, parts = _fused(dtype), _split(dtype)
    recipe = slalom.Recipe(momentum=slalom.parts.Ema(0.9), scale=slalom.parts.Factored(), step=0.1)
    declared, separate = recipe.build(_declared_groups(fused)), recipe.build(_separate_groups(parts))
    for t in range(3):
        _step(declared, fused, t)
        _step(separate, fused, t, parts)
    for whole, blocks, many in zip(fused, DECLARED.values(), parts, strict=True):
        for piece, part in zip(pieces(whole, blocks), many, strict=True):
            assert torch.equal(piece, part)


def test_a_convolution_of_groups_is_cut_like_a_matrix_and_channels_may_come_last() -> None:
    plain = nn.Parameter(_values((6, 3, 2, 2), 0, torch.float32))
    strided = nn.Parameter(plain.detach().to(memory_format=torch.channels_last))
    apart = [nn.Parameter(piece.clone()) for piece in pieces(plain.detach(), 2)]
    optimizers = [slalom.Muon([{"params": [w], "role": "convolution", "blocks": 2}]) for w in (plain, strided)]
    optimizers.append(slalom.Muon([{"params": apart, "role": "convolution"}]))
    for t in range(3):
        gradient = _values((6, 3, 2, 2), 9 + t, torch.float32)
        plain.grad, strided.grad = gradient, gradient.clone()
        for part, piece in zip(apart, pieces(gradient, 2), strict=True):
            part.grad = piece.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(plain, torch.cat(list(apart)))
    torch.testing.assert_close(strided, plain, rtol=1e-5, atol=1e-6)


def _bytes(optimizer: slalom.Optimizer) -> int:
    found = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for key, value in state.items()
        if key != "step"
    }
    return sum(found.values())


def test_a_whole_matrix_moves_otherwise() -> None:
    (ours, theirs), gradient = [nn.Parameter(torch.zeros(12, 5)) for _ in range(2)], torch.randn(12, 5)
    for parameter, extra in ((ours, {"blocks": 3}), (theirs, {})):
        parameter.grad = gradient
        slalom.Muon([{"params": [parameter], "role": "matrix", **extra}], lr=1.0, scaling="original").step()
    assert (ours - theirs).norm() > 0.1


class Block(nn.Module):
    """An attention layer with fused weights, and experts."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.experts = nn.Parameter(torch.randn(4, 6, 8))
        self.gates = nn.Parameter(torch.randn(4, 6))
        self.head = nn.Linear(6, 2)


BLOCKS: dict[str, Any] = {"*qkv.weight": (8, 8, 8), "experts": "batch", "gates": "batch"}


def _trained(steps: int = 2, **settings: Any) -> tuple[Block, slalom.Optimizer]:
    torch.manual_seed(0)
    model = Block()
    optimizer = quietly(lambda: slalom.create("muon", model, **settings))
    for t in range(steps):
        for place, parameter in enumerate(model.parameters()):
            parameter.grad = _values(tuple(parameter.shape), 10 * t + place, parameter.dtype)
        optimizer.step()
    return model, optimizer


def test_a_batch_of_matrices_is_a_matrix_and_nobody_needs_to_guess(recwarn: pytest.WarningsRecorder) -> None:
    optimizer = slalom.create("muon", Block(), blocks=BLOCKS)
    assert not recwarn.list
    roles = {name: group["role"] for group in optimizer.param_groups for name in group["param_names"]}
    assert roles["experts"] == roles["qkv.weight"] == "matrix"
    assert roles["gates"] == "vector"
    shown = repr(optimizer)
    assert '"qkv.weight" as 8 x 8 + 8 x 8 + 8 x 8' in shown
    assert '"experts" as 4 of 6 x 8' in shown


def test_declared_blocks_survive_copies_pickles_and_checkpoints() -> None:
    model, optimizer = _trained(blocks=BLOCKS)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(model)
    resumed = quietly(lambda: slalom.create("muon", twin, blocks=BLOCKS))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    copied_model, copied = copy.deepcopy((model, optimizer))
    for one, its in ((model, optimizer), (twin, resumed), (copied_model, copied)):
        for place, parameter in enumerate(one.parameters()):
            parameter.grad = _values(tuple(parameter.shape), place, parameter.dtype)
        its.step()
    for a, b, c in zip(model.parameters(), twin.parameters(), copied_model.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ({}, r'"qkv.weight" had blocks \(8, 8, 8\) in the checkpoint and has none here'),
        ({**BLOCKS, "*qkv.weight": 3}, r'"qkv.weight" had blocks \(8, 8, 8\) in the checkpoint and has 3 here'),
    ],
)
def test_a_checkpoint_of_other_blocks_is_refused_and_changes_nothing(declared: Any, sentence: str) -> None:
    saved = _trained(blocks={"*qkv.weight": (8, 8, 8)})[1].state_dict()
    declared = {key: value for key, value in declared.items() if key == "*qkv.weight"}
    _, other = _trained(blocks=declared)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=sentence):
        other.load_state_dict(saved)
    assert str(before) == str(other.state_dict())


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ({"qkv.weight": 5}, r'blocks=5 for "qkv.weight" of shape \(24, 8\): that is no number of equal blocks'),
        ({"qkv.weight": (8, 8)}, "have 16 rows together; they must add up to all rows"),
        ({"head.bias": "batch"}, "a batch needs a dimension that counts"),
        ({"qkv.weight": "heads"}, "give a number of equal blocks"),
        ({"qkv.weight": 0}, "no number of equal blocks"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_a_sentence(blocks: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        quietly(lambda: slalom.create("muon", Block(), blocks=blocks))
    with pytest.raises(ValueError, match=sentence):
        slalom.AdamW(Block(), blocks=blocks)


def test_patterns_without_a_match_and_parameters_without_a_name_are_refused() -> None:
    for name in ("muon", "adamw"):
        with pytest.raises(UsageError, match=r"qvk"):
            quietly(lambda name=name: slalom.create(name, Block(), blocks={"*.qvk": 3}))
        with pytest.raises(ValueError, match="goes by names"):
            quietly(lambda name=name: slalom.create(name, Block().parameters(), blocks={"*.qkv": 3}))


def test_groups_of_bare_parameters_take_blocks_for_all_and_keep_them_when_sorted_by_shape() -> None:
    stacked, biases, plain = (nn.Parameter(torch.zeros(shape)) for shape in ((3, 4, 5), (3, 4), (6, 6)))
    groups = [{"params": [plain]}, {"params": [stacked, biases], "blocks": "batch"}]
    optimizer = quietly(lambda: slalom.create("muon", groups))
    found = {id(p): (g["role"], g.get("blocks")) for g in optimizer.param_groups for p in g["params"]}
    assert found == {
        id(plain): ("matrix", None),
        id(stacked): ("matrix", {0: "batch"}),
        id(biases): ("vector", {0: "batch"}),
    }


def test_later_groups_find_what_was_declared() -> None:
    model = Block()
    optimizer = slalom.AdamW(
        [("head.weight", model.head.weight), ("x.qkv.weight", model.head.bias)], blocks={"*qkv*": 2}
    )
    optimizer.add_param_group({"params": [("b.qkv.weight", model.qkv.weight)]})
    assert optimizer.param_groups[1]["blocks"] == {0: 2}


def test_a_state_or_a_parameter_that_is_exchanged_is_noticed_and_counts_stay_together() -> None:
    ends = []
    for blocks in ({"*": 2}, None):
        w = nn.Parameter(torch.ones(6, 4))
        optimizer = slalom.AdamW([("w", w)], lr=0.1, blocks=blocks)
        for t in range(5):
            if t == 2:
                w.data = w.data.clone() + 1
            if t == 3:
                optimizer.state[w]["ema.m"] = torch.full((6, 4), 3.0)
            if t == 4:
                optimizer.state[w]["step"].fill_(40.0)
            w.grad = _values((6, 4), t, torch.float32)
            optimizer.step()
        assert optimizer.state[w]["step"] == 41
        ends.append(w.detach().clone())
    assert torch.equal(*ends)


def test_missing_gradients_and_a_sparse_one() -> None:
    first, second = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    optimizer = slalom.AdamW([("a", first), ("b", second)], blocks={"*": 3})
    second.grad = torch.ones(6, 4)
    optimizer.step()
    first.grad = torch.ones(6, 4)
    optimizer.step()
    assert [float(optimizer.state[w]["step"]) for w in (first, second)] == [1, 2]
    first.grad = torch.ones(6, 4).to_sparse(1)
    with pytest.raises(RuntimeError, match=r"is cut into blocks|rows without one move"):
        optimizer.step()


def test_blocks_in_words() -> None:
    assert in_words((24, 8), 3) == "3 of 8 x 8"
    assert in_words((24, 8), (16, 4, 4)) == "16 x 8 + 4 x 8 + 4 x 8"
    assert in_words((4, 6, 8), "batch") == "4 of 6 x 8"


def test_explain_shows_who_is_cut_and_refuses_mistakes_with_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("from torch import nn\n\n\ndef build():\n    return nn.ModuleDict({'qkv': nn.Linear(8, 24)})\n")
    begin = ("explain", "muon", "--model", f"{file}:build", "--blocks")
    shown = run(*begin, "*.weight=3", "--role", "*.weight=matrix")
    assert "3 of 8 x 8" in shown.stdout
    assert "matches *.weight" in shown.stdout
    for words, sentence in (
        ((*begin, "*.weight=5"), "no number of equal blocks"),
        ((*begin, "*.weight"), "write PATTERN=value"),
        (("explain", "muon", "--blocks", "*=3"), "name it with --model"),
    ):
        failed = run(*words)
        assert failed.returncode
        assert sentence in failed.stderr
        assert "Traceback" not in failed.stderr
