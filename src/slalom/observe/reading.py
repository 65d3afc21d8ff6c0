"""What `watch` reads: from an optimizer and a model who is there, from devices all numbers at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from slalom.batchnorm import statistics_kept
from slalom.engine.shards import any_sharded, local
from slalom.observe.measures import wide
from slalom.observe.record import Parameter
from slalom.roles import assign_roles, guess_role

_HALVES: Final = frozenset({torch.float16, torch.bfloat16})


def unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer that steps, inside accelerate's and Lightning's wrappers, which run no hooks.

    Raises:
        TypeError: if it is none.
    """
    for name in ("optimizer", "_optimizer"):
        inner = getattr(optimizer, name, None)
        if isinstance(inner, torch.optim.Optimizer):
            return unwrapped(inner)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"watch got a {type(optimizer).__name__} where a torch.optim.Optimizer belongs.")
    return optimizer


def settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the first group's plain numbers and words."""
    group = optimizer.param_groups[0] if optimizer.param_groups else {}
    found: dict[str, Any] = {key: value for key, value in group.items() if isinstance(value, bool | int | float | str)}
    if isinstance(group.get("betas"), tuple):
        found["betas"] = [float(beta) for beta in group["betas"]]
    return found


def held(optimizer: Any) -> Iterator[tuple[Mapping[str, Any], Tensor]]:
    """Yield an optimizer's parameters with their groups."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield group, parameter


def described(model: nn.Module | None, theirs: Sequence[Tensor]) -> list[tuple[Tensor, Parameter]]:
    """Return what an optimizer holds and what could be trained, in the model's order, with names and roles.

    Args:
        model: None if it is gone; then nobody can say what belongs to it.
        theirs: the optimizer's parameters.
    """
    named: dict[str, Tensor] = dict(model.named_parameters()) if model is not None else {}
    roles = {one.parameter: one.role for one in assign_roles(model)} if model is not None else {}
    mine, holds = set(named.values()), set(theirs)
    listed = [(name, one, True) for name, one in named.items() if one.requires_grad or one in holds]
    others = [parameter for parameter in theirs if parameter not in mine]
    what = "of those not in the model" if model is not None else "of the optimizer"
    listed += [(f"number {place} {what}", one, model is None) for place, one in enumerate(others)]
    return [
        (
            one,
            Parameter(
                name=name,
                shape=tuple(one.shape),
                dtype=str(one.dtype).removeprefix("torch."),
                role=roles.get(one) or guess_role(one),
                trained=one.requires_grad,
                held=one in holds,
                in_model=inside,
            ),
        )
        for name, one, inside in listed
    ]


def length(gradient: Tensor) -> Tensor:
    """Return the norm of a sparse gradient, whose rows may be listed twice."""
    found: Tensor = torch.linalg.vector_norm(gradient.coalesce().values().to(wide(gradient)))
    return found


def whole_norm(optimizer: Any) -> Tensor | None:
    """Return the norm of the whole gradient, on a device; None if ranks hold parts of it, or there is none."""
    # at every step, so nothing here asks twice: a small network's step takes a few hundred microseconds
    gradients = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None:
                if gradient.is_sparse:
                    return None
                gradients.append(gradient)
    if not gradients or any_sharded(gradients):
        return None
    # a norm taken in half precision overflows where no gradient does
    narrow = not _HALVES.isdisjoint([gradient.dtype for gradient in gradients])
    norms = list(torch._foreach_norm(gradients, 2, dtype=torch.float32) if narrow else torch._foreach_norm(gradients))
    if len({(norm.device, norm.dtype) for norm in norms}) > 1:
        norms = [norm.to(norms[0].device, torch.float32) for norm in norms]
    found: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return found


def evaluated(probe: Callable[[], Any]) -> Tensor:
    """Return the loss without a trace of its evaluation."""
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if initialized else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), statistics_kept():
        return torch.as_tensor(probe()).detach()


def fetched(**lists: Sequence[Tensor | float]) -> dict[str, Tensor]:
    """Return all numbers of some lists of tensors, with one read from one device."""
    tensors = [one for values in lists.values() for one in values if isinstance(one, Tensor)]
    home = next((one.device for one in tensors if one.device.type != "cpu"), torch.device("cpu"))
    dtype = torch.float32 if home.type == "mps" else torch.float64
    flat = {
        name: [local(torch.as_tensor(one)).to(home, dtype, non_blocking=True).flatten() for one in values]
        for name, values in lists.items()
    }
    everything = [one for values in flat.values() for one in values]
    if not everything:
        return {name: torch.zeros(0) for name in lists}
    read = torch.cat(everything).cpu()
    sizes = [sum(one.numel() for one in values) for values in flat.values()]
    return dict(zip(lists, torch.split(read, sizes), strict=True))


def mean(losses: Tensor) -> tuple[float, int]:
    """Return the mean of the finite losses, and how many are not."""
    finite = losses[losses.isfinite()]
    return (float(finite.mean()) if len(finite) else math.nan), len(losses) - len(finite)
