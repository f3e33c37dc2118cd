"""Moved to runner.protocol.cell; goes once the branches are merged."""

from runner.protocol.cell import *  # noqa: F403
from runner.protocol.cell import ABSENT as ABSENT
from runner.protocol.cell import AXES as AXES
from runner.protocol.cell import INFERENCE as INFERENCE
