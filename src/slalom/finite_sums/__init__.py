"""Variance reduction and acceleration for finite sums: methods that may look at all examples now and then.

The contract is one function: ``loss(indices)`` returns the mean loss of those examples at the parameters as they are.
A full-gradient pass is its gradient over all indices, in batches, weighted by their sizes; a step asks for the same
indices at two points. So the loss must be a function of parameters and indices alone: chance inside it (dropout) is
drawn alike for both points of a step here, but layers that remember batches (batch norm in training mode) break it.
"""

from slalom.finite_sums.base import Loss, Prox, l1, l2
from slalom.finite_sums.compressed import CompressedSum, diana, diana_nastya, diana_rr, q_nastya, q_rr
from slalom.finite_sums.natasha import Natasha2, Natasha15
from slalom.finite_sums.proximal import FISTA
from slalom.finite_sums.reduced import SVRG, Katyusha

__all__ = [
    "FISTA",
    "SVRG",
    "CompressedSum",
    "Katyusha",
    "Loss",
    "Natasha2",
    "Natasha15",
    "Prox",
    "diana",
    "diana_nastya",
    "diana_rr",
    "l1",
    "l2",
    "q_nastya",
    "q_rr",
]
