"""What is measured while training, and what it means. Uses the optimizer's face and the engine; changes nothing."""

from slalom.observe.broken import SigmaWatch, sigma
from slalom.observe.ranks import Diverged, diverged
from slalom.observe.roots import failed_roots
from slalom.observe.zeros import Sparsity, sparsity

__all__ = ["Diverged", "SigmaWatch", "Sparsity", "diverged", "failed_roots", "sigma", "sparsity"]
