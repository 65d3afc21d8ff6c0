"""How much memory training takes, and what for, told before anything is allocated."""

from slalom.memory.account import PRECISIONS, Account, account, state_bytes
from slalom.memory.activations import saved_bytes
from slalom.memory.shapes import SHAPES, Transformer, matrices

__all__ = ["PRECISIONS", "SHAPES", "Account", "Transformer", "account", "matrices", "saved_bytes", "state_bytes"]
