"""The pages that are written from the code are those in the repository, and every page that is linked is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fresh
from slalom.describe import methods_page
from slalom.recipes import list_optimizers, method

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks" / "RESULTS.md"])


def _anchors(page: str) -> set[str]:
    """Return what links within a page may name, as the usual forges make it of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_methods_is_up_to_date() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == methods_page(), "slalom list --markdown > docs/methods.md"


def test_the_page_says_of_every_method_what_the_catalogue_says() -> None:
    page = methods_page(["adamw", "muon"])
    assert "### adamw" in page
    assert "## Family: matrix" in page
    assert "for matrix, convolution" in page
    for name in ("adamw", "muon"):
        entry = method(name)
        assert f"- **use** {entry.use}\n- **avoid** {entry.avoid}" in page
    assert "[arXiv:1711.05101](https://arxiv.org/abs/1711.05101)" in page
    assert len(list_optimizers()) > page.count("\n### ") == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:")):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), target
        if anchor:
            assert anchor in _anchors(place.read_text(encoding="utf-8")), target


def _blocks() -> list[tuple[str, str]]:
    """Return the Python of every page but the README, which has a test of its own, and excerpts of a script."""
    found = [
        (page.name, page.read_text(encoding="utf-8")) for page in PAGES if page.name not in ("README.md", "race.md")
    ]
    return [
        (name, block) for name, text in found for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    ]


@pytest.mark.parametrize(("page", "block"), _blocks(), ids=[f"{name}-{at}" for at, (name, _) in enumerate(_blocks())])
def test_every_block_runs_by_itself(page: str, block: str, tmp_path: Path) -> None:
    done = fresh.python(block, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_excerpts_are_of_the_scripts_beside_the_page() -> None:
    scripts = "".join(file.read_text() for file in (ROOT / "docs" / "examples").glob("*_spiral.py"))
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "race.md").read_text(), flags=re.DOTALL):
        for line in block.splitlines():
            code = line.partition("#")[0].strip()
            if code and "report" not in code and "evaluating" not in code and code != "...":
                assert code in scripts, code
