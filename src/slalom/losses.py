"""What is done to the losses of a batch, or of several tasks, before backward: robust means and weights.

`soft_median`, `trimmed_mean` and `median_of_means` replace ``losses.mean()``. `GradTail` and `GradNorm` give weights:
``(w * losses).mean()`` over samples, ``(w * losses).sum()`` over tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def soft_median(losses: Tensor, width: float = 0.05) -> Tensor:
    """A mean of the losses in the middle of the batch: smooth where the median jumps.

        loss = sum_i w_i x_(i),   w = softmax_i(-|i - (n - 1)/2| / (width n))

    with the losses x_(0) <= ... <= x_(n-1) in order. The weights depend on ranks alone and sum to 1, so the result lies
    within the data and follows shift and scale. An outlier counts with the weight of the last rank, about
    exp(-1/(2 width)) / (2 width n): 0.0005/n at 0.05, 0.03/n at 0.1; only `trimmed_mean` bounds what it can do.
    ``width`` to 0 is the median (of an even number, the mean of the middle two), to infinity the mean.

    This is the sound form of `published_soft_median`, whose docstring says what differs. It is a heuristic: samples
    that are hard count as little as samples that are wrong.

    Args:
        losses: one per sample, of any shape.
        width: the temperature as a share of the batch; at 0.05 the middle fifth has most of the weight.

    Raises:
        ValueError: if there are no losses, or ``width`` is not positive.
    """
    values = _flat(losses)
    if not width > 0:
        raise ValueError(f"{width=}: width must be above 0.")
    n = values.numel()
    distance = (torch.arange(n, dtype=values.dtype, device=values.device) - (n - 1) / 2).abs()
    return (torch.softmax(-distance / (width * n), 0) * values.sort().values).sum()


def published_soft_median(losses: Tensor) -> Tensor:
    """The soft median as a survey of optimizer tricks published it; for comparison, not for use.

        loss = sum_i w_i x_(i),   w = softmax_i(-|i - (n - 1)/2| / T),   T = max(0.1, 0.5 std(x))

    with, if n is even, a 0 among the x. Its defects, each of which `soft_median` lacks:

    - the added 0 pulls losses towards 0: of 4 and 6 it makes 3.67, outside the data;
    - T is in units of loss but divides a distance of ranks, so that the result depends on the losses' scale, and an
      outlier, which inflates the deviation, flattens the weights: of 1, 2, 3, 4, 100 it makes 21.3, where the mean is
      22 and the median 3;
    - gradients flow through T.

    Source: cpuimage, "optimizer cleverness at a glance" (2025, a survey in Chinese); no paper.

    Args:
        losses: one per sample, of any shape.

    Raises:
        ValueError: if there are no losses.
    """
    values = _flat(losses)
    spread = values.std() if values.numel() > 1 else values.new_zeros(())
    if values.numel() % 2 == 0:
        values = torch.cat([values, values.new_zeros(1)])
    n = values.numel()
    temperature = (0.5 * spread).clamp(min=0.1)
    distance = (torch.arange(n, dtype=values.dtype, device=values.device) - (n - 1) / 2).abs()
    return (torch.softmax(-distance / temperature, 0) * values.sort().values).sum()


def trimmed_mean(losses: Tensor, trim: float = 0.1) -> Tensor:
    """The mean without the smallest and the largest ``trim`` of the losses.

        loss = mean of x_(k), ..., x_(n-1-k),   k = floor(trim n)

    The classic robust estimate of location (Tukey 1962): an outlier that is cut off has no influence at all, and up to
    k of them on each side cannot move it beyond the rest.

    Args:
        losses: one per sample, of any shape.
        trim: share that is cut off at each end, in [0, 0.5).

    Raises:
        ValueError: if there are no losses, or ``trim`` is out of range.
    """
    values = _flat(losses)
    if not 0 <= trim < 0.5:
        raise ValueError(f"{trim=}: trim must be in [0, 0.5).")
    cut = int(trim * values.numel())
    return values.sort().values[cut : values.numel() - cut].mean()


def median_of_means(losses: Tensor, blocks: int = 5) -> Tensor:
    """The median of the means of blocks: as exact as the mean where tails are light, bounded where they are not.

        loss = median over blocks of the mean of a block

    Fewer than half of the blocks being spoilt, however badly, leaves the result within the others'. With heavy tails of
    finite variance its error falls as if they were light (Nemirovski & Yudin 1983; Lugosi & Mendelson 2019,
    arXiv:1906.04280). Blocks are what comes in sequence, so samples should be in no order. The gradient is that of the
    block in the middle, or of the middle two.

    Args:
        losses: one per sample, of any shape.
        blocks: how many, of sizes that differ by one at most; 1 is the mean, one per sample the median.

    Raises:
        ValueError: if there are no losses, or not 1 block or more, each with a sample.
    """
    values = _flat(losses)
    if not 1 <= blocks <= values.numel():
        raise ValueError(f"{blocks=}: there are {values.numel()} losses, so blocks must be from 1 to {values.numel()}.")
    means = torch.stack([block.mean() for block in values.tensor_split(blocks)]).sort().values
    return means[(blocks - 1) // 2 : blocks // 2 + 1].mean()


class GradTail(nn.Module):
    """Weights for samples whose gradients the running mean gradient does not represent. An approximation.

        c_i = <g_i, G> / (|g_i| |G|)                      agreement of sample i with what was learned lately
        w_i = 1 + strength max(0, 1 - |c_i| / reach)      then scaled to a mean of 1
        G <- decay G + (1 - decay) mean_i g_i

    Samples whose gradient is about orthogonal to G are of the long tail: something else is to be learned from them.
    They weigh more. Samples that agree are of the bulk, samples that contradict (c far below 0) are taken for noise or
    wrong labels; both keep their weight. In the first step there is no G yet, and all weights are 1.

    Source: Chen, Casser, Kretzschmar and Anguelov 2022, arXiv:2201.05938: the agreement by normalised dot products with
    a running mean, more weight where it is low, in classification and regression. The paper's weight function could not
    be confirmed, so the triangle around 0 is ours, with a width that is stated rather than estimated.

    Args:
        strength: a sample at right angles weighs ``1 + strength``, before scaling.
        reach: agreement, by magnitude, from which on nothing is added; in (0, 1].
        decay: of the running mean gradient, in [0, 1).

    Raises:
        ValueError: for an argument out of range.
    """

    mean: Tensor

    def __init__(self, strength: float = 2.0, reach: float = 0.5, decay: float = 0.9) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"{strength=}: strength must be 0 or more.")
        if not 0 < reach <= 1:
            raise ValueError(f"{reach=}: reach must be in (0, 1].")
        if not 0 <= decay < 1:
            raise ValueError(f"{decay=}: decay must be in [0, 1).")
        self.strength, self.reach, self.decay = strength, reach, decay
        self.register_buffer("mean", torch.zeros(0))

    @torch.no_grad()
    def forward(self, gradients: Tensor) -> Tensor:
        """Return one weight per sample, with mean 1.

        Args:
            gradients: per sample, the first dimension counts samples; of one layer is enough, see `last_layer`, or
                ``torch.func.vmap(torch.func.grad(...))`` of any.

        Raises:
            ValueError: if there is no sample, or the gradients have another size than before.
        """
        g = gradients.flatten(1)
        if not len(g):
            raise ValueError("there are no samples to weigh.")
        if self.mean.numel() and len(self.mean) != g.shape[1]:
            raise ValueError(f"gradients of {g.shape[1]} values, {len(self.mean)} before: give those of one layer.")
        weights = torch.ones_like(g[:, 0])
        if self.mean.numel():
            lengths = g.norm(dim=1) * self.mean.norm()
            agreement = torch.where(lengths > 0, g @ self.mean / lengths, 1.0)  # nothing to learn from, nothing to add
            weights = 1 + self.strength * (1 - agreement.abs() / self.reach).clamp(min=0)
            weights = weights / weights.mean()
            self.mean = torch.lerp(g.mean(0), self.mean, self.decay)
        else:
            self.mean = g.mean(0)
        return weights

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        self.mean = torch.zeros_like(state_dict.get(f"{prefix}mean", self.mean))  # takes the size that was saved
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @staticmethod
    def last_layer(logits: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """Return the gradients of cross entropy in the last linear layer, in closed form: (p - y) h^T per sample.

        Args:
            logits: samples by classes.
            targets: the classes' numbers.
            features: samples by features, what the layer was given.
        """
        error = torch.softmax(logits.detach(), 1) - nn.functional.one_hot(targets, logits.shape[1])
        return torch.einsum("nc,nf->ncf", error, features.detach())


class GradNorm(nn.Module):
    """Weights for tasks that share layers, so that all of them learn at similar rates. An approximation in its details.

        G_i = |grad_W (w_i L_i)|                          of the shared weights W
        r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0))       how far task i is behind
        w <- Adam on  sum_i |G_i - constant(mean_j G_j r_i^alpha)|,  then scaled to sum_i w_i = tasks

    It balances tasks; it is not the normalisation of a gradient, with which surveys confuse it: scaling each tensor's
    gradient to length 1 leaves a task that is a thousand times louder a thousand times louder.

    Source: Chen, Badrinarayanan, Lee and Rabinovich 2018, arXiv:1711.02257. Public implementations agree on the above;
    that the weights stay above 0, here by a floor, is not in it.

    Args:
        tasks: how many.
        alpha: how strongly tasks that are behind are favoured; 0 makes norms equal.
        lr: of the weights' Adam.
        floor: the smallest weight, in [0, 1).

    Raises:
        ValueError: for an argument out of range.
    """

    weights: Tensor
    first: Tensor
    m: Tensor
    v: Tensor
    t: Tensor

    def __init__(self, tasks: int, alpha: float = 1.5, lr: float = 0.025, floor: float = 1e-3) -> None:
        super().__init__()
        if tasks < 2:
            raise ValueError(f"{tasks=}: there must be 2 or more to balance.")
        if alpha < 0 or not lr > 0 or not 0 <= floor < 1:
            raise ValueError(f"{alpha=}, {lr=}, {floor=}: alpha must be 0 or more, lr above 0, floor in [0, 1).")
        self.alpha, self.lr, self.floor = alpha, lr, floor
        self.register_buffer("weights", torch.ones(tasks))
        self.register_buffer("first", torch.zeros(tasks))
        for name in ("m", "v"):
            self.register_buffer(name, torch.zeros(tasks))
        self.register_buffer("t", torch.zeros(()))

    def forward(self, losses: Tensor | Sequence[Tensor], shared: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the weights for this step's ``(w * losses).sum()``, detached, after they have moved.

        Args:
            losses: one per task, with their graphs; those are kept, for the backward that follows.
            shared: the weights that all tasks use; the last shared layer is enough.

        Raises:
            ValueError: if the number of losses is not that of the tasks.
        """
        stacked = losses if isinstance(losses, Tensor) else torch.stack(list(losses))
        tasks = len(self.weights)
        if stacked.shape != (tasks,):
            raise ValueError(
                f"losses of shape {tuple(stacked.shape)}: there are {tasks} tasks, give one loss for each."
            )
        over = [shared] if isinstance(shared, Tensor) else list(shared)
        # w_i is a number, so |grad(w_i L_i)| = w_i |grad L_i|: no second derivative is needed to move it.
        norms = torch.stack([_norm(torch.autograd.grad(loss, over, retain_graph=True)) for loss in stacked])
        with torch.no_grad():
            if not self.t:
                self.first.copy_(stacked)
            norms, now = norms.to(self.weights), stacked.detach().to(self.weights)
            ratio = now / self.first
            behind = (ratio / ratio.mean()).clamp(min=0) ** self.alpha
            target = (self.weights * norms).mean() * behind
            self._move(torch.sign(self.weights * norms - target) * norms)
        return self.weights.clone()

    def _move(self, gradient: Tensor) -> None:
        """Take a step of Adam; its state is buffers, which save and move with the module."""
        self.t += 1
        self.m.lerp_(gradient, 0.1)
        self.v.lerp_(gradient**2, 0.001)
        step = (self.m / (1 - 0.9**self.t)) / ((self.v / (1 - 0.999**self.t)).sqrt() + 1e-8)
        moved = (self.weights - self.lr * step).clamp(min=self.floor)
        self.weights.copy_(moved * len(moved) / moved.sum())


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    joined: Tensor = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    return joined


def _flat(losses: Tensor) -> Tensor:
    if not losses.numel():
        raise ValueError("there are no losses: give one per sample, not their mean.")
    return losses.flatten()
