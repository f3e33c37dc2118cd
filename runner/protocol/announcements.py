"""How a worker says which phase begins: two FIFOs in the job's private folder, which the runner makes.

The worker writes the phase's name and a newline into PHASES. The runner answers with the first letter of each name in
HEARD, once it has shown it and is about to sleep again: before the timed window the worker waits for that.
"""

from __future__ import annotations

PHASES, HEARD = "phases", "phases-heard"

# A worker waits for an answer for at most this many seconds: a runner that is stopped must not keep it from measuring,
# and one that records what earlier jobs left may take a moment.
ANSWER_S = 5.0

# The phases that nobody may disturb: the timed loop, and the same again where others disturbed it.
MEASURE, MEASURE_AGAIN = "measure", "measure_again"
