"""The Triton executor through Triton's interpreter, in a process of its own: it must be asked for before the import."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import slalom

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton has no wheel for this machine"
)

# Some matrices are for lists; a sign and a mask flip; one bit per element has no kernel.
LEFT_OUT = (
    *(name for name in slalom.list_optimizers() if slalom.recipes.method(name).family == "matrix"),
    "adamp", "c-lion", "nadamp", "smmf",
)  # fmt: skip

NAMES = [name for name in slalom.list_optimizers() if name not in LEFT_OUT]
# The interpreter takes half a second a method, so it is run in parts, which workers share.
PARTS = 4

SCRIPT = """
import sys, warnings
import torch, slalom
sys.path.insert(0, "tests")
from slalom import Recipe, parts as P
from slalom.engine import UnplannableError
from slalom.recipes import method
from test_native import SETTINGS, drive, lists
from networks import quietly

SHAPES = [(3, 4), (5,), (), (40, 50)]

def ends(build, executor, dtype, shapes=SHAPES, **kw):
    params = lists(shapes, dtype)
    optimizer = quietly(lambda: build(params, executor))
    drive(optimizer, 4, **kw)
    return params, optimizer

def compare(label, build, dtype=torch.float32, **kw):
    a, triton = ends(build, "triton", dtype, **kw)
    b, eager = ends(build, "eager", torch.float64 if dtype == torch.float32 else dtype, **kw)
    for p, q in zip(a, b):
        wrong = ((p.double() - q.double()).abs() > (1e-4 if dtype == torch.float32 else 2e-2) * (1 + q.double().abs()))
        assert wrong.double().mean() < 1e-3, (label, p.shape, (p.double() - q.double()).abs().max())
    print("ok", label)

for name in sys.argv[1:]:
    settings = SETTINGS.get(name, {})
    compare(name, lambda params, executor: slalom.create(name, params, executor=executor, **settings))
"""
OTHERS = """
compare("missing", lambda p, e: slalom.create("nadam", p, executor=e), missing=True)
compare("bfloat16", lambda p, e: slalom.create("adamw", p, executor=e), dtype=torch.bfloat16)
for label, recipe in {
    "atan2": Recipe(momentum=P.Ema(), scale=P.SecondMoment(eps=P.Atan2()), step=0.01),
    "clip": Recipe(gradient=P.ClipNorm(0.1), guard=P.ClipUpdate(0.5), step=0.1),
    "noise": Recipe(gradient=P.Noise(1.0, 0.0), step=1.0),
    "clip per group": Recipe(gradient=P.ClipNorm(0.1, "group"), step=0.1),
    "averages from the nearer end": Recipe(momentum=P.Ema(0.2), scale=P.SecondMoment(0.3), step=0.01),
    "lazy": Recipe(momentum=P.Ema(), scale=P.Accumulated(), regularize=P.L1(0.01), form=P.FTRL(), step=0.1),
}.items():
    compare(label, lambda params, executor: slalom.Optimizer(params, recipe, executor=executor))
spectral = P.Spectral(iteration=P.NewtonSchulz(dtype="float32"))
polar = Recipe(momentum=P.Ema(), geometry=spectral, regularize=P.Decoupled(0.1), step=0.01)
matrices = [(6, 6), (40, 50), (6, 6), (4, 2, 3, 3)]
compare("matrices", lambda p, e: slalom.Optimizer(p, polar, executor=e), shapes=matrices, missing=True)
try:
    drive(slalom.SMMF(lists(SHAPES, torch.float32), executor="triton"), 1)
except ValueError as error:
    assert "signs of one bit" in str(error)
    print("ok refusal")
"""


def interpreted(script: str, *names: str) -> int:
    """Run a script in Triton's interpreter; return how many comparisons it says it has made."""
    done = subprocess.run(
        [sys.executable, "-c", script, *names], env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.count("ok ")


@needs_triton
@pytest.mark.parametrize("part", range(PARTS))
def test_every_plan_equals_eager_in_the_interpreter(part: int) -> None:
    names = NAMES[part::PARTS]
    assert interpreted(SCRIPT, *names) == len(names)


@needs_triton
def test_other_recipes_equal_eager_in_the_interpreter() -> None:
    assert interpreted(SCRIPT + OTHERS) == 10


@needs_triton
def test_it_is_refused_where_it_cannot_run() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    optimizer = slalom.AdamW([w], executor="triton")
    if not os.environ.get("TRITON_INTERPRET"):
        with pytest.raises(ValueError, match="the parameter is on the CPU"):
            optimizer.step()
