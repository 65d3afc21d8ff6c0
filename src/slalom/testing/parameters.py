"""What parameters are: of any shape, layout and dtype, in any order, frozen, complex."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from slalom.testing.conformance import Factory, contract
from slalom.testing.driving import _backward, _close, _fill, _go, _parameters, _step


@contract(
    "bad-params",
    "no parameters, no tensors, results of operations, sets, a parameter in two groups are refused",
    why="a set has another order in every process, and a tensor twice moves twice",
)
def bad_params(make: Factory) -> None:
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    cases: dict[str, Any] = {
        "an empty list": [],
        "a number": [1.0],
        "the result of an operation": [p * 2],
        "a parameter in two groups": [{"params": [p]}, {"params": [p]}],
        "a bare tensor": p,
        "a set, which has no order,": [{"params": {p, q}}],
        "one with a name beside one without": [("p", p), q],
        "a group with names beside one without": [{"params": [("p", p)]}, {"params": [q]}],
    }
    for what, given in cases.items():
        try:
            make(given)
        except (TypeError, ValueError):
            continue
        raise AssertionError(f"{what} was accepted")


@contract(
    "shapes",
    "scalars, single elements, empty tensors and kernels all take steps",
    why="models hold scalars and, in shards, empty tensors",
)
def shapes(make: Factory) -> None:
    for shape in ((), (1,), (0,), (0, 3), (1, 4), (4, 1), (2, 3, 2, 2)):
        w = nn.Parameter(torch.randn(shape))
        optimizer = make([w])
        for _ in range(2):
            w.grad = torch.randn(shape)
            _go(optimizer)
        assert torch.isfinite(w).all(), f"shape {shape} is no longer finite"


@contract(
    "strides",
    "a parameter that is not contiguous moves like one that is",
    why="memory formats such as channels_last are about speed, not about values",
)
def strides(make: Factory) -> None:
    for shape in ((4, 3), (8, 2, 2, 2)):  # as a matrix of full rank: roots of others magnify rounding
        plain = nn.Parameter(torch.randn(shape))
        turned = plain.detach().t().contiguous().t() if len(shape) == 2 else plain.detach()
        strided = nn.Parameter(turned.clone(memory_format=torch.channels_last) if len(shape) == 4 else turned)
        for w in (plain, strided):
            optimizer = make([w])
            for number in range(3):
                _step(optimizer, number)
        _close([plain], [strided], "layouts disagree")


@contract(
    "tall-wide",
    "matrices of every proportion take steps, and are finite after them",
    why="projections and factors are written for one of the two first",
)
def tall_wide(make: Factory) -> None:
    shapes = [(7, 2), (2, 7), (1, 5), (5, 1), (1, 1), (3, 3)]
    parameters = [
        nn.Parameter(torch.linspace(-1, 1, rows * columns).reshape(rows, columns)) for rows, columns in shapes
    ]
    optimizer = make(parameters)
    for number in range(12):
        _step(optimizer, number)
    for p in parameters:
        assert torch.isfinite(p).all(), f"the one of shape {tuple(p.shape)} is not finite"


@contract(
    "zero-values",
    "parameters that begin as zeros, as biases do, stay finite",
    why="biases begin as zeros, and a relative step of nothing is nan",
)
def zero_values(make: Factory) -> None:
    parameters = [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(()))]
    optimizer = make(parameters)
    for number in range(4):
        _step(optimizer, number)
    assert all(torch.isfinite(p).all() for p in parameters), "they do not"


@contract(
    "mixed-dtypes",
    "parameters of different dtypes share a group, and each keeps its own",
    why="norms are kept in float32 beside bfloat16 matrices",
)
def mixed_dtypes(make: Factory) -> None:
    kinds = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
    together = [nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3).to(kind)) for kind in kinds]
    apart = [nn.Parameter(p.detach().clone()) for p in together]
    one, each = make(together), [make([p]) for p in apart]
    for number in range(2):
        for p, q in zip(together, apart, strict=True):
            p.grad = torch.full_like(p, 0.5 + number)
            q.grad = p.grad.clone()
        _go(one)
        for optimizer in each:
            _go(optimizer)
    for p, q, kind in zip(together, apart, kinds, strict=True):
        assert p.dtype == kind, f"a {kind} parameter became {p.dtype}"
        assert torch.isfinite(p).all(), f"the {kind} parameter is no longer finite"
        assert torch.allclose(p, q, rtol=1e-2, atol=1e-3), f"the {kind} parameter steps otherwise than alone"


@contract(
    "bfloat16-state",
    "beside bfloat16 parameters averages go on forgetting: steps find the length of float32's",
    why="0.999 v rounds back to v in bfloat16: after one spike steps stay short",
)
def bfloat16_state(make: Factory) -> None:
    lengths = []
    shape = _parameters()[0].shape
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(3)).bfloat16()
    for dtype in (torch.float32, torch.bfloat16):
        w = nn.Parameter(torch.zeros(shape, dtype=dtype))
        optimizer = make([w])
        for number in range(1000):
            with torch.no_grad():
                w.zero_()  # what is measured is a step, not what rounding leaves of a sum of steps
            w.grad = ((8 if number < 40 else 1) * gradient).to(dtype)
            _go(optimizer)
        lengths.append(w.detach().float().norm().item())
    plain, low = lengths
    if not math.isfinite(plain):
        return  # it looks for its rate in this run, and there is none to find
    assert abs(low - plain) <= 0.1 * plain, f"after larger gradients a step has length {low:.3g}, not {plain:.3g}"


@contract(
    "default-dtype",
    "torch.set_default_dtype changes nothing for parameters of another dtype",
    why="a notebook sets it for its own tensors",
)
def default_dtype(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    one = make(a)
    for number in range(3):
        _step(one, number)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        other = make(b)
        for number in range(3):
            for place, p in enumerate(b):
                generator = torch.Generator().manual_seed(97 * number + place)
                p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            _go(other)
    finally:
        torch.set_default_dtype(kept)
    assert all(p.dtype == torch.float32 for p in b), "the dtype of a parameter changed"
    _close(a, b, "it is another run")


@contract(
    "complex",
    "complex parameters step like pairs of reals, or are refused",
    why="Fourier layers have complex weights",
)
def complex_pairs(make: Factory) -> None:
    w = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    pairs = nn.Parameter(torch.view_as_real(w.detach()).clone())
    try:
        optimizer = make([w])
        w.grad = torch.randn(3, dtype=torch.complex64)
        _go(optimizer)
    except Exception as error:
        if isinstance(error, (RuntimeError, ValueError, TypeError)) or "complex" in str(error).lower():
            return
        raise
    pairs.grad = torch.view_as_real(w.grad).clone()
    _go(make([pairs]))
    assert torch.allclose(torch.view_as_real(w.detach()), pairs, rtol=1e-4, atol=1e-6), "it is another step"


@contract(
    "in-place",
    "parameters stay the same tensors in the same memory, leaves that require gradients",
    why="other modules, buckets and views hold the same tensor",
)
def in_place(make: Factory) -> None:
    parameters = _parameters()
    before = [(p, p.data_ptr()) for p in parameters]
    optimizer = make(parameters)
    with torch.enable_grad():
        _step(optimizer, 0)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for p, place in before:
        assert id(p) in held, "a parameter was replaced"
        assert p.data_ptr() == place, "a parameter moved in memory"
        assert p.is_leaf, "a parameter is no leaf any more"
        assert p.requires_grad, "a parameter needs no gradient any more"
    for state in optimizer.state.values():
        for key, value in state.items():
            assert not (isinstance(value, Tensor) and value.requires_grad), f"{key} is part of a graph"


@contract(
    "autograd-told",
    "a backward through values from before the step is refused, not computed with new ones",
    why="writing past autograd turns an error into a wrong gradient",
)
def autograd_told(make: Factory) -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = make([w])
    for _ in range(5):  # a method may look around first
        loss, before = (w**3).sum(), w.detach().clone()
        w.grad = torch.ones(2)
        _go(optimizer)
        if not torch.equal(w, before):
            break
    try:
        _backward(loss)
    except RuntimeError:
        return
    raise AssertionError("autograd was not told that the parameter changed")


@contract(
    "frozen",
    "a parameter that requires no gradient may be in the list, and stays",
    why="fine-tuning freezes after the optimizer was made",
)
def frozen(make: Factory) -> None:
    # small and for some steps: methods that find their own rate, or rectify it, begin with steps of next to nothing
    moving, still = nn.Parameter(torch.full((3,), 1e-6)), nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = make([moving, still])
    for _ in range(8):
        optimizer.zero_grad()
        _backward((moving * still).sum())
        _go(optimizer)
    assert torch.equal(still, torch.ones(3)), "it moved"
    assert not torch.equal(moving, torch.full((3,), 1e-6)), "its neighbour did not move"


@contract(
    "order",
    "the order of the parameters does not matter",
    why="checkpoints and shards sort otherwise",
)
def order(make: Factory) -> None:
    a, b = _parameters(), _parameters()
    one, other = make(a), make(b[::-1])
    for number in range(3):
        for parameters in (a, b):
            _fill(parameters, number)
        _go(one)
        _go(other)
    _close(a, b, "they disagree")


@contract(
    "elements",
    "the order of a vector's elements, or a matrix's rows and columns, does not matter",
    why="a formula for elements or matrices knows no first row",
)
def elements(make: Factory) -> None:
    generator = torch.Generator().manual_seed(2)
    turns = [torch.tensor([1, 2, 0, 3]), torch.tensor([2, 0, 3, 1])]

    def turned(tensor: Tensor) -> Tensor:
        return tensor[turns[0]][:, turns[1]].clone() if tensor.ndim == 2 else tensor[turns[0]].clone()

    # float64, since roots of factors that have no full rank yet magnify rounding
    a = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((4, 4), (4,))]
    b = [nn.Parameter(turned(p.detach())) for p in a]
    one, other = make(a), make(b)
    for number in range(4):
        _fill(a, number)
        for p, q in zip(a, b, strict=True):
            assert p.grad is not None
            q.grad = turned(p.grad)
        _go(one)
        _go(other)
    _close([nn.Parameter(turned(p.detach())) for p in a], b, "another order is another run")
