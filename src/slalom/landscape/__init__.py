"""Loss surfaces and their curvature: lines, planes, trails; sharpness, spectra. Knows models, never a method."""

from slalom.landscape.density import Density, density
from slalom.landscape.points import snapshot
from slalom.landscape.sharpness import Sharpness, sharpness
from slalom.landscape.surface import Line, Plane, Trail, line, plane

__all__ = ["Density", "Line", "Plane", "Sharpness", "Trail", "density", "line", "plane", "sharpness", "snapshot"]
