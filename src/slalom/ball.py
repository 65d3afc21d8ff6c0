"""Where training within a ball begins: on its boundary."""

from __future__ import annotations

from typing import Any

import torch

from slalom.engine import pieces, real_view
from slalom.engine.storage import matrix_shape
from slalom.errors import UsageError
from slalom.optimizer import Optimizer
from slalom.parts import Signals, Steepest
from slalom.roles import blocks_of


@torch.no_grad()
def start_on_ball(optimizer: Optimizer) -> int:
    """Move every weight that takes steepest steps to the boundary of its ball: radius times the step along itself.

    For ``scion`` with ``constrained=True``, whose steps lead from the ball to its boundary, as the authors' ``init``
    does (Pethick et al. 2025, arXiv:2502.07529): a matrix becomes orthogonal, rows of an embedding get one length.
    What is 0 has no direction and stays.

    Args:
        optimizer: its recipes say in which norms, with which radii. Call this before the first step.

    Returns:
        How many parameters were moved.

    Raises:
        UsageError: if no parameter takes steepest steps, or a step was taken already.
    """
    if optimizer.state:
        raise UsageError("start_on_ball: the optimizer has taken a step already; call it before training begins.")
    moved = 0
    for group in optimizer.param_groups:
        for part in optimizer.recipe(group).parts("geometry"):
            if isinstance(part, Steepest):
                for parameter in group["params"]:
                    for piece in pieces(real_view(parameter.detach()), blocks_of(group, parameter)):
                        piece.copy_(_on_boundary(piece, part).reshape(piece.shape))
                moved += len(group["params"])
    if not moved:
        raise UsageError("start_on_ball: no parameter of this optimizer takes steps of geometry=Steepest(...).")
    return moved


def _on_boundary(weight: torch.Tensor, part: Steepest) -> torch.Tensor:
    rows, columns = matrix_shape(weight)
    matrix: Any = weight.reshape(rows, columns).to(torch.promote_types(weight.dtype, torch.float32))
    sizes: dict[str, Any] = {"rows": float(rows), "columns": float(columns), "size": float(weight.numel())}
    now: Any = 1.0
    x = Signals.start(matrix, matrix, t=now, clock=now, ndim=min(weight.ndim, 2), **sizes)
    radius: Any = part.radius  # the number that it has now
    found: Any = part.norm.oracle(matrix, x) * float(getattr(radius, "value", radius))
    return torch.as_tensor(found)
