"""The account: what one rank holds of weights, gradients, optimizer state and all else, in bytes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from slalom.engine import Program, kept_bytes, pieces, real_view
from slalom.engine.matrices import scratch_bytes
from slalom.engine.shards import stays_local
from slalom.errors import UsageError, unknown
from slalom.named import create
from slalom.optimizer import Optimizer
from slalom.recipes import ByRole, Recipe
from slalom.recipes.spec import parse_spec
from slalom.roles import blocks_of

_STEP: Final = 4  # bytes of a parameter's step count


@dataclass(frozen=True)
class Precision:
    """Bytes per parameter in a way of training.

    Attributes:
        weight: of the weights that the forward pass reads.
        gradient: of the gradients.
        copy: of a more precise copy of the weights, which the optimizer updates.
        dtype: of weights and activations.
        words: the same for people.
    """

    weight: int
    gradient: int
    copy: int
    dtype: torch.dtype
    words: str


PRECISIONS: Final = {
    "float32": Precision(4, 4, 0, torch.float32, "everything in float32"),
    "bfloat16": Precision(2, 2, 0, torch.bfloat16, "weights and gradients in bfloat16, nothing more precise"),
    "mixed": Precision(2, 2, 4, torch.bfloat16, "weights and gradients in bfloat16, copies of the weights in float32"),
}


@dataclass(frozen=True)
class Account:
    """What training takes, in bytes, of one rank.

    Attributes:
        parameters: how many, of the whole model.
        weights: parameters, frozen ones too, and buffers.
        gradients: of trained parameters.
        copies: more precise copies of the weights; and whole copies of sharded parameters whose step needs all of
            them (see `slalom.memory.account`).
        state: of the optimizer, exactly.
        scratch: of a step: arrays between its passes, and gathered gradients. What torch's matrix products allocate
            on their way is not in it.
        gathered: layers that FSDP holds whole while they run.
        activations: what the forward pass keeps for the backward pass; None if nobody measured it.
    """

    parameters: int
    weights: int
    gradients: int
    copies: int
    state: int
    scratch: int = 0
    gathered: int = 0
    activations: int | None = None

    @property
    def resident(self) -> int:
        """What is there all the time: weights, gradients, copies and state."""
        return self.weights + self.gradients + self.copies + self.state

    @property
    def peak(self) -> int:
        """The most at one moment: gradients accumulate while a pass runs, or the optimizer steps."""
        return self.resident + max(self.scratch, self.gathered + (self.activations or 0))


def account(
    model: nn.Module,
    recipe: str | Recipe | ByRole | Optimizer,
    *,
    precision: str | None = None,
    ranks: int = 1,
    activations: int | None = None,
) -> Account:
    """Say what training a model with a recipe takes. Nothing is allocated; the model may be on the meta device.

        slalom.memory.account(model, "adamw").peak

    State is exact: it is added up from what every part declares, parameter by parameter, role by role, with the step
    counts. With ``ranks`` parameters are sharded along their first dimension as FSDP2 does, and the account is the
    first rank's, which has the most. A recipe that computes each element from what lies at its place keeps its state
    in shards; one that looks at a whole matrix (Muon, Adafactor, LAMB) gathers it: every rank then keeps the whole
    state and a whole copy, and gathers the gradients during a step.

    Args:
        model: whose parameters are trained where they require gradients.
        recipe: a name ("sgd:momentum=0.9"), a recipe, or an optimizer of this model.
        precision: "float32", "bfloat16" or "mixed"; by default as the model's parameters are.
        ranks: over how many ranks FSDP2 shards everything.
        activations: bytes of them on a rank, as `saved_bytes` counts them.

    Raises:
        UsageError: for an unknown recipe or precision, or ``ranks`` below 1.

    Source of the way of counting: Rajbhandari et al. 2019, ZeRO, arXiv:1910.02054.
    """
    if precision is not None and precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if ranks != int(ranks) or ranks < 1:
        raise UsageError(f"ranks={ranks}: give a whole number, 1 for no shards.")
    how = PRECISIONS.get(precision or "")
    optimizer = _optimizer(model, recipe)
    owned = list(_owned(optimizer))
    trained = {id(parameter) for _, parameter, _ in owned}
    weights = gradients = copies = 0
    for parameter in model.parameters():
        part = _shard(parameter, ranks).numel()
        weights += part * (how.weight if how else parameter.element_size())
        if id(parameter) in trained:
            gradients += part * (how.gradient if how else parameter.element_size())
            copies += part * (how.copy if how else 0)
    weights += sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    gathering = [p for _, p, program in owned if ranks > 1 and not stays_local(program)]
    size = (how.copy or how.weight) if how else 0
    copies += sum(p.numel() * (size or p.element_size()) for p in gathering)
    scratch = sum(p.numel() * (how.gradient if how else p.element_size()) for p in gathering)
    return Account(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights=weights,
        gradients=gradients,
        copies=copies,
        state=_state(owned, ranks),
        scratch=scratch + _scratch(owned),
        gathered=_gathered(model, how) if ranks > 1 else 0,
        activations=activations,
    )


def state_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of an optimizer's state, step counts included, whether it exists yet or not."""
    return _state(list(_owned(optimizer)), 1)


Owned = tuple[dict[str, Any], Tensor, Program]


def _optimizer(model: nn.Module, recipe: str | Recipe | ByRole | Optimizer) -> Optimizer:
    if isinstance(recipe, Optimizer):
        return recipe
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of roles that were guessed: `slalom explain --model` tells them
        if isinstance(recipe, str):
            entry, arguments = parse_spec(recipe)
            return create(entry.name, model, **arguments)
        return recipe.build(model)


def _owned(optimizer: Optimizer) -> Iterator[Owned]:
    """Yield every parameter with its group and its program."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield group, parameter, optimizer.program(group, parameter)


def _state(owned: Iterable[Owned], ranks: int) -> int:
    """Return the bytes of state on the first rank; what a group or the model has in common counts once."""
    total = 0
    common: set[tuple[str, int]] = set()
    for group, parameter, program in owned:
        total += _STEP
        whole = real_view(parameter.detach())
        part = _shard(whole, ranks)
        local = stays_local(program)
        for key, slot in program.states.items():
            if slot.scope == "tensor":
                mine = part if local and slot.per == "element" else whole
                total += kept_bytes(slot, mine, blocks_of(group, parameter))
                continue
            place = (key, id(group) if slot.scope == "group" else 0)
            total += 0 if place in common else kept_bytes(slot, whole)
            common.add(place)
    return total


def _scratch(owned: Iterable[Owned]) -> int:
    """Return the bytes between the passes of a step; groups step one after the other."""
    teams: dict[tuple[int, Program], list[Tensor]] = {}
    for group, parameter, program in owned:
        cut = pieces(real_view(parameter.detach()), blocks_of(group, parameter))
        teams.setdefault((id(group), program), []).extend(cut)
    return sum(scratch_bytes(program, tensors) for (_, program), tensors in teams.items())


def _shard(tensor: Tensor, ranks: int) -> Tensor:
    """Return the first rank's part of a tensor, without values: its first dimension is split, rounded up."""
    shape = tuple(tensor.shape)
    if ranks > 1 and shape:
        shape = (math.ceil(shape[0] / ranks), *shape[1:])
    return torch.empty(shape, dtype=tensor.dtype, device="meta")


def _gathered(model: nn.Module, how: Precision | None) -> int:
    """Return the bytes of what FSDP holds whole: all that is outside of layers, one layer that runs and the next."""
    layers = [layer for module in model.modules() if isinstance(module, nn.ModuleList) for layer in module]
    sizes = [_bytes(layer.parameters(), how) for layer in layers]
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    outside = _bytes((p for p in model.parameters() if id(p) not in inside), how)
    return outside + sum(sorted(sizes)[-2:])


def _bytes(parameters: Iterable[Tensor], how: Precision | None) -> int:
    return sum(p.numel() * (how.weight if how else p.element_size()) for p in parameters)
