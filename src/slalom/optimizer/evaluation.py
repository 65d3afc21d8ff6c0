"""Which point the model holds: the one that training goes on from, or the average to evaluate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slalom.engine import STEP, Work, pieces, read, real_view, shares
from slalom.optimizer.loading import KEPT
from slalom.optimizer.programs import Programs
from slalom.recipes import Recipe
from slalom.recipes.blueprint import numbers
from slalom.roles import blocks_of


class Evaluation(Programs):
    """The part of an optimizer that swaps averaged parameters in and out."""

    _evaluating: bool = False

    if TYPE_CHECKING:
        _clock: Callable[[], float]

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged parameters into the model while the block runs; a recipe without average changes nothing.

        with opt.averaged():
            validate(model)

        In eval mode, and inside another such block, they are there already.
        """
        if self._evaluating:
            yield
            return
        try:
            self.eval()
            yield
        finally:
            self.train()

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averaged parameters into the model until `train` is called; again changes nothing.

        What training goes on from is kept in the state, under "kept", so that a checkpoint of either mode is whole; in
        this mode that is a copy of every averaged parameter. A recipe without average changes no parameter.
        """
        if self._evaluating:
            return
        self._evaluating = True
        for place, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                if STEP in self.state.get(parameter, {}):
                    averaged = self._averaged(place, group, parameter)
                    if averaged is not None:
                        self.state[parameter][KEPT] = parameter.detach().clone()
                        parameter.copy_(averaged)

    @torch.no_grad()
    def train(self) -> None:
        """Put the parameters back that training goes on from, to the bit; in train mode it changes nothing."""
        for parameter, state in self.state.items():
            if KEPT in state:
                parameter.copy_(state.pop(KEPT))
        self._evaluating = False

    def _averaged(self, place: int, group: Mapping[str, Any], parameter: Tensor) -> Tensor | None:
        whole, blocks = real_view(parameter.detach()), blocks_of(group, parameter)
        own = pieces(whole, blocks)
        program = self.traced(group, min(own[0].ndim, 2), Recipe.readout)
        if not program.states:
            return None
        state = self.state[parameter]
        result, t, clock = torch.empty_like(whole), float(state[STEP]), self._clock()
        cut = {key: shares(state[key], slot, whole, blocks) for key, slot in program.states.items()}
        for at, (piece, target) in enumerate(zip(own, pieces(result, blocks), strict=True)):
            mine = {key: views[at] for key, views in cut.items()}
            target.copy_(read(Work(program, piece, torch.zeros_like(piece), mine, numbers(group), t, clock, place)))
        return torch.view_as_complex(result) if parameter.is_complex() else result
