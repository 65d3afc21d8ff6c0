"""The update itself: from gradients that are there to parameters that moved, or to a refusal that changed nothing."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from torch import Tensor

from slalom.engine import (
    LOSS,
    STEP,
    Crew,
    Numbers,
    Rows,
    Seat,
    latest,
    real_view,
    run,
    seats_of_blocks,
)
from slalom.engine.shards import Shard, agreed, any_sharded, gradient_of
from slalom.errors import ran_out_of_memory
from slalom.optimizer.closures import Scaled
from slalom.optimizer.known import Known
from slalom.optimizer.nonfinite import OnNonfinite, all_finite, complaint
from slalom.optimizer.programs import Programs
from slalom.optimizer.sparse import check_gradient
from slalom.recipes.blueprint import is_zero, numbers
from slalom.roles import blocks_of, label

Gradients: TypeAlias = "list[Tensor | None]"
Standing: TypeAlias = tuple[Known, "Crew | None", Gradients]
Ready: TypeAlias = tuple[Crew, Gradients, Numbers]

_NO_SETTINGS: Final = ("params", "param_names")
_HALFWAY: Final = (
    "slalom: memory ran out in the middle of a step, so some parameters may have moved and others not: go on from a "
    "checkpoint, not from here."
)


class Updating(Programs):
    """The part of an optimizer that takes a step with the gradients that are there.

    What stays equal between steps is kept: who steps in a group, the numbers of its settings, where sharded parameters
    are worked on. All of it can be made again at any time.
    """

    if TYPE_CHECKING:
        on_nonfinite: OnNonfinite
        skipped: int
        _rows: Callable[[Mapping[str, Any]], Rows]
        _optimizer_step_code: Callable[[], None]

    def _forget(self) -> None:
        """Drop what was derived from parameters and state; it is made again when needed."""
        self._programs = {}
        self._crews: dict[int, Known] = {}
        self._states: list[dict[str, Any]] = []
        self._shards: dict[Tensor, Shard] = {}

    def _update(self, clip: Callable[[], Any] | None, loss: Any, scaled: Scaled | None = None) -> None:
        """Update parameters and state from the gradients that are there, and the loss if there was a closure."""
        if clip is not None and scaled is not None and scaled.scale is not None:
            raise RuntimeError(
                "clip would see gradients that are still scaled: call scaler.unscale_(optimizer) before "
                "scaler.step(optimizer)."
            )
        if clip is not None:
            clip()
        if not self._keeps_its_states():
            self._crews.clear()
        # Everything that can refuse comes first: a step that fails has counted nothing. And the clock is one for all.
        standing = [self._standing(place) for place in range(len(self.param_groups))]
        left: Numbers = {}
        if scaled is not None and self._unread([crew for _, crew, _ in standing]):
            left = scaled.for_kernels()
        elif scaled is not None:
            if scaled.overflowed():
                return
            standing = [(known, crew, scaled.unscaled(gradients)) for known, crew, gradients in standing]
        if self.on_nonfinite != "ignore" and self._refuses(standing):
            return
        try:
            ready = [self._ready(place, *found) for place, found in enumerate(standing)]
        finally:
            self._states = list(self.state.values())  # also those of crews that were made before somebody refused
        if any(crew.needs_loss for crew, _, _ in ready):
            left = {**left, LOSS: _value(loss)}
        if left:
            ready = [(crew, gradients, {**values, **left}) for crew, gradients, values in ready]
        clock = self._clock() + 1 if any(crew.needs_clock for crew, _, _ in ready) else 0.0
        parts = [part for crew, _, _ in ready for part in self._parts(crew)]
        for part in parts:
            part.fetch()
        try:
            run([batch for crew, gradients, values in ready for batch in crew.batches(gradients, values, clock)])
            for part in parts:
                part.give_back()
        except Exception as error:
            if ran_out_of_memory(error):
                error.add_note(_HALFWAY)
            raise
        for crew, _, _ in ready:
            crew.let_go()
        self._optimizer_step_code()  # torch's anchor for external profilers

    def _unread(self, crews: Iterable[Crew | None]) -> bool:
        """Whether a step of these reads nothing on the host: no verdict on gradients, a scaler's or its own."""
        return self.on_nonfinite == "ignore" and all(crew is not None and crew.unread for crew in crews)

    def _stepped_unread(self) -> bool:
        """Whether the last step read nothing on the host, as far as is known; the next one will hardly differ."""
        known = [self._crews.get(place) for place in range(len(self.param_groups))]
        return self._unread(None if one is None else one.crew for one in known)

    def _keeps_its_states(self) -> bool:
        """Whether ``state`` still holds what crews were made with: it is public, and some clear it to begin anew."""
        now = self.state.values()
        return len(self._states) <= len(now) and all(map(operator.is_, self._states, now))

    def _refuses(self, standing: Sequence[Standing]) -> bool:
        """Whether a gradient is not finite and the step is skipped; one decision for all groups.

        Raises:
            FloatingPointError: if that is what was chosen.
        """
        fine, others = True, []
        for _, crew, gradients in standing:
            seen, rest = (True, gradients) if crew is None else crew.looked_at(gradients)
            fine &= seen
            others += rest
        if not self._agree_to_refuse(not (fine and all_finite(others))):
            return False
        for _, crew, _ in standing:
            if crew is not None:
                crew.let_go()
        if self.on_nonfinite == "raise":
            raise FloatingPointError(complaint(self.param_groups, int(self._clock()) + 1))
        self.skipped += 1
        return True

    def _agree_to_refuse(self, refuse: bool) -> bool:
        """Return the decision of all ranks that hold shards; gradients that were averaged are equal on all ranks.

        Whoever shards gradients otherwise than by DTensor overrides this with a maximum over those ranks.
        """
        return agreed(refuse, [parameter for group in self.param_groups for parameter in group["params"]])

    def _standing(self, place: int) -> Standing:
        """Return what is known of a group, who steps in it if that is known, and its gradients. Makes no state."""
        group = self.param_groups[place]
        parameters = group["params"]
        gradients = self._gradients(group)
        settings = [value for key, value in group.items() if key not in _NO_SETTINGS]
        known = self._crews.get(place)
        if known is None or not known.sees_the_same(settings):
            values = numbers(group)
            structure = self._structure(group, values)
            crew = known.crew if known is not None and known.structure == structure else None
            known = self._crews[place] = Known(settings, structure, values, crew)
        crew = known.crew
        stands = crew is not None and crew.holds(parameters, gradients) and all(s.stands() for s in self._parts(crew))
        return known, crew if stands else None, gradients

    def _gradients(self, group: Mapping[str, Any]) -> Gradients:
        """Return the gradients of a group, those of sharded parameters as their programs work with them."""
        found: Gradients = [parameter.grad for parameter in group["params"]]
        if not any_sharded(group["params"]):
            return found
        return [gradient_of(p, g, self.program(group, p)) for p, g in zip(group["params"], found, strict=True)]

    def _parts(self, crew: Crew) -> list[Shard]:
        """Return the sharded parameters that step in a group."""
        return [self._shards[p] for p in crew.parameters if p in self._shards] if self._shards else []

    def _ready(self, place: int, known: Known, crew: Crew | None, gradients: Gradients) -> Ready:
        """Return who steps in a group, with gradients and numbers; what stays equal between steps is kept."""
        if crew is None:
            group = self.param_groups[place]
            crew = known.crew = Crew(self._seats(group, gradients), place, self._executor)
        return crew, gradients, known.numbers

    def _structure(self, group: Mapping[str, Any], values: Numbers) -> Any:
        """Return all that programs depend on beside the numbers: switches, and which numbers are zero."""
        role = group.get("role", "rest")
        zeros = tuple(name for name, value in values.items() if is_zero(value))
        return (role, group["maximize"], self._rows(group), self._blueprint.structure(group, role), zeros)

    @torch.no_grad()
    def _seats(self, group: Mapping[str, Any], gradients: Gradients) -> list[Seat]:
        seats = []
        for index, (parameter, gradient) in enumerate(zip(group["params"], gradients, strict=True)):
            if gradient is None:
                continue
            program, whole = self.program(group, parameter), real_view(parameter)
            blocks = blocks_of(group, parameter)
            if gradient.is_sparse:
                check_gradient(gradient, whole, label(group, index), program, numbers(group), self._rows(group))
            state = self._prepare(group, parameter, program)
            if any_sharded([parameter]):
                if blocks is not None:
                    raise RuntimeError(
                        f"{label(group, index)} is sharded and cut into blocks, whose borders are not those of shards; "
                        "leave its blocks out."
                    )
                shard = self._shards[parameter] = Shard(parameter, program)
                whole, state = shard.work, shard.state(state)
            if blocks is None:
                seats.append(Seat(index, program, parameter, whole, state, gradient.is_sparse))
            elif gradient.is_sparse:
                raise RuntimeError(
                    f"{label(group, index)} has a sparse gradient and is cut into blocks: rows that come and go make "
                    "no matrices; leave its blocks out."
                )
            else:
                seats += seats_of_blocks(index, program, parameter, whole, state, blocks)
        return seats

    def _clock(self) -> Any:
        """Return how many steps the optimizer has taken: as many as the parameter that took part most often.

        Where step counts are on a GPU this is a tensor there, which nobody waits for.
        """
        return latest([state[STEP] for state in self.state.values() if STEP in state])


def _value(loss: Any) -> Any:
    """Return the loss as a number; on a GPU it stays there, for kernels to read."""
    if isinstance(loss, (int, float)) or (isinstance(loss, Tensor) and loss.numel() == 1):
        return loss.detach() if isinstance(loss, Tensor) and loss.device.type != "cpu" else float(loss)
    given = "none" if loss is None else f"a {type(loss).__name__}"
    raise RuntimeError(
        f"this recipe reads the loss and was given {given}: call optimizer.step(closure), the closure returning it."
    )
