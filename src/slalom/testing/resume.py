"""Proof that a training run of yours goes on to the same bits from a checkpoint."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slalom.checkpoint import load_checkpoint, save_checkpoint
from slalom.checkpoint.runstate import capture, plain, random_states, set_random_states

_SHOWN = 5


def assert_exact_resume(
    make: Callable[[], Mapping[str, Any]],
    train: Callable[[Mapping[str, Any], int], object],
    *,
    before: int = 5,
    after: int = 5,
) -> None:
    """Assert that a run which is saved, and loaded into fresh objects, ends in the bits of one that never stopped.

        def make():
            model = Net()
            optimizer = slalom.AdamW(model.parameters())
            return {"model": model, "optimizer": optimizer}

        def train(run, step):
            run["optimizer"].zero_grad()
            run["model"](batch(step)).square().mean().backward()
            run["optimizer"].step()

        assert_exact_resume(make, train)

    The random states of Python, numpy and torch are set before the runs and put back after them.

    Args:
        make: builds everything anew, as the arguments of `slalom.save_checkpoint` by name.
        train: takes the step of a number.
        before: how many steps come before saving.
        after: how many come after it.

    Raises:
        AssertionError: if a value differs; the message names it. It says so too if the run itself is not
            reproducible, so that no checkpoint could be at fault.
    """
    states = random_states()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _seed(0)
            whole = make()
            for step in range(before + after):
                train(whole, step)
            expected = _values(whole)

            _seed(0)
            stopped = make()
            for step in range(before):
                train(stopped, step)
            save_checkpoint(folder, **stopped, position=before)
            for step in range(before, before + after):
                train(stopped, step)
            _compare(expected, _values(stopped), "two runs without a resume differ, so the run is not reproducible")

            _seed(1)  # what a new process starts with is not what the old one had
            resumed = make()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                load_checkpoint(folder, **resumed)
            for step in range(before, before + after):
                train(resumed, step)
            _compare(expected, _values(resumed), "the resumed run is another one")
    finally:
        set_random_states(states)


def _seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _values(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return copies of all values of a run, and of the random states, by where they stand."""
    captured: dict[str, Any] = {"random": random_states()}
    for name, given in run.items():
        for piece, path in _each(given, name):
            captured[path] = plain(capture(piece), path)
    return {path: value.clone() if isinstance(value, Tensor) else value for path, value in _leaves(captured, "")}


def _each(given: Any, path: str) -> Iterator[tuple[Any, str]]:
    if isinstance(given, Mapping):
        yield from ((piece, f"{path}.{name}") for name, piece in given.items())
    elif isinstance(given, (list, tuple)):
        yield from ((piece, f"{path}[{place}]") for place, piece in enumerate(given))
    elif given is not None:
        yield given, path


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _leaves(entry, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for place, entry in enumerate(value):
            yield from _leaves(entry, f"{path}.{place}")
    else:
        yield path, value


def _compare(expected: Mapping[str, Any], found: Mapping[str, Any], complaint: str) -> None:
    lines = [f"{path} is only in one of them" for path in expected.keys() ^ found.keys()]
    lines += [
        f"{path} {difference}"
        for path in expected
        if path in found and (difference := _difference(expected[path], found[path]))
    ]
    if lines:
        shown = lines[:_SHOWN] + ([f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])
        raise AssertionError("\n  ".join([f"{complaint}: {len(lines)} of {len(expected)} values", *shown]))


def _difference(a: Any, b: Any) -> str:
    """Return how two values differ, in bits; nothing if they do not."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return "" if type(a) is type(b) and repr(a) == repr(b) else f"is {a!r} and {b!r}"
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"is {a.dtype} of shape {tuple(a.shape)} and {b.dtype} of shape {tuple(b.shape)}"
    if torch.equal(_bits(a), _bits(b)):
        return ""
    different = int((a != b).sum())
    return f"differs in {different} of {a.numel()} elements, by up to {(a - b).abs().max().item():.2g}"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
