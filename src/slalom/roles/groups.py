"""Parameter groups from a model: who is decayed, who learns how fast."""

from __future__ import annotations

import fnmatch
import re
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from slalom.errors import unknown
from slalom.roles.assign import Assigned, assign_roles, guess_role, unwrap

_UNDECAYED = frozenset({"vector", "scalar", "embedding"})


def param_groups(
    model: nn.Module,
    weight_decay: float = 0.0,
    *,
    lr: float | None = None,
    layer_decay: float | None = None,
    fan_out: bool = False,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return parameter groups for any `torch.optim.Optimizer`, ours or others'.

    Biases, gains of norms and embeddings are not decayed. The modules' types decide
    that, not names or shapes, and wrappers (DistributedDataParallel, torch.compile) are looked through.

    Args:
        model: the network; frozen parameters are left out.
        weight_decay: for everything else.
        lr: the base learning rate; needed with ``layer_decay``, written into the groups as real rates.
        layer_decay: factor per layer, counted from the last one, in (0, 1]: layer i of n learns at
            ``lr * layer_decay ** (n - i)``. Layers are the numbered blocks (``blocks.3``), what comes before the first
            block counts as layer 0 and what comes after the last as layer n.
        fan_out: divide each layer's rate by the number of units in the layer after it, since every one of those adds to
            the gradients of the units that it reads; the last layer keeps its rate (a rule of Babkin's; docs/tricks.md
            has counts). Layers follow each other as weights do in the model; biases go with the weight before them.
        overrides: group settings by name pattern, ``{"head.*": {"lr": 1e-2}}``; later patterns win.

    Returns:
        Groups with ``params`` as (name, parameter) pairs, ``weight_decay``, and ``lr`` where it is known.

    Raises:
        ValueError: if ``layer_decay`` or ``fan_out`` comes without ``lr``, or a number is out of range.
        UsageError: if an override's pattern matches no parameter.
        TypeError: for parameters instead of a model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"param_groups got a {type(model).__name__}: give the model, whose layers tell what is decayed."
        )
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise ValueError(f"{layer_decay=}: layer_decay must be in (0, 1].")
    if layer_decay is not None and lr is None:
        raise ValueError("layer_decay needs the base rate: param_groups(model, lr=..., layer_decay=...).")
    if fan_out and lr is None:
        raise ValueError("fan_out needs the base rate: param_groups(model, lr=..., fan_out=True).")
    if weight_decay < 0:
        raise ValueError(f"{weight_decay=}: weight_decay must be 0 or more.")
    assigned = assign_roles(unwrap(model))
    overrides = overrides or {}
    for pattern in overrides:
        if not fnmatch.filter([entry.name for entry in assigned], pattern):
            raise unknown("parameter", pattern, (entry.name for entry in assigned))
    layers = _layers(assigned)
    last = max(layers.values(), default=0)
    readers = _readers(assigned) if fan_out else {}
    groups: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    for entry in assigned:
        settings: dict[str, Any] = {"weight_decay": 0.0 if entry.role in _UNDECAYED else weight_decay}
        if lr is not None:
            settings["lr"] = lr * (layer_decay or 1.0) ** (last - layers[entry.name]) / readers.get(entry.name, 1)
        for pattern, chosen in overrides.items():
            if fnmatch.fnmatchcase(entry.name, pattern):
                settings.update(chosen)
        key = tuple(sorted((name, str(value)) for name, value in settings.items()))
        groups.setdefault(key, {"params": [], **settings})["params"].append((entry.name, entry.parameter))
    return list(groups.values())


def label(group: Mapping[str, Any], index: int) -> str:
    """Return what a sentence calls a parameter of a group: its name if it has one, else its place and shape."""
    names = group.get("param_names")
    return f'"{names[index]}"' if names else f"number {index} of shape {tuple(group['params'][index].shape)}"


def split_by_shape(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a group whose parameters have no roles by what their shapes suggest, and say so."""
    if "role" in group:
        return [group]
    entries, blocks = list(group["params"]), group.get("blocks", {})
    kinds: dict[str, list[int]] = {}
    for place, entry in enumerate(entries):
        tensor = entry[1] if isinstance(entry, tuple) else entry
        kinds.setdefault(guess_role(tensor[0] if blocks.get(place) == "batch" else tensor), []).append(place)
    if "matrix" in kinds or "convolution" in kinds:
        count = len(kinds.get("matrix", [])) + len(kinds.get("convolution", []))
        warn_guessed(f"{count} matrices", 'Give the model, not its parameters, or a "role" per group.')
    parts = []
    for kind, members in kinds.items():
        own = {at: blocks[place] for at, place in enumerate(members) if place in blocks}
        part = {**group, "params": [entries[place] for place in members], "role": kind, "blocks": own}
        if "param_names" in group:
            part["param_names"] = [group["param_names"][place] for place in members]
        parts.append(part)
    return parts


def warn_guessed(whose: str, advice: str) -> None:
    """Say whose roles were guessed, and how to tell them, at the line that called slalom."""
    frame, depth = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "slalom":
        frame, depth = frame.f_back, depth + 1
    warnings.warn(
        f"roles of {whose} were guessed from shapes: an embedding or a head looks like a hidden matrix. {advice}",
        stacklevel=depth,
    )


def _layers(assigned: list[Assigned]) -> dict[str, int]:
    """Return each parameter's layer: numbered blocks count, stems are 0, heads come after the last block."""
    numbered = {entry.name: re.search(r"(?:^|\.)(\d+)\.", entry.name) for entry in assigned}
    blocks = [int(found.group(1)) for found in numbered.values() if found]
    if not blocks:
        return {entry.name: 0 for entry in assigned}
    top = max(blocks) + 2
    layers: dict[str, int] = {}
    seen_block = False
    for entry in assigned:
        found = numbered[entry.name]
        seen_block = seen_block or found is not None
        layers[entry.name] = int(found.group(1)) + 1 if found else (top if seen_block else 0)
    return layers


def _readers(assigned: list[Assigned]) -> dict[str, int]:
    """Return for each parameter how many units the layer after its own has; 1 for the last layer's."""
    owners: list[list[str]] = [[]]  # one list per weight, of the parameters that go with it
    units: list[int] = []
    for entry in assigned:
        if entry.parameter.ndim > 1:
            if units:
                owners.append([])
            # An embedding's first dimension counts words, not units.
            units.append(entry.parameter.shape[1 if entry.role == "embedding" else 0])
        owners[-1].append(entry.name)
    return {name: count for names, count in zip(owners, [*units[1:], 1], strict=False) for name in names}
