"""Every contract of the kit catches the defect that it is for: one class each, with one thing wrong.

The 15 classes of test_conformance.py plant the defects of the update itself; these plant the others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn

import test_conformance
from slalom.testing import check_optimizer
from slalom.testing.conformance import CONTRACTS, Contract
from test_conformance import Sound

CAUGHT: dict[str, type[torch.optim.Optimizer]] = {}


def breaks(*contracts: str) -> Any:
    """Say which contracts must catch a class."""

    def register(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
        CAUGHT.update(dict.fromkeys(contracts, cls))
        return cls

    return register


@breaks("closure-name")
class NamesClosureOtherwise(Sound):
    """torch's checkpoints call step(closure=None)."""

    def step(self, fn: Any = None) -> Any:  # type: ignore[override]
        return super().step(fn)


@breaks("shapes")
class NeedsRows(Sound):
    """Reads the first row of everything."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        g[0]
        super().move(group, p, g)


@breaks("strides")
class FlattensInMemoryOrder(Sound):
    """Treats memory as if it were in the order of elements."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if not g.is_sparse and p.ndim == 2 and not p.is_contiguous():
            g = g.contiguous().reshape(p.t().shape).t()
        super().move(group, p, g)


@breaks("groups-complete")
class ForgetsDefaults(Sound):
    """Reads some numbers from itself, not from its groups."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self.param_groups[-1].pop("maximize")

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        group.setdefault("maximize", False)
        super().move(group, p, g)

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group.setdefault("maximize", self.defaults["maximize"])
        return super().step(closure)


@breaks("state-plain")
class KeepsObjects(Sound):
    """AdaShift's deque, Conda's projector: state that only pickle can save."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g)
        self.state[p]["last"] = [1.0]


@breaks("load-copies")
class LoadsByReference(Sound):
    """torch's own way: the dictionary that was given goes on changing."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super(Sound, self).load_state_dict(state_dict)


@breaks("load-fresh")
class NeedsState(Sound):
    """Expects state where there has been no step."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict["state"][0]
        super().load_state_dict(state_dict)


@breaks("load-refuses")
class TakesAnyCheckpoint(Sound):
    """Assigns what it is given."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for p, state in zip(self.param_groups[0]["params"], state_dict["state"].values(), strict=False):
            self.state[p] = copy.deepcopy(state)


@breaks("copies", "copy-attributes")
class LosesAttributes(Sound):
    """An attribute of its own, which torch's __getstate__ leaves out."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False) -> None:
        self.factor = 2.0
        super().__init__(params, lr, maximize)

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g * self.factor)


@breaks("added-group", "bad-params")
class TakesGroupsAsTheyAre(Sound):
    """A group that is added gets the state of the first, and nobody looks at what is in it."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        params = param_group["params"]
        params = [params] if isinstance(params, torch.Tensor) else list(params)
        pairs = bool(params) and isinstance(params[0], tuple)
        names = {"param_names": [name for name, _ in params]} if pairs else {}
        params = [p for _, p in params] if pairs else params
        known = next(iter(self.state.values()), {})
        for p in params:
            if known and "m" in known and isinstance(p, torch.Tensor):
                self.state[p]["m"] = known["m"].mean() * torch.ones_like(p)
        self.param_groups.append({**self.defaults, **param_group, **names, "params": params})


@breaks("two-groups", "group-rate")
class OneRateForAll(Sound):
    """The first group's rate is everybody's."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(self.param_groups[0], p, g)


@breaks("one-each")
class SharesAcrossParameters(Sound):
    """Clips by the norm of all gradients."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        grads = [q.grad for q in group["params"] if q.grad is not None]
        norm = sum(float(h.double().norm()) for h in grads) if not g.is_sparse else 1.0
        super().move(group, p, g / max(1.0, norm))


@breaks("named")
class DropsNames(Sound):
    """Unpacks pairs and forgets the names."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False) -> None:
        entries = params if isinstance(params, torch.Tensor) else list(params)
        super().__init__([e[1] if isinstance(e, tuple) else e for e in entries], lr, maximize)


@breaks("hooks", "hooks-global")
class CallsTheParentsStep(torch.optim.SGD):
    """Subclasses a torch optimizer and steps through it: hooks fire for both, once the parent has been used."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False) -> None:
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
        super().__init__(params, lr=lr, maximize=maximize)

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@breaks("subclass")
class KnowsItsClass(Sound):
    """Compares types instead of asking isinstance."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        assert type(self) is KnowsItsClass
        super().move(group, p, g)


@breaks("tensor-rate")
class TakesNumbersOnly(Sound):
    """Refuses a tensor."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False) -> None:
        if not isinstance(lr, float):
            raise TypeError("lr")
        super().__init__(params, lr, maximize)


@breaks("ranges")
class TakesAnyRate(Sound):
    """Does not look at the rate."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False) -> None:
        super().__init__(params, abs(lr), maximize)


@breaks("scaler")
class CountsSkippedSteps(Sound):
    """Says that it handles scaled gradients, and does not."""

    _step_supports_amp_scaling = True


@breaks("complex")
class MisreadsComplex(Sound):
    """Works on the real part."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g.real + 0j if g.is_complex() else g)


@breaks("sparse")
class ChangesBeforeRefusing(Sound):
    """Notices a sparse gradient when it has decayed the weights."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if g.is_sparse:
            p.mul_(0.9)
        super().move(group, p, g)


@breaks("in-place")
class PutsNewMemory(Sound):
    """p.data = ..., after which nobody else's view of the parameter is true."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g)
        p.data = p.data.clone()


@breaks("autograd-told")
class GoesAroundAutograd(Sound):
    """Writes through .data, as compiled code does through a pointer."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p.data, g)


@breaks("gradient-strides")
class ReadsGradientsAsMemory(Sound):
    """Reads a gradient's storage from its start."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if not g.is_sparse and g.numel() and not g.is_contiguous():
            g = torch.as_strided(g, (1,), (1,)).expand(g.shape)
        super().move(group, p, g)


@breaks("mixed-dtypes")
class OneDtypeForAll(Sound):
    """Puts all in one buffer of the first dtype."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if p.dtype != group["params"][0].dtype:
            raise RuntimeError("expected one dtype")
        super().move(group, p, g)


@breaks("frozen")
class MovesFrozen(Sound):
    """Decays what is frozen."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if not p.requires_grad:
                    p.mul_(0.99)
        return super().step(closure)


@breaks("order")
class DependsOnPlace(Sound):
    """A rate by position, as layer-wise decay by counting does it."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        place = [id(q) for q in group["params"]].index(id(p))
        super().move({**group, "lr": float(group["lr"]) * 0.9**place}, p, g)


@breaks("deterministic")
class DrawsFromTheAir(Sound):
    """Noise that no seed reaches."""

    air = torch.Generator()

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move({**group, "lr": float(group["lr"]) * float(torch.rand((), generator=self.air))}, p, g)


@breaks("default-dtype")
class TakesTheDefaultDtype(Sound):
    """Makes tensors without saying of which dtype."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if not g.is_sparse and p.dtype == torch.float32:
            g = torch.dot(torch.ones(1), torch.ones(1, dtype=p.dtype)) * g
        super().move(group, p, g)


@breaks("schedules")
class KeepsItsRate(Sound):
    """Writes its own rate back into the groups."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            group["lr"] = self.defaults["lr"]
        return loss


@breaks("rate-kept")
class ScalesItsRate(Sound):
    """Warms up by multiplying the tensor that the caller owns."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].mul_(0.5)
        super().move(group, p, g)


@breaks("zero-grad")
class OldZeroGrad(Sound):
    """The signature from before set_to_none."""

    def zero_grad(self) -> None:  # type: ignore[override]
        super().zero_grad()


@breaks("state-hooks")
class ForgetsHooks(Sound):
    """A loader of its own that does not run hooks."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        hooks = self._optimizer_load_state_dict_pre_hooks.copy()
        self._optimizer_load_state_dict_pre_hooks.clear()
        super().load_state_dict(state_dict)
        self._optimizer_load_state_dict_pre_hooks.update(hooks)


@breaks("printing")
class CannotBePrinted(Sound):
    """Reads state that is not there before the first step."""

    def __repr__(self) -> str:
        return str(self.state[self.param_groups[0]["params"][0]]["m"].shape)


@breaks("no-loss")
class ReturnsItself(Sound):
    """Returns something where there was no closure."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        return self if loss is None else loss


@breaks("load-older")
class NeedsNewKeys(Sound):
    """No default for a switch that older checkpoints lack."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False) -> None:
        super().__init__(params, lr, maximize)
        self.defaults["foreach"] = False
        for group in self.param_groups:
            group["foreach"] = False

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g if group["foreach"] is False else -g)


@breaks("load-step")
class NeedsTensorSteps(Sound):
    """Counts in a tensor and expects one back."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g)
        state = self.state[p]
        state.setdefault("step", torch.tensor(0.0)).add_(1)


@breaks("load-names")
class NeedsEqualNames(Sound):
    """Refuses a checkpoint without names."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        names = [set(group) & {"param_names"} for group in (*state_dict["param_groups"], *self.param_groups)]
        if names[0] != names[-1]:
            raise ValueError("names")
        super().load_state_dict(state_dict)


@breaks("gradients-kept")
class NegatesInPlace(torch.optim.Optimizer):
    """113 classes of one package: with maximize the gradient itself changes its sign, at every step again."""

    def __init__(self, params: Any, lr: float = 0.1, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "maximize": maximize})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                g = p.grad.neg_() if group["maximize"] else p.grad
                p.sub_(group["lr"] * g)
        return None if closure is None else closure()


@breaks("tall-wide")
class TurnsNothing(Sound):
    """Alice and RACS: a projection that only fits matrices with more rows than columns."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if g.ndim == 2 and not g.is_sparse:
            g = g @ torch.eye(g.shape[1])[: g.shape[0]]
        super().move(group, p, g)


@breaks("zero-values")
class StepsRelatively(Sound):
    """AdaSmooth: nan as soon as a tensor is all zero."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g if g.is_sparse else g * (p.norm() / p.norm()))


@breaks("gradients-freed")
class KeepsGradients(Sound):
    """Holds the last gradients, and with them their memory, through the next forward pass."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        self.__dict__.setdefault("_last", {})[id(p)] = g
        super().move(group, p, g)


@breaks("begin-anew")
class KeepsStateAside(Sound):
    """A cache beside the state, which nobody who clears the state knows of."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        self.state[p].update(self.__dict__.setdefault("_kept", {}).get(id(p), {}))
        super().move(group, p, g)
        self._kept[id(p)] = dict(self.state[p])


@breaks("no-gradients")
class AgesWithoutGradients(Sound):
    """Lets all momentum fade at every step, whoever has a gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for state in self.state.values():
            state["m"].mul_(0.99)
        return loss


@breaks("gradient-gone")
class CoastsOn(Sound):
    """Takes None for zero where there is momentum."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None and p in self.state:
                    self.move(group, p, torch.zeros_like(p))
        return loss


@breaks("zero-still")
class StepsForNothing(Sound):
    """An epsilon in the numerator."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g if g.is_sparse else torch.sign(g + 1e-12))


@breaks("zero-later")
class DividesByItsLength(Sound):
    """0 / 0 when gradients end."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g / g.norm() if self.state[p] and not g.is_sparse else g)


@breaks("gradient-reused")
class KeepsTheGradientItself(Sound):
    """The previous gradient, by reference: it is the new one by then."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        before = self.__dict__.setdefault("previous", {}).get(id(p), g)
        self.__dict__["previous"][id(p)] = g
        super().move(group, p, g if g.is_sparse else g + (g - before))


@breaks("bfloat16-state")
class AveragesInBfloat16(Sound):
    """0.999 v rounds back to v: what was large once stays large."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        state = self.state[p]
        if not state:
            state["v"] = torch.zeros_like(p)
        state["v"].mul_(0.999).add_(0.001 * g * g)
        p.sub_(float(group["lr"]) * g / (state["v"].sqrt() + 1e-8))


@breaks("elements")
class PrefersTheFirst(Sound):
    """A row that is somebody's bias, or so it is thought."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if g.ndim and g.shape[0] and not g.is_sparse:
            g = torch.cat([2 * g[:1], g[1:]])
        super().move(group, p, g)


@breaks("implementations")
class TwoPaths(Sound):
    """Written twice, mended once."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False, foreach: bool = False) -> None:
        self.rate = 0.5 if foreach else 1.0
        super().__init__(params, lr, maximize)

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, self.rate * g)


@breaks("swapped")
class RemembersItsParameters(Sound):
    """A list beside the groups."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self.__dict__.setdefault("held", []).append(list(param_group["params"]))

    def step(self, closure: Any = None) -> Any:
        now = [group["params"] for group in self.param_groups]
        for group, params in zip(self.param_groups, self.held, strict=True):
            group["params"] = params
        loss = super().step(closure)
        for group, params in zip(self.param_groups, now, strict=True):
            group["params"] = params
        return loss


@breaks("group-keys")
class RestoresWhatItKnows(Sound):
    """Drops the keys of others."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        known = {"params", "param_names", *self.defaults}
        groups = [{key: group[key] for key in known & set(group)} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups})


@breaks("modes")
class KeepsItsPointAside(Sound):
    """What training goes on from is in no checkpoint."""

    def train(self) -> None:
        for p, kept in self.__dict__.pop("kept", {}).items():
            p.data.copy_(kept)

    def eval(self) -> None:
        self.kept = {p: p.detach().clone() for group in self.param_groups for p in group["params"]}
        for p in self.kept:
            p.data.mul_(0.5)


breaks("scaled-closure")(Sound)


@breaks("distributed-checkpoint")
class WaitsForAGradient(Sound):
    """Makes no state in the step with zeros that distributed checkpoints take to have some."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if g.is_sparse or g.any():
            super().move(group, p, g)


@breaks("compiled")
class IsNotThereWhenCompiled(Sound):
    """Does something else while it is traced."""

    def step(self, closure: Any = None) -> Any:
        return None if torch.compiler.is_compiling() else super().step(closure)


@breaks("numbers-matter")
class IgnoresItsNumber(Sound):
    """AdaNorm's r and diffGrad's friction: taken, checked, kept, and read by nobody."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False, friction: float = 0.5) -> None:
        super().__init__(params, lr, maximize)
        self.defaults["friction"] = friction
        for group in self.param_groups:
            group["friction"] = friction


@breaks("numbers-live", "numbers-in-groups")
class ReadsItsOwnNumber(Sound):
    """A number that stands in the groups and is read from the optimizer."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False, friction: float = 0.5) -> None:
        super().__init__(params, lr, maximize)
        self.friction = self.defaults["friction"] = friction
        for group in self.param_groups:
            group.setdefault("friction", friction)

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, self.friction * g)


EARLIER: Iterable[Any] = next(
    mark.args[1] for mark in test_conformance.test_a_planted_defect_is_caught.pytestmark if mark.name == "parametrize"
)


@pytest.mark.parametrize("name", CAUGHT)
def test_the_defect_is_caught_by_the_contract_for_it(name: str) -> None:
    report = check_optimizer(CAUGHT[name], only=[name])
    assert report.broken, f"{CAUGHT[name].__name__} passes {name}"


def test_every_contract_has_a_defect_that_it_catches() -> None:
    assert set(CONTRACTS) == set(CAUGHT) | {caught for _, caught in EARLIER}


def test_a_contract_cannot_be_entered_twice_unnoticed() -> None:
    assert all(isinstance(entry, Contract) and entry.name == name for name, entry in CONTRACTS.items())
    claims = [entry.claim for entry in CONTRACTS.values()]
    assert len(set(claims)) == len(claims)
