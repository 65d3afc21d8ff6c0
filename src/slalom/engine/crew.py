"""Who executes what: the parameters of a group, sorted by executor, with everything that stays equal between steps."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from slalom.engine.batch import Batch, Numbers
from slalom.engine.blocks import Blocks, pieces, places
from slalom.engine.eager import EagerBatch, Work
from slalom.engine.executors import Executor, choose, warn_once
from slalom.engine.foreach import ForeachBatch
from slalom.engine.fused import Held
from slalom.engine.matrices import Maker, PhasedLaunch, counts_on_host, launches
from slalom.engine.native.build import CompileError
from slalom.engine.native.launch import DTYPES, Kernel, Launch, kernel
from slalom.engine.native.rows import RowsLaunch, Scratch, is_local, summed
from slalom.engine.phases import needs_phases
from slalom.engine.program import Program
from slalom.engine.sparse import SparseBatch, Touched, gather
from slalom.engine.storage import STEP, real_view, shares
from slalom.engine.triton.launch import TritonLaunch, triton_kernel


@dataclass(frozen=True)
class Seat:
    """A parameter that takes part in a step.

    Attributes:
        index: its place in the group.
        program: what it runs.
        original: the parameter as the user gave it.
        parameter: the same as real values, or one block of it.
        state: its tensors by key, "step" among them, or the block's shares of them.
        sparse: whether its gradient is.
        block: where the block lies in the parameter and its gradient; None where it is whole.
        whole: the parameter's state, of which the first block has the step count itself, the others a copy.
        scratch: memory that its rows are worked on with.
        rows: which rows of a whole table it is, if it is a block of touched ones.
    """

    index: int
    program: Program
    original: Tensor
    parameter: Tensor
    state: dict[str, Tensor]
    sparse: bool = False
    block: slice | int | None = None
    whole: dict[str, Tensor] | None = None
    scratch: Scratch = field(default_factory=Scratch)
    rows: Tensor | None = None

    def gradient(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Return its gradient among those of the group."""
        found = gradients[self.index]
        assert found is not None
        return found if self.block is None else found[self.block]


def seats_of_blocks(
    index: int, program: Program, original: Tensor, parameter: Tensor, state: dict[str, Tensor], blocks: Blocks
) -> list[Seat]:
    """Return a seat for each block of a parameter; arguments as in `Seat`."""
    parameter = parameter.detach()  # views of it are no business of autograd's
    cut = {key: shares(state[key], slot, parameter, blocks) for key, slot in program.states.items()}
    seats = []
    for number, (place, piece) in enumerate(
        zip(places(parameter.shape[0], blocks), pieces(parameter, blocks), strict=True)
    ):
        own = {STEP: state[STEP].clone() if number else state[STEP]}
        own |= {key: views[number] for key, views in cut.items()}
        seats.append(Seat(index, program, original, piece, own, block=place, whole=state))
    return seats


def _count_where_it_is_used(seat: Seat, name: str) -> None:
    """Keep a step count on the GPU where kernels read it there, on the host where Python does."""
    on_gpu = name == "triton" and not counts_on_host(seat.program)
    home = seat.parameter.device if on_gpu else torch.device("cpu")
    if seat.state[STEP].device != home:
        seat.state[STEP] = seat.state[STEP].to(home)


_DTYPE: Final = operator.attrgetter("dtype")


class Crew:
    """The parameters of a group that have a gradient, ready to step as long as nothing about them changes."""

    def __init__(self, seats: Sequence[Seat], group: int, executor: Executor) -> None:
        self.group = group
        self.seats = list(seats)
        self.executor: Executor = executor
        self.sparse = [seat for seat in seats if seat.sparse]  # their blocks are other tensors at every step
        first = {seat.index: seat for seat in reversed(self.seats)}  # a parameter's blocks have a seat each
        firsts = [first[index] for index in sorted(first)]
        self._sparse_places = [place for place, seat in enumerate(firsts) if seat.sparse]
        self.parameters = [seat.original for seat in firsts]
        self._taken: Sequence[Tensor | None] | None = None
        self._contiguous = False  # until `holds` has looked at this step's gradients
        self.needs_clock = any(seat.program.needs_clock for seat in seats)
        self.needs_loss = any(seat.program.needs_loss for seat in seats)
        self.others: list[tuple[type[EagerBatch], list[Seat]]] = []
        self.launches: list[tuple[Launch | TritonLaunch | PhasedLaunch, list[Seat]]] = []
        sorted_seats: dict[tuple[int, str], list[Seat]] = {}
        for seat in seats:
            if seat.parameter.numel() and not seat.sparse:
                name, _ = choose(seat.program, seat.parameter, executor)
                _count_where_it_is_used(seat, name)
                sorted_seats.setdefault(
                    (id(seat.program), f"{name} {seat.parameter.dtype} {seat.parameter.device}"), []
                ).append(seat)
        self.empty = [seat for seat in seats if not seat.parameter.numel() and not seat.sparse]
        self._cut = _Cut(firsts, self.seats) if any(seat.whole is not None for seat in firsts) else None
        for (_, name), members in sorted_seats.items():
            if name.startswith(("native", "triton")):
                self._launch(members, _make_triton if name.startswith("triton") else _make_native, executor)
            else:
                self.others.append((ForeachBatch if name.startswith("foreach") else EagerBatch, members))
        # Whether a step reads nothing on the host, so that its numbers may be tensors that wait on the device.
        self.unread = not (self.others or self.sparse or self.empty) and all(one.unread for one, _ in self.launches)

    def _launch(self, members: list[Seat], make: Maker, executor: Executor) -> None:
        """Prepare kernels for these parameters; where the compiler fails, lists of torch operations."""
        program = members[0].program
        parameters, states = [seat.parameter for seat in members], [seat.state for seat in members]
        try:
            if needs_phases(program):
                for team, places in launches(program, parameters, states, make):
                    self.launches.append((team, [members[place] for place in places]))
            else:
                self.launches.append((make(program, parameters, states), members))
        except CompileError as error:
            if executor in ("native", "triton"):
                raise
            warn_once(f"{error} Steps run as lists of torch operations instead.")
            for member in members:
                _count_where_it_is_used(member, "foreach")
            self.others.append((ForeachBatch, members))

    def holds(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> bool:
        """Whether these are the same parameters, with gradients for the same ones, at the same places in memory."""
        present = parameters
        if not all(map(operator.is_not, gradients, repeat(None))):
            present = [p for p, g in zip(parameters, gradients, strict=True) if g is not None]
            gradients = [g for g in gradients if g is not None]
        found = cast("Sequence[Tensor]", gradients)
        self._contiguous = all(map(torch.Tensor.is_contiguous, found))
        if self.sparse or not self._contiguous:
            sparse = [] if self._contiguous else [place for place, grad in enumerate(found) if grad.is_sparse]
            if sparse != self._sparse_places:
                return False  # whoever seats the next crew refuses what cannot be used with a sentence
        return (
            len(present) == len(self.parameters)
            and all(map(operator.is_, present, self.parameters))
            and all(launch.still_holds() for launch, _ in self.launches)
            and (self._cut is None or self._cut.still_holds())
        )

    def _take(self, gradients: Sequence[Tensor | None]) -> None:
        """Give the launches this step's gradients, once."""
        if self._taken is gradients:
            return
        self._taken = gradients
        for launch, seats in self.launches:
            found: list[Any]
            if self._cut is None:  # a thousand tensors are looked at in every step
                found = [gradients[seat.index] for seat in seats]
            else:
                found = [seat.gradient(gradients) for seat in seats]
            same = all(map(operator.is_, map(_DTYPE, found), repeat(seats[0].parameter.dtype)))
            if not (launch.contiguous and self._contiguous and same):
                found = [_aligned(gradient, seat.parameter) for gradient, seat in zip(found, seats, strict=True)]
            launch.set_gradients(found)

    def let_go(self) -> None:
        """Forget this step's gradients, whose memory may be wanted before the next one."""
        self._taken = None
        for launch, _ in self.launches:
            launch.gradients = []
            for fused in launch.fused.values() if isinstance(launch, PhasedLaunch) else ():
                fused.gradients = []

    def looked_at(self, gradients: Sequence[Tensor | None]) -> tuple[bool, list[Tensor | None]]:
        """Return whether the gradients of compiled kernels are finite, and the gradients of all others.

        The kernels' tables hold the addresses already, so that looking costs one pass over memory and nothing else.
        """
        self._take(gradients)
        fine, rest = True, [seat for _, seats in self.others for seat in seats] + self.sparse
        for launch, seats in self.launches:
            answer = launch.all_finite() if isinstance(launch, (Launch, PhasedLaunch)) else None
            fine &= answer is not False
            rest += seats if answer is None else []
        return fine, [gradients[index] for index in dict.fromkeys(seat.index for seat in rest)]

    def batches(self, gradients: Sequence[Tensor | None], numbers: Numbers, clock: Any) -> list[Batch]:
        """Return this step's batches.

        Args:
            gradients: of all parameters of the group; None where there is none.
            numbers: the hyper-parameters, and the loss.
            clock: the optimizer's step count; a tensor where step counts are on a GPU.
        """
        made: list[Batch] = []
        if self._cut is not None:
            self._cut.count_alike()
        for seat in self.empty:
            seat.state[STEP] += 1.0
        self._take(gradients)
        for launch, _ in self.launches:
            increment_version(launch.parameters)  # compiled code writes where autograd does not look
            made.append(launch.batch(numbers, clock, self.group))
        for batch, seats in self.others:
            works = []
            for seat in seats:
                seat.state[STEP] += 1.0
                gradient = real_view(seat.gradient(gradients))
                t = float(seat.state[STEP])
                where = (float(clock), self.group, seat.rows)
                works.append(Work(seat.program, seat.parameter, gradient, seat.state, numbers, t, *where))
            made.append(batch(works))
        if self.sparse:
            made += self._sparse_batches(gradients, numbers, clock)
        return made

    def _sparse_batches(self, gradients: Sequence[Tensor | None], numbers: Numbers, clock: Any) -> list[Batch]:
        """Return the batches of the rows that sparse gradients touch."""
        made: list[Batch] = []
        blocks: dict[int, list[tuple[Seat, Touched]]] = {}
        for seat in self.sparse:
            rows, values = summed(seat.gradient(gradients), seat.scratch)
            if not len(rows):
                seat.state[STEP] += 1.0
                continue
            values = real_view(values).contiguous()
            compiled = self._row_kernel(seat)
            if compiled is not None:
                increment_version([seat.parameter])
                launch = RowsLaunch(compiled, seat.parameter, seat.state, rows, values, seat.scratch)
                made.append(launch.batch(numbers, clock, self.group))
                continue
            touched = gather(seat.program, seat.parameter, seat.state, rows, values)
            place = len(blocks.setdefault(id(seat.program), []))
            block = Seat(place, seat.program, touched.parameter, touched.parameter, touched.state, rows=rows)
            blocks[id(seat.program)].append((block, touched))
        for members in blocks.values():
            # rows that change from step to step are no reason to make tables of addresses on a GPU
            first = members[0][0]
            executor: Executor = self.executor if first.parameter.device.type == "cpu" else "foreach"
            # and kernels count elements in the block, not in the table
            executor = "eager" if first.program.needs_positions else executor
            crew = Crew([block for block, _ in members], self.group, executor)
            inner = crew.batches([touched.grad for _, touched in members], numbers, clock)
            # they finish in this order, and the last writes all rows back
            made += [*inner[:-1], SparseBatch(inner[-1], [touched for _, touched in members])]
        return made

    def _row_kernel(self, seat: Seat) -> Kernel | None:
        """Return the kernel that can run on single rows where they lie, None if they must be gathered."""
        tensors = [seat.parameter, *seat.state.values()]
        if seat.parameter.ndim < 2 or not is_local(seat.program) or not all(map(Tensor.is_contiguous, tensors)):
            return None
        name, _ = choose(seat.program, seat.parameter, self.executor)
        if name != "native":
            return None
        try:
            return kernel(seat.program, DTYPES[seat.parameter.dtype])
        except CompileError:
            if self.executor == "native":
                raise
            return None


class _Cut(Held):
    """The parameters that are cut into blocks, whose views must be made anew when they are exchanged."""

    def __init__(self, firsts: Sequence[Seat], seats: Sequence[Seat]) -> None:
        cut = {seat.index: (seat, seat.whole) for seat in firsts if seat.whole is not None}
        for seat, whole in cut.values():
            whole[STEP] = seat.state[STEP]  # it may have moved to where it is read
        super().__init__([seat.original for seat, _ in cut.values()], [whole for _, whole in cut.values()])
        others = [seat for seat in seats if seat.index in cut and seat is not cut[seat.index][0]]
        self.copies = [seat.state[STEP] for seat in others]
        self.counts = [cut[seat.index][1][STEP] for seat in others]

    def count_alike(self) -> None:
        """Let the blocks of a parameter agree with it, whatever its count was set to."""
        if self.copies:
            torch._foreach_copy_(self.copies, self.counts)


def _make_native(program: Program, parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> Launch:
    return Launch(kernel(program, DTYPES[parameters[0].dtype]), parameters, states)


def _make_triton(program: Program, parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> TritonLaunch:
    return TritonLaunch(triton_kernel(program, DTYPES[parameters[0].dtype]), parameters, states)


def _aligned(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return the gradient with its elements in the order and dtype of the parameter's, as it is if it can be."""
    gradient = real_view(gradient)
    if gradient.dtype != parameter.dtype:
        return torch.empty_like(parameter).copy_(gradient)
    if gradient.stride() == parameter.stride() or (gradient.is_contiguous() and parameter.is_contiguous()):
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


__all__ = ["Crew", "Seat", "seats_of_blocks"]
