"""Kronecker preconditioners: blocks, inverse roots and what happens when one fails, the turning basis."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch

import slalom
from networks import quietly
from slalom import Recipe
from slalom import parts as P  # noqa: N812
from slalom.algebra import State, cutting, symmetric
from slalom.describe import describe_method
from slalom.observe import failed_roots
from slalom.race.workload import reseed, stream
from slalom.race.workloads import built_in
from slalom.recipes import method
from test_native import compare, drive, lists

NEWTON = P.CoupledNewton(relative=False)  # a mean eigenvalue depends on what pads a block


def grafted(block: int, **settings: Any) -> Recipe:
    shampoo = P.Kronecker(0.9, eps=1e-4, frequency=2, block=block, **settings)
    return Recipe(
        momentum=P.Ema(),
        geometry=P.Graft(Recipe(geometry=shampoo), Recipe(scale=P.SecondMoment(0.9)), block),
        step=0.02,
    )


def soap(block: int) -> Recipe:
    adam = Recipe(momentum=P.Delayed(P.Ema()), scale=P.Delayed(P.SecondMoment(0.9)))
    return Recipe(geometry=P.Eigenbasis(adam, 0.9, 2, block), step=P.Hold(P.Fixed(0.02)))


def pieces(side: int, block: int) -> list[slice]:
    """Equal pieces, the last one shorter, as few as it takes."""
    length = -(-side // -(-side // block))
    return [slice(first, min(first + length, side)) for first in range(0, side, length)]


@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 5), (3, 3), (1, 9), (8, 1), (4, 6)], ids=str)
def test_blocks_can_be_put_together_again(shape: tuple[int, ...]) -> None:
    x = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    cut = cutting.blocks(x, size=3)
    assert torch.equal(cutting.unblocks(cut, x), x)
    first, second = pieces(shape[-2], 3), pieces(shape[-1], 3)
    assert cut.shape[0] == len(first) * len(second)
    for block, (rows, columns) in zip(cut, itertools.product(first, second), strict=True):
        mine = x[..., rows, columns]
        assert torch.equal(block[..., : mine.shape[-2], : mine.shape[-1]], mine)
        assert block.sum() == mine.sum()  # what pads is zero


@pytest.mark.parametrize("executor", ["eager", "native"])
@pytest.mark.parametrize(
    ("recipe", "exactness"),
    [(grafted, 1e-9), (soap, 1e-9), (lambda block: grafted(block, inverse=NEWTON), 1e-5)],
    ids=["shampoo", "soap", "newton"],  # which stops at a millionth
)
def test_a_matrix_in_blocks_learns_as_its_blocks_alone(recipe: Any, exactness: float, executor: str) -> None:
    dtype = torch.float64 if executor == "eager" else torch.float32
    whole = torch.nn.Parameter(torch.randn(5, 8, generator=torch.Generator().manual_seed(3)).to(dtype))
    cuts = list(itertools.product(pieces(5, 3), pieces(8, 3)))
    alone = [torch.nn.Parameter(whole.detach()[cut].clone()) for cut in cuts]
    together, apart = recipe(3).build([whole]), recipe(0).build(alone)
    for step in range(7):
        whole.grad = torch.randn(5, 8, generator=torch.Generator().manual_seed(step)).to(dtype)
        for part, cut in zip(alone, cuts, strict=True):
            part.grad = whole.grad[cut].clone()
        together.step()
        apart.step()
    assert executor in together.executors()
    for part, cut in zip(alone, cuts, strict=True):
        tolerance = exactness if executor == "eager" else 1e-3
        torch.testing.assert_close(whole.detach()[cut], part.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("missing", [False, True], ids=["all", "missing"])
@pytest.mark.parametrize("name", ["shampoo", "newton", "sum", "chained", "vectors", "soap"])
def test_blocks_compiled_equal_the_reference(name: str, missing: bool) -> None:
    settings: dict[str, Any] = {
        "newton": {"inverse": NEWTON},
        "sum": {"combine": "sum"},
        "chained": {"chained": True},
        "vectors": {"vectors": True},
    }
    recipe = soap(3) if name == "soap" else grafted(3, **settings.get(name, {}))
    # square blocks of full rank: no eigenbasis is a matter of rounding
    compare(recipe, [(6, 6), (3, 3), (6, 6), (9, 3), (6, 6), (7,), (7,)], missing=missing)


def test_a_step_cut_short_by_no_block_is_the_step_without() -> None:
    ends = []
    for block in (0, 64):
        params = lists([(5, 7), (4, 4)], torch.float64)
        drive(grafted(block).build(params), 4)
        ends.append(params)
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


# --- inverse roots ---------------------------------------------------------------------------------------


def spd(size: int, smallest: float = 1e-3) -> torch.Tensor:
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    return basis @ torch.logspace(0, torch.tensor(smallest).log10(), size, dtype=torch.float64).diag() @ basis.T


def root_of(x: torch.Tensor, root: int, eps: float, method: str, **options: Any) -> torch.Tensor:
    settings = {"relative": False, "dtype": "same", "steps": 100, **options}
    return symmetric.inverse_root(x, eps, root=root, method=method, **settings)


@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("root", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 6])
def test_a_root_to_its_power_inverts(size: int, root: int, method: str) -> None:
    x = torch.stack([spd(size), 1e6 * spd(size), 1e-6 * spd(size)])
    found = root_of(x, root, 0.0, method)
    expected = torch.eye(size, dtype=torch.float64).expand_as(x)
    torch.testing.assert_close(torch.linalg.matrix_power(found, root) @ x, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("dtype", ["same", "float64"])
def test_zero_and_rank_one_and_single_rows_have_roots(dtype: str, method: str) -> None:
    v = torch.tensor([[3.0, 0.0, 4.0]])
    for x, eps in ((torch.zeros(3, 3), 1e-6), (v.T @ v, 1e-4), (v @ v.T, 1e-6), (torch.zeros(1, 1), 1e-6)):
        found = root_of(x, 4, eps, method, dtype=dtype)
        ridged = x.double() + eps * torch.eye(len(x), dtype=torch.float64)
        values, vectors = torch.linalg.eigh(ridged)
        exact = vectors @ values.pow(-0.25).diag() @ vectors.T
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=2e-3)


def test_double_precision_finds_what_single_loses() -> None:
    x = spd(12, 1e-7)
    exact = root_of(x, 4, 0.0, "eigh")
    single, double = (root_of(x.float(), 4, 0.0, "eigh", dtype=dtype).double() for dtype in ("float32", "float64"))
    assert (double - exact).norm() < 0.2 * (single - exact).norm()


def test_a_relative_ridge_follows_the_size() -> None:
    x = spd(5)
    torch.testing.assert_close(
        root_of(16 * x, 4, 1e-2, "eigh", relative=True), root_of(x, 4, 1e-2, "eigh", relative=True) / 2
    )


def test_one_bad_matrix_does_not_spoil_its_neighbours() -> None:
    x = torch.stack([spd(4), torch.full((4, 4), torch.nan, dtype=torch.float64), spd(4)])
    for way in ("eigh", "newton"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = root_of(x, 2, 1e-6, way)
        assert torch.isfinite(found).flatten(1).all(1).tolist() == [True, False, True]
        torch.testing.assert_close(found[2], root_of(x[2], 2, 1e-6, way))


def test_a_decomposition_that_fails_without_a_word_is_done_again_in_double_precision() -> None:
    def silent(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, vectors = torch.linalg.eigh(x)
        bad = x.dtype == torch.float32 and bool((x.diagonal(dim1=-2, dim2=-1) == 0).any())
        return values, vectors * torch.nan if bad else vectors

    x = torch.stack([spd(4), torch.zeros(4, 4, dtype=torch.float64), spd(4)]).float()
    values, vectors = symmetric.decomposed(silent, x)
    assert values.dtype == vectors.dtype == torch.float32
    torch.testing.assert_close(vectors @ values.diag_embed() @ vectors.mT, x)


def test_a_layer_that_most_classes_have_not_reached_has_roots() -> None:
    """The first gradient of a softmax over many classes with an input of rank 32: eigh in single precision gave nan."""
    workload = built_in()["zipf"]
    reseed("zipf", 0, "model")
    model = workload.model()
    optimizer = slalom.create("shampoo", model)
    workload.loss(model, next(iter(workload.batches(stream("zipf", 0, "batches"))))).backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert failed_roots(optimizer) == {}


@pytest.mark.parametrize("executor", ["eager", "native"])
@pytest.mark.parametrize("block", [0, 3])
def test_where_a_root_fails_the_old_preconditioner_stays_and_is_counted(block: int, executor: str) -> None:
    params = lists([(6, 6), (6, 6)], torch.float32)
    optimizer = quietly(lambda: slalom.DistributedShampoo(params, frequency=2, block=block, executor=executor))
    key = "direction.kronecker."
    drive(optimizer, 2)
    assert failed_roots(optimizer) == {}
    before = optimizer.state[params[0]][key + "P_L"].clone()
    optimizer.state[params[0]][key + "L"].flatten()[0] = torch.inf  # what an overflow leaves
    with pytest.warns(RuntimeWarning, match="the one before stays in use"):
        drive(optimizer, 2, seed=2)
    after = optimizer.state[params[0]][key + "P_L"]
    assert torch.isfinite(params[0]).all()
    (count,) = failed_roots(optimizer).values()
    assert count == 1
    if block:
        assert torch.equal(before[0], after[0])
        assert not torch.equal(before[1:], after[1:])
    else:
        assert torch.equal(before, after)
    with warnings.catch_warnings(record=True, action="default") as caught:
        drive(optimizer, 4, seed=3)
    assert failed_roots(optimizer) == {next(iter(failed_roots(optimizer))): 3}
    assert len(caught) == 1  # once is enough


@pytest.mark.parametrize("block", [0, 3])
@pytest.mark.parametrize("side", ["L", "R"])
def test_either_side_may_fail_alone(side: str, block: int) -> None:
    params = lists([(6, 6)], torch.float32)
    optimizer = quietly(lambda: slalom.DistributedShampoo(params, frequency=1, block=block))
    drive(optimizer, 1)
    optimizer.state[params[0]][f"direction.kronecker.{side}"].flatten()[0] = torch.inf
    with pytest.warns(RuntimeWarning, match="the one before stays in use"):
        drive(optimizer, 1, seed=2)
    assert list(failed_roots(optimizer).values()) == [1]


@pytest.mark.parametrize(
    ("frequency", "start", "taken"),
    [(1, 1, [1, 2, 3, 4, 5]), (2, 1, [1, 3, 5]), (1, 2, [2, 3, 4, 5]), (2, 2, [2, 4]), (3, 2, [2, 5])],
)
def test_roots_are_taken_when_they_are_due(frequency: int, start: int, taken: list[int]) -> None:
    parameter = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))
    optimizer = Recipe(geometry=P.Kronecker(0.9, frequency=frequency, start=start), step=0.1).build([parameter])
    roots, found = torch.eye(3, dtype=torch.float64), []
    for number in range(1, 6):
        parameter.grad = torch.randn(3, 2, dtype=torch.float64)
        optimizer.step()
        now = optimizer.state[parameter]["kronecker.P_L"]
        if not torch.equal(now, roots):
            found.append(number)
        roots = now.clone()
    assert found == taken


def test_factors_of_the_divergence_see_what_the_other_side_has_whitened() -> None:
    beta, w = 0.7, torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    optimizer = Recipe(geometry=P.KLEigenbasis(Recipe(), beta, frequency=1), step=0.1).build([w])
    state, old = optimizer.state, {}
    for number in range(1, 5):
        w.grad = g = torch.randn(4, 3, dtype=torch.float64)
        optimizer.step()
        new = {key.rpartition(".")[2]: value.clone() for key, value in state[w].items()}
        if number == 1:
            expected = {"L": (1 - beta) * g @ g.T / 3, "R": (1 - beta) * g.T @ g / 4}
        else:
            left, right = g.T @ old["Q_L"] / old["l"].flatten().sqrt(), g @ old["Q_R"] / old["r"].flatten().sqrt()
            expected = {
                "L": beta * old["L"] + (1 - beta) * right @ right.T / 3,
                "R": beta * old["R"] + (1 - beta) * left @ left.T / 4,
            }
        for key, value in expected.items():
            torch.testing.assert_close(new[key].reshape(value.shape), value)
        old = {key: value.reshape(*value.shape[-2:]) if key in ("L", "R", "Q_L", "Q_R") else value
               for key, value in new.items()}  # fmt: skip


@pytest.mark.parametrize("executor", ["eager", "native"])
@pytest.mark.parametrize("name", ["soap", "soap in blocks", "kl-shampoo", "kl-soap"])
def test_where_a_basis_fails_the_old_one_stays_and_is_counted(name: str, executor: str) -> None:
    params = lists([(6, 6), (6, 6)], torch.float32)
    name, _, block = name.partition(" in ")
    settings: dict[str, Any] = {"block": 3} if block else {}
    optimizer = quietly(lambda: slalom.create(name, params, frequency=2, executor=executor, **settings))
    part = "kl_eigenbasis." if name.startswith("kl") else "eigenbasis."
    drive(optimizer, 4)
    assert failed_roots(optimizer) == {}
    before = optimizer.state[params[0]][part + "Q_L"].clone()
    kept = optimizer.state[params[0]][part + "L"].clone()
    optimizer.state[params[0]][part + "L"].flatten()[0] = torch.inf  # what an overflow leaves
    with pytest.warns(RuntimeWarning, match="an eigenbasis of a preconditioner's factor is not finite: the one before"):
        drive(optimizer, 2, seed=2)
    after = optimizer.state[params[0]][part + "Q_L"]
    (count,) = failed_roots(optimizer).values()
    assert count == 1
    if block:
        assert torch.equal(before[0], after[0])
        assert not torch.equal(before[1:], after[1:])
    else:
        assert torch.equal(before, after)
    assert all(torch.isfinite(p).all() for p in params)
    optimizer.state[params[0]][part + "L"].copy_(kept)
    drive(optimizer, 2, seed=3)  # and goes on from there
    assert not torch.equal(before, optimizer.state[params[0]][part + "Q_L"])
    assert sum(failed_roots(optimizer).values()) == 1
    assert all(torch.isfinite(p).all() for p in params)


@pytest.mark.parametrize("executor", ["eager", "native"])
def test_a_first_basis_that_fails_leaves_coordinates_as_they_are(executor: str) -> None:
    """The squares of the first gradient overflow, and its factors are set right again: SOAP is Adam meanwhile."""
    w = torch.nn.Parameter(torch.zeros(4, 4))
    optimizer = slalom.SOAP([w], lr=0.1, frequency=10, weight_decay=0.0, executor=executor)
    w.grad = torch.full((4, 4), 1e25)
    with pytest.warns(RuntimeWarning, match="an eigenbasis"):
        optimizer.step()
    state = optimizer.state[w]
    assert torch.equal(state["eigenbasis.Q_L"], torch.eye(4))
    assert sum(failed_roots(optimizer).values()) == 2
    w.grad = torch.randn(4, 4)
    optimizer.step()
    torch.testing.assert_close(w.detach(), -0.1 * w.grad.sign(), rtol=1e-5, atol=1e-5)


def test_before_the_first_root_a_failure_leaves_the_gradients_direction() -> None:
    w = torch.nn.Parameter(torch.zeros(3, 3))
    w.grad = torch.full((3, 3), 1e25)  # its square overflows
    optimizer = slalom.Shampoo([w], lr=1.0)
    with pytest.warns(RuntimeWarning):
        optimizer.step()
    torch.testing.assert_close(w.detach(), -w.grad)


def test_gradients_that_begin_with_zero_do_no_harm() -> None:
    for name in ("shampoo", "distributed-shampoo", "caspr", "soap"):
        w = torch.nn.Parameter(torch.ones(4, 3))
        optimizer = quietly(lambda name=name, w=w: slalom.create(name, [w]))
        for step in range(14):
            w.grad = torch.zeros(4, 3) if step < 12 else torch.randn(4, 3)
            optimizer.step()
        assert torch.isfinite(w).all(), name
        assert (w != 1).any()


# --- factors in double precision -------------------------------------------------------------------------

WITH_FACTORS = {
    "shampoo": {"eps": 1e-6},
    "distributed-shampoo": {"block": 4, "frequency": 2},
    "caspr": {"frequency": 2, "eps": 1e-6},
    "soap": {"frequency": 2},
    "kl-shampoo": {"frequency": 2},
    "kl-soap": {"frequency": 2},
}
SHAPES = [(6, 6), (6, 6), (3, 9), (9, 3), (7,), (2, 3, 3), (1, 5)]


def gathered(optimizer: torch.optim.Optimizer) -> list[tuple[str, torch.Tensor]]:
    return [
        (key, value) for state in optimizer.state.values() for key, value in state.items() if key[-2:] in (".L", ".R")
    ]


@pytest.mark.parametrize("executor", ["eager", "foreach", "native"])
@pytest.mark.parametrize("name", WITH_FACTORS)
def test_factors_in_double_precision_are_those_of_double_precision(name: str, executor: str) -> None:
    ends = []
    for dtype, chosen in ((torch.float32, executor), (torch.float64, "eager")):
        # KL's factors see gradients as whitened in a basis that is anybody's choice where the rank is not full
        params = lists([(6, 6), (6, 6)] if name.startswith("kl") else SHAPES, dtype)
        optimizer = quietly(
            lambda params=params, chosen=chosen: slalom.create(
                name, params, lr=1e-4, factors="float64", executor=chosen, **WITH_FACTORS[name]
            )
        )
        drive(optimizer, 5)
        ends.append((gathered(optimizer), params))
    (single, mine), (double, exact) = ends
    assert single
    close = 1e-4 if name.startswith("kl") else 1e-12  # the whitening is done in single precision
    for (key, factor), (_, expected) in zip(single, double, strict=True):
        assert factor.dtype == torch.float64, key
        torch.testing.assert_close(factor, expected, rtol=close, atol=close)
    for p, q in zip(mine, exact, strict=True):
        # in SOAP's basis rounding alone has a sign, and Adam makes a step of it
        torch.testing.assert_close(p.double(), q, rtol=1e-4, atol=5e-4 if "soap" in name else 1e-5)


def test_small_eigenvalues_survive_in_double_precision() -> None:
    """Directions a hundred thousand times smaller than the largest: their squares are lost in single precision."""
    basis, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    g = (torch.logspace(0, -5, 8, dtype=torch.float64).diag() @ basis).float()
    exact = root_of(g.T.double() @ g.double(), 4, 1e-12, "eigh")
    errors = {}
    for factors in ("same", "float64"):
        w = torch.nn.Parameter(torch.zeros(8, 8))
        w.grad = g
        optimizer = slalom.create("shampoo", [w], eps=1e-12, factors=factors)
        optimizer.step()
        errors[factors] = float((optimizer.state[w]["kronecker.P_R"] - exact).norm() / exact.norm())
    assert errors["float64"] < 1e-5
    assert errors["same"] > 1e-2


@pytest.mark.parametrize("name", ["soap", "distributed-shampoo"])
def test_double_precision_changes_nothing_where_it_is_already(name: str) -> None:
    ends = []
    for factors in ("same", "float64"):
        params = lists(SHAPES, torch.float64)
        drive(quietly(lambda p=params, f=factors: slalom.create(name, p, factors=f, **WITH_FACTORS[name])), 5)
        ends.append(params)
    assert all(map(torch.equal, *ends))


def test_factors_keep_their_precision_in_checkpoints_and_take_it_up() -> None:
    runs = {}
    for factors in ("same", "float64"):
        params = lists(SHAPES, torch.bfloat16)
        runs[factors] = quietly(lambda p=params, f=factors: slalom.SOAP(p, frequency=2, factors=f)), params
        drive(runs[factors][0], 3)
    (narrow, _), (wide, mine) = runs["same"], runs["float64"]
    again = quietly(
        lambda: slalom.SOAP([p.detach().clone().requires_grad_() for p in mine], frequency=2, factors="float64")
    )
    again.load_state_dict(wide.state_dict())
    for (_, a), (_, b) in zip(gathered(again), gathered(wide), strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a, b)
    for factors, kind in (("float64", torch.float64), ("same", torch.float32)):  # in the middle of a run, both ways
        before = [factor.clone() for _, factor in gathered(narrow)]
        narrow.param_groups[0]["factors"] = factors
        for p in runs["same"][1]:
            p.grad = torch.zeros_like(p)
        narrow.step()
        for (_, factor), old in zip(gathered(narrow), before, strict=True):
            assert factor.dtype == kind
            torch.testing.assert_close(factor.double(), 0.95 * old.double(), rtol=1e-6, atol=0)


def test_screens_say_that_factors_are_kept_in_double_precision() -> None:
    for factors, size in (("same", "24 bytes"), ("float64", "32 bytes")):
        screen = " ".join(describe_method(method("soap"), {"factors": factors}).split())
        assert size in screen
        assert ("eigenbasis.L per left in float64" in screen) == (factors == "float64")


def test_double_precision_is_refused_where_fused_passes_would_meet_it() -> None:
    with pytest.raises(ValueError, match='"double" is for square factors'):
        State(format="double")


# --- the basis -------------------------------------------------------------------------------------------


def test_momentum_inside_the_basis_is_momentum_before_it() -> None:
    def recipe(inside: bool) -> Recipe:
        ema, scale = P.Delayed(P.Ema()), P.Delayed(P.SecondMoment(0.9))
        return Recipe(
            momentum=None if inside else ema,
            geometry=P.Eigenbasis(Recipe(momentum=ema if inside else None, scale=scale), 0.9, 3),
            step=P.Hold(P.Fixed(0.02)),
        )

    ends = []
    for inside in (False, True):
        params = lists([(5, 5), (4, 6)], torch.float64)
        drive(recipe(inside).build(params), 11)
        ends.append(params)
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)


def test_what_was_never_touched_stays_apart_and_last() -> None:
    a = spd(4)
    x = torch.zeros(7, 7, dtype=torch.float64)
    alive = torch.tensor([0, 2, 3, 6])
    x[alive[:, None], alive] = a
    q = symmetric.eigenvectors(x)
    for _ in range(3):
        assert torch.equal(q[[1, 4, 5], :4], torch.zeros(3, 4, dtype=torch.float64))
        assert torch.equal(q[:, 4:].abs(), torch.eye(7, dtype=torch.float64)[:, [1, 4, 5]])
        q = symmetric.refreshed_eigenvectors(x, q)


# --- the screens -----------------------------------------------------------------------------------------


def test_screens_say_why_and_what_they_say_holds() -> None:
    for name, words in (
        ("muon", "no uᵢᵀ X vᵢ above 1"),
        ("signsgd", "has the sign of its uᵢⱼ"),
        ("scion", "alike at every width"),
        ("shampoo", "the polar factor"),
        ("soap", "uncorrelated"),
    ):
        screen = " ".join(describe_method(method(name)).split())
        assert "why" in screen
        assert words in screen
    g = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    roots = [root_of(factor, 4, 1e-14, "eigh") for factor in (g @ g.T, g.T @ g)]
    torch.testing.assert_close(roots[0] @ g @ roots[1], u @ vt, rtol=0, atol=1e-3)
    torch.testing.assert_close((g * (u @ vt)).sum(), s.sum())
    for seed in range(200):  # no other step that stretches nothing by more than 1 descends as much
        x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert (g * x).sum() / torch.linalg.matrix_norm(x, 2) < s.sum()
    # what SOAP's basis does to the gradients that it has seen: their rows are uncorrelated
    q = symmetric.eigenvectors(g @ g.T)
    turned = q.T @ g
    torch.testing.assert_close(turned @ turned.T, (turned @ turned.T).diagonal().diag(), rtol=0, atol=1e-12)


def test_screens_of_blocks_and_conditions_can_be_read() -> None:
    screen = " ".join(describe_method(method("algoperf-shampoo")).split())
    assert "P_L ← (A if A finite else P_L) if (t ≥ 100) and (100 divides t − 100) else P_L" in screen
    assert "kronecker.L per left of each block" in screen
