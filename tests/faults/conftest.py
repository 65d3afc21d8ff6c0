"""Failures that are injected, by rows; the docstring of a test says which row it is.

    kill -9; SIGTERM; ctrl-C; clock jump          test_faults_saving, test_faults_stopping, race/test_race_together
    full disk; read-only or vanished folder       test_faults_saving
    corrupted file; wrong checkpoint              test_faults_files, test_checkpoint
    NaN and infinite gradients                    test_faults_gradients, test_nonfinite, test_shards
    out of memory (RLIMIT_AS)                     test_faults_memory
    rank death; rank divergence                   test_faults_ranks, test_shards
    forked and spawned workers; worker exception  test_faults_workers, test_cli_race
    locked database; poor surroundings            test_faults_surroundings

The tools of this folder can be imported by its tests and by the processes that they start.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
