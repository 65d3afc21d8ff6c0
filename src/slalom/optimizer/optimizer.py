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

from slalom.algebra import State, Value
from slalom.engine import (
    EXECUTORS,
    STEP,
    Blocks,
    Executor,
    Leaves,
    Program,
    Rows,
    choose,
    fresh,
    kept_dtype,
    pieces,
    real_view,
    trace,
)
from slalom.engine.program import Recorder, the_one
from slalom.engine.shards import any_sharded, local, placed
from slalom.errors import UsageError, nearest, unknown
from slalom.optimizer.closures import asked_by_a_step_of_a_scaler, check_kinds, plain_step, scaled_step
from slalom.optimizer.evaluation import Evaluation
from slalom.optimizer.loading import KEPT, check_is_state, check_layout, merged_groups, restored_states
from slalom.optimizer.nonfinite import OnNonfinite, checked
from slalom.optimizer.sparse import check_choice
from slalom.optimizer.updating import Updating
from slalom.parts import Signals
from slalom.recipes import ByRole, Method, Recipe
from slalom.recipes.blueprint import Asked, Blueprint, is_zero, numbers
from slalom.roles import Role, blocks_of, groups_as_given, groups_by_role, with_blocks
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

    # --- programs and state ------------------------------------------------------------------------------------

    def program(self, group: Mapping[str, Any], parameter: Tensor) -> Program:
        """Return what a step does to a parameter, as it runs; traced again only when the structure changes."""
        role = group.get("role", "rest")
        ndim = min(pieces(real_view(parameter), blocks_of(group, parameter))[0].ndim, 2)
        key = (role, group["maximize"], ndim, self._blueprint.structure(group, role))
        values = numbers(group)
        known = self._programs.setdefault(key, [])
        for program in known:
            if all(is_zero(values[name]) != answer for name, answer in program.asked.items()):
                return program
        known.append(the_one(self.traced(group, ndim, Recipe.run)))
        return known[-1]

    def traced(
        self, group: Mapping[str, Any], ndim: int, method: Callable[[Recipe, Signals, Recorder], Value]
    ) -> Program:
        """Return what a method of a group's recipe computes, on parameters of so many dimensions, as a new program."""
        role = group.get("role", "rest")
        asked: Asked = {}
        recipe = self._blueprint.recipe(self._blueprint.live(group, role, asked), role)

        def formula(leaves: Leaves, store: Recorder) -> Value:
            signed = leaves._replace(grad=-leaves.grad, loss=-leaves.loss) if group["maximize"] else leaves
            return method(recipe, Signals.start(**signed._asdict(), ndim=ndim), store)

        return trace(formula, asked)

    def recipe(self, group: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a parameter group, its numbers as symbols that carry the values they have now."""
        role = group.get("role", "rest")
        return self._blueprint.recipe(self._blueprint.live(group, role), role)

    def schema(self, group: Mapping[str, Any], parameter: Tensor) -> Mapping[str, State]:
        """Return the declaration of a parameter's state, by key."""
        return self.program(group, parameter).states

    def _loadable(self, group: Mapping[str, Any], parameter: Tensor) -> tuple[dict[str, State], set[str]]:
        """Return the states that a checkpoint of this recipe may hold, and those that it must hold.

        A number that was set to 0, or from 0, since the last step has left a state behind or has not made it yet.
        """
        program = self.program(group, parameter)
        allowed, needed = dict(program.states), set(program.states)
        for (name, place), answer in program.asked.items():
            other: Any = 0.0 if answer else 0.5
            if place is not None:
                other = (*group[name][:place], other, *group[name][place + 1 :])
            try:
                states = self.program({**group, name: other}, parameter).states
            except ValueError:
                continue  # the recipe refuses this value, so it cannot have been
            allowed = {**states, **allowed}
            needed &= set(states)
        return allowed, needed

    def executors(self) -> dict[str, str]:
        """Return which executors run, each with the reason, for the parameters of all groups."""
        return dict(
            choose(
                self.program(group, parameter),
                pieces(real_view(local(parameter)), blocks_of(group, parameter))[0],
                self._executor,
            )
            for group in self.param_groups
            for parameter in group["params"]
        )

    @property
    def needs_loss(self) -> bool:
        """Whether the recipe reads the loss, so that ``step`` needs a closure that returns it."""
        groups = self.param_groups
        return any(self.program(group, parameter).needs_loss for group in groups for parameter in group["params"])

    @torch.no_grad()
    def init_state(self) -> None:
        """Create every parameter's state now, not at its first step. Changes no parameter, counts nothing.

        To be called before ``torch.distributed.checkpoint`` saves or loads an optimizer that has not stepped: it takes
        a step with a rate of 0 to find out about the state, and that step would count.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                self._prepare(group, parameter, self.program(group, parameter))

    def _prepare(self, group: Mapping[str, Any], parameter: Tensor, program: Program) -> dict[str, Any]:
        """Return a parameter's state, created as a whole if it is not there."""
        state: dict[str, Any] = self.state.get(parameter, {})
        made: dict[str, Any] = {}  # where memory ends halfway, there is none of it
        blocks = blocks_of(group, parameter)
        if STEP not in state:
            made[STEP] = torch.tensor(0.0, dtype=torch.float32)
        sharded = any_sharded([parameter])
        for key, slot in program.states.items():
            if key not in state:
                shared = self._shared(group, key, slot)
                if shared is None:
                    number = self._number(parameter) if slot.init == "number" else 0
                    shared = (
                        placed(slot, parameter, program, number=number)
                        if sharded
                        else fresh(slot, real_view(parameter.detach()), blocks, number)
                    )
                made[key] = shared
            elif sharded:
                made[key] = placed(slot, parameter, program, state[key])
            else:
                check_layout(key, slot, state[key], real_view(parameter), blocks)
                if slot.per in ("left", "right"):  # whose precision is a setting
                    made[key] = state[key].to(kept_dtype(slot, parameter))
        self.state[parameter].update(made)
        kept: dict[str, Any] = self.state[parameter]
        return kept

    def _number(self, parameter: Tensor) -> int:
        """Return a parameter's place among those of all groups."""
        everything = chain.from_iterable(group["params"] for group in self.param_groups)
        return next(place for place, other in enumerate(everything) if other is parameter)

    def _shared(self, group: Mapping[str, Any], key: str, slot: State) -> Tensor | None:
        """Return the tensor of a state that a group or the whole model has in common, if someone has it already."""
        if slot.scope == "tensor":
            return None
        mates = self.param_groups if slot.scope == "model" else [group]
        for mate in mates:
            for other in mate["params"]:
                if key in self.state.get(other, {}):
                    found: Tensor = self.state[other][key]
                    return found
        return None

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
