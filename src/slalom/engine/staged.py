"""How a plan's sections and stages follow each other where Python computes what is small: around C on a CPU."""

from __future__ import annotations

import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor

from slalom.algebra import Expr
from slalom.engine.batch import LOSS, Numbers, SharedWrites
from slalom.engine.emit import supports
from slalom.engine.plan import Plan, UnplannableError, on_host, plan
from slalom.engine.program import Program, walk
from slalom.engine.tables import Layout, lay_out

Members = np.ndarray[Any, np.dtype[np.int64]]


@functools.lru_cache(maxsize=256)
def planned(program: Program) -> Plan:
    """Return the plan of a program.

    Raises:
        UnplannableError: if no fused stage can hold it; the message says why.
    """
    found = plan(program)
    reason = supports(found)
    if reason is not None:
        raise UnplannableError(reason)
    return found


@dataclass(frozen=True, eq=False)
class Wiring:
    """How the host side of a plan is connected: a list of registers, one for each value known on the host.

    Attributes:
        plan: the plan.
        layout: where values lie in the tables that kernels read.
        place: the register of each host value, by identity.
        inputs: registers of "t", "clock", the loss and the sizes.
        hypers: registers of the hyper-parameters, with their names.
        shared: registers of the states that tensors have in common, by key.
        crossings: the reductions over several tensors, by label.
        levels: the stage that computes each of them.
        out: for each column of the host table, its register.
        busy: which sections have anything to compute on the device.
    """

    plan: Plan
    layout: Layout
    place: dict[int, int]
    inputs: dict[str, int]
    hypers: list[tuple[int, tuple[str, int | None]]]
    shared: dict[str, int]
    crossings: dict[str, Expr]
    levels: dict[str, int]
    out: list[int]
    busy: tuple[bool, ...]

    @functools.cached_property
    def crossed(self) -> list[Expr]:
        """The reductions over several tensors, in order."""
        return list(self.crossings.values())

    @functools.cached_property
    def needs_sizes(self) -> bool:
        """Whether host values differ between tensors of different shape."""
        return any(name in self.inputs for name in ("rows", "columns", "size"))


@functools.lru_cache(maxsize=256)
def wire(program: Program) -> Wiring:
    """Connect the host side of a program's plan.

    Raises:
        UnplannableError: if the program cannot be fused.
    """
    found = planned(program)
    at = lay_out(found)
    every = [node for stage in found.stages for node in (*stage.values, *stage.reductions)]
    roots = [*found.all_small(), *chain.from_iterable(found.host), *every, *found.writes.values(), found.result]
    roots += [value for stage in found.stages for value in stage.stores.values()]
    nodes = [node for node in walk(roots) if on_host(node)]
    place = {id(node): index for index, node in enumerate(nodes)}
    crossings = [(stage.index, node) for stage in found.stages for node in stage.reductions if "label" in node.attrs]
    stores_small = any(found.states[key].scope == "tensor" for key in found.writes)
    last = len(found.small) - 1
    return Wiring(
        plan=found,
        layout=at,
        place=place,
        inputs={node.attrs["name"]: place[id(node)] for node in nodes if node.op == "input"},
        hypers=[(place[id(n)], (n.attrs["name"], n.attrs["index"])) for n in nodes if n.op == "hyper"],
        shared={node.attrs["key"]: place[id(node)] for node in nodes if node.op == "state"},
        crossings={node.attrs["label"]: node for _, node in crossings},
        levels={node.attrs["label"]: level for level, node in crossings},
        out=[place[key] for key, _ in sorted(at.host.items(), key=lambda item: item[1])],
        busy=tuple(bool(small) or (index == last and stores_small) for index, small in enumerate(found.small)),
    )


class Held:
    """The tensors that a launch has the addresses of.

    Attributes:
        unread: whether a step reads nothing on the host, so that numbers may be tensors that wait on the device.
    """

    unread: bool = False

    def __init__(self, parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> None:
        self.parameters = list(parameters)
        self.states = list(states)
        self.kept = [tensor for state in self.states for tensor in state.values()]
        self.addresses = [parameter.data_ptr() for parameter in self.parameters]

    def still_holds(self) -> bool:
        """Whether every tensor is where it was when the table was made."""
        # A thousand tensors are looked at in every step: all loops here are C's.
        now = list(chain.from_iterable(map(dict.values, self.states)))
        return (
            len(now) == len(self.kept)
            and all(map(operator.is_, now, self.kept))
            and list(map(Tensor.data_ptr, self.parameters)) == self.addresses
        )


class StagedBatch(ABC):
    """Parameters of one group that run one plan, on their way through a step."""

    def __init__(
        self, wiring: Wiring, shapes: Sequence[tuple[int, int]], states: Sequence[dict[str, Tensor]], group: int
    ) -> None:
        self.wiring = wiring
        self.shapes = shapes
        self.states = states
        self.group = group
        self.done = -1

    def begin(self, counts: Sequence[float], equal: bool, numbers: Numbers, clock: float) -> None:
        """Set the host registers: one row serves all tensors that agree in step count and, if it matters, in shape.

        Args:
            counts: the step count of each tensor.
            equal: whether all of them are the same.
            numbers: the hyper-parameters.
            clock: the optimizer's step count.
        """
        wiring = self.wiring
        self.members: list[Members | None] = [None]
        rows = [(counts[0], self.shapes[0])]
        if not (equal and (not wiring.needs_sizes or len(set(self.shapes)) == 1)):
            keys = list(zip(counts, self.shapes if wiring.needs_sizes else [(0, 0)] * len(counts), strict=True))
            rows = list(dict.fromkeys(keys))
            number_of = {row: place for place, row in enumerate(rows)}
            row_of = np.array([number_of[key] for key in keys])
            self.members = [np.flatnonzero(row_of == place) for place in range(len(rows))]
        shared = {place: self.shared_value(self.states[0][key]) for key, place in wiring.shared.items()}
        self.registers = [self._registers(count, shape, numbers, clock, shared) for count, shape in rows]

    def _registers(
        self, count: float, shape: tuple[int, int], numbers: Numbers, clock: float, shared: dict[int, Any]
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

    @abstractmethod
    def shared_value(self, state: Tensor) -> Any:
        """Return a state that tensors have in common as this executor's host side computes with it."""

    @abstractmethod
    def host(self, index: int, registers: list[Any]) -> None:
        """Compute the host values of a section in one row of registers."""

    @abstractmethod
    def fill(self, members: Members | None, values: list[Any]) -> None:
        """Write one row of host values into the table, for some tensors or for all."""

    @abstractmethod
    def section(self, index: int) -> None:
        """Compute what is small."""

    @abstractmethod
    def stage(self, index: int) -> None:
        """Make one pass over all elements."""

    @abstractmethod
    def column(self, place: int, op: str) -> Any:
        """Return the sum, or maximum, of a column of the scalar table."""

    def crossings(self) -> list[Expr]:
        """Return the reductions over several tensors, in the order in which they depend on each other."""
        return self.wiring.crossed

    def reduce(self, label: str) -> Any:
        """Return this batch's share of a reduction."""
        self._until(self.wiring.levels[label])
        node = self.wiring.crossings[label]
        return self.column(self.wiring.layout.scalars[id(node)], node.op)

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
                shared.append((self.states[0][key], number))
        return shared

    def _until(self, stage: int) -> None:
        while self.done < stage:
            self.done += 1
            self._section(self.done)
            self.stage(self.done)

    def _section(self, index: int) -> None:
        """Compute what lies before a stage: host values, then what is small."""
        needed = index < len(self.wiring.plan.stages) or self.wiring.busy[index]
        if not needed and not self.wiring.plan.host[index]:
            return
        for registers, members in zip(self.registers, self.members, strict=True):
            self.host(index, registers)
            if needed and self.wiring.out:
                self.fill(members, [registers[place] for place in self.wiring.out])
        if self.wiring.busy[index]:
            self.section(index)
