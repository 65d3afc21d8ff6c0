"""P7: rare classes: gradient descent takes as long as a class is rare, Adam and the sign take the same for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from slalom.lab.methods import build
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture

_NAMED = {"sgd": "sgd:lr=27.3", "adam": "adam", "sign": "signsgd"}


@phenomenon
@dataclass(frozen=True)
class HeavyTail(Phenomenon):
    """Softmax regression on classes of which the k-th has a share of about 1 / k.

    Args:
        recipes: who runs.
        lr: the rate of those that do not name their own.
        steps: how many, each with the exact gradient.
        classes: how many.
    """

    recipes: tuple[str, ...] = ("sgd:lr=27.3", "sgd:lr=2.73,momentum=0.9", "signsgd", "adam")
    lr: float = 0.05
    steps: int = 300
    classes: int = 512

    name: ClassVar = "heavy-tail"
    title: ClassVar = "why Adam beats SGD on words: rare classes"
    source: ClassVar = "Kunstner et al. 2024 (NeurIPS), arXiv:2402.19449"
    claim: ClassVar = (
        "Words follow Zipf's law: most of them are rare, and together they are most of the loss. The gradient of a "
        "class is as small as the class is rare, so gradient descent learns it after a time of the order of 1 / "
        "share, while the rate is limited by the frequent classes. Adam and the sign of the gradient divide the "
        "size away: they learn all classes at once."
    )
    here: ClassVar = (
        "The paper trains GPT-2 on text; its own linear toy, made small, loses the effect, so this is the smallest "
        "model that has it: one input per class, weights from zero, the exact gradient. The rate of gradient "
        "descent, 27.3 = 4 / the largest share, is near the largest that is stable."
    )
    signs: ClassVar = (
        Sign("sgd 64", "gradient descent: steps until the loss of class 64 is half, over those of class 1",
             "theory: 64; measured before: 52", low=16),
        Sign("sgd rare", "gradient descent: loss of the rarest half of the classes in the end, as a share of the start",
             "paper: no progress; measured before: 0.50", low=0.3),
        Sign("adam 64", "Adam: steps for class 64 over those for class 1", "theory: 1", high=1.5),
        Sign("adam rare", "Adam: loss of the rarest half in the end, as a share of the start",
             "paper: progress on all; measured before: 0.003", high=0.05),
        Sign("sign 64", "sign of the gradient: steps for class 64 over those for class 1",
             "theory: 1", high=1.5),
    )  # fmt: skip
    seconds: ClassVar = (3.0, 2.0)
    quick: ClassVar = {"steps": 150}
    variants: ClassVar = {
        "heavy-tail muon:lr=0.05 lion:lr=0.01 adagrad:lr=0.5": "how others treat rare classes",
        "heavy-tail-text": "the same on real text",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train with every recipe; nothing is random, so the seed changes nothing."""
        rank = torch.arange(1, self.classes + 1)
        share = 1 / rank
        share = share / share.sum()
        curves, rows, values = [], {}, {}
        target = torch.eye(self.classes)
        for place, word in enumerate(self.recipes):
            w = torch.zeros(self.classes, self.classes, requires_grad=True)
            optimizer = build(word, [w], lr=self.lr)
            losses = []
            for step in range(self.steps + 1):
                logits = w.detach()
                losses.append(logits.logsumexp(1) - logits.diagonal())
                w.grad = share[:, None] * (logits.softmax(1) - target)
                optimizer.step()
                progress((place + step / self.steps) / len(self.recipes))
            path = torch.stack(losses)
            half = _first(path <= path[0] / 2)
            rows[word] = (
                float(path[-1] @ share),
                float(path[-1, :8].mean()),
                float(path[-1, self.classes // 2 :].mean()),
                *(half[k - 1] for k in (1, 64, self.classes)),
            )
            for key, named in _NAMED.items():
                if word == named:
                    values[f"{key} 64"] = (half[63] or float("inf")) / (half[0] or float("nan"))
                    values[f"{key} rare"] = float(path[-1, self.classes // 2 :].mean() / path[0, 0])
            curves.append(Curve(range(1, self.classes + 1), [k or float("nan") for k in half], word))
        head = ("in the end", "loss", "of 8 frequent", "of rare half", *(f"t {k}" for k in (1, 64, self.classes)))
        picture = Picture(tuple(curves), "class, by how frequent it is", "steps until its loss is half",
                          log_x=True, log_y=True)  # fmt: skip
        return Run(values, {"Who learns the rare classes when": picture}, Table(head, rows))


def _first(reached: torch.Tensor) -> list[float | None]:
    """Return for every column the first row that is true, None where none is."""
    when = reached.float().argmax(0)
    there = reached.any(0)
    return [float(step) if once else None for step, once in zip(when.tolist(), there.tolist(), strict=True)]
