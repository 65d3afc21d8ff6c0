"""Sparse rows that do exactly what dense ones would: the steps they missed are made up for before they are read.

Most recipes move rows that have no gradient: averages fade, momentum goes on, decay and growing penalties pull. To
update touched rows only is another algorithm then. `replay` makes it the same one again: just before a layer reads a
row, the row takes the steps that it missed, with a gradient of 0 and the hyper-parameters of those steps.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from slalom.engine import STEP, Program, Work, fresh, run
from slalom.engine.eager import EagerBatch
from slalom.engine.sparse import row_obstacle
from slalom.optimizer import Optimizer
from slalom.recipes.blueprint import numbers

_Numbers = Mapping[tuple[str, int | None], float]


@dataclass
class _Table:
    """A parameter whose rows are read one by one.

    Attributes:
        parameter: the table.
        place: its group.
        last: the last step that each row has taken.
        history: what ran at each step after ``since``.
        since: the step up to which all rows are known to have come.
    """

    parameter: Tensor
    place: int
    last: Tensor
    history: list[tuple[Program, _Numbers]] = field(default_factory=list)
    since: int = 0


class Replay:
    """Keeps the tables of a model as dense steps would have them; made by `replay`."""

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        self._optimizer = optimizer
        self._tables: dict[Tensor, _Table] = {}
        self._handles: list[RemovableHandle] = []
        places = {p: place for place, group in enumerate(optimizer.param_groups) for p in group["params"]}
        for name, module in model.named_modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse and module.weight in places:
                self._watch(name, module, places[module.weight])
        if not self._tables:
            raise ValueError(
                "this model has no nn.Embedding or nn.EmbeddingBag with sparse=True whose weight is in the optimizer: "
                "there is nothing to replay."
            )
        self._handles.append(optimizer.register_step_post_hook(self._record))
        # What is saved must not depend on a history that is not: every row catches up first.
        self._handles.append(optimizer.register_state_dict_pre_hook(lambda _: self.catch_up()))

    def _watch(self, name: str, module: nn.Embedding | nn.EmbeddingBag, place: int) -> None:
        table, group = module.weight, self._optimizer.param_groups[place]
        program = self._optimizer.program(group, table)
        obstacle = row_obstacle(program, table.ndim)
        shared = [key for key, slot in program.states.items() if slot.per not in ("element", "row")]
        if obstacle is None and shared:
            obstacle = f"its state {shared[0]} is not kept per row"
        if obstacle is not None:
            raise ValueError(f'"{name}.weight" cannot be replayed row by row: {obstacle}.')
        group["sparse"] = "lazy"
        count = self._count(table)
        if table not in self._tables:
            last = torch.full((len(table),), count, dtype=torch.int64, device=table.device)
            self._tables[table] = _Table(table, place, last, since=count)
        self._handles.append(module.register_forward_pre_hook(self._before_reading, with_kwargs=True))
        saving: Any = module.register_state_dict_pre_hook  # torch gives it no type
        self._handles.append(saving(lambda *_: self.catch_up()))

    def remove(self) -> None:
        """Bring all rows up to date and stop; from then on touched rows alone are updated."""
        self.catch_up()
        for handle in self._handles:
            handle.remove()

    def _count(self, table: Tensor) -> int:
        state = self._optimizer.state.get(table, {})
        return int(state[STEP]) if STEP in state else 0

    def _before_reading(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read: Tensor = kwargs["input"] if "input" in kwargs else args[0]
        self._advance(self._tables[module.weight], torch.unique(read))

    @torch.no_grad()
    def catch_up(self) -> None:
        """Bring every row of every table up to date, as before evaluating weights or counting zeros."""
        for table in self._tables.values():
            self._advance(table, torch.arange(len(table.last), device=table.last.device))
            table.since = self._count(table.parameter)
            table.history.clear()

    def _record(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Write down what ran, and which rows took part."""
        for table in self._tables.values():
            count, group = self._count(table.parameter), optimizer.param_groups[table.place]
            if count == table.since + len(table.history):
                continue  # no gradient, no step
            values = numbers(group)
            if table.history and table.history[-1][1] == values:
                values = table.history[-1][1]  # type: ignore[assignment]  # one object for many equal steps
            table.history.append((optimizer.program(group, table.parameter), values))
            gradient = table.parameter.grad
            assert gradient is not None
            if gradient.is_sparse:
                table.last[gradient._indices()[0]] = count
            else:
                table.last.fill_(count)

    @torch.no_grad()
    def _advance(self, table: _Table, rows: Tensor) -> None:
        """Take the steps that these rows missed."""
        now = self._count(table.parameter)
        rows = rows[table.last[rows] < now]
        if not len(rows):
            return
        last, order = table.last[rows].sort()  # who waited longest comes first: each step runs on a beginning
        rows = rows[order]
        state, schema = self._optimizer.state[table.parameter], table.history[-1][0].states
        w = table.parameter.detach().index_select(0, rows)
        blocks = {key: state[key].index_select(0, rows) for key in schema}
        first = int(last[0]) + 1
        missed = table.history[first - 1 - table.since :]
        if all(entry[1] is missed[-1][1] for entry in missed) and skips(*_key(missed[-1])):
            first = now
        waiting = torch.searchsorted(last, torch.arange(first, now + 1, device=last.device)).tolist()
        for step, count in zip(range(first, now + 1), waiting, strict=True):
            program, values = table.history[step - 1 - table.since]
            parts = {key: block[:count] for key, block in blocks.items()}
            zero = torch.zeros_like(w[:count])
            run([EagerBatch([Work(program, w[:count], zero, parts, values, float(step), float(step), table.place)])])
        table.parameter.detach().index_copy_(0, rows, w)
        for key, block in blocks.items():
            state[key].index_copy_(0, rows, block)
        table.last[rows] = now


def _key(entry: tuple[Program, _Numbers]) -> tuple[Program, tuple[Any, ...]]:
    return entry[0], tuple(sorted(entry[1].items(), key=repr))


@functools.lru_cache(maxsize=256)
def skips(program: Program, values: tuple[tuple[tuple[str, int | None], float], ...]) -> bool:
    """Whether the last of several steps without gradient does what all of them do, as for FTRL with growing penalties.

    Its parameter is a function of state and time alone. It is found out by trying, once with all steps and once with
    the last.
    """
    ends = []
    for steps in (range(_SEEN + 1, _SEEN + 5), [_SEEN + 4]):
        chance = torch.Generator().manual_seed(0)
        w = torch.randn(3, 4, generator=chance, dtype=torch.float64)
        state = {key: fresh(slot, w) for key, slot in program.states.items()}
        for t in (*range(1, _SEEN + 1), *steps):
            gradient = torch.randn(3, 4, generator=chance, dtype=torch.float64) * (t <= _SEEN)
            run([EagerBatch([Work(program, w, gradient, state, dict(values), float(t), float(t), 0)])])
        ends.append([w, *state.values()])
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(*ends, strict=True))


_SEEN: Final = 3


def replay(optimizer: Optimizer, model: nn.Module) -> Replay:
    """Make sparse embeddings train exactly as dense ones would, whatever the recipe, until `Replay.remove`.

        replay = slalom.replay(opt, model)        before training; sets sparse="lazy" for the tables' groups
        ...                                       train as ever
        replay.catch_up()                         before the weights are looked at; saving does it by itself

    Reading a row costs the steps that it missed, together for all rows of a batch; where the last of them says it all,
    as in FTRL with growing penalties, one step. A gradient accumulated from several readings is no obstacle.

    Args:
        optimizer: holds the tables.
        model: its ``nn.Embedding`` and ``nn.EmbeddingBag`` layers with ``sparse=True`` are looked after.

    Raises:
        ValueError: if there is no such layer, or a recipe mixes rows.
    """
    return Replay(optimizer, model)
