"""From formulas to running code: tracing and the executors. Knows the algebra; never a part or a method."""

from slalom.engine.eager import Work, execute, layout, read
from slalom.engine.program import Leaves, Program, trace

__all__ = ["Leaves", "Program", "Work", "execute", "layout", "read", "trace"]
