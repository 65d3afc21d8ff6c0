import hashlib
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from slalom.race.records import Curve, Outcome
from slalom.race.targets import _up, calibrate, frozen
from slalom.race.workload import stream, variant
from slalom.race.workloads import TIERS, built_in, names
from slalom.race.workloads.charlm import (
    ALPHABET,
    BLOCKS,
    CHARACTERS,
    CONTEXT,
    OTHER,
    TOKENS_PER_PARAMETER,
    standard_library,
    text,
)
from slalom.race.workloads.digits import DigitsMlp, images
from slalom.race.workloads.exact import Quadratic, Zipf, _quadratic
from slalom.race.workloads.graphs import TRAIN, graphs
from slalom.race.workloads.recon import mask, photographs, undersample
from slalom.race.workloads.schedules import warmup_cosine
from slalom.race.workloads.tables import rows

# What a model that knows nothing scores: log of the number of classes, or the variance of the answers, 1.
CHANCE = {
    "digits_mlp": math.log(10),
    "digits_cnn": math.log(10),
    "charlm": math.log(OTHER + 1),
    "charlstm": math.log(OTHER + 1),
    "digits_vit": math.log(10),
    "graphs": math.log(2),
    "diabetes": 1.0,
    "cancer": math.log(2),
    "wine": math.log(3),
}
ALL = list(built_in())


def first_batch(name, seed=0):
    return next(iter(built_in()[name].batches(stream(name, seed, "batches"))))


def test_the_text_is_the_same_every_time_and_hashed():
    source = standard_library()
    assert len(source) == CHARACTERS
    assert text().sha256 == hashlib.sha256(source.encode()).hexdigest() == built_in()["charlm"].data_hash()


def test_the_text_is_split_in_contiguous_blocks_without_overlap():
    codes = [*ALPHABET]
    read = text()
    block = CHARACTERS // BLOCKS
    assert len(read.train) == 9 * len(read.validation) == CHARACTERS * 9 // 10
    decoded = "".join(codes[code] if code != OTHER else "?" for code in read.validation[:50].tolist())
    source = standard_library()[block * 9 // 10 : block * 9 // 10 + 50]
    assert decoded == "".join(character if character in ALPHABET else "?" for character in source)


def test_digits_are_split_without_overlap():
    data = images()
    assert (len(data.train[0]), len(data.validation[0])) == (1297, 500)
    assert data.train[0].aminmax() == (-1.0, 1.0)
    assert len(data.sha256) == 64


@pytest.mark.parametrize("name", ALL)
def test_a_workload_gives_a_gradient_to_every_parameter(name):
    workload = built_in()[name]
    torch.manual_seed(0)
    model = workload.model()
    workload.loss(model, first_batch(name)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        assert math.isfinite(float(workload.evaluate(model)["loss"]))


@pytest.mark.parametrize("name", list(CHANCE))
def test_a_workload_starts_at_chance(name):
    workload = built_in()[name]
    torch.manual_seed(0)
    model = workload.model().eval()
    with torch.no_grad():
        assert float(workload.evaluate(model)["loss"]) == pytest.approx(CHANCE[name], rel=0.2)


@pytest.mark.parametrize("name", [name for name in ALL if built_in()[name].base is None])
def test_batches_follow_from_the_seed(name):
    def flat(batch):
        return torch.cat([part.float().flatten() for part in ([batch] if isinstance(batch, torch.Tensor) else batch)])

    assert torch.equal(flat(first_batch(name)), flat(first_batch(name)))
    assert not torch.equal(flat(first_batch(name)), flat(first_batch(name, 1)))


def test_the_schedule_rises_and_falls_to_nothing():
    rates = [warmup_cosine(step / 100) for step in range(100)]
    assert 0 < rates[0] < rates[4] < 1
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[-1] < 0.001
    assert sorted(rates[6:], reverse=True) == rates[6:]


def test_the_optimum_of_the_quadratic_is_zero_and_its_condition_is_as_said():
    workload = Quadratic()
    model = workload.model()
    with torch.no_grad():
        model.w.zero_()
        assert workload.evaluate(model)["loss"] == 0
    eigenvalues = torch.linalg.eigvalsh(_quadratic(100, 1000.0, True).double())
    assert float(eigenvalues[-1] / eigenvalues[0]) == pytest.approx(1000, rel=0.02)
    # Noise displaces every batch's optimum, so the training loss at the true one is not 0.
    assert workload.loss(model, first_batch("quadratic")).item() > 0


def test_the_optimum_of_deep_linear_is_zero():
    from slalom.race.workloads.exact import _answer

    workload = built_in()["deep_linear"]
    model = workload.model()
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(torch.eye(workload.width))
        model[0].weight.copy_(_answer(workload.width))
        assert float(workload.evaluate(model)["loss"]) == pytest.approx(0, abs=1e-10)


def test_the_exact_loss_of_zipf_is_the_sampled_one_less_the_entropy():
    workload = Zipf()
    torch.manual_seed(0)
    model = workload.model()
    from slalom.race.workloads.exact import _words

    frequency, successor = _words(workload.words, workload.exponent)
    truth = 0.5 * frequency.expand(workload.words, -1).clone()
    truth[torch.arange(workload.words), successor] += 0.5
    entropy = -(frequency @ (truth * truth.log()).sum(1))
    batches = workload.batches(torch.Generator().manual_seed(0))
    with torch.no_grad():
        sampled = torch.stack([workload.loss(model, next(batches)) for _ in range(200)]).mean()
        exact = workload.evaluate(model)["loss"]
    assert float(sampled - entropy) == pytest.approx(float(exact), abs=0.02)


def test_half_of_the_graphs_have_more_triangles_and_edges_alone_do_not_say_which():
    adjacency, _, labels = graphs()
    assert torch.equal(adjacency, adjacency.transpose(1, 2))
    assert 0.4 < float(labels.float().mean()) < 0.6
    edges = adjacency.sum((1, 2))
    guess = (edges > edges[:TRAIN].median()).long()
    assert float((guess == labels).float().mean()) < 0.9


def test_undersampling_keeps_a_quarter_of_the_columns():
    assert mask().sum() == 8
    train, held_out, digest = photographs()
    assert train.shape[2] + held_out.shape[2] == 640
    assert len(digest) == 64
    patch = train[:, :32, :32][:, None]
    assert torch.allclose(undersample(undersample(patch)).mean(), patch.mean(), atol=1e-5)
    assert not torch.allclose(undersample(patch), patch, atol=1e-2)


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "wine"])
def test_tables_are_standardised_by_their_training_rows(name):
    table = rows(name)
    assert torch.allclose(table.train[0].mean(0), torch.zeros(table.train[0].shape[1]), atol=1e-5)
    assert torch.allclose(table.train[0].std(0), torch.ones(table.train[0].shape[1]), atol=1e-5)
    assert abs(len(table.train[0]) - 3 * len(table.validation[0])) <= 3


def test_tiers_name_workloads_that_exist_and_the_default_is_the_three():
    assert names("default") == ["digits_mlp", "digits_cnn", "charlm"]
    for tier in TIERS:
        assert set(names(tier)) <= set(built_in())
    assert set(names("laptop")) < set(names("held-out"))
    assert len(names("ladder")) == 4


def test_every_base_of_the_laptop_tier_has_a_variant_that_differs():
    found = built_in()
    bases = {workload.base for workload in found.values() if workload.base}
    assert set(names("laptop")) - bases <= {"clicks"}
    for workload in found.values():
        if workload.base:
            base = found[workload.base]
            assert vars(workload).keys() - {"name", "title", "base", "target", "reference"}
            assert (workload.steps, workload.lr_scale) == (base.steps, base.lr_scale)


def test_a_variant_cannot_change_what_is_not_there():
    with pytest.raises(AttributeError, match='digits_mlp has no "depth"'):
        variant(DigitsMlp(), "deep", "deeper", depth=3)


def test_the_sizes_train_for_equally_many_tokens_per_parameter():
    sizes = []
    for name in names("ladder"):
        workload = built_in()[name]
        assert workload.size == sum(parameter.numel() for parameter in workload.model().parameters())
        tokens = workload.steps * workload.batch * CONTEXT
        assert tokens / workload.size == pytest.approx(TOKENS_PER_PARAMETER, rel=0.01)
        sizes.append(workload.size)
    assert sizes == sorted(sizes)
    assert sizes[-1] > 20 * sizes[0]


def test_targets_are_those_of_the_file_and_lie_between_chance_and_the_best():
    for name, target in frozen().items():
        workload = built_in()[name]
        assert workload.target == target.target
        assert target.best <= target.target
        if name in CHANCE:
            assert target.target < 0.9 * CHANCE[name]
        assert 0 < target.reference <= workload.steps
    assert {"digits_mlp", "digits_cnn", "charlm"} <= set(frozen())


def run_of(*losses):
    steps = tuple(range(0, 10 * len(losses), 10))
    return Outcome("finished", steps[-1], curve=Curve(steps, losses, {"loss": losses}, steps, steps),
                   environment={"torch": "2", "python": "3"})  # fmt: skip


def _slowed(run):
    curve = replace(run.curve, cpu=tuple(100 * x for x in run.curve.cpu), wall=tuple(100 * x for x in run.curve.wall))
    return replace(run, curve=curve, seconds=1e4, step_ms=1e3, optimizer_ms=1e3, calibration=(9.0, 99.0))


def test_a_target_is_what_the_baseline_reaches_at_its_best_rate_within_the_share():
    workload = DigitsMlp()
    workload.steps = 30
    runs = {
        "torch.optim.AdamW": {
            0.1: [run_of(9, 8, 7, 6), run_of(9, 8, 7, 6)],
            0.2: [run_of(9, 6, 3, 1), run_of(9, 6, 4, 1.5)],
        },
        "torch.optim.SGD:momentum=0.9,nesterov=true": {0.3: [run_of(9, 8, 4, 2), run_of(9, 8, 8, 5)]},
    }
    found = calibrate(workload, runs)
    # 70 % of 30 steps is step 21: 4 + (1.5 - 4) / 10 for the slower seed.
    assert (found.lr, found.target) == (0.2, 3.75)
    assert found.reference == pytest.approx((17.5 + 21) / 2, abs=0.06)
    assert list(found.reached.values()) == [1.0, 0.5]
    # A machine that was a hundred times as slow finds the same target: only steps and losses count.
    slow = {judge: {lr: [_slowed(run) for run in grid] for lr, grid in rates.items()} for judge, rates in runs.items()}
    assert calibrate(workload, slow) == found


def test_rounding_keeps_what_was_reached():
    assert [_up(value) for value in (0.12341, 12.341, 0.5, 1.0)] == [0.124, 12.4, 0.5, 1.0]


def test_a_network_of_a_workload_is_torchs_own():
    assert isinstance(built_in()["digits_cnn"].model(), nn.Sequential)
