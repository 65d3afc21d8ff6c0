"""Every optimizer of the catalogue: what its entry in cases claims, and what all must keep."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import Tensor

import slalom
from cases import CASES, Golden, Oracle, gradient, start
from networks import build, go, largest_difference, network, train, twins, values
from slalom.recipes import ByRole, Recipe, method

NAMES = slalom.list_optimizers()


def test_every_method_has_a_case() -> None:
    assert sorted(CASES) == NAMES


@pytest.mark.parametrize(
    ("name", "golden"),
    [(name, golden) for name, case in CASES.items() for golden in case.golden],
    ids=lambda x: str(x)[:40],
)
def test_golden_vector(name: str, golden: Golden) -> None:
    w = start()
    optimizer = build(name, [w], **golden.settings)
    for t, loss in enumerate(golden.losses, 1):
        w.grad = gradient(t)
        go(optimizer, loss)
    expected = torch.tensor(golden.values, dtype=torch.float64).reshape(3, 2)
    torch.testing.assert_close(w.detach(), expected, rtol=0, atol=golden.tolerance)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        pytest.param(name, oracle, id=f"{name}-{place}")
        for name, case in CASES.items()
        for place, oracle in enumerate(case.oracles)
    ],
)
def test_equals_an_independent_implementation(name: str, oracle: Oracle) -> None:
    ours, theirs = twins(kernels=oracle.kernels)
    other = oracle.build(theirs.parameters())
    if hasattr(other, "train"):
        other.train()
    train(ours, build(name, ours.parameters(), **oracle.settings), 60)
    train(theirs, other, 60)
    assert largest_difference(ours, theirs) < oracle.tolerance


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.property])
def test_distinguishing_property(name: str) -> None:
    check = CASES[name].property
    assert check is not None
    check()


def test_muon_equals_torch_on_matrices() -> None:
    ours = torch.nn.Parameter(torch.randn(16, 8))
    theirs = torch.nn.Parameter(ours.detach().clone())
    a = slalom.Muon([{"params": [ours], "role": "matrix"}], lr=0.02, weight_decay=0.1)
    b = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(20):
        ours.grad = torch.randn(16, 8)
        theirs.grad = ours.grad.clone()
        go(a)
        go(b)
    # Both iterate in bfloat16, whose rounding moves single entries of a step by up to 5 %.
    assert (ours - theirs).norm() / (theirs - 0).norm() < 0.01


def _muons(build: Callable[..., torch.optim.Optimizer], **settings: Any) -> Callable[[Tensor], torch.optim.Optimizer]:
    """One of pytorch_optimizer's, for a matrix."""
    return lambda p: build([{"params": [p], "use_muon": True, "lr": 0.02, **settings}])


# What each is without weight decay, at a rate of 0.02, for matrices that are wider than tall.
OF_MUONS_FAMILY: dict[str, tuple[str, dict[str, Any], Callable[[Tensor], torch.optim.Optimizer]]] = {
    "Muon, original": (
        "muon",
        {"scaling": "original"},
        lambda p: torch.optim.Muon([p], lr=0.02, weight_decay=0.0, adjust_lr_fn="original"),
    ),
    "Muon without look-ahead": (
        "muon",
        {"nesterov": False},
        lambda p: torch.optim.Muon([p], lr=0.02, weight_decay=0.0, nesterov=False, adjust_lr_fn="match_rms_adamw"),
    ),
    "MuonClip": ("muonclip", {}, _muons(pytorch_optimizer.MuonClip)),
    "NorMuon, paper": ("normuon", {}, _muons(pytorch_optimizer.NorMuon, update_scale="match_rms")),
    "NorMuon, code": ("normuon", {"scaling": "original"}, _muons(pytorch_optimizer.NorMuon)),
    "AdaMuon, pytorch_optimizer's": (
        "adamuon",
        {"nesterov": False, "momentum": 0.9, "beta2": 0.95},
        _muons(pytorch_optimizer.AdaMuon),
    ),
}


@pytest.mark.parametrize("label", OF_MUONS_FAMILY)
def test_muons_family_equals_independent_implementations(label: str) -> None:
    name, settings, other = OF_MUONS_FAMILY[label]
    ours = torch.nn.Parameter(torch.zeros(16, 24))
    theirs = torch.nn.Parameter(torch.zeros(16, 24))
    a = slalom.create(name, [{"params": [ours], "role": "matrix"}], lr=0.02, weight_decay=0.0, **settings)
    b = other(theirs)
    for _ in range(12):
        ours.grad = torch.randn(16, 24)
        theirs.grad = ours.grad.clone()
        go(a)
        b.step()
    # Newton-Schulz in bfloat16: single entries differ by its rounding, lengths and angles do not
    assert (ours - theirs).norm() < 0.03 * theirs.norm()


# --- what all must keep ------------------------------------------------------------------------------

each = pytest.mark.parametrize("name", NAMES)


@each
def test_training_lowers_the_loss(name: str) -> None:
    torch.manual_seed(3)
    model = network()
    optimizer = build(name, model.parameters(), lr=method(name).lrs[1])
    x, y = torch.randn(32, 16, dtype=torch.float64), torch.randn(32, 2, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return ((model(x) - y) ** 2).mean()

    before = loss().item()
    for _ in range(150):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step(lambda: loss().detach())
    with optimizer.averaged():
        assert loss().item() < 0.9 * before


@each
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 2, 2), (0,), (0, 3), (1, 4), (4, 1)], ids=str)
def test_every_shape(name: str, shape: tuple[int, ...]) -> None:
    w = torch.nn.Parameter(torch.randn(shape))
    optimizer = build(name, [w])
    for _ in range(3):
        w.grad = torch.randn(shape)
        go(optimizer)
    assert torch.isfinite(w).all()


@each
def test_a_non_contiguous_parameter_moves_like_a_contiguous_one(name: str) -> None:
    plain = torch.nn.Parameter(torch.randn(4, 3))
    strided = torch.nn.Parameter(plain.detach().t().contiguous().t())
    assert not strided.is_contiguous()
    pair = [(w, build(name, [w])) for w in (plain, strided)]
    for _ in range(4):
        grad = torch.randn(4, 3)
        for w, optimizer in pair:
            w.grad = grad.clone()
            go(optimizer)
    torch.testing.assert_close(plain, strided, rtol=1e-5, atol=1e-6)


@each
def test_zero_gradients_from_the_start_make_no_nan(name: str) -> None:
    w = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = build(name, [w])
    for _ in range(3):
        w.grad = torch.zeros(3, 2)
        go(optimizer)
    assert torch.isfinite(w).all()


@each
def test_without_gradient_nothing_moves_and_nothing_is_remembered(name: str) -> None:
    moved, resting = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3, 2))
    optimizer = build(name, [moved, resting])
    moved.grad = torch.ones(3, 2)
    go(optimizer)
    assert torch.equal(resting, torch.ones(3, 2))
    assert not optimizer.state.get(resting)


@each
def test_a_gradient_that_comes_late_meets_a_first_step(name: str) -> None:
    if "late-gradient" in method(name).exceptions:
        pytest.skip(method(name).exceptions["late-gradient"])
    late, fresh = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3, 2))
    other = torch.nn.Parameter(torch.ones(2))
    shared = build(name, [late, other])
    for _ in range(5):
        other.grad = torch.ones(2)
        go(shared)
    alone = build(name, [fresh])
    late.grad = torch.full((3, 2), 0.3)
    fresh.grad = torch.full((3, 2), 0.3)
    go(shared)
    go(alone)
    assert torch.equal(late, fresh)


@each
def test_bfloat16_parameters_keep_float32_state(name: str) -> None:
    w = torch.nn.Parameter(torch.randn(4, 3).bfloat16())
    optimizer = build(name, [w])
    for _ in range(2):
        w.grad = torch.randn(4, 3).bfloat16()
        go(optimizer)
    before = {key: value.clone() for key, value in optimizer.state[w].items()}
    schema = optimizer.schema(optimizer.param_groups[0], w)
    # what tensors have in common is double: it must not depend on which of them came first
    shared = {key: torch.float64 for key, slot in schema.items() if slot.scope != "tensor"}
    kept = {key: torch.uint8 if slot.format == "sign" else torch.float32 for key, slot in schema.items()} | shared
    assert {key: value.dtype for key, value in before.items()} == {"step": torch.float32, **kept}
    optimizer.load_state_dict(_through_a_file(optimizer.state_dict()))
    for key, value in optimizer.state[w].items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


@each
def test_gradients_are_never_written_to(name: str) -> None:
    w = torch.nn.Parameter(torch.randn(4, 3))
    optimizer = build(name, [w])
    grad = torch.randn(4, 3)
    w.grad = grad.clone()
    go(optimizer)
    assert torch.equal(w.grad, grad)


@each
def test_maximize_is_minimizing_the_negative(name: str) -> None:
    up, down = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3, 2))
    ascend, descend = build(name, [up], maximize=True), build(name, [down])
    for _ in range(3):
        up.grad = torch.randn(3, 2)
        down.grad = -up.grad
        go(ascend, -1.0)
        go(descend)
    assert torch.equal(up, down)


@each
def test_resumes_to_the_same_bits(name: str) -> None:
    model, copied = twins(torch.float32)
    whole = build(name, model.parameters())
    train(model, whole, 12)

    first = build(name, copied.parameters())
    train(copied, first, 5)
    second = build(name, copied.parameters(), lr=123.0)  # what the checkpoint says must win
    second.load_state_dict(_through_a_file(first.state_dict()))
    train(copied, second, 7, first=5)
    for a, b in zip(model.parameters(), copied.parameters(), strict=True):
        assert torch.equal(a, b)


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


@each
@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_alike(name: str, copier: Any) -> None:
    model = network(torch.float32)
    optimizer = build(name, model.parameters())
    train(model, optimizer, 3)
    model2, optimizer2 = copier((model, optimizer))
    train(model, optimizer, 3, first=3)
    train(model2, optimizer2, 3, first=3)
    for a, b in zip(model.parameters(), model2.parameters(), strict=True):
        assert torch.equal(a, b)


@each
def test_two_groups_equal_two_optimizers(name: str) -> None:
    if "one-each" in method(name).exceptions:  # (Muon's exception is about its argument lr, not about groups)
        pytest.skip(method(name).exceptions["one-each"])
    together = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2, 3))]
    apart = [torch.nn.Parameter(p.detach().clone()) for p in together]
    one = build(name, [{"params": [together[0]], "lr": 0.01}, {"params": [together[1]], "lr": 0.02}])
    two = [build(name, [apart[0]], lr=0.01), build(name, [apart[1]], lr=0.02)]
    for _ in range(4):
        for p, q in zip(together, apart, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        go(one)
        for optimizer in two:
            go(optimizer)
    for p, q in zip(values(together), values(apart), strict=True):
        assert torch.equal(p, q)


@each
def test_recipe_survives_toml(name: str) -> None:
    recipe = method(name).recipe()
    again = Recipe.from_toml(recipe.to_toml()) if isinstance(recipe, Recipe) else Recipe.from_toml(_toml(recipe))
    assert again == recipe


def _toml(recipe: ByRole) -> str:
    from slalom.recipes.files import to_toml

    return to_toml(recipe)


@each
def test_the_recipe_alone_runs_like_the_named_class(name: str) -> None:
    recipe = method(name).recipe()
    model, copied = twins(torch.float32)
    from networks import quietly

    train(model, build(name, model.parameters()), 4)
    train(copied, quietly(lambda: recipe.build(copied.parameters())), 4)
    for a, b in zip(model.parameters(), copied.parameters(), strict=True):
        # a number that is a constant in one and live in the other lets the compiler fuse other pairs of operations
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@each
def test_state_dict_holds_only_what_torch_can_load_safely(name: str) -> None:
    model = network(torch.float32)
    optimizer = build(name, model.parameters())
    train(model, optimizer, 2)
    for state in optimizer.state_dict()["state"].values():
        assert all(isinstance(key, str) for key in state)
        assert all(isinstance(value, torch.Tensor) for value in state.values())
