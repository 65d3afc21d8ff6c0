"""Whole training runs on disk: saved durably, and restored to the same bits or not at all."""

from slalom.checkpoint.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]
