"""Race optimizers on real training runs. To race on a problem of your own, subclass `Workload`; see its docstring."""

from slalom.race.workload import Workload

__all__ = ["Workload"]
