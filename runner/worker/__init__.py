"""The process that holds the model. Imports torch, the standard library and ``runner.protocol.jobfile`` only."""
