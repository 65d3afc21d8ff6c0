"""How often the inverse root of a preconditioner could not be taken."""

from __future__ import annotations

from slalom.optimizer import Optimizer
from slalom.roles import label


def failed_roots(optimizer: Optimizer) -> dict[str, int]:
    """Count the inverse roots that were not finite, so that an older preconditioner stayed in use.

    Args:
        optimizer: one whose recipe has a `Kronecker` part, such as Shampoo; any other counts none.

    Returns:
        Failures by parameter, for those that have any; a matrix in blocks counts every block.
    """
    found: dict[str, int] = {}
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            state = optimizer.state.get(parameter, {})
            count = sum(int(value) for key, value in state.items() if key.endswith("kronecker.failed"))
            if count:
                found[label(group, index)] = count
    return found
