"""Every test starts from the same random state, on one thread."""

import gc

import pytest
import torch


def pytest_collection_finish() -> None:
    """Spare what is imported by now from every later look for garbage, which else costs a fifth of a second each."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let Triton's types go before Python ends: it would list all that are still held as leaks."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
