"""The reference executor: a program node by node in torch, one parameter at a time.

Everything else is compared with this. It serves every dtype and device; it is not meant to be fast.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slalom.algebra import OPS, Expr, State
from slalom.engine.batch import LOSS, Numbers, SharedWrites
from slalom.engine.program import Program
from slalom.engine.storage import computed_dtype, matrix_shape, packed, positions, seen, unpacked


@dataclass
class Work:
    """One parameter's share of a step.

    Attributes:
        program: what to run.
        parameter: real-valued, updated in place; its gradient has the same shape and is never written to.
        grad: the gradient.
        state: the tensors that the program's states live in, by key; updated in place.
        numbers: the hyper-parameters, by name and place, and the loss.
        t: the parameter's step count, from 1.
        clock: the optimizer's step count.
        group: which parameter group it is in.
        rows: which rows of the whole parameter these are, where it is a block of some.
    """

    program: Program
    parameter: Tensor
    grad: Tensor
    state: Mapping[str, Tensor]
    numbers: Numbers
    t: float
    clock: float
    group: int
    rows: Tensor | None = None


def _in_view(kept: Tensor, slot: State, parameter: Tensor) -> Tensor:
    """Return a state as formulas see it."""
    shape = seen(slot, parameter)
    tensor = unpacked(kept, shape[1], computed_dtype(parameter)) if slot.format == "sign" else kept
    return tensor if slot.per in ("tensor", "group", "model") else tensor.reshape(shape)


Step = tuple[int, Callable[..., Any], tuple[int, ...]]


class Tape:
    """A program laid out for evaluation: numbered registers, host steps, and tensor steps per choice of branches."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes = program.nodes
        self.place: dict[int, int] = {id(node): index for index, node in enumerate(self.nodes)}
        self.template: list[Any] = [None] * len(self.nodes)
        self.inputs: dict[str, int] = {}
        self.states: dict[str, int] = {}
        self.hypers: list[tuple[int, tuple[str, int | None]]] = []
        self.host: list[Step] = []
        self.steps: dict[int, Step] = {}  # tensor operations, by the place of their result
        self.choices: list[int] = []  # places of the host conditions that choose between tensors
        for index, node in enumerate(self.nodes):
            if node.op == "input":
                self.inputs[node.attrs["name"]] = index
            elif node.op == "state":
                self.states[node.attrs["key"]] = index
            elif node.op == "hyper":
                self.hypers.append((index, (node.attrs["name"], node.attrs["index"])))
            elif node.host:
                compute = OPS[node.op].numbers
                assert compute is not None
                self.host.append((index, compute, self.operands(node)))
            else:
                self.steps[index] = (index, self.call(node), self.operands(node))
                if self._chooses(node):
                    self.choices.append(self.steps[index][2][0])
        self.result = self.operand(program.result)
        self.writes = [(key, self.operand(value)) for key, value in program.writes.items()]
        # New values that are other states as they were: kept aside, since states are overwritten one after the other.
        self.moved = {
            place
            for place in (self.result, *(place for _, place in self.writes))
            if place < len(self.nodes) and _may_be_a_state(self.nodes[place])
        }

    def call(self, node: Expr) -> Callable[..., Any]:
        """Return what computes an operation on tensors."""
        tensors = OPS[node.op].tensors
        return functools.partial(tensors, **node.attrs) if node.attrs else tensors

    @staticmethod
    def _chooses(node: Expr) -> bool:
        condition = node.args[0] if node.op == "where" else None
        return isinstance(condition, Expr) and condition.host and not node.host

    def operand(self, arg: Expr | float) -> int:
        """Return the place of a value."""
        if isinstance(arg, Expr):
            return self.place[id(arg)]
        self.template.append(arg)
        return len(self.template) - 1

    def operands(self, node: Expr) -> tuple[int, ...]:
        """Return the places of an operation's arguments."""
        return tuple(self.operand(arg) for arg in node.args)

    @functools.lru_cache(maxsize=64)  # noqa: B019  (a tape lives as long as its program)
    def route(self, outcomes: tuple[bool, ...], roots: tuple[int, ...], known: frozenset[int]) -> list[Step]:
        """Return the steps that lead to ``roots`` under these outcomes of the host conditions, and no others."""
        decided = dict(zip(self.choices, outcomes, strict=True))
        route: list[Step] = []
        done: set[int] = set(known)

        def visit(index: int) -> None:
            if index in done or index not in self.steps:
                return
            done.add(index)
            step = self.steps[index]
            if self._chooses(self.nodes[index]):
                condition, a, b = step[2]
                chosen = a if decided[condition] else b
                visit(chosen)
                route.append((index, _same, (chosen,)))
                return
            for operand in step[2]:
                visit(operand)
            route.append(step)

        for root in roots:
            visit(root)
        return route

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def busy(self, outcomes: tuple[bool, ...]) -> list[tuple[str, int]]:
        """Return the writes that change something: under these outcomes some states stay as they are."""
        decided = dict(zip(self.choices, outcomes, strict=True))

        def source(index: int) -> int:
            node = self.nodes[index] if index < len(self.nodes) else None
            if node is not None and node.op == "let":
                return source(self.steps[index][2][0]) if index in self.steps else index
            if node is not None and self._chooses(node):
                condition, a, b = self.steps[index][2]
                return source(a if decided[condition] else b)
            return index

        return [(key, place) for key, place in self.writes if source(place) != self.states.get(key)]


def _same(value: Any) -> Any:
    return value


def _may_be_a_state(node: Expr) -> bool:
    """Whether a value can be a state's own tensor, not a copy of it."""
    if node.op in ("let", "where"):
        return any(_may_be_a_state(arg) for arg in node.args if isinstance(arg, Expr))
    return node.op == "state"


@functools.lru_cache(maxsize=512)
def _tape(program: Program) -> Tape:
    return Tape(program)


class Run:
    """One parameter on its way through a step."""

    def __init__(self, work: Work, cache: dict[Any, list[Any]], tape: Tape | None = None) -> None:
        self.work = work
        self.tape = tape or _tape(work.program)
        self.shape = matrix_shape(work.parameter)
        sizes = self.shape if work.program.needs_sizes else None
        key = (id(self.tape), work.group, work.t, work.clock, sizes)
        registers = cache.get(key)
        if registers is None:
            registers = cache[key] = self._host_values()
        self.base = list(registers)
        self.outcomes = tuple(bool(registers[place]) for place in self.tape.choices)
        self.crossed: dict[int, Any] = {}

    def _host_values(self) -> list[Any]:
        tape, work = self.tape, self.work
        registers = list(tape.template)
        rows, columns = self.shape
        loss = work.numbers.get(LOSS, math.nan)
        given = {
            "t": work.t,
            "clock": work.clock,
            "loss": loss,
            "rows": rows,
            "columns": columns,
            "size": rows * columns,
        }
        for name, place in tape.inputs.items():
            if name in given:
                registers[place] = float(given[name])
        for place, hyper in tape.hypers:
            registers[place] = float(work.numbers[hyper])
        for place, compute, operands in tape.host:
            registers[place] = compute(*(registers[operand] for operand in operands))
        return registers

    def inputs(self) -> list[Any]:
        """Return registers with all that is given: host values, tensors as they are now, completed reductions."""
        tape, work = self.tape, self.work
        registers = list(self.base)
        dtype = computed_dtype(work.parameter)
        view = work.program.needs_matrix_view
        for name, tensor in (("w", work.parameter), ("g", work.grad)):
            if name in tape.inputs:
                operand = tensor.to(dtype)
                registers[tape.inputs[name]] = operand.reshape(self.shape) if view else operand
        if "position" in tape.inputs:
            shape = self.shape if view else tuple(work.parameter.shape)
            registers[tape.inputs["position"]] = positions(shape, work.parameter.device, work.rows)
        for key, place in tape.states.items():
            state = work.state[key]
            if work.program.states[key].scope != "tensor":
                state = state.to(dtype)  # kept in double
            registers[place] = _in_view(state, work.program.states[key], work.parameter) if view else state
        for place, value in self.crossed.items():
            registers[place] = value
        return registers

    def evaluate(self, roots: tuple[int, ...]) -> list[Any]:
        """Return the registers with ``roots`` computed."""
        registers = self.inputs()
        for place, compute, operands in self.tape.route(self.outcomes, roots, frozenset(self.crossed)):
            registers[place] = compute(*[registers[operand] for operand in operands])
        return registers

    def roots(self) -> tuple[int, ...]:
        """Return the places of all that a step writes."""
        return (*(place for _, place in self.tape.busy(self.outcomes)), self.tape.result)

    def store(self, registers: list[Any]) -> SharedWrites:
        """Write the parameter and its own state; return what is shared with other parameters, to be written last."""
        tape, work = self.tape, self.work
        shared: SharedWrites = []
        writes = tape.busy(self.outcomes)
        for place in tape.moved & {tape.result, *(place for _, place in writes)}:
            registers[place] = registers[place].clone() if isinstance(registers[place], Tensor) else registers[place]
        for key, place in writes:
            target, value = work.state[key], registers[place]
            slot = work.program.states[key]
            if slot.format == "sign":
                target.copy_(packed(_whole(value, matrix_shape(work.parameter, slot.view), target)))
            elif slot.scope == "tensor":
                _store(target, value)
            else:
                shared.append((target, value))
        _store(work.parameter, registers[tape.result])
        return shared


def _whole(value: Any, shape: tuple[int, int], like: Tensor) -> Tensor:
    """Return a value, which may be one for all elements, with one per element."""
    return torch.as_tensor(value, device=like.device).expand(shape)


def _store(target: Tensor, value: Any) -> None:
    if isinstance(value, Tensor):
        target.copy_(value.reshape(target.shape) if value.numel() == target.numel() else value)
    else:
        target.copy_(torch.as_tensor(value, dtype=torch.float64))


class EagerBatch:
    """Parameters of one group that run one program, one after the other."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.group = works[0].group
        cache: dict[Any, list[Any]] = {}
        self.runs = [Run(work, cache) for work in works if work.parameter.numel()]
        self.nodes = {node.attrs["label"]: node for node in works[0].program.crossings}

    def crossings(self) -> list[Expr]:
        """Return the reductions over several tensors; empty parameters have no part in them."""
        return list(self.nodes.values()) if self.runs else []

    @torch.no_grad()
    def reduce(self, label: str) -> Tensor:
        """Return the reduction over these parameters."""
        values = []
        for run in self.runs:
            place = run.tape.place[id(self.nodes[label])]
            values.append(run.evaluate((place,))[place].to(self.runs[0].work.parameter.device))
        stacked = torch.stack(values)
        return stacked.amax() if self.nodes[label].op == "largest" else stacked.sum()

    def resolve(self, label: str, value: Any) -> None:
        """Take the value over all batches."""
        for run in self.runs:
            like = run.work.parameter
            run.crossed[run.tape.place[id(self.nodes[label])]] = torch.as_tensor(
                value, dtype=computed_dtype(like), device=like.device
            )

    @torch.no_grad()
    def finish(self) -> SharedWrites:
        """Write parameters and their own state; return what is shared."""
        return [write for run in self.runs for write in run.store(run.evaluate(run.roots()))]


@torch.no_grad()
def read(work: Work) -> Tensor:
    """Return the program's result without writing anything."""
    run = Run(work, {})
    value = run.evaluate((run.tape.result,))[run.tape.result]
    result = torch.empty_like(work.parameter)
    _store(result, value)
    return result
