"""Checks that anyone can run against any optimizer, ours or others'."""

from slalom.testing.conformance import Report, Result, check_optimizer

__all__ = ["Report", "Result", "check_optimizer"]
