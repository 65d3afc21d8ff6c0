"""The named optimizers as classes with real signatures, made from the catalogue: ``slalom.AdamW(params, lr=3e-4)``."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import typing
from pathlib import Path
from typing import Any

from slalom.optimizer import Optimizer, Parameters
from slalom.recipes import Method, list_optimizers, method
from slalom.recipes.blueprint import Blueprint

_KEYWORDS = (
    inspect.Parameter("maximize", inspect.Parameter.KEYWORD_ONLY, default=False, annotation="bool"),
    inspect.Parameter("executor", inspect.Parameter.KEYWORD_ONLY, default="auto", annotation="Executor"),
    inspect.Parameter("on_nonfinite", inspect.Parameter.KEYWORD_ONLY, default="ignore", annotation="OnNonfinite"),
    inspect.Parameter("sparse", inspect.Parameter.KEYWORD_ONLY, default="exact", annotation="Rows"),
    inspect.Parameter("blocks", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Mapping[str, Blocks] | None"),
)
_OF_ROLES = (
    inspect.Parameter("roles", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Mapping[str, Role] | None"),
    inspect.Parameter(
        "by_role",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation="Mapping[Role, Mapping[str, Any]] | None",
    ),
)


def _keywords(blueprint: Blueprint) -> tuple[inspect.Parameter, ...]:
    """Return what an optimizer takes beside its method's hyper-parameters."""
    return (*_KEYWORDS, *_OF_ROLES) if blueprint.by_role else _KEYWORDS


class Named(Optimizer):
    """Base of the named optimizers: the blueprint belongs to the class, the signature is the method's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        entry = type(self)._method
        assert entry is not None
        blueprint = Blueprint(entry)
        ways = [spec.name for spec in _keywords(blueprint)]
        entry.check_names({name: value for name, value in kwargs.items() if name not in ways})
        try:
            bound = type(self).__signature__.bind(*args, **kwargs)  # type: ignore[attr-defined]
        except TypeError as error:
            raise TypeError(f"{entry.class_name}: {error}.") from None
        bound.apply_defaults()
        values = dict(bound.arguments)
        params = values.pop("params")
        rates = {name: values.pop(name) for name in set(blueprint.rates.values())}
        self._set_up(blueprint, **{name: values.pop(name) for name in ways if name != "maximize"}, rates=rates)
        super(Optimizer, self).__init__(self._sorted(params), values)


def _class_of(entry: Method) -> type[Named]:
    parameters = [
        inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="Parameters"),
        *(
            spec.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for spec in inspect.signature(entry.factory).parameters.values()
        ),
        *_keywords(Blueprint(entry)),
    ]
    doc = (
        f"{entry.title[0].upper()}{entry.title[1:]} ({entry.source}).\n\n"
        f"Use it for {entry.use}. Avoid it for {entry.avoid}.\n"
        + (f"Also called {', '.join(entry.also)}.\n" if entry.also else "")
        + (f"Not to be taken for {entry.others}.\n" if entry.others else "")
        + f"``print(optimizer)`` or ``slalom explain {entry.name}`` shows the formula."
    )
    return type(
        entry.class_name,
        (Named,),
        {
            "_method": entry,
            "__doc__": doc,
            "__module__": "slalom",
            "__signature__": inspect.Signature(parameters),
        },
    )


@functools.cache
def named_class(name: str) -> type[Named]:
    """Return the class of a named optimizer; made when first asked for, so that entries of your own have one too."""
    return _class_of(method(name))


def class_names() -> dict[str, str]:
    """Return the names of all classes, with the optimizer that each stands for."""
    return {method(name).class_name: name for name in list_optimizers()}


def create(name: str, model_or_params: Parameters, **hyperparameters: Any) -> Optimizer:
    """Build an optimizer by name.

    Args:
        name: as `list_optimizers` lists it: "adamw", "muon".
        model_or_params: a module (best: its layers' types tell what is a matrix, an embedding, a head), or parameters,
            named parameters or parameter groups as in `torch.optim`.
        **hyperparameters: the method's own, and what `Optimizer` takes beside a recipe (``executor``, ``roles``,
            ``blocks``, ...).

    Raises:
        UsageError: for an unknown name, with the nearest that exist.
        TypeError: for an argument that the method does not have.
        ValueError: for a value outside its range.
    """
    return named_class(method(name).name)(model_or_params, **hyperparameters)


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _exports() -> list[str]:
    """Return the package's own imports, as re-exports."""
    tree = ast.parse((Path(__file__).parent / "__init__.py").read_text())
    found = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slalom")
    ]
    hidden = {"class_names", "named_class"}
    return [
        f"from {node.module} import {alias.name} as {alias.name}"
        for node in found
        for alias in node.names
        if alias.name not in hidden
    ]


def stub() -> str:
    """Return the type stub of the package, in which checkers and editors find the generated classes."""
    lines = [
        '"""Written by `python -m slalom.named`; the test suite checks that it is up to date."""',
        "",
        "from collections.abc import Mapping",
        "from typing import Any, Literal",
        "",
        *_exports(),
        "from slalom.engine import Blocks, Executor, Rows",
        "from slalom.named import Named",
        "from slalom.optimizer.nonfinite import OnNonfinite",
        "from slalom.optimizer import Parameters",
        "from slalom.roles import Role",
        "",
        "__version__: str",
    ]
    for class_name, name in sorted(class_names().items()):
        lines += ["", f"class {class_name}(Named):", "    def __init__(", "        self,"]
        hints = typing.get_type_hints(method(name).factory)  # spelled out: the stub knows no alias of a recipe's file
        for spec in named_class(name).__signature__.parameters.values():  # type: ignore[attr-defined]
            star = ["        *,"] if spec is _KEYWORDS[0] else []
            literal = "..." if spec.default == math.inf else repr(spec.default)  # inf has no literal
            default = "" if spec.default is inspect.Parameter.empty else f" = {literal}"
            lines += [*star, f"        {spec.name}: {_spelled(hints.get(spec.name, spec.annotation))}{default},"]
        lines.append("    ) -> None: ...")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "__init__.pyi").write_text(stub())
