"""The screen of `slalom explain schedule`, its SVG and JSON, and how mistakes are answered."""

from __future__ import annotations

import functools
import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fresh import call, python
from slalom import pictures
from slalom.describe.schedule import as_json, describe, picture
from slalom.schedules import Cosine, LinearWarmup, parse
from slalom.schedules.base import named

run = functools.partial(call, "explain", "schedule")


def test_the_picture_rises_and_falls_as_the_schedule_does() -> None:
    rows = pictures.blocks(picture(parse("linear 100 start=0 end=1, linear 100")), width=20, height=4)
    areas = [row.split("│")[1].ljust(20) for row in rows if "│" in row]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(row[column]) for row in areas) for column in range(20)]
    assert heights[:10] == sorted(heights[:10])
    assert heights[10:] == sorted(heights[10:], reverse=True)
    assert heights[9] >= 30 > 4 >= heights[0]
    assert re.search(r"0 +50 +100 +150 +200", rows[-1]) or "100" in rows[-1]


def test_the_screen_says_what_is_drawn() -> None:
    done = run("warmup 500, cosine 9500", "--lr", "0.02")
    assert done.returncode == 0, done.stderr
    for text in ("10,000 steps", "500 to 10,000", "0.02 → 0", "cos(pi t / N)", "mean learning rate 0.009", "█"):
        assert text in done.stdout
    assert "\x1b[" not in done.stdout  # plain where there is no terminal


@pytest.mark.parametrize("name", sorted(set(named()) - {"cut", "repeat"}))
def test_every_schedule_is_explained_in_a_narrow_terminal(name: str) -> None:
    numbers = {"multi-step": "30 60", "growth": "0.1 5e-4 momentum=0.9", "wsd": "100 20", "algoperf-cyclic": "100 10"}
    few = {"exponential": "0.99", "constant": "", "1/t": "", "1/sqrt": "", "radam-warmup": ""}
    few |= {"untuned-linear": "", "untuned-exponential": ""}
    screen = describe(parse(f"{name} {numbers.get(name, few.get(name, '100'))}"), width=60)
    assert "█" in screen
    assert all(len(row) <= 60 for row in screen.splitlines() if "│" in row)


def test_svg_and_json_hold_the_schedule(tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    facts = json.loads(run("warmup 5%, cosine", "--steps", "200", "--svg", str(file), "--json").stdout)
    schedule = LinearWarmup(10).then(Cosine(190))
    assert facts == as_json(schedule)
    assert facts["points"][50] == [50.0, schedule(50)]
    assert [phase["start"] for phase in facts["phases"]] == [0, 10]
    root = ElementTree.fromstring(file.read_text())
    (line,) = [one for one in root.iter() if one.tag.endswith("polyline")]
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    drawn = picture(schedule).curves[0]
    for x, y in zip(drawn.x, drawn.y, strict=True):  # what was left out lies on the line
        place = 64 + x / 200 * (680 - 64 - 18)
        (x0, y0), (x1, y1) = next(pair for pair in itertools.pairwise(points) if place <= pair[1][0] + 0.06)
        height = y0 + (y1 - y0) * (place - x0) / (x1 - x0)
        assert height == pytest.approx(34 + (1 - y) * (300 - 34 - 44), abs=0.5)


def test_a_file_of_schedules(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('[schedule]\nlr = "warmup 5%, cosine"\n"betas.0" = { values = "linear 50 start=0.8 end=0.9" }\n')
    shown = run(str(file), "--steps", "100").stdout
    assert "lr = warmup 5, cosine 95" in shown
    assert "betas.0 = linear 50" in shown
    assert set(json.loads(run(str(file), "--steps", "100", "--json").stdout)) == {"lr", "betas.0"}


DOCUMENT = (Path(__file__).parent.parent / "docs" / "schedules.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL))
def test_the_documents_code_runs(block: str) -> None:
    done = python(block)
    assert done.returncode == 0, done.stderr


def test_the_documents_table_names_them_all() -> None:
    cells = [row.split("|")[1:3] for row in DOCUMENT.splitlines() if row.startswith("| `")]
    texts = [text for cell, _ in cells for text in re.findall(r"`(.*?)`", cell)]
    assert {type(parse(text)).text_name for text in texts} == set(named()) - {"cut", "repeat", "one-cycle-momentum"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cosne 5"], "Did you mean cosine"),
        (["warmup 5%, cosine"], "Say the length of the run"),
        (["nowhere.toml"], "cannot read schedules"),
        (["cosine 5", "--svg", "/nowhere/a.svg"], "cannot write"),
        (["cosine 5", "--stps", "5"], "--stps"),
    ],
)
def test_mistakes_get_one_sentence_and_status_2(words: list[str], sentence: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
