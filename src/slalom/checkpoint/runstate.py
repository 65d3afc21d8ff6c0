"""What a training run consists of: how its pieces are captured, compared, restored and, if that fails, put back.

Pieces are modules, optimizers, schedules, gradient scalers, random generators, and whatever else has a
``state_dict``. Only tensors and plain values are captured, so that nothing needs to be unpickled but those.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from slalom.algebra import Expr, Hyper
from slalom.engine.shards import any_sharded
from slalom.optimizer import Optimizer
from slalom.parts import Part
from slalom.recipes import Recipe


class Stateful(Protocol):
    """Anything that saves and loads itself as torch's objects do: a schedule, a scaler, a sampler, an average."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take it back."""


Piece: TypeAlias = "nn.Module | torch.optim.Optimizer | torch.Generator | np.random.Generator | Stateful"

_ATOMS: Final = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


def plain(value: Any, where: str) -> Any:
    """Return a value as tensors, numbers, strings and containers of these.

    Raises:
        TypeError: for anything else; the sentence says where it stands.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor) and any_sharded([value]):
        raise TypeError(
            f"{where} is sharded over ranks, which one file of one rank cannot hold: "
            "save the model and the optimizer with torch.distributed.checkpoint."
        )
    if kind in (Tensor, nn.Parameter):
        return value.detach() if value.requires_grad else value  # the same object, so that what is shared stays shared
    if kind in (dict, OrderedDict, Counter):
        made: Any = kind()
        for key, entry in value.items():
            made[plain(key, where)] = plain(entry, f"{where}.{key}")
        if hasattr(value, "_metadata"):
            made._metadata = plain(value._metadata, where)  # the versions of a module's layers
        return made
    if kind in (list, tuple, set):
        return kind(plain(entry, f"{where}.{place}") for place, entry in enumerate(value))
    raise TypeError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be saved safely: tensors, numbers, strings, "
        "and lists, tuples, sets and dictionaries of these can."
    )


# --- one piece --------------------------------------------------------------------------------------------------


def capture(piece: Piece) -> Any:
    """Return the state of a piece; its tensors are the live ones."""
    if isinstance(piece, nn.Module):
        return {
            "state": piece.state_dict(),
            "evaluating": [name for name, module in piece.named_modules() if not module.training],
            "frozen": [name for name, parameter in piece.named_parameters() if not parameter.requires_grad],
        }
    if isinstance(piece, torch.Generator):
        return piece.get_state()
    if isinstance(piece, np.random.Generator):
        return dict(piece.bit_generator.state)
    return piece.state_dict()


def restore(piece: Piece, saved: Any, *, modes: bool) -> None:
    """Give a piece the state that was captured; a module also its modes, if that is asked for."""
    if isinstance(piece, nn.Module):
        piece.load_state_dict(saved["state"])
        if modes:
            for name, module in piece.named_modules():
                module.training = name not in saved["evaluating"]
            for name, parameter in piece.named_parameters():
                parameter.requires_grad_(name not in saved["frozen"])
    elif isinstance(piece, torch.Generator):
        piece.set_state(saved)
    elif isinstance(piece, np.random.Generator):
        piece.bit_generator.state = saved
    else:
        piece.load_state_dict(saved)


def remember(piece: Piece) -> Callable[[], None]:
    """Return a function that puts a piece back into its present state, even if its own loader failed halfway."""
    if isinstance(piece, nn.Module):
        tensors = {key: value for key, value in piece.state_dict().items() if isinstance(value, Tensor)}
        kept = {key: value.to("cpu", copy=True) for key, value in tensors.items()}
        training = {module: module.training for module in piece.modules()}
        frozen = {parameter: parameter.requires_grad for parameter in piece.parameters()}

        def put_back() -> None:
            for key, value in kept.items():
                tensors[key].copy_(value)
            for module, mode in training.items():
                module.training = mode
            for parameter, grad in frozen.items():
                parameter.requires_grad_(grad)

        return put_back
    if isinstance(piece, torch.optim.Optimizer):
        # Loading an optimizer puts new tensors and groups in place of the old ones, which stay as they are.
        state, groups = {p: dict(held) for p, held in piece.state.items()}, [dict(g) for g in piece.param_groups]

        def put_back_optimizer() -> None:
            piece.state.clear()
            piece.state.update(state)
            piece.param_groups[:] = groups

        return put_back_optimizer
    held = copy.deepcopy(capture(piece))
    return lambda: restore(piece, held, modes=False)


# --- comparing --------------------------------------------------------------------------------------------------


def describe(piece: Piece) -> dict[str, Any]:
    """Return what a piece must be to take a state: its class, and of optimizers who gets which recipe."""
    facts: dict[str, Any] = {"class": f"{type(piece).__module__}.{type(piece).__qualname__}"}
    if isinstance(piece, torch.amp.GradScaler):
        facts["enabled"] = piece.is_enabled()
    if isinstance(piece, torch.optim.Optimizer):
        facts["groups"] = [_described(piece, group) for group in piece.param_groups]
    return facts


def _described(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "shapes": [list(parameter.shape) for parameter in group["params"]],
        "names": list(group.get("param_names", [])),
        "recipe": _structure(optimizer.recipe(group)) if isinstance(optimizer, Optimizer) else [],
    }


def _structure(recipe: Recipe) -> list[str]:
    """Return a recipe's parts and switches without its numbers, which a checkpoint brings along."""
    return [f"{slot}: {_words(part)}" for slot, part in recipe.sequence()]


def _words(value: Any) -> str:
    if isinstance(value, Recipe):
        return f"({'; '.join(_structure(value))})"
    if not isinstance(value, Part):
        return repr(value)
    settings = [(entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value)]  # type: ignore[arg-type]
    words = [f"{name}={_words(entry)}" for name, entry in settings if not isinstance(entry, (float, Hyper, Expr))]
    return type(value).__name__ + (f"({', '.join(words)})" if words else "")


def differences(name: str, piece: Piece, saved: Any, described: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for everything that keeps a saved state from fitting a piece.

    Args:
        name: what the piece is called.
        piece: the piece that is there.
        saved: what `capture` returned when it was saved.
        described: what `describe` returned then.
    """
    if isinstance(piece, nn.Module):
        yield from _module_differences(name, piece, saved["state"])
        return
    now = describe(piece)
    for key in ("class", "enabled"):
        if described.get(key) != now.get(key):
            yield f"{name}: {key} {described.get(key)} in the checkpoint, {now.get(key)} here"
            return
    if isinstance(piece, torch.optim.Optimizer):
        yield from _optimizer_differences(name, piece, saved, described["groups"], now["groups"])


def _module_differences(name: str, module: nn.Module, saved: Mapping[str, Any]) -> Iterator[str]:
    here = module.state_dict()
    lost, extra = [key for key in here if key not in saved], [key for key in saved if key not in here]
    if lost:
        yield f"{name}: the checkpoint has no {_few(lost)}"
    if extra:
        yield f"{name}: the checkpoint also has {_few(extra)}"
    for key in (key for key in here if key in saved):
        if isinstance(here[key], Tensor) and _form(here[key]) != _form(saved[key]):
            yield f'{name}: "{key}" is {_form(saved[key])} in the checkpoint, {_form(here[key])} here'


def _optimizer_differences(
    name: str,
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Any],
    then: list[dict[str, Any]],
    now: list[dict[str, Any]],
) -> Iterator[str]:
    if len(then) != len(now):
        yield f"{name}: {len(then)} parameter groups in the checkpoint, {len(now)} here"
        return
    for place, (old, new) in enumerate(zip(then, now, strict=True)):
        where = f"{name}: group {place}"
        if len(old["shapes"]) != len(new["shapes"]):
            yield f"{where} has {len(old['shapes'])} parameters in the checkpoint, {len(new['shapes'])} here"
            continue
        for number, (a, b) in enumerate(zip(old["shapes"], new["shapes"], strict=True)):
            if a != b:
                yield f"{where}, parameter {number} has shape {tuple(a)} in the checkpoint, {tuple(b)} here"
        if old["names"] and new["names"]:
            for a, b in zip(old["names"], new["names"], strict=True):
                if a != b:
                    yield f'{where} has "{a}" in the checkpoint where it has "{b}" here'
        if isinstance(optimizer, Optimizer):
            # With the numbers of the checkpoint: a recipe may leave out what is zero.
            group = {**optimizer.param_groups[place], **saved["param_groups"][place]}
            try:
                recipe = _structure(optimizer.recipe(group))
            except ValueError as error:
                yield f"{where}: {error}"
                continue
            lost = [line for line in old["recipe"] if line not in recipe]
            extra = [line for line in recipe if line not in old["recipe"]]
            if lost or extra:
                yield f"{where} runs {_few(lost) or 'less'} in the checkpoint, {_few(extra) or 'less'} here"
            elif recipe != old["recipe"]:
                yield f"{where} runs the same parts in another order"


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"


def _few(names: list[str], most: int = 4) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


# --- random states ----------------------------------------------------------------------------------------------


def random_states() -> dict[str, Any]:
    """Return the states of the global random generators of Python, numpy and torch, on the CPU and on GPUs in use."""
    version, words, spare = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": (version, torch.tensor(words, dtype=torch.int64), spare),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *plain(rest, "numpy")),
        "torch": torch.get_rng_state(),
        # Asking a GPU that the run does not use would only take its memory.
        "cuda": torch.cuda.get_rng_state_all() if gpus_in_use() else [],
    }


def gpus_in_use() -> bool:
    """Whether this process has used a CUDA device."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def set_random_states(saved: Mapping[str, Any]) -> None:
    """Set the global random generators to what `random_states` returned; GPUs as far as there are any."""
    version, words, spare = saved["python"]
    random.setstate((version, tuple(words.tolist()), spare))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(saved["torch"])
    if torch.cuda.is_available():
        for device, state in enumerate(saved["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
