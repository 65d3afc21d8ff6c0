"""A recipe: a choice of parts. Data that runs, prints, compares and survives being written down."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from slalom.algebra import Hyper, Store, Value, labelled
from slalom.errors import unknown
from slalom.parts import (
    Average,
    Fixed,
    Form,
    Geometry,
    Gradient,
    Graft,
    Greedy,
    Guard,
    Memory,
    Momentum,
    Part,
    Regularize,
    Scale,
    Signals,
    Step,
    Sum,
)

if TYPE_CHECKING:
    import torch

    from slalom.optimizer import Optimizer, Parameters
    from slalom.schedules import Schedule, Scheduler, Values

Slot: TypeAlias = Literal["gradient", "step", "momentum", "scale", "geometry", "guard", "regularize", "form", "average"]
Entry: TypeAlias = "str | Mapping[str, str]"
ORDER: Final[tuple[Slot, ...]] = (
    "gradient",
    "step",
    "momentum",
    "scale",
    "geometry",
    "guard",
    "regularize",
    "form",
    "average",
)
# Where the length of a step is found from the step itself, that comes once its direction and metric are known.
MEASURED: Final[tuple[Slot, ...]] = (
    "gradient",
    "momentum",
    "scale",
    "geometry",
    "step",
    "guard",
    "regularize",
    "form",
    "average",
)
_DIRECTING: Final = ("momentum", "scale", "geometry", "guard")


class Scheduled:
    """What a recipe and recipes by role have in common: a schedule that goes with them, as text.

    Which texts there are is the schedules' affair. Here they are data: by hyper-parameter, a text, or
    ``{"values": text}`` where it gives the values themselves.
    """

    schedule: Mapping[str, Entry]

    def _check_schedule(self, known: Iterable[str]) -> None:
        for name in self.schedule:
            if name not in known:
                raise unknown("hyper-parameter", name, known, owner="schedule")

    def schedules(self, steps: float | None = None) -> dict[str, Schedule | Values]:
        """Return the schedules by hyper-parameter, read from their texts; none where none were given.

        Args:
            steps: the length of the run, where a text speaks of percentages or leaves the last length out.

        Raises:
            UsageError: for a text that is not exactly understood.
        """
        from slalom.schedules.text import from_entries

        return from_entries(self.schedule, steps)

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: float | None = None) -> Scheduler:
        """Return a torch scheduler that moves what the recipe's schedule names; to be stepped after the optimizer.

        Args:
            optimizer: what `build` returned.
            steps: as for `schedules`.

        Raises:
            UsageError: if the recipe has no schedule, or a text is not understood.
        """
        from slalom.schedules import Scheduler

        return Scheduler(optimizer, self.schedules(steps))


@dataclass(frozen=True)
class Recipe(Scheduled):
    """A choice of parts, one or several or none per slot.

        Recipe(momentum=Ema(0.9), scale=SecondMoment(0.999), regularize=Decoupled(0.1), step=3e-4)

    Args:
        gradient, momentum, scale, geometry, guard, regularize, average: parts of that slot (see `slalom.parts`).
            Several parts in a tuple run one after the other.
        step: a part, or a number for a plain learning rate.
        form: greedy by default.
        order: in which order the slots run, if not in the natural one: that of the list above, step after gradient, or
            after geometry where the step measures what it sizes (`Step.measures`). LaProp has its scale before its
            momentum, LAMB its decay before its guard.
        schedule: how hyper-parameters move over a run, as text by the names of `hyperparameters`: ``{"lr": "warmup 5%,
            cosine"}``. `build` does not look at it, since it does not know how long the run is; `scheduler` does.

    Raises:
        ValueError: if a part stands in a slot that is not its own, the order names a slot that does not exist or
            leaves out one that is used, two parts would share their state, or a schedule moves nothing.
    """

    gradient: Gradient | tuple[Part, ...] | None = None
    momentum: Momentum | Part | tuple[Part, ...] | None = None
    scale: Scale | Part | tuple[Part, ...] | None = None
    geometry: Geometry | Part | tuple[Part, ...] | None = None
    guard: Guard | Part | tuple[Part, ...] | None = None
    regularize: Regularize | Part | tuple[Part, ...] | None = None
    step: Step | float = 1e-3
    form: Form = field(default_factory=Greedy)
    average: Average | None = None
    order: tuple[Slot, ...] = ()
    schedule: Mapping[str, Entry] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.step, Part):
            object.__setattr__(self, "step", Fixed(self.step))
        if not self.order:
            object.__setattr__(self, "order", self.natural_order())
        for slot in self.order:
            if slot not in ORDER:
                raise unknown("slot", slot, ORDER)
        for slot in ORDER:
            parts = self.parts(slot)
            for part in parts:
                if not isinstance(part, Part):
                    raise ValueError(f"{slot}={part!r}: a {slot} is a part, such as those in slalom.parts.")  # noqa: TRY004
                if part.question() != slot:
                    raise ValueError(
                        f"{slot}={type(part).__name__}(...): this part answers {part.question()}; "
                        f"write {part.question()}={type(part).__name__}(...)."
                    )
            if parts and slot not in self.order:
                raise ValueError(f"order={self.order!r} leaves out {slot}, which this recipe uses; add it.")
        names = [part.part_name() for part in _stateful(self)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f'two parts named "{name}" would share their state: '
                    f"subclass one with a name of its own, class Second(Part, name=...)."
                )
        if self.schedule:
            self._check_schedule(self.hyperparameters())

    def parts(self, slot: Slot) -> tuple[Part, ...]:
        """Return the parts in a slot, in the order in which they run."""
        chosen = getattr(self, slot)
        return () if chosen is None else chosen if isinstance(chosen, tuple) else (chosen,)

    def natural_order(self) -> tuple[Slot, ...]:
        """Return the order in which the slots run where none is stated."""
        return MEASURED if isinstance(self.step, Step) and self.step.measures() else ORDER

    def sequence(self) -> Iterator[tuple[Slot, Part]]:
        """Yield every part with its slot, in the order in which they run."""
        for slot in self.order:
            for part in self.parts(slot):
                yield slot, part

    def run(self, x: Signals, store: Store) -> Value:
        """Run the formula of one step and return the new parameter."""
        x = self.begin(x, store)
        for _, part in self.sequence():
            with labelled(part.part_name()):
                x = part.apply(x, Memory(store, part))
        return x.result

    def begin(self, x: Signals, store: Store) -> Signals:
        """Return the signals as the first part finds them: those of a step that can look back at scale and average."""
        scales = [part for part in self.parts("scale") if isinstance(part, Scale)]
        average = self.average
        y = x
        if len(scales) == 1:
            y = y.replace(earlier=lambda: scales[0].before(x, Memory(store, scales[0])))
        if average is not None:
            y = y.replace(ahead=lambda: average.ahead(x, Memory(store, average)))
        return y

    def direct(self, x: Signals, s: Memory) -> Signals:
        """Run only what turns a gradient into a direction and a metric, for use inside another recipe."""
        for slot, part in self.sequence():
            if slot in _DIRECTING:
                x = part.apply(x, s.of(part))
        return x

    def readout(self, x: Signals, store: Store) -> Value:
        """Return the point to evaluate: the averaged one, or the parameter itself."""
        return self.average.readout(x, Memory(store, self.average)) if self.average else x.w

    @property
    def lr(self) -> float:
        """The learning rate that the recipe states."""
        return float(self.hyperparameters()["lr"])

    def hyperparameters(self) -> dict[str, float]:
        """Return every number of every part under the name it has in a parameter group: "momentum.beta", "lr"."""
        found: dict[str, float] = {}
        alone = dataclasses.replace(self, schedule={})  # a schedule asks for these names when it is checked
        _map_numbers(alone, "", lambda name, value: found.setdefault(name, value))
        return found

    def with_hyperparameters(self, values: Mapping[str, Any]) -> Recipe:
        """Return the same recipe with other numbers, by the names of `hyperparameters`."""
        known = self.hyperparameters()
        for name in values:
            if name not in known:
                raise unknown("hyper-parameter", name, known)
        replaced: Recipe = _map_numbers(self, "", lambda name, value: values.get(name, value))
        return replaced

    def to_toml(self) -> str:
        """Write the recipe as TOML; `from_toml` reads it back, equal."""
        from slalom.recipes.files import to_toml

        return to_toml(self)

    @staticmethod
    def from_toml(text: str) -> Recipe | ByRole:
        """Read a recipe from TOML: parts by slot, or ``recipe = "adamw"`` with arguments.

        Raises:
            ValueError: if the text is not TOML, or names a part, slot or argument that does not exist.
        """
        from slalom.recipes.files import from_toml

        return from_toml(text)

    def build(self, model_or_params: Parameters, **hyperparameters: float) -> Optimizer:
        """Return an optimizer that runs this recipe. Keywords replace numbers: ``build(model, lr=1e-3)``."""
        from slalom.optimizer import Optimizer  # the one arrow that points up: recipes are where users start

        return Optimizer.of(self.with_hyperparameters(hyperparameters), model_or_params)


@dataclass(frozen=True)
class ByRole(Scheduled):
    """Different recipes for different parameters of one network, by the role that each plays.

    Args:
        rest: for every role that has no recipe of its own.
        matrix: weights of hidden linear layers.
        convolution: kernels.
        embedding: look-up tables.
        head: the last layer's weight.
        vector: biases, gains of norms.
        scalar: single numbers.
        schedule: as of a `Recipe`, for all roles that have a hyper-parameter of the name.

    Raises:
        ValueError: if a schedule moves nothing, or the recipe of a role has one of its own.
    """

    rest: Recipe
    matrix: Recipe | None = None
    convolution: Recipe | None = None
    embedding: Recipe | None = None
    head: Recipe | None = None
    vector: Recipe | None = None
    scalar: Recipe | None = None
    schedule: Mapping[str, Entry] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        recipes = self.recipes()
        for role, recipe in recipes.items():
            if recipe.schedule:
                raise ValueError(f"the recipe for {role} has a schedule of its own: give it to ByRole(schedule=...).")
        if self.schedule:
            self._check_schedule({name for recipe in recipes.values() for name in recipe.hyperparameters()})

    def of(self, role: str) -> Recipe:
        """Return the recipe of a role."""
        chosen: Recipe | None = getattr(self, role)
        return chosen or self.rest

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipes that are named, by role, ``rest`` last."""
        roles = (entry.name for entry in dataclasses.fields(self) if entry.name not in ("rest", "schedule"))
        named = {role: getattr(self, role) for role in roles}
        return {role: recipe for role, recipe in named.items() if recipe is not None} | {"rest": self.rest}

    @property
    def lr(self) -> float:
        """The learning rate of the first role that is named."""
        return next(iter(self.recipes().values())).lr

    def build(self, model_or_params: Parameters, *, lr: float | None = None) -> Optimizer:
        """Return an optimizer that runs these recipes; ``lr`` replaces the first rate and scales the others with it."""
        from slalom.optimizer import Optimizer

        factor = 1.0 if lr is None else lr / self.lr
        scaled: dict[str, Any] = {
            role: recipe.with_hyperparameters({"lr": recipe.lr * factor}) for role, recipe in self.recipes().items()
        }
        return Optimizer.of(ByRole(**scaled), model_or_params)


def _stateful(node: Any) -> Iterator[Part]:
    """Yield the parts whose state lives under their plain name: all but those that a combinator tells apart."""
    if isinstance(node, Part) and node.slots():
        yield node
    if isinstance(node, (Part, Recipe)) and not isinstance(node, (Graft, Sum)):
        for entry in _fields(node):
            value = getattr(node, entry.name)
            for child in value if isinstance(value, tuple) else (value,):
                yield from _stateful(child)


def _fields(node: Part | Recipe) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(node)  # type: ignore[arg-type]  # every part is one, by its base class


def _map_numbers(node: Any, path: str, change: Any) -> Any:
    """Rebuild a recipe, part by part, with every number replaced by ``change(name, number)``."""
    if isinstance(node, tuple):
        return tuple(_map_numbers(child, f"{path}{place}.", change) for place, child in enumerate(node))
    if not isinstance(node, (Part, Recipe)):
        return node
    changes: dict[str, Any] = {}
    ranges = node.ranges() if isinstance(node, Part) else {}
    for entry in _fields(node):
        value = getattr(node, entry.name)
        if isinstance(value, (Part, Recipe, tuple)) and entry.name != "order":
            changes[entry.name] = _map_numbers(value, f"{path}{entry.name}.", change)
        elif entry.name in ranges and isinstance(value, (int, float, Hyper)):
            changes[entry.name] = change(re.sub(r"(step\.)+lr$", "lr", f"{path}{entry.name}"), value)
    return dataclasses.replace(node, **changes)  # type: ignore[type-var]
