"""P1 at the size of the paper: a transformer learns to divide modulo 97. Minutes, so a run can be kept and go on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

import slalom
from slalom.errors import UsageError
from slalom.lab.methods import build, set_rate
from slalom.lab.phenomenon import Phenomenon, Progress, Run, Sign, Table, phenomenon
from slalom.pictures import Curve, Picture

_ADAMW = "adamw:betas=(0.9,0.98)"
_KNOWN = 0.99  # of the answers right
_EVERY = 20  # steps from one look to the next
_LOOKED_AT = 1024  # equations of each half; all of them at the last look
_KEPT_EVERY = 100
_WARM = 10  # steps
_LONG_ENOUGH = 1500  # steps; a shorter run that has not understood says nothing


@dataclass
class _Path:
    """What was seen of one training run, look by look."""

    steps: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)

    @property
    def memorised(self) -> int | None:
        """The step at which nearly all of the training half was right for the first time."""
        return next((step for step, share in zip(self.steps, self.train, strict=True) if share >= _KNOWN), None)

    @property
    def understood(self) -> int | None:
        """Likewise of the other half."""
        return next((step for step, share in zip(self.steps, self.test, strict=True) if share >= _KNOWN), None)

    @property
    def done(self) -> bool:
        """Whether the other half has been understood, and still was a hundred steps later."""
        return self.understood is not None and self.steps[-1] >= self.understood + 100


@phenomenon
@dataclass(frozen=True)
class GrokkingTransformer(Phenomenon):
    """A transformer of two layers learns to divide modulo a prime from half of the table.

    Args:
        recipes: who trains.
        lr: the rate of those that do not name their own, after a linear warm-up of 10 steps.
        weight_decay: likewise, on all parameters.
        steps: of training, at most; a run ends 100 steps after it has understood.
        prime: the modulus.
        width: of the transformer, whose heads have 32 coordinates each.
        batch: equations per step; at most half of the training set.
        share: of the table that is the training set.
        keep: a folder in which every run is kept once in 100 steps; started again with the same settings it goes on.
    """

    recipes: tuple[str, ...] = (_ADAMW,)
    lr: float = 1e-3
    weight_decay: float = 1.0
    steps: int = 3000
    prime: int = 97
    width: int = 128
    batch: int = 512
    share: float = 0.5
    keep: str = ""

    name: ClassVar = "grokking-transformer"
    title: ClassVar = "understanding long after memorising, at the size of the paper"
    source: ClassVar = "Power et al. 2022, arXiv:2201.02177"
    claim: ClassVar = (
        "A transformer reads x / y = and answers modulo 97; half of the 9312 equations are its training set. After some"
        " hundred steps it knows these by heart, and hardly any of the others. Nothing is left to learn from the "
        "data, but weight decay goes on pulling at the weights, and a rule that is right everywhere needs less weight "
        "than a table of 4656 answers: as the weights shrink, the other half suddenly comes right."
    )
    here: ClassVar = (
        "The paper's task and size: two layers before which norms stand, width 128, 395,776 parameters without "
        "embeddings, AdamW at 1e-3 with betas (0.9, 0.98), decay 1 on everything, batches of 512. No setting was tried "
        "but these. Looks during training are at 1024 equations of each half. --quick ends when the training half is "
        "known and before the other is understood."
    )
    signs: ClassVar = (
        Sign("gap", "steps until 99 % of the other half are right, over those for the training half",
             "paper: 100 and more without decay; measured before at decay 1: 1400 over 500 to 1000", low=2.0),
        Sign("blind", "share of the other half that is right when the training half is known",
             "measured before: 0.026 to 0.126", high=0.5),
        Sign("overshoot", "the highest loss on the other half, over ln p, which guessing gives",
             "paper: rises before it falls; measured before: 5.1 / 4.57 = 1.1", low=1.05),
        Sign("end", "share of the other half that is right in the end", "paper: 1; measured before: 0.996", low=_KNOWN),
        Sign("shrinks", "norm of all weights when it has understood, over that when it had memorised",
             "theory: a rule needs less weight than a table", high=1.0),
    )  # fmt: skip
    seconds: ClassVar = (140.0, 40.0)
    quick: ClassVar = {"steps": 400}
    variants: ClassVar = {
        "grokking-transformer:keep=grok": "kept in a folder: interrupt it, and start it again to go on",
        "grokking-transformer:share=0.3,steps=20000": "fewer equations: said to take 5 to 10 times as long or more",
        "grokking-transformer:weight_decay=0.1,steps=20000": "less decay: said to take 10 times as long",
        "grokking-transformer muon:weight_decay=0.1,lr=0.02": "another method",
    }

    def run(self, seed: int, progress: Progress) -> Run:
        """Train with every recipe from the same start on the same batches."""
        if self.width % 32:
            raise UsageError(f"width={self.width}: heads have 32 coordinates each; give a multiple of 32.")
        tokens, answers = table(self.prime)
        shuffled = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
        known = int(self.share * len(tokens))
        halves = [(tokens[rows], answers[rows]) for rows in (shuffled[:known], shuffled[known:])]
        paths = {}
        for place, word in enumerate(self.recipes):

            def tell(done: float, place: int = place) -> None:
                progress((place + done) / len(self.recipes))

            folder = Path(self.keep) / f"seed {seed}" / word.replace("/", "-") if self.keep else None
            paths[word] = self._train(word, seed, halves, folder, tell)
        rows = {
            word: (path.memorised, path.understood, path.train[-1], path.test[-1], path.norm[-1])
            for word, path in paths.items()
        }
        head = ("", "memorised", "understood", "training half", "other half", "norm")
        return Run(self._values(paths), self._pictures(paths), Table(head, rows))

    def _train(
        self, word: str, seed: int, halves: list[tuple[Tensor, Tensor]], folder: Path | None, progress: Progress
    ) -> _Path:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            model = _Transformer(self.prime + 2, self.width)
        optimizer = build(word, list(model.parameters()), lr=self.lr, weight_decay=self.weight_decay)
        rate = float(optimizer.param_groups[0]["lr"])
        path, begin = _Path(), 1
        facts: dict[str, Any] = {**self.settings(), "recipes": word, "seed": seed}
        for setting in ("keep", "steps"):  # a run may move, and go on for longer
            del facts[setting]
        if folder is not None:
            resumed = slalom.load_checkpoint(folder, model=model, optimizer=optimizer)
            if resumed is not None:
                if resumed.position["settings"] != facts:
                    raise UsageError(f'"{folder}" holds a run with other settings; keep this one in another folder.')
                path, begin = _Path(**resumed.position["path"]), resumed.position["step"] + 1
        (x, y), _ = halves
        for step, rows in zip(itertools.count(begin), _batches(len(x), self.batch, seed, begin - 1), strict=False):
            if step > self.steps or (path.steps and path.done):
                break
            if step <= _WARM:
                set_rate(optimizer, rate * step / _WARM)
            optimizer.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % _EVERY == 0 or step == self.steps:
                _look(path, step, model, halves, len(x) if step == self.steps else _LOOKED_AT)
            if folder is not None and step % _KEPT_EVERY == 0:
                slalom.save_checkpoint(
                    folder,
                    model=model,
                    optimizer=optimizer,
                    position={"step": step, "settings": facts, "path": vars(path)},
                )
            progress(step / self.steps)
        return path

    def _values(self, paths: dict[str, _Path]) -> dict[str, float]:
        path = paths.get(_ADAMW)
        if path is None:
            return {}
        values = {"overshoot": max(path.loss) / math.log(self.prime)}
        waited = path.understood is not None or self.steps >= _LONG_ENOUGH
        if waited:
            values["end"] = path.test[-1]
        if path.memorised is not None:
            if waited:  # never understood is no gap, but a longer one than could be waited for
                values["gap"] = math.nan if path.understood is None else path.understood / path.memorised
            values["blind"] = path.test[path.steps.index(path.memorised)]
            if path.understood is not None:
                norms = (path.norm[path.steps.index(step)] for step in (path.understood, path.memorised))
                values["shrinks"] = next(norms) / next(norms)
        return values

    def _pictures(self, paths: dict[str, _Path]) -> dict[str, Picture]:
        several = len(paths) > 1
        halves = [
            Curve(path.steps, shares, f"{word}, {half} half" if several else f"{half} half")
            for word, path in paths.items()
            for half, shares in (("training", path.train), ("other", path.test))
        ]
        losses = tuple(Curve(path.steps, path.loss, word) for word, path in paths.items())
        norms = tuple(Curve(path.steps, path.norm, word) for word, path in paths.items())
        return {
            "Share of right answers": Picture(tuple(halves), "steps", "share", low=0.0, high=1.0),
            "Loss on the other half": Picture(losses, "steps", "loss", low=0.0),
            "Norm of all weights": Picture(norms, "steps", "norm", low=0.0),
        }


def table(p: int) -> tuple[Tensor, Tensor]:
    """Return all equations x / y = modulo a prime, as tokens, and their answers.

    Raises:
        UsageError: if it is no prime, or too small for half a table.
    """
    if p < 5 or any(p % k == 0 for k in range(2, math.isqrt(p) + 1)):
        raise UsageError(f"prime={p}: there is division only modulo a prime; give one from 5 on.")
    x, y = torch.cartesian_prod(torch.arange(p), torch.arange(1, p)).unbind(1)
    inverses = torch.tensor([pow(k, p - 2, p) for k in range(p)])
    return torch.stack([x, torch.full_like(x, p), y, torch.full_like(x, p + 1)], 1), x * inverses[y] % p


def _batches(count: int, size: int, seed: int, skip: int) -> Iterator[Tensor]:
    """Yield rows for ever, every epoch in an order of its own, from the batch after the first ``skip`` on."""
    size = min(size, count // 2)
    each = count // size
    for epoch in itertools.count(skip // each):
        generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + epoch)
        order = torch.randperm(count, generator=generator)
        for place in range(skip % each if epoch == skip // each else 0, each):
            yield order[place * size : (place + 1) * size]


@torch.no_grad()
def _look(path: _Path, step: int, model: nn.Module, halves: list[tuple[Tensor, Tensor]], most: int) -> None:
    right = []
    for x, y in halves:
        logits = torch.cat([model(rows) for rows in torch.split(x[:most], 1024)])
        right.append(float((logits.argmax(1) == y[:most]).float().mean()))
        loss = float(functional.cross_entropy(logits, y[:most]))
    path.steps.append(step)
    path.train.append(right[0])
    path.test.append(right[1])
    path.loss.append(loss)  # of the other half, which comes last
    path.norm.append(float(torch.stack([w.norm() for w in model.parameters()]).norm()))


class _Transformer(nn.Module):
    """Two layers with the norms before them; answers at the last token."""

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.symbol, self.place = nn.Embedding(symbols, width), nn.Embedding(4, width)
        nn.init.normal_(self.symbol.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)
        self.blocks = nn.Sequential(_Block(width), _Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, symbols, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits of the answer."""
        x = self.blocks(self.symbol(tokens) + self.place.weight)
        logits: Tensor = self.head(self.norm(x[:, -1]))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inward, self.outward = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, 32)).transpose(1, 2) for part in self.inward(self.before(x)).chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.outward(mixed.transpose(1, 2).flatten(2))
        found: Tensor = x + self.think(self.between(x))
        return found
