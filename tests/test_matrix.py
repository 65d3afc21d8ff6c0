"""Named matrix operations, by the identities that define them."""

from __future__ import annotations

import pytest
import torch

from slalom.algebra import matrix


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


def test_eigenvectors_diagonalise_largest_first() -> None:
    a = torch.randn(6, 6, dtype=torch.float64)
    a = a @ a.T
    q = matrix.eigenvectors(a)
    values = (q.T @ a @ q).diagonal()
    torch.testing.assert_close(q @ torch.diag(values) @ q.T, a)
    assert torch.all(values[:-1] >= values[1:])


def test_refreshing_converges_to_the_eigenvectors_and_ordering_sorts_them() -> None:
    basis, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    a = basis @ torch.diag(torch.tensor([1.0, 16.0, 4.0, 64.0, 0.25], dtype=torch.float64)) @ basis.T
    q = torch.eye(5, dtype=torch.float64)
    for _ in range(60):
        q = matrix.refreshed_eigenvectors(a, q @ matrix.ordering(a, q))
    torch.testing.assert_close(
        (q.T @ a @ q).diagonal(), torch.tensor([64.0, 16.0, 4.0, 1.0, 0.25], dtype=torch.float64)
    )
    p = matrix.ordering(a, q.flip(-1))
    assert torch.equal(q.flip(-1) @ p, q)
