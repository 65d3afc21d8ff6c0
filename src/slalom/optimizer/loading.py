"""Restoring optimizer state exactly.

torch's own loader casts every tensor to the parameter's dtype, which destroys float32 moments of bfloat16
parameters and counters. This one restores what was saved, refuses what does not fit with a sentence, and changes
nothing when it refuses. It also reads the checkpoints of ``torch.optim``, by the names that parts declare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from slalom.algebra import State
from slalom.engine import STEP, Blocks, kept_dtype, layout, real_view
from slalom.roles import blocks_of

KEPT: Final = "kept"  # in eval mode: the parameter that training goes on from, in its own dtype
# What torch.optim keeps in its groups to choose an implementation.
_TORCH_ONLY: Final = frozenset({"foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"})

Groups = Sequence[Mapping[str, Any]]


def merged_groups(saved: Groups, current: Groups) -> list[dict[str, Any]]:
    """Return the groups after loading: saved values, with today's for what the checkpoint does not know.

    Raises:
        ValueError: if the number of groups, of parameters in one, or their names differ.
    """
    if len(saved) != len(current):
        raise ValueError(f"the checkpoint has {len(saved)} parameter groups, this optimizer has {len(current)}.")
    merged: list[dict[str, Any]] = []
    for place, (old, new) in enumerate(zip(saved, current, strict=True)):
        if old.get("role") != new.get("role"):
            raise ValueError(
                f"parameter group {place} of the checkpoint plays the role {old.get('role')!r}, "
                f"this optimizer's {new.get('role')!r}: they were sorted differently."
            )
        if len(old["params"]) != len(new["params"]):
            raise ValueError(
                f"parameter group {place} of the checkpoint has {len(old['params'])} parameters, "
                f"this optimizer's has {len(new['params'])}."
            )
        _check_routing(place, old, new)
        keep = {key: value for key, value in old.items() if key in new or key not in _TORCH_ONLY}
        keep.pop("param_names", None)  # parameters have the names that they have here
        merged.append({**new, **keep, "params": new["params"]})
    return merged


def _check_routing(place: int, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise `ValueError` if other parameters play the role of a group, or are cut into other blocks."""
    names = [[_unwrapped(name) for name in group.get("param_names") or ()] for group in (old, new)]
    if "role" in new and all(names):
        for one, other in zip(*names, strict=True):
            if one != other:
                raise ValueError(
                    f'parameter group {place} of the checkpoint, {new["role"]}, has "{one}" where this optimizer has '
                    f'"{other}": they were sorted differently; give the same roles.'
                )
    saved, declared = old.get("blocks") or {}, new.get("blocks") or {}
    for at in sorted({*saved, *declared}):
        if saved.get(at) != declared.get(at):
            name = f'"{names[1][at]}"' if names[1] else f"parameter {at} of group {place}"
            was, now = (repr(one[at]) if at in one else "none" for one in (saved, declared))
            raise ValueError(f"{name} had blocks {was} in the checkpoint and has {now} here: declare the same blocks.")


def _unwrapped(name: str) -> str:
    """Return a parameter's name without what DistributedDataParallel and torch.compile put before it."""
    for wrapper in ("module.", "_orig_mod."):
        name = name.removeprefix(wrapper)
    return name


def restored_states(
    saved: Mapping[int, Mapping[str, Any]],
    saved_groups: Groups,
    groups: Sequence[Mapping[str, Any]],
    schema: Callable[[Mapping[str, Any], Tensor], tuple[Mapping[str, State], Collection[str]]],
) -> dict[Tensor, dict[str, Any]]:
    """Return the state of every parameter that the checkpoint has state for, in new tensors on the right device.

    Args:
        saved: the checkpoint's state, by position.
        saved_groups: the checkpoint's groups, whose ``params`` are positions.
        groups: the merged groups, whose ``params`` are tensors.
        schema: declares every state that a parameter of a group may have, and names those that it must have.

    Raises:
        ValueError: if a state is unknown, missing or of another shape; the sentence names parameter and state.
    """
    restored: dict[Tensor, dict[str, Any]] = {}
    copies: dict[int, Tensor] = {}  # what parameters share stays shared
    for old, new in zip(saved_groups, groups, strict=True):
        names = new.get("param_names")
        for place, (position, parameter) in enumerate(zip(old["params"], new["params"], strict=True)):
            if saved.get(position):
                label = names[place] if names else f"number {position} of shape {tuple(parameter.shape)}"
                blocks = blocks_of(new, parameter)
                restored[parameter] = _restored(
                    saved[position], *schema(new, parameter), parameter, blocks, label, copies
                )
    return restored


def _restored(
    saved: Mapping[str, Any],
    schema: Mapping[str, State],
    needed: Collection[str],
    parameter: Tensor,
    blocks: Blocks | None,
    label: str,
    copies: dict[int, Tensor],
) -> dict[str, Any]:
    aliases = {alias: key for key, slot in schema.items() for alias in slot.torch}
    state: dict[str, Any] = {}
    for name, value in saved.items():
        key = name if name in schema or name in (STEP, KEPT) else aliases.get(name)
        if key is None and value is not None:
            expected = ", ".join([STEP, *schema])
            raise ValueError(f'parameter {label}: the checkpoint has a state "{name}", this recipe keeps {expected}.')
        if key is None or value is None:
            continue
        if key == KEPT:
            if value.shape != parameter.shape:
                raise ValueError(
                    f"parameter {label}: the checkpoint's {KEPT} has shape {tuple(value.shape)}, "
                    f"here it is {tuple(parameter.shape)}."
                )
            state[KEPT] = value.detach().to(parameter.device, parameter.dtype, copy=True)
            continue
        if key == STEP:
            state[STEP] = torch.tensor(float(value), dtype=torch.float32)
            continue
        tensor = real_view(torch.as_tensor(value))
        want = layout(schema[key], real_view(parameter), blocks)
        if tensor.numel() != math.prod(want):
            raise ValueError(
                f"parameter {label}: the checkpoint's {name} has shape {tuple(tensor.shape)}, here it is {want}."
            )
        if (schema[key].format == "sign") != (tensor.dtype == torch.uint8):
            raise ValueError(
                f"parameter {label}: the checkpoint's {name} holds {str(tensor.dtype).removeprefix('torch.')}, "
                f'which is not how this recipe keeps it (format "{schema[key].format}").'
            )
        if id(value) not in copies:
            copy = tensor.detach().to(parameter.device, kept_dtype(schema[key], parameter), copy=True)
            copies[id(value)] = copy if tuple(copy.shape) == want else copy.reshape(want)
        state[key] = copies[id(value)]
    if not state:
        return {}  # torch writes {"momentum_buffer": None} where there is no momentum
    missing = [key for key in schema if key in needed and key not in state]
    if missing:
        raise ValueError(f"parameter {label}: the checkpoint has no {', '.join(missing)}, which this recipe needs.")
    state.setdefault(STEP, torch.tensor(1.0))  # torch's SGD counts nothing; it has state, so it has stepped
    return {STEP: state.pop(STEP), **state}


def check_is_state(given: object) -> None:
    """Refuse what is no optimizer's state.

    Raises:
        ValueError: for a model's state, say.
    """
    if isinstance(given, Mapping) and {"state", "param_groups"} <= set(given):
        return
    holds = f"keys {', '.join(map(repr, list(given)[:3]))}" if isinstance(given, Mapping) and given else repr(given)
    raise ValueError(
        'an optimizer\'s state is a dictionary with "state" and "param_groups", as state_dict() returns it; '
        f"this has {holds}."
    )


def check_layout(key: str, slot: State, tensor: Tensor, parameter: Tensor, blocks: Blocks | None) -> None:
    """Refuse a state that no longer has the shape that its recipe works with, or was left behind by its parameter.

    Raises:
        RuntimeError: if a rank, a block size or the like was assigned after the first step, or the model was moved.
    """
    want = layout(slot, parameter, blocks)
    if tuple(tensor.shape) != want:
        raise RuntimeError(
            f"the state {key} of a parameter of shape {tuple(parameter.shape)} has shape {tuple(tensor.shape)}, "
            f"its group's numbers now ask for {want}: put back the one that decides on shapes (a rank, a block size), "
            "or clear optimizer.state to begin anew."
        )
    follows = slot.scope == "tensor" and slot.format == "float"
    other = tensor.dtype != kept_dtype(slot, parameter) and slot.per not in ("left", "right")  # a setting of factors
    if follows and (other or tensor.device != parameter.device):
        raise RuntimeError(
            f"the state {key} is {_kind(tensor)}, its parameter became {_kind(parameter)} after the first step: move "
            "the model before it, or bring the state along by optimizer.load_state_dict(optimizer.state_dict())."
        )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
