"""What an optimizer knows of a group from its last step, so that a step in which nothing changed asks for nothing."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor

from slalom.engine import Crew, Numbers


@dataclass
class Known:
    """What is known of a group from the last step."""

    settings: list[Any]
    structure: Any
    numbers: Numbers
    crew: Crew | None

    def __post_init__(self) -> None:
        entries = chain.from_iterable(v if isinstance(v, (tuple, list)) else (v,) for v in self.settings)
        # a tensor, or what is in a list, may change in place
        self._fixed = not any(isinstance(v, list) for v in self.settings) and not any(
            isinstance(entry, Tensor) for entry in entries
        )

    def sees_the_same(self, settings: list[Any]) -> bool:
        """Whether settings are those of the last step, for sure."""
        old = self.settings
        if not self._fixed or len(old) != len(settings):
            return False
        return all(map(operator.is_, old, settings)) or not _may_differ(old, settings)


def _may_differ(old: list[Any], new: list[Any]) -> bool:
    """Whether settings changed; tensors among them may have changed in place, so those count as changed."""
    entries = chain.from_iterable(value if isinstance(value, (tuple, list)) else (value,) for value in new)
    return any(isinstance(entry, Tensor) for entry in entries) or old != new
