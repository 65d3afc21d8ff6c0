"""Which parameters form a group and how they are seen: sorted by role, cut into blocks, as declared or as guessed."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from slalom.engine.blocks import Blocks
from slalom.errors import UsageError, unknown
from slalom.roles.assign import Role, assign_roles
from slalom.roles.groups import split_by_shape, warn_guessed

Declared: TypeAlias = Mapping[str, Blocks]


def groups_by_role(
    params: Any, roles: Mapping[str, Role], settings: Mapping[Role, Mapping[str, Any]], declared: Declared
) -> list[dict[str, Any]]:
    """Return one group per role, sorted by a model's layers, by what groups say, or by shape.

    Args:
        params: a module, parameters, named parameters or groups.
        roles: by name pattern, over what modules say.
        settings: of the groups, by role.
        declared: blocks by name pattern.

    Raises:
        UsageError: if something is declared by name where there are no names, or a pattern or role has no parameter.
    """
    if isinstance(params, nn.Module):
        found = assign_roles(params, roles, declared)
        guessed = [entry.name for entry in found if entry.guessed]
        if guessed:
            some = f"{', '.join(guessed[:4])}{', ...' if len(guessed) > 4 else ''}, which no known layer holds,"
            warn_guessed(some, f'Say what they are: roles={{"{guessed[0]}": "matrix"}}, or a pattern of names.')
        kinds = list(dict.fromkeys(entry.role for entry in found))
        groups: list[dict[str, Any]] = [
            {"params": [(e.name, e.parameter) for e in found if e.role == kind], "role": kind} for kind in kinds
        ]
    elif roles:
        raise UsageError(f"roles={dict(roles)!r} goes by a model's names: give the model, not its parameters.")
    else:
        groups = [part for group in _as_groups(params, declared) for part in split_by_shape(group)]
    known = [group["role"] for group in groups]
    for role in settings:
        if role not in known:
            raise unknown("role", role, known, owner="by_role")
    return [{**settings.get(group["role"], {}), **group} for group in groups]


def groups_as_given(params: Any, declared: Declared) -> list[Any]:
    """Return what torch's constructor takes; arguments and errors as for `groups_by_role`."""
    if isinstance(params, nn.Module):
        params = [(name, parameter) for name, parameter in params.named_parameters() if parameter.requires_grad]
    entries = _entries(params)
    if declared:
        return _as_groups(entries, declared)
    return entries


def _as_groups(params: Any, declared: Declared) -> list[dict[str, Any]]:
    """Return parameters, or groups of them, as groups that know their blocks."""
    entries = _entries(params)
    groups = entries if entries and isinstance(entries[0], dict) else [{"params": entries}]
    found = [with_blocks(group, declared) for group in groups]
    names = [name for group in found for name in _names(group) if name is not None]
    if declared and not names:
        raise UsageError(f"blocks={dict(declared)!r} goes by names: give the model, or (name, parameter) pairs.")
    for pattern in declared:
        if not fnmatch.filter(names, pattern):
            raise unknown("parameter", pattern, names)
    return found


def with_blocks(group: dict[str, Any], declared: Declared) -> dict[str, Any]:
    """Return a group with its declarations by place, ``{place: blocks}``, under "blocks" if there are any.

    Args:
        group: whose own "blocks" may be for all its parameters, or by place, or by name pattern.
        declared: blocks by name pattern, for parameters of which the group says nothing.

    Raises:
        UsageError: if a parameter cannot be cut as declared.
        ValueError: if there are no parameters in it.
    """
    if "params" not in group:
        raise ValueError(f'a parameter group has {", ".join(map(repr, group)) or "nothing"} and no "params".')
    group = {**group, "params": _listed(group["params"])}
    given = group.pop("blocks", None)
    found: dict[int, Blocks] = {}
    for place, (name, entry) in enumerate(zip(_names(group), group["params"], strict=True)):
        tensor = entry[1] if isinstance(entry, tuple) else entry
        chosen = given.get(place, _matching(given, name)) if isinstance(given, Mapping) else given
        chosen = _matching(declared, name) if chosen is None else chosen
        if chosen is not None and isinstance(tensor, Tensor):
            label = f'"{name}"' if name is not None else f"parameter {place} of a group"
            blocks = _checked(chosen, tuple(tensor.shape), label)
            if blocks is not None:
                found[place] = blocks
    return {**group, "blocks": found} if found else group


def blocks_of(group: Mapping[str, Any], parameter: Tensor) -> Blocks | None:
    """Return how a parameter of a group is cut, None if it is whole."""
    declared: Mapping[int, Blocks] = group.get("blocks") or {}
    return next((blocks for place, blocks in declared.items() if group["params"][place] is parameter), None)


def _checked(blocks: Any, shape: tuple[int, ...], label: str) -> Blocks | None:
    """Return a declaration as it is kept; None where it leaves a parameter whole.

    Args:
        blocks: a number of equal blocks of rows, the rows of each block, or "batch".
        shape: of the parameter.
        label: what a sentence calls it.

    Raises:
        UsageError: if the parameter cannot be cut so.
    """
    given = f"blocks={blocks!r} for {label} of shape {shape}"
    if blocks == "batch":
        if len(shape) < 2:
            raise UsageError(f'{given}: a batch needs a dimension that counts its members; leave "batch" out.')
        return "batch"
    if isinstance(blocks, int) and not isinstance(blocks, bool):
        if blocks < 1 or not shape or shape[0] % blocks:
            raise UsageError(f"{given}: that is no number of equal blocks; give the rows of each, as (64, 16, 16).")
        return blocks if blocks > 1 else None
    if isinstance(blocks, (tuple, list)) and blocks and all(isinstance(rows, int) and rows > 0 for rows in blocks):
        if not shape or sum(blocks) != shape[0]:
            raise UsageError(f"{given}: the blocks have {sum(blocks)} rows together; they must add up to all rows.")
        return tuple(blocks) if len(blocks) > 1 else None
    raise UsageError(f'{given}: give a number of equal blocks, the rows of each as (64, 16, 16), or "batch".')


def _matching(declared: Mapping[Any, Any], name: str | None) -> Any:
    """Return what the first pattern that matches declares."""
    patterns = (pattern for pattern in declared if isinstance(pattern, str))
    return next((declared[p] for p in patterns if name is not None and fnmatch.fnmatchcase(name, p)), None)


def _entries(params: Any) -> list[Any]:
    """Return the parameters or groups that an optimizer was given.

    Raises:
        TypeError: for a tensor alone, or a set.
    """
    if isinstance(params, Tensor):
        raise TypeError(f"the parameters are one tensor of shape {tuple(params.shape)}: put it into a list.")
    return _listed(params)


def _listed(params: Any) -> list[Any]:
    """Return parameters in their order.

    Raises:
        TypeError: if they have none.
    """
    if isinstance(params, (set, frozenset)):
        raise TypeError("parameters in a set have no order that a checkpoint could rely on: put them into a list.")
    if not isinstance(params, Iterable):
        raise TypeError(f"params={params!r}: give the model, or its parameters, with or without names, or groups.")
    return [params] if isinstance(params, Tensor) else list(params)


def _names(group: Mapping[str, Any]) -> Iterable[str | None]:
    known = group.get("param_names") or [None] * len(group["params"])
    return [e[0] if isinstance(e, tuple) else name for e, name in zip(group["params"], known, strict=True)]
