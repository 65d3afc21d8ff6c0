"""The host side of a plan: which values Python computes between passes, and where kernels find them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import chain

from slalom.algebra import Expr
from slalom.engine.fused import planned
from slalom.engine.plan import Plan, on_host
from slalom.engine.program import Program, walk
from slalom.engine.tables import Layout, lay_out


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
