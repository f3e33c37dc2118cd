"""Which combination of model, allocator, IPEX mode, ... is fastest on this CPU, is it real, and why.

The tree is the architecture; data flows one way, from the YAML to the report:

    config   -> matrix -> launch -> execute -> worker -> gate -> stats -> store, report

This file imports nothing, so that the worker can import ``runner.protocol.jobfile`` under any interpreter.
"""

__version__ = "0.1.0"
