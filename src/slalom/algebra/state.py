"""State as data: what a part remembers between steps, declared once, from which everything else follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from slalom.algebra.expr import ELEMENT, SCALAR, Dims, Scope, in_blocks
from slalom.algebra.ops import Value

Extent: TypeAlias = Literal[
    "element", "row", "column", "left", "right", "left_rank", "right_rank", "rank", "tensor", "group", "model"
]

_DIMS: Final[dict[str, Dims]] = {
    "element": ELEMENT,
    "row": ("m", "1"),
    "column": ("1", "n"),
    "left": ("m", "m"),
    "right": ("n", "n"),
}
_OF_VIEW: Final = {"matrix": {}, "square": {"m": "p", "n": "q"}, "tall": {"m": "a", "n": "b"}}
THIN: Final = frozenset({"left_rank", "right_rank", "rank"})


@dataclass(frozen=True)
class State:
    """One remembered value of a part, declared as a class attribute: ``m = State()``.

    It is kept in float32 (float64 for float64 parameters), whatever the parameter's own dtype, unless it has a format.

    Args:
        per: one value per ``element``, ``row`` or ``column`` of the parameter in matrix view; a square factor on its
            ``left`` (rows x rows) or ``right`` (columns x columns); a thin one, ``left_rank`` (rows x rank) or
            ``right_rank`` (columns x rank), with the rank that the part has, or a number for each direction of that
            ``rank``; or one number per ``tensor``, ``group`` or ``model``.
        init: what it is before the first step: a number, ``"parameter"`` for a copy of the parameter, ``"normal"``
            for standard normal values, the same for equal shapes, ``"identity"`` for square factors, or ``"number"``
            for the parameter's place in its optimizer, by which random numbers tell parameters apart.
        format: how it is kept: ``"sign"`` is one bit per element, which reads as 1 where what was written is above 0
            and as -1 elsewhere; ``"double"`` is float64 whatever the parameter, for square factors. The formula does
            not change.
        view: whose elements, rows and columns are meant: of the parameter as a ``matrix``; of the same turned so that
            it is ``tall``, its longer side the rows (see `algebra.turned`); or of the most ``square`` matrix that
            holds its elements (see `algebra.fold`).
        block: of the matrix cut into blocks of at most that side (see `algebra.blocks`), one such value per block; 0
            for the whole.
        turns: it lives where gradients live, and whoever turns those turns it too: momentum does, squares do not.
        rank: set from the part that declares a thin factor, which must have a field of that name.
        torch: the keys under which ``torch.optim`` keeps the same quantity, for importing its checkpoints.
    """

    per: Extent = "element"
    init: float | Literal["parameter", "normal", "identity", "number"] = 0.0
    torch: tuple[str, ...] = ()
    rank: int = 0
    block: int = 0
    turns: bool = False
    format: Literal["float", "double", "sign"] = "float"
    view: Literal["matrix", "tall", "square"] = "matrix"
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.format == "sign" and (self.per != "element" or isinstance(self.init, str)):
            raise ValueError(
                f'State(per={self.per!r}, init={self.init!r}): the format "sign" is for a number per element.'
            )
        if self.format == "double" and self.per not in ("left", "right"):
            raise ValueError(f'State(per={self.per!r}): the format "double" is for square factors.')
        if self.block and (self.view != "matrix" or self.format == "sign" or self.per in THIN):
            raise ValueError(f"State(per={self.per!r}, block={self.block}): blocks are cut from the plain matrix view.")
        if self.view == "square" and self.per not in ("element", "row", "column"):
            raise ValueError(f"State(per={self.per!r}): a square view has elements, rows and columns only.")
        if self.view == "tall" and self.per not in ("row", *THIN):
            raise ValueError(f"State(per={self.per!r}): a tall view has rows and thin factors only.")

    def __set_name__(self, owner: type, name: str) -> None:
        object.__setattr__(self, "name", name)

    @property
    def dims(self) -> Dims:
        """Shape in its view."""
        if self.per in THIN:
            rows, columns = {"left_rank": "m", "right_rank": "n"}.get(self.per, "1"), f"r{self.rank}"
        else:
            rows, columns = _DIMS.get(self.per, SCALAR)
        names = _OF_VIEW[self.view]
        return in_blocks((names.get(rows, rows), names.get(columns, columns)), self.block)

    @property
    def scope(self) -> Scope:
        """How far one value reaches."""
        return self.per if self.per in ("group", "model") else "tensor"


class Store(Protocol):
    """Where formulas read and write state while they run: a tracer's record, or plain tensors."""

    def read(self, key: str, slot: State) -> Value:
        """Return the value as it is now, after any write of this step."""

    def write(self, key: str, slot: State, value: Value) -> None:
        """Set the value that the next step will find."""
