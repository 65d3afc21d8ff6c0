"""The role each parameter plays in its network: hidden matrix, convolution, embedding, head, vector, scalar."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from torch import Tensor, nn

from slalom.engine.blocks import Blocks
from slalom.errors import unknown

Role: TypeAlias = Literal["matrix", "convolution", "embedding", "head", "vector", "scalar"]
ROLES: Final[tuple[str, ...]] = get_args(Role)

_CONVOLUTIONS: Final = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_MATRICES: Final = (nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
_EMBEDDINGS: Final = (nn.Embedding, nn.EmbeddingBag)
_LINEAR_KINDS: Final = frozenset({"Conv1D"})  # of transformers, GPT-2's; its weight is (in, out)
_EMBEDDING_NAMES: Final = ("embed", "token", "position")  # of parameters that belong to no known layer
_HEAD_NAMES: Final = frozenset({"head", "lm_head", "classifier", "fc", "output", "out", "logits", "unembed", "decoder"})


@dataclass(frozen=True)
class Assigned:
    """A parameter and its role.

    Attributes:
        name: in the model.
        parameter: the tensor.
        role: what it was taken for.
        why: what that rests on.
        guessed: whether only the shape spoke for it.
    """

    name: str
    parameter: Tensor
    role: Role
    why: str
    guessed: bool = False


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside DistributedDataParallel, DataParallel and torch.compile wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def assign_roles(
    model: nn.Module, overrides: Mapping[str, Role] | None = None, blocks: Mapping[str, Blocks] | None = None
) -> list[Assigned]:
    """Return the role of every trainable parameter, in the model's order.

    Types of modules decide; the last linear layer is the head; a weight tied to an embedding is an embedding. Where a
    parameter belongs to a module of no known type its name may still say that it is an embedding (``pos_embed``,
    ``cls_token``); else only its shape is left, and that is said.

    Args:
        model: the network; wrappers are looked through.
        overrides: roles by name pattern (``{"blocks.*.gate": "vector"}``); the first match wins.
        blocks: what parameters are cut into, by name pattern: a batch of matrices is a matrix (see `Optimizer`).

    Raises:
        UsageError: if an override names no role, or a pattern matches no parameter.
    """
    model = unwrap(model)
    overrides, blocks = overrides or {}, blocks or {}
    for role in overrides.values():
        if role not in ROLES:
            raise unknown("role", role, ROLES)
    head = _head(model)
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, _EMBEDDINGS)}
    owners = {
        (f"{prefix}.{name}" if prefix else name): (module, name)
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    found: list[Assigned] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        pattern = next((entry for entry in overrides if fnmatch.fnmatchcase(name, entry)), None)
        if pattern is not None:
            found.append(Assigned(name, parameter, overrides[pattern], f"matches {pattern}"))
            continue
        module, own_name = owners[name]
        if id(parameter) in embedded:
            found.append(Assigned(name, parameter, "embedding", "an embedding's table"))
        elif _declared_batch(name, blocks) and parameter.ndim > 1:
            found.append(Assigned(name, parameter, guess_role(parameter[0]), "declared as a batch of these"))
        else:
            found.append(_by_module(name, parameter, module, own_name, head))
    names = [entry.name for entry in found]
    for pattern in (*overrides, *blocks):
        if not fnmatch.filter(names, pattern):
            raise unknown("parameter", pattern, names)
    return found


def _declared_batch(name: str, blocks: Mapping[str, Blocks]) -> bool:
    return next((blocks[pattern] for pattern in blocks if fnmatch.fnmatchcase(name, pattern)), None) == "batch"


def guess_role(parameter: Tensor) -> Role:
    """Return what a parameter's shape alone suggests."""
    if not isinstance(parameter, Tensor):
        raise TypeError(f"{parameter!r} is no parameter: give tensors, (name, tensor) pairs or groups of these.")
    return ("scalar", "vector", "matrix")[parameter.ndim] if parameter.ndim < 3 else "convolution"


def _head(model: nn.Module) -> nn.Module | None:
    """Return the last linear layer: by its name if one has a head's name, else the last, unless it is all there is.

    What is there once per numbered block, as the "out" of attention layers may be, is no head.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    kinds = Counter(_unnumbered(name) for name, _ in linear)
    named = [m for name, m in linear if name.rsplit(".", 1)[-1] in _HEAD_NAMES and kinds[_unnumbered(name)] == 1]
    if named:
        return named[-1]
    before = any(isinstance(module, (*_CONVOLUTIONS, *_EMBEDDINGS, nn.RNNBase)) for module in model.modules())
    return linear[-1][1] if len(linear) > 1 or (linear and before) else None


def _unnumbered(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _by_module(name: str, parameter: Tensor, module: nn.Module, own_name: str, head: nn.Module | None) -> Assigned:
    kind = type(module).__name__
    if parameter.ndim == 0:
        return Assigned(name, parameter, "scalar", "a single number")
    if parameter.ndim == 1:
        return Assigned(name, parameter, "vector", f"{own_name} of {kind}")
    if module is head:
        return Assigned(name, parameter, "head", "the last linear layer")
    if isinstance(module, _CONVOLUTIONS):
        return Assigned(name, parameter, "convolution", f"kernel of {kind}")
    if kind in _LINEAR_KINDS or isinstance(module, _MATRICES):
        return Assigned(name, parameter, "matrix", f"{own_name} of {kind}")
    if parameter.ndim < 4 and any(word in own_name for word in _EMBEDDING_NAMES):
        return Assigned(name, parameter, "embedding", f'named "{own_name}"')
    return Assigned(name, parameter, guess_role(parameter), f"its shape only; {kind} is no known layer", guessed=True)
