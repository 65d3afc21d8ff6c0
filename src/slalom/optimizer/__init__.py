"""The face towards torch: any recipe as a `torch.optim.Optimizer`, stepping, evaluating, saving and loading."""

from slalom.optimizer.optimizer import Optimizer, Parameters

# What pickles and checkpoints call it must not depend on the file that it is written in.
Optimizer.__module__ = __name__

__all__ = ["Optimizer", "Parameters"]
