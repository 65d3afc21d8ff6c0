"""The house of CONTRIBUTING.md: which room may take something from which, and that what is private stays at home."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import slalom

PACKAGE = Path(slalom.__file__).parent
FACE = "slalom"  # the package itself: what everybody may import

# What each room, a folder or a file of the package, takes from others when it is imported. `errors` is everybody's.
ROOMS = {
    "errors": "",
    "algebra": "",
    "compress": "",
    "finite_sums": "compress",
    "losses": "",
    "accumulate": "",
    "attention": "",
    "batchnorm": "",
    "keeping": "",
    "pictures": "",
    "schedules": "",
    "userfiles": "",
    "sharpness": "batchnorm",
    "parts": "algebra",
    "engine": "algebra",
    "roles": "engine",
    "recipes": "algebra parts roles",
    "optimizer": "algebra engine parts recipes roles sharpness",
    "named": "optimizer recipes",
    "replay": "engine optimizer recipes",
    "ball": "engine optimizer parts roles",
    "checkpoint": "algebra engine optimizer parts recipes",
    "range_test": "keeping named optimizer pictures recipes schedules",
    "memory": "engine named optimizer recipes roles",
    "describe": "algebra engine memory optimizer parts pictures recipes roles schedules",
    "observe": "algebra batchnorm engine optimizer parts pictures recipes roles",
    "landscape": "keeping observe optimizer pictures schedules",
    FACE: (
        "accumulate algebra attention ball batchnorm checkpoint compress finite_sums landscape losses memory named "
        "observe optimizer parts range_test recipes replay roles schedules sharpness"
    ),
    "testing": "checkpoint",
    "race": "slalom pictures recipes schedules userfiles",
    "lab": "slalom landscape observe pictures race recipes",  # of the race a text that every Python brings along
    "cli": "",
    "__main__": "cli",
}

# Arrows that wait until a function runs, or are for type checkers: up the list, or to what few need.
LATE = {
    "recipes": "optimizer schedules",  # Recipe.build and Recipe.scheduler: a recipe is where users start
    "optimizer": "describe",  # print(optimizer)
    "userfiles": "parts recipes",
    "checkpoint": "slalom",  # the version
    "testing": "slalom",
    "cli": (  # `slalom --help` must not wait for what other commands need
        "slalom describe engine lab landscape memory named observe pictures race range_test recipes schedules testing "
        "userfiles"
    ),
}


class Arrow(NamedTuple):
    """What a file imports, from which room, and whether that waits until a function runs."""

    file: str
    room: str
    target: str
    names: tuple[str, ...]
    late: bool


def room_of(module: str) -> str:
    """Return the room of "slalom.engine.plan"; names that are no module of slalom are the package's own."""
    _, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if name and ((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()) else FACE


def arrows() -> Iterator[Arrow]:
    for file in sorted(PACKAGE.rglob("*.py")):
        relative = file.relative_to(PACKAGE)
        room = FACE if relative.name == "__init__.py" and len(relative.parts) == 1 else relative.parts[0]
        for node, late in imports(ast.parse(file.read_text()), late=False):
            names = tuple(alias.name for alias in node.names)
            if isinstance(node, ast.Import):
                modules = [(name, ()) for name in names]
            elif node.module == FACE:
                modules = [(f"{FACE}.{name}", (name,)) for name in names]
            else:
                modules = [(node.module or "", names)]
            for module, taken in modules:
                if module.partition(".")[0] == FACE:
                    yield Arrow(relative.as_posix(), room.removesuffix(".py"), room_of(module), taken, late)


def imports(node: ast.AST, *, late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, late
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield from imports(
            child, late=late or typing_only or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        )


ARROWS = [arrow for arrow in arrows() if arrow.target not in (arrow.room, "errors")]


@pytest.mark.parametrize("room", sorted({arrow.room for arrow in ARROWS} | set(ROOMS)))
def test_a_room_imports_what_the_house_says_and_nothing_else(room: str) -> None:
    assert room in ROOMS, f"{room} is a new room: enter it into ROOMS and into CONTRIBUTING.md"
    for allowed, late in ((ROOMS[room], False), (LATE.get(room, ""), True)):
        found = {a.target: a.file for a in ARROWS if a.room == room and a.late == late}
        if late:
            found = {target: file for target, file in found.items() if target not in ROOMS[room].split()}
        new = {file: target for target, file in found.items() if target not in allowed.split()}
        assert not new, f"{room} {'may call' if late else 'may import'} {allowed or 'nothing'}: {new}"
        assert set(allowed.split()) == set(found), f"{room} no longer needs {set(allowed.split()) - set(found)}"


def test_rooms_import_downwards_only() -> None:
    order = list(ROOMS)
    for place, room in enumerate(order):
        above = [target for target in ROOMS[room].split() if order.index(target) >= place]
        assert not above, f"{room} stands below {above}"


def test_what_is_private_stays_in_its_room() -> None:
    taken = [(a.file, name) for a in ARROWS for name in a.names if re.match("_(?!_)", name)]
    assert not taken


def test_formulas_and_the_catalogue_know_no_tensors() -> None:
    """Parts are arithmetic on signals: whether those are tensors or symbols is none of their business."""
    for file in (PACKAGE / "parts").rglob("*.py"):
        found = [node for node, _ in imports(ast.parse(file.read_text()), late=False)]
        names = {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in found if isinstance(node, ast.ImportFrom)}
        assert not {name for name in names if name.partition(".")[0] in ("torch", "numpy")}, file


def test_the_engine_knows_no_method() -> None:
    """No name of the catalogue stands in its code, not even in what it says; documentation may compare."""
    name = re.compile(rf"\b({'|'.join(map(re.escape, slalom.list_optimizers()))})\b")
    for file in (PACKAGE / "engine").rglob("*.py"):
        tree = ast.parse(file.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)]
        said = {id(body[0].value) for body in bodies}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
                assert not name.search(node.value), f"{file.name}, line {node.lineno}: {node.value[:80]!r}"


def test_every_room_is_in_contributing() -> None:
    root = PACKAGE.parent.parent
    text = (root / "CONTRIBUTING.md").read_text()
    house = text[text.index("src/slalom/") : text.index("A formula lives")]
    for room in ROOMS:
        if room not in (FACE, "__main__"):
            assert f"{room}/" in house or f"{room}.py" in house, f"CONTRIBUTING.md does not show {room}"
