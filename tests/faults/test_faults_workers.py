"""Row "forked and spawned workers": what a process inherits of kernels, and of threads that are not there.

A worker that raises is row "worker exception", which tests/test_cli_race.py and tests/race/test_race_trial.py have.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from slalom.race.pool import Pool

SCRIPT = """
import os, struct, tempfile
import torch
from torch.utils.data import DataLoader, Dataset
import slalom

torch.set_num_threads(2)
COUNT = 1 << 18  # enough that kernels run on both


def make():
    p = torch.nn.Parameter(torch.linspace(-1, 1, COUNT))
    return p, slalom.LAMB([p], lr=0.1, on_nonfinite="skip")  # a sum and a look at gradients run on threads too


def step(p, optimizer, number):
    p.grad = torch.full_like(p, 1.0 + number)
    optimizer.step()


p, optimizer = make()
step(p, optimizer, 0)
assert list(optimizer.executors()) == ["native"]

# a fork steps on with what it inherited
with tempfile.NamedTemporaryFile() as file:
    child = os.fork()
    if child == 0:
        # torch's own operations would wait for ever if they ran on threads
        p.grad = torch.frombuffer(bytearray(struct.pack("<f", 2.0) * COUNT), dtype=torch.float32)
        optimizer.step()
        file.write(p.detach().numpy().tobytes())
        file.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    theirs = torch.frombuffer(bytearray(open(file.name, "rb").read()), dtype=torch.float32)
step(p, optimizer, 1)
assert torch.equal(p.detach(), theirs)
print("ok fork")


class Optimized(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        q, inner = make()
        step(q, inner, 0)
        return q.detach()


q, reference = make()
step(q, reference, 0)
for batch in DataLoader(Optimized(), num_workers=2, multiprocessing_context="fork"):
    step(p, optimizer, 2)  # and the process that forked goes on
    assert torch.equal(batch[0], q)
print("ok loader")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_forked_processes_step_to_the_same_bits_after_kernels_ran_on_threads() -> None:
    """Row "forked workers": GNU's OpenMP would wait for threads that a fork has not; bits do not depend on them."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("OMP_NUM_THREADS", None)
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, wrong = running.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)  # the fork that waits too
        raise
    assert running.returncode == 0, wrong
    assert said.split() == ["ok", "fork", "ok", "loader"]


def test_workers_of_a_race_inherit_nothing() -> None:
    """Row "spawned workers": whoever races from a process that has trained starts from clean ones."""
    with Pool(1) as pool:
        assert type(pool._workers[0].process) is multiprocessing.get_context("spawn").Process
