"""Recipes in words: the formula slot by slot, the state, the traffic. One description, printed by all who need it."""

from slalom.describe.catalogue import by_family, methods_page
from slalom.describe.formulas import Line
from slalom.describe.pages import (
    as_json,
    describe_method,
    describe_optimizer,
    describe_recipe,
    describe_roles,
    describe_sheet,
)
from slalom.describe.sheets import Sheet, bytes_per_parameter, sheet, sheets, sources, symbolic

__all__ = [
    "Line",
    "Sheet",
    "as_json",
    "by_family",
    "bytes_per_parameter",
    "describe_method",
    "describe_optimizer",
    "describe_recipe",
    "describe_roles",
    "describe_sheet",
    "methods_page",
    "sheet",
    "sheets",
    "sources",
    "symbolic",
]
