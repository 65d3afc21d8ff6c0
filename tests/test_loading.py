"""What loaders say, keep and put back: small promises that planted faults (scripts/mutate.py) got past other tests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import slalom
from slalom.algebra import State
from slalom.checkpoint import checkpoint, runstate
from slalom.checkpoint.durable import write_durably
from slalom.optimizer.loading import check_layout


def run(sizes: list[int] | None = None, **settings: Any) -> dict[str, Any]:
    """A model of linear layers, and AdamW."""
    widths = sizes or [3, 2]
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths)))
    return {"model": model, "optimizer": slalom.AdamW(model.parameters(), **settings)}


def refusal(folder: Path, **pieces: Any) -> str:
    """What is said when these do not fit."""
    with pytest.raises(ValueError, match="does not fit, and nothing was changed") as refused:
        slalom.load_checkpoint(folder, **pieces)
    return str(refused.value)


# --- groups -----------------------------------------------------------------------------------------------------


def stepped(optimizer: Any) -> Any:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(("saved", "here"), [(True, False), (False, True), (True, True)])
def test_parameters_keep_the_names_that_they_have_here(saved: bool, here: bool) -> None:
    def made(named: bool, name: str) -> Any:
        parameter = nn.Parameter(torch.ones(2))
        return slalom.AdamW([(name, parameter)] if named else [parameter])

    source, target = stepped(made(saved, "there")), made(here, "here")
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0].get("param_names") == (["here"] if here else None)
    assert target.state[target.param_groups[0]["params"][0]]["step"] == 1


@pytest.mark.parametrize(("saved", "here"), [(True, False), (False, True)])
def test_groups_by_role_load_where_one_side_has_no_names(saved: bool, here: bool) -> None:
    def made(named: bool) -> Any:
        parameter = nn.Parameter(torch.ones(2, 3))
        return slalom.Muon([{"params": [("w", parameter)] if named else [parameter], "role": "matrix"}])

    source, target = stepped(made(saved)), made(here)
    target.load_state_dict(source.state_dict())
    assert target.state[target.param_groups[0]["params"][0]]["step"] == 1


def test_wrappers_do_not_change_who_a_parameter_is() -> None:
    def made(name: str) -> Any:
        return slalom.Muon([{"params": [(name, nn.Parameter(torch.ones(2, 3)))], "role": "matrix"}])

    made("w").load_state_dict(stepped(made("module._orig_mod.w")).state_dict())
    with pytest.raises(ValueError, match='group 0 of the checkpoint, matrix, has "v" where this optimizer has "w"'):
        made("w").load_state_dict(made("v").state_dict())


def test_a_group_of_another_role_or_length_is_refused() -> None:
    def made(role: str, count: int = 1) -> Any:
        return slalom.Muon([{"params": [nn.Parameter(torch.ones(2, 3)) for _ in range(count)], "role": role}])

    with pytest.raises(ValueError, match="plays the role 'head', this optimizer's 'matrix'"):
        made("matrix").load_state_dict(made("head").state_dict())
    with pytest.raises(ValueError, match="group 0 of the checkpoint has 2 parameters, this optimizer's has 1"):
        made("matrix").load_state_dict(made("matrix", 2).state_dict())
    with pytest.raises(ValueError, match="the checkpoint has 0 parameter groups, this optimizer has 1"):
        made("matrix").load_state_dict({"state": {}, "param_groups": []})


def test_what_is_no_state_of_a_parameter_is_left_out_or_refused() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = stepped(slalom.AdamW([parameter]))
    state = optimizer.state_dict()
    state["state"][0] = {**state["state"][0], "other": None}  # torch writes None for what it does not keep
    optimizer.load_state_dict(state)
    assert set(optimizer.state[parameter]) == {"step", "ema.m", "second_moment.v"}
    state["state"][0] = {**state["state"][0], "other": torch.ones(2)}
    with pytest.raises(ValueError, match='the checkpoint has a state "other", this recipe keeps step, '):
        optimizer.load_state_dict(state)


def test_a_state_that_torch_did_not_keep_is_as_good_as_absent() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = stepped(slalom.AdamW([parameter]))
    state = optimizer.state_dict()
    state["state"][0] = {**state["state"][0], "ema.m": None}
    with pytest.raises(ValueError, match=r"the checkpoint has no ema\.m, which this recipe needs"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize(
    ("given", "held"),
    [({}, "{}"), ({"state": {}}, "keys 'state'"), (["state", "param_groups"], r"\['state', 'param_groups'\]")],
    ids=["nothing", "half", "a list"],
)
def test_what_is_no_optimizer_s_state_is_refused(given: Any, held: str) -> None:
    with pytest.raises(ValueError, match=rf'is a dictionary with "state" and "param_groups".*; this has {held}\.'):
        slalom.AdamW([nn.Parameter(torch.ones(2))]).load_state_dict(given)


@pytest.mark.parametrize(
    ("slot", "kept", "follows"),
    [
        (State(), torch.zeros(2, 3), True),
        (State(per="model"), torch.zeros(()), False),
        (State(format="sign"), torch.zeros(2, 1, dtype=torch.uint8), False),
    ],
    ids=["elements", "the model's", "signs"],
)
def test_only_what_is_kept_as_the_parameter_is_must_follow_it(slot: State, kept: torch.Tensor, follows: bool) -> None:
    moved = nn.Parameter(torch.ones(2, 3, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="became float64") if follows else contextlib.nullcontext():
        check_layout("a.b", slot, kept, moved, None)


def test_a_state_of_as_many_elements_takes_its_shape() -> None:
    parameter = nn.Parameter(torch.ones(2, 3))
    optimizer = stepped(slalom.AdamW([parameter]))
    state = optimizer.state_dict()
    state["state"][0] = {**state["state"][0], "ema.m": torch.arange(6.0)}
    optimizer.load_state_dict(state)
    assert torch.equal(optimizer.state[parameter]["ema.m"], torch.arange(6.0).reshape(2, 3))


def test_a_kept_parameter_of_another_shape_is_refused() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = stepped(slalom.Recipe(average=slalom.parts.SWA(), step=0.1).build([parameter]))
    optimizer.eval()
    state = optimizer.state_dict()
    state["state"][0]["kept"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"the checkpoint's kept has shape \(3,\), here it is \(2,\)"):
        optimizer.load_state_dict(state)


# --- what a checkpoint says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "shown"), [(5, None), (6, "and 2 more"), (8, "and 6 more")])
def test_a_dozen_differences_are_shown_and_the_others_counted(layers: int, shown: str | None, tmp_path: Path) -> None:
    slalom.save_checkpoint(tmp_path, model=run([3] * (layers + 1))["model"])
    said = refusal(tmp_path, model=run([3, *[2] * layers])["model"], scheduler=[torch.nn.Linear(1, 1), nn.Linear(1, 1)])
    lines = said.splitlines()[1:]
    assert lines[:2] == ["  the checkpoint has no scheduler[0]", "  the checkpoint has no scheduler[1]"]
    assert len(lines) == 2 + min(2 * layers, 10) + (shown is not None)
    assert (lines[-1].strip() == shown) == (shown is not None)


@pytest.mark.parametrize(("layers", "more"), [(2, ""), (3, " and 2 more")])
def test_four_names_are_shown_and_the_others_counted(layers: int, more: str, tmp_path: Path) -> None:
    slalom.save_checkpoint(tmp_path, model=nn.Sequential())
    names = ", ".join(f'"{place}.{name}"' for place in (0, 1) for name in ("weight", "bias"))
    said = refusal(tmp_path, model=run([3] * (layers + 1))["model"])
    assert said.endswith(f"\n  model: the checkpoint has no {names}{more}")


def test_each_difference_between_optimizers_has_its_line(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    slalom.save_checkpoint(tmp_path, model=model, optimizer=slalom.AdamW(model.parameters()))
    fewer, turned = slalom.AdamW([model.bias]), slalom.AdamW([model.bias, model.weight])
    assert refusal(tmp_path, model=model, optimizer=fewer).splitlines()[1:] == [
        "  optimizer: group 0 has 2 parameters in the checkpoint, 1 here"
    ]
    assert refusal(tmp_path, model=model, optimizer=turned).splitlines()[1:] == [
        "  optimizer: group 0, parameter 0 has shape (2, 3) in the checkpoint, (2,) here",
        "  optimizer: group 0, parameter 1 has shape (2,) in the checkpoint, (2, 3) here",
    ]
    named = slalom.AdamW(model.named_parameters())  # names on one side alone prove nothing
    assert slalom.load_checkpoint(tmp_path, model=model, optimizer=named) is not None


def test_a_number_that_a_recipe_refuses_is_a_line_and_not_an_error(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    source = slalom.Recipe(step=0.1, average=slalom.parts.ScheduleFree(beta=1.0)).build(model)
    target = slalom.Recipe(step=0.1, average=slalom.parts.WeightEma(beta=0.9)).build(model)
    slalom.save_checkpoint(tmp_path, model=model, optimizer=source)
    (line,) = refusal(tmp_path, model=model, optimizer=target).splitlines()[1:]
    assert line.startswith("  optimizer: group 0: ")
    assert "1.0" in line


def test_a_switch_inside_a_part_makes_another_recipe(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)

    def made(nesterov: bool) -> Any:
        return slalom.Recipe(momentum=slalom.parts.Ema(0.9, nesterov=nesterov), step=0.1).build(model)

    slalom.save_checkpoint(tmp_path, model=model, optimizer=made(nesterov=False))
    said = refusal(tmp_path, model=model, optimizer=made(nesterov=True))
    was, now = (f'"momentum: Ema(debias=True, nesterov={switch})"' for switch in (False, True))
    assert said.endswith(f"optimizer: group 0 runs {was} in the checkpoint, {now} here")  # and says no number


def test_a_scaler_that_was_switched_off_is_another_one(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    slalom.save_checkpoint(tmp_path, model=model, scaler=torch.amp.GradScaler("cpu", enabled=False))
    said = refusal(tmp_path, model=model, scaler=torch.amp.GradScaler("cpu"))
    assert said.endswith("scaler: enabled False in the checkpoint, True here")


class Refuses:
    """Loads nothing but what it has; not even that if it is stubborn."""

    def __init__(self, value: int, stubborn: bool = False) -> None:
        self.value, self.stubborn = value, stubborn

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.stubborn or state_dict["value"] != self.value:
            raise RuntimeError("no")


@pytest.mark.parametrize("stubborn", [False, True])
def test_all_is_put_back_but_what_refuses_its_own_state(stubborn: bool, tmp_path: Path) -> None:
    slalom.save_checkpoint(tmp_path, **run(lr=0.5), others={"first": Refuses(1)}, position=1)
    target, last = run(lr=0.25), Refuses(2, stubborn)
    weight, random = target["model"][0].weight.clone(), torch.get_rng_state()
    with pytest.raises(ValueError, match="does not fit, and ") as refused:
        slalom.load_checkpoint(tmp_path, **target, others={"first": last})
    kept = "first could not be put back" if stubborn else "nothing was changed"
    assert str(refused.value).endswith(f" does not fit, and {kept}:\n  first: no")
    assert target["optimizer"].param_groups[0]["lr"] == 0.25
    assert torch.equal(target["model"][0].weight, weight)
    assert torch.equal(torch.get_rng_state(), random)


def test_warnings_point_at_the_line_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        newest = slalom.save_checkpoint(tmp_path, **run())
    newest.write_bytes(b"damaged")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        slalom.load_checkpoint(tmp_path, **run())
    assert [warning.filename for warning in said] == [__file__] * 2


# --- what lies on the disk --------------------------------------------------------------------------------------


def test_one_checkpoint_may_be_all_that_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        slalom.save_checkpoint(tmp_path, **run(), keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-000002.json", "checkpoint-000002.pt"]


def test_a_manifest_states_size_and_digest_and_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o026)
    try:
        file = slalom.save_checkpoint(tmp_path, **run())
    finally:
        os.umask(before)
    facts = json.loads(file.with_suffix(".json").read_text())
    assert facts["bytes"] == file.stat().st_size
    assert facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


@pytest.mark.parametrize("change", ["another kind", "less", "more"])
def test_what_is_whole_but_holds_something_else_is_no_checkpoint(change: str, tmp_path: Path) -> None:
    slalom.save_checkpoint(tmp_path, **run())
    data, manifest = checkpoint._files(tmp_path, 1)
    content = torch.load(data, weights_only=True)
    if change == "less":
        del content["random"]
    held = ["format", "pieces", "described", "random", "position"] if change == "another kind" else content
    torch.save({**held, "note": "theirs"} if change == "more" else held, data)
    facts = json.loads(manifest.read_text())
    del facts["seal"]
    facts["sha256"] = hashlib.sha256(data.read_bytes()).hexdigest()
    manifest.write_text(json.dumps({**facts, "seal": checkpoint._seal(facts)}))
    if change == "more":
        assert slalom.load_checkpoint(tmp_path, **run()) is not None
    else:
        with pytest.raises(ValueError, match=r"checkpoint-000001\.pt holds no checkpoint"):
            slalom.load_checkpoint(tmp_path, **run())


def test_no_whole_checkpoint_is_an_error_though_one_was_never_finished(tmp_path: Path) -> None:
    first, second = (slalom.save_checkpoint(tmp_path, **run()) for _ in range(2))
    first.write_bytes(b"damaged")
    second.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole"):
        slalom.load_checkpoint(tmp_path, **run())


@pytest.mark.parametrize(
    ("failure", "number", "reason"),
    [
        (OSError("without a number"), errno.EIO, "without a number"),
        (RuntimeError("torch says\nmuch"), errno.EIO, "torch says"),
        (OSError(errno.ENOSPC, "no space"), errno.ENOSPC, "no space"),
    ],
)
def test_what_the_system_said_is_passed_on(
    failure: Exception, number: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path, fill: Callable[[Any], object]) -> Any:
        raise failure

    monkeypatch.setattr(checkpoint, "write_durably", fails)
    with pytest.raises(OSError, match=rf"\({reason}\); those that were there are untouched") as refused:
        slalom.save_checkpoint(tmp_path, **run())
    assert refused.value.errno == number


@pytest.mark.parametrize("chained", ["__cause__", "__context__"])
def test_the_system_is_found_behind_torch(chained: str) -> None:
    hidden = RuntimeError("torch")
    setattr(hidden, chained, OSError(errno.ENOSPC, "no space"))
    assert checkpoint._cause(hidden) == (errno.ENOSPC, "no space")


def test_a_file_knows_what_went_through_it(tmp_path: Path) -> None:
    written = write_durably(tmp_path / "a", lambda file: [file.write(b"ab"), file.write(b"c")])
    assert (written.size, written.sha256()) == (3, hashlib.sha256(b"abc").hexdigest())
    assert (tmp_path / "a").read_bytes() == b"abc"


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synchronised there")
def test_a_name_is_on_the_disk_before_it_is_relied_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really, synchronised = os.fsync, []

    def fsync(handle: int) -> None:
        synchronised.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_durably(tmp_path / "a", lambda file: file.write(b"abc"))
    assert synchronised == [False, True]


def test_generators_and_modes_are_captured_and_restored() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[1].eval()
    model[0].bias.requires_grad_(False)
    other = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    runstate.restore(other, runstate.capture(model), modes=True)
    assert [module.training for module in other.modules()] == [True, True, False]
    assert [parameter.requires_grad for parameter in other.parameters()] == [True, False]
    other = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    runstate.restore(other, runstate.capture(model), modes=False)
    assert all(module.training for module in other.modules())
    assert all(parameter.requires_grad for parameter in other.parameters())
