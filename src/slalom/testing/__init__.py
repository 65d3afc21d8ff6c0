"""Checks that anyone can run against any optimizer, ours or others'."""

from slalom.testing.conformance import Report, Result, assert_conforms, check_optimizer
from slalom.testing.resume import assert_exact_resume

__all__ = ["Report", "Result", "assert_conforms", "assert_exact_resume", "check_optimizer"]
