"""Named matrix operations, by the identities that define them."""

from __future__ import annotations

import pytest
import torch

from slalom.algebra import matrix, symmetric


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6), (2, 3, 5)], ids=str)
def test_polar_maps_singular_values_by_the_quintic_and_keeps_singular_vectors(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    s = s / torch.linalg.matrix_norm(x)[..., None]
    for a, b, c in matrix.MUON_QUINTIC * 5:
        s = a * s + b * s**3 + c * s**5
    expected = u @ torch.diag_embed(s) @ vh
    found = matrix.polar(x, steps=5, coefficients=matrix.MUON_QUINTIC, dtype="float64")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_polar_brings_every_singular_value_near_one_and_ignores_size() -> None:
    x = torch.randn(64, 32, dtype=torch.float64)
    found = matrix.polar(x, steps=5, coefficients=matrix.MUON_QUINTIC, dtype="float64")
    s = torch.linalg.svdvals(found)
    assert s.min() > 0.65
    assert s.max() < 1.15
    again = matrix.polar(1e6 * x, steps=5, coefficients=matrix.MUON_QUINTIC, dtype="float64")
    torch.testing.assert_close(found, again, rtol=1e-9, atol=1e-9)
    assert torch.equal(matrix.polar(0 * x, steps=5, coefficients=matrix.MUON_QUINTIC, dtype="float64"), 0 * x)


@pytest.mark.parametrize("shape", [(7, 24, 40), (7, 40, 24), (5, 16, 16), (3, 1, 9), (2, 2, 9, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_polar_of_few_at_a_time_is_that_of_all(
    shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(shape)
    x[0] = 0
    given = x.clone()
    whole = matrix.polar(x, steps=5, coefficients=matrix.MUON_QUINTIC, dtype=dtype)
    monkeypatch.setattr(matrix, "_NEAR_A_THREAD", 3 * 2 * 24 * (24 + 40) * 2 // torch.get_num_threads())
    found = matrix.polar(x, steps=5, coefficients=matrix.MUON_QUINTIC, dtype=dtype)
    assert torch.equal(found, whole)
    assert torch.equal(x, given)
    assert found.is_contiguous()
    turned = x.mT.clone(memory_format=torch.contiguous_format)
    for same in (x, turned.mT):  # where it may be overwritten, it is if its elements lie in order
        again = matrix.polar(same, steps=5, coefficients=matrix.MUON_QUINTIC, dtype=dtype, spent=True)
        assert torch.equal(again, whole)
        assert (again.data_ptr() == same.data_ptr()) == same.is_contiguous()


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_products_of_stacks_of_one_are_those_of_matrices_in_the_precision_that_torch_allows(precision: str) -> None:
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert torch.equal(symmetric.product(a.mT[None], b[None]), torch.mm(a.T, b)[None])
        assert torch.equal(symmetric.product(a, b.mT), torch.mm(a, b.T))
        stacks = torch.randn(3, 4, 5), torch.randn(3, 5, 2)
        assert torch.equal(symmetric.product(*stacks), torch.bmm(*stacks))
    finally:
        torch.set_float32_matmul_precision(before)


def test_eigenvectors_diagonalise_largest_first() -> None:
    a = torch.randn(6, 6, dtype=torch.float64)
    a = a @ a.T
    q = symmetric.eigenvectors(a)
    values = (q.T @ a @ q).diagonal()
    torch.testing.assert_close(q @ torch.diag(values) @ q.T, a)
    assert torch.all(values[:-1] >= values[1:])


def test_refreshing_converges_to_the_eigenvectors_and_keeps_their_places() -> None:
    basis, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    a = basis @ torch.diag(torch.tensor([1.0, 16.0, 4.0, 64.0, 0.25], dtype=torch.float64)) @ basis.T
    q = torch.eye(5, dtype=torch.float64)
    for _ in range(60):
        before, q = q, symmetric.refreshed_eigenvectors(a, q)
    values = (q.T @ a @ q).diagonal()
    torch.testing.assert_close(q.T @ a @ q, values.diag(), rtol=0, atol=1e-9)
    torch.testing.assert_close(values.sort().values, torch.tensor([0.25, 1, 4, 16, 64], dtype=torch.float64))
    torch.testing.assert_close((q * before).sum(0).abs(), torch.ones(5, dtype=torch.float64))  # none changes places


def test_qr_favours_the_largest_eigenvalue_wherever_its_vector_stands() -> None:
    a = torch.diag(torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64))
    q, _ = torch.linalg.qr(torch.eye(3, dtype=torch.float64) + 0.1 * torch.randn(3, 3, dtype=torch.float64))
    p = torch.eye(3, dtype=torch.float64)[:, [2, 0, 1]]
    moved = symmetric.refreshed_eigenvectors(a, q @ p)
    torch.testing.assert_close(moved, symmetric.refreshed_eigenvectors(a, q) @ p)
    largest = (a @ q)[:, 2] / (a @ q)[:, 2].norm()
    assert (
        abs(largest @ symmetric.refreshed_eigenvectors(a, q)[:, 2]) > 1 - 1e-12
    )  # a plain power step, nothing taken off


@pytest.mark.parametrize("shape", [(3, 7), (300, 20), (257, 300), (2, 511, 4)], ids=str)
def test_gram_is_the_product_with_the_transpose(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(symmetric.gram(x), x @ x.mT, rtol=1e-12, atol=1e-12)
