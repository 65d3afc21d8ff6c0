"""The screens of `slalom list` and `slalom explain`, and how mistakes are answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

import slalom
from fresh import call as run
from slalom.describe import describe_method, sheet, sources, symbolic
from slalom.recipes import method


def test_list_shows_families_and_takes_patterns_and_json() -> None:
    shown = run("list", "ada*").stdout
    assert "adamw" in shown
    assert "soap" not in shown
    rows = json.loads(run("list", "--json").stdout)
    assert {row["name"] for row in rows} == set(slalom.list_optimizers())
    assert next(row for row in rows if row["name"] == "adam")["state_bytes"] == 8


@pytest.mark.parametrize("name", slalom.list_optimizers())
def test_every_method_is_explained(name: str) -> None:
    screen = describe_method(method(name), width=80)
    assert all(len(line) <= 80 for line in screen.splitlines())
    assert method(name).source.split(",")[0][:40] in " ".join(screen.split())
    assert "w ←" in screen
    assert "bytes per parameter and step" in screen
    assert "Expr(" not in screen


def test_explain_shows_the_known_formula() -> None:
    screen = run("explain", "adamw").stdout
    for line in (
        "m ← 0.9 m + 0.1 g",
        "u = m / (1 − 0.9ᵗ)",
        "D = √(v / (1 − 0.999ᵗ)) + 1e-08",
        "w ← w − lr (u / D + 0.01 w)",
    ):
        assert line in screen
    assert "28 bytes per parameter and step" in screen
    assert "β" not in screen


def test_explain_takes_arguments_shows_plans_source_and_json() -> None:
    assert "u = g + 0.5 b" in run("explain", "sgd:momentum=0.5,nesterov=true").stdout
    plan = run("explain", "lamb", "--plan").stdout
    assert "40 bytes per parameter and step" in plan
    assert "pass 2" in plan
    assert "void stage1(" in sources(symbolic(method("lamb")))
    facts = json.loads(run("explain", "adan", "--json").stdout)
    assert facts["year"] == 2022
    assert any(r"\frac" in line["latex"] for line in facts["recipes"][0]["lines"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["explain", "adamv"], "Did you mean"),
        (["explain", "sgd:momntum=0.9"], "Did you mean momentum"),
        (["explain", "sgd:0.9"], "key=value"),
        (["explain", "nowhere.toml"], "cannot read recipe"),
        (["list", "zzz"], 'no optimizer "zzz"'),
        (["expln"], "explain"),
        (["list", "--jsn"], "--json"),
    ],
)
def test_mistakes_get_one_sentence_and_status_2(words: list[str], sentence: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_what_only_counts_is_shown_by_its_ends_and_told_in_full_as_data() -> None:
    screen = run("explain", "mechanic").stdout
    assert "m1 ← max(0.9 m1, |h|)" in screen
    assert "⋮  4 more" in screen
    assert "s6 ← (1e-08 m6 / 6 + r6) / (√v6 + 1e-08)" in screen
    assert "m3" not in screen
    assert "mechanic.m1 to m6 per model" in " ".join(screen.split())
    facts = json.loads(run("explain", "mechanic", "--json").stdout)["recipes"][0]
    assert sum(line["text"].startswith("m") for line in facts["lines"]) == 7  # Adam's m too
    assert facts["kept"]["mechanic.m3"] == "model"


def test_a_value_keeps_its_formula_where_the_letter_would_also_mean_the_old_one() -> None:
    class Both(slalom.parts.Momentum, name="old-and-new"):
        m = slalom.algebra.State()

        def apply(self, x: Any, s: Any) -> Any:
            old = s.m
            new = slalom.algebra.lerp(old, x.grad, 0.5)
            s.m = new
            return x.replace(direction=new - old)

    lines = [line.text for line in sheet(slalom.Recipe(momentum=Both())).lines]
    assert lines[:2] == ["u = 0.5 m + 0.5 g − m", "m ← 0.5 m + 0.5 g"]


def test_the_version_is_told_and_every_command_stands_in_one_line() -> None:
    assert run("--version").stdout == f"slalom {slalom.__version__}\n"
    shown = run("--help").stdout.partition("Commands:\n")[2].rstrip().splitlines()
    assert len(shown) == 10
    assert all(line.startswith("  ") and line.endswith(".") and not line.endswith("...") for line in shown)


@pytest.mark.parametrize("word", ["adamw:lr=abc", "adamw:betas=0.9", "muon:polar=newton"])
@pytest.mark.parametrize("command", [["explain"], ["memory", "1m"]])
def test_a_value_that_cannot_be_used_is_one_sentence(command: list[str], word: str) -> None:
    done = run(*command, word)
    assert done.returncode == 2
    assert done.stderr.startswith(f'slalom: "{word}": ')
    assert len(done.stderr.splitlines()) == 1
