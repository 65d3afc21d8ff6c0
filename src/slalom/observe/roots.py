"""How often the inverse root or the eigenbasis of a preconditioner could not be had."""

from __future__ import annotations

from slalom.optimizer import Optimizer
from slalom.roles import label

_COUNTS = ("kronecker.failed", "eigenbasis.failed")


def failed_roots(optimizer: Optimizer) -> dict[str, int]:
    """Count the inverse roots and eigenbases that were not finite, so that older ones stayed in use.

    Args:
        optimizer: one whose recipe has a `Kronecker` or `Eigenbasis` part, as Shampoo and SOAP have; others count none.

    Returns:
        Failures by parameter, for those that have any; a matrix in blocks counts every block.
    """
    found: dict[str, int] = {}
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            state = optimizer.state.get(parameter, {})
            count = sum(int(value) for key, value in state.items() if key.endswith(_COUNTS))
            if count:
                found[label(group, index)] = count
    return found
