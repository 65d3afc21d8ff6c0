"""`watch`: looks at any optimizer's steps through its hooks, and changes nothing."""

from __future__ import annotations

import math
import os
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from slalom.engine.shards import any_sharded
from slalom.observe.budget import Budget
from slalom.observe.measures import AFTER, BEFORE, Earlier, after, before, dense, derived, mean_square, part
from slalom.observe.ranks import summed
from slalom.observe.reading import (
    described,
    evaluated,
    fetched,
    held,
    length,
    mean,
    settings,
    unwrapped,
    whole_norm,
)
from slalom.observe.record import QUANTITIES, Growing, Log, Parameter, Run, Sample, header, line
from slalom.observe.report import Report
from slalom.roles import unwrap

EVERY: Final = 50  # steps from one sample to the next, unless that takes too long


class Watch:
    """Watches a training run; made by `watch`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: int | None,
        share: float,
        log: str | os.PathLike[str] | None,
        probe: Callable[[], Any] | None,
        done: int,
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every={every}: a sample is taken every so many steps, 1 or more.")
        if not 0 < share <= 1:
            raise ValueError(f"share={share}: of the time that watching may take, above 0 and at most 1.")
        if done < 0:
            raise ValueError(f"done={done}: steps before this run, 0 or more.")
        optimizer = unwrapped(optimizer)
        # Neither is kept alive, nor is anything of them but for the one step before a sample.
        self._model = weakref.ref(unwrap(model))
        self._every, self._first, self._step = EVERY if every is None else every, done, done
        self._budget = Budget(share) if every is None else None
        self._measures, self._owed = (done + 1) % self._every == 0, False
        self._probe = probe
        self._grown = Growing(type(optimizer).__name__, settings(optimizer))
        self._parameters: tuple[Parameter, ...] = ()
        self._logged, self._headed = done, False
        self._rates: tuple[float, ...] = ()
        self._log = None if log is None else Log(log)
        self._losses: list[Tensor | float] = []
        self._norms: list[Tensor] = []
        self._earlier: dict[Tensor, Earlier] = {}
        self._around: _Around | None = None
        self._after_closure = False
        self._began, self._spent = 0.0, 0.0
        self._handles = [
            optimizer.register_step_pre_hook(self._look_before),
            optimizer.register_step_post_hook(self._look_after),
        ]

    # --- the face --------------------------------------------------------------------------------------------------

    def loss(self, value: Tensor | float) -> None:
        """Take note of the loss of a step; where `step` is given a closure that returns it, this is not needed.

        A tensor is not read from its device before the next sample.
        """
        self._losses.append(value.detach() if isinstance(value, Tensor) else float(value))

    def run(self) -> Run:
        """Return what was measured so far."""
        return self._grown.run()

    def report(self) -> Report:
        """Return what is wrong with the run so far, if anything is, with what shows it and what to do."""
        return Report(self.run())

    def close(self) -> None:
        """Stop watching. What was seen stays; again does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._earlier, self._around = {}, None
        if self._losses and self._step > self._logged:  # a run that ends in nan ends between two samples
            self._keep_the_rest()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- around a step ---------------------------------------------------------------------------------------------

    def _keeps(self, optimizer: Any, now: float) -> bool:
        """Whether the next step is measured, so that this one is kept: the second, and then every so many.

        Where that would take more than its share of the time, it is owed, and measured as soon as it may be.
        """
        step = self._step + 1
        self._owed = self._owed or step == self._first + 2 or step % self._every == 0
        if not self._owed:
            return False
        if self._budget is not None:
            if not self._budget.allows_sample(now):
                if not any_sharded([parameter for _, parameter in held(optimizer)]):
                    return False
                self._budget = None  # ranks add up their parts: all must measure the same steps, however slow one is
            else:
                self._budget.begin_sample()
        self._owed = False
        return True

    def _look_before(self, optimizer: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        began = time.perf_counter()
        if not self._step > self._first:
            self._began = began
            if self._budget is not None:
                self._budget.begin(began)
        self._step += 1
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        measures, self._measures = self._measures, self._keeps(optimizer, began)
        keeps = self._measures
        self._around = _Around(measures, keeps) if measures or keeps else None
        self._after_closure = closure is not None
        with torch.no_grad():
            if self._around is not None:
                self._around.starts = {p: part(p).clone() for _, p in held(optimizer)}
                if measures and self._probe is not None:
                    self._around.probed.append(evaluated(self._probe))
            if closure is None:
                self._see_gradients(optimizer)
        self._spend(began, self._around is not None)
        if closure is None:
            return None
        listening = self._listening(closure)
        return ((args[0], listening, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": listening})

    def _listening(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return the closure that tells us the loss of its first evaluation."""
        heard = False

        def listening() -> Any:
            nonlocal heard
            loss = closure()
            if not heard and loss is not None:
                heard = True
                self.loss(loss)
            return loss

        return listening

    def _see_gradients(self, optimizer: Any) -> None:
        """Measure the gradients as the step finds them."""
        around, scale = self._around, getattr(optimizer, "grad_scale", None)
        began = time.perf_counter()
        if self._budget is None or self._budget.allows_norm(began):
            norm = whole_norm(optimizer)
            if norm is not None:
                self._norms.append(norm if scale is None else norm / scale.to(norm.device))
            if self._budget is not None:
                self._budget.take_norm(time.perf_counter() - began)
        if around is None:
            return
        for _, parameter in held(optimizer):
            gradient = dense(parameter.grad)
            if gradient is None:
                continue
            if around.measures:
                weight = around.starts[parameter]
                around.before[parameter] = before(weight, gradient, self._earlier.get(parameter), scale)
            if around.keeps:
                # a copy: some optimizers write into gradients, and the next backward does
                around.gradients[parameter] = gradient.clone() if scale is None else gradient / scale

    def _look_after(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        around = self._around
        if around is None and not self._after_closure:
            return
        began = time.perf_counter()
        with torch.no_grad():
            if self._after_closure:
                self._see_gradients(optimizer)
            if around is not None:
                if around.measures:
                    self._sample(optimizer, around, began)
                self._earlier = {p: Earlier(g, part(p) - around.starts[p]) for p, g in around.gradients.items()}
                self._around = None
        self._spend(began, around is not None)

    def _spend(self, began: float, samples: bool) -> None:
        """Account for the time since a hook began, in which something was done for a sample or nothing."""
        took = time.perf_counter() - began
        self._spent += took
        if self._budget is not None:
            self._budget.take(took, samples=samples)

    # --- a sample --------------------------------------------------------------------------------------------------

    def _sample(self, optimizer: Any, around: _Around, began: float) -> None:
        """Read everything from the devices at once, keep it and write it down."""
        if self._probe is not None:
            around.probed.append(evaluated(self._probe))
        theirs = list(held(optimizer))
        sums = {
            parameter: torch.cat(
                [around.before[parameter], self._outcome(group, optimizer.state, parameter, around.starts[parameter])]
            )
            for group, parameter in theirs
            if parameter in around.before
        }
        measured = list(sums)
        sparse = {p: length(p.grad) for _, p in theirs if p.grad is not None and p.grad.is_sparse}
        read = fetched(
            table=summed(list(sums.values()), measured),
            sparse=list(sparse.values()),
            norms=self._norms,
            losses=self._losses,
            probed=around.probed,
        )
        table = read["table"].reshape(len(sums), len(BEFORE) + len(AFTER)).tolist()
        found = {p: dict(zip((*BEFORE, *AFTER), row, strict=True)) for p, row in zip(measured, table, strict=True)}
        found |= {p: {"gg": norm * norm} for p, norm in zip(sparse, read["sparse"].tolist(), strict=True)}
        probed, now = read["probed"].tolist(), time.perf_counter()
        loss, bad = mean(read["losses"])
        sample = Sample(
            step=self._step,
            seconds=now - self._began,
            overhead=(self._spent + now - began) / max(now - self._began, 1e-9),
            loss=loss,
            bad_losses=bad,
            norms=tuple(read["norms"].tolist()),
            rates=tuple(float(group.get("lr", math.nan)) for group in optimizer.param_groups),
            probe=(probed[0], probed[1]) if probed else None,
            slope=sum(row.get("uh", 0.0) for row in found.values()),
            parameters=(),
            numbers=torch.zeros(0),
        )
        self._keep(sample, described(self._model(), [parameter for _, parameter in theirs]), found)

    def _keep_the_rest(self) -> None:
        """Keep losses and norms since the last sample as one that measures nothing else."""
        read = fetched(norms=self._norms, losses=self._losses)
        loss, bad = mean(read["losses"])
        seconds = time.perf_counter() - self._began
        nothing = torch.full((len(self._parameters), len(QUANTITIES)), math.nan, dtype=torch.float64)
        norms, overhead = tuple(read["norms"].tolist()), self._spent / max(seconds, 1e-9)
        rest = (None, math.nan, self._parameters, nothing)
        self._write(Sample(self._step, seconds, overhead, loss, bad, norms, self._rates, *rest))

    def _outcome(
        self, group: Mapping[str, Any], state: Mapping[Tensor, Any], parameter: Tensor, start: Tensor
    ) -> Tensor:
        """Return the sums of what the step did to a parameter."""
        gradient = dense(parameter.grad)
        if gradient is None:  # an optimizer that clears gradients itself
            gradient = torch.zeros_like(start)
        squares = mean_square(group, state.get(parameter, {}), start)
        return after(part(parameter), gradient, start, self._earlier.get(parameter), squares)

    def _keep(
        self, sample: Sample, known: list[tuple[Tensor, Parameter]], found: Mapping[Tensor, Mapping[str, float]]
    ) -> None:
        """Add a sample to the run and to the log."""
        rows = [derived(found.get(one, {}), facts.elements, facts.rows) for one, facts in known]
        numbers = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(QUANTITIES))
        self._rates = sample.rates
        self._write(replace(sample, parameters=tuple(one for _, one in known), numbers=numbers))

    def _write(self, sample: Sample) -> None:
        self._grown.add(sample)
        self._losses.clear()
        self._norms.clear()
        if self._log is not None:
            try:
                if sample.parameters != self._parameters or not self._headed:
                    self._log.write(header(self._grown, sample.parameters, self._logged))
                    self._headed = True
                self._log.write(line(sample))
            except OSError as error:  # a full disk must not end the training
                warnings.warn(
                    f'the log "{self._log.path}" ends at step {self._logged}: {error.strerror}.', stacklevel=2
                )
                self._log.close()
                self._log = None
        self._logged = sample.step
        self._parameters = sample.parameters


@dataclass
class _Around:
    """What is known between the two hooks of a step that is measured, or kept for the next one."""

    measures: bool
    keeps: bool
    starts: dict[Tensor, Tensor] = field(default_factory=dict)
    gradients: dict[Tensor, Tensor] = field(default_factory=dict)
    before: dict[Tensor, Tensor] = field(default_factory=dict)
    probed: list[Tensor] = field(default_factory=list)


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    every: int | None = None,
    share: float = 0.02,
    log: str | os.PathLike[str] | None = None,
    probe: Callable[[], Any] | None = None,
    done: int = 0,
) -> Watch:
    """Watch a training run from now on: any model, any optimizer; nothing of the training changes.

        with slalom.observe.watch(model, optimizer, log="run.jsonl") as watch:
            for x, y in loader:
                ...                            as ever: backward, optimizer.step()
                watch.loss(loss)               not needed where step is given a closure
        print(watch.report())                  what is wrong, what shows it, what to do; or `slalom observe run.jsonl`

    At every step the norm of the gradient is taken, unless time is short, and stays on its device. At a sampled step
    and the one before it, weights, gradients and updates are compared; until then copies of weights, gradients and
    updates are held, at most four times the memory of the parameters. The host reads all that was measured once per
    sample.

    Sharded parameters (DTensor) are measured whole, so every rank must watch; give one of them the log.

    Args:
        model: names the parameters and says what they are for. Not kept alive.
        optimizer: any; wrappers such as accelerate's are looked through. Not kept alive.
        every: a sample is taken at every so many steps, and at the second, whatever it takes. By default at every 50,
            and less often where watching would take more than ``share`` of the time.
        share: of the time that watching may take by default, beyond a second and the first 20 samples: samples and the
            norms of single steps have half of it each, and are taken more rarely where that is not enough. With sharded
            parameters all ranks must measure the same steps, so samples are then taken at every 50 all the same.
        log: a file to which each sample is appended at once; `slalom.observe.read_log` reads it.
        probe: computes the loss on the batch that the step is about, as ``lambda: loss_of(batch)``. It is evaluated
            before and after each sampled step, without gradients; random state and running statistics stay as they are.
        done: steps that were taken before, where a run is resumed; the log then goes on.

    Raises:
        UsageError: if the log cannot be written.
        ValueError: if ``every``, ``share`` or ``done`` is out of range.
    """
    return Watch(model, optimizer, every=every, share=share, log=log, probe=probe, done=done)


__all__ = ["Watch", "watch"]
