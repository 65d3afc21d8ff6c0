"""The page that the kit writes: what it says of whom, and that the one in the documentation knows every contract."""

from __future__ import annotations

from pathlib import Path

import torch

from fresh import call
from slalom.testing import check_optimizer
from slalom.testing.conformance import CONTRACTS
from slalom.testing.matrix import contracts_page, markdown
from test_conformance import AcceptsAnything, Sound

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_counts_names_and_gives_reasons() -> None:
    chosen = ["direction", "strict", "named"]
    reports = [
        check_optimizer(Sound, label="sound", only=chosen),
        check_optimizer(Sound, label="careful", only=chosen, leave_out={"named": "it has <no> names_"}),
        check_optimizer(AcceptsAnything, label="far.away:AcceptsAnything", only=chosen),
        check_optimizer(torch.optim.SGD, label="torch.optim:SGD", only=chosen),
    ]
    page = markdown(reports, "a test")
    assert "| slalom | 2 | 5 | 0 | 1 |" in page
    assert "| far.away | 1 | 2 | 1 | 0 |" in page
    assert "| named | – |" in page
    assert "Contracts that all keep: direction, strict." in page
    assert "- careful does not promise named: it has \\<no\\> names\\_" in page
    assert "| strict | **✗** |" in page
    assert "- strict (AcceptsAnything): wieght\\_decay=0.1 was accepted" in page
    assert "Optimizers that keep all: SGD." in page
    assert f"torch {torch.__version__}" in page


def test_the_page_in_the_documentation_knows_every_contract() -> None:
    page = (DOCS / "conformance.md").read_text(encoding="utf-8")
    for name in CONTRACTS:
        assert f"| {name} |" in page or f" {name}," in page or f" {name}." in page, f"{name}: make conformance"


def test_the_page_of_contracts_is_up_to_date() -> None:
    assert (DOCS / "contracts.md").read_text(encoding="utf-8") == contracts_page(), (
        "slalom check --list --markdown > docs/contracts.md"
    )


def test_the_command_writes_it_and_wants_something_to_check() -> None:
    done = call("check", "prodigy", "--markdown")
    assert done.returncode == 0
    assert done.stdout.startswith("# Conformance")
    assert "- prodigy does not promise one-each: one distance for the whole model" in done.stdout
    nothing = call("check")
    assert nothing.returncode == 2
    assert "give names, module:Class, FILE.py:Class, or --all" in nothing.stderr
