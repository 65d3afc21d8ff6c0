"""Gradients that are nan or infinite: found in one pass, named in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from slalom.engine import finite, real_view
from slalom.engine.shards import local
from slalom.errors import unknown
from slalom.roles import label

OnNonfinite: TypeAlias = Literal["raise", "skip", "ignore"]
CHOICES: Final[tuple[str, ...]] = get_args(OnNonfinite)

_HALVES: Final = (torch.float16, torch.bfloat16)


def checked(choice: str) -> OnNonfinite:
    """Return the choice, or refuse it with the ones that exist.

    Raises:
        UsageError: if it is none of them.
    """
    if choice not in CHOICES:
        raise unknown("choice", str(choice), CHOICES, owner="on_nonfinite")
    return choice  # type: ignore[return-value]


def all_finite(gradients: Iterable[Tensor | None]) -> bool:
    """Whether no gradient holds nan or infinity: one compiled pass on a CPU, else one number per device and dtype."""
    found = [gradient for gradient in gradients if gradient is not None]
    answer = finite(found)
    if answer is not None:
        return answer
    return _all_finite_in_lists(found)


@torch.no_grad()
def _all_finite_in_lists(found: list[Tensor]) -> bool:
    homes: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for gradient in found:
        if gradient.numel():
            homes.setdefault((gradient.device, gradient.dtype), []).append(_values(gradient))
    return all(_are_finite(members) for members in homes.values())


def _are_finite(values: list[Tensor]) -> bool:
    # A norm reads at the speed of memory, several times faster than isfinite, and squares cannot cancel: it is finite
    # only if every value is. The other way round it may overflow, so a bad norm is a suspicion, to be looked into.
    wide = torch.float32 if values[0].dtype in _HALVES else None
    norms = torch._foreach_norm(values, 2, dtype=wide)
    return math.isfinite(torch.stack(norms).sum().item()) or all(bool(torch.isfinite(value).all()) for value in values)


def _values(gradient: Tensor) -> Tensor:
    return real_view(gradient._values() if gradient.is_sparse else gradient)


@torch.no_grad()
def complaint(groups: Sequence[Mapping[str, Any]], step: int) -> str:
    """Return the sentence that names the first parameter with a bad gradient, its share of bad values, and the others.

    Args:
        groups: parameter groups.
        step: the number of the step that is refused.
    """
    found: list[str] = []
    for group in groups:
        for index, parameter in enumerate(group["params"]):
            gradient = None if parameter.grad is None else local(parameter.grad)
            if gradient is not None and not all_finite([gradient]):
                values = _values(gradient)
                bad = int((~torch.isfinite(values)).sum())
                share = 100 * bad / values.numel()
                found.append(f"{label(group, index)} is not finite in {bad} of {values.numel()} values ({share:.3g} %)")
    others = len(found) - 1
    more = f", nor is that of {others} other parameter{'s' if others > 1 else ''}" if others > 0 else ""
    what = f"the gradient of parameter {found[0]}{more}" if found else "a gradient on another rank is not finite"
    return (
        f"step {step}: {what}; nothing was changed. "
        'Lower the learning rate or clip, or let such steps pass with on_nonfinite="skip".'
    )
