"""How closures are evaluated before an update: plainly, at the worst point nearby, scaled for mixed precision."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from slalom.engine import OVERFLOW, UNSCALE, Numbers
from slalom.sharpness import SAM

if TYPE_CHECKING:
    from slalom.optimizer import Optimizer


# Takes the step; is given the loss, None without a closure, and what a scaler left to the step, None if nothing.
Update: TypeAlias = "Callable[[Any, Scaled | None], None]"


class Scaled(NamedTuple):
    """What a scaler leaves to a step that sees to it by itself: gradients that may be scaled, and its verdict.

    Attributes:
        overflow: not 0 if a gradient overflowed, so that the step must change nothing; it waits on the scaler's device.
        scale: what gradients were multiplied by, there too; None where they are unscaled.
    """

    overflow: Any
    scale: Tensor | None

    @classmethod
    def left_at(cls, stepping: Any) -> Scaled | None:
        """Return what a scaler that is stepping has left, under names that torch chose; None if there is none."""
        overflow = vars(stepping).get("found_inf")
        return None if overflow is None else cls(overflow, stepping.grad_scale)

    def for_kernels(self) -> Numbers:
        """Return what kernels need, without reading it."""
        # the reciprocal is the scaler's own, to the bit
        inverse = 1.0 if self.scale is None else self.scale.double().reciprocal().float()
        return {UNSCALE: inverse, OVERFLOW: self.overflow}

    def overflowed(self) -> bool:
        """Read the verdict."""
        return bool(self.overflow)

    def unscaled(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return unscaled copies of gradients; those that are there belong to whoever put them there."""
        inverse = float(self.for_kernels()[UNSCALE])
        return [None if gradient is None else gradient * inverse for gradient in gradients]


class _Update:
    """What a scaler takes for the optimizer: the groups, and the update without closure and hooks.

    A scaler unscales the gradients of ``param_groups`` and calls ``step`` unless one of them overflowed; or it
    leaves both to the step, if that says that it can. That is all it asks for, so nothing private of it is touched.
    """

    def __init__(
        self, groups: list[dict[str, Any]], update: Callable[[Scaled | None], None], leave_to_step: bool
    ) -> None:
        self.param_groups = groups
        self._update = update
        self._step_supports_amp_scaling = leave_to_step
        self.skipped: bool | Tensor = True

    def step(self) -> None:
        scaled = Scaled.left_at(self)
        self.skipped = False if scaled is None else scaled.overflow != 0
        self._update(scaled)


def plain_step(optimizer: Optimizer, closure: Callable[[], Any] | None, update: Update, sharpness: SAM | None) -> Any:
    """Evaluate a closure that calls backward itself, and update.

    Returns:
        What the closure returned, or None.

    Raises:
        TypeError: if ``sharpness`` has no closure to evaluate.
    """
    loss = None
    if closure is not None:
        refuse_scaled_closure(optimizer, closure)
        with torch.enable_grad():
            loss = closure()
    if sharpness is not None:
        if closure is None:
            raise TypeError("step(sharpness=...) got no closure: it evaluates the loss a second time.")
        with sharpness.perturbed(optimizer.param_groups) as moved:
            if moved:
                with torch.enable_grad():
                    closure()
    scaled = Scaled.left_at(optimizer)
    try:
        update(loss, scaled)
    except BaseException:
        for name in ("found_inf", "grad_scale"):  # the scaler takes them back only from a step that came to its end
            vars(optimizer).pop(name, None)
        raise
    return loss


def scaled_step(
    optimizer: Optimizer,
    closure: Callable[[], Any] | None,
    update: Update,
    sharpness: SAM | None,
    scaler: GradScaler,
    retries: int,
    leave_to_step: bool,
) -> tuple[Any, bool | Tensor]:
    """Evaluate a closure that only returns its loss, and step with the unscaled gradients.

    Args:
        optimizer: whose gradients are cleared, and unscaled.
        closure: computes and returns the loss; does not call ``backward``.
        update: takes the step; unscaled, finite gradients are in place, unless it is given what a scaler left to it.
        sharpness: where to evaluate a second time, if at all.
        scaler: scales; it is updated after every evaluation.
        retries: how often to evaluate again, at a lower scale, if gradients overflow.
        leave_to_step: whether to give the update scaled gradients and a verdict that nobody has read.

    Returns:
        The unscaled loss of the last evaluation, and whether the step was skipped: where nobody needs to know it, a
        tensor that waits on the device.

    Raises:
        TypeError: if there is no closure, or it returns no loss.
        RuntimeError: if the closure called backward.
    """
    if closure is None:
        raise TypeError(
            "step(scaler=...) got no closure: write step(closure, scaler=scaler) with a closure that returns the loss, "
            "or scaler.step(optimizer) after your own backward."
        )
    for evaluation in range(retries + 1):
        loss = _scaled_gradients(optimizer, closure, scaler)
        if sharpness is not None:
            with sharpness.perturbed(optimizer.param_groups) as moved:
                if moved:
                    _scaled_gradients(optimizer, closure, scaler)
        inner = _Update(optimizer.param_groups, functools.partial(update, loss.detach()), leave_to_step)
        try:
            scaler.step(inner)  # type: ignore[arg-type]  # unscales first
        finally:
            scaler.update()  # forgets `inner`, also where the update refused
        if evaluation == retries or not inner.skipped:
            return loss.detach(), inner.skipped
    raise AssertionError("unreachable")


@torch.enable_grad()
def _scaled_gradients(optimizer: Optimizer, closure: Callable[[], Any], scaler: GradScaler) -> Tensor:
    """Put the scaled gradients of a closure's loss in place of those that were there; return the loss."""
    optimizer.zero_grad()
    loss = closure()
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise TypeError(
            f"the closure returned {_named(loss)}: with a scaler it must return the loss and leave backward "
            "to the step, which scales it first."
        )
    if any(parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"]):
        raise RuntimeError(
            "the closure called backward: with a scaler it must only return the loss, the step scales it first."
        )
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    return loss


def check_kinds(closure: Any, sharpness: Any) -> None:
    """Refuse what is no closure, such as the loss, and what is no `SAM`.

    Raises:
        TypeError: for either.
    """
    if closure is not None and not callable(closure) and not isinstance(closure, GradScaler):
        raise TypeError(
            f"step got a {type(closure).__name__} where a closure belongs: call loss.backward() and then step(), or "
            "give a function that evaluates the loss."
        )
    if sharpness is not None and not isinstance(sharpness, SAM):
        raise TypeError(f"step(sharpness={sharpness!r}): give slalom.sharpness.SAM(0.05) or ASAM(0.5).")


def refuse_scaled_closure(optimizer: Optimizer, closure: Any) -> None:
    """Refuse the two ways of handing a scaler and a closure over that torch lets pass, and that step wrongly.

    Raises:
        TypeError: for ``optimizer.step(scaler)``.
        RuntimeError: for ``scaler.step(optimizer, closure)``, where the gradients of the closure would stay scaled.
    """
    if isinstance(closure, GradScaler):
        raise TypeError("step got a scaler where its closure belongs: write step(closure, scaler=scaler).")
    frame: FrameType | None = sys._getframe(1)
    # Only the scaler knows that it is stepping, and it tells nobody; the stack does.
    while frame is not None:
        if frame.f_code is GradScaler.step.__code__ and frame.f_locals.get("optimizer") is optimizer:
            if not frame.f_locals["self"].is_enabled():
                return
            raise RuntimeError(
                "scaler.step(optimizer, closure) would step with gradients that are still scaled: write "
                "optimizer.step(closure, scaler=scaler) with a closure that returns the loss and calls no backward."
            )
        frame = frame.f_back


def asked_by_a_step_of_a_scaler() -> bool:
    """Whether the caller of this function's caller is a scaler that steps, with nothing to hand on.

    Others ask too: Lightning refuses to clip where unscaling is left to the step, also without any scaler. To them it
    is not left, for whoever unscales first may.
    """
    frame = sys._getframe(2)
    return frame.f_code is GradScaler.step.__code__ and not (frame.f_locals["args"] or frame.f_locals["kwargs"])


def _named(loss: Any) -> str:
    if isinstance(loss, Tensor):
        return "a tensor without gradient"
    return "None" if loss is None else f"a {type(loss).__name__}"
