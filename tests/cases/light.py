"""Methods that remember rows, columns, blocks and bits."""

from __future__ import annotations

import torch

import slalom
from cases.tools import Case, Golden, Oracle, close, from_pytorch_optimizer, from_torch


def _ends(recipe: slalom.Recipe, gradients: list[torch.Tensor]) -> torch.Tensor:
    w = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = recipe.build([w])
    for grad in gradients:
        w.grad = grad
        optimizer.step()
    return w.detach()


def torchs_floor_tames_small_gradients() -> None:
    """Gradients below eps move in proportion under torch's floor; the paper's moves by full relative steps."""
    lengths = {}
    for name in ("adafactor", "adafactor-torch"):
        for size in (1e-9, 1e-10):
            w = torch.nn.Parameter(torch.ones(3, 4, dtype=torch.float64))
            optimizer = slalom.create(name, [w])
            w.grad = torch.full((3, 4), size, dtype=torch.float64)
            optimizer.step()
            lengths[name, size] = (1 - w.detach()).norm().item()
    assert close(lengths["adafactor", 1e-9], lengths["adafactor", 1e-10])
    assert close(lengths["adafactor-torch", 1e-9], 10 * lengths["adafactor-torch", 1e-10])


def steps_are_averaged_with_their_length() -> None:
    """With beta1 the second step is felt with the rate it had: halving lr halves only the new share."""
    moves = []
    for second in (0.1, 0.05):
        w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        optimizer = slalom.AdafactorHF([w], lr=0.1, beta1=0.5, scale_parameter=False, relative_step=False)
        for lr in (0.1, second):
            optimizer.param_groups[0]["lr"] = lr
            before = w.item()
            w.grad = torch.ones(1, dtype=torch.float64)
            optimizer.step()
        moves.append(before - w.item())
    assert close(moves[0], 0.5 * 0.05 + 0.5 * 0.1)
    assert close(moves[1], 0.5 * 0.05 + 0.5 * 0.05)


def steady_updates_are_trusted_more() -> None:
    """Rows whose updates agree with momentum move further than rows whose updates flicker."""
    w = torch.nn.Parameter(torch.zeros(2, 8, dtype=torch.float64))
    optimizer = slalom.CAME([w], lr=1e-3, betas=(0.9, 0.9, 0.9), clip_threshold=1e9)
    moves = []
    for step in range(60):
        flicker = 3.0 if step % 2 else -1.0  # mean 1, as the steady row
        w.grad = torch.stack([torch.ones(8), torch.full((8,), flicker)]).double()
        before = w.detach().clone()
        optimizer.step()
        moves.append((before - w.detach())[:, 0])
    steady, flickering = torch.stack(moves[-20:]).mean(0)
    assert steady > 2 * flickering > 0


def weights_tend_to_their_expected_size() -> None:
    """Under pure noise the root mean square comes near eta, from far above and below, and rates fall by themselves."""
    generator = torch.Generator().manual_seed(4)
    for start in (0.01, 3.0):
        w = torch.nn.Parameter(torch.full((20, 30), start, dtype=torch.float64))
        optimizer = slalom.Amos([w], lr=0.1, eta=0.5)
        moves = []
        for _ in range(3000):
            before = w.detach().clone()
            w.grad = torch.randn(20, 30, dtype=torch.float64, generator=generator)
            optimizer.step()
            moves.append((w.detach() - before).norm().item())
        assert 0.3 < w.detach().square().mean().sqrt().item() < 0.8
        assert moves[-1] < 0.2 * moves[0]


def a_head_shares_its_step_size() -> None:
    """Against the recurrence: six rows in two heads, and a row by itself is Adam with the mean of its squares."""
    generator = torch.Generator().manual_seed(5)
    gradients = [torch.randn(6, 4, dtype=torch.float64, generator=generator) for _ in range(4)]
    for heads, length in ((2, 3), (0, 1)):
        w = torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
        optimizer = slalom.AdamMini([{"params": [w], "role": "matrix", "heads": heads}], lr=0.1)
        m, v, expected = torch.zeros(6, 4).double(), torch.zeros(6 // length).double(), torch.zeros(6, 4).double()
        for t, grad in enumerate(gradients, 1):
            w.grad = grad
            optimizer.step()
            m = 0.9 * m + 0.1 * grad
            v = 0.999 * v + 0.001 * (grad * grad).reshape(6 // length, -1).mean(1)
            root = (v / (1 - 0.999**t)).sqrt().repeat_interleave(length).unsqueeze(1)
            expected -= 0.1 * (m / (1 - 0.9**t)) / (root + 1e-8)
        torch.testing.assert_close(w.detach(), expected, rtol=1e-12, atol=1e-14)


def rows_and_columns_get_equal_shares() -> None:
    grad = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    rows, columns = torch.logspace(-3, 3, 6).double().unsqueeze(1), torch.logspace(2, -2, 9).double()
    ends = []
    for factor in (1.0, rows * columns):
        w = torch.nn.Parameter(torch.zeros(6, 9, dtype=torch.float64))
        optimizer = slalom.SinkGD([{"params": [w], "role": "matrix"}], lr=1.0, iterations=60)
        w.grad = grad * factor
        optimizer.step()
        ends.append(w.detach())
    torch.testing.assert_close(ends[0].norm(dim=1), torch.full((6,), 3.0, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(ends[0].norm(dim=0), torch.full((9,), 6**0.5, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-8)
    # and one round by the text: rows first, then columns
    w = torch.nn.Parameter(torch.zeros(6, 9, dtype=torch.float64))
    optimizer = slalom.SinkGD([{"params": [w], "role": "matrix"}], lr=1.0, iterations=1)
    w.grad = grad
    optimizer.step()
    expected = 3.0 * grad / grad.norm(dim=1, keepdim=True)
    torch.testing.assert_close(w.detach(), -(6**0.5) * expected / expected.norm(dim=0), rtol=1e-12, atol=0)


def covers_bound_the_sums_and_the_second_is_tighter() -> None:
    """sum of g^2 <= nu of II <= nu of I: read off the step's length, g / sqrt(nu)."""
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(4, 5, dtype=torch.float64, generator=generator) for _ in range(6)]
    exact = sum(grad * grad for grad in gradients)
    nus = []
    for variant in ("I", "II"):
        recipe = slalom.Recipe(scale=slalom.parts.Cover(variant), step=1.0)  # type: ignore[arg-type]
        last = _ends(recipe, gradients[:-1]) - _ends(recipe, gradients)
        nus.append((gradients[-1] / last) ** 2)
    assert (nus[1] >= exact * (1 - 1e-12)).all()
    assert (nus[0] >= nus[1] * (1 - 1e-12)).all()
    assert (nus[0] > 1.01 * nus[1]).any()


def covering_single_elements_is_adagrad() -> None:
    gradients = [torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(5)]
    for variant in ("I", "II"):
        cover = slalom.Recipe(scale=slalom.parts.Cover(variant), step=1.0)  # type: ignore[arg-type]
        adagrad = slalom.Recipe(scale=slalom.parts.Accumulated(eps=slalom.parts.Inside(1e-30)), step=1.0)
        torch.testing.assert_close(_ends(cover, gradients), _ends(adagrad, gradients), rtol=1e-12, atol=0)


def sm3_property() -> None:
    covers_bound_the_sums_and_the_second_is_tighter()
    covering_single_elements_is_adagrad()


def folding_keeps_the_present_whole() -> None:
    """The first step is (1 - beta) sign(g), element by element: the gradient is factored only after it was used."""
    grad = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    w = torch.nn.Parameter(torch.zeros(6, 10, dtype=torch.float64))
    optimizer = slalom.SMMF([w], lr=1.0, eps=0.0)
    w.grad = grad
    optimizer.step()
    torch.testing.assert_close(w.detach(), -0.1 * grad.sign(), rtol=1e-12, atol=0)
    # |g| of rank one is remembered exactly, so a second step is that of the plain recurrence
    a, b = torch.rand(6, 1, dtype=torch.float64) + 0.1, torch.rand(1, 10, dtype=torch.float64) + 0.1
    flips = torch.where(torch.rand(6, 10, dtype=torch.float64) < 0.5, 1.0, -1.0)
    gradients = [a * b * flips, torch.randn(6, 10, dtype=torch.float64)]
    moved = _ends(slalom.recipes.method("smmf").recipe(lr=1.0, eps=0.0), gradients)  # type: ignore[arg-type]
    g1, g2 = gradients
    beta_2, keep = 0.9 * 0.999, 1 - 2**-0.5
    m = beta_2 * 0.1 * g1 + (1 - beta_2) * g2
    v = keep * g1 * g1 + (1 - keep) * g2 * g2
    # the fold of 60 elements is 10 x 6, in which a b is no outer product; check on a shape that is its own fold
    g1, g2 = (g.reshape(6, 10).T.contiguous() for g in (g1, g2))
    moved = _ends(slalom.recipes.method("smmf").recipe(lr=1.0, eps=0.0), [g1, g2])  # type: ignore[arg-type]
    m, v = m.T, v.T
    torch.testing.assert_close(moved, -0.1 * g1.sign() - m / v.sqrt(), rtol=1e-10, atol=1e-12)


CASES: dict[str, Case] = {
    "adafactor-torch": Case(
        oracles=tuple(
            Oracle(from_torch("Adafactor", **settings), settings, kernels=False)
            for settings in (
                {"eps": (1e-7, 1e-3), "weight_decay": 0.1},
                {"eps": (0.1, 1e-3), "lr": 0.02, "d": 2.0, "beta2_decay": -0.6, "weight_decay": 0.1},
            )
        ),
        property=torchs_floor_tames_small_gradients,
    ),
    "adafactor-hf": Case(
        golden=(Golden({}, (0.2920296664, -0.0994577124, 0.5936285936, 0.2043999742, 0.8975640203, 0.5069170227)),),
        oracles=tuple(
            Oracle(
                from_pytorch_optimizer(
                    "AdaFactor", betas=(theirs, 1 - 1e-16), lr=1e-2, momentum_dtype=torch.float64, **shared
                ),
                {"beta1": ours, "lr": 1e-2, **shared},
                kernels=False,
            )
            for theirs, ours, shared in (
                (None, 0.0, {}),
                (0.8, 0.8, {"weight_decay": 0.1}),
                (0.8, 0.8, {"relative_step": False, "scale_parameter": False, "weight_decay": 0.1}),
                (None, 0.0, {"warmup_init": True}),
            )
        ),
        property=steps_are_averaged_with_their_length,
    ),
    "came": Case(
        oracles=tuple(
            Oracle(from_pytorch_optimizer("CAME", **settings), settings, kernels=False)
            for settings in ({"lr": 1e-2}, {"lr": 1e-2, "betas": (0.8, 0.9, 0.95), "weight_decay": 0.1})
        ),
        property=steady_updates_are_trusted_more,
    ),
    "sm3": Case(
        golden=(
            Golden({"lr": 0.1}, (0.1937053465, 0.0268798193, 0.5256777343, 0.3199179721, 0.8419358464, 0.5998104307)),
            Golden(
                {"lr": 0.1, "variant": "I"},
                (0.1990783502, -0.0692277595, 0.5198157941, 0.2859616811, 0.8817094326, 0.5999641065),
            ),
        ),
        oracles=(Oracle(from_pytorch_optimizer("SM3", lr=0.1), {"lr": 0.1}, 1e-12, kernels=False),),
        property=sm3_property,
    ),
    "smmf": Case(
        golden=(
            Golden({"lr": 0.1}, (0.3015342374, -0.0154938291, 0.5788080367, 0.2407166224, 0.8977212585, 0.5107677883)),
        ),
        property=folding_keeps_the_present_whole,
    ),
    "amos": Case(
        golden=(
            Golden(
                {"lr": 0.1, "eta": 1.0, "per": "tensor"},
                (0.1884810348, -0.0842304346, 0.4482173234, 0.2933783815, 0.8054528260, 0.6678678660),
            ),
        ),
        oracles=(
            Oracle(from_pytorch_optimizer("Amos", lr=0.05), {"lr": 0.05, "per": "tensor"}, 1e-12, kernels=False),
            Oracle(
                from_pytorch_optimizer("Amos", lr=0.05, momentum=0.9),
                {"lr": 0.05, "per": "tensor", "momentum": 0.9},
                1e-12,
                kernels=False,
            ),
            Oracle(
                from_pytorch_optimizer("Amos", lr=0.1, beta=0.9),
                {"lr": 0.1, "beta": 0.9, "per": "tensor"},
                1e-12,
                kernels=False,
            ),
        ),
        property=weights_tend_to_their_expected_size,
    ),
    "adam-mini": Case(
        golden=(
            Golden({"lr": 0.1}, (0.0078517426, 0.0343793936, 0.4467794540, 0.4341178793, 0.9355854014, 0.7401273101)),
        ),
        property=a_head_shares_its_step_size,
    ),
    "sinkgd": Case(property=rows_and_columns_get_equal_shares),
}
