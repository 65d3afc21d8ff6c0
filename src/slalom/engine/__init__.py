"""From formulas to running code: tracing, planning and the executors. Knows the algebra; never a part or a method."""

from slalom.engine.batch import LOSS, OVERFLOW, UNSCALE, Batch, Numbers, latest, run
from slalom.engine.blocks import Blocks, in_words, pieces
from slalom.engine.crew import Crew, Seat, seats_of_blocks
from slalom.engine.eager import Work, read
from slalom.engine.executors import EXECUTORS, Executor, choose
from slalom.engine.fused import planned
from slalom.engine.matrices import phased
from slalom.engine.native.build import CompileError
from slalom.engine.native.scan import finite
from slalom.engine.phases import Phases, needs_phases
from slalom.engine.plan import Plan, UnplannableError
from slalom.engine.program import Leaves, Program, leaves, trace
from slalom.engine.sparse import Rows, rests, row_obstacle
from slalom.engine.storage import STEP, computed_dtype, fresh, kept_bytes, kept_dtype, layout, real_view, shares

__all__ = [
    "EXECUTORS",
    "LOSS",
    "OVERFLOW",
    "STEP",
    "UNSCALE",
    "Batch",
    "Blocks",
    "CompileError",
    "Crew",
    "Executor",
    "Leaves",
    "Numbers",
    "Phases",
    "Plan",
    "Program",
    "Rows",
    "Seat",
    "UnplannableError",
    "Work",
    "choose",
    "computed_dtype",
    "finite",
    "fresh",
    "in_words",
    "kept_bytes",
    "kept_dtype",
    "latest",
    "layout",
    "leaves",
    "needs_phases",
    "phased",
    "pieces",
    "planned",
    "read",
    "real_view",
    "rests",
    "row_obstacle",
    "run",
    "seats_of_blocks",
    "shares",
    "trace",
]
