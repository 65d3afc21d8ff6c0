"""What a part remembers: its states as a formula reads and writes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from slalom.algebra import THIN, State, Store, Value, where
from slalom.errors import unknown

if TYPE_CHECKING:
    from slalom.parts.base import Part


class Memory:
    """A part's own view of its state: ``s.m`` reads, ``s.m = ...`` writes what the next step finds.

    Keys are ``"<part name>.<slot>"``. They depend on declared names only: putting a guard around a part, or
    running it elsewhere, never renames what it remembers.
    """

    __slots__ = ("_condition", "_part", "_prefix", "_store")
    _store: Store
    _part: Part
    _prefix: str
    _condition: Value | None

    def __init__(self, store: Store, part: Part, prefix: str = "", condition: Value | None = None) -> None:
        for name, value in (
            ("_store", store),
            ("_part", part),
            ("_prefix", prefix),
            ("_condition", condition),
        ):
            object.__setattr__(self, name, value)

    def of(self, part: Part) -> Memory:
        """Return the view of a part that this one wraps."""
        return Memory(self._store, part, self._prefix, self._condition)

    def inside(self, name: str) -> Memory:
        """Return a view whose keys start with ``name.``: for combinators that hold two recipes with equal parts."""
        return Memory(self._store, self._part, f"{self._prefix}{name}.", self._condition)

    def afresh_if(self, condition: Value) -> Memory:
        """Return a view that, where ``condition`` holds, finds everything as before the first step."""
        return Memory(_Afresh(self._store, condition), self._part, self._prefix, self._condition)

    def noting(self) -> tuple[Memory, Notes]:
        """Return a view that notes which states that live where gradients live are written through it."""
        notes = Notes(self._store)
        return Memory(notes, self._part, self._prefix, self._condition), notes

    def only_if(self, condition: Value) -> Memory:
        """Return a view that writes only where ``condition`` holds."""
        return Memory(self._store, self._part, self._prefix, condition)

    def thin(self, rank: int) -> Memory:
        """Return a view for what runs in a subspace of the shorter side: all that it keeps is as thin as that."""
        return Memory(_Thin(self._store, rank), self._part, self._prefix, self._condition)

    def _slot(self, name: str) -> tuple[str, State]:
        slots = self._part.slots()
        if name not in slots:
            raise AttributeError(str(unknown("state", name, slots, owner=type(self._part).__name__)))
        slot = slots[name]
        if slot.per in THIN:
            slot = dataclasses.replace(slot, rank=self._part.rank)  # type: ignore[attr-defined]
        return f"{self._prefix}{self._part.part_name()}.{name}", slot

    def __getattr__(self, name: str) -> Value:
        key, slot = self._slot(name)
        return self._store.read(key, slot)

    def __setattr__(self, name: str, value: Value) -> None:
        key, slot = self._slot(name)
        if self._condition is not None:
            value = where(self._condition, value, self._store.read(key, slot))
        self._store.write(key, slot, value)


class Notes:
    """A store that notes what is written to it of gradients as such: states that turn when gradients are turned."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.turning: dict[str, State] = {}

    def read(self, key: str, slot: State) -> Value:
        """Return the value as it is now."""
        return self.store.read(key, slot)

    def write(self, key: str, slot: State, value: Value) -> None:
        """Set the value that the next step will find."""
        if slot.turns:
            self.turning[key] = slot
        self.store.write(key, slot, value)

    def change(self, follow: Callable[[Value], Value]) -> None:
        """Replace every noted state by what it becomes in new coordinates."""
        for key, slot in self.turning.items():
            self.store.write(key, slot, follow(self.store.read(key, slot)))


class _Afresh:
    """A store whose first reads yield initial values where a condition holds; what a step wrote it reads as written."""

    def __init__(self, store: Store, condition: Value) -> None:
        self.store, self.condition = store, condition
        self.written: set[str] = set()

    def read(self, key: str, slot: State) -> Value:
        """Return the value as it is now, or as it was before the first step."""
        now = self.store.read(key, slot)
        if key in self.written:
            return now
        if isinstance(slot.init, str):
            raise ValueError(  # noqa: TRY004
                f"{key} begins as more than a number ({slot.init}): it cannot be begun afresh."
            )
        return where(self.condition, slot.init, now)

    def write(self, key: str, slot: State, value: Value) -> None:
        """Set the value that the next step will find."""
        self.written.add(key)
        self.store.write(key, slot, value)


class _Thin:
    """A store for parts that see a tall matrix of few columns, as many as a subspace has directions."""

    def __init__(self, store: Store, rank: int) -> None:
        self.store, self.rank = store, rank

    def read(self, key: str, slot: State) -> Value:
        """Return the value as it is now."""
        return self.store.read(key, self._kept(key, slot))

    def write(self, key: str, slot: State, value: Value) -> None:
        """Set the value that the next step will find."""
        self.store.write(key, self._kept(key, slot), value)

    def _kept(self, key: str, slot: State) -> State:
        if slot.scope != "tensor" or slot.per == "tensor":
            return slot
        per = _IN_SUBSPACE.get(slot.per)
        if per is None or slot.view != "matrix" or slot.format != "float" or isinstance(slot.init, str):
            raise ValueError(
                f"{key} is kept per {slot.per} in a way that has no meaning in a subspace: "
                "give InSubspace a recipe with states per element, row or column."
            )
        return dataclasses.replace(slot, per=per, view="tall", rank=self.rank, torch=(), name=slot.name)


_IN_SUBSPACE: Final[Mapping[str, Any]] = {"element": "left_rank", "row": "row", "column": "rank"}
