"""The catalogue of what can be wrong with a run. Each rule is data and a few lines that look; a file per question."""

from typing import Final

from slalom.observe.rules import Rule
from slalom.observe.verdicts import layers, lengths, states, wiring

CATALOGUE: Final[tuple[Rule, ...]] = (*wiring.RULES, *lengths.RULES, *layers.RULES, *states.RULES)

__all__ = ["CATALOGUE"]
