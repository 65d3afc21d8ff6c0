"""One step of Triton kernels: sections and stages in turn, and the reductions over several tensors between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slalom.algebra import Expr
from slalom.engine.batch import LOSS, OVERFLOW, UNSCALE, Numbers, SharedWrites
from slalom.engine.storage import STEP

if TYPE_CHECKING:
    from slalom.engine.triton.launch import TritonLaunch


class TritonBatch:
    """A launch on its way through one step."""

    def __init__(
        self, launch: TritonLaunch, numbers: Numbers, clock: Any, group: int, *, counts_step: bool = True
    ) -> None:
        self.launch = launch
        self.kernel = launch.kernel
        self.group = group
        self.done = -1
        self.tick = int(counts_step)
        self.may_overflow = OVERFLOW in numbers
        if launch.mirrored is not None:  # counted on the host already
            launch._copy(launch.mirrored, [float(state[STEP]) for state in launch.states], torch.float32)
        given = {"clock": clock, "loss": numbers.get(LOSS, float("nan"))}
        values: list[Any] = []
        for leaf in self.kernel.places.leaves:
            if leaf.op == "hyper":
                values.append(numbers[leaf.attrs["name"], leaf.attrs["index"]])
            elif leaf.op == "state":
                values.append(launch.states[0][leaf.attrs["key"]])
            else:
                values.append(given.get(leaf.attrs.get("name", ""), 0.0))  # reductions come later
        launch.set_numbers([*values, numbers.get(UNSCALE, 1.0), numbers.get(OVERFLOW, 0.0)])

    def crossings(self) -> list[Expr]:
        """Return the reductions over several tensors, in the order in which they depend on each other."""
        return [node for _, node in self.kernel.crossings.values()]

    def reduce(self, label: str) -> Tensor:
        """Return this batch's share of a reduction."""
        stage, node = self.kernel.crossings[label]
        self._until(stage)
        values = self._column(node)
        return values.amax() if node.op == "largest" else values.sum()

    def _column(self, node: Expr) -> Tensor:
        scalars = self.kernel.places.scalars
        return self.launch.S.view(len(self.launch.parameters), -1)[:, scalars[id(node)]]

    def resolve(self, label: str, value: Any) -> None:
        """Take the whole reduction's value."""
        number = self.launch.N[self.kernel.places.numbers[id(self.kernel.crossings[label][1])]]
        number.copy_(torch.as_tensor(value, dtype=torch.float64))

    def finish(self) -> SharedWrites:
        """Run what is left; return what is shared with other batches, to be written last."""
        plan, places, numbers = self.kernel.plan, self.kernel.places, self.launch.N
        self._until(len(plan.stages) - 1)
        self._section(len(plan.stages))
        shared: SharedWrites = []
        for key, value in plan.writes.items():
            if plan.states[key].scope != "tensor":
                found: Any = value
                if isinstance(value, Expr):
                    number = places.numbers.get(id(value))
                    found = self._column(value)[0] if number is None else numbers[number]
                target = self.launch.states[0][key]
                if self.may_overflow:
                    found = torch.where(numbers[places.overflow] == 0, found, target)
                shared.append((target, found))
        return shared

    def _until(self, stage: int) -> None:
        while self.done < stage:
            self.done += 1
            self._section(self.done)
            self.launch.run_stage(self.done)

    def _section(self, index: int) -> None:
        # the first one counts the step
        tick = self.tick if index == 0 else 0
        if self.kernel.busy[index] or tick:
            self.launch.run_section(index, tick)
