"""The process that holds the model. It imports torch, the standard library and ``runner.protocol`` only."""
