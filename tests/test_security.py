"""The sentences of SECURITY.md, checked: the source is searched, imports are watched, data are hostile."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import slalom
from slalom.errors import UsageError
from slalom.recipes import Recipe

PACKAGE = Path(slalom.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Modules that read objects, or reach the network.
UNSAFE = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "torch.package",
    "torch.hub", "socket", "ssl", "urllib", "http", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "xmlrpc",
    "webbrowser", "telnetlib", "code", "runpy", "ray",
}  # fmt: skip
UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp", "torch.jit.load",
    "torch.hub.load", "numpy.load", "np.load", "importlib.import_module", "loader.exec_module", "subprocess.run",
    "subprocess.Popen", "subprocess.call", "subprocess.check_output", "ctypes.CDLL", "torch.load",
}  # fmt: skip

# Where one of them stands all the same, and why.
ALLOWED = {
    ("checkpoint/checkpoint.py", "pickle"): "for the name of the error that torch.load raises",
    ("testing/saving.py", "pickle"): "reads back what it has just written itself, in memory",
    ("engine/plan.py", "exec"): "the arithmetic of a step, from operations and floats; see the test below",
    ("userfiles.py", "loader.exec_module"): "the file that a person named on the command line",
    ("engine/triton/launch.py", "loader.exec_module"): "the kernel that was emitted the moment before",
    ("cli/check.py", "importlib.import_module"): "the module that a person named on the command line",
    ("race/contestant.py", "importlib.import_module"): "the optimizer's class that a person named on the command line",
    ("race/adapt.py", "runpy"): "the training script that a person's own workload file names",
    ("race/cluster.py", "ray"): "the cluster that a person named with --on",
    ("engine/native/build.py", "subprocess.run"): "the compiler",
    ("engine/native/build.py", "ctypes.CDLL"): "a kernel whose seal was checked",
    ("engine/pages.py", "ctypes.CDLL"): "the process itself, for one call of the system's",
}


def dotted(node: ast.AST) -> str:
    """Return "a.b.c" for such an expression, from its last two names on."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value).rpartition('.')[2]}.{node.attr}" if dotted(node.value) else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def suspicious(text: str) -> Iterator[str]:
    """Yield what a source file uses that can run or fetch what it did not write."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                found = {name, name.split(".")[0]} & UNSAFE
                yield from found
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            settings = {keyword.arg: keyword.value for keyword in node.keywords}
            if name == "torch.load":
                only = settings.get("weights_only")
                if not (isinstance(only, ast.Constant) and only.value is True):
                    yield "torch.load"
            elif name in UNSAFE_CALLS:
                yield name
            shell = settings.get("shell")
            if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
                yield "shell"
            if "allow_pickle" in settings:
                yield "allow_pickle"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_in_the_source_can_run_what_it_reads(file: Path) -> None:
    place = file.relative_to(PACKAGE).as_posix()
    found = set(suspicious(file.read_text())) - {name for where, name in ALLOWED if where == place}
    assert not found, f"{place} uses {', '.join(sorted(found))}; see SECURITY.md"


def test_every_exception_is_still_needed() -> None:
    for place, name in ALLOWED:
        assert name in set(suspicious((PACKAGE / place).read_text())), f"{place} no longer uses {name}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("import urllib.request", "urllib"),
        ("import torch.hub", "torch.hub"),
        ("torch.load(file)", "torch.load"),
        ("torch.load(file, weights_only=False)", "torch.load"),
        ("torch.load(file, weights_only=flag)", "torch.load"),
        ("x = eval('1')", "eval"),
        ("subprocess.run('ls', shell=True)", "shell"),
        ("subprocess.Popen(x)", "subprocess.Popen"),
        ("numpy.load(x, allow_pickle=True)", "allow_pickle"),
        ("specification.loader.exec_module(m)", "loader.exec_module"),
    ],
)
def test_the_search_finds_what_it_is_for(text: str, found: str) -> None:
    assert found in set(suspicious(text))
    assert not set(suspicious("torch.load(f, weights_only=True)\nmodel.eval()\nre.compile('x')"))


WATCH = """
import json, os, sys
import torch, numpy, typing, rich.console, typer
seen = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = flags is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        kind = "write" if writes else "read"
        if kind == "write" or not str(path).endswith((".py", ".pyc", ".so")):
            seen.append([kind, str(path)])
    elif event.split(".")[0] in ("socket", "subprocess", "urllib", "sqlite3", "ctypes", "shutil", "tempfile", "glob"):
        seen.append([event, repr(arguments)[:200]])
    elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.system", "os.fork", "os.exec", "os.chmod",
                   "os.putenv", "os.unsetenv", "os.posix_spawn", "exec_command", "os.link", "os.symlink"):
        seen.append([event, repr(arguments)[:200]])
sys.addaudithook(watch)
MODULES
sys.stdout.write(json.dumps(seen))
"""


def events(modules: str) -> list[list[str]]:
    """Import in a process of its own; return what it did beside reading modules."""
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", WATCH.replace("MODULES", modules)],
        capture_output=True, text=True, check=True, env={**os.environ, "HOME": os.devnull},
    )  # fmt: skip
    seen: list[list[str]] = json.loads(done.stdout)
    return seen


PUBLIC = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))


def test_importing_does_nothing_but_import() -> None:
    assert events("\n".join(["import slalom", *(f"import slalom.{name}" for name in PUBLIC)])) == []


def test_the_watch_sees_what_it_is_for(tmp_path: Path) -> None:
    bad = (
        f"import socket; socket.socket(); open({str(tmp_path / 'x')!r}, 'w').close(); os.mkdir({str(tmp_path / 'y')!r})"
    )
    assert {"socket.__new__", "write", "os.mkdir"} <= {event for event, _ in events(bad)}
    assert events("open('/proc/self/status').close()") == [["read", "/proc/self/status"]]


HOSTILE = [
    "recipe = \"__import__('os').system('touch pwned')\"",
    'momentum = { part = "os.system", command = "touch pwned" }',
    "momentum = { part = \"ema\", beta = \"__import__('os').mkdir('pwned')\" }",
    'momentum = { part = "../../mine" }',
    'recipe = "adamw"\nlr = "1e-3; import os"',
    'step = { part = "slalom.engine.native.build.load", source = "int x;" }',
    "momentum = [[[[[[]]]]]]",
    'order = "os"',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_recipe_is_data(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    with pytest.raises((UsageError, ValueError, TypeError)):
        Recipe.from_toml(text)
    assert not list(tmp_path.iterdir())
    assert {name for name in set(sys.modules) - before if not name.startswith("slalom")} == set()


@pytest.mark.parametrize(
    "word", ["sgd:momentum=__import__('os')", "sgd:momentum=open('x','w')", "sgd:**{}", "sgd:a.b=1"]
)
def test_a_word_on_the_command_line_is_data(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slalom.recipes.spec import parse_spec

    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, ValueError)):
        parse_spec(word)
    assert not list(tmp_path.iterdir())


def test_text_that_is_executed_holds_operations_and_floats_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    import torch

    from slalom.engine import plan
    from slalom.engine.native import launch

    launch.kernel.cache_clear()  # or what other tests have compiled is not written anew
    texts: list[str] = []
    monkeypatch.setattr(
        plan, "exec", lambda text, scope: (texts.append(text), builtins.exec(text, scope)), raising=False
    )
    for name in ("adamw", "radam", "prodigy", "lamb"):
        w = torch.nn.Parameter(torch.ones(3, 5))
        optimizer = slalom.create(name, [{"params": [w], "name": "import os"}], executor="native")
        w.grad = torch.ones(3, 5)
        optimizer.step()
    lines = [line for text in texts for line in text.splitlines()]
    assert len(lines) > 10
    argument = r"(r\[\d+\]|-?[\d.e+-]+|-?inf|nan)"
    assignment = rf"    r\[\d+\] = f_\w+\({argument}?(, {argument})*\)"
    for line in lines:
        assert line == "def compute(r):" or re.fullmatch(assignment, line), line


def test_the_report_has_one_strict_policy_and_trusts_its_own_charts_and_script() -> None:
    template = (PACKAGE / "race" / "report.html.j2").read_text()
    assert re.findall(r'Security-Policy" content="(.*?)"', template) == [
        "default-src 'none'; script-src 'sha256-{{ script_hash }}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    ]
    # charts are made by matplotlib from escaped text, the script is a file of the package that no datum enters
    trusted = re.findall(r"\{\{[^}]*safe[^}]*\}\}", template)
    assert set(trusted) == {"{{ chart.svg|safe }}", "{{ script|safe }}"}
    assert re.findall(r"<script[^>]*>.*?</script>", template) == ["<script>{{ script|safe }}</script>"]
    assert not re.search(r"javascript:|\bon\w+=|https?://|autoescape false", template)
    assert "autoescape=True" in (PACKAGE / "race" / "report.py").read_text()
    assert "{{" not in (PACKAGE / "race" / "report.js").read_text()


def test_the_page_names_files_that_exist() -> None:
    root = PACKAGE.parent.parent
    text = (root / "SECURITY.md").read_text()
    for name in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (root / name).exists(), name
