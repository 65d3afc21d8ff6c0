"""What optimizers keep in memory, measured from real storages: no more than the best figures known for each method."""

from __future__ import annotations

import pytest
import torch

from networks import build
from slalom.engine import kept_bytes

MATRIX, KERNEL = (1024, 1024), (256, 128, 3, 3)

# Bytes of state per parameter for a 1024 x 1024 matrix and for a 3 x 3 kernel, exactly. Beside each what others keep.
TABLE: dict[str, tuple[float, float]] = {
    "sgd": (0.0, 0.0),
    "lion": (4.0, 4.0),
    "adamw": (8.0, 8.0),
    "pnm": (8.0, 8.0),
    "amsgrad": (12.0, 12.0),
    "adan": (16.0, 16.0),
    # rows and columns: 4 (1024 + 1024) bytes, 4 (256 + 1152) for the kernel as a matrix
    "adafactor": (0.0078125, 0.0191),  # Hugging Face and torch .008 and 2.667, timm .008 and .047
    "adafactor-torch": (0.0078125, 0.0191),
    "adafactor-hf": (0.0078125, 0.0191),
    "sm3": (0.0078125, 0.0191),  # pytorch_optimizer 4.008 and 4.005
    "came": (4.0157, 4.0382),
    "amos": (0.0078125, 0.0070),
    "adam-mini": (4.0040, 4.0001),
    "sinkgd": (0.0, 0.0),
    # two factors and two roots or bases, 16 bytes for a square; a kernel of 256 x 1152 is two blocks of 256 x 576
    "shampoo": (16.0, 8 * (256 / 1152 + 1152 / 256)),
    "soap": (24.0, 8 + 8 * (256 / 1152 + 1152 / 256)),
    "kl-shampoo": (20.0078, 4.0191 + 8 * (256 / 1152 + 1152 / 256)),
    "distributed-shampoo": (24.0, 8 + 8 * (256 / 576 + 576 / 256)),
    "algoperf-shampoo": (24.0, 8 + 8 * (256 / 576 + 576 / 256)),
    # one bit, and two pairs of 4 (1024 + 1024) bytes; a kernel is folded to 576 x 512
    "smmf": (0.140625, 0.1546),  # the authors' code 1.02
    # directions and two moments, 4 x 128 (1024 + 2 x 1024) bytes; a kernel is 1152 x 256
    "galore": (1.5, 4.4445),  # for kernels the authors project nothing or every side
    "apollo": (2.0, 8.0001),  # two moments of rank 256; directions are drawn again
    "apollo-mini": (0.0078165, 0.0313),
    "ldadam": (4.1875, 4.5557),  # 4 of it are the error, which the authors keep in the gradient
    "dion": (4.25, 5.0001),
    "dion2": (4.0, 4.0),
}

SETTINGS = {"sgd": {"lr": 0.1}}


def kept(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> float:
    """Step once and add up the storages that the state holds; the step count's four bytes are left out."""
    w = torch.nn.Parameter(torch.randn(shape, dtype=dtype))
    optimizer = build(name, [w], **SETTINGS.get(name, {}))
    w.grad = torch.randn(shape, dtype=dtype)
    optimizer.step()
    tensors = [value for key, value in optimizer.state[w].items() if key != "step"]
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors}
    return sum(storages.values()) / w.numel()


@pytest.mark.parametrize("name", TABLE)
def test_bytes_per_parameter(name: str) -> None:
    for shape, expected in zip((MATRIX, KERNEL), TABLE[name], strict=True):
        assert kept(name, shape) <= expected + 1e-4, shape
        assert kept(name, shape) >= 0.98 * expected - 1e-4, shape  # the table itself is no looser than what is kept


def test_blocks_make_memory_proportional_to_the_longer_side() -> None:
    long = {rows: kept("distributed-shampoo", (rows, 64)) for rows in (1024, 4096, 8200)}
    # 8 for Adam, and per entry of a block of 1024 x 64 two factors and two roots
    assert long[1024] == pytest.approx(long[4096], abs=1e-3) == pytest.approx(8 + 8 * (1024 / 64 + 64 / 1024), abs=1e-3)
    assert long[8200] < long[4096]  # nine pieces of 912 rows
    whole = build("distributed-shampoo", [w := torch.nn.Parameter(torch.randn(4096, 64))], block=0)
    assert kept_bytes(whole.schema(whole.param_groups[0], w)["direction.kronecker.L"], w) == 4 * 4096**2


@pytest.mark.parametrize("name", ["adafactor", "sm3", "smmf", "amos", "sinkgd"])
def test_half_precision_parameters_keep_no_more(name: str) -> None:
    assert kept(name, KERNEL, torch.bfloat16) == pytest.approx(kept(name, KERNEL))


@pytest.mark.parametrize(
    ("shape", "most"), [((768,), 0.72), ((50, 77), 0.5), ((64, 3, 7, 7), 0.3), ((50257, 768), 0.128), ((30, 1), 3.2)]
)
def test_a_folded_state_is_small_for_any_shape(shape: tuple[int, ...], most: float) -> None:
    assert kept("smmf", shape) <= most


def test_what_is_shown_is_what_is_kept() -> None:
    w = torch.nn.Parameter(torch.randn(KERNEL))
    optimizer = build("smmf", [w])
    w.grad = torch.randn(KERNEL)
    optimizer.step()
    held = sum(v.untyped_storage().nbytes() for v in optimizer.state[w].values())
    assert f"state: {held:,} bytes" in repr(optimizer)
