"""The kit passes what is sound and catches, one by one, defects that were really shipped."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import slalom
from fresh import call
from slalom.named import named_class
from slalom.recipes import method
from slalom.testing import assert_conforms, check_optimizer
from slalom.testing.conformance import CONTRACTS


@pytest.mark.parametrize("name", slalom.list_optimizers())
def test_every_method_passes_or_states_its_exceptions(name: str) -> None:
    report = check_optimizer(named_class(name), leave_out=method(name).exceptions)
    assert not report.broken, str(report)


@pytest.mark.parametrize("name", [name for name in slalom.list_optimizers() if method(name).exceptions])
def test_no_exception_is_stated_without_need(name: str) -> None:
    report = check_optimizer(named_class(name), only=method(name).exceptions)
    unneeded = {result.contract.name for result in report.results if result.verdict == "holds"}
    assert unneeded <= LATE.get(name, set()), unneeded


# What a model has in common tells only once it has grown, which a few steps from a first guess do not show; once SWATS
# has switched, which it does not on gradients without a pattern; and AdamS only shares the strength of a small decay.
SHARED = {"one-each", "two-groups", "late-gradient", "added-group"}
LATE = {
    **dict.fromkeys(("adalo", "dadapt-adam", "dadapt-sgd", "dog", "mechanic", "momo-adam", "prodigy"), SHARED),
    "swats": {"one-each", "two-groups", "mixed-dtypes"},
    "adams": {"one-each", "two-groups", "late-gradient"},
}


def test_torch_keeps_all_but_what_it_is_known_not_to() -> None:
    known = {"load-copies", "rate-kept", "bfloat16-state", "scaled-closure"}
    for cls in (torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop):
        assert {result.contract.name for result in check_optimizer(cls).broken} <= known


class Sound(torch.optim.Optimizer):
    """Momentum SGD without a defect; each class below plants one."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False) -> None:
        if not isinstance(lr, torch.Tensor) and lr < 0:
            raise ValueError("lr")
        super().__init__(params, {"lr": lr, "maximize": maximize})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        if isinstance(param_group["lr"], torch.Tensor):
            param_group["lr"] = param_group["lr"].clone()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(group, p, -p.grad if group["maximize"] else p.grad)
        return loss

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if g.is_sparse:
            raise RuntimeError("sparse")
        state = self.state[p]
        if not state:
            state["m"] = torch.zeros_like(p)
        state["m"].mul_(0.9).add_(g)
        p.sub_(float(group["lr"]) * state["m"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        import copy

        super().load_state_dict(copy.deepcopy(state_dict))


class WritesGradients(Sound):
    """nSGDA's text, and every Muon that lerps into p.grad."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        g.mul_(0.5)
        super().move(group, p, g)


class CachesRate(Sound):
    """A rate that is read once: schedulers do nothing."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        group = {**group, "lr": self.__dict__.setdefault("rate", group["lr"])}
        super().move(group, p, g)


class GlobalStep(Sound):
    """Bias correction by the group's count: a late parameter's first step is wrong."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        group["count"] = group.get("count", 0) + 1
        super().move({**group, "lr": float(group["lr"]) / group["count"]}, p, g)


class TreatsNoneAsZero(Sound):
    """Muon's "force synchronization": unused weights move with momentum and get state."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = torch.enable_grad()(closure)() if closure is not None else None
        for group in self.param_groups:
            for p in group["params"]:
                self.move(group, p, torch.zeros_like(p) if p.grad is None else -p.grad if group["maximize"] else p.grad)
        return loss


class ClosureWithoutGrad(Sound):
    """A closure under no_grad."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        super().step()
        return loss


class SquaresBeforeSumming(Sound):
    """Duplicate rows of a sparse gradient are squared one by one."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        if not g.is_sparse:
            p.sub_(float(group["lr"]) * g / (g.square().sqrt() + 1e-3))
            return
        rows, values = g._indices()[0], g._values()
        v = torch.zeros_like(p).index_add_(0, rows, values.square())
        p.sub_(float(group["lr"]) * g.to_dense() / (v.sqrt() + 1e-3))


class ClosureTwice(Sound):
    """A wrapper that evaluates the closure again."""

    def step(self, closure: Any = None) -> Any:
        if closure is not None:
            with torch.enable_grad():
                closure()
        return super().step(closure)


class LateState(Sound):
    """A buffer that appears at the tenth step."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g)
        state = self.state[p]
        state["t"] = state.get("t", 0) + 1
        if state["t"] == 10:
            state["slow"] = torch.zeros_like(p)


class FloatState(Sound):
    """float32 moments of bfloat16 parameters, which torch's loader casts."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        state = self.state[p]
        if not state:
            state["m"] = torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        state["m"].mul_(0.9).add_(g)
        p.sub_((float(group["lr"]) * state["m"]).to(p.dtype))


class AliasesGradient(Sound):
    """diffGrad's bug: the previous gradient is the tensor itself, so a resumed run differs."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        before = self.__dict__.setdefault("previous", {}).get(id(p))
        self.__dict__["previous"][id(p)] = g.clone()
        super().move(group, p, g if before is None else g + 0.1 * before)


class AcceptsAnything(Sound):
    """A signature with **kwargs."""

    def __init__(self, params: Any, lr: Any = 0.1, maximize: bool = False, **kwargs: Any) -> None:
        super().__init__(params, lr, maximize)


class IgnoresMaximize(Sound):
    """A flag that the rule does not honour."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, -g if group["maximize"] else g)


class DecaysWithoutRate(Sound):
    """Decay that is not multiplied by the rate: a distributed checkpoint's idle step changes weights."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        p.mul_(0.99)
        super().move(group, p, g)


class SpreadsNan(Sound):
    """Clipping by a norm that is nan makes every gradient nan."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if any(torch.isnan(g).any() for g in grads if not g.is_sparse):
            for group in self.param_groups:
                for p in group["params"]:
                    p.fill_(float("nan"))
        return super().step(closure)


class DividesByZero(Sound):
    """Normalisation without a floor."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, g / g.norm() if not g.is_sparse else g)


class WrongWay(Sound):
    """Ascends."""

    def move(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        super().move(group, p, -g)


def test_the_sound_one_passes() -> None:
    # As every class of torch's: only who knows of scalers can refuse one that comes with a closure.
    report = check_optimizer(Sound, leave_out=["scaled-closure"])
    assert not report.broken, str(report)


@pytest.mark.parametrize(
    ("cls", "caught"),
    [
        (WritesGradients, "gradients-kept"),
        (CachesRate, "live-rate"),
        (GlobalStep, "late-gradient"),
        (TreatsNoneAsZero, "no-gradient"),
        (ClosureWithoutGrad, "closure-once"),
        (ClosureTwice, "closure-once"),
        (LateState, "state-at-once"),
        (FloatState, "load-exact"),
        (AliasesGradient, "resume"),
        (AcceptsAnything, "strict"),
        (IgnoresMaximize, "maximize"),
        (DecaysWithoutRate, "idle-step"),
        (SpreadsNan, "nan-stays"),
        (DividesByZero, "zero-gradient"),
        (WrongWay, "direction"),
        (SquaresBeforeSumming, "sparse"),
    ],
)
def test_a_planted_defect_is_caught(cls: type[Sound], caught: str) -> None:
    assert caught in {result.contract.name for result in check_optimizer(cls).broken}


def test_reports_read_well_and_unknown_contracts_are_refused() -> None:
    report = check_optimizer(WrongWay, only=["direction", "named"])
    shown = str(report)
    assert "1 of 2 contracts are broken" in shown
    assert "100 steps did not lower the loss" in shown
    assert not report  # so that a bare assert of it says what it seems to say
    assert repr(report) == "<Report of WrongWay: broken are direction>"
    assert check_optimizer(Sound, only=["direction"])
    with pytest.raises(ValueError, match=r"Did you mean direction.*`slalom check --list` shows all"):
        check_optimizer(Sound, only=["directon"])
    assert len(CONTRACTS) > 70


def test_an_assertion_names_what_is_broken_and_nothing_else() -> None:
    assert_conforms(Sound, only=["direction", "named"])
    with pytest.raises(AssertionError) as caught:
        assert_conforms(WrongWay, only=["direction", "named"])
    assert str(caught.value).splitlines() == [
        "WrongWay breaks 1 of 2 contracts",
        "  direction: on a quadratic it lowers the loss",
        "      100 steps did not lower the loss",
    ]
    assert_conforms(WrongWay, only=["direction"], leave_out={"direction": "it is meant to climb"})


class NeedsMore(Sound):
    """Cannot be built from parameters alone."""

    def __init__(self, params: Any, *, scale: float, **given: Any) -> None:
        super().__init__(params, **given)


def test_what_cannot_be_built_is_refused_once_and_not_called_broken() -> None:
    with pytest.raises(ValueError, match=r"NeedsMore cannot be built .* 'scale'\). Give a function"):
        check_optimizer(NeedsMore)
    assert check_optimizer(lambda params, **given: NeedsMore(params, scale=1.0, **given), only=["direction", "strict"])
    with pytest.raises(ValueError, match=r"builds a dict, which is no torch.optim.Optimizer"):
        check_optimizer(lambda params, **given: {}, label="mine")  # type: ignore[arg-type,return-value]


MINE = """
import torch

class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * p.grad)

NUMBER = 1
class Other: pass
"""


command = functools.partial(call, "check")


def test_the_command_prints_a_matrix_and_fails_on_a_broken_contract(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = command("lion", "mine.py:Plain:lr=0.1", "torch.optim:SGD", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "closure-once" in done.stdout
    assert f"lion keeps all {len(CONTRACTS)} contracts." in done.stdout
    assert "mine.py:Plain:lr=0.1 keeps" in done.stdout
    assert "no value of momentum changes where" in done.stdout
    assert command("lion").returncode == 0


def test_the_command_refuses_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "wrong.py").write_text("import torch\n1 / 0\n")
    for words, sentence in {
        ("torch.optim:AdamWW",): "torch.optim has no AdamWW",
        ("torch.optim:",): "write module:Class",
        (":x",): "write module:Class",
        ("no_such_module:X",): "No module named 'no_such_module'",
        ("mine:Other",): "Other is no torch.optim.Optimizer",
        ("mine:NUMBER",): "NUMBER is neither a class nor a function",
        ("mine.py:Plain",): "missing 1 required positional argument: 'lr'",
        ("mine.py:Plain:rate=1",): "unexpected keyword argument 'rate'",
        ("wrong.py:X",): "wrong.py, line 2: ZeroDivisionError",
        ("none.py:X",): 'no file "none.py"',
        ("sgd:momentm=0.9",): "Did you mean momentum?",
        ("adammw",): "Did you mean adamw",
        ("mine.toml",): "a recipe in a file has no class",
        ("adamw", "--leave-out", "two-group"): "Did you mean two-groups",
        ("adamw", "--json", "--markdown"): "give one",
    }.items():
        done = command(*words, cwd=tmp_path)
        assert done.returncode == 2, words
        assert sentence in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_the_command_lists_contracts_and_prints_data() -> None:
    listed = command("--list").stdout
    assert all(entry.claim in listed and entry.why in listed for entry in CONTRACTS.values())
    assert set(json.loads(command("--list", "--json").stdout)) == set(CONTRACTS)
    words = [word for name in CONTRACTS if name != "direction" for word in ("--leave-out", name)]
    data = json.loads(command("torch.optim.SGD:lr=0.5", "--json", *words).stdout)
    found = data["torch.optim.SGD:lr=0.5"]
    assert found["direction"] == {"verdict": "holds", "why": ""}
    assert found["named"] == {"verdict": "not promised", "why": "left out by hand"}


def test_many_optimizers_are_counted_in_rows() -> None:
    names = ["sgd", "sgdw", "signsgd", "signum", "lion", "nsgda"]
    words = [word for name in CONTRACTS if name != "direction" for word in ("--leave-out", name)]
    done = command(*names, *words)
    assert done.returncode == 0
    assert all(name in done.stdout for name in names)
    assert "not promised" in done.stdout
