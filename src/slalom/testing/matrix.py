"""Reports of the conformance kit as a Markdown page."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Final

from slalom.testing.conformance import CONTRACTS, TOPICS, Contract, Report

_MARKS: Final = {"holds": "✓", "broken": "**✗**", "not promised": "–"}
_INTRODUCTION: Final = """# Conformance

What `slalom check` finds: [{contracts} contracts](contracts.md) that PyTorch and its ecosystem rely on, run against
optimizers with their default arguments, each in seconds on a CPU. Written by `{command}` with {versions}.

✓ holds, **✗** is broken, – is not promised. A contract is a claim about behaviour in a program, not about the quality
of a method, and what counts as broken here may be documented there. Every contract is tested itself: a sound optimizer
keeps it, and it catches a defect that was planted for it (`tests/test_planted_defects.py`).
"""
_CONTRACTS_INTRODUCTION: Final = """# The contracts

What PyTorch and its ecosystem rely on when they are given an optimizer: {contracts} claims that `slalom check` and
`slalom.testing.assert_conforms` try on any of them, ours or others'. Written by `slalom check --list --markdown`; who
keeps which is in [conformance.md](conformance.md).

A method may state a claim as an exception, with the reason: what looks at the whole model cannot equal one optimizer
per parameter. Every contract is tested itself, by a defect that it must catch (`tests/test_planted_defects.py`).
"""


def markdown(reports: Sequence[Report], command: str) -> str:
    """Return a page: a summary, a matrix per library, and why what is broken is broken.

    Args:
        reports: as `check_optimizer` returned them; a label such as ``torch.optim:AdamW`` names the library.
        command: what the page says that it was written by.
    """
    libraries: dict[str, list[Report]] = {}
    for report in reports:
        module, found, _ = report.label.rpartition(":")
        libraries.setdefault(module if found else "slalom", []).append(report)
    packages = dict.fromkeys(["slalom", "torch", *(library.split(".")[0] for library in libraries)])
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    parts = [_INTRODUCTION.format(contracts=len(CONTRACTS), command=command, versions=versions)]
    parts.append(_summary(libraries))
    for library, members in libraries.items():
        parts += [f"## {library}\n", _matrix(members), _reasons(members)]
    return "\n".join(part for part in parts if part) + "\n"


def by_topic() -> list[tuple[str, list[Contract]]]:
    """Return all contracts under the sentences that head them."""
    return [
        ((topic.__doc__ or "").strip(), [one for one in CONTRACTS.values() if one.check.__module__ == topic.__name__])
        for topic in TOPICS
    ]


def contracts_page() -> str:
    """Return a page of all contracts: what must be true, and what goes wrong elsewhere without it."""
    parts = [_CONTRACTS_INTRODUCTION.format(contracts=len(CONTRACTS))]
    for title, members in by_topic():
        rows = "".join(f"\n| {one.name} | {one.claim} | {one.why} |" for one in members)
        parts.append(f"## {title.rstrip('.')}\n\n| name | claim | why |\n| --- | --- | --- |{rows}\n")
    return "\n".join(parts)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name.split(".")[0].replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        import slalom

        return slalom.__version__ if name == "slalom" else ""


def _summary(libraries: dict[str, list[Report]]) -> str:
    rows = ["| | optimizers | checks that hold | broken | not promised |", "| --- | --- | --- | --- | --- |"]
    for library, members in libraries.items():
        verdicts = [result.verdict for report in members for result in report.results]
        counts = [verdicts.count(verdict) for verdict in ("holds", "broken", "not promised")]
        rows.append(f"| {library} | {len(members)} | {' | '.join(map(str, counts))} |")
    return "\n".join(rows) + "\n"


def _matrix(reports: Sequence[Report]) -> str:
    """Return rows of contracts that somebody does not keep, with a column for each who does not keep all."""
    rows = list(zip(*(report.results for report in reports), strict=True))
    told = [row for row in rows if {result.verdict for result in row} != {"holds"}]
    kept = [row[0].contract.name for row in rows if row not in told]
    partly = [place for place in range(len(reports)) if any(row[place].verdict != "holds" for row in told)]
    whole = [_name(report) for place, report in enumerate(reports) if place not in partly]
    lines = [f"Contracts that all keep: {', '.join(kept)}.\n"] if kept else []
    lines += [f"Optimizers that keep all: {', '.join(whole)}.\n"] if whole else []
    if told:
        lines.append(f"| | {' | '.join(_name(reports[place]) for place in partly)} |")
        lines.append("| --- |" + " --- |" * len(partly))
        for row in told:
            lines.append(f"| {row[0].contract.name} | {' | '.join(_MARKS[row[place].verdict] for place in partly)} |")
    return "\n".join(lines) + "\n"


def _reasons(reports: Sequence[Report]) -> str:
    """Return why what is not promised is not, and for every contract that is broken one case of how."""
    lines = [
        f"- {_name(report)} does not promise {result.contract.name}: {_plain(result.why)}"
        for report in reports
        for result in report.results
        if result.verdict == "not promised"
    ]
    for row in zip(*(report.results for report in reports), strict=True):
        broken = [(report, result) for report, result in zip(reports, row, strict=True) if result.verdict == "broken"]
        if broken:
            report, result = broken[0]
            among = f", one of {len(broken)}" if len(broken) > 1 else ""
            lines.append(f"- {result.contract.name} ({_name(report)}{among}): {_plain(result.why)}")
    return "\n".join([*lines, ""]) if lines else ""


def _name(report: Report) -> str:
    return report.label.rpartition(":")[2]


def _plain(text: str) -> str:
    """Keep what an error says from being read as Markdown, and short."""
    shown = text if len(text) <= 160 else text[:157] + "..."
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|#" else letter for letter in shown)
