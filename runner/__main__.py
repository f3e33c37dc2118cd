"""``python -m runner``, or ``runner``: a command where the first word names one, else a sweep (of one cell or many)."""

from __future__ import annotations

import gc
import os
import sys
import warnings

from runner import commands
from runner.commands import refusal
from runner.config import names
from runner.protocol.errors import RunnerError, StorageError


def main() -> int:
    """Exit status: 0 all ran, 1 some cell failed, 2 refused, 130 interrupted, 141 nobody reads what is printed."""
    # The collector would look through what is imported after every 700 objects: a quarter of MLflow's import.
    gc.set_threshold(100_000, 20, 20)
    if sys.warnoptions:  # PYTHONWARNINGS=error would make a failure of what a library will do in its next version
        warnings.simplefilter("ignore")
    try:
        words = sys.argv[1:]
        names.check_words(words)
        return commands.run(words)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell says of a process that SIGPIPE ended
    except KeyboardInterrupt:
        print("runner: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = str(error) if isinstance(error, RunnerError) else refusal.explain(error)
        if sentence is None:
            raise
        print(f"runner: {refusal.line(sentence)}", file=sys.stderr)
        return 1 if isinstance(error, StorageError) else 2


if __name__ == "__main__":
    sys.exit(main())
