"""Two processes with sharded parameters: what they compute is what one process computes on the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from sharded import CASES, EXECUTORS, METHODS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"),
]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found in every case; both run all of them once."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"}
    results = [folder / f"rank{rank}.json" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "sharded.py"), str(rank), str(folder / "store"), str(result)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, result in enumerate(results)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(result.exists() for result in results), "\n".join(said)
    found = [json.loads(result.read_text()) for result in results]
    alone = results[0].with_suffix(".alone")
    return [{**found[0], "alone": json.loads(alone.read_text())} if alone.exists() else found[0], found[1]]


def test_both_ranks_come_to_the_end(ranks: list[dict[str, Any]]) -> None:
    assert [[name for name in found if name != "alone"] for found in ranks] == [list(CASES)] * 2


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", METHODS)
def test_steps_on_shards_equal_steps_on_the_whole(ranks: list[dict[str, Any]], name: str, executor: str) -> None:
    for found in ranks:
        assert found[f"{name} {executor}"] == 0.0


@pytest.mark.parametrize("name", ["adamw", "muon", "prodigy"])
def test_a_sharded_run_resumes_from_sharded_and_from_whole_state(ranks: list[dict[str, Any]], name: str) -> None:
    assert [found[f"resume {name}"] for found in ranks] == [0.0, 0.0]


def test_state_per_element_lies_like_its_parameter(ranks: list[dict[str, Any]]) -> None:
    assert [found["state lies"] for found in ranks] == [[], []]


@pytest.mark.parametrize("choice", ["skip", "raise"])
def test_ranks_decide_together_on_a_gradient_that_is_bad_on_one(ranks: list[dict[str, Any]], choice: str) -> None:
    for rank, found in enumerate(ranks):
        seen = found[f"nan {choice}"]
        assert seen["same"]
        assert seen["steps"] == 1.0
        assert seen["skipped"] == (choice == "skip")
        if choice == "raise":
            assert ("number 0 of shape (5, 6)" if rank else "on another rank") in seen["said"]


def test_a_model_trains_under_fsdp_as_it_does_alone(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["fsdp"] < 1e-6  # the ranks' gradients are averaged in another order


def test_shards_of_columns_and_gradients_cut_otherwise_are_understood(ranks: list[dict[str, Any]]) -> None:
    assert [found["columns"] for found in ranks] == [0.0, 0.0]


def test_averages_are_read_from_shards(ranks: list[dict[str, Any]]) -> None:
    assert [found["averages"] for found in ranks] == [0.0, 0.0]


def test_a_sharded_run_is_measured_as_a_whole_one(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        # the largest coordinates are taken of each rank's part, and a step is rounded in another order
        assert all(difference < 1e-4 for name, difference in found["watched"].items() if name != "tail")


def test_what_cannot_be_done_with_shards_is_refused(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert "assign a DTensor" in found["plain gradient"]
        assert "torch.distributed.checkpoint" in found["own checkpoint"]


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_torch_s_own_checkpoints_of_sharded_runs_resume(ranks: list[dict[str, Any]], name: str) -> None:
    assert [found[f"dcp {name}"] for found in ranks] == [0.0, 0.0]


def test_a_rank_whose_partner_was_killed_hears_of_it_and_has_changed_nothing(ranks: list[dict[str, Any]]) -> None:
    alone = ranks[0]["alone"]
    assert alone["said"]
    assert alone["same"]
    assert alone["counts"] == [1.0]
    assert alone["seconds"] < 60
