"""Scheduling: a Kernel and a Machine come in, the cheapest loop Nest that rules/loops.egg can find goes
out.
"""

from egc.schedule.choose import Cost
from egc.schedule.scheduler import Scheduled, predict, prepare, schedule

__all__ = ["Cost", "Scheduled", "predict", "prepare", "schedule"]
