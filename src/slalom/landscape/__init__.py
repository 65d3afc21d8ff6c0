"""Loss surfaces and their curvature: lines, planes, trails of training; sharpness. Knows models, never a method."""

from slalom.landscape.points import snapshot
from slalom.landscape.sharpness import Sharpness, sharpness
from slalom.landscape.surface import Line, Plane, Trail, line, plane

__all__ = ["Line", "Plane", "Sharpness", "Trail", "line", "plane", "sharpness", "snapshot"]
