"""What fused executors have in common, C or Triton: the plan that they run, and the tensors that they run it on."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from itertools import chain

from torch import Tensor

from slalom.engine.native.emit import supports
from slalom.engine.plan import Plan, UnplannableError, plan
from slalom.engine.program import Program


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
