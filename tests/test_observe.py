"""Each disease is found, and nothing else with it; healthy runs have none. What a verdict says is what was measured."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

import slalom
from sick_runs import SICK, Point, Well, adam, classes, perceptron, quadratic, sgd, trained
from slalom.observe.noise import noise_scale, noise_to_batch
from slalom.observe.record import QUANTITIES, Run
from slalom.observe.report import Report
from slalom.observe.tails import hill
from slalom.observe.verdicts import CATALOGUE

# What follows from a disease, and is said beside it.
COMPANIONS = {
    "rounded-away": {"creeping"},
    "diverging": {"spiky"},
    "overshooting": {"diverging"},
    "vanishing": {"lopsided"},
    "exploding": {"lopsided", "rounded-away"},
    "spiky": {"stale"},
}


def test_every_rule_has_a_run_that_breaks_it() -> None:
    assert [rule.name for rule in CATALOGUE] == list(SICK)


@pytest.mark.parametrize("name", SICK)
def test_a_sick_run_is_told_its_disease_and_no_other(name: str) -> None:
    report = Report(SICK[name]())
    assert name in report.names
    assert set(report.names) - {name} <= COMPANIONS.get(name, set())


HEALTHY = {
    "adamw": Well("digits_mlp", lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3), 400, True),
    "adamw at a constant rate": Well(
        "digits_mlp", lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3), 400, False
    ),
    "sgd": Well("digits_mlp", lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 400, True),
    "sgd at a constant rate": Well(
        "digits_mlp", lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 400, False
    ),
    "sgd without momentum": Well("digits_mlp", lambda model: torch.optim.SGD(model.parameters(), lr=0.3), 400, True),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_verdict_at_any_time(name: str) -> None:
    pytest.importorskip("sklearn")
    run = HEALTHY[name]()
    assert run.losses[-1] < 0.25 * run.losses[0]
    for step in run.steps:
        assert Report(run.until(step)).names == []


def test_a_healthy_small_run_has_no_verdict() -> None:
    for make in (sgd, adam):
        model = perceptron()
        assert Report(trained(model, make(model), classes(200))).names == []


def test_one_sample_is_no_ground_for_a_verdict_about_training() -> None:
    model = perceptron()
    report = Report(trained(model, adam(model), classes(3)))
    assert report.names == []
    assert "Nothing is known yet" in str(report)


def test_rules_are_data_that_explain_themselves() -> None:
    for rule in CATALOGUE:
        assert rule.means.endswith(".")
        assert rule.remedy.endswith(".")
        assert rule.source
        assert all(math.isfinite(limit) for limit in rule.limits.values())


def test_a_probe_finds_the_lowest_point_along_a_step() -> None:
    for lr, reach in ((0.5, 2.0), (1.0, 1.0), (2.5, 0.4)):
        model = Point(1.0)
        run = trained(model, sgd(model, lr, 0.0), range(2), quadratic(1.0), every=1, probes=True)
        assert run.samples[0].reach == pytest.approx(reach, rel=1e-3)


# --- statistics -----------------------------------------------------------------------------------------------------


def test_the_kurtosis_is_that_of_the_gradient() -> None:
    """0 for a Gaussian, 1.5 - 3 for two values that are equally likely; also where the mean is far from 0."""

    def kurtosis(x: torch.Tensor) -> float:
        model = nn.Linear(len(x), 1, bias=False)
        run = trained(model, sgd(model), [x], lambda model, x: (model.weight * x).sum(), every=1)
        return float(run["kurtosis"][0, 0])

    x = torch.randn(60_000, generator=torch.Generator().manual_seed(0))
    assert kurtosis(x) == pytest.approx(0, abs=0.1)
    assert kurtosis(5 + x) == pytest.approx(kurtosis(x), abs=1e-3)
    assert kurtosis(torch.tensor([-1.0, 1.0] * 100)) == pytest.approx(-2)


@pytest.mark.parametrize("alpha", [1.5, 3.0])
def test_hills_index_is_the_exponent_of_a_pareto_tail(alpha: float) -> None:
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(hill(u ** (-1 / alpha))) == pytest.approx(alpha, rel=0.05)


def test_hills_index_is_the_formula_on_a_few_numbers() -> None:
    assert float(hill(torch.tensor([1.0, -2.0, 4.0, 4.0, -4.0, 4.0, 0.5]))) == pytest.approx(
        5 / (4 * math.log(4) + math.log(2))
    )
    assert math.isnan(float(hill(torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]))))
    assert math.isnan(float(hill(torch.ones(5))))


def test_hills_index_of_students_t_is_its_degrees_of_freedom() -> None:
    generator = torch.Generator().manual_seed(0)
    normal, chi = (torch.randn(400_000, n, generator=generator, dtype=torch.float64) for n in (1, 3))
    t = normal[:, 0] / (chi.square().sum(1) / 3).sqrt()
    assert float(hill(t, 0.001)) == pytest.approx(3, rel=0.1)


def test_the_noise_scale_is_that_of_the_items_the_batches_were_drawn_from() -> None:
    generator = torch.Generator().manual_seed(0)
    signal, deviation, draws = torch.full((50,), 0.1, dtype=torch.float64), 2.0, 4000

    def squared_norm(batch: int) -> float:
        noise = torch.randn(draws, 50, generator=generator, dtype=torch.float64) * deviation / math.sqrt(batch)
        return float((signal + noise).square().sum(1).mean())

    found = noise_scale(squared_norm(4), squared_norm(64), 4, 64)
    assert found.signal == pytest.approx(0.5, rel=0.2)
    assert found.noise == pytest.approx(200, rel=0.05)
    assert found.critical_batch == pytest.approx(400, rel=0.2)
    with pytest.raises(ValueError, match="the smaller one first"):
        noise_scale(1.0, 1.0, 8, 8)


def test_noise_to_batch_is_found_from_successive_gradients_alone() -> None:
    """At a rate of 0 all gradients have one mean; what their batches add is known."""
    model = nn.Linear(40, 1, bias=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.weight.zero_()

    def loss(model: nn.Module, noise: torch.Tensor) -> torch.Tensor:
        return (model.weight * (0.3 + noise)).sum()

    noises = [torch.randn(1, 40, generator=generator) * 0.9 for _ in range(500)]
    run = trained(model, torch.optim.SGD(model.parameters(), lr=0.0), noises, loss, every=2)
    assert noise_to_batch(run) == pytest.approx(9, rel=0.2)


# --- screens --------------------------------------------------------------------------------------------------------


def sick() -> Run:
    return SICK["dead-units"]()


@pytest.mark.parametrize("width", [72, 80, 110])
def test_a_screen_fits_the_terminal_and_says_what_was_seen_and_what_to_do(width: int) -> None:
    screen = Report(sick()).draw(width)
    assert max(map(len, screen.splitlines())) <= width
    for text in ("WRONG", "dead-units", "2.weight 0.6", "where", "means", "do", "step/|w|", "watching took", "┊"):
        assert text in screen


def test_json_holds_the_same_as_strict_data() -> None:
    facts = json.loads(json.dumps(Report(sick()).as_json(), allow_nan=False))
    (verdict,) = facts["verdicts"]
    assert verdict["name"] == "dead-units"
    assert verdict["where"][0]["parameter"] == "2.weight"
    assert verdict["limits"] == {"share": 0.5}
    assert [row["name"] for row in facts["parameters"]] == [name for name, _ in perceptron().named_parameters()]


def test_a_run_without_losses_says_that_nothing_was_asked_about_them() -> None:
    model = perceptron()
    optimizer = adam(model)
    with slalom.observe.watch(model, optimizer, every=5) as watch:
        for x, y in classes(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert "No loss was given" in str(watch.report())


PAGE = (Path(__file__).parent.parent / "docs" / "observe.md").read_text()


def test_the_page_shows_the_screen_that_is_printed() -> None:
    head, counts, *rows = Report(SICK["bouncing"]()).draw(100).splitlines()
    assert f"{head}\n{counts.partition(';')[0]}; watching took" in PAGE
    assert "\n".join(row.rstrip() for row in rows) in PAGE


def test_the_pages_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    watching, describing = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(watching, "observe.md", "exec"), {})
    assert "AdamW, lr 0.0003   4 parameters" in capsys.readouterr().out
    exec(compile(describing, "observe.md", "exec"), {})
    facts, _, bars = capsys.readouterr().out.partition("\n\n")
    assert f"```\n{facts}\n```" in PAGE
    assert "2^-10" in bars


def test_the_page_lists_the_rules_and_the_quantities_as_they_are() -> None:
    for rule in CATALOGUE:
        limits = ", ".join(f"{name} {value:g}" for name, value in rule.limits.items())
        assert f"| `{rule.name}` | {rule.weight} | {rule.title} | {limits} | {rule.source} |" in PAGE
    for name, meaning in QUANTITIES.items():
        assert f"| `{name}` | {meaning} |" in PAGE


@pytest.mark.parametrize("module", ["observe", "landscape"])
def test_what_the_documents_name_is_there(module: str) -> None:
    docs = "".join(page.read_text(encoding="utf-8") for page in Path(__file__).parent.parent.glob("docs/*.md"))
    named = set(re.findall(rf"slalom\.{module}\.(\w+)", docs))
    assert named
    assert [name for name in sorted(named) if not hasattr(getattr(slalom, module), name)] == []


def test_noise_alone_is_neither_a_rise_nor_a_reason_not_to_see_tiny_steps() -> None:
    found = Counter[str]()
    for seed in range(12):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        with slalom.observe.watch(model, optimizer, every=10) as watch:
            for _ in range(200):
                x = torch.randn(16, 8)
                optimizer.zero_grad()
                loss = (model(x) - x[:, :1]).square().mean()
                loss.backward()
                optimizer.step()
                watch.loss(loss)
        found.update(watch.report().names)
    assert set(found) == {"creeping"}
    assert found["creeping"] >= 9  # the median of two dozen cosines may miss its limit
