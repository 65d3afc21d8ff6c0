"""What can happen to an optimizer between and in its steps: the operations that random lives are made of.

Three optimizers live in parallel. The *subject* is saved, loaded, copied, pickled and given steps to skip; the
*shadow* only steps, so both must agree to the bit. The *reference* is eager, float64, and starts each step from what
the subject is, so it must agree to rounding: which executor runs, and what was planned for which step, cannot matter.
"""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR

import slalom
from networks import build, quietly
from slalom import list_optimizers
from slalom.recipes import method
from slalom.roles.groups import split_by_shape

F32, BF16, F64 = torch.float32, torch.bfloat16, torch.float64
KINDS: list[tuple[tuple[int, ...], torch.dtype]] = [
    *[(shape, F32) for shape in [(), (3,), (4, 3), (2, 3, 2, 2), (0, 3), (5, 1), (17,)]],
    ((4, 3), BF16),
    ((5,), BF16),
    ((3, 2), F64),
]
EXECUTORS = ["auto", "foreach", "eager"]
RATES = [0.0, 1e-3, 1e-2, 0.1]
SIZES = [0.0, 1e-4, 1.0, 100.0]
# Their matrix functions iterate in low precision or on a schedule of their own: float64 is not their reference.
NO_REFERENCE = {name for name in list_optimizers() if method(name).family == "matrix"}


def parameter(kind: tuple[tuple[int, ...], torch.dtype], transposed: bool, seed: int) -> nn.Parameter:
    shape, dtype = kind
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)
    return nn.Parameter(values.t().contiguous().t() if transposed and values.ndim == 2 else values)


def fresh(name: str, optimizer: slalom.Optimizer, executor: str, dtype: torch.dtype | None = None) -> slalom.Optimizer:
    """An optimizer in the same state with groups of its own, on the same parameters or on copies of another dtype."""
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        params = group["params"]
        if dtype is not None:
            params = [nn.Parameter(p.detach().to(dtype, copy=True)) for p in params]
        groups.append({"params": params, **({"role": group["role"]} if "role" in group else {})})
    made = build(name, groups, executor=executor, sparse=optimizer._sparse)
    made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    made.on_nonfinite = optimizer.on_nonfinite
    return made


def parameters(optimizer: slalom.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def same(a: Tensor, b: Tensor) -> bool:
    if a.is_sparse:
        return torch.equal(a._indices(), b._indices()) and same(a._values(), b._values())
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a, b) or (not a.isfinite().all() and torch.equal(a.nan_to_num(0.5), b.nan_to_num(0.5)))


def results(optimizer: slalom.Optimizer) -> dict[tuple[int, str], Tensor]:
    """All that a step leaves behind, by the parameter's place and a name."""
    found = {}
    for place, p in enumerate(parameters(optimizer)):
        found[place, "parameter"] = p.detach()
        found |= {(place, key): value for key, value in optimizer.state.get(p, {}).items()}
    return found


def disagreement(value: Tensor, expected: Tensor, rtol: float, atol: float) -> Tensor | None:
    """By how much values differ where they differ by more than rounding, None if they do not; nan is equal to nan."""
    difference = (value.to(F64) - expected).abs()
    fine = difference <= atol + rtol * expected.abs()
    if fine.all():
        return None
    fine |= (value.to(F64) == expected) | (value.isnan() & expected.isnan())
    return None if fine.all() else difference.nan_to_num(torch.inf).masked_fill(fine, 0.0)


class Life:
    """What can happen to an optimizer, in any order."""

    subject: slalom.Optimizer
    shadow: slalom.Optimizer

    def born(self, name: str, executor: str, kinds: list[Any], rows: Any, seed: int) -> None:
        self.name, self.executor = name, executor
        params = [parameter(kind, transposed, seed + place) for place, (kind, transposed) in enumerate(kinds)]
        twins = copy.deepcopy(params)
        self.subject, self.shadow = (build(name, each, executor=executor, sparse=rows) for each in (params, twins))
        self.steep = 0  # differences that the formula excuses
        self.reads_loss = self.subject.needs_loss
        self.twin: slalom.Optimizer | None = None
        self.subject.on_nonfinite = "skip"
        self.schedules: list[ExponentialLR] | None = None

    def go(self, optimizer: slalom.Optimizer, loss: float) -> None:
        optimizer.step((lambda: loss) if self.reads_loss else None)

    def both(self) -> tuple[slalom.Optimizer, slalom.Optimizer]:
        return self.subject, self.shadow

    # --- what changes the run, of both ---------------------------------------------------------------------------

    def step(self, missing: int, size: float, seed: int, stays: bool, sparse: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        for place, (p, twin) in enumerate(zip(parameters(self.subject), parameters(self.shadow), strict=True)):
            gradient = (size * torch.randn(p.shape, generator=generator, dtype=F64)).to(p.dtype)
            absent = missing >> (place % 8) & 1 or not p.requires_grad
            if sparse and p.ndim == 2:
                gradient[:: 1 + seed % 3] = 0.0
                gradient = gradient.to_sparse(1)
            for each in (p, twin):
                if stays and not (absent or sparse) and each.grad is not None and not each.grad.is_sparse:
                    each.grad.copy_(gradient)  # the same memory as in the last step
                else:
                    each.grad = None if absent else gradient.clone()
        reference = self.reference()
        kept = [None if p.grad is None else p.grad.clone() for p in parameters(self.subject)]
        refused = self.refused(self.subject, 1.0 + size)
        assert sparse or not refused
        assert all(g is None or same(g, p.grad) for g, p in zip(kept, parameters(self.subject), strict=True))
        if reference is not None and not refused:
            self.go(reference, 1.0 + size)
            self.compare(reference, 1.0 + size)
        assert self.refused(self.shadow, 1.0 + size) == refused

    def refused(self, optimizer: slalom.Optimizer, loss: float) -> bool:
        """Step, unless the recipe has no use for sparse gradients; then nothing may have changed."""
        if not any(p.grad is not None and p.grad.is_sparse for p in parameters(optimizer)):
            self.go(optimizer, loss)
            return False
        before = [p.detach().clone() for p in parameters(optimizer)]
        counts = {p: float(state["step"]) for p, state in optimizer.state.items()}
        try:
            self.go(optimizer, loss)
        except RuntimeError as error:
            if "sparse" not in str(error):
                raise
            assert all(same(p.detach(), q) for p, q in zip(parameters(optimizer), before, strict=True))
            assert all(float(state["step"]) == counts.get(p, 0.0) for p, state in optimizer.state.items())
            return True
        return False

    def plain_steps(self, seed: int) -> None:
        """What happens most in a real life."""
        for number in range(2):
            self.step(0, 1.0, seed + number, stays=bool(number))

    def reference(self) -> slalom.Optimizer | None:
        if self.name in NO_REFERENCE:
            return None
        if self.twin is None or not self.twin_follows(self.twin):
            self.twin = fresh(self.name, self.subject, "eager", F64)
        for p, reference in zip(parameters(self.subject), parameters(self.twin), strict=True):
            reference.grad = None if p.grad is None else p.grad.to(F64)
        return self.twin

    @torch.no_grad()
    def twin_follows(self, twin: slalom.Optimizer) -> bool:
        """Give the last step's reference the subject's values; False if it is not made like the subject any more."""
        ours, theirs = parameters(self.subject), parameters(twin)
        states = [(self.subject.state.get(p, {}), twin.state.get(q, {})) for p, q in zip(ours, theirs, strict=False)]
        if len(ours) != len(theirs) or any(have.keys() != got.keys() for have, got in states):
            return False
        for have, group in zip(self.subject.param_groups, twin.param_groups, strict=True):
            group.update({key: value for key, value in have.items() if key not in ("params", "param_names")})
        for p, q in zip(ours, theirs, strict=True):
            q.copy_(p)
        for have, got in states:
            for key, value in have.items():
                got[key].copy_(value)
        return True

    def compare(self, reference: slalom.Optimizer, loss: float) -> None:
        ours, expected = results(self.subject), results(reference)
        a, b = (torch.cat([value.reshape(-1).to(F64) for value in found.values()]) for found in (ours, expected))
        if bool(((a - b).abs() <= 1e-5 + 1e-5 * b.abs()).all()):  # the quick look, stricter than the one that follows
            return
        wrong = [
            disagreement(value, expected[key], *self.allowed(key, value, expected[key])) for key, value in ours.items()
        ]
        if any(bad is not None for bad in wrong):
            self.excuse(dict(zip(ours, wrong, strict=True)), expected, loss)

    @staticmethod
    def allowed(key: tuple[int, str], value: Tensor, expected: Tensor) -> tuple[float, float]:
        if key[1] == "parameter":
            return 2.0**-7 if value.dtype == BF16 else 1e-4, 2e-5
        size = expected.abs().max().nan_to_num().item() if expected.numel() else 0.0
        return 1e-4, 1e-5 * (1 + size)

    @torch.no_grad()
    def excuse(self, wrong: dict[tuple[int, str], Tensor | None], expected: dict[Any, Tensor], loss: float) -> None:
        """Let a difference pass where the formula itself jumps: a sign, a mask or a quotient at rounding's distance.

        The shadow still is what the subject was before the step. From there the reference is run with its inputs moved
        by as little as float32 rounds; where its own results move as far as the difference, nobody is wrong.
        """
        spread = {key: torch.zeros_like(value) for key, value in expected.items()}
        for draw in range(6):
            generator = torch.Generator().manual_seed(draw)
            moved = fresh(self.name, self.shadow, "eager", F64)
            for p, q in zip(parameters(self.shadow), parameters(moved), strict=True):
                q.grad = None if p.grad is None else p.grad.to(F64)
                floats = [q, q.grad, *moved.state.get(q, {}).values()]
                for value in (v for v in floats if v is not None and v.dtype == F64):
                    inner = value._values() if value.is_sparse else value
                    inner.mul_(1 + 1e-6 * torch.randn(inner.shape, generator=generator, dtype=F64))
            self.go(moved, loss)
            for key, value in results(moved).items():
                spread[key] = torch.maximum(spread[key], (value - expected[key]).abs())
        before = results(self.shadow)
        for key, difference in wrong.items():
            # a state that falls from 100 to 0.001 in one step keeps what float32 could not say of the 100
            rounding = 1e-6 * before[key].abs().max().item() if key in before and before[key].numel() else 0.0
            if difference is not None and not bool((difference <= 4 * spread[key] + rounding).all()):
                raise AssertionError(
                    f"{key[1]} of parameter {key[0]} is off by {difference.max().item():.3g} where 1e-6 more or less "
                    f"in what goes in makes {spread[key].max().item():.3g}"
                )
        self.steep += 1

    def has_exploded(self) -> bool:
        return not all(bool((p.abs() < 1e12).all()) for p in parameters(self.subject))

    def has_room(self) -> bool:
        return len(self.subject.param_groups) < 4

    def add_group(self, kind: Any, transposed: bool, seed: int, lr: float) -> None:
        for optimizer in self.both():
            group = {"params": [parameter(kind, transposed, seed)], "lr": lr}
            by_role = "role" in optimizer.param_groups[0]
            optimizer.add_param_group(quietly(lambda g=group: split_by_shape(g)[0]) if by_role else group)

    def freeze_or_thaw(self, place: int) -> None:
        for optimizer in self.both():
            params = parameters(optimizer)
            p = params[place % len(params)]
            p.requires_grad_(not p.requires_grad)

    def change(self, place: int, lr: Any, decay: Any, first: Any, up: Any, tensor: bool) -> None:
        for optimizer in self.both():
            group = optimizer.param_groups[place % len(optimizer.param_groups)]
            before = dict(group)
            if lr is not None:
                group["lr"] = torch.tensor(lr, dtype=F64) if tensor else lr
            if decay is not None and "weight_decay" in group:
                group["weight_decay"] = decay
            if first is not None and "betas" in group:
                group["betas"] = (first, *group["betas"][1:])
            if first is not None and "momentum" in group:
                group["momentum"] = first
            if up is not None:
                group["maximize"] = up
            try:
                optimizer.recipe(group)
            except ValueError:  # out of this recipe's range, as a beta of 0 is for Schedule-Free
                group.update(before)

    def schedule(self) -> None:
        if self.schedules is None:
            self.schedules = [ExponentialLR(optimizer, 0.9) for optimizer in self.both()]
        for optimizer, schedule in zip(self.both(), self.schedules, strict=True):
            optimizer._opt_called = True  # type: ignore[attr-defined]  # no step may have come before: no warning
            schedule.step()

    def switch_executor(self, executor: str) -> None:
        self.executor = executor
        self.subject, self.shadow = (fresh(self.name, optimizer, executor) for optimizer in self.both())
        self.rewire()

    # --- what must change nothing, of the subject alone ----------------------------------------------------------

    def rewire(self) -> None:
        """Give new optimizers the schedule of the old ones, as a resumed run does."""
        if self.schedules is not None:
            for number, optimizer in enumerate(self.both()):
                state, lrs = self.schedules[number].state_dict(), [group["lr"] for group in optimizer.param_groups]
                self.schedules[number] = ExponentialLR(optimizer, 0.9)
                self.schedules[number].load_state_dict(state)
                for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                    group["lr"] = lr

    def save_and_load(self, into_itself: bool) -> None:
        file = io.BytesIO()
        torch.save(self.subject.state_dict(), file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        if not into_itself:
            self.subject = fresh(self.name, self.subject, self.executor)
            self.rewire()
        self.subject.load_state_dict(loaded)

    def move_in_memory(self, state_too: bool) -> None:
        for p in parameters(self.subject):
            p.data = p.data.clone(memory_format=torch.preserve_format)
            if state_too:
                shared = {id(value) for other in self.subject.state.values() if other is not self.subject.state.get(p)
                          for value in other.values()}  # fmt: skip
                for key, value in self.subject.state.get(p, {}).items():
                    if id(value) not in shared:
                        self.subject.state[p][key] = value.clone()

    def become_a_copy(self, by_pickle: bool) -> None:
        old = self.subject
        self.subject = pickle.loads(pickle.dumps(old)) if by_pickle else copy.deepcopy(old)
        for p, before in zip(parameters(self.subject), parameters(old), strict=True):
            assert p is not before
        self.rewire()

    @contextlib.contextmanager
    def other_gradients(self) -> Iterator[list[nn.Parameter]]:
        """Lend the gradients: with other strides the next step would add in another order."""
        kept = [(p, p.grad) for p in parameters(self.subject)]
        yield [p for p, _ in kept if p.numel() and p.requires_grad]
        for p, gradient in kept:
            p.grad = gradient

    def meet_a_bad_gradient(self, bad: float, place: int) -> None:
        with self.other_gradients() as params:
            if params:
                for p in params:
                    p.grad = torch.ones_like(p)
                grad = params[place % len(params)].grad
                grad[(-1,) * grad.ndim] = bad
                before = self.subject.skipped
                self.go(self.subject, 1.0)
                assert self.subject.skipped == before + 1

    def overflow(self) -> None:
        with self.other_gradients() as params:
            if params:
                scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
                self.subject.step(lambda: sum(p.double().sum() for p in params) * float("inf"), scaler=scaler)

    def begin_anew(self) -> None:
        for optimizer in self.both():
            optimizer.state.clear()

    def make_all_state(self) -> None:
        self.subject.init_state()

    def read_the_average(self) -> None:
        with self.subject.averaged():
            assert all(p.shape == q.shape for p, q in zip(*map(parameters, self.both()), strict=True))

    def be_printed(self) -> None:
        assert str(self.subject)

    def both_are_equal(self) -> None:
        for ours, theirs in zip(self.subject.param_groups, self.shadow.param_groups, strict=True):
            for p, twin in zip(ours["params"], theirs["params"], strict=True):
                assert same(p.detach(), twin.detach())
                state, expected = self.subject.state.get(p, {}), self.shadow.state.get(twin, {})
                if not expected:  # `init_state` makes what the first step would
                    assert not state or state["step"] == 0
                    continue
                # `init_state` may have made more, for a momentum that was set to 0 before it was ever used
                assert all(same(state[key], value) for key, value in expected.items())
