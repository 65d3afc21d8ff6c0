"""Published phenomena: each shows its signs, small always and in full when asked; and the command itself."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from fresh import call
from slalom import lab
from slalom.errors import UsageError
from slalom.lab import grokking_transformer, page, painted, show

# Settings, and methods where they may be chosen, with which a second shows what there is to see.
SMALL: dict[str, tuple[str, tuple[str, ...]]] = {
    "broken-regulariser": ("steps=300,coordinates=1000", ()),
    "double-descent": ("samples=100,trials=4", ()),
    "grokking": ("steps=800", ("adamw:betas=(0.9,0.98)", "adamw:betas=(0.9,0.98),weight_decay=0.0")),
    "grokking-transformer": ("prime=5,width=32,steps=60", ()),
    "growing-rate": ("steps=100", ()),
    "heavy-tail": ("steps=100", ("sgd:lr=27.3", "signsgd", "adam")),
    "heavy-tail-text": ("steps=80,words=256,batch=128", ()),
    "initialisation": ("steps=100,points=128", ()),
    "large-rates": ("steps=100,rates=(0.01,0.3,1.0,4.0)", ()),
    "noise-ball": ("steps=300", ()),
    "painted": ("steps=150,width=16,pattern=steps", ()),
    "rank": ("steps=3000,noise=4.0", ()),
    "rosenbrock": ("steps=1000", ()),
    "separable": ("steps=10000", ()),
    "telescope": ("steps=60", ("sgd:lr=0.03", "adam:lr=0.001", "sgd:lr=0.3")),
}
NAMES = list(lab.phenomena())
# Signs that a small size cannot show, and those that do not show at all, as docs/lab.md says.
NOT_SMALL = {
    "rosenbrock": {"adam near"},
    "large-rates": {"small", "large", "near", "above"},
    "grokking-transformer": {"gap", "blind", "overshoot", "end", "shrinks"},
    "painted": {"right", "high", "low", "fresh"},
    "heavy-tail-text": {"rare", "frequent", "adam", "whole"},
}
NOT_SEEN = {"large-rates": {"small", "above"}}


def judge(finding: lab.Finding, excepted: set[str]) -> None:
    """Fail with the numbers if a sign did not show in every run."""
    for one in finding.judged:
        if one.values and one.sign.key not in excepted:
            assert one.verdict == "seen", f"{one.sign.claim}: {one.measured}, {one.sign.needs} needed"


@pytest.fixture(scope="module")
def small() -> dict[str, lab.Finding]:
    """Every phenomenon at its small size, run once for all tests."""
    torch.set_num_threads(1)
    found = {}
    for name in NAMES:
        settings, recipes = SMALL[name]
        found[name] = lab.study(lab.set_up(f"{name}:{settings}", recipes), seeds=1)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_phenomenon_shows_its_signs_at_a_small_size(name: str, small: dict[str, lab.Finding]) -> None:
    judge(small[name], NOT_SMALL.get(name, set()))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_phenomenon_shows_its_signs_in_every_run(name: str) -> None:
    judge(lab.study(lab.set_up(name)), NOT_SEEN.get(name, set()))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_quick_look_shows_the_signs(name: str) -> None:
    judge(lab.study(lab.set_up(name, quick=True), seeds=1), NOT_SMALL.get(name, set()))


@pytest.mark.parametrize("name", NAMES)
def test_a_finding_is_a_screen_a_picture_a_page_and_data(name: str, small: dict[str, lab.Finding]) -> None:
    finding = small[name]
    screen = show.text(finding, 80)
    commands = [row for row in screen.splitlines() if row.startswith("  slalom lab ")]
    assert len(commands) == len(finding.phenomenon.variants)
    assert max(len(row) for row in screen.splitlines() if row not in commands) <= 80
    assert finding.sentence in " ".join(screen.split())
    assert ElementTree.fromstring(page.svg(finding)).tag.endswith("svg")
    html = page.html(finding)
    assert html.count("<svg") == len(finding.runs[0].pictures)
    assert html.count("<dt>") == len(finding.phenomenon.variants)
    facts = json.loads(json.dumps(finding.as_json(), allow_nan=False))
    assert [sign["key"] for sign in facts["signs"]] == [sign.key for sign in finding.phenomenon.signs]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_complete(name: str) -> None:
    entry = lab.phenomena()[name]
    assert len({sign.key for sign in entry.signs}) == len(entry.signs) >= 2
    assert all(sign.expected.split(":")[0].strip() for sign in entry.signs)
    assert entry.quick.keys() <= lab.set_up(name).settings().keys()
    assert entry.variants, "what to try next"
    for word in entry.variants:
        what, *recipes = word.split()
        assert not set(word) & set("'\"()$*?&;<>|"), "to be copied into a shell as it is"
        assert lab.set_up(what, tuple(recipes)).name in NAMES


def test_the_same_seed_gives_the_same_numbers() -> None:
    one, other = (lab.study(lab.set_up("separable:steps=200"), seeds=1, first=3) for _ in range(2))
    assert one.runs[0].values == other.runs[0].values
    assert one.runs[0].values != lab.study(lab.set_up("separable:steps=200"), seeds=1).runs[0].values


def test_a_kept_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    settings = f"grokking-transformer:prime=7,width=32,lr=0.003,share=0.6,steps=240,keep={str(tmp_path / 'runs')!r}"

    def stop(share: float) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.study(lab.set_up(settings), seeds=1, progress=stop)
    told: list[float] = []
    resumed = lab.study(lab.set_up(settings), seeds=1, progress=told.append)
    assert told[0] == pytest.approx(101 / 240)  # kept after 100 steps
    whole = lab.study(lab.set_up(settings.partition(",keep")[0]), seeds=1)
    assert resumed.runs[0].values == whole.runs[0].values
    assert resumed.runs[0].table == whole.runs[0].table
    with pytest.raises(UsageError, match="other settings"):
        lab.study(lab.set_up(settings.replace("lr=0.003", "lr=0.001")), seeds=1)


def test_division_has_its_answers() -> None:
    """Every equation x / y = z of the table holds: z y = x."""
    path = grokking_transformer.table(7)
    assert len(path[0]) == 42
    for (x, _, y, _), z in zip(path[0].tolist(), path[1].tolist(), strict=True):
        assert y
        assert z * y % 7 == x


def test_a_pattern_is_read_as_it_is_written() -> None:
    assert painted.read("Xoo_oXo_ooX").tolist() == torch.eye(3).bool().tolist()
    places = painted.places(painted.read("Xoo_oXo"))
    assert places.tolist() == [[-1, 1], [0, 1], [1, 1], [-1, -1], [0, -1], [1, -1]]  # rows from the top


def test_the_surface_that_is_painted_is_that_of_a_network() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 20), (5, 5), (4, 5)]
    three = [torch.randn(159, generator=generator) for _ in range(3)]
    surface = painted.Surface(three, shapes)
    across, up = surface.directions()
    assert across is three[1]
    assert abs(float(across @ up)) < 1e-4
    assert float(up.norm()) == pytest.approx(float(across.norm()))
    x, y = torch.randn(7, 20, generator=generator), torch.arange(7) % 4
    network = nn.Sequential(nn.Linear(20, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 4))
    nn.utils.vector_to_parameters(three[0] + 0.3 * across - 0.7 * up, network.parameters())
    found = surface.losses(torch.tensor([[0.3, -0.7]]), x, y)
    torch.testing.assert_close(found[0], nn.functional.cross_entropy(network(x), y).detach())


def test_recipes_of_choice_run_and_signs_about_others_are_not_judged() -> None:
    finding = lab.study(lab.set_up("rosenbrock:steps=300", ("muon", "lion", "schedule-free-adamw", "momo")))
    assert finding.verdict == "nothing to judge"
    assert finding.table is not None
    assert set(finding.table.rows) == {"muon", "lion", "schedule-free-adamw", "momo"}


def test_a_table_that_is_too_wide_is_turned_or_has_names_above() -> None:
    table = lab.Table(("", *"abcdefgh"), {"row": tuple(map(float, range(8))), "other": (0.123456,) * 8})
    as_it_is, turned, above = (["".join(p for p, _ in row) for row in show.numbers(table, 1, w)] for w in (80, 30, 12))
    assert len(as_it_is) == 3
    assert as_it_is[1].split() == ["row", "0", "1", "2", "3", "4", "5", "6", "7"]
    assert len(turned) == 9
    assert turned[2].split() == ["b", "1", "0.1235"]
    assert len(above) == 18
    assert above[2].split() == ["a"]
    assert above[3].split() == ["0", "0.1235"]


def test_a_sign_needs_its_range_and_no_number_is_none() -> None:
    sign = lab.Sign("k", "claim", "theory: 1", low=0.5, high=2.0)
    assert sign.holds(1.0)
    assert not any(map(sign.holds, (0.4, 2.1, math.nan, math.inf)))
    assert lab.Judged(sign, (1.0, 3.0)).verdict == "seen in 1 of 2"
    assert lab.Judged(sign, ()).verdict == "not measured"


run = functools.partial(call, "lab")


def test_the_command_lists_runs_and_writes(tmp_path: Path) -> None:
    listed = run().stdout
    assert all(name in listed for name in NAMES)
    out = tmp_path / "r.html"
    done = run("rosenbrock:steps=200", "sgd", "adam", "--out", str(out))
    assert done.returncode == 0
    assert "signs" in done.stdout
    assert "default-src 'none'" in out.read_text(encoding="utf-8")
    refused = run("rosenbrock", "--out", "picture.png")
    assert refused.returncode == 2
    assert refused.stderr.startswith("slalom: --out")


@pytest.mark.parametrize(
    ("word", "recipes", "sentence"),
    [
        ("rosenbrok", (), "Did you mean rosenbrock"),
        ("rosenbrock:step=3", (), "Did you mean steps"),
        ("rosenbrock:steps=many", (), "a value like 10000 is wanted"),
        ("rosenbrock", ("adamv",), "Did you mean"),
        ("separable", ("adam",), "takes no recipes"),
        ("growing-rate:weight_decay=3", (), "too much decay"),
        ("grokking-transformer:prime=9", (), "only modulo a prime"),
        ("grokking-transformer:width=48", (), "a multiple of 32"),
        ("painted:pattern=cat", (), "give smiley, heart, steps, or rows"),
        ("painted:pattern=Xo_o", (), "of one length"),
        ("heavy-tail-text:words=3", (), "give 10 or more"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(word: str, recipes: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        lab.study(lab.set_up(word, recipes), seeds=1)
