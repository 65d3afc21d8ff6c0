"""One step of compiled kernels: how sections and stages follow each other, and what Python computes between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slalom.algebra import Expr
from slalom.engine.batch import LOSS, Numbers, SharedWrites
from slalom.engine.native.threads import threads

if TYPE_CHECKING:
    from slalom.engine.native.launch import Launch

Members = np.ndarray[Any, np.dtype[np.int64]]


class NativeBatch:
    """A launch on its way through one step."""

    def __init__(self, launch: Launch, numbers: Numbers, clock: float, group: int, *, counts_step: bool = True) -> None:
        self.launch = launch
        self.wiring = launch.kernel.wiring
        self.group = group
        self.done = -1
        self.threads = threads() if launch.parallel else 1
        equal = bool(launch.kernel.tick(launch._T, len(launch.parameters), launch._counts, int(counts_step)))
        counts = launch.counts[:1] if equal and not self.wiring.needs_sizes else launch.counts
        self._begin(counts.tolist(), equal, numbers, clock)
        self.stride = 0 if self.members == [None] else launch.host.shape[1]

    def _begin(self, counts: Sequence[float], equal: bool, numbers: Numbers, clock: float) -> None:
        """Set the host registers: one row serves all tensors that agree in step count and, if it matters, in shape.

        Args:
            counts: the step count of each tensor.
            equal: whether all of them are the same.
            numbers: the hyper-parameters.
            clock: the optimizer's step count.
        """
        wiring, shapes = self.wiring, self.launch.shapes
        self.members: list[Members | None] = [None]
        rows = [(counts[0], shapes[0])]
        if not (equal and (not wiring.needs_sizes or len(set(shapes)) == 1)):
            keys = list(zip(counts, shapes if wiring.needs_sizes else [(0, 0)] * len(counts), strict=True))
            rows = list(dict.fromkeys(keys))
            number_of = {row: place for place, row in enumerate(rows)}
            row_of = np.array([number_of[key] for key in keys])
            self.members = [np.flatnonzero(row_of == place) for place in range(len(rows))]
        state = self.launch.states[0]
        shared = {place: float(state[key]) for key, place in wiring.shared.items()}
        self.registers = [self._registers(count, shape, numbers, clock, shared) for count, shape in rows]

    def _registers(
        self, count: float, shape: tuple[int, int], numbers: Numbers, clock: float, shared: dict[int, float]
    ) -> list[Any]:
        wiring = self.wiring
        registers: list[Any] = [0.0] * len(wiring.place)
        rows, columns = float(shape[0]), float(shape[1])
        loss = float(numbers.get(LOSS, math.nan))
        given = {
            "t": float(count),
            "clock": float(clock),
            "loss": loss,
            "rows": rows,
            "columns": columns,
            "size": rows * columns,
        }
        for name, place in wiring.inputs.items():
            registers[place] = given[name]
        for place, hyper in wiring.hypers:
            registers[place] = float(numbers[hyper])
        for place, value in shared.items():
            registers[place] = value
        return registers

    def crossings(self) -> list[Expr]:
        """Return the reductions over several tensors, in the order in which they depend on each other."""
        return self.wiring.crossed

    def reduce(self, label: str) -> float:
        """Return this batch's share of a reduction, combined in the order of tensors."""
        self._until(self.wiring.levels[label])
        node = self.wiring.crossings[label]
        values = self.launch.scalars[:, self.wiring.layout.scalars[id(node)]]
        return float(values.max() if node.op == "largest" else values.sum())

    def resolve(self, label: str, value: Any) -> None:
        """Take the whole reduction's value."""
        value = float(value)
        place = self.wiring.place[id(self.wiring.crossings[label])]
        for registers in self.registers:
            registers[place] = value

    def finish(self) -> SharedWrites:
        """Run what is left; return what is shared with other batches, to be written last."""
        wiring = self.wiring
        self._until(len(wiring.plan.stages) - 1)
        self._section(len(wiring.plan.stages))
        shared: SharedWrites = []
        for key, value in wiring.plan.writes.items():
            if wiring.plan.states[key].scope != "tensor":
                number = self.registers[0][wiring.place[id(value)]] if isinstance(value, Expr) else value
                shared.append((self.launch.states[0][key], number))
        return shared

    def _until(self, stage: int) -> None:
        t = self.launch
        while self.done < stage:
            self.done += 1
            self._section(self.done)
            t.kernel.stages[self.done](
                t._T, t._H, self.stride, t._S, t._V, t._C, len(t.chunks), t._P, t._Q, self.threads
            )  # fmt: skip

    def _section(self, index: int) -> None:
        """Compute what lies before a stage: host values, then what is small."""
        t, wiring = self.launch, self.wiring
        needed = index < len(wiring.plan.stages) or wiring.busy[index]
        if not needed and not wiring.plan.host[index]:
            return
        for registers, members in zip(self.registers, self.members, strict=True):
            t.kernel.host[index](registers)
            if needed and wiring.out:
                self._fill(members, [registers[place] for place in wiring.out])
        if wiring.busy[index]:
            t.kernel.sections[index](t._T, t._H, self.stride, t._S, t._V, len(t.parameters), self.threads)

    def _fill(self, members: Members | None, values: list[Any]) -> None:
        """Write host values for some tensors, or the one row that serves all."""
        self.launch.host[0 if members is None else members] = values
