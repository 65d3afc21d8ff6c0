"""Rows "rank death" and "rank divergence": two processes of which one hangs, is killed, or goes its own way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import PATIENCE

import slalom
from slalom.observe import diverged
from slalom.observe.hashes import _compare, _Thing

HERE = Path(__file__).parent
W, STEP, PART = (
    _Thing("parameter w", "value", ()),
    _Thing("parameter w", "step", ()),
    _Thing("parameter v", "value", (0,)),
)


def test_camps_are_told_apart_and_the_largest_comes_first() -> None:
    """Row "rank divergence": which rank it is, where more than two can be asked."""
    hashes = {0: {W: "a", STEP: "1"}, 1: {W: "b", STEP: "1"}, 2: {W: "a", STEP: "1"}, 3: {W: "a"}}
    found = list(_compare(hashes, 7))
    assert [str(one) for one in found] == [
        "step 7: value of parameter w differs between ranks: 0, 2, 3 | 1",
        "step 7: step of parameter w differs between ranks: 0, 1, 2 | 3",
    ]
    assert found[0].camps == ((0, 2, 3), (1,))


def test_parts_are_compared_between_those_that_hold_them() -> None:
    """Row "rank divergence", of what is sharded: rank 1 holds no part of it that rank 0 holds, and lacks nothing."""
    other = PART._replace(part=(1,))
    assert list(_compare({0: {PART: "a"}, 1: {other: "b"}, 2: {PART: "a"}}, 0)) == []
    (found,) = _compare({0: {PART: "a"}, 1: {other: "b"}, 2: {PART: "c"}}, 0)
    assert found.camps == ((0,), (2,))


def test_a_process_alone_differs_from_nobody() -> None:
    """Row "rank divergence": a training script calls it wherever it runs."""
    parameters = torch.nn.Linear(2, 2).parameters()
    assert diverged(slalom.AdamW(parameters)) == []


def run(case: str, folder: Path) -> list[Any]:
    """Run a case on two ranks; return what each found, None of one that the first has stopped."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"}
    results = [folder / f"rank{rank}.json" for rank in range(2)]
    log = folder / "log"
    with log.open("w") as said:
        processes = [
            subprocess.Popen(
                [sys.executable, str(HERE / "ranks.py"), case, str(rank), str(folder / "store"), str(result)],
                env=environment, stdout=said, stderr=said,
            )
            for rank, result in enumerate(results)
        ]  # fmt: skip
    try:
        processes[0].wait(timeout=120)
        if case == "comparisons":
            processes[1].wait(timeout=120)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert results[0].exists(), log.read_text()
    return [json.loads(result.read_text()) if result.exists() else None for result in results]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found that went their own ways."""
    return run("comparisons", tmp_path_factory.mktemp("ranks"))


DIFFERS = "differs between ranks: 0 | 1"


@pytest.mark.slow
def test_ranks_that_are_alike_are_said_to_be(ranks: list[dict[str, Any]]) -> None:
    """Row "rank divergence": no false alarm, with state that the model has in common and with shards that differ."""
    for found in ranks:
        assert found["alike"] == [[], [], []]
        assert [found[case][0] for case in ("gradient", "torch", "rate", "shards", "replicated", "both")] == [[]] * 6


@pytest.mark.slow
def test_a_gradient_that_was_harmed_on_one_rank_is_traced_to_its_parameter(ranks: list[dict[str, Any]]) -> None:
    """Row "rank divergence": one unit in the last place of one element, on one rank, in one step."""
    for found in ranks:
        for case, keys, owner in (
            ("gradient", {"value", "ema.m", "second_moment.v"}, 'parameter "2.weight"'),
            ("torch", {"value", "exp_avg", "exp_avg_sq"}, "parameter number 2 of shape (3, 5) in group 0"),
        ):
            for step in (2, 3):
                heard = found[case][step - 1]
                assert heard
                assert set(heard) <= {f"step {step}: {key} of {owner} {DIFFERS}" for key in keys}


@pytest.mark.slow
def test_settings_and_state_that_one_rank_lacks_are_found_too(ranks: list[dict[str, Any]]) -> None:
    """Row "rank divergence": its causes, before they have had effects."""
    for found in ranks:
        assert f"step 2: lr of group 0 {DIFFERS}" in found["rate"][1]
        heard = {line for line in found["missing"][0] if 'parameter "2.bias"' in line}
        assert heard == {
            f'step 1: {key} of parameter "2.bias" {DIFFERS}' for key in ("value", "step", "ema.m", "second_moment.v")
        }


@pytest.mark.slow
def test_of_shards_what_several_ranks_hold_is_compared(ranks: list[dict[str, Any]]) -> None:
    """Row "rank divergence", of what is sharded: counts, replicas, and replicas of parts."""
    for rank, found in enumerate(ranks):
        assert found["shards"][1] == [f'step {1 + rank}: step of parameter "0.bias" {DIFFERS}']
        assert found["replicated"][1] == found["both"][1] == [f'step 1: value of parameter "w" {DIFFERS}']


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gathering", "deciding"])
def test_a_rank_that_hangs_is_waited_for_no_longer_than_its_group_says(case: str, tmp_path: Path) -> None:
    """Row "rank death", by SIGSTOP: torch's own error after torch's own time, and everything is as it was.

    Both when a step gathers a sharded parameter, and when ranks decide together whether gradients are finite.
    """
    seen = run(case, tmp_path)[0]
    assert "imed out" in seen["said"]
    assert 0.5 * PATIENCE < seen["seconds"] < PATIENCE + 20
    assert seen["same"]
    assert seen["skipped"] == 0


@pytest.mark.slow
def test_a_rank_that_was_killed_is_heard_of_and_nothing_has_changed(tmp_path: Path) -> None:
    """Row "rank death", by SIGKILL."""
    seen = run("dead", tmp_path)[0]
    assert seen["said"]
    assert seen["seconds"] < PATIENCE + 20
    assert seen["same"]
