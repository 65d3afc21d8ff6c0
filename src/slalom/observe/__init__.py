"""What is measured while training, and what it means. Uses the optimizer's face and the engine; changes nothing."""

from slalom.observe.broken import SigmaWatch, inverse_rates, sigma
from slalom.observe.distributions import Distribution, distribution, gradients, sample_norms
from slalom.observe.hashes import Diverged, diverged
from slalom.observe.noise import NoiseScale, noise_scale
from slalom.observe.record import read_log
from slalom.observe.roots import failed_roots
from slalom.observe.watching import Watch, watch
from slalom.observe.zeros import Sparsity, sparsity

__all__ = [
    "Distribution",
    "Diverged",
    "NoiseScale",
    "SigmaWatch",
    "Sparsity",
    "Watch",
    "distribution",
    "diverged",
    "failed_roots",
    "gradients",
    "inverse_rates",
    "noise_scale",
    "read_log",
    "sample_norms",
    "sigma",
    "sparsity",
    "watch",
]
