"""Programs with matrix operations: equal matrices stacked and multiplied by torch, fused passes before and after.

Matrices of one shape form a *team*, as many as fit into a bounded scratch space, which all teams of a group use in
turn. A team goes through the phases of its program: fused kernels write what torch is to multiply straight into the
stack, torch writes back what the next kernels read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from torch import Tensor

from slalom.algebra import Expr, State
from slalom.engine.batch import Batch, Numbers, SharedWrites
from slalom.engine.fused import Held, planned
from slalom.engine.native.launch import Launch
from slalom.engine.phases import Phase, Phases, cut, needs_phases
from slalom.engine.plan import UnplannableError, array_name
from slalom.engine.program import Program, walk
from slalom.engine.scratch import Scratch, Values, teams
from slalom.engine.stacks import Stack
from slalom.engine.storage import STEP

if TYPE_CHECKING:
    from slalom.engine.triton.launch import TritonLaunch

# Elements that are stacked where that means copying: on a CPU larger matrices are multiplied as fast one by one, where
# they lie; on a GPU every product is a launch, which costs more than the copy.
_MOST_COPIED: Final = {"cpu": 1 << 15, "cuda": 1 << 22}


Maker: TypeAlias = "Callable[[Program, Sequence[Tensor], Sequence[Values]], Launch | TritonLaunch]"


def phased(program: Program) -> Phases:
    """Return the phases of a program.

    Raises:
        UnplannableError: if a fused phase cannot be fused; the message says why.
    """
    found = cut(program)
    for phase in found.phases:
        if phase.kind == "fused":
            planned(phase.program)
        elif any(slot.view == "square" or slot.format == "sign" for slot in phase.program.states.values()):
            raise UnplannableError("signs or square views stand between products of matrices")
        elif phase.program.crossings:
            raise UnplannableError(f"{phase.program.crossings[0].op} reduces products of matrices over several tensors")
    return found


def counts_on_host(program: Program) -> bool:
    """Whether products depend on the step count, so that Python must know it."""
    return needs_phases(program) and any(_reads_count(phase) for phase in phased(program).phases)


def _reads_count(phase: Phase) -> bool:
    nodes = walk(phase.program.writes.values())
    return phase.kind == "matrix" and any(node.op == "input" and node.attrs["name"] in ("t", "clock") for node in nodes)


def _goes_beyond(phase: Phase, scratch: Mapping[str, State]) -> bool:
    """Whether torch itself reads gradients in a phase, or writes anything but scratch."""
    written = phase.program.writes
    reads = any(node.op == "input" and node.attrs["name"] == "g" for node in walk(written.values()))
    return phase.kind == "matrix" and (reads or not written.keys() <= scratch.keys())


def launches(
    program: Program, parameters: Sequence[Tensor], states: Sequence[Values], make: Maker
) -> list[tuple[PhasedLaunch, list[int]]]:
    """Return the teams of these parameters, ready to step, each with the places of its members.

    Args:
        program: what they run.
        parameters: of one dtype and device.
        states: the state of each, by key.
        make: builds what runs a fused phase.
    """
    found = phased(program)
    sorted_places = teams([tuple(parameter.shape) for parameter in parameters], parameters[0].device.type)
    needs = [Scratch(found, parameters[places[0]], len(places)) for places in sorted_places]
    like = parameters[0]

    def arena(size: int) -> Tensor:
        return torch.empty(size, dtype=torch.float32, device=like.device)

    # Teams that wait for each other in the middle of a step cannot take turns.
    shared = None if program.crossings else arena(max(need.size for need in needs))
    made = []
    for places, need in zip(sorted_places, needs, strict=True):
        mine = [parameters[place] for place in places]
        views = need.views(arena(need.size) if shared is None else shared)
        made.append((PhasedLaunch(found, mine, [states[place] for place in places], views, make), places))
    return made


def scratch_bytes(program: Program, parameters: Sequence[Tensor], device: str = "cuda") -> int:
    """Return the bytes of scratch that `launches` would make on a kind of device; parameters need no values."""
    if not needs_phases(program):
        return 0
    try:
        found = phased(program)
    except UnplannableError:
        return 0  # it runs tensor by tensor
    sizes = [
        Scratch(found, parameters[places[0]], len(places)).size
        for places in teams([tuple(parameter.shape) for parameter in parameters], device)
    ]
    return 4 * (sum(sizes) if program.crossings else max(sizes, default=0))


class PhasedLaunch(Held):
    """A team: matrices of one shape with everything that stays equal between steps."""

    def __init__(
        self, phases: Phases, parameters: Sequence[Tensor], states: Sequence[Values], scratch: Values, make: Maker
    ) -> None:
        super().__init__(parameters, states)
        self.phases = phases
        self.contiguous = True  # other matrices are refused before
        self.scratch = scratch
        self.gradients: list[Tensor] = []
        common = {name for name, slot in phases.scratch.items() if slot.scope != "tensor"}
        # no fused phase has anything to do with blocks
        visible = {name: view for name, view in scratch.items() if not phases.scratch[name].block}
        merged = [
            {**state, **{name: view if name in common else view[place] for name, view in visible.items()}}
            for place, state in enumerate(states)
        ]
        self.fused = {
            index: make(phase.program, parameters, merged)
            for index, phase in enumerate(phases.phases)
            if phase.kind == "fused"
        }
        # which phases read what lies outside of scratch, tensor by tensor
        self.copies = [
            any(
                node.op in ("input", "state") and not node.host and array_name(node) not in phases.scratch
                for node in walk(phase.program.writes.values())
            )
            for phase in phases.phases
        ]
        self.apart = [self._keeps_apart(phase) for phase in phases.phases]
        # Scratch that a phase may compute in: it reads it last, and leaves one thing only, which cannot be overwritten.
        self.spent = [
            frozenset(name for name, (_, died) in phases.lives.items() if died == index)
            if apart and len(phase.program.writes) == 1
            else frozenset()
            for index, (phase, apart) in enumerate(zip(phases.phases, self.apart, strict=True))
        ]
        self.counts_on_host = any(map(_reads_count, phases.phases))
        self.kernels_count = not self.counts_on_host and all(launch.unread for launch in self.fused.values())
        # torch knows nothing of scales and overflows: nothing but scratch may pass through its hands
        self.unread = self.kernels_count and not any(_goes_beyond(phase, phases.scratch) for phase in phases.phases)
        self.level_of = {
            node.attrs["label"]: index for index, phase in enumerate(phases.phases) for node in phase.program.crossings
        }

    def _keeps_apart(self, phase: Phase) -> bool:
        """Whether no member's results lie where another's inputs do: in scratch of their own, or in its own inputs'."""
        leaves = {array_name(node) for node in walk(phase.program.writes.values()) if node.op == "state"}
        read = [self.scratch[name] for name in leaves & set(self.scratch)]
        written = [self.scratch[name] for name in set(phase.program.writes) & set(self.scratch)]
        return all(_disjoint(a, b) or (a.data_ptr(), a.shape) == (b.data_ptr(), b.shape) for a in read for b in written)

    def set_gradients(self, gradients: list[Tensor]) -> None:
        """Take this step's gradients."""
        self.gradients = gradients
        for launch in self.fused.values():
            launch.set_gradients(gradients)

    def all_finite(self) -> bool | None:
        """Return whether the gradients that were set are finite; None if no compiled kernel holds them."""
        holder = next((launch for launch in self.fused.values() if isinstance(launch, Launch)), None)
        return None if holder is None else holder.all_finite()

    def batch(self, numbers: Numbers, clock: float, group: int, *, counts_step: bool = True) -> PhasedBatch:
        """Return the batch of one step."""
        return PhasedBatch(self, numbers, clock, group, counts_step=counts_step)


class PhasedBatch:
    """A team on its way through one step."""

    def __init__(self, launch: PhasedLaunch, numbers: Numbers, clock: float, group: int, *, counts_step: bool) -> None:
        self.launch = launch
        self.group = group
        self.numbers = numbers
        self.clock = clock
        self.steps = [state[STEP] for state in launch.states]
        self.ticks = -1  # the phase whose kernels count the step
        if counts_step and launch.counts_on_host and _is_captured(launch.parameters[0]):
            raise RuntimeError(
                "this recipe decides by its step count which matrix products to form, so its step cannot be captured "
                "in a CUDA graph: call step() outside of the capture."
            )
        if counts_step and launch.kernels_count:
            self.ticks = min(launch.fused)
        elif counts_step:
            torch._foreach_add_(self.steps, 1.0)
        self.at = -1
        self.open: Batch | None = None
        self.shared: SharedWrites = []

    def crossings(self) -> list[Expr]:
        """Return the reductions over several tensors, in the order in which they depend on each other."""
        return [node for phase in self.launch.phases.phases for node in phase.program.crossings]

    def reduce(self, label: str) -> Any:
        """Return this team's share of a reduction."""
        self._until(self.launch.level_of[label])
        assert self.open is not None
        return self.open.reduce(label)

    def resolve(self, label: str, value: Any) -> None:
        """Take the whole reduction's value."""
        assert self.open is not None
        self.open.resolve(label, value)

    def finish(self) -> SharedWrites:
        """Run what is left; return what is shared with other batches, to be written last."""
        self._until(len(self.launch.phases.phases))
        return self.shared

    def _until(self, index: int) -> None:
        while self.at < index:
            if self.open is not None:
                self._close(self.open)
            self.at += 1
            if self.at in self.launch.fused:
                fused, ticks = self.launch.fused[self.at], self.at == self.ticks
                self.open = fused.batch(self.numbers, self.clock, self.group, counts_step=ticks)
            elif self.at < len(self.launch.phases.phases):
                self._multiply()

    def _close(self, batch: Batch) -> None:
        self.open = None
        mine = {id(view) for view in self.launch.scratch.values()}
        for target, value in batch.finish():
            if id(target) in mine:
                target.copy_(torch.as_tensor(value, dtype=torch.float64))
            else:
                self.shared.append((target, value))

    @torch.no_grad()
    def _multiply(self) -> None:
        """Run a matrix phase, once for all members that agree in their step count."""
        counts = [float(step) if self.launch.counts_on_host else 0.0 for step in self.steps]
        most = len(counts)
        if self.launch.copies[self.at]:
            like = self.launch.parameters[0]
            most = max(1, _MOST_COPIED.get(like.device.type, _MOST_COPIED["cpu"]) // like.numel())
        stacks = [
            Stack(self, members[first : first + most], count)
            for count in dict.fromkeys(counts)
            for members in [[place for place, one in enumerate(counts) if one == count]]
            for first in range(0, len(members), most)
        ]
        if self.launch.apart[self.at]:  # what belongs together is then still near, and needs memory once
            for stack in stacks:
                stack.leave(stack.compute())
            return
        # All of them read before any writes: what one leaves may lie where another's input is.
        computed = [stack.compute() for stack in stacks]
        for stack, values in zip(stacks, computed, strict=True):
            stack.leave(values)


def _disjoint(a: Tensor, b: Tensor) -> bool:
    """Whether two arrays without gaps have no memory in common."""
    (first_a, last_a), (first_b, last_b) = ((x.data_ptr(), x.data_ptr() + x.nbytes) for x in (a, b))
    return last_a <= first_b or last_b <= first_a


def _is_captured(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


__all__ = ["PhasedLaunch", "counts_on_host", "launches", "phased"]
