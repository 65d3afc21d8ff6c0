"""Which parameter is what: roles in a network, the groups that they make, and blocks that are matrices of their own."""

from slalom.roles.assign import ROLES, Assigned, Role, assign_roles, guess_role, unwrap
from slalom.roles.groups import label, param_groups
from slalom.roles.routing import blocks_of, groups_as_given, groups_by_role, with_blocks

__all__ = [
    "ROLES",
    "Assigned",
    "Role",
    "assign_roles",
    "blocks_of",
    "groups_as_given",
    "groups_by_role",
    "guess_role",
    "label",
    "param_groups",
    "unwrap",
    "with_blocks",
]
