"""What samples support: estimates, intervals, decisions, noise floors, shapes. Pure; seconds go in, seconds come out.

The process is the unit of replication throughout: iterations of one process share its memory layout and its moment
(Kalibera & Jones 2013, "Rigorous benchmarking in reasonable time", ISMM), so more iterations never stand in for more
processes. The rule that tells a worker when to stop is in `runner.protocol.stopping`, because it may not import numpy.
"""

from __future__ import annotations

from runner.stats.blocks import Fit, fit
from runner.stats.decision import Answer, Verdict, compare, floor_at, holm, ratio_interval, winners_interval
from runner.stats.estimates import Estimate, Processes, by_round, estimate, needs, quantile, samples_needed
from runner.stats.intervals import Interval, Statistic, interval
from runner.stats.modes import Mode, modes
from runner.stats.noise import NoiseFloor, RoundsFloor, false_alarms, noise_floor
from runner.stats.shape import Shape, describe
from runner.stats.trend import effective_samples

__all__ = [
    "Answer",
    "Estimate",
    "Fit",
    "Interval",
    "Mode",
    "NoiseFloor",
    "Processes",
    "RoundsFloor",
    "Shape",
    "Statistic",
    "Verdict",
    "by_round",
    "compare",
    "describe",
    "effective_samples",
    "estimate",
    "false_alarms",
    "fit",
    "floor_at",
    "holm",
    "interval",
    "modes",
    "needs",
    "noise_floor",
    "quantile",
    "ratio_interval",
    "samples_needed",
    "winners_interval",
]
