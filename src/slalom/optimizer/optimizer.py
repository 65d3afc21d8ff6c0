"""`Optimizer`: any recipe as a `torch.optim.Optimizer`. Every contract with torch is kept here, once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from slalom.engine import (
    EXECUTORS,
    Blocks,
    Executor,
    Rows,
)
from slalom.errors import UsageError, nearest, unknown
from slalom.optimizer.closures import asked_by_a_step_of_a_scaler, check_kinds, plain_step, scaled_step
from slalom.optimizer.evaluation import Evaluation
from slalom.optimizer.loading import KEPT, check_is_state, merged_groups, restored_states
from slalom.optimizer.nonfinite import OnNonfinite, checked
from slalom.optimizer.sparse import check_choice
from slalom.optimizer.updating import Updating
from slalom.recipes import ByRole, Method, Recipe
from slalom.recipes.blueprint import Blueprint
from slalom.roles import Role, groups_as_given, groups_by_role, with_blocks
from slalom.sharpness import SAM

Parameters: TypeAlias = "nn.Module | Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]"

# Keys that torch, its schedulers and slalom itself put into groups beside the hyper-parameters.
_OTHER_KEYS: Final = frozenset(
    {
        "params",
        "param_names",
        "role",
        "blocks",
        "maximize",
        "name",
        "sparse",
        "initial_lr",
        "max_lr",
        "min_lr",
        "max_momentum",
        "base_momentum",
    }
)


class Optimizer(Evaluation, Updating, torch.optim.Optimizer):
    """Runs a recipe on the parameters of a network.

    A drop-in for `torch.optim`: parameter groups, closures, hooks, schedulers, ``state_dict``. Every number in
    ``param_groups`` is live: what a scheduler or you assign holds from the next step. Step counts are per parameter.

    Args:
        params: parameters, named parameters, parameter groups, or a module.
        recipe: what to run: a `Recipe`, or a `ByRole`.
        maximize: ascend instead of descend.
        executor: what computes: "auto" takes the fastest that can run; "native" is compiled C, "triton" compiled
            for GPUs, "foreach" lists of torch operations, "eager" one torch operation after the other.
        on_nonfinite: what a step does if a gradient holds nan or infinity: "ignore" takes it, as torch does; "skip"
            changes nothing, no parameter, no state and no counter, in any group; "raise" changes nothing either and
            names parameter, step and share of bad values. Nothing may be written before every gradient was looked at,
            so looking is one more pass over them, at the speed of memory: 4 bytes beside the 28 per element that AdamW
            moves, and hardly anything of a training step. Ranks that hold shards (DTensor) decide together.
        sparse: what sparse gradients mean, also per group. "exact" uses them where rows without a gradient rest by
            the recipe itself (AdaGrad, FTRL with a fixed L1, plain SGD), so that leaving them out changes nothing, and
            refuses them elsewhere; "lazy" leaves such rows out whatever the recipe says, another algorithm, as
            torch's SparseAdam is (`slalom.replay` then makes up for what they miss). Steps are counted per table.
        roles: what parameters are taken for by recipes that sort them, by name pattern, over what the model's layers
            say: ``{"*.gate.weight": "vector"}`` (see `slalom.assign_roles`).
        by_role: settings of the groups that such recipes make, ``{"embedding": {"lr": 0.3, "weight_decay": 0.0}}``.
        blocks: parameters that are several matrices, by name pattern (or, as a group's "blocks", for all of it). A
            number cuts the first dimension into equal blocks, ``{"*.qkv.weight": 3}``; a tuple names the rows of each,
            ``(64, 16, 16)``; "batch" says that the first dimension counts matrices, ``{"*.experts.*": "batch"}``. Every
            block then moves as a parameter of its own would, whatever the recipe.

    Attributes:
        on_nonfinite: may be assigned at any time.
        skipped: how many steps were skipped, for a bad gradient or an overflow under `step`'s ``scaler``.

    Raises:
        ValueError: for a hyper-parameter outside its range; the sentence names it.
    """

    _method: ClassVar[Method | None] = None

    def __init__(
        self,
        params: Parameters,
        recipe: Recipe | ByRole,
        *,
        maximize: bool = False,
        executor: Executor = "auto",
        on_nonfinite: OnNonfinite = "ignore",
        sparse: Rows = "exact",
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None:
        self._set_up(Blueprint(recipe), executor, on_nonfinite, sparse, roles, by_role, blocks)
        defaults = {"lr": 1e-3} if isinstance(recipe, ByRole) else self._blueprint.defaults()
        super().__init__(self._sorted(params), {**defaults, "maximize": maximize})

    def _set_up(
        self,
        blueprint: Blueprint,
        executor: Executor,
        on_nonfinite: OnNonfinite,
        sparse: Rows,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
        blocks: Mapping[str, Blocks] | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        """Set what torch's constructor, which adds the groups, needs to find."""
        if executor not in EXECUTORS:
            raise unknown("executor", str(executor), EXECUTORS)
        self._blueprint = blueprint
        check_choice(sparse)
        self._executor: Executor = executor
        self.on_nonfinite: OnNonfinite = checked(on_nonfinite)
        self._skipped: int | Tensor = 0
        self._sparse: Rows = sparse
        self._roles, self._by_role, self._blocks = dict(roles or {}), dict(by_role or {}), dict(blocks or {})
        self._rates = dict(rates or {})  # of roles, by argument, for groups that are added
        self._forget()

    @classmethod
    def of(cls, recipe: Recipe | ByRole, params: Parameters) -> Optimizer:
        """Return an optimizer for a recipe; what `Recipe.build` calls."""
        return Optimizer(params, recipe)

    # --- parameters and groups ---------------------------------------------------------------------------------

    def _sorted(self, params: Parameters) -> Any:
        """Return what torch's constructor takes; for recipes by role, one group per role."""
        if self._blueprint.by_role:
            return groups_by_role(params, self._roles, self._by_role, self._blocks)
        if self._roles or self._by_role:
            raise UsageError("roles and by_role are for recipes that sort parameters by role; this one has no roles.")
        return groups_as_given(params, self._blocks)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its keys may override any hyper-parameter.

        Raises:
            ValueError: for a key that is nearly a hyper-parameter's name, or a value outside its range.
        """
        # torch writes into it; what the caller handed over stays as it was
        param_group = with_blocks(param_group, self._blocks)
        role = param_group.get("role", "rest")
        known = self._blueprint.defaults(role)
        for key in param_group:
            if key not in known and key not in _OTHER_KEYS:
                close = [name for name in nearest(key, known, most=1) if _alike(name, key)]
                if close:
                    raise ValueError(f'parameter group key "{key}" is unknown. Did you mean {close[0]}?')
        rate = self._blueprint.rates.get(role)
        if rate is not None:
            param_group.setdefault("lr", self._rates[rate])
        # Recipes by role bring numbers of their own; torch's defaults only know those that all roles share.
        for key, value in known.items():
            if isinstance(self._blueprint.origin, ByRole):
                param_group.setdefault(key, value)
        super().add_param_group(param_group)
        for key, value in param_group.items():
            # A schedule writes into a rate that is a tensor, for one group at a time.
            if isinstance(value, Tensor) and any(group.get(key) is value for group in self.param_groups[:-1]):
                param_group[key] = value.clone()
        try:
            self.recipe(self.param_groups[-1])
            check_choice(self._rows(self.param_groups[-1]))
        except Exception:
            self.param_groups.pop()
            raise

    def _rows(self, group: Mapping[str, Any]) -> Rows:
        """Return what sparse gradients mean in a group."""
        chosen: Rows = group.get("sparse", self._sparse)
        return chosen

    # --- the step ----------------------------------------------------------------------------------------------

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        scaler: GradScaler | None = None,
        sharpness: SAM | None = None,
        clip: Callable[[], Any] | None = None,
        retries: int = 0,
    ) -> Any:
        """Take one step.

        loss = opt.step(closure)                                # the closure clears gradients, calls backward
        loss = opt.step(lambda: loss_of(batch), scaler=scaler)  # mixed precision: the closure only computes the loss

        With a scaler the step clears the gradients, evaluates the closure, scales its loss, runs backward, unscales,
        clips, updates parameters unless a gradient overflowed, and updates the scaler: nothing of that is left to
        the caller, and hooks run once around it all. A scaler without closure, or one that several optimizers share,
        works as with any optimizer: ``scaler.step(opt)``. Where all parameters run through Triton neither waits for
        the device (docs/gpu.md); a step that an overflow keeps from changing anything then has its hooks run too.

        Args:
            closure: evaluates the loss and its gradients; called once, first, with gradients enabled. With a scaler it
                only returns the loss. Recipes that read the loss (see `needs_loss`) need it; others can do without.
            scaler: scales the loss of the closure.
            sharpness: evaluates the closure a second time, at the worst point nearby, and steps with the gradient that
                it has there: `slalom.sharpness.SAM` or `ASAM`.
            clip: called when the gradients are there, unscaled and not overflowed, before they are used, such as
                ``lambda: clip_grad_norm_(model.parameters(), 1.0)``.
            retries: how often an overflow lowers the scale and evaluates the closure again, before the step is skipped.

        Returns:
            What the closure returned (with a scaler: its loss, unscaled and detached), or None.

        Raises:
            RuntimeError: for a sparse gradient that the recipe cannot use; in eval mode (see `eval`); without the loss
                where it is needed; for a closure that reaches the step through ``scaler.step``. Nothing was changed.
            TypeError: for a scaler without a closure that returns a loss, for ``sharpness`` without closure, for a loss
                in place of a closure.
            FloatingPointError: for a gradient that is not finite, with ``on_nonfinite="raise"``.
        """
        if retries and scaler is None:
            raise ValueError(f"{retries=}: only an overflow under a scaler is tried again; give scaler=... too.")
        options = {"scaler": scaler, "sharpness": sharpness, "clip": clip, "retries": retries}
        keywords = {key: value for key, value in options.items() if value}
        if torch.compiler.is_dynamo_compiling():  # a recipe is compiled already: torch.compile goes around it
            return torch.compiler.disable(self._hooked_step)(closure, keywords)  # type: ignore[no-untyped-call]
        if torch._C._autograd._profiler_enabled():
            with torch.autograd.profiler.record_function(f"Optimizer.step#{type(self).__name__}.step"):
                return self._hooked_step(closure, keywords)
        return self._hooked_step(closure, keywords)

    # torch wraps a step that does not say so itself, at a cost that a small network feels more than the step.
    step.hooked = True  # type: ignore[attr-defined]

    def _hooked_step(self, closure: Callable[[], Any] | None, keywords: dict[str, Any]) -> Any:
        """Run the step between its hooks: global before local, and pre-hooks may replace the closure."""
        if self._evaluating:
            raise RuntimeError(
                "step() in eval mode: the model holds averaged parameters; call optimizer.train() before training on."
            )
        arguments: tuple[Any, ...] = (self,) if closure is None else (self, closure)
        for hook in chain(_global_optimizer_pre_hooks.values(), self._optimizer_step_pre_hooks.values()):
            changed = hook(self, arguments, keywords)
            if changed is not None:
                arguments, keywords = changed
                closure = arguments[1] if len(arguments) > 1 else keywords.get("closure")
        loss = self._evaluate(closure, **{key: value for key, value in keywords.items() if key != "closure"})
        for hook in chain(self._optimizer_step_post_hooks.values(), _global_optimizer_post_hooks.values()):
            hook(self, arguments, keywords)
        return loss

    def _evaluate(
        self,
        closure: Callable[[], Any] | None,
        scaler: GradScaler | None = None,
        sharpness: SAM | None = None,
        clip: Callable[[], Any] | None = None,
        retries: int = 0,
    ) -> Any:
        """Call the closure, as often as asked, and update."""
        check_kinds(closure, sharpness)
        update = functools.partial(self._update, clip)
        if scaler is None:
            return plain_step(self, closure, update, sharpness)
        unread = clip is None and not retries and self._stepped_unread()
        loss, skipped = scaled_step(self, closure, update, sharpness, scaler, retries, unread)
        self._skipped = self._skipped + skipped
        return loss

    @property
    def skipped(self) -> int:
        """How many steps were skipped."""
        self._skipped = int(self._skipped)
        return self._skipped

    @skipped.setter
    def skipped(self, number: int) -> None:
        self._skipped = number

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """What torch's scaler asks: whether the step honours its verdict, and divides by its scale, without reading."""
        return asked_by_a_step_of_a_scaler() and self._stepped_unread()

    # --- saving, loading, copying ------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, exactly, or the state of the `torch.optim` class of the same method.

        Raises:
            ValueError: if anything does not fit; then nothing was changed.
        """
        check_is_state(state_dict)
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            if changed is not None:
                state_dict = changed
        saved_groups = copy.deepcopy(state_dict["param_groups"])
        groups = merged_groups(saved_groups, self.param_groups)
        for group in groups:
            self.recipe(group)  # refuses what is out of range, before anything changes
        states = restored_states(state_dict["state"], saved_groups, groups, self._loadable)
        self.param_groups[:] = groups
        self._crews.clear()
        self.state.clear()
        self.state.update(states)
        self._evaluating = any(KEPT in state for state in states.values())
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle keeps: torch's three, and the recipe unless the class has it."""
        return {
            **super().__getstate__(),
            "_blueprint": self._blueprint,
            "_executor": self._executor,
            "on_nonfinite": self.on_nonfinite,
            "skipped": self.skipped,
            "_sparse": self._sparse,
            "_blocks": self._blocks,
            "_rates": self._rates,
            "_evaluating": self._evaluating,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        older = {"on_nonfinite": "ignore", "_sparse": "exact", "_blocks": {}}
        super().__setstate__({**older, **state})
        self.skipped = self.__dict__.pop("skipped", 0)
        self._forget()
        for group in self.param_groups:
            group.setdefault("maximize", False)

    def __repr__(self) -> str:
        from slalom.describe import describe_optimizer

        return describe_optimizer(self)


def _alike(a: str, b: str) -> bool:
    """Return whether two keys differ by a slip: the same letters in another order, or one letter."""
    return sorted(a) == sorted(b) or (abs(len(a) - len(b)) <= 1 and len(set(a) ^ set(b)) <= 1)
