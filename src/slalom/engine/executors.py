"""Which executor runs a program on a parameter, and why: the one that is demanded, or the fastest that can."""

from __future__ import annotations

import os
import warnings
from typing import Final, Literal, TypeAlias, get_args

from torch import Tensor

from slalom.engine.fused import planned
from slalom.engine.matrices import phased
from slalom.engine.native.build import compiler
from slalom.engine.native.launch import DTYPES
from slalom.engine.phases import needs_phases
from slalom.engine.plan import UnplannableError
from slalom.engine.program import Program
from slalom.engine.triton.launch import available as triton_available
from slalom.engine.triton.launch import triton_kernel

Executor: TypeAlias = Literal["auto", "eager", "foreach", "native", "triton"]
EXECUTORS: Final[tuple[str, ...]] = get_args(Executor)
_NO_COMPILER: Final = (
    "there is no C compiler, so steps run as lists of torch operations, several times slower: "
    "install gcc or clang, or `pip install ziglang`."
)


def choose(program: Program, parameter: Tensor, executor: Executor = "auto") -> tuple[str, str]:
    """Return which executor runs a program on a parameter, and why.

    Raises:
        ValueError: if ``executor`` demands one that cannot run it.
    """
    if executor in ("eager", "foreach"):
        return executor, "as demanded"
    if executor == "triton":
        obstacle = _triton_obstacle(program, parameter)
        if obstacle is not None:
            raise ValueError(f'executor="triton" cannot run here: {obstacle}; use executor="auto".')
        return "triton", "as demanded"
    if parameter.device.type == "cuda" and executor == "auto":
        obstacle = _triton_obstacle(program, parameter)
        return ("triton", "compiled for this GPU") if obstacle is None else ("foreach", obstacle)
    if parameter.device.type != "cpu":
        obstacle = f"the parameter is on {parameter.device.type}, and C runs on the CPU"
    else:
        obstacle = _obstacle(program, parameter)
    if obstacle is None and compiler() is not None:
        return "native", "compiled for this processor"
    if executor == "native":
        raise ValueError(
            f'executor="native" cannot run here: {obstacle or "there is no C compiler"}; use executor="auto".'
        )
    if obstacle is None:
        warn_once(_NO_COMPILER)
        return "foreach", "there is no C compiler"
    return ("foreach" if parameter.device.type != "cpu" else "eager"), obstacle


def _triton_obstacle(program: Program, parameter: Tensor) -> str | None:
    """Return why a parameter cannot run in Triton, None if it can."""
    if not triton_available():
        return "Triton is not installed (`pip install triton`)"
    if parameter.device.type == "cpu" and not os.environ.get("TRITON_INTERPRET"):
        return "the parameter is on the CPU"
    if parameter.dtype not in DTYPES:
        return f"{str(parameter.dtype).removeprefix('torch.')} has no Triton kernels here"
    if _has_other_gradients(parameter):
        return "its gradients may have another dtype"
    as_matrix = needs_phases(program) or program.needs_positions
    if not _is_dense(parameter) or (as_matrix and not parameter.is_contiguous()):
        return "the parameter has gaps, or rows that are not contiguous"
    try:
        for fused in _fused_programs(program):
            triton_kernel(fused, DTYPES[parameter.dtype])
    except UnplannableError as reason:
        return str(reason)
    return None


def _fused_programs(program: Program) -> list[Program]:
    """Return what fused kernels have to run: the program, or what lies between its matrix operations."""
    if not needs_phases(program):
        return [program]
    return [phase.program for phase in phased(program).phases if phase.kind == "fused"]


def _obstacle(program: Program, parameter: Tensor) -> str | None:
    """Return why a parameter on the CPU cannot run compiled, None if it can."""
    if parameter.dtype not in DTYPES:
        return f"{str(parameter.dtype).removeprefix('torch.')} is computed in torch"
    if _has_other_gradients(parameter):
        return "its gradients may have another dtype"
    try:
        plans = [planned(fused) for fused in _fused_programs(program)]
    except UnplannableError as reason:
        return f"{reason}, which torch computes"
    as_matrix = needs_phases(program) or program.needs_positions or any(plan.two_dimensional for plan in plans)
    if not parameter.is_contiguous() and (as_matrix or not _is_dense(parameter)):
        return "the parameter has gaps, or rows that are not contiguous"
    return None


def _has_other_gradients(parameter: Tensor) -> bool:
    """Whether gradients of another dtype are asked for, which kernels would have to round before they compute."""
    # the real view of a complex parameter may not be asked
    return not parameter._is_view() and getattr(parameter, "grad_dtype", parameter.dtype) != parameter.dtype


def _is_dense(tensor: Tensor) -> bool:
    """Whether elements fill a block of memory without gaps or overlaps, in whatever order."""
    expected = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1:
            if stride != expected:
                return False
            expected *= length
    return True


_warned: set[str] = set()


def warn_once(sentence: str) -> None:
    """Warn of something that is the same for every optimizer of a process."""
    if sentence not in _warned:
        _warned.add(sentence)
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)
