"""Plant faults, one at a time, in the running code, and see whether the tests notice.

python scripts/mutate.py --seed 1 --file faults.json     # again with the same file: it goes on
python scripts/mutate.py --list                          # what could be planted, counted
python scripts/mutate.py --only parts/scale.py:131       # the faults of one line

A fault is a sign, a swapped operand, a term left out, beta for 1 - beta, another comparison, an off-by-one, a minimum
for a maximum, a state that is not written. Which tests run a statement is found out first, once, and kept in a file;
a fault then meets only tests that run its statement, quick ones first, up to the first that fails. Everything is
imported and collected once: a fault is planted by giving a function other code, in a process forked for it. What
imports have computed already and what a test starts as a program of its own is without the fault, so a survivor may
be noticed all the same; no file is changed.

Faults that nobody could notice are listed with their reasons in scripts/equivalent_faults.toml and counted apart.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import copy
import gc
import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, TextIO

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "src/slalom"
PLANNER = [
    "program",
    "plan",
    "phases",
    "fused",
    "native/wiring",
    "native/batch",
    "tables",
    "matrices",
    "scratch",
    "stacks",
    "batch",
    "blocks",
]
SOURCES = {
    "parts": ["parts/*.py"],
    "planner": [f"engine/{name}.py" for name in PLANNER],
    "loader": ["optimizer/loading.py", "checkpoint/*.py"],
}
# Of the tests that all methods share, those that see most; and whatever else runs a step, a plan or a loader.
METHODS = (
    "golden_vector",
    "equals_an_independent_implementation",
    "distinguishing_property",
    "every_shape",
    "zero_gradients_from_the_start_make_no_nan",
    "resumes_to_the_same_bits",
)
SUITES = (
    "formulas formulas_of_steps part_formulas planner loading optimizer checkpoint storage blocks phases engine matrix "
    "kronecker lowrank factored norms averages steps light_parts lazy tricks chance losses nonfinite recipes "
    "roles_and_groups native foreach memory scaled teams slips"
)
FAULTS = ("tests/faults/test_faults_files.py",)


def suites() -> list[str]:
    """Return what is collected."""
    methods = [f"tests/test_methods.py::test_{name}" for name in METHODS]
    return [*methods, *(f"tests/test_{name}.py" for name in SUITES.split()), *FAULTS]


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
    statement: str  # where it stands: file and first line

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
    raw = path.read_bytes()
    begins = [0]
    for line in raw.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    name = path.relative_to(CODE).as_posix()
    found = []

    def plant(node: Any, kind: str, other: ast.AST, statement: str) -> None:
        start = begins[node.lineno - 1] + node.col_offset
        stop = begins[node.end_lineno - 1] + node.end_col_offset
        after = ast.unparse(ast.fix_missing_locations(other))
        after = f"({after})" if isinstance(other, ast.expr) else after
        found.append(Fault(name, node.lineno, start, stop, kind, raw[start:stop].decode(), after, statement))

    def visit(node: ast.AST, inside: bool, statement: str) -> None:
        if isinstance(node, (ast.Raise, ast.Assert, ast.arguments, ast.JoinedStr, ast.Subscript)):
            return  # sentences, defaults, hints
        if isinstance(node, ast.AnnAssign) and not inside:
            return
        if isinstance(node, ast.stmt):
            statement = _statement(name, raw, node)
        if inside:
            for kind, other in variants(node):
                plant(node, kind, other, statement)
        inside = isinstance(node, ast.FunctionDef) or (inside and not isinstance(node, ast.ClassDef))
        for child in ast.iter_child_nodes(node):
            if child not in getattr(node, "decorator_list", []):
                visit(child, inside, statement)

    visit(ast.parse(raw), inside=False, statement="")
    return found


def _statement(file: str, raw: bytes, node: ast.stmt) -> str:
    return f"{file}: {raw.splitlines()[node.lineno - 1].decode().strip()}"


# --- other code for the same functions --------------------------------------------------------------------------


def replace(path: Path, tree: ast.Module | bytes) -> int:
    """Give every function of a file the code that this text or tree has for it; return how many have other code now."""
    codes: dict[tuple[str, int], CodeType] = {}

    def walk(code: CodeType) -> None:
        codes[code.co_qualname, code.co_firstlineno] = code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                walk(constant)

    walk(compile(tree, str(path), "exec"))
    changed = 0
    for function in gc.get_objects():  # (isinstance would wake up proxies)
        if type(function) is FunctionType and function.__code__.co_filename == str(path):
            old = function.__code__
            new = codes.get((old.co_qualname, old.co_firstlineno), old)
            if new.co_freevars == old.co_freevars:  # a module's lambdas on one line are told apart by nothing else
                function.__code__ = new
                changed += new != old
    return changed


def watch(paths: list[Path]) -> set[str]:
    """Make the functions of some files note their statements in a set, which is returned."""
    for path in paths:
        raw, file = path.read_bytes(), path.relative_to(CODE).as_posix()
        module = ast.parse(raw)
        functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
        for node in {id(node): node for function in functions for node in ast.walk(function)}.values():
            for name in ("body", "orelse", "finalbody"):
                body = getattr(node, name, None)
                if isinstance(body, list):
                    setattr(node, name, [one for at in body for one in (_note(_statement(file, raw, at), at), at)])
        replace(path, module)
    noted: set[str] = set()
    builtins.__dict__["_noted"] = noted
    return noted


def _note(statement: str, at: ast.stmt) -> ast.stmt:
    call = ast.parse(f"_noted.add({statement!r})").body[0]
    for node in ast.walk(call):
        ast.copy_location(node, at)
    return call


# --- processes --------------------------------------------------------------------------------------------------

NOT_PLANTED = 70  # exit status where the function with the fault could not be found or not be given other code


class _InChild(BaseException):
    """Leads a forked process back to pytest's own loop."""


class Runner:
    """Runs some of the collected tests in a forked process, as a plugin of pytest.

    Args:
        job: what is to be done once everything is collected.
    """

    def __init__(self, job: Callable[[Runner], None]) -> None:
        self.job = job
        self.say: Callable[..., object] | None = None  # a child's, to its parent
        self.noted: set[str] | None = None  # the statements that a test ran, where that is asked
        self.begun = 0.0
        self.sound = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        """Do the job. A forked process goes on with pytest's loop over the tests that were chosen for it."""
        gc.unfreeze()  # functions that the tests' own setup put out of sight are to be found again
        self.session = session
        self.items = {item.nodeid: item for item in session.items}
        try:
            self.job(self)
        except _InChild:
            return None
        return True

    def run(self, tests: list[str], prepare: Callable[[], set[str] | None], limit: float) -> Iterator[list[Any]]:
        """Run tests after preparing the process; yield what it says, and at the end its exit status, -signal."""
        read, write = os.pipe()
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))  # not the clock's: machines are shared
            signal.alarm(int(20 * limit))  # but nobody waits for ever
            self.say = lambda *words: os.write(write, (json.dumps(words) + "\n").encode())
            self.session.items = [self.items[test] for test in tests]
            self.noted = prepare()
            raise _InChild
        os.close(write)
        with os.fdopen(read) as said:
            yield from map(json.loads, said)
        yield ["status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Begin a test. What an earlier one left in a cache would hide statements that this one needs."""
        if self.say is not None:
            self.say("starts", nodeid)
            self.sound, self.begun = True, time.process_time()
            if self.noted is not None:
                _clear_caches()
                self.noted.clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Stop at a failure."""
        self.sound &= report.passed
        if self.say is not None and self.noted is None and report.failed:
            os._exit(1)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Tell what a test ran; nothing if it did not pass."""
        if self.say is not None and self.noted is not None:
            noted = sorted(self.noted) if self.sound else []
            self.say("ran", nodeid, round(time.process_time() - self.begun, 3), noted)


def _clear_caches() -> None:
    for module in [module for name, module in sys.modules.items() if name.startswith("slalom.engine.")]:
        for held in list(vars(module).values()):
            if hasattr(held, "cache_parameters") and module.__name__ != "slalom.engine.native.build":
                held.cache_clear()


# --- which tests ------------------------------------------------------------------------------------------------


class Map:
    """Which tests run a statement, and for how long, kept in a file. It is found out anew for tests that changed, and
    for those that run something in a source that changed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        kept = json.loads(file.read_text()) if file.exists() else {}
        self.digests: dict[str, str] = kept.get("digests", {})  # of tests and sources
        self.number: dict[str, int] = {statement: place for place, statement in enumerate(kept.get("statements", []))}
        self.ran: dict[str, tuple[float, list[int]]] = kept.get("ran", {})

    def update(self, runner: Runner, sources: list[Path]) -> None:
        """Run what is new among the tests. Those that fail are not used."""
        paths = {path.relative_to(CODE).as_posix(): path for path in sources}
        paths |= {name: ROOT / name for name in {test.partition("::")[0] for test in runner.items}}
        digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
        changed = {name for name, digest in digests.items() if self.digests.get(name) != digest}
        stale = {place for statement, place in self.number.items() if statement.partition(": ")[0] in changed}
        self.ran = {
            test: (seconds, places)
            for test, (seconds, places) in self.ran.items()
            if test.partition("::")[0] not in changed and stale.isdisjoint(places)
        }
        self.digests |= digests
        new = [test for test in runner.items if test not in self.ran]
        saved = time.time()
        for what, *words in runner.run(new, lambda: watch(sources), 7200) if new else ():
            if what == "ran":
                test, seconds, ran = words
                self.ran[test] = (seconds, [self.number.setdefault(statement, len(self.number)) for statement in ran])
            if what == "status" or time.time() > saved + 20:
                saved = time.time()
                kept = {"digests": self.digests, "statements": list(self.number), "ran": self.ran}
                self.file.write_text(json.dumps(kept))
            if what == "status" and words[0] not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                sys.exit(f"the tests ended with status {words[0]}; what was found out so far is kept.")

    def tests(self, fault: Fault, there: Container[str], seconds: float) -> tuple[list[str], float]:
        """Return the tests, of those that are there, that run a fault's statement, as many as fit, and their seconds.

        Every test function gets equal time, its quickest cases first.
        """
        cases: dict[str, list[tuple[float, str]]] = {}
        for test, (cost, ran) in self.ran.items():
            if test in there and self.number.get(fault.statement) in ran:
                cases.setdefault(test.partition("[")[0], []).append((cost, test))
        waited = []
        for every in cases.values():
            total = 0.0
            for cost, test in sorted(every):
                total += cost
                waited.append((total, cost, test))
        chosen, spent = [], 0.0
        for _, cost, test in sorted(waited):
            if spent + cost <= seconds:
                chosen.append(test)
                spent += cost
        return chosen, spent


def plant(fault: Fault) -> None:
    """Plant a fault in this process."""
    path = CODE / fault.file
    raw = path.read_bytes()
    if not replace(path, raw[: fault.start] + fault.after.encode() + raw[fault.stop :]):
        os._exit(NOT_PLANTED)


def verdict(fault: Fault, runner: Runner, runs: Map, seconds: float) -> list[str]:
    """Run tests with a fault in the code: caught or endless, which whoever waits has caught, and by which test."""
    tests, spent = runs.tests(fault, runner.items, seconds)
    status, last = 0, ""
    for what, word in runner.run(tests, lambda: plant(fault), 15 + 2 * spent):
        status, last = (word, last) if what == "status" else (status, word)
    if status == NOT_PLANTED:
        return ["survived", "it could not be planted"]
    if status in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
        return ["survived", f"{len(tests)} tests, {spent:.0f} s"]
    if status == pytest.ExitCode.TESTS_FAILED:
        return ["caught", last]
    if status < 0:
        return ["endless", last]
    sys.exit(f"{fault}: exit status {status} after {last}")


def check_witnesses(tests: list[str], runner: Runner) -> None:
    """Run the tests that failed with a fault once more without any: they prove something if they pass now.

    Raises:
        SystemExit: if one fails.
    """
    status, last = 0, ""
    for what, word in runner.run(tests, lambda: None, 600):
        status, last = (word, last) if what == "status" else (status, word)
    if status != 0:
        sys.exit(f"{last} fails without a fault too, status {status}.")


def equivalent(fault: Fault, known: list[dict[str, str]]) -> bool:
    """Whether a fault is listed as one that nobody could notice."""
    told = {"file": fault.file, "before": fault.before, "after": fault.after}
    return any(told.items() <= entry.items() and fault.statement == f"{fault.file}: {entry['line']}" for entry in known)


def interval(caught: int, drawn: int) -> tuple[float, float]:
    """Return Wilson's interval of 95 % for a share, in per cent."""
    z, share = 1.96, caught / drawn
    middle = (share + z * z / (2 * drawn)) / (1 + z * z / drawn)
    half = z / (1 + z * z / drawn) * (share * (1 - share) / drawn + z * z / (4 * drawn * drawn)) ** 0.5
    return 100 * (middle - half), 100 * (middle + half)


def figure(name: str, verdicts: list[str]) -> str:
    """Return the share of a stratum that was caught, in words."""
    count = Counter(verdicts)
    judged = len(verdicts) - count["equivalent"]
    caught = judged - count["survived"]
    if not judged:
        return f"{name}: none"
    low, high = interval(caught, judged)
    share = f"{100 * caught / judged:.1f} % [{low:.1f}, {high:.1f}]"
    return f"{name}: {caught} of {judged} caught, {share}, and {count['equivalent']} equivalent"


def main() -> None:
    """Plant a sample of faults, report who survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in (("parts", 40), ("planner", 35), ("loader", 25)):
        parser.add_argument(f"--{name}", type=int, default=size, help="how many are drawn there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=15.0, help="of tests for one fault")
    parser.add_argument("--file", type=Path, default=Path("faults.json"), help="where verdicts are kept")
    parser.add_argument("--map", type=Path, default=Path("faults_map.json"), help="where is kept what runs a statement")
    parser.add_argument("--only", help="FILE or FILE:LINE; all faults there")
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    paths = {name: sorted(p for pattern in globs for p in CODE.glob(pattern)) for name, globs in SOURCES.items()}
    drawn: dict[str, list[Fault]] = {}
    for name, files in paths.items():
        every = [fault for path in files for fault in faults(path)]
        if asked.list:
            print(*(f"{count:5} {path}" for path, count in Counter(fault.file for fault in every).items()), sep="\n")
        every = [fault for fault in every if asked.only in (None, fault.file, f"{fault.file}:{fault.line}")]
        random.Random(f"{name} {asked.seed}").shuffle(every)
        drawn[name] = every if asked.only else every[: getattr(asked, name)]
    if asked.list:
        return
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    os.environ |= {"OMP_NUM_THREADS": "1", "SLALOM_CACHE": str(asked.map.with_suffix(".kernels").resolve())}
    screen = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what pytest has to say
    options = ["-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    import torch._dynamo  # noqa: F401  (torch imports it late: before the fork, once for all)

    sources = [path for files in paths.values() for path in files]
    runner = Runner(lambda runner: judge(drawn, runner, asked, sources, screen))
    code = pytest.main([*options, *suites()], plugins=[runner])
    if runner.say is not None:
        os._exit(code)  # a child must not clean up what its parent goes on using
    sys.exit(code)


def judge(
    drawn: dict[str, list[Fault]], runner: Runner, asked: argparse.Namespace, sources: list[Path], screen: TextIO
) -> None:
    """Run tests on every fault that was drawn; print verdicts and figures."""
    known = tomllib.loads((ROOT / "scripts/equivalent_faults.toml").read_text())["fault"]
    kept: dict[str, list[str]] = json.loads(asked.file.read_text()) if asked.file.exists() else {}
    runs = Map(asked.map)
    runs.update(runner, sources)
    verdicts: dict[str, list[str]] = {}
    for name, faults in drawn.items():
        for fault in faults:
            if str(fault) not in kept:
                kept[str(fault)] = verdict(fault, runner, runs, asked.seconds)
                asked.file.write_text(json.dumps(kept, indent=1))
            found, by = kept[str(fault)]
            found = "equivalent" if equivalent(fault, known) else found
            verdicts.setdefault(name, []).append(found)
            print(f"{found}: {fault} ({by})", file=screen, flush=True)
    reports = [kept[str(fault)] for faults in drawn.values() for fault in faults]
    check_witnesses(sorted({by for found, by in reports if found == "caught"} & {*runner.items}), runner)
    for name, list_of in verdicts.items():
        print(figure(name, list_of), file=screen)
    print(figure("all", [one for list_of in verdicts.values() for one in list_of]), file=screen, flush=True)


if __name__ == "__main__":
    main()
