"""Two toy workloads, and some that go wrong on purpose."""

import os
import signal

import torch
from torch import nn

from slalom.race import Workload


class Line(Workload):
    """A line is fitted to a line."""

    steps = 20
    evaluations = 5
    target = 0.5

    def model(self):
        return nn.Linear(3, 1)

    def batches(self, generator):
        while True:
            x = torch.randn(8, 3, generator=generator)
            yield x, x.sum(1, keepdim=True)

    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y).square().mean()

    def evaluate(self, model):
        x = torch.eye(3)
        return {"loss": (model(x) - 1).square().mean(), "accuracy": 0.5}


class Explodes(Line):
    """The loss becomes NaN at step 7."""

    def batches(self, generator):
        for step, (x, y) in enumerate(super().batches(generator), 1):
            yield (x * float("nan"), y) if step == 7 else (x, y)


class Breaks(Line):
    """The loss raises at once."""

    def loss(self, model, batch):
        return torch.zeros(2) @ torch.zeros(3)


class Dies(Line):
    """The process is killed."""

    def loss(self, model, batch):
        os.kill(os.getpid(), signal.SIGKILL)
