"""Plant faults, one at a time, in copies of the code, and see whether the tests notice.

python scripts/mutate.py --sample 80 --seed 0 --file mutants.json     # again with the same file: it goes on
python scripts/mutate.py --list                                      # what could be planted, counted
python scripts/mutate.py --only parts/scale.py:131                   # the faults of one line

A fault is a sign, a swapped operand, a term left out, beta for 1 - beta, another comparison, an off-by-one, a minimum
for a maximum, a state that is not written. Tests are chosen by file: quick ones first, more if those saw nothing.
Each fault runs in a process that is forked after the slow imports.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import json
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("parts/*.py", "engine/plan.py", "engine/phases.py", "loading.py")

METHODS = "tests/test_methods.py::"
# What the methods' own entries claim, for those methods alone that use the part: seconds, and sees most.
QUICK = ["what the methods that use it claim"]
_CLAIMS = [METHODS + name for name in ("test_distinguishing_property", "test_equals_an_independent_implementation")]
_PARTS = [
    "part_formulas",
    "lazy",
    "light_parts",
    "norms",
    "averages",
    "steps",
    "recipes",
    "matrix",
    "kronecker",
    "lowrank",
    "chance",
    "tricks",
    "factored",
    "losses",
    "optimizer",
]
# For each source, tests in the order in which they are tried.
SUITES: dict[str, list[list[str]]] = {
    "parts": [
        QUICK,
        _CLAIMS,
        [f"tests/test_{name}.py" for name in _PARTS],
        [
            METHODS + "test_every_shape",
            METHODS + "test_zero_gradients_from_the_start_make_no_nan",
            "tests/test_pairs.py",
        ],
        ["tests/test_cli.py", "tests/test_observe_sigma.py", "tests/test_sparse.py"],
    ],
    "engine": [
        ["tests/test_engine.py", "tests/test_state_bytes.py"],
        ["tests/test_phases.py", "tests/test_native.py", "tests/test_storage.py"],
        ["tests/test_matrix.py", "tests/test_pairs.py", METHODS + "test_every_shape"],
    ],
    "loading": [
        ["tests/test_optimizer.py", "tests/test_blocks.py"],
        [METHODS + "test_resumes_to_the_same_bits", "tests/test_storage.py", "tests/test_averages.py"],
        ["tests/test_conformance.py", "tests/test_checkpoint.py", "tests/test_mixed_precision.py"],
    ],
}

_OTHER: dict[type[ast.AST], list[type[Any]]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.GtE],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}
_CALLS = {"maximum": "minimum", "minimum": "maximum", "min": "max", "max": "min", "all": "any", "any": "all"}
_SWAPPED = {"where": (1, 2), "lerp": (0, 1), "atan2": (0, 1)}


@dataclass(frozen=True)
class Fault:
    """A piece of source, and what stands there instead."""

    file: str
    line: int
    start: int
    stop: int
    kind: str
    before: str
    after: str
    owner: str  # the class around it, if there is one

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind}: {self.before!r} -> {self.after!r}"


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what could stand in the place of a node, with a word for it."""
    if isinstance(node, ast.BinOp):
        for other in _OTHER.get(type(node.op), []):
            yield "another operation", ast.BinOp(node.left, other(), node.right)
        if isinstance(node.op, (ast.Sub, ast.Div, ast.Pow)):
            yield "swapped operands", ast.BinOp(node.right, node.op, node.left)
        if isinstance(node.op, (ast.Add, ast.Sub)):
            yield "dropped term", node.left
            if isinstance(node.left, ast.Constant) and node.left.value == 1:
                yield "beta for 1 - beta", node.right
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in _OTHER.get(type(node.ops[0]), []):
            yield "another comparison", ast.Compare(node.left, [other()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield "another connective", ast.BoolOp(_OTHER[type(node.op)][0](), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield "dropped sign", node.operand
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name, places = node.func.id, _SWAPPED.get(node.func.id)
        if name in _CALLS:
            yield "the other bound", ast.Call(ast.Name(_CALLS[name]), node.args, node.keywords)
        if places and len(node.args) > places[1]:
            arguments = list(node.args)
            arguments[places[0]], arguments[places[1]] = arguments[places[1]], arguments[places[0]]
            yield "swapped arguments", ast.Call(node.func, arguments, node.keywords)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "off by one", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr == "t" and isinstance(node.value, ast.Name):
        yield "off by one", ast.BinOp(copy.deepcopy(node), ast.Sub(), ast.Constant(1))
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript)):
        yield "not written", ast.Pass()
    elif isinstance(node, (ast.Continue, ast.Break)):
        yield "not skipped", ast.Pass()


def faults(path: Path) -> list[Fault]:
    """Return every fault that can be planted in a file. What is declared, not computed, is left alone."""
    text = path.read_text()
    begins = [0]
    for line in text.splitlines(keepends=True):
        begins.append(begins[-1] + len(line.encode()))
    name = path.relative_to(ROOT / "src/slalom").as_posix()
    raw = text.encode()
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, (ast.Raise, ast.Assert, ast.arguments, ast.JoinedStr, ast.Subscript)):
            return  # sentences, defaults, hints
        if isinstance(node, ast.AnnAssign) and not inside[-1]:
            return
        scope = isinstance(node, (ast.FunctionDef, ast.ClassDef))
        if scope:
            owner.append(node.name if isinstance(node, ast.ClassDef) else owner[-1])
            inside.append(isinstance(node, ast.FunctionDef))
        if inside[-1]:
            for kind, other in variants(node):
                start = begins[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
                stop = begins[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
                after = ast.unparse(ast.fix_missing_locations(other))
                after = f"({after})" if isinstance(other, ast.expr) else after
                found.append(Fault(name, node.lineno, start, stop, kind, raw[start:stop].decode(), after, owner[-1]))  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            if child not in getattr(node, "decorator_list", []):
                visit(child)
        if scope:
            inside.pop()
            owner.pop()

    inside, owner = [False], [""]
    visit(ast.parse(text))
    return found


def suite_name(fault: Fault) -> str:
    """Return which tests are tried on a fault."""
    return fault.file.partition("/")[0].removesuffix(".py")


def _claims_hold(part: str) -> None:
    """Check golden vectors, properties and oracles of the methods that use a part, all if it is not given."""
    import torch

    import test_methods
    from cases import CASES
    from slalom.recipes import method

    def uses(name: str, settings: dict[str, Any]) -> bool:
        known = {key: value for key, value in settings.items() if key in method(name).defaults}
        return f"{part}(" in repr(method(name).recipe(**known))

    for name, case in CASES.items():
        torch.manual_seed(0)
        for golden in case.golden:
            if uses(name, golden.settings):
                test_methods.test_golden_vector(name, golden)
        if case.property is not None and uses(name, {}):
            case.property()
        for oracle in case.oracles:
            if uses(name, oracle.settings):
                test_methods.test_equals_an_independent_implementation(name, oracle)


def _become_tests(tree: Path, tests: list[str], limit: float, part: str) -> NoReturn:
    """Run tests in this process, and end it whatever happens: it must not clean up what its parent goes on using."""
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))  # not the clock's: machines are shared
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.chdir(tree)
        sys.path[:0] = [str(tree / "src"), str(tree / "tests")]
        if tests == QUICK:
            _claims_hold(part)
            os._exit(0)
        import pytest

        here = [test for test in tests if Path(test.partition("::")[0]).exists()]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
        code = int(pytest.main([*options, *here]))
    finally:
        os._exit(0 if code == 0 else 1)


def verdict(fault: Fault | None, tree: Path, tests: list[str], limit: float) -> str:
    """Run tests on a tree with a fault in it: "caught", "survived" or "endless", which whoever waits has caught."""
    source = tree / "src/slalom" / fault.file if fault else None
    kept = source.read_bytes() if source else b""
    if fault and source:
        source.write_bytes(kept[: fault.start] + fault.after.encode() + kept[fault.stop :])
    child = os.fork()
    if not child:
        _become_tests(tree, tests, limit, fault.owner if fault else "")
    _, status = os.waitpid(child, 0)
    if source:
        source.write_bytes(kept)
    if os.WIFSIGNALED(status):
        return "endless"
    return "survived" if os.waitstatus_to_exitcode(status) == 0 else "caught"


def judge(fault: Fault, tree: Path, limit: float, sound: set[str], most: int) -> str:
    """Return the verdict of all tests that are chosen for a fault; ``sound`` are those that pass without one."""
    for tests in SUITES[suite_name(fault)][:most]:
        name = " ".join(tests)
        if name not in sound and verdict(None, tree, tests, 10 * limit) != "survived":
            sys.exit(f"without any fault these tests fail: {name}.")
        sound.add(name)
        found = verdict(fault, tree, tests, limit)
        if found != "survived":
            return found
    return "survived"


def main() -> None:
    """Plant a sample of faults, report who survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=180.0, help="seconds of the processor for one set of tests")
    parser.add_argument("--file", type=Path, help="where verdicts are kept; a run with the same file goes on")
    parser.add_argument("--only", help="FILE:LINE, or a part of a path")
    parser.add_argument("--sets", type=int, default=9, help="how many sets of tests are tried, the quick ones first")
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    paths = sorted(path for pattern in SOURCES for path in (ROOT / "src/slalom").glob(pattern))
    every = [fault for path in paths for fault in faults(path)]
    if asked.only:
        every = [fault for fault in every if asked.only in f"{fault.file}:{fault.line}"]
    if asked.list:
        for path in sorted({fault.file for fault in every}):
            print(f"{sum(fault.file == path for fault in every):5} {path}")
        return
    random.Random(asked.seed).shuffle(every)
    chosen = every[: asked.sample]
    kept: dict[str, str] = json.loads(asked.file.read_text()) if asked.file and asked.file.exists() else {}
    os.environ["OMP_NUM_THREADS"] = "1"
    import pytorch_optimizer  # noqa: F401  (before the fork, once for all; torch comes with it)

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        tree, sound = Path(folder), set[str]()
        os.environ["SLALOM_CACHE"] = str(tree / "cache")
        for name in ("src", "tests", "docs", "scripts", "benchmarks", "pyproject.toml", "README.md", "Makefile"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, tree / name)
        for number, fault in enumerate(chosen, 1):
            if str(fault) not in kept:
                kept[str(fault)] = judge(fault, tree, asked.limit, sound, asked.sets)
                if asked.file:
                    asked.file.write_text(json.dumps(kept, indent=1))
            print(f"{number}/{len(chosen)} {kept[str(fault)]}: {fault}", flush=True)
    verdicts = [kept[str(fault)] for fault in chosen if str(fault) in kept]
    caught = sum(found != "survived" for found in verdicts)
    print(f"{caught} of {len(verdicts)} faults were caught ({100 * caught / max(1, len(verdicts)):.0f} %)")


if __name__ == "__main__":
    main()
