"""Fewer bytes between workers: compressors, and the memory that makes up for what they lose.

`slalom.finite_sums` runs the methods on one machine, to study them; `hook` brings them into `DistributedDataParallel`,
where `vote` is signSGD's majority vote.
"""

from slalom.compress.compressors import QSGD, Compressor, Identity, Natural, RandK, TopK
from slalom.compress.data_parallel import Compressed, hook
from slalom.compress.differences import Differences
from slalom.compress.majority import vote

__all__ = ["QSGD", "Compressed", "Compressor", "Differences", "Identity", "Natural", "RandK", "TopK", "hook", "vote"]
