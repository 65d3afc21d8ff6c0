"""Who plays which role, who is decayed, who learns how fast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import slalom
from networks import quietly
from slalom import assign_roles, param_groups
from slalom.errors import UsageError


class Gpt(nn.Module):
    """A tiny language model with a tied head and a parameter of no known layer."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(8), "up": nn.Linear(8, 16), "down": nn.Linear(16, 8)}) for _ in range(2)
        )
        self.patch = nn.Conv1d(8, 8, 3)
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.lm_head = nn.Linear(8, 11, bias=False)
        if tied:
            self.lm_head.weight = self.tokens.weight


def roles(model: nn.Module) -> dict[str, str]:
    return {entry.name: entry.role for entry in assign_roles(model)}


def test_roles_come_from_the_types_of_modules() -> None:
    found = roles(Gpt())
    assert found["tokens.weight"] == "embedding"
    assert found["blocks.0.up.weight"] == "matrix"
    assert found["blocks.0.up.bias"] == "vector"
    assert found["blocks.1.norm.weight"] == "vector"
    assert found["patch.weight"] == "convolution"
    assert found["gain"] == "scalar"
    assert found["lm_head.weight"] == "head"


def test_a_tied_head_is_an_embedding_and_frozen_parameters_have_no_role() -> None:
    model = Gpt(tied=True)
    model.gain.requires_grad_(False)
    found = roles(model)
    assert found["tokens.weight"] == "embedding"
    assert "gain" not in found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on importing its compiler
def test_wrappers_are_looked_through() -> None:
    model = Gpt()
    assert roles(nn.DataParallel(model)) == roles(model)
    assert roles(torch.compile(model)) == roles(model)  # type: ignore[arg-type]


def test_roles_can_be_set_by_pattern_and_mistakes_are_named() -> None:
    found = {entry.name: entry.role for entry in assign_roles(Gpt(), {"blocks.*.down.weight": "vector"})}
    assert found["blocks.1.down.weight"] == "vector"
    with pytest.raises(UsageError, match="matrix"):
        assign_roles(Gpt(), {"*": "matrx"})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="no parameter"):
        assign_roles(Gpt(), {"nothing": "matrix"})


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest() -> None:
    model = Gpt()
    optimizer = slalom.create("muon", model, lr=0.02)
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            keys = set(optimizer.schema(group, parameter))
            if name in ("patch.weight", "blocks.0.up.weight", "blocks.1.down.weight"):
                assert keys == {"ema.m"}, name
            elif "blocks" not in name or "weight" not in name:
                assert keys == {"ema.m", "second_moment.v"}, name
    shown = repr(optimizer)
    assert "polar(u)" in shown
    assert "embedding" in shown


def test_bare_parameters_are_sorted_by_shape_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="guessed from shapes"):
        slalom.Muon(Gpt().parameters())
    optimizer = quietly(lambda: slalom.Muon(Gpt().parameters()))
    assert {group["role"] for group in optimizer.param_groups} == {"matrix", "vector", "convolution", "scalar"}


def test_a_checkpoint_of_other_roles_is_refused() -> None:
    a = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))]
    one = slalom.Muon([{"params": a[:1], "role": "matrix"}, {"params": a[1:], "role": "head"}])
    other = slalom.Muon([{"params": a[:1], "role": "head"}, {"params": a[1:], "role": "matrix"}])
    with pytest.raises(ValueError, match="sorted differently"):
        other.load_state_dict(one.state_dict())


def decays(groups: list[dict[str, object]]) -> dict[str, float]:
    return {name: group["weight_decay"] for group in groups for name, _ in group["params"]}  # type: ignore[attr-defined, misc]


def test_biases_norms_and_embeddings_are_not_decayed() -> None:
    found = decays(param_groups(Gpt(), weight_decay=0.1))
    assert {name for name, decay in found.items() if decay == 0} == {
        "tokens.weight", "gain", "patch.bias",
        *(f"blocks.{i}.{part}" for i in range(2) for part in ("norm.weight", "norm.bias", "up.bias", "down.bias")),
    }  # fmt: skip


def test_layer_decay_sets_real_rates() -> None:
    groups = param_groups(Gpt(), lr=1.0, layer_decay=0.5)
    rates = {name: group["lr"] for group in groups for name, _ in group["params"]}
    assert rates["lm_head.weight"] == 1.0
    assert rates["blocks.1.up.weight"] == 0.5
    assert rates["blocks.0.up.weight"] == 0.25
    assert rates["tokens.weight"] == 0.125
    slalom.AdamW(groups, lr=9.0)
    torch.optim.AdamW([{**group, "params": [p for _, p in group["params"]]} for group in groups])


def test_fan_out_divides_by_the_units_that_read() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4), torch.nn.Linear(4, 2))
    groups = param_groups(model, lr=1.0, fan_out=True)
    rates = {name: group["lr"] for group in groups for name, _ in group["params"]}
    assert rates == {
        "0.weight": 1 / 4, "0.bias": 1 / 4, "2.weight": 1 / 2, "2.bias": 1 / 2, "3.weight": 1.0, "3.bias": 1.0,
    }  # fmt: skip
    both = param_groups(model, lr=1.0, fan_out=True, layer_decay=0.5)
    assert {name: group["lr"] for group in both for name, _ in group["params"] if name.endswith("weight")} == {
        "0.weight": 1 / 8 / 4, "2.weight": 1 / 2 / 2, "3.weight": 1.0,
    }  # fmt: skip
    assert {g["lr"] for g in param_groups(torch.nn.LayerNorm(3), lr=2.0, fan_out=True)} == {2.0}


def test_overrides_win_and_must_match() -> None:
    groups = param_groups(Gpt(), 0.1, overrides={"lm_head.*": {"lr": 7.0, "weight_decay": 0.0}})
    (head,) = [group for group in groups if group.get("lr") == 7.0]
    assert [name for name, _ in head["params"]] == ["lm_head.weight"]
    with pytest.raises(UsageError, match="lm_head"):
        param_groups(Gpt(), overrides={"lm_haed.weight": {"lr": 1.0}})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layer_decay": 0.5}, "needs the base rate"),
        ({"fan_out": True}, "needs the base rate"),
        ({"lr": 1.0, "layer_decay": 1.5}, r"\(0, 1\]"),
        ({"weight_decay": -1}, "0 or more"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        param_groups(Gpt(), **settings)  # type: ignore[arg-type]


def test_every_role_keeps_its_rate_under_lr_where_schedulers_find_it() -> None:
    model = Gpt()
    optimizer = slalom.create("muon", model, lr=0.02, adam_lr=0.001)
    rates = {group["role"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {
        "embedding": 0.001, "matrix": 0.02, "vector": 0.001, "convolution": 0.02, "scalar": 0.001, "head": 0.001,
    }  # fmt: skip
    assert all("adam_lr" not in group for group in optimizer.param_groups)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)


class Whisperer(nn.Module):
    """Attention layers whose output is called "out", parameters without a layer, and a head of no telling name."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(5, 8))
        self.blocks = nn.ModuleList(nn.ModuleDict({"qkv": nn.Linear(8, 24), "out": nn.Linear(8, 8)}) for _ in range(2))
        self.to_classes = nn.Linear(8, 3)


def test_what_every_block_has_is_no_head_and_names_tell_embeddings(recwarn: pytest.WarningsRecorder) -> None:
    found = roles(Whisperer())
    assert found["blocks.1.out.weight"] == "matrix"
    assert found["to_classes.weight"] == "head"
    assert found["cls_token"] == found["pos_embed"] == "embedding"
    slalom.create("muon", Whisperer())
    assert not recwarn.list


def test_roles_and_settings_by_role_are_given_by_keyword() -> None:
    model = Gpt(tied=True)
    optimizer = slalom.create(
        "muon", model, lr=0.02,
        roles={"blocks.*.down.weight": "vector", "patch.*": "head"},
        by_role={"embedding": {"lr": 0.3, "weight_decay": 0.0}, "matrix": {"momentum": 0.8}},
    )  # fmt: skip
    groups = {group["role"]: group for group in optimizer.param_groups}
    assert groups["matrix"]["param_names"] == ["blocks.0.up.weight", "blocks.1.up.weight"]
    assert groups["head"]["param_names"] == ["patch.weight", "patch.bias"]
    assert groups["embedding"]["param_names"] == ["tokens.weight"]
    assert (groups["embedding"]["lr"], groups["embedding"]["weight_decay"]) == (0.3, 0.0)
    assert (groups["matrix"]["momentum"], groups["vector"]["momentum"]) == (0.8, 0.95)
    assert (groups["vector"]["lr"], groups["vector"]["weight_decay"]) == (0.001, 0.1)
    tokens = model.tokens.weight
    tokens.grad = torch.zeros_like(tokens)
    before = tokens.detach().clone()
    optimizer.step()
    assert torch.equal(tokens, before)  # not decayed


def test_recipes_by_role_and_bare_parameters_take_settings_too() -> None:
    recipe = slalom.ByRole(matrix=slalom.Recipe(step=0.1), rest=slalom.Recipe(step=0.01))
    optimizer = slalom.Optimizer(Gpt(), recipe, by_role={"head": {"lr": 0.5}})
    assert {g["role"]: g["lr"] for g in optimizer.param_groups}["head"] == 0.5
    bare = quietly(lambda: slalom.Muon(Gpt().parameters(), by_role={"vector": {"lr": 0.5}}))
    assert {g["role"]: g["lr"] for g in bare.param_groups}["vector"] == 0.5


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"roles": {"nothing": "matrix"}}, "nothing"),
        ({"roles": {"*": "matrx"}}, "Did you mean matrix"),
        ({"by_role": {"embeding": {"lr": 1.0}}}, "Did you mean embedding"),
        ({"by_role": {"matrix": {"momemtum": 0.5}}}, "Did you mean momentum"),
    ],
)
def test_mistaken_roles_are_refused_with_a_sentence(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        slalom.create("muon", Gpt(), **given)


def test_roles_without_use_are_refused() -> None:
    with pytest.raises(UsageError, match="give the model, not its parameters"):
        slalom.Muon(Gpt().named_parameters(), roles={"*": "matrix"})
    with pytest.raises(UsageError, match="this one has no roles"):
        slalom.Optimizer(Gpt(), slalom.Recipe(step=0.1), roles={"*": "matrix"})
    with pytest.raises(TypeError, match='no argument "roles"'):
        slalom.create("adamw", Gpt(), roles={"*": "matrix"})


def test_the_routing_table_is_saved_and_checked() -> None:
    model = Gpt()
    saved = slalom.create("muon", model).state_dict()
    assert {group["role"] for group in saved["param_groups"]} >= {"embedding", "matrix", "head"}
    other = slalom.create("muon", model, roles={"blocks.*.up.weight": "head"})
    with pytest.raises(ValueError, match="sorted differently"):
        other.load_state_dict(saved)
    wrapped = slalom.create("muon", nn.DataParallel(Gpt()))
    wrapped.load_state_dict(saved)  # wrappers are no other names


def test_other_parameters_in_the_same_role_are_noticed_by_their_names() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    one = slalom.create("muon", model, roles={"a.weight": "matrix", "b.weight": "vector"})
    other = slalom.create("muon", model, roles={"b.weight": "matrix", "a.weight": "vector"})
    other.param_groups.reverse()
    with pytest.raises(ValueError, match=r'has "a\.weight" where this optimizer has "b\.weight": they were sorted'):
        other.load_state_dict(one.state_dict())


def test_the_one_linear_layer_behind_others_is_the_head_and_alone_it_is_a_matrix() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.to_tags = nn.LSTM(8, 16), nn.Linear(16, 2)

    assert roles(Tagger())["to_tags.weight"] == "head"
    assert roles(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)))["2.weight"] == "head"
    assert roles(nn.Linear(4, 2))["weight"] == "matrix"


def test_linear_layers_of_transformers_are_known() -> None:
    class Conv1D(nn.Module):  # as in its pytorch_utils
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(4, 12)), nn.Parameter(torch.ones(12))

    (weight, _) = assign_roles(nn.ModuleDict({"c_attn": Conv1D()}))
    assert (weight.role, weight.guessed) == ("matrix", False)


def test_a_warning_names_the_callers_line_and_what_is_left_to_do() -> None:
    odd = nn.Module()
    odd.table = nn.Parameter(torch.ones(3, 3))
    for build in (lambda: slalom.create("muon", odd), lambda: slalom.Muon(odd)):
        with pytest.warns(UserWarning, match=r'roles=\{"table": "matrix"\}') as heard:
            build()
        assert heard[0].filename == __file__
    with pytest.warns(UserWarning, match="Give the model") as heard:
        slalom.Muon(odd.parameters())
    assert heard[0].filename == __file__


def test_groups_are_made_of_a_model() -> None:
    with pytest.raises(TypeError, match="got a generator: give the model"):
        param_groups(Gpt().parameters())  # type: ignore[arg-type]
