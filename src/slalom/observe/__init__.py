"""What is measured while training, and what it means. Uses the optimizer's face and the engine; changes nothing."""

from slalom.observe.broken import SigmaWatch, inverse_rates, sigma
from slalom.observe.hashes import Diverged, diverged
from slalom.observe.noise import NoiseScale, noise_scale
from slalom.observe.record import read_log
from slalom.observe.roots import failed_roots
from slalom.observe.watching import Watch, watch
from slalom.observe.zeros import Sparsity, sparsity

__all__ = [
    "Diverged",
    "NoiseScale",
    "SigmaWatch",
    "Sparsity",
    "Watch",
    "diverged",
    "failed_roots",
    "inverse_rates",
    "noise_scale",
    "read_log",
    "sigma",
    "sparsity",
    "watch",
]
