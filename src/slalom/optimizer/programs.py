"""What each parameter runs, and what is kept for it: the traced formula, the executor, the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slalom.algebra import State, Value
from slalom.engine import STEP, Executor, Leaves, Program, choose, fresh, kept_dtype, pieces, real_view, trace
from slalom.engine.program import Recorder, the_one
from slalom.engine.shards import any_sharded, local, placed
from slalom.optimizer.loading import check_layout
from slalom.parts import Signals
from slalom.recipes import Recipe
from slalom.recipes.blueprint import Asked, Blueprint, is_zero, numbers
from slalom.roles import blocks_of


class Programs:
    """The part of an optimizer that knows programs and state."""

    if TYPE_CHECKING:
        param_groups: list[dict[str, Any]]
        state: Any
        _blueprint: Blueprint
        _executor: Executor

    _programs: dict[Any, list[Program]]

    def program(self, group: Mapping[str, Any], parameter: Tensor) -> Program:
        """Return what a step does to a parameter, as it runs; traced again only when the structure changes."""
        role = group.get("role", "rest")
        ndim = min(pieces(real_view(parameter), blocks_of(group, parameter))[0].ndim, 2)
        key = (role, group["maximize"], ndim, self._blueprint.structure(group, role))
        values = numbers(group)
        known = self._programs.setdefault(key, [])
        for program in known:
            if all(is_zero(values[name]) != answer for name, answer in program.asked.items()):
                return program
        known.append(the_one(self.traced(group, ndim, Recipe.run)))
        return known[-1]

    def traced(
        self, group: Mapping[str, Any], ndim: int, method: Callable[[Recipe, Signals, Recorder], Value]
    ) -> Program:
        """Return what a method of a group's recipe computes, on parameters of so many dimensions, as a new program."""
        role = group.get("role", "rest")
        asked: Asked = {}
        recipe = self._blueprint.recipe(self._blueprint.live(group, role, asked), role)

        def formula(leaves: Leaves, store: Recorder) -> Value:
            signed = leaves._replace(grad=-leaves.grad, loss=-leaves.loss) if group["maximize"] else leaves
            return method(recipe, Signals.start(**signed._asdict(), ndim=ndim), store)

        return trace(formula, asked)

    def recipe(self, group: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a parameter group, its numbers as symbols that carry the values they have now."""
        role = group.get("role", "rest")
        return self._blueprint.recipe(self._blueprint.live(group, role), role)

    def schema(self, group: Mapping[str, Any], parameter: Tensor) -> Mapping[str, State]:
        """Return the declaration of a parameter's state, by key."""
        return self.program(group, parameter).states

    def _loadable(self, group: Mapping[str, Any], parameter: Tensor) -> tuple[dict[str, State], set[str]]:
        """Return the states that a checkpoint of this recipe may hold, and those that it must hold.

        A number that was set to 0, or from 0, since the last step has left a state behind or has not made it yet.
        """
        program = self.program(group, parameter)
        allowed, needed = dict(program.states), set(program.states)
        for (name, place), answer in program.asked.items():
            other: Any = 0.0 if answer else 0.5
            if place is not None:
                other = (*group[name][:place], other, *group[name][place + 1 :])
            try:
                states = self.program({**group, name: other}, parameter).states
            except ValueError:
                continue  # the recipe refuses this value, so it cannot have been
            allowed = {**states, **allowed}
            needed &= set(states)
        return allowed, needed

    def executors(self) -> dict[str, str]:
        """Return which executors run, each with the reason, for the parameters of all groups."""
        return dict(
            choose(
                self.program(group, parameter),
                pieces(real_view(local(parameter)), blocks_of(group, parameter))[0],
                self._executor,
            )
            for group in self.param_groups
            for parameter in group["params"]
        )

    @property
    def needs_loss(self) -> bool:
        """Whether the recipe reads the loss, so that ``step`` needs a closure that returns it."""
        groups = self.param_groups
        return any(self.program(group, parameter).needs_loss for group in groups for parameter in group["params"])

    @torch.no_grad()
    def init_state(self) -> None:
        """Create every parameter's state now, not at its first step. Changes no parameter, counts nothing.

        To be called before ``torch.distributed.checkpoint`` saves or loads an optimizer that has not stepped: it takes
        a step with a rate of 0 to find out about the state, and that step would count.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                self._prepare(group, parameter, self.program(group, parameter))

    def _prepare(self, group: Mapping[str, Any], parameter: Tensor, program: Program) -> dict[str, Any]:
        """Return a parameter's state, created as a whole if it is not there."""
        state: dict[str, Any] = self.state.get(parameter, {})
        made: dict[str, Any] = {}  # where memory ends halfway, there is none of it
        blocks = blocks_of(group, parameter)
        if STEP not in state:
            made[STEP] = torch.tensor(0.0, dtype=torch.float32)
        sharded = any_sharded([parameter])
        for key, slot in program.states.items():
            if key not in state:
                shared = self._shared(group, key, slot)
                if shared is None:
                    number = self._number(parameter) if slot.init == "number" else 0
                    shared = (
                        placed(slot, parameter, program, number=number)
                        if sharded
                        else fresh(slot, real_view(parameter.detach()), blocks, number)
                    )
                made[key] = shared
            elif sharded:
                made[key] = placed(slot, parameter, program, state[key])
            else:
                check_layout(key, slot, state[key], real_view(parameter), blocks)
                if slot.per in ("left", "right"):  # whose precision is a setting
                    made[key] = state[key].to(kept_dtype(slot, parameter))
        self.state[parameter].update(made)
        kept: dict[str, Any] = self.state[parameter]
        return kept

    def _number(self, parameter: Tensor) -> int:
        """Return a parameter's place among those of all groups."""
        everything = chain.from_iterable(group["params"] for group in self.param_groups)
        return next(place for place, other in enumerate(everything) if other is parameter)

    def _shared(self, group: Mapping[str, Any], key: str, slot: State) -> Tensor | None:
        """Return the tensor of a state that a group or the whole model has in common, if someone has it already."""
        if slot.scope == "tensor":
            return None
        mates = self.param_groups if slot.scope == "model" else [group]
        for mate in mates:
            for other in mate["params"]:
                if key in self.state.get(other, {}):
                    found: Tensor = self.state[other][key]
                    return found
        return None
